package run

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/jobs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/tuning"
)

// TestWhatSteersGeneratorsIsLearnedInSlices tunes the starter's captioner and a tiny painter, in one slice, and in slices of a step
// between which the trainer is forgotten: the prompts are the same.
func TestWhatSteersGeneratorsIsLearnedInSlices(t *testing.T) {
	s := newService(t)
	for name, dir := range map[string]string{"captioner": "../../starter/captioner", "painter": "../../generation/diffusion/testdata/sd"} {
		path, err := filepath.Abs(dir)
		if err != nil {
			t.Fatal(err)
		}
		addBundle(t, s, name, path)
	}
	for _, c := range []struct {
		recipe, dataset, bundle string
		shots                   int
		change                  func(*tuning.Recipe)
		kind                    prompt.Kind
		measure                 string
	}{
		{"caption-kv-starter", "captions", "captioner", 4, func(r *tuning.Recipe) { r.Schedule.Epochs, r.Batch = 2, 2 }, prompt.Caption, "cider_d"},
		{"textual-inversion", "concept", "painter", 0, func(r *tuning.Recipe) {
			r.Inversion.Token, r.Inversion.Init, r.Inversion.Steps, r.Inversion.HeldOut, r.Batch = "<thing>", "cat", 3, 2, 2
		}, prompt.Concept, "denoising_loss"},
	} {
		upload(t, s, c.dataset)
		recipe, err := tuning.BuiltIn(c.recipe)
		if err != nil {
			t.Fatal(err)
		}
		c.change(recipe)
		sp := Spec{Dataset: c.dataset, Bundle: c.bundle, Recipe: recipe, Shots: c.shots, Seed: 1, Prompt: c.dataset}
		whole, resumed := learn(t, s, sp, 0), learn(t, s, sp, 1)
		if whole.Slice != 1 || resumed.Slice < 3 {
			t.Errorf("%s: %d and %d slices", c.recipe, whole.Slice, resumed.Slice)
		}
		var digests []string
		for revision := 1; revision <= 2; revision++ {
			row, err := s.Catalog.Prompt(t.Context(), sp.Prompt, revision)
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, row.Digest)
			if !strings.Contains(string(row.Card), `"kind":"`+string(c.kind)+`"`) || !strings.Contains(string(row.Card), c.measure) {
				t.Errorf("%s: card %s", c.recipe, row.Card)
			}
		}
		if digests[0] != digests[1] {
			t.Errorf("%s: the prompt of one slice is %s, that of %d is %s", c.recipe, digests[0], resumed.Slice, digests[1])
		}
		if !strings.Contains(string(whole.Metrics), `"zero_shot"`) || !strings.Contains(string(whole.Metrics), c.measure) {
			t.Errorf("%s: metrics %s", c.recipe, whole.Metrics)
		}
		sp.HoldOut = true
		if _, err := s.Create(t.Context(), sp); errs.Of(err) != errs.Invalid {
			t.Errorf("%s with classes held out: %v", c.recipe, err)
		}
	}
}

// learn does a run's slices of so many steps; 0 is all of them in one.
func learn(t *testing.T, s *Service, sp Spec, steps int) storage.Run {
	t.Helper()
	s.SliceSteps, s.Slice = steps, time.Hour
	r := create(t, s, sp)
	for number := 0; ; number++ {
		if err := s.RunSlice(t.Context(), jobs.Slice{Run: r.ID, Number: number}); err != nil {
			t.Fatal(err)
		}
		s.forget(r.ID)
		row, err := s.Catalog.Run(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		if row.State == storage.Failed {
			t.Fatalf("%s: %s", sp.Recipe.Name, row.Error)
		}
		if row.Ended() {
			return row
		}
	}
}
