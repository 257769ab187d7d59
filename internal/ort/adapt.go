package ort

import (
	"slices"

	"github.com/foretoken/foretoken/graph"
)

// adapt returns the graph in a form that the wrapper can pass tensors to and from, and the names
// of the outputs that were scalars. The wrapper knows no tensors of rank 0, so these are [1] at
// the graph's edge, and it cannot read half floats, so these leave as floats. Other graphs are
// returned as they are, and so are those whose shapes can't be inferred: graphs of opsets below
// the 18 that loading brings them to, and broken ones, of which the runtime's own words say more.
func adapt(g *graph.Graph) (*graph.Graph, map[string]bool) {
	if g.Opset[""] < 18 {
		return g, nil
	}
	fit := g.Clone()
	a := &adapter{scalars: map[string]bool{}}
	if err := fit.Build(func(b *graph.Builder) { a.edges(b, fit, g.Outputs) }); err != nil || !a.changed {
		return g, nil
	}
	return fit, a.scalars
}

type adapter struct {
	scalars map[string]bool
	changed bool
}

// edges changes the inputs and outputs. declared are the outputs as the caller knows them, with
// shapes that inference may not find where it does not know an operator.
func (a *adapter) edges(b *graph.Builder, g *graph.Graph, declared []*graph.Value) {
	for i, v := range slices.Clone(g.Inputs) {
		if v.Shape != nil && len(v.Shape) == 0 {
			a.input(b, g, i)
		}
	}
	for i, v := range g.Outputs {
		if v.Def == nil {
			continue
		}
		v.Type, v.Shape = declared[i].Type, declared[i].Shape
		out := v
		if v.Type == graph.Float16 || v.Type == graph.BFloat16 {
			out = b.Op("Cast", graph.Attrs{"to": int64(graph.Float)}, out)
		}
		if v.Shape != nil && len(v.Shape) == 0 {
			a.scalars[v.Name] = true
			out = b.Op("Reshape", nil, out, b.Ints(1))
		}
		if out != v {
			a.changed = true
			out.Name, v.Name = v.Name, out.Name
			g.Outputs[i] = out
		}
	}
}

// input makes a scalar input one of shape [1], squeezed ahead of all other nodes.
func (a *adapter) input(b *graph.Builder, g *graph.Graph, i int) {
	scalar := g.Inputs[i]
	wide := &graph.Value{Name: scalar.Name, Type: scalar.Type, Shape: graph.Shape{graph.Known(1)}}
	squeezed := b.Op("Squeeze", nil, wide)
	n := squeezed.Def
	n.Outputs[0], scalar.Def, scalar.Name = scalar, n, squeezed.Name
	g.Inputs[i] = wide
	g.Nodes = slices.Insert(g.Nodes[:len(g.Nodes)-1], 0, n)
	a.changed = true
}
