package bundle

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/internal/errs"
)

func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTheDigestLeavesOverridesOut(t *testing.T) {
	plain := write(t, t.TempDir(), map[string]string{"config.json": `{"model_type":"clip"}`, "onnx/vision_model.onnx": "x"})
	a, err := Open(plain)
	if err != nil {
		t.Fatal(err)
	}
	write(t, plain, map[string]string{"foretoken.yaml": "logit_scale: 30"})
	b, err := Open(plain)
	if err != nil {
		t.Fatal(err)
	}
	if a.Digest != b.Digest {
		t.Error("foretoken.yaml changed the digest")
	}
	write(t, plain, map[string]string{"onnx/vision_model.onnx": "y"})
	if c, _ := Open(plain); c.Digest == a.Digest {
		t.Error("another model has the same digest")
	}
}

func TestLogitScaleIsFoundInOrder(t *testing.T) {
	tests := []struct {
		name   string
		files  map[string]string
		scale  float32
		source string
		err    string
	}{
		{"foretoken.yaml comes first", map[string]string{"config.json": `{"model_type":"clip"}`, "foretoken.yaml": "logit_scale: 27.5"}, 27.5, "foretoken.yaml", ""},
		{"a split CLIP is taken to use 100", map[string]string{"config.json": `{"model_type":"clip","logit_scale_init_value":2.6592}`}, 100, "a guess", ""},
		{"a split SigLIP is refused", map[string]string{"config.json": `{"model_type":"siglip"}`}, 0, "", "logit_bias:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Open(write(t, t.TempDir(), tt.files))
			if err != nil {
				t.Fatal(err)
			}
			scale, source, err := b.LogitScale()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got error %v, want one that says %q", err, tt.err)
				}
				return
			}
			if err != nil || scale != tt.scale || !strings.Contains(source, tt.source) {
				t.Errorf("got %g from %q (%v), want %g from %q", scale, source, err, tt.scale, tt.source)
			}
		})
	}
}

func TestADualGraphHoldsItsScale(t *testing.T) {
	dir := t.TempDir()
	model, err := os.ReadFile("testdata/dual/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(write(t, dir, map[string]string{"config.json": `{"model_type":"clip"}`, "model.onnx": string(model)}))
	if err != nil {
		t.Fatal(err)
	}
	scale, source, err := b.LogitScale()
	if err != nil || source != "model.onnx" || math.Abs(float64(scale)-math.Exp(2)) > 1e-5 {
		t.Errorf("got %g from %q (%v), want exp(2), the value this small model was made with", scale, source, err)
	}
	for name, load := range map[string]func() (string, error){
		"image_embeds": func() (string, error) { _, out, err := b.VisionModel(); return out, err },
		"text_embeds":  func() (string, error) { _, out, err := b.TextModel(); return out, err },
	} {
		if out, err := load(); err != nil || out != name {
			t.Errorf("got output %q (%v), want %q", out, err, name)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string
		kind  errs.Kind
	}{
		{"no config", map[string]string{"x.onnx": "x"}, "config.json is missing", errs.Invalid},
		{"an unknown key", map[string]string{"config.json": "{}", "foretoken.yaml": "logit_scal: 3"}, "logit_scal", errs.Invalid},
		{"a scale that is none", map[string]string{"config.json": "{}", "foretoken.yaml": "logit_scale: -3"}, "logit_scale is -3", errs.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(write(t, t.TempDir(), tt.files))
			if err == nil || !strings.Contains(err.Error(), tt.want) || errs.Of(err) != tt.kind {
				t.Errorf("got %v (%v), want one that says %q", err, errs.Of(err), tt.want)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "nowhere")); errs.Of(err) != errs.NotFound {
		t.Errorf("a missing folder gives %v", err)
	}
}

// TestOverridesReachTheGraph names places in a small dual graph, rightly and wrongly.
func TestOverridesReachTheGraph(t *testing.T) {
	model, err := os.ReadFile("testdata/dual/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	open := func(yaml string) *Bundle {
		t.Helper()
		b, err := Open(write(t, t.TempDir(), map[string]string{"config.json": `{"model_type":"clip"}`, "model.onnx": string(model), "foretoken.yaml": yaml}))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	found, err := open("logit_scale: 20").ImageTower()
	if err != nil {
		t.Fatal(err)
	}
	block := found.Blocks[0].Name
	named, err := open("image: {insert: '" + block + "', class_tokens: 1, token_axis: 1, pixels: " + found.Pixels.Name + "}").ImageTower()
	if err != nil || named.Insert.Name != block || named.Insert.Name == found.Insert.Name {
		t.Errorf("prompts enter at %v (%v), want %q and not %q", named, err, block, found.Insert.Name)
	}
	for yaml, want := range map[string]string{
		"image: {insert: nowhere}":    `no tensor "nowhere"`,
		"image: {class_tokens: 1000}": "class_tokens: 1000",
		"image: {token_axis: 0}":      "token_axis is said to be 0",
		"image: {blocks: [nowhere]}":  `no tensor "nowhere"`,
	} {
		if _, err := open(yaml).ImageTower(); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", yaml, err)
		}
	}

	words, err := open("logit_scale: 20").TextTower()
	if err != nil {
		t.Fatal(err)
	}
	first, start := words.Blocks[0].Name, 0
	text, err := open("text: {ids: input_ids, embedding: '" + words.Embedding.Name + "', blocks: ['" + first + "'], start: 0}").TextTower()
	if err != nil || len(text.Blocks) != 1 || text.Start == nil || *text.Start != start {
		t.Errorf("context enters at %v (%v), want block %q and place %d", text, err, first, start)
	}
	for yaml, want := range map[string]string{
		"text: {ids: nowhere}":               `no input "nowhere"`,
		"text: {embedding: nowhere}":         `no tensor "nowhere"`,
		"text: {embedding: '" + first + "'}": "in the graph that is no look-up in a table",
		"text: {token_axis: 0}":              "token_axis is said to be 0, in the graph it is 1",
		"text: {pooling: none}":              `pooling is said to be "none", in the graph it is "` + string(words.Pooling) + `"`,
		"text: {mask: pixel_values}":         `no input "pixel_values"`,
	} {
		if _, err := open(yaml).TextTower(); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", yaml, err)
		}
	}
	for yaml, want := range map[string]bool{"logit_scale: 20": false, "text: {start: 1}": true, "image: {token_axis: 1}": true} {
		if got := open(yaml).Overrides.NamePlaces(); got != want {
			t.Errorf("%s names places: %v", yaml, got)
		}
	}
}
