package tuning

import (
	"strings"
	"testing"

	"github.com/foretoken/foretoken/internal/errs"
)

func TestRecipesOfCaptionsAreChecked(t *testing.T) {
	const rest = "optimizer: {name: adamw, learning_rate: 0.1}\nschedule: {epochs: 1}\nbatch: 2\n"
	for name, c := range map[string]struct{ yaml, want string }{
		"no tokens":                        {"method: caption-prefix\n", "prefix.tokens is 0"},
		"image tokens in none":             {"method: caption-visual\n", "visual.tokens is 0"},
		"a prefix besides image tokens":    {"method: caption-visual\nvisual: {tokens: 2}\nprefix: {tokens: 2}\n", "prefix.tokens is 2"},
		"all of the loss smoothed away":    {"method: caption-prefix\nprefix: {tokens: 2}\ncaption: {label_smoothing: 1}\n", "caption.label_smoothing is 1"},
		"keys that start from words":       {"method: caption-kv\nprefix: {tokens: 2, start: words, init: a}\n", `prefix.start "words"`},
		"words that are missing":           {"method: caption-prefix\nprefix: {tokens: 2, start: words}\n", "prefix.init"},
		"words that are not started from":  {"method: caption-prefix\nprefix: {tokens: 2, init: a}\n", "prefix.init"},
		"hidden units counted, but no map": {"method: caption-kv\nprefix: {tokens: 2, hidden: -1}\n", "prefix.hidden is -1"},
		"tokens that take no places":       {"method: caption-prefix\nprefix: {tokens: 2, unplaced: true}\n", "prefix.unplaced"},
		"an optimiser that is not known":   {"method: caption-prefix\nprefix: {tokens: 2}\noptimizer: {name: adam}\n", "optimizer.name"},
	} {
		yaml := "name: x\n" + c.yaml
		if !strings.Contains(yaml, "optimizer") {
			yaml += rest
		} else {
			yaml += "schedule: {epochs: 1}\nbatch: 2\n"
		}
		if _, err := ParseRecipe([]byte(yaml)); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecipesOfCaptionsAreResolved(t *testing.T) {
	r, err := recipe(t, "caption-map").ResolveCaptions(6, 32, 50)
	if err != nil {
		t.Fatal(err)
	}
	if r.Prefix.Hidden != 10*32/2 || r.Visual != (Visual{}) || r.Caption.Longest != 64 {
		t.Errorf("resolved to %+v", r)
	}
	if r, err = recipe(t, "caption-visual").ResolveCaptions(6, 32, 50); err != nil || r.Visual.Depth != 6 {
		t.Errorf("6 blocks: %+v, %v", r, err)
	}
	if _, err := recipe(t, "coop").ResolveCaptions(6, 32, 50); errs.Of(err) != errs.Invalid {
		t.Errorf("classes on a captioner: %v", err)
	}
	if _, err := recipe(t, "caption-kv").Resolve(starterModel(t), 1); errs.Of(err) != errs.Invalid {
		t.Errorf("captions on a pair of towers: %v", err)
	}
}
