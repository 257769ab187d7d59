package graph

import (
	"fmt"
	"strconv"

	"github.com/foretoken/foretoken/internal/errs"
)

// function is a model-local function: nodes that a call stands for.
type function struct {
	name            string
	inputs, outputs []string
	defaults        []field // attributes with a default
	nodes           []field
	opset           map[string]int64
}

func functionKey(domain, name, overload string) string {
	return domain + "\x00" + name + "\x00" + overload
}

// readFunction reads a FunctionProto.
func (l *loader) readFunction(f field) error {
	fn := &function{opset: map[string]int64{}}
	var domain, overload string
	err := fields(f.Bytes, f.Offset, func(f field) error {
		switch f.Num {
		case 1:
			fn.name = string(f.Bytes)
		case 4:
			fn.inputs = append(fn.inputs, string(f.Bytes))
		case 5:
			fn.outputs = append(fn.outputs, string(f.Bytes))
		case 7:
			fn.nodes = append(fn.nodes, f)
		case 9:
			domain, version, err := opsetID(f)
			fn.opset[domain] = version
			return err
		case 10:
			domain = cleanDomain(string(f.Bytes))
		case 11:
			fn.defaults = append(fn.defaults, f)
		case 13:
			overload = string(f.Bytes)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("function %q: %w", fn.name, err)
	}
	if fn.nodes, err = inOrder(fn.nodes); err != nil {
		return fmt.Errorf("function %q: %w", fn.name, err)
	}
	l.functions[functionKey(domain, fn.name, overload)] = fn
	return nil
}

// checkFunctions holds the functions' operator sets against the model's: one graph has one.
func (l *loader) checkFunctions(g *Graph) error {
	for _, fn := range l.functions {
		for domain, version := range fn.opset {
			have, ok := g.Opset[domain]
			if ok && have != version && domain == "" {
				return errs.New(errs.Unsupported, "function %q is written for opset %d, the model for %d: export without functions", fn.name, version, have)
			}
			if !ok {
				g.Opset[domain] = version
			}
		}
	}
	return nil
}

// call is one use of a function.
type call struct{ attrs map[string]Attr }

// attr finds an attribute of the call, or its default.
func (c *call) attr(name string) (Attr, bool) {
	if c == nil {
		return Attr{}, false
	}
	a, ok := c.attrs[name]
	return a, ok
}

// inline puts a function's nodes in the place of the node that calls it.
func (l *loader) inline(g *Graph, n *Node, fn *function, outputs []string, values *scope) error {
	if l.depth++; l.depth > maxDepth {
		return fmt.Errorf("functions are nested deeper than %d, at %q", maxDepth, fn.name)
	}
	defer func() { l.depth-- }()
	if l.nodes += len(fn.nodes); l.nodes > maxNodes {
		return errs.New(errs.TooLarge, "more than %d nodes", maxNodes)
	}
	if len(outputs) > len(fn.outputs) || len(n.Inputs) > len(fn.inputs) {
		return fmt.Errorf("node %q calls function %q with %d inputs for %d outputs; it has %d and %d", n.Name, fn.name, len(n.Inputs), len(outputs), len(fn.inputs), len(fn.outputs))
	}
	withDefaults := &Node{Attrs: map[string]Attr{}}
	for _, f := range fn.defaults {
		if err := l.attr(g, withDefaults, f, values); err != nil {
			return fmt.Errorf("function %q: %w", fn.name, err)
		}
	}
	for name, a := range n.Attrs {
		withDefaults.Attrs[name] = a
	}
	l.calls++
	body := &scope{own: map[string]*Value{}, prefix: values.prefix + fn.name + "." + strconv.Itoa(l.calls) + "/"}
	for i, x := range n.Inputs {
		if x != nil {
			body.own[fn.inputs[i]] = x
		}
	}
	outer := l.call
	l.call = &call{withDefaults.Attrs}
	defer func() { l.call = outer }()
	for _, f := range fn.nodes {
		if err := l.node(g, f, body); err != nil {
			return fmt.Errorf("in function %q: %w", fn.name, err)
		}
	}
	for i, name := range outputs {
		if name == "" {
			continue
		}
		v := body.own[fn.outputs[i]]
		if v == nil {
			return fmt.Errorf("function %q does not define its output %q", fn.name, fn.outputs[i])
		}
		result := newNode("Identity", nil, []*Value{v})
		if err := define(g, result, []string{name}, values); err != nil {
			return err
		}
	}
	return nil
}
