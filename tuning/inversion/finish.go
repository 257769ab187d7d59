package inversion

import (
	"context"
	"encoding/json"
	"image"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/generation/score"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
)

// Metrics compare what was learned with where it started: the embeddings of the words of inversion.init.
type Metrics struct {
	ZeroShot *prompt.Score `json:"zero_shot"`
	Tuned    *prompt.Score `json:"tuned"`
}

// The measures of [prompt.Score.Others].
const (
	// DenoisingLoss is the mean of the loss over inversion.held_out draws of timestep and noise that no step sees, on the
	// test images, or on the training images where there are none.
	DenoisingLoss = "denoising_loss"
	// CLIPScore is that of drawn pictures against their scenes (Hessel et al. 2021).
	CLIPScore = "clip_score"
	// Identity is the mean, over drawn pictures, of the largest cosine to a picture that was learned from.
	Identity = "nearest_neighbour_identity"
)

// kinds are what the methods learn.
var kinds = map[string]prompt.Kind{tuning.TextualInversion: prompt.Concept, tuning.Style: prompt.Style, tuning.Negative: prompt.Negative}

// Prompt is what was learned so far, without scores.
func (t *Trainer) Prompt() *prompt.Prompt {
	recipe, _ := json.Marshal(t.Recipe) // of plain fields
	kind := kinds[t.Recipe.Method]
	p := &prompt.Prompt{Tensors: map[string]*graph.Tensor{}, Card: prompt.Card{
		Bundle: prompt.BundleRef{Name: t.pipeline.Bundle.Name, Digest: t.pipeline.Bundle.Digest},
		Kind:   kind, Method: t.Recipe.Method, Token: t.Recipe.Inversion.Token, Recipe: recipe, Templates: t.Recipe.Templates,
		Dataset: prompt.DatasetRef{Name: t.data.Dataset, Version: t.data.Version, Split: t.data.Split},
		Seeds:   prompt.Seeds{Split: t.data.SplitSeed, Shots: t.data.ShotsSeed, Train: t.Recipe.Seed},
	}}
	for i, param := range t.params {
		name := prompt.Rows(kind)
		if i > 0 {
			name += "_2"
		}
		p.Tensors[name] = graph.NewTensor(slices.Clone(param.Values()), param.Tensor.Dims...)
		p.Card.Parameters += int64(len(param.Values()))
	}
	return p
}

// Finish scores what was learned beside what it started from, and returns it. The training session is freed first.
func (t *Trainer) Finish(ctx context.Context) (*prompt.Prompt, any, error) {
	t.Close()
	start, err := t.start()
	if err != nil {
		return nil, nil, err
	}
	before, after, err := t.Losses(ctx, start)
	if err != nil {
		return nil, nil, err
	}
	p := t.Prompt()
	images, split := t.heldOut()
	scored := func(loss float64) *prompt.Score {
		return &prompt.Score{Split: split, Images: images.count(), Others: map[string]float64{DenoisingLoss: loss}}
	}
	m := &Metrics{ZeroShot: scored(before), Tuned: scored(after)}
	if t.Judge != nil && len(t.Recipe.Inversion.Scenes) > 0 && t.Recipe.Inversion.Pictures > 0 {
		if err := t.judge(ctx, nil, m.ZeroShot); err != nil {
			return nil, nil, err
		}
		if err := t.judge(ctx, p, m.Tuned); err != nil {
			return nil, nil, err
		}
	}
	p.Card.Metrics = prompt.Metrics{ZeroShot: m.ZeroShot, Tuned: m.Tuned}
	return p, m, nil
}

// heldOut are the pictures that losses are measured on, and the split that they are of.
func (t *Trainer) heldOut() (from *pictures, split string) {
	if len(t.data.Test) == 0 {
		return t.pictures, "train"
	}
	return newPictures(t.pipeline, t.Recipe, t.data.Test), "test"
}

// Losses are the denoising losses of other embeddings and of those learned, over the same draws: timesteps at equal distances,
// noise by the seed, the autoencoder's means of plain pictures.
func (t *Trainer) Losses(ctx context.Context, start []*tuning.Parameter) (before, after float64, err error) {
	g, err := t.network.Forward(t.micro(), t.Recipe.Inversion.Vectors)
	if err != nil {
		return 0, 0, err
	}
	s, err := ort.NewSession(g, t.options(g))
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	examples, err := t.heldOutExamples(ctx)
	if err != nil {
		return 0, 0, err
	}
	nothing := func(map[string]*graph.Tensor) error { return nil }
	if before, err = t.run(ctx, s, examples, start, nothing); err != nil {
		return 0, 0, err
	}
	after, err = t.run(ctx, s, examples, t.params, nothing)
	return before, after, err
}

