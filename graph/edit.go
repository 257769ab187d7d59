package graph

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// New returns an empty graph in the operator forms of opset 18, to build in.
func New() *Graph {
	return &Graph{Name: "foretoken", Opset: map[string]int64{"": canonicalOpset}, IRVersion: 8, Metadata: map[string]string{}}
}

// Clone copies the graph; weights are shared, values and nodes are not.
func (g *Graph) Clone() *Graph {
	c, _ := g.CloneMap()
	return c
}

// CloneMap is [Graph.Clone] and says which value of the copy stands for which of g.
func (g *Graph) CloneMap() (*Graph, map[*Value]*Value) {
	to := map[*Value]*Value{}
	return g.cloneInto(to), to
}

// cloneInto copies the graph; values that to knows already are an enclosing graph's.
func (g *Graph) cloneInto(to map[*Value]*Value) *Graph {
	c := *g
	c.Opset, c.Metadata = maps.Clone(g.Opset), maps.Clone(g.Metadata)
	c.Inputs = cloneValues(g.Inputs, to)
	c.Nodes = make([]*Node, len(g.Nodes))
	for i, n := range g.Nodes {
		m := *n
		m.Inputs, m.Outputs, m.Attrs = cloneValues(n.Inputs, to), cloneValues(n.Outputs, to), maps.Clone(n.Attrs)
		for name, a := range m.Attrs {
			if sub, ok := a.Value.(*Graph); ok {
				m.Attrs[name] = Attr{sub.cloneInto(to)}
			}
		}
		for _, v := range m.Outputs {
			if v != nil {
				v.Def = &m
			}
		}
		c.Nodes[i] = &m
	}
	c.Outputs = cloneValues(g.Outputs, to)
	c.cloneParts(to)
	return &c
}

func cloneValues(vs []*Value, to map[*Value]*Value) []*Value {
	out := make([]*Value, len(vs))
	for i, v := range vs {
		if v == nil {
			continue
		}
		if to[v] == nil {
			c := *v
			to[v] = &c
		}
		out[i] = to[v]
	}
	return out
}

// Prune drops the nodes that no output needs. Inputs stay.
func (g *Graph) Prune() {
	need := map[*Node]bool{}
	for open := slices.Clone(g.Outputs); len(open) > 0; {
		v := open[len(open)-1]
		open = open[:len(open)-1]
		if v != nil && v.Def != nil && !need[v.Def] {
			need[v.Def] = true
			open = append(append(open, v.Def.Inputs...), v.Def.captured()...)
		}
	}
	g.Nodes = slices.DeleteFunc(g.Nodes, func(n *Node) bool { return !need[n] })
}

// PruneInputs drops the inputs that no node reads and no output is.
func (g *Graph) PruneInputs() {
	used := map[*Value]bool{}
	for _, n := range g.Nodes {
		for _, v := range n.reads() {
			used[v] = true
		}
	}
	g.Inputs = slices.DeleteFunc(g.Inputs, func(v *Value) bool { return !used[v] && !slices.Contains(g.Outputs, v) })
}

// reads lists the values that the node reads, those by its sub-graphs included.
func (n *Node) reads() []*Value {
	if inner := n.captured(); len(inner) > 0 {
		return slices.Concat(n.Inputs, inner)
	}
	return n.Inputs
}

// captured lists the values of the enclosing graph that the node's sub-graphs read.
func (n *Node) captured() []*Value {
	var out []*Value
	for _, sub := range n.graphs() {
		for _, m := range sub.Nodes {
			out = append(out, m.Inputs...)
			out = append(out, m.captured()...)
		}
		out = append(out, sub.Outputs...)
	}
	return out
}

// Only returns a copy of the graph that computes just the named output.
func (g *Graph) Only(output string) (*Graph, error) {
	c := g.Clone()
	v := c.Output(output)
	if v == nil {
		return nil, errs.New(errs.Invalid, "the graph has no output %q (it has %s)", output, names(c.Outputs))
	}
	c.Outputs = []*Value{v}
	c.Prune()
	c.PruneInputs()
	return c, nil
}

// Output finds an output by name, nil when there is none.
func (g *Graph) Output(name string) *Value { return find(g.Outputs, name) }

// Input finds an input by name, nil when there is none.
func (g *Graph) Input(name string) *Value { return find(g.Inputs, name) }

func find(vs []*Value, name string) *Value {
	if i := slices.IndexFunc(vs, func(v *Value) bool { return v.Name == name }); i >= 0 {
		return vs[i]
	}
	return nil
}

// replaceUses makes every node after position from, and the outputs, read new for old.
func (g *Graph) replaceUses(old, with *Value, from int) {
	for _, n := range g.Nodes[from:] {
		replaceIn(n.Inputs, old, with)
	}
	replaceIn(g.Outputs, old, with)
}

