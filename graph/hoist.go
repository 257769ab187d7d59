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
	for _, v := range found {
		in := &Value{Name: rest.freshName("ahead"), Type: v.Type, Shape: v.Shape}
		rest.Inputs = append(rest.Inputs, in)
		rest.replaceUses(to[v], in, 0)
		v.Name = in.Name
	}
	if err := rest.cut(); err != nil {
		return nil, nil, err
	}
	ahead.Outputs = slices.DeleteFunc(found, func(v *Value) bool { return rest.Input(v.Name) == nil })
	return ahead, rest, ahead.cut()
}

// cut leaves out what no output needs.
func (g *Graph) cut() error {
	g.Prune()
	g.PruneInputs()
	return finish(g)
}

// follows lists the floats that are computed from the input and constants alone, have its rows, and are read by what
// is not, or for their extents: those are wanted beside the input's own where they are read by the rest.
func (g *Graph) follows(input *Value) []*Value {
	only, fixed := map[*Value]bool{input: true}, map[*Value]bool{} // fixed: computed from constants, such as weights that are cast
	var found []*Value
	for _, n := range g.Nodes {
		all, some := len(n.reads()) > 0 && len(n.graphs()) == 0, false
		for _, v := range n.reads() {
			all = all && (v == nil || v.IsConst() || fixed[v] || only[v])
			some = some || only[v]
		}
		for _, v := range n.Outputs {
			only[v], fixed[v] = v != nil && all && some, v != nil && all && !some
		}
		if all && n.Op != "Shape" {
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
