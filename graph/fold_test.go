package graph_test

import (
	"slices"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/internal/opcase"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/rng"
)

// TestFoldingIntegersGivesWhatRunningGives folds every case whose operands are integers, as
// constants, and compares the contents that shape arithmetic gives with the interpreter's. It
// also holds every inferred type and shape against what a run gives. Each row is run, so one without a kernel fails.
func TestFoldingIntegersGivesWhatRunningGives(t *testing.T) {
	folded, ran := 0, map[string]bool{}
	for _, c := range opcase.All {
		t.Run(c.String(), func(t *testing.T) {
			g, in, err := c.Graph(graph.Float, rng.New(5, "fold"))
			if err != nil {
				t.Fatal(err)
			}
			want, err := interp.RunExact(g, in)
			if err != nil {
				t.Fatal(err)
			}
			ran[c.Op] = true
			for _, y := range g.Outputs {
				checkInferred(t, y, want[y.Name])
			}
			for _, v := range g.Inputs {
				if !v.Type.IsFloat() {
					v.Const = in[v.Name]
				}
			}
			for i, y := range g.Outputs {
				// Folding replaces what nodes read, so something has to read the output.
				out := &graph.Node{Op: "Identity", Name: "reader", Inputs: []*graph.Value{y}}
				out.Outputs = []*graph.Value{{Name: y.Name + ".read", Def: out}}
				g.Nodes, g.Outputs[i] = append(g.Nodes, out), out.Outputs[0]
			}
			if err := g.Fold(); err != nil {
				t.Fatal(err)
			}
			for i, y := range g.Outputs {
				if got := y.Def.Inputs[0].Const; got != nil {
					folded++
					a, err := graph.ArrayOf(got)
					if w := want["y"+string(rune('0'+i))]; err != nil || !slices.Equal(a.Data, w.Data) || !slices.Equal(a.Dims, w.Dims) {
						t.Errorf("folded to %v%v (%v), a run gives %v%v", a.Dims, a.Data, err, w.Dims, w.Data)
					}
				}
			}
		})
	}
	for op := range graph.Operators() {
		if !ran[op] {
			t.Errorf("operator %s has no case in opcase that its kernel runs", op)
		}
	}
	if folded < 20 {
		t.Errorf("%d outputs were folded, which is too few for this to say anything", folded)
	}
}

func checkInferred(t *testing.T, v *graph.Value, got graph.Array) {
	t.Helper()
	if v.Type != got.Type {
		t.Errorf("%s was inferred as %s, a run gives %s", v.Name, v.Type, got.Type)
	}
	if v.Shape == nil || len(v.Shape) != len(got.Dims) {
		t.Errorf("the shape of %s was inferred as %s, a run gives %v", v.Name, v.Shape, got.Dims)
		return
	}
	for i, d := range v.Shape {
		if n, known := d.Int(); known && int(n) != got.Dims[i] {
			t.Errorf("the shape of %s was inferred as %s, a run gives %v", v.Name, v.Shape, got.Dims)
		}
	}
}

// TestInferredShapesHoldInRunsOfOtherSizes runs one graph of each case on operands of two sizes: an
// extent that was inferred as a polynomial in the inputs' extents has to come out so in both.
func TestInferredShapesHoldInRunsOfOtherSizes(t *testing.T) {
	ran, extents, open := 0, 0, 0
	for _, c := range opcase.All {
		grown, before, after, ok := c.Grown()
		if !ok {
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			g, in, err := c.Graph(graph.Float, rng.New(5, "fold"))
			if err != nil {
				t.Fatal(err)
			}
			_, larger, err := grown.Graph(graph.Float, rng.New(5, "fold"))
			if err != nil {
				t.Skipf("operands of another size do not fit: %v", err)
			}
			for _, run := range []struct {
				in    map[string]*graph.Tensor
				sizes map[string]int64
			}{{in, before}, {larger, after}} {
				got, err := interp.RunExact(g, run.in)
				if err != nil {
					t.Skipf("operands of another size do not fit: %v", err)
				}
				ran++
				for _, y := range g.Outputs {
					dims := got[y.Name].Dims
					if len(dims) != len(y.Shape) {
						t.Fatalf("the shape of %s was inferred as %s, a run gives %v", y.Name, y.Shape, dims)
					}
					for i, d := range y.Shape {
						n, known := d.At(run.sizes)
						if extents++; !known {
							open++
						} else if int(n) != dims[i] {
							t.Errorf("with %v the shape of %s was inferred as %s, a run gives %v", run.sizes, y.Name, y.Shape, dims)
						}
					}
				}
			}
		})
	}
	t.Logf("%d runs, %d extents, %d of them left to the run", ran, extents, open)
	if ran < 200 || open*20 > extents {
		t.Errorf("%d runs with %d of %d extents left open, which is too few for this to say anything", ran, open, extents)
	}
}

// TestASizeInFloatsIsMadeOfAllOperands: the largest of three numbers, cast to an integer, is the largest, wherever it stands.
func TestASizeInFloatsIsMadeOfAllOperands(t *testing.T) {
	for _, sizes := range [][]float32{{7, 2, 3}, {2, 7, 3}, {2, 3, 7}} {
		g := &graph.Graph{Opset: map[string]int64{"": 20}}
		err := g.Build(func(b *graph.Builder) {
			var in []*graph.Value
			for _, x := range sizes {
				in = append(in, b.Const(graph.NewTensor([]float32{x})))
			}
			n := b.Op("Cast", graph.Attrs{"to": int64(graph.Int64)}, b.Op("Max", nil, in...))
			b.Output("n", b.Op("Identity", nil, n))
		})
		if err == nil {
			err = g.Fold()
		}
		if err != nil {
			t.Fatal(err)
		}
		folded := g.Output("n").Def.Inputs[0].Const
		if folded == nil {
			t.Fatalf("the largest of %v was not followed", sizes)
		}
		if got, err := graph.Values[int64](folded); err != nil || got[0] != 7 {
			t.Errorf("the largest of %v folds to %v (%v)", sizes, got, err)
		}
	}
}

// TestCountsInDoublesAndFromTheEndAreFollowed: a range of doubles has as many elements as its bounds say, and as many
// of the last places as there are is all of them.
func TestCountsInDoublesAndFromTheEndAreFollowed(t *testing.T) {
	g := &graph.Graph{Opset: map[string]int64{"": 20}}
	err := g.Build(func(b *graph.Builder) {
		x := b.Input("x", graph.Float, graph.Shape{graph.Sym("n"), graph.Known(4)})
		size := func(axis int64) *graph.Value {
			return b.Op("Shape", graph.Attrs{"start": axis, "end": axis + 1}, x)
		}
		double := func(v float64) *graph.Value { return b.Const(graph.NewTensor([]float64{v})) }
		side := b.Op("Cast", graph.Attrs{"to": int64(graph.Double)}, b.Op("Squeeze", nil, size(1), b.Ints(0)))
		b.Output("range", b.Op("Range", nil, double(0), side, double(1)))
		b.Output("last", b.Op("Slice", nil, x, b.Op("Neg", nil, size(0)), b.Ints(1<<62), b.Ints(0)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := g.Output("range").Shape; !s.Equal(graph.Shape{graph.Known(4)}) {
		t.Errorf("a range from 0 to 4 has shape %s", s)
	}
	if s := g.Output("last").Shape; !s.Equal(graph.Shape{graph.Sym("n"), graph.Known(4)}) {
		t.Errorf("the last n of n rows have shape %s", s)
	}
}
