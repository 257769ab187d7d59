package graph_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
)

// TestMergedGraphsComputeWhatEachDoes puts an image and a text tower, which were built alike and
// share most names, side by side.
func TestMergedGraphsComputeWhatEachDoes(t *testing.T) {
	image, err1 := tinyImageTower()
	text, err2 := tinyTextTower()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	image.Nodes[3].Outputs[0].Name = "input_ids" // an inner name that is the other's input
	both, err := graph.Merge(image, text)
	if err != nil {
		t.Fatal(err)
	}
	if err := both.Check(); err != nil {
		t.Fatal(err)
	}
	if both, err = loaded(both); err != nil {
		t.Fatal(err)
	}
	pixels := map[string]*graph.Tensor{"pixel_values": floats(rng.New(1, "pixels"), 2, 3, 2, 10)}
	ids := map[string]*graph.Tensor{"input_ids": plain.ids()}
	all := maps.Clone(pixels)
	maps.Copy(all, ids)
	out := run(t, both, all)
	equalArrays(t, "the image tower's output", out[both.Outputs[0].Name], run(t, image, pixels)["image_embeds"])
	equalArrays(t, "the text tower's output", out[both.Outputs[1].Name], run(t, text, ids)["text_embeds"])
	if _, err := graph.Merge(image, image); errs.Of(err) != errs.Invalid {
		t.Errorf("two graphs with one input: %v", err)
	}
}

func TestOnlyOneOutputIsKept(t *testing.T) {
	image, err1 := tinyImageTower()
	text, err2 := tinyTextTower()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	both, err := graph.Merge(image, text)
	if err != nil {
		t.Fatal(err)
	}
	only, err := both.Only("text_embeds")
	if err != nil {
		t.Fatal(err)
	}
	if len(only.Inputs) != 1 || only.Inputs[0].Name != "input_ids" || len(only.Nodes) != len(text.Nodes) {
		t.Errorf("inputs %v and %d nodes are left, the tower has %d", only.Inputs, len(only.Nodes), len(text.Nodes))
	}
	if len(both.Outputs) != 2 || len(both.Nodes) != len(image.Nodes)+len(text.Nodes) {
		t.Error("the graph itself has changed")
	}
	if _, err := both.Only("none"); errs.Of(err) != errs.Invalid {
		t.Errorf("an output that is not there: %v", err)
	}
}

// TestSharedOperandsAreLookedAtOnce: the number of ways through the graph doubles 64 times ahead
// of its first block, so that one who went all of them would never end.
func TestSharedOperandsAreLookedAtOnce(t *testing.T) {
	s := tiny{doublings: 64, named: true}.sized()
	tower := imageTower(t, s)
	if _, err := tower.WithPrompts(graph.ImagePromptOptions{Tokens: 2, Depth: 3}); err != nil {
		t.Fatal(err)
	}
}

func TestTheLogitScaleIsFoundOnTheWayToAnOutput(t *testing.T) {
	tests := []struct {
		name  string
		scale func(b *graph.Builder, x *graph.Value) *graph.Value
		want  float32
		found bool
	}{
		{"a factor", func(b *graph.Builder, x *graph.Value) *graph.Value { return b.Mul(x, b.Scalar(100, x)) }, 100, true},
		{"a factor in front, transposed after", func(b *graph.Builder, x *graph.Value) *graph.Value { return b.SwapLast(b.Mul(b.Scalar(50, x), x)) }, 50, true},
		{"the exponential of one", func(b *graph.Builder, x *graph.Value) *graph.Value {
			return b.Mul(x, b.Op("Exp", nil, b.Scalar(0, x)))
		}, 1, true},
		{"a bias after it", func(b *graph.Builder, x *graph.Value) *graph.Value {
			return b.Add(b.Mul(x, b.Scalar(10, x)), b.Scalar(-5, x))
		}, 10, true},
		{"none", func(b *graph.Builder, x *graph.Value) *graph.Value { return b.Op("Exp", nil, x) }, 0, false},
		{"a factor that is no constant", func(b *graph.Builder, x *graph.Value) *graph.Value { return b.Mul(x, x) }, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := &graph.Graph{Opset: map[string]int64{"": 18}}
			err := g.Build(func(b *graph.Builder) {
				x := b.Input("x", graph.Float, graph.Shape{graph.Known(2), graph.Known(3)})
				b.Output("logits", tt.scale(b, x))
			})
			if err != nil {
				t.Fatal(err)
			}
			if got, found := graph.OutputFactor(g, "logits"); got != tt.want || found != tt.found {
				t.Errorf("got %g, %v, want %g, %v", got, found, tt.want, tt.found)
			}
			if _, found := graph.OutputFactor(g, "none"); found {
				t.Error("an output that is not there has a factor")
			}
		})
	}
}