func (t *Trainer) heldOutExamples(ctx context.Context) ([]example, error) {
	from, _ := t.heldOut()
	draws, all := t.Recipe.Inversion.HeldOut, []example{}
	for k := range draws {
		at := k % from.count()
		l, err := from.latents(ctx, at, false)
		if err != nil {
			return nil, err
		}
		texts := t.wordings(from, at)
		ids, err := t.ids(texts[k%len(texts)])
		if err != nil {
			return nil, err
		}
		timestep := (2*k + 1) * t.pipeline.Schedule.Timesteps() / (2 * draws)
		e := t.noisy(l.Mean, timestep, rng.New(t.Recipe.Seed, "held-out noise", k), ids)
		e.weight = 1 / float32(draws)
		all = append(all, e)
	}
	return all, nil
}

// judge draws the recipe's scenes under a prompt, or without one, and has the dual encoder look at them: the same seeds in both.
func (t *Trainer) judge(ctx context.Context, p *prompt.Prompt, into *prompt.Score) error {
	drawn, scenes, err := t.drawScenes(ctx, p)
	if err != nil {
		return err
	}
	pictures, err := t.embed(ctx, drawn)
	if err != nil {
		return err
	}
	var own []image.Image
	for _, s := range t.pictures.samples {
		img, err := s.Image(ctx)
		if err != nil {
			return err
		}
		own = append(own, middle(img, t.Recipe.Inversion.Width, t.Recipe.Inversion.Height))
	}
	learned, err := t.embed(ctx, own)
	if err != nil {
		return err
	}
	texts, err := t.Judge.Texts.Embed(ctx, scenes)
	if err != nil {
		return err
	}
	words, err := graph.Float32s(texts)
	if err != nil {
		return err
	}
	width := len(words) / len(scenes)
	var clip, identity float64
	for i, x := range pictures {
		nearest := -1.0
		for _, y := range learned {
			nearest = max(nearest, cosine(x, y))
		}
		fit, err := score.CLIPScore(x, words[i*width:(i+1)*width])
		if err != nil {
			return err
		}
		clip += fit / float64(len(pictures))
		identity += nearest / float64(len(pictures))
	}
	into.Others[CLIPScore], into.Others[Identity] = clip, identity
	return nil
}

// drawScenes draws each scene so many times, and says in words that the dual encoder knows what each picture should show.
func (t *Trainer) drawScenes(ctx context.Context, p *prompt.Prompt) (drawn []image.Image, texts []string, err error) {
	v := t.Recipe.Inversion
	var concepts []*prompt.Prompt
	name := v.Init // the concept in words
	if p != nil {
		concepts = []*prompt.Prompt{p}
		if t.Recipe.Method == tuning.TextualInversion {
			name = v.Token
		}
	}
	for _, scene := range v.Scenes {
		var rs []diffusion.Request
		for k := range v.Pictures {
			rs = append(rs, whole(t.pipeline, diffusion.Request{
				Prompt: strings.ReplaceAll(scene, "{}", name), Concepts: concepts, Width: v.Width, Height: v.Height,
				Seed: rng.New(t.Recipe.Seed, "scene", k).Uint64(),
			}))
			texts = append(texts, strings.ReplaceAll(scene, "{}", v.Init))
		}
		results, err := t.pipeline.Generate(ctx, rs)
		if err != nil {
			return nil, nil, errs.New(errs.Of(err), "scene %q: %w", scene, err)
		}
		for _, r := range results {
			drawn = append(drawn, r.Image)
		}
	}
	return drawn, texts, nil
}

// embed gives the dual encoder's embeddings of images, of length 1.
func (t *Trainer) embed(ctx context.Context, images []image.Image) ([][]float32, error) {
	var out [][]float32
	for _, img := range images {
		tokens, err := t.Judge.Images.Tokens(ctx, t.Judge.Images.Pixels(t.Judge.Images.Apply(img)))
		if err != nil {
			return nil, err
		}
		e, err := t.Judge.EmbedImages(ctx, tokens, nil)
		if err != nil {
			return nil, err
		}
		x, err := graph.Float32s(e)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// cosine of vectors of length 1.
func cosine(x, y []float32) (sum float64) {
	for i := range x {
		sum += float64(x[i]) * float64(y[i])
	}
	return sum
}
