package tuning

import (
	"context"
	"encoding/json"
	"math"
	"slices"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
)

// Classifier turns embeddings into class scores: a matrix, a row a class.
type Classifier struct {
	Names  []string
	weight []float32 // [C,P]
	bias   []float32 // [C]; nil where there is none
	scale  float32
}

// Classifier makes the classifier of a prompt for the named classes; a nil prompt is the frozen
// model with the templates. A prompt with a head of its own knows its own classes alone.
func (m *Model) Classifier(ctx context.Context, p *prompt.Prompt, names, templates []string) (*Classifier, error) {
	if p != nil {
		if err := p.CheckBundle(m.Bundle.Digest); err != nil {
			return nil, err
		}
		if p.Tensors["head.weight"] != nil {
			return headClassifier(p, names)
		}
	}
	features, err := m.ClassFeatures(ctx, p, names, templates)
	if err != nil {
		return nil, err
	}
	weight, err := graph.Values[float32](features)
	return &Classifier{Names: names, weight: weight, scale: m.Scale.Value}, err
}

func headClassifier(p *prompt.Prompt, names []string) (*Classifier, error) {
	if !slices.Equal(names, p.Card.Classes) {
		return nil, errs.New(errs.Invalid, "a %s knows only the %d classes that it was trained on (%.200q): it can't take other names", p.Card.Method, len(p.Card.Classes), p.Card.Classes)
	}
	weight, err := graph.Values[float32](p.Tensors["head.weight"])
	if err != nil {
		return nil, err
	}
	bias, err := graph.Values[float32](p.Tensors["head.bias"])
	return &Classifier{Names: names, weight: weight, bias: bias, scale: 1}, err
}

// Logits returns the scores of one embedding [P], a number a class.
func (c *Classifier) Logits(embedding []float32) []float32 {
	out := make([]float32, len(c.Names))
	for i := range out {
		sum := float32(0)
		for j, w := range c.weight[i*len(embedding) : (i+1)*len(embedding)] {
			sum += w * embedding[j]
		}
		out[i] = sum * c.scale
		if c.bias != nil {
			out[i] += c.bias[i]
		}
	}
	return out
}

// Probabilities is the softmax of logits.
func Probabilities(logits []float32) []float64 {
	wide := make([]float64, len(logits))
	for i, x := range logits {
		wide[i] = float64(x)
	}
	norm := logSumExp(wide)
	for i := range wide {
		wide[i] = math.Exp(wide[i] - norm)
	}
	return wide
}

// Evaluation is how a classifier does on samples.
type Evaluation struct {
	prompt.Score
	// Confusion counts samples by true class, then by predicted one.
	Confusion [][]int `json:"confusion"`
}

// Evaluator scores prompts on the test images of a data set. The part of the image tower that
// lies before every prompt is computed once for all of them.
type Evaluator struct {
	model    *Model
	data     *Data
	features *Features
}

// NewEvaluator prepares scoring on d's test images.
func (m *Model) NewEvaluator(d *Data) *Evaluator {
	return &Evaluator{model: m, data: d, features: &Features{Images: m.Images.Preprocessor, Samples: d.Test, Views: 1, Compute: m.Images.Tokens, shared: m.tested}}
}

// Embed returns the embeddings [N,P], L2-normalised, of the test images under a prompt.
func (e *Evaluator) Embed(ctx context.Context, p *prompt.Prompt) (*graph.Tensor, error) {
	var all []float32
	for start := 0; start < len(e.data.Test); start += featureChunk {
		tokens, err := e.features.Rows(ctx, upTo(start, min(start+featureChunk, len(e.data.Test))), 0)
		if err != nil {
			return nil, err
		}
		out, err := e.model.EmbedImages(ctx, tokens, p)
		if err != nil {
			return nil, err
		}
		values, err := graph.Values[float32](out)
		if err != nil {
			return nil, err
		}
		all = append(all, values...)
	}
	n := int64(len(e.data.Test))
	return graph.NewTensor(all, n, int64(len(all))/max(n, 1)), nil
}

func upTo(start, end int) []int {
	var out []int
	for i := start; i < end; i++ {
		out = append(out, i)
	}
	return out
}

