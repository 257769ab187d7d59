package graph_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// TestWhatFollowsFromAnEncoderIsComputedAhead runs decoders whole, and in the two parts.
func TestWhatFollowsFromAnEncoderIsComputedAhead(t *testing.T) {
	ran := 0
	for name, d := range free(decoders(t)) {
		if d.Encoder == nil {
			continue
		}
		ran++
		castWeights(d.Graph)
		t.Run(name, func(t *testing.T) {
			ahead, rest, err := d.Graph.Hoist(d.Encoder.Name)
			if err != nil || ahead == nil {
				t.Fatalf("nothing is computed ahead (%v)", err)
			}
			crossed := 0
			for _, l := range d.Layers {
				if l.Cross {
					crossed++
				}
			}
			if len(ahead.Outputs) < 2*crossed { // one more where the export makes a mask of the states
				t.Errorf("%d values are computed ahead, for %d layers of cross attention", len(ahead.Outputs), crossed)
			}
			for _, n := range rest.Nodes {
				if n.Op != "Shape" && slices.Contains(n.Inputs, rest.Input(d.Encoder.Name)) {
					t.Errorf("%s still works on the states", n.Outputs[0].Name)
				}
			}
			in := spoken(d, words("text", 2, 5), nil)
			want := run(t, d.Graph, maps.Clone(in))
			known := run(t, ahead, only(ahead, maps.Clone(in)))
			for _, v := range ahead.Outputs {
				in[v.Name] = tensorOf(known[v.Name])
			}
			nearArrays(t, "logits", run(t, rest, only(rest, in))["logits"], want["logits"])
		})
	}
	if ran < 3 {
		t.Errorf("%d decoders look at an encoder", ran)
	}
	g, err := tiny{}.sized().decoder(false, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.Hoist("nowhere"); errs.Of(err) != errs.Invalid {
		t.Errorf("an input that is not there: %v", err)
	}
}

// castWeights has the decoder's products read their weights through a Cast, as from half floats.
func castWeights(g *graph.Graph) {
	var casts []*graph.Node
	for _, n := range g.Nodes {
		if w := n.Input(1); (n.Op == "MatMul" || n.Op == "Gemm") && w.IsConst() {
			y := &graph.Value{Name: fmt.Sprintf("cast.%d", len(casts)), Type: graph.Float, Shape: w.Shape}
			y.Def = &graph.Node{Op: "Cast", Inputs: []*graph.Value{w}, Outputs: []*graph.Value{y}, Attrs: map[string]graph.Attr{"to": {Value: int64(graph.Float)}}}
			casts = append(casts, y.Def)
			n.Inputs[1] = y
		}
	}
	g.Nodes = append(casts, g.Nodes...)
}
