package inversion

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
)

// example is one noisy picture under a text.
type example struct {
	clean    []float32 // scaled latents [C,h,w]
	noise    []float32
	sample   []float32 // latents with noise and, for inpainting, what is seen beside them
	target   []float32 // what the UNet should say
	timestep int64
	ids      [][]int64 // the text, by encoder
	weight   float32   // its share in the loss
}

func (e example) weightless() example {
	e.weight = 0
	return e
}

// examples are those of the step to come: a batch of pictures and, with prior preservation, one of class pictures. Everything is
// drawn from (seed, step, place in the batch, purpose).
func (t *Trainer) examples(ctx context.Context) ([]example, error) {
	var all []example
	for _, from := range []*pictures{t.pictures, t.prior} {
		if from == nil {
			continue
		}
		weight := 1.0
		if from == t.prior {
			weight = t.Recipe.Inversion.Prior.Weight
		}
		for i := range t.Recipe.Batch {
			e, err := t.example(ctx, from, i)
			if err != nil {
				return nil, err
			}
			e.weight = float32(weight / float64(t.Recipe.Batch))
			all = append(all, e)
		}
	}
	return all, nil
}

// example draws the i-th of a step's batch.
func (t *Trainer) example(ctx context.Context, from *pictures, i int) (example, error) {
	draw := func(purpose string) *rand.Rand {
		if from == t.prior {
			purpose = "class " + purpose
		}
		return rng.New(t.Recipe.Seed, purpose, t.step, i)
	}
	v := t.Recipe.Inversion
	at := from.at(t.step*t.Recipe.Batch + i)
	latents, err := from.latents(ctx, at, v.Flip && draw("flip").IntN(2) == 1)
	if err != nil {
		return example{}, err
	}
	x := latents.Mean
	if v.SampleLatents {
		x = latents.Sample(normal(draw("latents"), len(x)))
	}
	texts := t.wordings(from, at)
	ids, err := t.ids(texts[draw("text").IntN(len(texts))])
	if err != nil {
		return example{}, err
	}
	return t.noisy(x, draw("timestep").IntN(t.pipeline.Schedule.Timesteps()), draw("noise"), ids), nil
}

// noisy puts noise on unscaled latents.
func (t *Trainer) noisy(x []float32, timestep int, noise *rand.Rand, ids [][]int64) example {
	n := normal(noise, len(x))
	e := example{clean: t.pipeline.Scaled(slices.Clone(x)), noise: n, sample: make([]float32, len(x)), target: make([]float32, len(x)), timestep: int64(timestep), ids: ids}
	t.pipeline.Schedule.AddNoise(e.sample, e.clean, e.noise, timestep)
	t.pipeline.Schedule.Target(e.target, e.clean, e.noise, timestep)
	e.sample = append(e.sample, t.beside...)
	return e
}

func normal(g *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(g.NormFloat64())
	}
	return out
}

// wordings are the texts that a picture may stand under.
func (t *Trainer) wordings(from *pictures, at int) []string {
	s := from.sample(at)
	switch t.Recipe.Method {
	case tuning.TextualInversion:
		return t.filled(t.Recipe.Inversion.Token)
	case tuning.Negative:
		return []string{""} // the words that are learned are the whole of it
	}
	if s != nil && len(s.Item.Captions) > 0 {
		return s.Item.Captions
	}
	name := ""
	if s != nil && s.Class >= 0 && s.Class < len(t.data.Classes) {
		name = t.data.Classes[s.Class]
	}
	return t.filled(name)
}

// filled are the recipe's templates with a name at {}.
func (t *Trainer) filled(name string) []string {
	var out []string
	for _, s := range t.Recipe.Templates {
		out = append(out, strings.TrimSpace(strings.ReplaceAll(s, "{}", name)))
	}
	return out
}

// ids are a text's with the learned words in it, by encoder: as they will be when pictures are drawn.
func (t *Trainer) ids(s string) ([][]int64, error) {
	if have := t.texts[s]; have != nil {
		return have, nil
	}
	concepts := []*prompt.Prompt{t.prompt}
	words, err := t.pipeline.Words(concepts)
	if err != nil {
		return nil, err
	}
	var all [][]int64
	for i := range t.pipeline.Texts {
		read := words.IDs
		if t.Recipe.Method == tuning.Negative {
			read = words.NegativeIDs
		}
		framed, err := read(i, s, concepts)
		if err != nil {
			return nil, err
		}
		all = append(all, framed.IDs)
	}
	t.texts[s] = all
	return all, nil
}

// checkTexts sees that each template has room for the learned words.
func (t *Trainer) checkTexts() error {
	for _, s := range t.filled(t.Recipe.Inversion.Token) {
		if _, err := t.ids(s); err != nil {
			return errs.New(errs.Of(err), "recipe %q: template %q: %w", t.Recipe.Name, s, err)
		}
	}
	return nil
}

// inputs are those of a session for so many examples, save for the embeddings.
func (t *Trainer) inputs(s *ort.Session, part []example) map[string]*graph.Tensor {
	var samples, targets, weights []float32
	var times []int64
	for _, e := range part {
		samples, targets, weights = append(samples, e.sample...), append(targets, e.target...), append(weights, e.weight)
		times = append(times, e.timestep)
	}
	n, l := int64(len(part)), t.network.Latent
	in := map[string]*graph.Tensor{
		inSample: graph.NewTensor(samples, n, t.network.Seen, l[1], l[2]), inTargets: graph.NewTensor(targets, n, l[0], l[1], l[2]),
		inWeights: graph.NewTensor(weights, n),
	}
	for _, v := range s.Inputs() {
		switch v.Name {
		case inTimestep:
			in[inTimestep] = feed(v, times)
		case tuning.LossScaleName:
			in[tuning.LossScaleName] = graph.NewTensor([]float32{float32(t.scale.Factor())}, 1)
		case inTimes:
			in[inTimes] = graph.NewTensor(slices.Repeat(diffusion.TimeIDs(t.Recipe.Inversion.Height, t.Recipe.Inversion.Width), len(part)), n, 6)
		}
		for i := range t.network.Encoders {
			if v.Name == idsName(i) {
				var ids []int64
				for _, e := range part {
					ids = append(ids, e.ids[i]...)
				}
				in[v.Name] = feed(v, ids)
			}
		}
	}
	return in
}

// feed is integers as the input takes them. An input of one number gets the first.
func feed(v *graph.Value, values []int64) *graph.Tensor {
	dims, _ := v.Shape.Ints() // all are known
	return graph.Integers(values[:graph.Count(dims)], v.Type, dims...)
}