// Score classifies the test images. A nil prompt is the frozen model with the templates.
func (e *Evaluator) Score(ctx context.Context, p *prompt.Prompt, templates []string) (*Evaluation, error) {
	if len(e.data.Test) == 0 {
		return nil, errs.New(errs.Invalid, "dataset %s has no test images of these classes", e.data.Dataset)
	}
	if len(e.data.Classes) == 0 {
		return nil, errs.New(errs.Invalid, "dataset %s has no classes to be told apart", e.data.Dataset)
	}
	classifier, err := e.model.Classifier(ctx, p, e.data.Classes, templates)
	if err != nil {
		return nil, err
	}
	embeddings, err := e.Embed(ctx, p)
	if err != nil {
		return nil, err
	}
	values, err := graph.Values[float32](embeddings)
	if err != nil {
		return nil, err
	}
	width := int(embeddings.Dims[1])
	confusion := make([][]int, len(e.data.Classes))
	for i := range confusion {
		confusion[i] = make([]int, len(e.data.Classes))
	}
	for i, s := range e.data.Test {
		confusion[s.Class][argmax(classifier.Logits(values[i*width:(i+1)*width]))]++
	}
	return summarise(confusion, e.data.Classes), nil
}

// summarise turns counts into scores.
func summarise(confusion [][]int, names []string) *Evaluation {
	e := &Evaluation{Confusion: confusion, Score: prompt.Score{Split: "test"}}
	right := 0
	for c, row := range confusion {
		images := 0
		for _, n := range row {
			images += n
		}
		right += row[c]
		e.Images += images
		e.PerClass = append(e.PerClass, prompt.ClassScore{Class: names[c], Images: images, Accuracy: float64(row[c]) / float64(max(1, images))})
	}
	e.Accuracy = float64(right) / float64(max(1, e.Images))
	e.Interval = bootstrap(right, e.Images)
	return e
}

// resamples is how often the bootstrap draws the test images anew.
const resamples = 1000

// bootstrap is the 95 % percentile interval of an accuracy: the images are drawn with
// replacement, as many as there are (Efron 1979).
func bootstrap(right, images int) [2]float64 {
	if images == 0 {
		return [2]float64{0, 1}
	}
	g := rng.New(0, "bootstrap", right, images)
	scores := make([]float64, resamples)
	for i := range scores {
		hits := 0
		for range images {
			if g.IntN(images) < right {
				hits++
			}
		}
		scores[i] = float64(hits) / float64(images)
	}
	slices.Sort(scores)
	return [2]float64{scores[resamples*25/1000], scores[resamples*975/1000-1]}
}

// Prompt is the tuned artefact as it stands, without metrics.
func (t *Tuner) Prompt() (*prompt.Prompt, error) {
	recipe, err := json.Marshal(t.Recipe)
	if err != nil {
		return nil, err
	}
	p := &prompt.Prompt{Tensors: map[string]*graph.Tensor{}, Card: prompt.Card{
		Bundle: t.model.Ref(), Method: t.Recipe.Method, Recipe: recipe, Classes: t.data.Classes,
		ClassSpecific: t.Recipe.Context.ClassSpecific, Templates: t.Recipe.Templates, LogitScale: t.model.Scale,
		Dataset: prompt.DatasetRef{Name: t.data.Dataset, Version: t.data.Version, Split: t.data.Split},
		Seeds:   prompt.Seeds{Split: t.data.SplitSeed, Shots: t.data.ShotsSeed, Train: t.Recipe.Seed},
	}}
	for _, param := range t.params {
		p.Card.Parameters += int64(len(param.values))
	}
	t.fill(p)
	return p, nil
}

// fill copies what serving needs into the prompt's tensors, layers stacked. MaPLe's maps are not
// among it: what they made of the context is, so that the file stays small.
func (t *Tuner) fill(p *prompt.Prompt) {
	inputs := t.inputs()
	stack := func(kind string, depth int) {
		var all []float32
		var dims []int64
		for layer := range depth {
			in := inputs[graph.PromptName(kind, layer)]
			values, _ := graph.Values[float32](in) // parameters are floats
			all, dims = append(all, values...), in.Dims
		}
		if kind == "visual" || depth > 1 {
			dims = []int64{int64(depth), dims[1], dims[2]}
		} else if !t.Recipe.Context.ClassSpecific {
			dims = dims[1:]
		}
		p.Tensors[kind] = graph.NewTensor(all, dims...)
	}
	if t.Recipe.learnsContext() {
		stack("context", t.Recipe.Context.Depth)
	}
	if t.Recipe.learnsVisual() {
		stack("visual", t.Recipe.Visual.Depth)
	}
	for _, param := range t.params {
		if t.Recipe.Method == LinearProbe {
			p.Tensors[param.Name] = graph.NewTensor(slices.Clone(param.values), param.Tensor.Dims...)
		}
	}
}
