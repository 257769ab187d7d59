package graph

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// Hoist splits off what follows from one input alone, such as the keys and values that a decoder's cross attention makes of an
// encoder's states, which are the same for every token. ahead computes them from the input; rest takes them as further inputs, by
// the names of ahead's outputs, and computes what the graph does. Only floats with a row for each row of the input are split
// off, so that rows can be reordered in between; rest takes the input itself too where it needs its extents. Where there is
// nothing to split off, both are nil. The graph's shapes have to be inferred.
func (g *Graph) Hoist(input string) (ahead, rest *Graph, err error) {
	defer recoverBail(&err)
	if g.Input(input) == nil {
		return nil, nil, errs.New(errs.Invalid, "the graph has no input %q (it has %s)", input, names(g.Inputs))
	}
	ahead = g.Clone()
	found := ahead.follows(ahead.Input(input))
	if len(found) == 0 {
		return nil, nil, nil
	}
	rest, to := ahead.CloneMap()
	ahead.Outputs = found
	for _, v := range found {
		in := &Value{Name: rest.freshName("ahead"), Type: v.Type, Shape: v.Shape}
		rest.Inputs = append(rest.Inputs, in)
		rest.replaceUses(to[v], in, 0)
		v.Name = in.Name
	}
	for _, part := range []*Graph{ahead, rest} {
		part.Prune()
		part.PruneInputs()
		if err := finish(part); err != nil {
			return nil, nil, err
		}
	}
	return ahead, rest, nil
}

// follows lists the floats that are computed from the input and constants alone, have its rows, and are read by what
// is not.
func (g *Graph) follows(input *Value) []*Value {
	only := map[*Value]bool{input: true}
	var found []*Value
	for _, n := range g.Nodes {
		all, some := true, false
		for _, v := range n.reads() {
			all = all && (v == nil || v.IsConst() || only[v])
			some = some || only[v]
		}
		if all && some && len(n.graphs()) == 0 {
			for _, v := range n.Outputs {
				only[v] = v != nil
			}
			continue
		}
		for _, v := range n.reads() {
			if v != input && only[v] && v.Type == Float && len(v.Shape) > 1 && v.Shape[0].Equal(input.Shape[0]) && !slices.Contains(found, v) && !slices.Contains(g.Outputs, v) {
				found = append(found, v)
			}
		}
	}
	return found
}
