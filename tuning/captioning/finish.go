package captioning

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/foretoken/foretoken/generation/caption"
	"github.com/foretoken/foretoken/generation/score"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
)

// Prompt is the tuned artefact as it stands, without metrics.
func (t *Trainer) Prompt(ctx context.Context) (*prompt.Prompt, error) {
	recipe, err := json.Marshal(t.Recipe)
	if err != nil {
		return nil, err
	}
	p := &prompt.Prompt{Tensors: map[string]*graph.Tensor{}, Card: prompt.Card{
		Kind: prompt.Caption, Method: t.Recipe.Method, Recipe: recipe, Unplaced: t.Recipe.Prefix.Unplaced,
		Bundle:  prompt.BundleRef{Name: t.model.Bundle.Name, Digest: t.model.Bundle.Digest},
		Dataset: prompt.DatasetRef{Name: t.data.Dataset, Version: t.data.Version, Split: t.data.Split},
		Seeds:   prompt.Seeds{Split: t.data.SplitSeed, Shots: t.data.ShotsSeed, Train: t.Recipe.Seed},
	}}
	for _, param := range t.params {
		p.Card.Parameters += int64(len(param.Values()))
	}
	layers, err := t.layers(ctx)
	if err != nil {
		return nil, err
	}
	stack(p.Tensors, "keys", layers, "prefix_key.")
	stack(p.Tensors, "values", layers, "prefix_value.")
	stack(p.Tensors, "visual", layers, "visual.")
	for name, x := range layers {
		switch {
		case name == prefixName || name == oursName:
			stack(p.Tensors, "prefix", layers, name)
			p.Tensors["prefix"].Dims = x.Dims[1:]
		case strings.HasPrefix(name, "map."):
			p.Tensors[name] = graph.NewTensor(slices.Clone(values(x)), x.Dims...)
		}
	}
	return p, nil
}

// layers are the learned tensors as they are served: keys and values come out of the network that makes them, which is then
// needed no more.
func (t *Trainer) layers(ctx context.Context) (map[string]*graph.Tensor, error) {
	learned := t.learned()
	if t.Recipe.Method != tuning.CaptionKeyValues || t.Recipe.Prefix.Hidden == 0 {
		return learned, nil
	}
	g, err := reparametrisation(t.parts.Decoder, t.Recipe.Prefix)
	if err != nil {
		return nil, err
	}
	s, err := ort.NewSession(g, t.model.Sessions())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	in, out := map[string]*graph.Tensor{}, map[string]*graph.Tensor{}
	for name, x := range learned {
		if strings.HasPrefix(name, "reparam.") {
			in[name] = x
			continue
		}
		out[name] = x
	}
	made, err := s.Run(ctx, in)
	for name, x := range made {
		out[strings.TrimPrefix(name, madeName)] = x
	}
	return out, err
}

// stack copies the tensors [1,...] whose names are a prefix and a number, or nothing, into one of a row each.
func stack(into map[string]*graph.Tensor, name string, layers map[string]*graph.Tensor, prefix string) {
	var all []float32
	var dims []int64
	for i := 0; ; i++ {
		x := layers[prefix]
		if strings.HasSuffix(prefix, ".") {
			x = layers[fmt.Sprintf("%s%d", prefix, i)]
		}
		if x == nil {
			break
		}
		all, dims = append(all, values(x)...), x.Dims
		if !strings.HasSuffix(prefix, ".") {
			break
		}
	}
	if dims != nil {
		into[name] = graph.NewTensor(all, append([]int64{int64(len(all)) / graph.Count(dims[1:])}, dims[1:]...)...)
	}
}

// values are a tensor's numbers: what is learned are floats.
func values(x *graph.Tensor) []float32 {
	v, _ := graph.Values[float32](x)
	return v
}

// Metrics are the scores of a run that tunes a captioner.
type Metrics struct {
	ZeroShot *Evaluation `json:"zero_shot,omitempty"` // nil where the model says nothing without a prompt
	Tuned    *Evaluation `json:"tuned"`
}

// Evaluation is how a model's texts do beside people's.
type Evaluation struct {
	prompt.Score
	Examples []Example `json:"examples"` // the first of the test images
}

// Example is what a model said of an image.
type Example struct {
	Image      string   `json:"image"` // its SHA-256
	Question   string   `json:"question,omitempty"`
	Text       string   `json:"text"`
	References []string `json:"references"`
}

// examples is how many examples an evaluation keeps.
const examples = 20

// Finish has the frozen model and the prompt say what they say of the test images, scores it, and fills the card.
func (t *Trainer) Finish(ctx context.Context) (*prompt.Prompt, any, error) {
	p, err := t.Prompt(ctx)
	if err != nil {
		return nil, nil, err
	}
	m := &Metrics{}
	if m.Tuned, err = Evaluate(ctx, t.model, p, t.data); err != nil {
		return nil, nil, err
	}
	p.Card.Metrics.Tuned = &m.Tuned.Score
	if t.parts.Mapped && t.parts.Mapper == nil { // without the prompt no image reaches the decoder
		return p, m, nil
	}
	if m.ZeroShot, err = Evaluate(ctx, t.model, nil, t.data); err != nil {
		return nil, nil, err
	}
	p.Card.Metrics.ZeroShot = &m.ZeroShot.Score
	return p, m, nil
}

// generateChunk is how many images are described at once.
const generateChunk = 16

// Evaluate scores what a model says of the test images under a prompt, nil for the frozen one, with the bundle's own way of
// choosing tokens. Captions are scored by CIDEr-D, BLEU-4, ROUGE-L and exact match, answers by VQA accuracy and exact match;
// the score's accuracy is the exact match of captions, or the VQA accuracy.
func Evaluate(ctx context.Context, m *caption.Model, p *prompt.Prompt, d *tuning.Data) (*Evaluation, error) {
	if len(d.Test) == 0 {
		return nil, errs.New(errs.Invalid, "dataset %s has no test images", d.Dataset)
	}
	e := &Evaluation{Score: prompt.Score{Split: "test", Images: len(d.Test)}}
	var texts []string
	var people [][]string
	for part := range slices.Chunk(d.Test, generateChunk) {
		said, err := describe(ctx, m, p, part)
		if err != nil {
			return nil, err
		}
		for i, s := range part {
			texts, people = append(texts, said[i]), append(people, s.Item.Texts())
			if len(e.Examples) < examples {
				e.Examples = append(e.Examples, Example{s.ID, s.Item.Question, said[i], s.Item.Texts()})
			}
		}
	}
	var err error
	if d.Test[0].Item.Question != "" {
		e.Others, err = score.Answers(texts, people)
		e.Accuracy = e.Others["vqa_accuracy"]
	} else {
		e.Others, err = score.Captions(texts, people)
		e.Accuracy = e.Others["exact_match"]
	}
	return e, err
}

// describe generates a text for each sample.
func describe(ctx context.Context, m *caption.Model, p *prompt.Prompt, samples []tuning.Sample) ([]string, error) {
	images := make([]image.Image, len(samples))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range samples {
		group.Go(func() (err error) {
			images[i], err = s.Image(inner)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	requests := make([]caption.Request, len(samples))
	for i, s := range samples {
		requests[i] = caption.Request{Image: images[i], Prompt: p, Text: s.Item.Question}
	}
	answers, err := m.Generate(ctx, requests)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(answers))
	for i, a := range answers {
		texts[i] = a.Text
	}
	return texts, nil
}
