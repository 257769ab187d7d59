package inversion

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
)

// Trainer learns new words of a text-to-image bundle, step by step. What it computes depends on the recipe, the
// data and the bundle alone; where it stands is its [Trainer.Checkpoint]. It is not for concurrent use.
type Trainer struct {
	Recipe *tuning.Recipe // resolved
	// Judge, where it is set, is a dual encoder that [Trainer.Finish] scores drawn pictures with.
	Judge *tuning.Model

	pipeline *diffusion.Pipeline
	network  *Network
	data     *tuning.Data
	pictures *pictures
	prior    *pictures // of the class; nil where the recipe wants none
	params   []*tuning.Parameter
	norms    [][]float64 // the rows' lengths at the start, by parameter
	scale    tuning.LossScale
	step     int
	session  *ort.Session // the loss and its gradients; nil until the first step
	half     bool         // it computes in half floats
	texts    map[string][][]int64
	prompt   *prompt.Prompt // what is learned, for its ids
	beside   []float32      // what a UNet for inpainting sees behind a picture's latents; nil for others
}

// New prepares a run from its start. The recipe is resolved to the pipeline and the data.
func New(ctx context.Context, p *diffusion.Pipeline, r *tuning.Recipe, d *tuning.Data) (*Trainer, error) {
	r, err := resolve(p, r, d)
	if err != nil {
		return nil, err
	}
	t := &Trainer{Recipe: r, pipeline: p, data: d, texts: map[string][][]int64{}}
	if t.network, err = networkOf(p, r); err != nil {
		return nil, err
	}
	if t.beside, err = p.WholeMasked(ctx, r.Inversion.Height, r.Inversion.Width); err != nil {
		return nil, err
	}
	t.network.Seen += int64(len(t.beside)) / (t.network.Latent[1] * t.network.Latent[2])
	if t.params, err = t.start(); err != nil {
		return nil, err
	}
	for _, param := range t.params {
		t.norms = append(t.norms, lengths(param))
	}
	t.prompt = t.Prompt()
	concept, class := divide(r, d)
	t.pictures = newPictures(p, r, concept)
	if r.Inversion.Prior.On() {
		t.prior = newPictures(p, r, class)
	}
	return t, t.checkTexts()
}

// networkOf is the pipeline's graphs, for pictures of the recipe's size.
func networkOf(p *diffusion.Pipeline, r *tuning.Recipe) (*Network, error) {
	unet, err := p.UNet()
	if err != nil {
		return nil, err
	}
	m := &Network{
		UNet: unet, Length: int64(p.Texts[0].Window), Recompute: int64(r.Inversion.MemoryMB) << 20, Widen: p.Sessions().Provider == ort.CPU,
		Latent: [3]int64{int64(p.Channels), int64(r.Inversion.Height / p.Factor), int64(r.Inversion.Width / p.Factor)},
		Seen:   int64(p.Channels), Guidance: p.GuidanceEmbedding(),
	}
	for _, e := range p.Texts {
		encoder := Encoder{Tower: e.Tower, Hidden: e.Tower.Output.Name}
		if e.PooledTower != nil {
			encoder.Tower, encoder.Pooled = e.PooledTower, e.PooledTower.Output.Name
		}
		m.Encoders = append(m.Encoders, encoder)
	}
	return m, nil
}

// start is the embeddings that learning begins with.
func (t *Trainer) start() ([]*tuning.Parameter, error) {
	v := t.Recipe.Inversion
	var params []*tuning.Parameter
	for i, e := range t.pipeline.Texts {
		values, err := startRows(e, v.Init, v.Vectors, rng.New(t.Recipe.Seed, "rows", i))
		if err != nil {
			return nil, err
		}
		params = append(params, tuning.NewParameter(rowsName(i), values, int64(v.Vectors), int64(e.Tower.Width)))
	}
	return params, nil
}

