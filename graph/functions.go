package graph

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/foretoken/foretoken/internal/errs"
)

// function is a model-local function: nodes that a call stands for.
type function struct {
	name            string
	inputs, outputs []string
	defaults        []field // attributes with a default
	nodes           []field
	size            int // of the nodes, in bytes
	opset           map[string]int64
}

// mostInlined is how many bytes of function bodies are put in place of calls: functions that call
// functions stand for much more than a file holds.
func mostInlined(file int) int { return 4<<20 + 64*file }

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
			fn.nodes, fn.size = append(fn.nodes, f), fn.size+len(f.Bytes)
		case 9:
			domain, version, err := opsetID(f)
			fn.opset[domain] = version
			return err
		case 10:
			domain = cleanDomain(string(f.Bytes))
		case 11:
			fn.defaults, fn.size = append(fn.defaults, f), fn.size+len(f.Bytes)
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

// call is one use of a function.
type call struct {
	attrs   map[string]Attr
	version int64 // the opset that the function is written for
}

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
	if len(outputs) > len(fn.outputs) || len(n.Inputs) > len(fn.inputs) {
		return fmt.Errorf("node %q calls function %q with %d inputs for %d outputs; it has %d and %d", n.Name, fn.name, len(n.Inputs), len(outputs), len(fn.inputs), len(fn.outputs))
	}
	if err := l.count(fn, len(outputs)); err != nil {
		return err
	}
	made, err := l.newCall(g, n, fn, values)
	if err != nil {
		return err
	}
	outer := l.call
	l.call = made
	defer func() { l.call = outer }()
	body := l.bodyScope(n, fn, values.prefix)
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

// count holds what a call adds against the limits.
func (l *loader) count(fn *function, outputs int) error {
	l.calls++
	if l.nodes += len(fn.nodes) + outputs; l.nodes > maxNodes {
		return errs.New(errs.TooLarge, "more than %d nodes, those of function %q among them", maxNodes, fn.name)
	}
	if l.inlined += fn.size; l.inlined > l.most {
		return errs.New(errs.TooLarge, "calls of functions stand for more than %d bytes of nodes, at %q", l.most, fn.name)
	}
	return nil
}

// newCall is the call that node n makes: its attributes, and the function's defaults.
func (l *loader) newCall(g *Graph, n *Node, fn *function, values *scope) (*call, error) {
	given := &Node{Attrs: map[string]Attr{}}
	for _, f := range fn.defaults {
		if err := l.attr(g, given, f, values); err != nil {
			return nil, fmt.Errorf("function %q: %w", fn.name, err)
		}
	}
	maps.Copy(given.Attrs, n.Attrs)
	version, ok := fn.opset[""]
	if !ok {
		version = g.Opset[""]
	}
	if version < minOpset || version > maxOpset {
		return nil, errs.New(errs.Unsupported, "function %q is written for opset %d; %d to %d are read", fn.name, version, minOpset, maxOpset)
	}
	for domain, version := range fn.opset {
		if _, ok := g.Opset[domain]; !ok {
			g.Opset[domain] = version
		}
	}
	return &call{given.Attrs, version}, nil
}

// bodyScope holds the function's inputs. Names within get a prefix of their own for each call.
func (l *loader) bodyScope(n *Node, fn *function, prefix string) *scope {
	body := &scope{own: map[string]*Value{}, absent: map[string]bool{}, prefix: prefix + fn.name + "." + strconv.Itoa(l.calls) + "/"}
	for i, name := range fn.inputs {
		if x := n.Input(i); x != nil {
			body.own[name] = x
		} else {
			body.absent[name] = true
		}
	}
	return body
}
