package tuning

import (
	"context"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
)

// Part is what of a model a prompt is baked into.
type Part string

const (
	// ImageTower takes preprocessed images [B,3,H,W].
	ImageTower Part = "image"
	// TextTower takes token ids [B,S], of texts with a placeholder for each context token behind what opens a text.
	TextTower Part = "text"
	// ImageClassifier is the image tower with the embeddings of the prompt's classes, which have gone through the text
	// tower, or with its head.
	ImageClassifier Part = "classifier"
)

// The outputs of a baked graph, beside the tower's own. They are what serving computes.
const (
	bakedEmbeddings    = "embeddings"    // [B,P], L2-normalised
	bakedLogits        = "logits"        // [B,C]
	bakedProbabilities = "probabilities" // [B,C]
)

// Bake returns a graph of the part that holds the prompt as constants and takes no prompt any more. It gives
// the tower's own output as the export has it, "embeddings" [B,P], which are that, L2-normalised, and of a
// classifier "logits" and "probabilities" [B,C] over the card's classes.
func (m *Model) Bake(ctx context.Context, p *prompt.Prompt, part Part) (*graph.Graph, error) {
	if err := p.CheckBundle(m.Bundle.Digest); err != nil {
		return nil, err
	}
	var g *graph.Graph
	var err error
	switch part {
	case ImageTower, ImageClassifier:
		g, err = m.bakedImages(p)
	case TextTower:
		g, err = m.bakedTexts(p)
	default:
		err = errs.New(errs.Invalid, "%q is no part of a model: there are %q, %q and %q", part, ImageClassifier, ImageTower, TextTower)
	}
	if err != nil {
		return nil, err
	}
	var c *Classifier
	if part == ImageClassifier {
		if c, err = m.ownClassifier(ctx, p); err != nil {
			return nil, err
		}
	}
	return g, finishBaked(g, c)
}

// bakedImages is the image tower, with the prompt's image tokens where it has some.
func (m *Model) bakedImages(p *prompt.Prompt) (*graph.Graph, error) {
	layers, err := VisualLayers(p)
	if err != nil || len(layers) == 0 {
		return m.Images.Info.Graph.Clone(), err
	}
	g, err := m.Images.Info.WithPrompts(graph.ImagePromptOptions{Tokens: int(layers[0].Dims[1]), Depth: len(layers)})
	if err != nil {
		return nil, err
	}
	return g, pinLayers(g, "visual", layers)
}

// bakedTexts is the text tower with the prompt's context.
func (m *Model) bakedTexts(p *prompt.Prompt) (*graph.Graph, error) {
	switch {
	case p.Tensors["context"] == nil:
		return nil, errs.New(errs.Invalid, "a %s has no context: bake it into the image tower (%s)", p.Card.Method, ImageTower)
	case p.Card.ClassSpecific:
		return nil, errs.New(errs.Unsupported, "the prompt has a context for each class and none for other texts: bake it into a classifier (%s)", ImageClassifier)
	}
	layers, err := splitLayers(p.Tensors["context"])
	if err != nil {
		return nil, err
	}
	g, err := m.Texts.Graph(graph.ContextOptions{Tokens: int(layers[0].Dims[1]), Start: m.Texts.ContextStart(), Depth: len(layers)})
	if err != nil {
		return nil, err
	}
	return g, pinLayers(g, "context", layers)
}

func pinLayers(g *graph.Graph, kind string, layers []*graph.Tensor) error {
	for i, layer := range layers {
		if err := g.Pin(graph.PromptName(kind, i), layer); err != nil {
			return err
		}
	}
	return g.Fold()
}

// ownClassifier is the classifier of the prompt's own classes.
func (m *Model) ownClassifier(ctx context.Context, p *prompt.Prompt) (*Classifier, error) {
	if len(p.Card.Classes) == 0 {
		return nil, errs.New(errs.Invalid, "the prompt's card names no classes: bake it into a tower (%s or %s)", ImageTower, TextTower)
	}
	return m.Classifier(ctx, p, p.Card.Classes, p.Card.Templates)
}

