package tuning

import (
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/npz"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
)

// bakePrompt is a prompt for the starter with random tensors of the given shapes.
func bakePrompt(t *testing.T, shapes map[string][]int64) *prompt.Prompt {
	m := starterModel(t)
	p := &prompt.Prompt{
		Card:    prompt.Card{Bundle: m.Ref(), Method: "test", Classes: []string{"cat", "ankle boot", "dog"}, Templates: []string{"a photo of a {}."}},
		Tensors: map[string]*graph.Tensor{},
	}
	for name, dims := range shapes {
		r, data := rng.New(1, name), make([]float32, graph.Count(dims))
		for i := range data {
			data[i] = float32(r.NormFloat64()) * 0.3
		}
		p.Tensors[name] = graph.NewTensor(data, dims...)
	}
	return p
}

// TestABakedFileComputesWhatServingDoes: saved, read again and run on its own.
func TestABakedFileComputesWhatServingDoes(t *testing.T) {
	const width, embedding = 256, 128
	tests := map[string]struct {
		shapes map[string][]int64
		parts  []Part
	}{
		"context":                {map[string][]int64{"context": {4, width}}, []Part{TextTower, ImageClassifier}},
		"deep context":           {map[string][]int64{"context": {3, 2, width}}, []Part{TextTower, ImageClassifier}},
		"context of each class":  {map[string][]int64{"context": {3, 4, width}}, []Part{ImageClassifier}},
		"image tokens":           {map[string][]int64{"visual": {1, 5, width}}, []Part{ImageTower, ImageClassifier}},
		"image tokens, deep":     {map[string][]int64{"visual": {4, 3, width}}, []Part{ImageTower}},
		"both, deep":             {map[string][]int64{"visual": {3, 2, width}, "context": {3, 2, width}}, []Part{ImageTower, TextTower, ImageClassifier}},
		"a classifier of itself": {map[string][]int64{"head.weight": {3, embedding}, "head.bias": {3}}, []Part{ImageClassifier}},
	}
	for name, tt := range tests {
		p := bakePrompt(t, tt.shapes)
		p.Card.ClassSpecific = name == "context of each class"
		for _, part := range tt.parts {
			t.Run(name+" in "+string(part), func(t *testing.T) { holdsWhatServingDoes(t, p, part) })
		}
	}
}

func holdsWhatServingDoes(t *testing.T, p *prompt.Prompt, part Part) {
	m := starterModel(t)
	g, err := m.Bake(t.Context(), p, part)
	if err != nil {
		t.Fatal(err)
	}
	in, want, err := m.BakedExample(t.Context(), p, part)
	if err != nil {
		t.Fatal(err)
	}
	path := save(t, g, in, want)
	baked, err := graph.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(baked.Inputs) != len(in) {
		t.Errorf("it takes %d inputs, the tower takes %d", len(baked.Inputs), len(in))
	}
	session, err := ort.NewSession(baked, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	got, err := session.Run(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		if e := relative(t, got[name], w); !(e <= 1e-5) {
			t.Errorf("%s: an error of %.2g", name, e)
		}
	}
	if part == TextTower { // images take the interpreter long
		if got, err = interp.Run(baked, in); err != nil {
			t.Fatal(err)
		}
		if e := relative(t, got[bakedEmbeddings], want[bakedEmbeddings]); !(e <= 1e-4) {
			t.Errorf("on the interpreter: an error of %.2g", e)
		}
	}
}

// save writes the file, and beside it the example that bench/reference/baked.py reads: into FORETOKEN_BAKED, where that is set.
func save(t *testing.T, g *graph.Graph, in, want map[string]*graph.Tensor) string {
	t.Helper()
	dir := os.Getenv("FORETOKEN_BAKED")
	if dir == "" {
		dir = t.TempDir()
	}
	path := filepath.Join(dir, strings.NewReplacer("/", "_", ",", "").Replace(t.Name()))
	arrays := maps.Clone(in)
	maps.Copy(arrays, want)
	if err := errors.Join(g.Save(path+".onnx", graph.SaveOptions{}), npz.Write(path+".npz", arrays)); err != nil {
		t.Fatal(err)
	}
	return path + ".onnx"
}

// relative is max|x-x'| / max|x'|.
func relative(t *testing.T, got, want *graph.Tensor) float64 {
	t.Helper()
	if got == nil {
		return math.NaN()
	}
	a, err := graph.Float32s(got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := graph.Float32s(want)
	if err != nil || len(a) != len(b) {
		t.Fatalf("%d elements and %d, %v", len(a), len(b), err)
	}
	difference, largest := 0.0, 0.0
	for i := range a {
		difference = max(difference, math.Abs(float64(a[i])-float64(b[i])))
		largest = max(largest, math.Abs(float64(b[i])))
	}
	return difference / largest
}

// TestBakingChangesWhatIsComputed, and not only the file.
func TestBakingChangesWhatIsComputed(t *testing.T) {
	embeddings := func(p *prompt.Prompt, part Part) *graph.Tensor {
		_, out, err := starterModel(t).BakedExample(t.Context(), p, part)
		if err != nil {
			t.Fatal(err)
		}
		return out[bakedEmbeddings]
	}
	plain := embeddings(bakePrompt(t, nil), ImageTower)
	prompted := embeddings(bakePrompt(t, map[string][]int64{"visual": {2, 3, 256}}), ImageTower)
	if e := relative(t, prompted, plain); e < 1e-2 {
		t.Errorf("prompts change the embeddings by %.2g", e)
	}
}

func TestWhatCanNotBeBakedIsRefused(t *testing.T) {
	visual := map[string][]int64{"visual": {1, 2, 256}}
	tests := map[string]struct {
		shapes map[string][]int64
		part   Part
		change func(c *prompt.Card)
		kind   errs.Kind
		want   string
	}{
		"a part that is none":         {visual, "tower", func(*prompt.Card) {}, errs.Invalid, `"classifier", "image" and "text"`},
		"no context for a text tower": {visual, TextTower, func(*prompt.Card) {}, errs.Invalid, "has no context"},
		"a context of each class for any text": {
			map[string][]int64{"context": {3, 2, 256}}, TextTower, func(c *prompt.Card) { c.ClassSpecific = true }, errs.Unsupported, "classifier",
		},
		"a classifier of no classes": {visual, ImageClassifier, func(c *prompt.Card) { c.Classes = nil }, errs.Invalid, "names no classes"},
		"another bundle's prompt": {
			visual, ImageTower, func(c *prompt.Card) { c.Bundle.Digest = strings.Repeat("0", 64) }, errs.Conflict, "load that bundle",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := bakePrompt(t, tt.shapes)
			tt.change(&p.Card)
			_, err := starterModel(t).Bake(t.Context(), p, tt.part)
			if errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, which should be of kind %s and say %q", err, tt.kind, tt.want)
			}
		})
	}
}