func TestAnOutputFeedsAnotherGraphsInput(t *testing.T) {
	double := graph.New()
	square := graph.New()
	four := graph.Shape{graph.Known(4)}
	err := double.Build(func(b *graph.Builder) {
		x := b.Input("x", graph.Float, four)
		b.Output("y", b.Add(x, x))
	})
	if err == nil {
		err = square.Build(func(b *graph.Builder) {
			x := b.Input("z", graph.Float, four)
			b.Output("y", b.Mul(x, x))
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	g, err := graph.Merge(double, square)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Feed("z", g.Outputs[0]); err != nil {
		t.Fatal(err)
	}
	g.Outputs = g.Outputs[1:]
	if err := g.Check(); err != nil || len(g.Inputs) != 1 {
		t.Fatalf("%d inputs are left: %v", len(g.Inputs), err)
	}
	out, err := interp.Run(g, map[string]*graph.Tensor{"x": graph.NewTensor([]float32{1, 2, 3, 4}, 4)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := graph.Values[float32](out[g.Outputs[0].Name])
	if err != nil || !slices.Equal(got, []float32{4, 16, 36, 64}) {
		t.Errorf("got %v, %v", got, err)
	}
	if g.Value(g.Outputs[0].Name) != g.Outputs[0] || g.Value("nothing") != nil {
		t.Error("values are not found by name")
	}
	if err := g.Feed("w", g.Outputs[0]); errs.Of(err) != errs.Invalid {
		t.Errorf("an input that is not there: %v", err)
	}
	if err := g.Feed("x", g.Outputs[0]); errs.Of(err) != errs.Invalid {
		t.Errorf("an input of what it is to be made of: %v", err)
	}
}

func TestRecomputingWantsToKnowExtents(t *testing.T) {
	g := graph.New()
	err := g.Build(func(b *graph.Builder) {
		x := b.Input("x", graph.Float, graph.Shape{graph.Sym("n")})
		y := b.Output("y", b.Sum(b.Op("Tanh", nil, x), false, 0))
		b.Output("dx", b.Gradient([]*graph.Value{y}, nil, []*graph.Value{x})[0])
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Recompute(3, 0); errs.Of(err) != errs.Unsupported {
		t.Errorf("got %v", err)
	}
}

// TestRecomputingKeepsWithinTheBudget changes nothing where what is kept is little.
func TestRecomputingKeepsWithinTheBudget(t *testing.T) {
	chain := func() *graph.Graph {
		g := graph.New()
		err := g.Build(func(b *graph.Builder) {
			x := b.Input("x", graph.Float, graph.Shape{graph.Known(1000)})
			y := x
			for range 32 {
				y = b.Op("Tanh", nil, y)
			}
			y = b.Sum(y, false, 0)
			b.Output("y", y)
			b.Output("dx", b.Gradient([]*graph.Value{y}, nil, []*graph.Value{x})[0])
		})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	const forward = 34
	g := chain()
	nodes := len(g.Nodes)
	if err := g.Recompute(forward, 1<<20); err != nil || len(g.Nodes) != nodes {
		t.Errorf("%d nodes became %d: %v", nodes, len(g.Nodes), err)
	}
	before, err := g.Cost()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Recompute(forward, 1<<10); err != nil || len(g.Nodes) == nodes {
		t.Fatalf("%d nodes became %d: %v", nodes, len(g.Nodes), err)
	}
	after, err := g.Cost()
	if err != nil || after.Peak > before.Peak/2 {
		t.Errorf("%d bytes were held at once, now %d: %v", before.Peak, after.Peak, err)
	}
}
