package tuning

import (
	"context"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
)

// Tuner learns one prompt step by step. What it computes depends on the recipe, the data and
// the model alone; where it stands is its [Tuner.Checkpoint]. It is not for concurrent use.
type Tuner struct {
	Recipe *Recipe // resolved

	model     *Model
	data      *Data
	params    []*Parameter
	objective *objective
	features  *Features
	scale     LossScale
	step      int
	order     []int // of the current epoch
}

// Progress is what one step came to.
type Progress struct {
	Step     int     `json:"step"` // steps done
	Steps    int     `json:"total_steps"`
	Epoch    int     `json:"epoch"`
	Loss     float64 `json:"loss"`
	Accuracy float64 `json:"accuracy"` // over the step's batch
	Rate     float64 `json:"learning_rate"`
}

// NewTuner prepares a run from its start. The recipe is resolved to the model and the data.
func NewTuner(ctx context.Context, m *Model, r *Recipe, d *Data) (*Tuner, error) {
	r, err := r.Resolve(m, d.Shots)
	if err != nil {
		return nil, err
	}
	if len(d.Classes) < 2 {
		return nil, errs.New(errs.Invalid, "dataset %s has %d classes: tuning needs at least 2", d.Dataset, len(d.Classes))
	}
	if len(d.Train) == 0 && r.Method != ZeroShot {
		return nil, errs.New(errs.Invalid, "dataset %s has no training images", d.Dataset)
	}
	t := &Tuner{Recipe: r, model: m, data: d}
	t.features = &Features{Images: m.Images.Preprocessor, Samples: d.Train, Views: max(1, r.Views), Seed: r.Seed, Compute: m.frozen(r)}
	if !r.gradient() {
		return t, nil
	}
	if t.params, err = m.newParameters(r, len(d.Classes)); err != nil {
		return nil, err
	}
	t.objective, err = m.newObjective(ctx, r, d.Classes)
	return t, err
}

// frozen is the part of the image tower that a recipe's prompts do not reach: to the tokens
// where they enter, or the whole of it.
func (m *Model) frozen(r *Recipe) func(context.Context, *graph.Tensor) (*graph.Tensor, error) {
	if r.learnsVisual() {
		return m.Images.Tokens
	}
	return m.embedPixels
}

// embedPixels returns the frozen model's embeddings, L2-normalised.
func (m *Model) embedPixels(ctx context.Context, pixels *graph.Tensor) (*graph.Tensor, error) {
	tokens, err := m.Images.Tokens(ctx, pixels)
	if err != nil {
		return nil, err
	}
	return m.EmbedImages(ctx, tokens, nil)
}

// Close frees the training session.
func (t *Tuner) Close() {
	if t.objective != nil {
		t.objective.close()
	}
}

// Steps is the number of steps of the whole run; a method that does not learn by gradient
// steps has one, and zero-shot none.
func (t *Tuner) Steps() int {
	switch {
	case t.Recipe.Method == ZeroShot:
		return 0
	case !t.Recipe.gradient():
		return 1
	}
	return t.Recipe.Schedule.Epochs * t.stepsPerEpoch()
}

func (t *Tuner) stepsPerEpoch() int { return (len(t.data.Train) + t.Recipe.Batch - 1) / t.Recipe.Batch }

// Step is the number of steps done.
func (t *Tuner) Step() int { return t.step }

// Done says whether all steps are done.
func (t *Tuner) Done() bool { return t.step >= t.Steps() }

// Next does one step.
func (t *Tuner) Next(ctx context.Context) (Progress, error) {
	p := Progress{Step: t.step + 1, Steps: t.Steps()}
	if t.Recipe.Method == LinearProbe {
		err := t.fitProbe(ctx, &p)
		return p, err
	}
	indexes, epoch := t.nextBatch()
	p.Epoch, p.Rate = epoch, t.Recipe.Schedule.Rate(t.Recipe.Optimizer.LearningRate, epoch)
	view := epoch % t.features.Views
	rows, err := t.features.Rows(ctx, indexes, view)
	if err != nil {
		return p, err
	}
	b := batch{input: "images", features: rows}
	if t.Recipe.learnsVisual() {
		b.input = "tokens"
	}
	for _, i := range indexes {
		b.labels = append(b.labels, t.data.Train[i].Class)
	}
	return p, t.learn(ctx, b, &p)
}

