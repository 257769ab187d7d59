package captioning

import (
	"math"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/tuning"
)

// TestTheLossIsCrossEntropy compares the graph's loss with the formula, worked out number by number.
func TestTheLossIsCrossEntropy(t *testing.T) {
	logits := []float32{0.5, -1, 2, 0, 3, 1, -2, 0.25, 1, 1, 1, -1}
	targets, shares := []int64{2, 0, 1}, []float32{0.5, 0, 0.5}
	for _, smoothing := range []float64{0, 0.1, 0.5} {
		g := graph.New()
		err := g.Build(func(b *graph.Builder) {
			place := graph.Shape{graph.Known(1), graph.Known(3)}
			x := b.Input("x", graph.Float, append(place[:2:2], graph.Known(4)))
			b.Output("loss", smoothed(b, x, b.Input("y", graph.Int64, place), b.Input("w", graph.Float, place), smoothing))
		})
		if err != nil {
			t.Fatal(err)
		}
		r := &ort.Runner{}
		defer r.Close()
		out, err := r.Run(g, map[string]*graph.Tensor{"x": graph.NewTensor(logits, 1, 3, 4), "y": graph.NewTensor(targets, 1, 3), "w": graph.NewTensor(shares, 1, 3)})
		if err != nil {
			t.Fatal(err)
		}
		want := 0.0
		for place, target := range targets {
			row, sum := logits[place*4:place*4+4], 0.0
			for _, x := range row {
				sum += math.Exp(float64(x))
			}
			for word, x := range row {
				p := smoothing / 4
				if int64(word) == target {
					p += 1 - smoothing
				}
				want -= float64(shares[place]) * p * (float64(x) - math.Log(sum))
			}
		}
		if got := floats(t, out["loss"])[0]; math.Abs(float64(got)-want) > 1e-5 {
			t.Errorf("smoothing %g: the loss is %g, want %g", smoothing, got, want)
		}
	}
}

// TestPaddingAndMicroBatchesChangeNothing takes a batch row by row: the sums of losses and gradients are the batch's.
func TestPaddingAndMicroBatchesChangeNothing(t *testing.T) {
	tensors := readTensors(t, "testdata/reference.safetensors")
	for _, c := range referenceCases {
		t.Run(c.name, func(t *testing.T) {
			o, params := c.objective(t, tensors)
			b := c.batch(t, tensors, 1)
			tokens := b.learned()
			whole, err := o.run(t.Context(), b, tokens, named(params), 1)
			if err != nil {
				t.Fatal(err)
			}
			loss, right, sums := 0.0, 0, map[string][]float32{}
			for row := range b.ids {
				y, err := o.run(t.Context(), b.rows(row, row+1), tokens, named(params), 1)
				if err != nil {
					t.Fatal(err)
				}
				loss, right = loss+y.loss, right+y.right
				tuning.AddGradients(sums, y.gradients)
			}
			if math.Abs(loss-whole.loss) > 1e-5 || right != whole.right {
				t.Errorf("loss %g and %d right, row by row %g and %d", whole.loss, whole.right, loss, right)
			}
			for name, g := range whole.gradients {
				if e := maxRelative(sums[name], g); !(e < 1e-4) {
					t.Errorf("%s differs by %g", name, e)
				}
			}
		})
	}
}

func TestWhatCannotBeLearnedIsRefused(t *testing.T) {
	cross, plain := attending(t), mappedParts(true)(t)
	blind := cross
	blind.Images = nil
	for name, c := range map[string]struct {
		p      parts
		method string
		visual tuning.Visual
	}{
		"a map for a decoder that attends":      {cross, tuning.CaptionMap, tuning.Visual{}},
		"keys before mapped tokens":             {plain, tuning.CaptionKeyValues, tuning.Visual{}},
		"a prefix for a model without a map":    {plain, tuning.CaptionPrefix, tuning.Visual{}},
		"image tokens without an image tower":   {blind, tuning.CaptionVisual, tuning.Visual{Tokens: 2, Depth: 1}},
		"image tokens besides, without a tower": {blind, tuning.CaptionPrefix, tuning.Visual{Tokens: 2, Depth: 1}},
	} {
		_, err := assemble(c.p, &tuning.Recipe{Method: c.method, Prefix: tuning.Prefix{Tokens: 3}, Visual: c.visual})
		if errs.Of(err) != errs.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
}
