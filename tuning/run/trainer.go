package run

import (
	"context"
	"maps"
	"slices"

	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
)

// Trainer learns one prompt step by step. What it computes depends on the spec, the data and the
// model alone: one that is restored from a checkpoint goes on as the one that made it would have,
// bit for bit. It is not for concurrent use.
type Trainer interface {
	// Next does one step.
	Next(ctx context.Context) (tuning.Progress, error)
	// Step is the number of steps done, Steps that of the whole run.
	Step() int
	Steps() int
	Done() bool
	// Checkpoint is the state after the steps done so far, which Restore continues from.
	Checkpoint() ([]byte, error)
	Restore(checkpoint []byte) error
	// Finish scores what was learned, beside the frozen model, once all steps are done. The
	// prompt's card has the scores; it is nil where the method learns none. The metrics are
	// written as JSON: zero_shot and, where there is a prompt, tuned.
	Finish(ctx context.Context) (p *prompt.Prompt, metrics any, err error)
	Close()
}

// input is what a trainer learns from.
type input struct {
	spec      Spec
	version   *dataset.Version
	selection dataset.Selection
	data      *tuning.Data // of the selection
}

// trainers says who learns, by the recipe's method.
var trainers = map[string]func(context.Context, *tuning.Models, *input) (Trainer, error){
	tuning.ZeroShot:    newClassifying,
	tuning.LinearProbe: newClassifying,
	tuning.CoOp:        newClassifying,
	tuning.VPT:         newClassifying,
	tuning.MaPLe:       newClassifying,

	tuning.CaptionPrefix:    newCaptioning,
	tuning.CaptionKeyValues: newCaptioning,
	tuning.CaptionMap:       newCaptioning,
	tuning.CaptionVisual:    newCaptioning,

	tuning.TextualInversion: newInverting,
	tuning.Style:            newInverting,
	tuning.Negative:         newInverting,
}

// newTrainer prepares a run from its start.
func (s *Service) newTrainer(ctx context.Context, spec Spec) (Trainer, error) {
	start, known := trainers[spec.Recipe.Method]
	if !known {
		return nil, errs.New(errs.Unsupported, "recipe %q: nothing learns by the method %q: there are %q", spec.Recipe.Name, spec.Recipe.Method, slices.Sorted(maps.Keys(trainers)))
	}
	v, err := dataset.Load(ctx, s.Objects, spec.Dataset, spec.Version)
	if err != nil {
		return nil, err
	}
	in := &input{spec: spec, version: v, selection: spec.selection(v)}
	in.data = tuning.LoadData(s.Objects, v, in.selection)
	in.data.ShotsSeed = spec.Seed
	return start(ctx, s.Models, in)
}
