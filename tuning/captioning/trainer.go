package captioning

import (
	"context"

	"github.com/foretoken/foretoken/generation/caption"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/tuning"
)

// Trainer learns one prompt of a captioner step by step. What it computes depends on the recipe, the data and the model
// alone; where it stands is its [Trainer.Checkpoint]. It is not for concurrent use.
type Trainer struct {
	Recipe *tuning.Recipe // resolved

	model     *caption.Model
	data      *tuning.Data
	parts     parts
	texts     [][]spoken // by training image: what may be said of it
	params    []*tuning.Parameter
	objective *objective
	features  *tuning.Features
	scale     tuning.LossScale
	step      int
	order     []int // of the current epoch
}

// New prepares a run from its start. The recipe is resolved to the model and the data, whose images have captions, or
// questions and answers.
func New(ctx context.Context, m *caption.Model, r *tuning.Recipe, d *tuning.Data) (*Trainer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := r.ResolveCaptions(m.Images.Depth(), m.Decoder.Width, len(d.Train))
	if err != nil {
		return nil, err
	}
	t := &Trainer{Recipe: r, model: m, data: d}
	if r.Visual.Tokens > 0 && m.Images.Refused != nil {
		return nil, errs.New(errs.Unsupported, "recipe %q: visual.tokens is %d: %w", r.Name, r.Visual.Tokens, m.Images.Refused)
	}
	if t.parts, err = partsOf(m); err != nil {
		return nil, err
	}
	if t.texts, err = t.say(d.Train); err != nil {
		return nil, err
	}
	words, err := plainTokens(m, r.Prefix.Init)
	if err != nil {
		return nil, err
	}
	if t.params, err = newParameters(t.parts, r, words); err != nil {
		return nil, err
	}
	t.features = &tuning.Features{Images: m.Images.Preprocessor, Samples: d.Train, Views: max(1, r.Views), Seed: r.Seed, Compute: t.frozen()}
	t.objective, err = newObjective(t.parts, r, m.Sessions())
	return t, err
}

// partsOf is where learned tensors can enter a captioner.
func partsOf(m *caption.Model) (parts, error) {
	opening, err := m.Opening("")
	p := parts{Decoder: m.Decoder, Images: m.Images.Info, Mapped: m.Mapped(), Mapper: m.Mapper, Open: len(opening) == 0}
	if p.Images != nil {
		p.Patch = m.Images.PatchSize()
	}
	if p.Mapped {
		shape := m.Images.Output().Shape
		n, known := shape[len(shape)-1].Int()
		if !known {
			return p, errs.New(errs.Unsupported, "bundle %s: the width of the image feature %s isn't known", m.Bundle.Name, shape)
		}
		p.Features = int(n)
	}
	return p, err
}

// frozen is the part of the model that lies before what is learned: the image tower to where prompts enter, or the whole of
// it, with the model's own map where that isn't replaced.
func (t *Trainer) frozen() func(context.Context, *graph.Tensor) (*graph.Tensor, error) {
	if t.Recipe.Visual.Tokens > 0 {
		return t.model.Images.Tokens
	}
	return func(ctx context.Context, pixels *graph.Tensor) (*graph.Tensor, error) {
		features, err := t.model.Features(ctx, pixels, nil)
		if err != nil || !t.parts.Mapped || t.Recipe.Method == tuning.CaptionMap {
			return features, err
		}
		return t.model.Prefix(ctx, nil, features)
	}
}

// Close frees the training session.
func (t *Trainer) Close() {
	if t.objective != nil {
		t.objective.close()
	}
}

// Steps is the number of steps of the whole run.
func (t *Trainer) Steps() int { return t.Recipe.Schedule.Epochs * t.stepsPerEpoch() }

func (t *Trainer) stepsPerEpoch() int {
	return (len(t.data.Train) + t.Recipe.Batch - 1) / t.Recipe.Batch
}

// Step is the number of steps done.
func (t *Trainer) Step() int { return t.step }

// Done says whether all steps are done.
func (t *Trainer) Done() bool { return t.step >= t.Steps() }

