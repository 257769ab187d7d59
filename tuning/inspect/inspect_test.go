package inspect

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// small is a step that every tower can take.
var small = Options{Batch: 3, Prompts: 2, Depth: 2, Measure: true}

// fixture is what a fixture's meta.json says of its model.
type fixture struct {
	Kind      string
	Class     int        `json:"class_tokens"`
	Layers    int        `json:"layers"`
	Insert    []string   `json:"insert_tensor"`
	Embedding []string   `json:"token_embedding_tensor"`
	Blocks    [][]string `json:"block_inputs"`
}

// TestEveryFixtureIsWhatItsMetaSays inspects the exports that graph's tests differentiate.
func TestEveryFixtureIsWhatItsMetaSays(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("..", "..", "graph", "testdata", "fixtures", "*", "meta.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d fixtures, %v", len(paths), err)
	}
	for _, path := range paths {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var f fixture
			b, err := os.ReadFile(path)
			if err == nil {
				err = json.Unmarshal(b, &f)
			}
			if err != nil {
				t.Fatal(err)
			}
			r, err := Open(t.Context(), filepath.Join(dir, "model.onnx"), small)
			if err != nil {
				t.Fatal(err)
			}
			f.check(t, r)
		})
	}
}

func (f fixture) check(t *testing.T, r *Report) {
	m := r.Models[0]
	if m.Opset["ai.onnx"] < 9 || m.Parameters == 0 || m.Resident < m.Bytes || len(m.Operators) == 0 {
		t.Errorf("the file: %+v", m)
	}
	switch f.Kind {
	case "vision":
		f.tower(t, r, r.Image != nil, func() Tower { return r.Image.Tower }, f.Insert)
		if r.Image != nil && r.Image.ClassTokens != f.Class {
			t.Errorf("%d class tokens, want %d", r.Image.ClassTokens, f.Class)
		}
	case "text":
		if r.Decoder == nil {
			f.tower(t, r, r.Text != nil, func() Tower { return r.Text.Tower }, f.Embedding)
		}
	case "decoder":
		f.tower(t, r, r.Decoder != nil, func() Tower { return r.Decoder.Tower }, nil)
	default:
		if len(r.Refusals) == 0 && r.Image == nil && r.Text == nil && r.Decoder == nil {
			t.Error("neither a tower nor a refusal")
		}
		return
	}
	if len(r.Refusals) > 0 {
		t.Errorf("refused: %q", r.Refusals)
	}
}

// tower compares a tower with what the fixture says.
func (f fixture) tower(t *testing.T, r *Report, found bool, of func() Tower, insert []string) {
	t.Helper()
	if !found {
		t.Fatalf("no tower of the kind: %s, %q", r.Kind, r.Refusals)
	}
	tower := of()
	if tower.Heads == 0 || tower.TokenWidth == 0 || tower.OnPath == 0 {
		t.Errorf("%d heads, width %d, %d nodes on the path", tower.Heads, tower.TokenWidth, tower.OnPath)
	}
	if insert != nil && !slices.Contains(insert, tower.Insert.Name) {
		t.Errorf("prompts join at %q, want one of %q", tower.Insert.Name, insert)
	}
	if s := tower.Step; s == nil || s.Operations == 0 || s.Memory == 0 || s.MeasuredSeconds == 0 {
		t.Errorf("a step: %+v", s)
	}
	for i, names := range f.Blocks {
		if i >= len(tower.BlockInputs) || !slices.Contains(names, tower.BlockInputs[i].Name) {
			t.Errorf("block %d of %v, want one of %q", i, tower.BlockInputs, names)
		}
	}
	for _, o := range tower.Operators {
		if o.OnPath > 0 && !o.Gradient {
			t.Errorf("no gradient passes %s", o.Op)
		}
	}
}

