package interp_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
)

// one is a graph of a single node on x and y, whose shapes are not looked at before it runs.
func one(op string) *graph.Graph {
	x, y := &graph.Value{Name: "x", Type: graph.Float}, &graph.Value{Name: "y", Type: graph.Float}
	n := &graph.Node{Op: op, Name: "the-node", Inputs: []*graph.Value{x, y}}
	out := &graph.Value{Name: "out", Def: n}
	n.Outputs = []*graph.Value{out}
	return &graph.Graph{Inputs: []*graph.Value{x, y}, Outputs: []*graph.Value{out}, Nodes: []*graph.Node{n}}
}

func TestWhatCannotBeInterpretedIsAnErrorThatNamesTheNode(t *testing.T) {
	x, y := graph.NewTensor([]float32{1, 2, 3}, 3), graph.NewTensor([]float32{1, 2}, 2)
	tests := []struct {
		name, op string
		in       map[string]*graph.Tensor
		want     []string
	}{
		{"an input is missing", "Add", map[string]*graph.Tensor{"x": x}, []string{`input "y" is missing`}},
		{"shapes do not go together", "Add", map[string]*graph.Tensor{"x": x, "y": y}, []string{"the-node", "do not go together"}},
		{"a product of unlike vectors", "MatMul", map[string]*graph.Tensor{"x": x, "y": y}, []string{"the-node", "matmul of"}},
		{"an operator without a kernel", "NoSuchOperator", map[string]*graph.Tensor{"x": x, "y": x}, []string{"the-node", "no kernel"}},
		{"an index beyond the end", "Gather", map[string]*graph.Tensor{"x": y, "y": x}, []string{"the-node", "index 2 of 2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := interp.Run(one(tt.op), tt.in)
			if err == nil {
				t.Fatal("it ran")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, which should say %q", err, want)
				}
			}
		})
	}
	_, err := interp.Run(one("NoSuchOperator"), map[string]*graph.Tensor{"x": x, "y": x})
	if errs.Of(err) != errs.Unsupported {
		t.Errorf("an operator without a kernel is an error of kind %s", errs.Of(err))
	}
}

// TestWhatIsNoNumberIsNoneTimesNothing: MPNet's distances, as TensorFlow writes them, are the logarithm of 0 as an integer, times 0.
func TestWhatIsNoNumberIsNoneTimesNothing(t *testing.T) {
	for _, to := range []graph.DataType{graph.Int32, graph.Int64, graph.Uint8} {
		g := graph.New()
		err := g.Build(func(b *graph.Builder) {
			x := b.Op("Cast", graph.Attrs{"to": int64(to)}, b.Input("x", graph.Float, graph.Shape{graph.Known(3)}))
			zero := b.Op("Cast", graph.Attrs{"to": int64(to)}, b.Const(graph.NewTensor([]float32{0})))
			b.Output("y", b.Op("Cast", graph.Attrs{"to": int64(graph.Float)}, b.Mul(x, zero)))
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err := interp.Run(g, map[string]*graph.Tensor{"x": graph.NewTensor([]float32{float32(math.Inf(-1)), float32(math.Inf(1)), float32(math.NaN())}, 3)})
		if err != nil {
			t.Fatal(err)
		}
		if y, err := graph.Values[float32](out["y"]); err != nil || !slices.Equal(y, []float32{0, 0, 0}) {
			t.Errorf("%s: %v, %v", to, y, err)
		}
	}
}
