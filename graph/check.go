package graph

import (
	"fmt"
	"slices"
	"strings"
)

// Check verifies the form that every pass relies on: nodes in topological order, each
// value defined once and under a name of its own, outputs that exist.
func (g *Graph) Check() error {
	defined := map[*Value]bool{}
	byName := map[string]*Value{}
	define := func(v *Value, where string) error {
		if old := byName[v.Name]; defined[v] || old != nil && old != v {
			return fmt.Errorf("value %q is defined twice, the second time by %s", v.Name, where)
		}
		defined[v], byName[v.Name] = true, v
		return nil
	}
	for _, v := range g.Inputs {
		if err := define(v, "the inputs"); err != nil {
			return err
		}
	}
	for i, n := range g.Nodes {
		for _, v := range n.Inputs {
			if v != nil && v.Const == nil && !defined[v] {
				return fmt.Errorf("node %d (%s %q) reads %q before it is defined", i, n.Op, n.Name, v.Name)
			}
		}
		for _, v := range n.Outputs {
			if v == nil {
				continue
			}
			if v.Def != n {
				return fmt.Errorf("value %q does not name its node %s %q", v.Name, n.Op, n.Name)
			}
			if err := define(v, n.Op+" "+n.Name); err != nil {
				return err
			}
		}
	}
	for _, v := range g.Outputs {
		if v.Const == nil && !defined[v] {
			return fmt.Errorf("output %q is defined nowhere", v.Name)
		}
	}
	return nil
}

// String writes the graph in a stable text form, a line a node, for tests and people.
func (g *Graph) String() string {
	var b strings.Builder
	for _, v := range g.Inputs {
		fmt.Fprintf(&b, "input  %s\n", describe(v))
	}
	for _, n := range g.Nodes {
		fmt.Fprintf(&b, "%s = %s(%s)%s\n", list(n.Outputs, describe), n.Op, list(n.Inputs, operand), attributes(n))
	}
	for _, v := range g.Outputs {
		fmt.Fprintf(&b, "output %s\n", describe(v))
	}
	return b.String()
}

func list(vs []*Value, one func(*Value) string) string {
	parts := make([]string, len(vs))
	for i, v := range vs {
		parts[i] = one(v)
	}
	return strings.Join(parts, ", ")
}

func describe(v *Value) string {
	if v == nil {
		return "_"
	}
	return fmt.Sprintf("%s:%s%s", v.Name, v.Type, v.Shape)
}

// operand names a value; a small integer constant is written out.
func operand(v *Value) string {
	if v == nil {
		return "_"
	}
	if v.Const != nil && v.Const.Type == Int64 && v.Const.Len() <= 8 && v.Const.InMemory() {
		if n, err := Values[int64](v.Const); err == nil {
			return fmt.Sprint(n)
		}
	}
	if v.Const != nil {
		return describe(v)
	}
	return v.Name
}

func attributes(n *Node) string {
	var parts []string
	for name, a := range n.Attrs {
		switch v := a.Value.(type) {
		case *Graph:
			parts = append(parts, name+"=graph")
		case *Tensor:
			parts = append(parts, fmt.Sprintf("%s=%s%v", name, v.Type, v.Dims))
		default:
			parts = append(parts, fmt.Sprintf("%s=%v", name, v))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return " {" + strings.Join(parts, " ") + "}"
}