// Next does one step. Its progress's accuracy is the share of tokens that are told right when those before them are given.
func (t *Trainer) Next(ctx context.Context) (tuning.Progress, error) {
	p := tuning.Progress{Step: t.step + 1, Steps: t.Steps(), Epoch: t.step / t.stepsPerEpoch()}
	p.Rate = t.Recipe.Schedule.Rate(t.Recipe.Optimizer.LearningRate, p.Epoch)
	indexes := t.nextBatch(p.Epoch)
	b, err := t.batch(ctx, indexes, p.Epoch)
	if err != nil {
		return p, err
	}
	return p, t.learn(ctx, b, &p)
}

// nextBatch is which samples the step to come learns from. Each epoch has an order of its own; the last batch may be smaller.
func (t *Trainer) nextBatch(epoch int) []int {
	at := t.step % t.stepsPerEpoch()
	if at == 0 || t.order == nil {
		t.order = rng.New(t.Recipe.Seed, "order", epoch).Perm(len(t.data.Train))
	}
	start := at * t.Recipe.Batch
	return t.order[start:min(start+t.Recipe.Batch, len(t.order))]
}

// batch is the samples' texts, one of each drawn by seed, epoch and sample, and what the frozen part makes of their images.
func (t *Trainer) batch(ctx context.Context, indexes []int, epoch int) (batch, error) {
	source, err := t.features.Rows(ctx, indexes, epoch%t.features.Views)
	if err != nil {
		return batch{}, err
	}
	b := batch{source: source}
	for _, i := range indexes {
		texts := t.texts[i]
		s := texts[rng.New(t.Recipe.Seed, "caption", epoch, i).IntN(len(texts))]
		ids, targets := s.lesson(t.parts.Open)
		b.ids, b.targets = append(b.ids, ids), append(b.targets, targets)
	}
	return b, nil
}

// learn changes the parameters along a batch's gradient, which is summed over micro-batches.
func (t *Trainer) learn(ctx context.Context, b batch, p *tuning.Progress) error {
	tokens, right, gradients := b.learned(), 0, map[string][]float32{}
	size := t.Recipe.Caption.MicroBatch
	if size == 0 {
		size = len(b.ids)
	}
	for start := 0; start < len(b.ids); start += size {
		part := b.rows(start, min(start+size, len(b.ids)))
		y, err := t.objective.run(ctx, part, tokens, t.learned(), t.scale.Factor())
		if err != nil {
			return err
		}
		p.Loss, right = p.Loss+y.loss, right+y.right
		tuning.AddGradients(gradients, y.gradients)
	}
	p.Accuracy = float64(right) / float64(max(1, tokens))
	if p.Loss != p.Loss {
		return errs.New(errs.Invalid, "the loss is not a number at step %d: lower optimizer.learning_rate (now %g)", p.Step, t.Recipe.Optimizer.LearningRate)
	}
	usable := true
	if t.objective.half {
		var err error
		if usable, err = t.scale.Unscale(gradients); err != nil {
			return err
		}
	}
	t.step++
	if !usable {
		return nil
	}
	for _, param := range t.params {
		t.Recipe.Optimizer.Update(param, gradients[param.Name], t.step-t.scale.Skipped, p.Rate)
	}
	return nil
}

// learned are the parameters as the training graph takes them.
func (t *Trainer) learned() map[string]*graph.Tensor {
	in := map[string]*graph.Tensor{}
	for _, p := range t.params {
		in[p.Name] = p.Tensor
	}
	return in
}

// Parameters returns what is learned.
func (t *Trainer) Parameters() []*tuning.Parameter { return t.params }

// Checkpoint is the run's state after the steps done so far.
func (t *Trainer) Checkpoint() ([]byte, error) {
	return tuning.EncodeCheckpoint(t.Recipe, tuning.State{Step: t.step, Params: t.params, Scale: t.scale})
}

// Restore continues from a checkpoint of the same recipe on the same data.
func (t *Trainer) Restore(b []byte) error {
	s, err := tuning.DecodeCheckpoint(b, t.Recipe)
	if err == nil {
		err = s.Learns(t.params)
	}
	if err != nil {
		return err
	}
	t.params, t.step, t.scale, t.order = s.Params, s.Step, s.Scale, nil
	return nil
}
