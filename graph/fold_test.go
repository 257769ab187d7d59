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
// also holds every inferred type and shape against what a run gives.
func TestFoldingIntegersGivesWhatRunningGives(t *testing.T) {
	folded := 0
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
					a, err := interp.FromTensor(got)
					if w := want["y"+string(rune('0'+i))]; err != nil || !slices.Equal(a.Data, w.Data) || !slices.Equal(a.Dims, w.Dims) {
						t.Errorf("folded to %v%v (%v), a run gives %v%v", a.Dims, a.Data, err, w.Dims, w.Data)
					}
				}
			}
		})
	}
	if folded < 20 {
		t.Errorf("%d outputs were folded, which is too few for this to say anything", folded)
	}
}

func checkInferred(t *testing.T, v *graph.Value, got interp.Array) {
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