// learn changes the parameters along a batch's gradient.
func (t *Tuner) learn(ctx context.Context, b batch, p *Progress) error {
	t.objective.scale = t.scale.Factor()
	loss, right, gradients, err := t.objective.run(ctx, b, t.inputs())
	if err != nil {
		return err
	}
	usable := true
	if t.objective.half {
		if usable, err = t.scale.Unscale(gradients); err != nil {
			return err
		}
	}
	t.step++
	if usable {
		t.coupleGradients(gradients)
		for _, param := range t.params {
			t.Recipe.Optimizer.Update(param, gradients[param.Name], t.step-t.scale.Skipped, p.Rate)
		}
	}
	p.Loss, p.Accuracy = loss, float64(right)/float64(len(b.labels))
	if p.Loss != p.Loss {
		return errs.New(errs.Invalid, "the loss is not a number at step %d: lower optimizer.learning_rate (now %g)", t.step, t.Recipe.Optimizer.LearningRate)
	}
	return nil
}

// nextBatch is which samples the step to come learns from. Each epoch has an order of its own;
// the last batch may be smaller.
func (t *Tuner) nextBatch() (indexes []int, epoch int) {
	epoch = t.step / t.stepsPerEpoch()
	at := t.step % t.stepsPerEpoch()
	if at == 0 || t.order == nil {
		t.order = rng.New(t.Recipe.Seed, "order", epoch).Perm(len(t.data.Train))
	}
	start := at * t.Recipe.Batch
	return t.order[start:min(start+t.Recipe.Batch, len(t.order))], epoch
}

// inputs are the prompt's tokens as the training graph takes them.
func (t *Tuner) inputs() map[string]*graph.Tensor {
	in := map[string]*graph.Tensor{}
	for _, p := range t.params {
		in[p.Name] = p.Tensor
	}
	if t.Recipe.Method == MaPLe {
		for layer := range t.Recipe.Visual.Depth {
			context, weight, bias := t.coupling(layer)
			delete(in, weight.Name)
			delete(in, bias.Name)
			y := couple(context.values, weight.values, bias.values)
			in[graph.PromptName("visual", layer)] = graph.NewTensor(y, 1, int64(t.Recipe.Visual.Tokens), int64(len(bias.values)))
		}
	}
	return in
}

// coupleGradients turns the gradients by MaPLe's image tokens into those by what they are made of.
func (t *Tuner) coupleGradients(gradients map[string][]float32) {
	if t.Recipe.Method != MaPLe {
		return
	}
	for layer := range t.Recipe.Visual.Depth {
		context, weight, bias := t.coupling(layer)
		dy := gradients[graph.PromptName("visual", layer)]
		gradients[weight.Name], gradients[bias.Name] = coupleBackward(context.values, weight.values, dy, gradients[context.Name], len(bias.values))
	}
}

func (t *Tuner) coupling(layer int) (context, weight, bias *Parameter) {
	return t.param(graph.PromptName("context", layer)), t.param(couplingName(layer, "weight")), t.param(couplingName(layer, "bias"))
}

func (t *Tuner) param(name string) *Parameter {
	for _, p := range t.params {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Parameters returns what is learned.
func (t *Tuner) Parameters() []*Parameter { return t.params }

// Checkpoint is the run's state after the steps done so far.
func (t *Tuner) Checkpoint() ([]byte, error) {
	return EncodeCheckpoint(t.Recipe, State{t.step, t.params, t.scale})
}

// Restore continues from a checkpoint of the same recipe on the same data.
func (t *Tuner) Restore(b []byte) error {
	s, err := DecodeCheckpoint(b, t.Recipe)
	if err != nil {
		return err
	}
	t.params, t.step, t.scale, t.order = s.Params, s.Step, s.Scale, nil
	return nil
}
