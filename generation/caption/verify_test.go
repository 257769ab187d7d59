package caption

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// TestCaptionersAreVerified checks a layout with two decoders and one whose images are mapped, as a user's own are checked when
// they are added; graph/fixtures checks decoders of all layouts.
func TestCaptionersAreVerified(t *testing.T) {
	for _, layout := range []string{"vitgpt2", "clipcap"} {
		if err := open(t, filepath.Join("testdata", layout)).Verify(); err != nil {
			t.Errorf("%s: %v", layout, err)
		}
	}
}

// TestAStepOfAnotherModelIsFoundOut changes a weight of the decoder that goes on behind a past.
func TestAStepOfAnotherModelIsFoundOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "captioner")
	if err := os.CopyFS(dir, os.DirFS("testdata/trocr")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "decoder_with_past_model.onnx")
	g, err := graph.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for v := range g.Constants() {
		if len(v.Const.Dims) == 2 && v.Type == graph.Float {
			values, err := graph.Float32s(v.Const)
			if err != nil {
				t.Fatal(err)
			}
			other := make([]float32, len(values))
			for i, x := range values {
				other[i] = -x
			}
			v.Const = graph.NewTensor(other, v.Const.Dims...)
		}
	}
	if err := g.Save(file, graph.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir).Verify(); errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), "the step behind 3 tokens does not come out as in the whole text") {
		t.Errorf("a decoder of other weights goes on from the first step's: %v", err)
	}
}
