package tuning

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
)

// TestPlacesThatPromptsGoWronglyIntoAreRefused: prompts ahead of the class token move it from where the output is
// picked. The graph runs with them, and gives numbers; the model is refused when it is added and when it is opened again.
func TestPlacesThatPromptsGoWronglyIntoAreRefused(t *testing.T) {
	b := starterWith(t, "logit_scale: 20\nimage: {class_tokens: 0}\n")
	ms := NewModels(func(context.Context, string) (dir, digest string, err error) { return b.Dir, b.Digest, nil }, ort.Options{})
	defer ms.Close()
	_, opened := ms.Get(t.Context(), b.Name)
	for when, err := range map[string]error{"added": ms.Check(b), "opened": opened} {
		if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), "their order changes the output") || !strings.Contains(err.Error(), b.Name) {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// TestContextBeginsWhereItIsSaidTo puts placeholders behind the first word.
func TestContextBeginsWhereItIsSaidTo(t *testing.T) {
	m, err := Open(starterWith(t, "logit_scale: 20\ntext: {start: 2}\n"), ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	words, err := m.Texts.Encode("cat.", 0)
	if err != nil {
		t.Fatal(err)
	}
	x, err := m.Texts.ContextIDs([]string{"cat"}, 3)
	if err != nil {
		t.Fatal(err)
	}
	own := m.Texts.Info.Placeholder()
	want := slices.Concat(words[:2], []int64{own, own, own}, words[2:])
	got, err := graph.Values[int64](x)
	if err != nil {
		t.Fatal(err)
	}
	if m.Texts.ContextStart() != 2 || !slices.Equal(got[:len(want)], want) {
		t.Errorf("context begins at %d in %d, want %d", m.Texts.ContextStart(), got, want)
	}
	if _, err := m.Texts.ContextIDs([]string{""}, 3); err != nil {
		t.Errorf("an empty name and its full stop have room for context behind them: %v", err)
	}
}