// finishBaked appends the outputs that serving computes; c is nil for a tower alone.
func finishBaked(g *graph.Graph, c *Classifier) error {
	y := g.Outputs[0]
	if y.Name == bakedEmbeddings || y.Name == bakedLogits || y.Name == bakedProbabilities {
		y.Name = "tower_" + y.Name
	}
	err := g.Build(func(b *graph.Builder) {
		x := b.Output(bakedEmbeddings, b.Normalize(b.Floats(y)))
		if c == nil {
			return
		}
		classes := int64(len(c.Names))
		weight := b.Const(graph.NewTensor(c.weight, classes, int64(len(c.weight))/classes))
		logits := b.Mul(b.MatMul(x, b.SwapLast(weight)), b.Scalar(float64(c.scale), x))
		if c.bias != nil {
			logits = b.Add(logits, b.Const(graph.NewTensor(c.bias, classes)))
		}
		b.Output(bakedProbabilities, b.Op("Softmax", graph.Attrs{"axis": int64(-1)}, b.Output(bakedLogits, logits)))
	})
	if err != nil {
		return err
	}
	return g.Check()
}

// BakedExample returns inputs of a baked graph, two images of noise or the prompt's classes as texts, and what serving
// makes of them: to hold other runtimes against.
func (m *Model) BakedExample(ctx context.Context, p *prompt.Prompt, part Part) (in, out map[string]*graph.Tensor, err error) {
	if part == TextTower {
		return m.textExample(ctx, p)
	}
	h, w := m.Images.Size()
	noise, r := make([]float32, 2*3*h*w), rng.New(0, "example")
	for i := range noise {
		noise[i] = float32(r.NormFloat64())
	}
	pixels := graph.NewTensor(noise, 2, 3, int64(h), int64(w))
	tokens, err := m.Images.Tokens(ctx, pixels)
	if err != nil {
		return nil, nil, err
	}
	embeddings, err := m.EmbedImages(ctx, tokens, p)
	if err != nil {
		return nil, nil, err
	}
	in, out = map[string]*graph.Tensor{m.Images.Info.Pixels.Name: pixels}, map[string]*graph.Tensor{bakedEmbeddings: embeddings}
	if part == ImageClassifier {
		err = m.classifyExample(ctx, p, out)
	}
	return in, out, err
}

// classifyExample adds what the classifier makes of the embeddings.
func (m *Model) classifyExample(ctx context.Context, p *prompt.Prompt, out map[string]*graph.Tensor) error {
	c, err := m.ownClassifier(ctx, p)
	if err != nil {
		return err
	}
	rows, err := graph.Values[float32](out[bakedEmbeddings])
	if err != nil {
		return err
	}
	var logits, probabilities []float32
	width := int(out[bakedEmbeddings].Dims[1])
	for at := 0; at < len(rows); at += width {
		row := c.Logits(rows[at : at+width])
		logits = append(logits, row...)
		for _, x := range Probabilities(row) {
			probabilities = append(probabilities, float32(x))
		}
	}
	dims := []int64{out[bakedEmbeddings].Dims[0], int64(len(c.Names))}
	out[bakedLogits], out[bakedProbabilities] = graph.NewTensor(logits, dims...), graph.NewTensor(probabilities, dims...)
	return nil
}

func (m *Model) textExample(ctx context.Context, p *prompt.Prompt) (in, out map[string]*graph.Tensor, err error) {
	layers, err := splitLayers(p.Tensors["context"])
	if err != nil {
		return nil, nil, err
	}
	names := p.Card.Classes
	if len(names) == 0 {
		names = []string{"cat", "dog"}
	}
	ids, err := m.Texts.ContextIDs(names, int(layers[0].Dims[1]))
	if err != nil {
		return nil, nil, err
	}
	if in, err = m.Texts.Feeds(ids); err != nil {
		return nil, nil, err
	}
	embeddings, err := m.Texts.EmbedContext(ctx, ids, layers)
	return in, map[string]*graph.Tensor{bakedEmbeddings: embeddings}, err
}
