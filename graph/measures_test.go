package graph_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/foretoken/foretoken/graph"
)

// TestHeadsAndPatchesAreFoundInEveryExport: however attention and layout are written.
func TestHeadsAndPatchesAreFoundInEveryExport(t *testing.T) {
	all := maps.Clone(exports)
	maps.Copy(all, spellings)
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			s := s.sized()
			s.heads = 4 // not the number of anything else
			tower := imageTower(t, s)
			if got := tower.Heads(); got != int(s.heads) {
				t.Errorf("%d heads, want %d", got, s.heads)
			}
			if rows, columns := tower.Grid(); rows != 1 || columns != int(s.tokens-1) {
				t.Errorf("%d x %d patches, want 1 x %d", rows, columns, s.tokens-1)
			}
		})
	}
}

func TestCoverageTellsThePathFromTheRest(t *testing.T) {
	g := path(t, "Exp first", "Hardmax the-best", "Add joined +", "Hardmax second", "ReduceSum last")
	if err := g.Infer(); err != nil {
		t.Fatal(err)
	}
	want := []graph.OperatorUse{
		{Op: "Hardmax", Nodes: 2, OnPath: 2, First: "the-best"},
		{Op: "Add", Nodes: 1, OnPath: 1, Gradient: true, First: "joined"},
		{Op: "Exp", Nodes: 1, OnPath: 1, Gradient: true, First: "first"},
		{Op: "ReduceSum", Nodes: 1, OnPath: 1, Gradient: true, First: "last"},
	}
	if got := g.Coverage(g.Inputs...); !slices.Equal(got, want) {
		t.Errorf("from the input: %+v", got)
	}
	inner := g.Nodes[3].Outputs[0]
	for _, u := range g.Coverage(inner) {
		if on := u.Op == "ReduceSum"; u.OnPath > 0 != on {
			t.Errorf("from the second Hardmax: %+v", u)
		}
		if u.Refused() {
			t.Errorf("%s is not on the path and refused", u.Op)
		}
	}
}

func TestAnOutputIsOfTheKindOfWhatItIsComputedFrom(t *testing.T) {
	build := func(f func(b *graph.Builder)) *graph.Graph {
		g := graph.New()
		if err := g.Build(f); err != nil {
			t.Fatal(err)
		}
		return g
	}
	images := func(b *graph.Builder) *graph.Value {
		return b.Input("images", graph.Float, graph.Shape{graph.Sym("b"), graph.Known(3), graph.Known(4), graph.Known(4)})
	}
	words := func(b *graph.Builder) *graph.Value {
		ids := b.Input("ids", graph.Int64, graph.Shape{graph.Sym("t"), graph.Sym("s")})
		return b.Op("Gather", nil, b.Const(graph.NewTensor(make([]float32, 11*4), 11, 4)), ids)
	}
	tests := map[string]struct {
		g    *graph.Graph
		want graph.Kind
	}{
		"images alone":  {build(func(b *graph.Builder) { b.Output("y", b.Mean(images(b), false, 2, 3)) }), graph.KindImage},
		"texts alone":   {build(func(b *graph.Builder) { b.Output("y", b.Mean(words(b), false, 1)) }), graph.KindText},
		"tokens' width": {build(func(b *graph.Builder) { b.Output("y", words(b)) }), graph.KindText},
		"tokens' scores": {build(func(b *graph.Builder) {
			b.Output("y", b.MatMul(words(b), b.Const(graph.NewTensor(make([]float32, 44), 4, 11))))
		}), graph.KindDecoder},
		"images and texts": {build(func(b *graph.Builder) {
			b.Output("y", b.Mul(b.Mean(images(b), false, 0, 1, 2, 3), b.Mean(words(b), false, 0, 1)))
		}), graph.KindJoint},
		"images and a number": {build(func(b *graph.Builder) {
			b.Output("y", b.Mul(images(b), b.Input("step", graph.Float, graph.Shape{graph.Known(1)})))
		}), graph.KindOther},
		"keys of a layer": {build(func(b *graph.Builder) { b.Output("y", b.Op("Unsqueeze", nil, words(b), b.Ints(1))) }), graph.KindOther},
		"past keys": {build(func(b *graph.Builder) {
			b.Output("y", b.Input("past", graph.Float, graph.Shape{graph.Sym("b"), graph.Known(2), graph.Sym("past"), graph.Known(4)}))
		}), graph.KindOther},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := graph.KindOf(tt.g, "y")
			if err != nil || got != tt.want {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
}