func replaceIn(vs []*Value, old, with *Value) {
	for i, v := range vs {
		if v == old {
			vs[i] = with
		}
	}
}

// position is the index of the node that defines v, -1 for inputs and constants.
func (g *Graph) position(v *Value) int { return slices.Index(g.Nodes, v.Def) }

// freshName returns a name that no value of the graph has. Names that we make carry the
// prefix "ft." and a number; loading starts the count above those in the file.
func (g *Graph) freshName(what string) string {
	g.fresh++
	return "ft." + what + "." + strconv.Itoa(g.fresh)
}

// freeName makes a name available to an input or output of ours: an inner value that bears
// it gets another.
func (g *Graph) freeName(name string) {
	for v := range g.values() {
		if v != nil && v.Name == name && !slices.Contains(g.Inputs, v) {
			v.Name = g.freshName(name)
		}
	}
}

// countFresh starts the count of fresh names above those already used.
func (g *Graph) countFresh() {
	for v := range g.values() {
		if rest, ours := strings.CutPrefix(v.Name, "ft."); ours {
			if n, err := strconv.Atoi(rest[strings.LastIndexByte(rest, '.')+1:]); err == nil {
				g.fresh = max(g.fresh, n)
			}
		}
	}
}

func (g *Graph) valueNames() map[string]bool {
	taken := map[string]bool{}
	for v := range g.values() {
		taken[v.Name] = true
	}
	return taken
}

// values yields every value: inputs, constants and what nodes define, each at least once.
func (g *Graph) values() func(func(*Value) bool) {
	return func(yield func(*Value) bool) {
		for _, vs := range [][]*Value{g.Inputs, g.Outputs} {
			for _, v := range vs {
				if !yield(v) {
					return
				}
			}
		}
		for _, n := range g.Nodes {
			for _, v := range slices.Concat(n.Inputs, n.Outputs, n.captured()) {
				if v != nil && !yield(v) {
					return
				}
			}
		}
	}
}

// Merge puts two graphs side by side into one, for a loss over both: inputs and outputs
// of a come first. Names that both use are changed in b, graph inputs excepted: two inputs
// of one name are an error.
func Merge(a, b *Graph) (*Graph, error) {
	m, other := a.Clone(), b.Clone()
	for _, v := range other.Inputs {
		if m.Input(v.Name) != nil {
			return nil, errs.New(errs.Invalid, "both graphs have an input %q", v.Name)
		}
		m.freeName(v.Name)
	}
	taken := m.valueNames()
	done := map[*Value]bool{}
	for v := range other.values() {
		if !done[v] {
			done[v] = true
			for i := 0; taken[v.Name] && v.Name != ""; i++ {
				v.Name = v.Name + ".b" + strconv.Itoa(i)
			}
			taken[v.Name] = true
		}
	}
	for domain, version := range other.Opset {
		m.Opset[domain] = max(m.Opset[domain], version)
	}
	m.fresh = max(m.fresh, other.fresh)
	m.Inputs = append(m.Inputs, other.Inputs...)
	m.Outputs = append(m.Outputs, other.Outputs...)
	m.Nodes = append(m.Nodes, other.Nodes...)
	return m, nil
}

func names(vs []*Value) string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = v.Name
	}
	return fmt.Sprintf("%q", out)
}

// Constants yields each constant value once.
func (g *Graph) Constants() func(func(*Value) bool) {
	return func(yield func(*Value) bool) {
		seen := map[*Value]bool{}
		for v := range g.values() {
			if v.Const != nil && !seen[v] {
				seen[v] = true
				if !yield(v) {
					return
				}
			}
		}
	}
}

// Feed makes what reads the named input read v instead, and drops the input: behind [Merge], one graph's
// output becomes another's input. v has to be of the input's type, and to be defined ahead of the input's readers.
func (g *Graph) Feed(input string, v *Value) error {
	in := g.Input(input)
	switch {
	case in == nil:
		return errs.New(errs.Invalid, "the graph has no input %q (it has %s)", input, names(g.Inputs))
	case in.Type != v.Type:
		return errs.New(errs.Invalid, "input %q is %s; %q, which it is to be, is %s", input, in.Type, v.Name, v.Type)
	}
	from := g.position(v) + 1
	for _, n := range g.Nodes[:from] {
		if slices.Contains(n.reads(), in) {
			return errs.New(errs.Invalid, "node %q (%s) reads input %q ahead of %q, which it is to be", n.Name, n.Op, input, v.Name)
		}
	}
	g.replaceUses(in, v, from)
	g.Inputs = slices.DeleteFunc(g.Inputs, func(x *Value) bool { return x == in })
	return nil
}

// Value finds any value by name, an inner one too; nil when there is none.
func (g *Graph) Value(name string) *Value {
	for v := range g.values() {
		if v.Name == name {
			return v
		}
	}
	return nil
}