func TestABundleIsInspectedWithItsFiles(t *testing.T) {
	r, err := Open(t.Context(), filepath.Join("..", "..", "starter", "bundle"), small)
	if err != nil {
		t.Fatal(err)
	}
	if r.Kind != "dual encoder" || r.Type != "clip" || len(r.Digest) != 64 || r.LogitScale == 0 || len(r.Models) != 2 || len(r.Refusals) > 0 {
		t.Errorf("%+v", r)
	}
	im := r.Image
	if im.Height != 160 || im.GridRows*im.GridColumns != im.Tokens-im.ClassTokens || im.Blocks != 4 || im.Pooling != "token" {
		t.Errorf("the image tower: %+v", im)
	}
	// Weights are half floats, cast to floats: in memory they take twice the place.
	if m := r.Models[1]; float64(m.Resident) < 1.9*float64(m.Bytes) {
		t.Errorf("%d bytes of half floats, %d in memory", m.Bytes, m.Resident)
	}
	var b strings.Builder
	r.Print(&b)
	for _, line := range strings.Split(strings.TrimSpace(b.String()), "\n") {
		if len(line) < 14 || line[11:13] != "  " {
			t.Errorf("not in two columns: %q", line)
		}
	}
}

// TestOtherFilesOfABundleAreNamed: exporters leave half-float and quantised variants beside the model.
func TestOtherFilesOfABundleAreNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "starter", "bundle"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "onnx", "text_model.onnx"), filepath.Join(dir, "onnx", "text_model_fp16.onnx")); err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), dir, Options{Batch: 1, Prompts: 1, Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(r.Notes, "onnx/text_model_fp16.onnx is not used: inspect it by its own path") {
		t.Errorf("notes: %q", r.Notes)
	}
	if r.Image == nil || r.Text != nil || r.Kind != "image encoder" || len(r.Refusals) != 1 || !strings.Contains(r.Refusals[0], "no text tower") {
		t.Errorf("%s, refused: %q", r.Kind, r.Refusals)
	}
}

// TestACaptionerWithoutPlaceForVisualPromptsIsOneAllTheSame: its encoder's reason is told, and what is left.
func TestACaptionerWithoutPlaceForVisualPromptsIsOneAllTheSame(t *testing.T) {
	r, err := Open(t.Context(), filepath.Join("..", "..", "generation", "caption", "testdata", "donut"), small)
	if err != nil {
		t.Fatal(err)
	}
	if r.Kind != "captioner" || r.Decoder == nil || len(r.Refusals) != 1 || !strings.Contains(r.Refusals[0], "encoder_model.onnx: last_hidden_state") || !strings.Contains(r.Refusals[0], "prompts have no place") {
		t.Errorf("%s, refused: %q", r.Kind, r.Refusals)
	}
	if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "takes no visual prompts") }) {
		t.Errorf("notes: %q", r.Notes)
	}
}

