package caption

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// TestAnEncoderThatPromptsCannotEnterRefusesVisualPromptsAlone: Swin's windows have no place for them. Texts are made all the same, as
// TestTextsAreThoseOfTransformers sees, and with prefixes, as TestWordsBeforeATextAsAPrefix does.
func TestAnEncoderThatPromptsCannotEnterRefusesVisualPromptsAlone(t *testing.T) {
	m := open(t, filepath.Join("testdata", "donut"))
	if err := m.Verify(); err != nil {
		t.Error(err)
	}
	visual := tuned(m, map[string]*graph.Tensor{"visual": graph.NewTensor(make([]float32, 2*32), 1, 2, 32)})
	_, err := m.Generate(t.Context(), []Request{{Image: testImages(1)[0], Prompt: visual}})
	if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), `"visual"`) || !strings.Contains(err.Error(), "prompts have no place") {
		t.Errorf("a visual prompt: %v", err)
	}
}
