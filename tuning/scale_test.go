package tuning

import (
	"math"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/rng"
)

func TestTheLossScaleHalvesWhereGradientsOverflowAndDoublesWhereTheyDoNot(t *testing.T) {
	s := &LossScale{}
	good := func(x float64) map[string][]float32 { return map[string][]float32{"a": {float32(x)}} }
	bad := map[string][]float32{"a": {1}, "b": {0, float32(math.Inf(-1))}}
	if usable, err := s.Unscale(bad); usable || err != nil || s.Factor() != scaleStart/2 || s.Skipped != 1 {
		t.Fatalf("after an overflow: %v, %v, %+v", usable, err, s)
	}
	if usable, _ := s.Unscale(map[string][]float32{"a": {float32(math.NaN())}}); usable || s.Factor() != scaleStart/4 {
		t.Fatalf("after a NaN: %+v", s)
	}
	g := good(3 * s.Factor())
	if usable, err := s.Unscale(g); !usable || err != nil || g["a"][0] != 3 {
		t.Fatalf("a good step: %v, %v, %v", usable, err, g)
	}
	for range scalePatience - 2 {
		s.Unscale(good(1))
	}
	if s.Factor() != scaleStart/4 {
		t.Errorf("the scale is %g before its patience ends", s.Factor())
	}
	if s.Unscale(good(1)); s.Factor() != scaleStart/2 || s.Skipped != 2 {
		t.Errorf("the scale is %g after its patience ended, %d steps skipped", s.Factor(), s.Skipped)
	}
	var err error
	for range 64 {
		if _, err = s.Unscale(bad); err != nil {
			break
		}
	}
	if errs.Of(err) != errs.Invalid {
		t.Errorf("gradients that always overflow: %v", err)
	}
}

// halfTower is a graph that makes embeddings [B,D] of a prompt [1,1,D] and images "tokens" [B,1,D] in half floats.
func halfTower(t *testing.T, width int64) *graph.Graph {
	t.Helper()
	r := rng.New(5, "half tower")
	bits := make([]byte, 0, 2*width*width)
	for range width * width {
		h := uint16(r.IntN(0x400)) | 0x3000 | uint16(r.IntN(2))<<15 // between 1/8 and 1/4, of both signs
		bits = append(bits, byte(h), byte(h>>8))
	}
	weight, err := graph.NewTensorBytes(graph.Float16, bits, width, width)
	if err != nil {
		t.Fatal(err)
	}
	g := &graph.Graph{Opset: map[string]int64{"": 18}}
	err = g.Build(func(b *graph.Builder) {
		one := graph.Known(1)
		tokens := b.Input("tokens", graph.Float, graph.Shape{graph.Sym("batch"), one, graph.Known(width)})
		prompt := b.Input(graph.PromptName("visual", 0), graph.Float, graph.Shape{one, one, graph.Known(width)})
		half := func(x *graph.Value) *graph.Value {
			return b.Op("Cast", graph.Attrs{"to": int64(graph.Float16)}, x)
		}
		y := b.MatMul(b.Mul(half(tokens), half(prompt)), b.Const(weight))
		b.Output("embeds", b.Op("Squeeze", nil, y, b.Ints(1)))
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestGradientsInHalfFloatsAreThoseOfTheLoss goes from a scale with which they overflow down to one with which
// they are right.
func TestGradientsInHalfFloatsAreThoseOfTheLoss(t *testing.T) {
	const width, images = 16, 4
	r := rng.New(6, "half gradients")
	normal := func(dims ...int64) *graph.Tensor {
		v := make([]float32, graph.Count(dims))
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return graph.NewTensor(v, dims...)
	}
	prompts := map[string]*graph.Tensor{graph.PromptName("visual", 0): normal(1, 1, width)}
	b := batch{input: "tokens", features: normal(images, 1, width), labels: []int{0, 1, 2, 0}}
	classes := normal(3, width)
	run := func(widen bool, scale float64) map[string][]float32 {
		g := halfTower(t, width)
		if widen {
			if err := g.Widen(graph.Float16); err != nil {
				t.Fatal(err)
			}
		}
		o := &objective{classes: 3, fixed: map[string]*graph.Tensor{"classes": classes}}
		if err := o.differentiate(g, &Recipe{Method: VPT, Visual: Visual{Tokens: 1, Depth: 1}}, width, 100); err != nil {
			t.Fatal(err)
		}
		var err error
		if o.session, err = ort.NewSession(g, ort.Options{Threads: 1}); err != nil {
			t.Fatal(err)
		}
		defer o.session.Close()
		if o.half == widen {
			t.Fatalf("the graph is taken to compute in half floats: %v, widened: %v", o.half, widen)
		}
		o.scale = scale
		_, _, gradients, err := o.run(t.Context(), b, prompts)
		if err != nil {
			t.Fatal(err)
		}
		return gradients
	}
	want := run(true, 1)
	s := &LossScale{Value: 1 << 24}
	for {
		got := run(false, s.Factor())
		usable, err := s.Unscale(got)
		if err != nil {
			t.Fatal(err)
		}
		if !usable {
			continue
		}
		for name, w := range want {
			worst, largest := 0.0, 0.0
			for i := range w {
				worst, largest = max(worst, math.Abs(float64(got[name][i]-w[i]))), max(largest, math.Abs(float64(w[i])))
			}
			if !(worst <= 5e-3*largest) {
				t.Errorf("%s: an error of %.1e", name, worst/largest)
			}
		}
		break
	}
	if s.Skipped == 0 {
		t.Error("nothing overflowed with a scale of 2^24")
	}
	t.Logf("%d steps skipped, the scale came down to %g", s.Skipped, s.Factor())
}