// TestTheEstimateOfMemoryIsWhatAStepTakes on the starter; how near it is on models of real size, docs/benchmarks.md tells.
func TestTheEstimateOfMemoryIsWhatAStepTakes(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a process's peak is known on Linux alone")
	}
	r, err := Open(t.Context(), filepath.Join("..", "..", "starter", "bundle"), Options{Batch: 64, Prompts: 4, Depth: 4, Measure: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*Step{"image": r.Image.Step, "text": r.Text.Step} {
		t.Logf("%s: %d bytes estimated, %d measured; %.2g s and %.2g s", name, s.Memory, s.MeasuredMemory, s.Seconds, s.MeasuredSeconds)
		if ratio := float64(s.Memory) / float64(s.MeasuredMemory); ratio < 0.6 || ratio > 1.6 {
			t.Errorf("%s: %d bytes estimated, %d measured", name, s.Memory, s.MeasuredMemory)
		}
		if s.Seconds <= 0 || s.MeasuredSeconds <= 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// TestAStepIsAsLargeAsAskedFor: twice the batch takes twice the operations, and deeper prompts no fewer.
func TestAStepIsAsLargeAsAskedFor(t *testing.T) {
	step := func(o Options) *Step {
		r, err := Open(t.Context(), filepath.Join("..", "..", "starter", "bundle", "onnx", "text_model.onnx"), o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Text == nil || r.Text.Step == nil {
			t.Fatalf("no step: %q", r.Refusals)
		}
		return r.Text.Step
	}
	one, two := step(Options{Batch: 4, Prompts: 2, Depth: 1}), step(Options{Batch: 8, Prompts: 2, Depth: 1})
	if two.Operations != 2*one.Operations || two.Memory <= one.Memory {
		t.Errorf("%+v of twice the batch of %+v", two, one)
	}
	if one.Length != 32 {
		t.Errorf("texts of %d tokens, the window is 32", one.Length)
	}
	if short := step(Options{Batch: 4, Prompts: 2, Depth: 1, Length: 16}); short.Operations >= one.Operations {
		t.Errorf("%+v of shorter texts than %+v", short, one)
	}
	if deep := step(Options{Batch: 4, Prompts: 2, Depth: 99}); deep.Depth != 4 {
		t.Errorf("prompts at %d blocks of 4", deep.Depth)
	}
	if _, err := Open(t.Context(), "nowhere", Options{}); errs.Of(err) != errs.Invalid {
		t.Errorf("a batch of none: %v", err)
	}
}

func TestEachReasonForRefusalIsGiven(t *testing.T) {
	tests := map[string]struct {
		build func(b *graph.Builder)
		want  []string
	}{
		"no encoder": {func(b *graph.Builder) {
			b.Output("y", b.Input("features", graph.Float, graph.Shape{graph.Sym("b"), graph.Known(4)}))
		}, []string{"features:float[b,4]"}},
		"no block": {func(b *graph.Builder) {
			x := b.Input("pixels", graph.Float, graph.Shape{graph.Sym("b"), graph.Known(3), graph.Known(4), graph.Known(4)})
			b.Output("y", b.Mean(x, false, 2, 3))
		}, []string{"y:", "no transformer block"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := graph.New()
			if err := g.Build(tt.build); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "model.onnx")
			if err := g.Save(path, graph.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
			r, err := Open(t.Context(), path, small)
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(r.Refusals, "\n")
			for _, want := range tt.want {
				if !strings.Contains(all, want) {
					t.Errorf("refused: %q, which should say %q", all, want)
				}
			}
		})
	}
}

// TestOperatorsWithoutAGradientAreNamed: those in a tower of which nothing else is wrong.
func TestOperatorsWithoutAGradientAreNamed(t *testing.T) {
	for tower, name := range map[string]string{"vision": "clip_vision_ts_sdpa_op14", "text": "clip_text_ts_sdpa_op14"} {
		g, err := graph.Load(filepath.Join("..", "..", "graph", "testdata", "fixtures", name, "model.onnx"))
		if err != nil {
			t.Fatal(err)
		}
		first, count := "", 0
		for _, n := range g.Nodes {
			if n.Op == "Sigmoid" {
				n.Op = "Hardmax"
				first, count = cmp.Or(first, n.Name), count+1
			}
		}
		path := filepath.Join(t.TempDir(), "model.onnx")
		if err := g.Save(path, graph.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		r, err := Open(t.Context(), path, small)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("no gradient passes these operators: Hardmax (%d, first %q)", count, first)
		if !slices.ContainsFunc(r.Refusals, func(reason string) bool { return strings.HasSuffix(reason, want) }) {
			t.Errorf("%s: refused %q, want %q", tower, r.Refusals, want)
		}
	}
}

func TestWhatIsNoModelIsAnError(t *testing.T) {
	if _, err := Open(t.Context(), "nowhere", small); errs.Of(err) != errs.NotFound {
		t.Errorf("nowhere: %v", err)
	}
	if _, err := Open(t.Context(), t.TempDir(), small); errs.Of(err) != errs.NotFound {
		t.Errorf("an empty folder: %v", err)
	}
	path := filepath.Join(t.TempDir(), "text.onnx")
	if err := os.WriteFile(path, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, small); errs.Of(err) != errs.Invalid {
		t.Errorf("a text: %v", err)
	}
}
