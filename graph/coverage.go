package graph

import (
	"cmp"
	"slices"
)

// OperatorUse is an operator of a graph and whether gradients pass it.
type OperatorUse struct {
	Op    string // "Op" or "domain.Op"
	Nodes int
	// OnPath is how many of the nodes lie between the values that gradients are wanted for and the
	// outputs, on paths of floats: the ones that a gradient has to pass.
	OnPath   int
	Gradient bool   // the table has a gradient for it
	First    string // the name of the first node on the path, else of the first
}

// Refused says whether a gradient is wanted where there is none.
func (u OperatorUse) Refused() bool { return u.OnPath > 0 && !u.Gradient }

// Coverage lists the graph's operators, the most frequent first, as seen from the values that gradients
// are wanted for. Types have to be known: see [Graph.Infer]; what an operator without a row gives is taken for
// floats.
func (g *Graph) Coverage(wrt ...*Value) []OperatorUse {
	active := onPaths(g, g.Outputs, wrt, func(v *Value) bool { return v.Type.IsFloat() || v.Type == Undefined })
	is := func(v *Value) bool { return active[v] }
	uses := map[string]*OperatorUse{}
	var out []*OperatorUse
	for _, n := range g.Nodes {
		u := uses[key(n)]
		if u == nil {
			u = &OperatorUse{Op: key(n), Gradient: table[key(n)].grad != nil, First: n.Name}
			uses[u.Op] = u
			out = append(out, u)
		}
		u.Nodes++
		if slices.ContainsFunc(n.Outputs, is) && slices.ContainsFunc(n.reads(), is) {
			if u.OnPath == 0 {
				u.First = n.Name
			}
			u.OnPath++
		}
	}
	slices.SortStableFunc(out, func(a, b *OperatorUse) int {
		return cmp.Or(cmp.Compare(b.Nodes, a.Nodes), cmp.Compare(a.Op, b.Op))
	})
	list := make([]OperatorUse, len(out))
	for i, u := range out {
		list[i] = *u
	}
	return list
}