// startRows are n embeddings: those of the words of init in turn, or drawn like the table's numbers.
func startRows(e *diffusion.TextEncoder, init string, n int, g *rand.Rand) ([]float32, error) {
	out := make([]float32, 0, n*e.Tower.Width)
	if init == "" {
		mean, deviation, err := spread(e.Tower)
		if err != nil {
			return nil, err
		}
		for range n * e.Tower.Width {
			out = append(out, float32(mean+deviation*g.NormFloat64()))
		}
		return out, nil
	}
	ids, err := e.Tokenizer.Tokens(init)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, errs.New(errs.Invalid, "inversion.init %q has no tokens", init)
	}
	rows, err := e.Tower.Embeddings(ids)
	if err != nil {
		return nil, err
	}
	for j := range n {
		at := j % len(ids) * e.Tower.Width
		out = append(out, rows[at:at+e.Tower.Width]...)
	}
	return out, nil
}

// sampledRows is how many rows of a token table its mean and deviation are taken from.
const sampledRows = 1000

// spread is the mean and the deviation of a token table's numbers, over rows at equal distances.
func spread(t *graph.TextTower) (mean, deviation float64, err error) {
	rows, _ := t.Table.Shape[0].Int()
	var ids []int64
	for i := int64(0); i < rows; i += max(1, rows/sampledRows) {
		ids = append(ids, i)
	}
	values, err := t.Embeddings(ids)
	if err != nil {
		return 0, 0, err
	}
	var sum, squares float64
	for _, x := range values {
		sum += float64(x)
		squares += float64(x) * float64(x)
	}
	n := float64(len(values))
	mean = sum / n
	return mean, math.Sqrt(max(0, squares/n-mean*mean)), nil
}

// lengths are the L2 norms of a parameter's rows.
func lengths(p *tuning.Parameter) []float64 {
	width := int(p.Tensor.Dims[1])
	var out []float64
	for row := range slices.Chunk(p.Values(), width) {
		var sum float64
		for _, x := range row {
			sum += float64(x) * float64(x)
		}
		out = append(out, math.Sqrt(sum))
	}
	return out
}

// keepLengths brings rows back to the lengths that they started with.
func keepLengths(p *tuning.Parameter, want []float64) {
	width := int(p.Tensor.Dims[1])
	for i, have := range lengths(p) {
		for j := range p.Values()[i*width : (i+1)*width] {
			p.Values()[i*width+j] *= float32(want[i] / max(have, 1e-12))
		}
	}
}

// Close frees the training session. The pipeline is the caller's.
func (t *Trainer) Close() {
	if t.session != nil {
		t.session.Close()
		t.session = nil
	}
}

// Steps is the number of steps of the whole run.
func (t *Trainer) Steps() int { return t.Recipe.Inversion.Steps }

// Step is the number of steps done.
func (t *Trainer) Step() int { return t.step }

// Done says whether all steps are done.
func (t *Trainer) Done() bool { return t.step >= t.Steps() }

// Parameters are the embeddings of each text encoder, [n,D], as they stand.
func (t *Trainer) Parameters() []*tuning.Parameter { return t.params }

// Next does one step.
func (t *Trainer) Next(ctx context.Context) (tuning.Progress, error) {
	p := tuning.Progress{Step: t.step + 1, Steps: t.Steps(), Rate: t.Recipe.InversionRate(), Epoch: t.step * t.Recipe.Batch / t.pictures.count()}
	examples, err := t.examples(ctx)
	if err != nil {
		return p, err
	}
	loss, gradients, err := t.gradients(ctx, examples)
	if err != nil {
		return p, err
	}
	p.Loss = loss
	return p, t.learn(gradients, &p)
}

// learn changes the embeddings along a step's gradients.
func (t *Trainer) learn(gradients map[string][]float32, p *tuning.Progress) error {
	usable := true
	if t.half {
		var err error
		if usable, err = t.scale.Unscale(gradients); err != nil {
			return err
		}
	}
	t.step++
	if p.Loss != p.Loss || math.IsInf(p.Loss, 0) {
		return errs.New(errs.Invalid, "the loss is %g at step %d: lower optimizer.learning_rate (now %g)", p.Loss, t.step, t.Recipe.Optimizer.LearningRate)
	}
	if !usable {
		return nil
	}
	for i, param := range t.params {
		t.Recipe.Optimizer.Update(param, gradients[param.Name], t.step-t.scale.Skipped, p.Rate)
		if t.Recipe.Inversion.KeepNorm {
			keepLengths(param, t.norms[i])
		}
	}
	return nil
}

