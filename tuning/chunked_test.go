package tuning

import (
	"fmt"
	"math"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/rng"
)

// TestManyClassesInChunksAreAsInOnePass compares loss and gradients of 150 classes, which go through
// the text tower in three chunks, with those of one graph that holds the tower for all of them.
func TestManyClassesInChunksAreAsInOnePass(t *testing.T) {
	m := starterModel(t)
	specific := recipe(t, "coop")
	specific.Context.ClassSpecific, specific.Context.Tokens, specific.Context.Init = true, 4, "a photo"
	for name, r := range map[string]*Recipe{"coop": recipe(t, "coop"), "class-specific": specific, "maple": recipe(t, "maple")} {
		t.Run(name, func(t *testing.T) {
			r, err := r.Resolve(m, 1)
			if err != nil {
				t.Fatal(err)
			}
			names := make([]string, 150)
			for i := range names {
				names[i] = fmt.Sprintf("thing %d of many", i*i)
			}
			chunked, err := m.newObjective(t.Context(), r, names)
			if err != nil {
				t.Fatal(err)
			}
			defer chunked.close()
			whole := &objective{classes: len(names), fixed: map[string]*graph.Tensor{}}
			g, err := whole.graph(m, r, names)
			if err != nil {
				t.Fatal(err)
			}
			if whole.session, err = ort.NewSession(g, ort.Options{}); err != nil {
				t.Fatal(err)
			}
			defer whole.close()
			if chunked.texts == nil || len(chunked.texts.chunks) != 3 {
				t.Fatal("the classes were not taken in three chunks")
			}
			params, err := m.newParameters(r, len(names))
			if err != nil {
				t.Fatal(err)
			}
			tuner := &Tuner{Recipe: r, model: m, params: params}
			b := randomBatch(m, r)
			lossA, rightA, a, err := whole.run(t.Context(), b, tuner.inputs())
			if err != nil {
				t.Fatal(err)
			}
			lossB, rightB, c, err := chunked.run(t.Context(), b, tuner.inputs())
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(lossA-lossB) > 1e-5*lossA || rightA != rightB {
				t.Errorf("loss %g and %g, right %d and %d", lossA, lossB, rightA, rightB)
			}
			for name, want := range a {
				sameGradient(t, name, c[name], want)
			}
		})
	}
}

// randomBatch is four images that are noise, of the first classes.
func randomBatch(m *Model, r *Recipe) batch {
	g := rng.New(1, "noise")
	dims := []int64{4, m.Texts.Dims()}
	b := batch{input: "images", labels: []int{0, 1, 70, 149}}
	if r.learnsVisual() {
		b.input, dims = "tokens", []int64{4, int64(m.Images.Info.Tokens), int64(m.Images.Width())}
	}
	data := make([]float32, graph.Count(dims))
	for i := range data {
		data[i] = float32(g.NormFloat64() / math.Sqrt(float64(dims[len(dims)-1])))
	}
	b.features = graph.NewTensor(data, dims...)
	return b
}

func sameGradient(t *testing.T, name string, got, want []float32) {
	t.Helper()
	largest, off := 0.0, 0.0
	for i, x := range want {
		largest = max(largest, math.Abs(float64(x)))
		off = max(off, math.Abs(float64(x-got[i])))
	}
	if len(got) != len(want) || largest == 0 || off > 1e-4*largest {
		t.Errorf("%s: the gradient is off by %g, its largest element is %g", name, off, largest)
	}
}