// open makes the training session when it is first wanted.
func (t *Trainer) open() error {
	if t.session != nil {
		return nil
	}
	g, err := t.network.Training(t.micro(), t.Recipe.Inversion.Vectors)
	if err != nil {
		return errs.New(errs.Of(err), "bundle %s: %w", t.pipeline.Bundle.Name, err)
	}
	t.half = g.Input(tuning.LossScaleName) != nil
	t.session, err = ort.NewSession(g, t.options(g))
	return err
}

// leanFrom is how many bytes of weights a network has for its sessions to be lean: copies of them would be what memory goes into.
const leanFrom = 1 << 30

// options are those of sessions on a graph of the whole network.
func (t *Trainer) options(g *graph.Graph) ort.Options {
	o := t.pipeline.Sessions()
	o.Lean = g.ResidentBytes(graph.Float16, graph.BFloat16) >= leanFrom
	return o
}

// micro is how many pictures go through the network at once.
func (t *Trainer) micro() int { return t.Recipe.Inversion.MicroBatch }

// gradients are the loss of a step's examples and its gradients by the embeddings' names, those times the loss scale
// where the network computes in half floats.
func (t *Trainer) gradients(ctx context.Context, examples []example) (float64, map[string][]float32, error) {
	if err := t.open(); err != nil {
		return 0, nil, err
	}
	sums := map[string][]float32{}
	loss, err := t.run(ctx, t.session, examples, t.params, func(out map[string]*graph.Tensor) error {
		gradients := map[string][]float32{}
		for _, p := range t.params {
			var err error
			if gradients[p.Name], err = graph.Float32s(out[tuning.GradientName(p.Name)]); err != nil {
				return err
			}
		}
		tuning.AddGradients(sums, gradients)
		return nil
	})
	return loss, sums, err
}

// run takes examples through a session, so many at a time, and adds up their losses. What is missing in the last pass is
// filled up with its first example at no weight.
func (t *Trainer) run(ctx context.Context, s *ort.Session, examples []example, rows []*tuning.Parameter, each func(map[string]*graph.Tensor) error) (loss float64, err error) {
	for part := range slices.Chunk(examples, t.micro()) {
		part = slices.Clone(part)
		for len(part) < t.micro() {
			part = append(part, part[0].weightless())
		}
		in := t.inputs(s, part)
		for _, p := range rows {
			in[p.Name] = p.Tensor
		}
		out, err := s.Run(ctx, in)
		if err != nil {
			return 0, err
		}
		losses, err := graph.Float32s(out[outLosses])
		if err != nil {
			return 0, err
		}
		for i, e := range part {
			loss += float64(losses[i]) * float64(e.weight)
		}
		if err := each(out); err != nil {
			return 0, err
		}
	}
	return loss, nil
}

// Checkpoint is the run's state after the steps done so far: the latents of the class pictures that were drawn with it.
func (t *Trainer) Checkpoint() ([]byte, error) {
	var drawn []diffusion.Latents
	if t.prior != nil {
		drawn = t.prior.drawn
	}
	return tuning.EncodeCheckpoint(t.Recipe, tuning.State{Step: t.step, Params: t.params, Scale: t.scale}, drawn)
}

// Restore continues from a checkpoint of the same recipe on the same data.
func (t *Trainer) Restore(b []byte) error {
	var drawn []diffusion.Latents
	s, err := tuning.DecodeCheckpoint(b, t.Recipe, &drawn)
	if err == nil {
		err = s.Learns(t.params)
	}
	if err != nil {
		return err
	}
	t.params, t.step, t.scale = s.Params, s.Step, s.Scale
	if t.prior != nil {
		t.prior.drawn = drawn
	}
	return nil
}
