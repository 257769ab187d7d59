package tuning

import (
	"context"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/text"
	"github.com/foretoken/foretoken/vision"
)

// Model is a bundle opened for tuning and serving. It is safe for concurrent use.
type Model struct {
	Bundle *bundle.Bundle
	Images *vision.Tower
	Texts  *text.Tower
	Scale  prompt.LogitScale

	options ort.Options // of all sessions: they share the bundle's weights, and compute the same bits in every run
	tested  *chunkCache // tokens of test images
}

// Open opens both towers of a bundle. All sessions on it, those of training included, share one copy
// of its weights.
func Open(b *bundle.Bundle, o ort.Options) (_ *Model, err error) {
	m := &Model{Bundle: b, options: o, tested: newChunkCache()}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if m.Scale.Value, m.Scale.Source, err = b.LogitScale(); err != nil {
		return nil, err
	}
	if m.options.Weights, err = ort.NewWeights(); err != nil {
		return nil, err
	}
	m.options.Deterministic = true
	if m.Images, err = vision.OpenTower(b, m.options); err != nil {
		return nil, err
	}
	m.Texts, err = text.OpenTower(b, m.options)
	return m, err
}

// Verify runs both towers on noise to see that prompts enter them as they should. A tower into which
// they would go wrongly is an error that says what came out otherwise.
func (m *Model) Verify() error {
	r := &ort.Runner{Options: m.options}
	defer r.Close()
	err := m.Images.Info.Verify(r.Run)
	if err == nil {
		err = m.Texts.Info.Verify(r.Run)
	}
	if err != nil {
		return errs.New(errs.Of(err), "bundle %s: prompts go wrongly into the model, and it is refused: %w", m.Bundle.Name, err)
	}
	return nil
}

// Close frees the towers' sessions. The weights go with the last session on them, which may be
// one of a run that is still under way.
func (m *Model) Close() {
	if m.Images != nil {
		m.Images.Close()
	}
	if m.Texts != nil {
		m.Texts.Close()
	}
	if m.options.Weights != nil {
		m.options.Weights.Close()
	}
}

// Ref names the model's bundle.
func (m *Model) Ref() prompt.BundleRef {
	return prompt.BundleRef{Name: m.Bundle.Name, Digest: m.Bundle.Digest}
}

// ClassFeatures returns the classes' embeddings [C,P], L2-normalised: through the prompt's
// context where it has one, else through the templates, averaged. A nil prompt is the frozen
// model.
func (m *Model) ClassFeatures(ctx context.Context, p *prompt.Prompt, names, templates []string) (*graph.Tensor, error) {
	if p == nil || p.Tensors["context"] == nil {
		return m.templateFeatures(ctx, names, templates)
	}
	if err := p.CheckBundle(m.Bundle.Digest); err != nil {
		return nil, err
	}
	layers, err := contextLayers(p, len(names))
	if err != nil {
		return nil, err
	}
	ids, err := m.Texts.ContextIDs(names, int(layers[0].Dims[1]))
	if err != nil {
		return nil, err
	}
	return m.Texts.EmbedContext(ctx, ids, layers)
}

func (m *Model) templateFeatures(ctx context.Context, names, templates []string) (*graph.Tensor, error) {
	var texts []string
	for _, name := range names {
		for _, t := range templates {
			texts = append(texts, text.ExpandTemplate(t, name))
		}
	}
	all, err := m.Texts.Embed(ctx, texts)
	if err != nil || len(templates) == 1 {
		return all, err
	}
	rows, err := graph.Values[float32](all)
	if err != nil {
		return nil, err
	}
	width := int(all.Dims[1])
	mean := make([]float32, len(names)*width)
	for i, x := range rows {
		class, column := i/width/len(templates), i%width
		mean[class*width+column] += x / float32(len(templates))
	}
	text.Normalize(mean, width)
	return graph.NewTensor(mean, int64(len(names)), int64(width)), nil
}

// contextLayers are the prompt's context tokens by layer, [1,M,D] or, class-specific, [C,M,D].
func contextLayers(p *prompt.Prompt, classes int) ([]*graph.Tensor, error) {
	t := p.Tensors["context"]
	if p.Card.ClassSpecific {
		if t.Dims[0] != int64(classes) {
			return nil, errs.New(errs.Invalid, "prompt has context for each of its %d classes, asked for %d others: it can't name new classes", t.Dims[0], classes)
		}
		return []*graph.Tensor{t}, nil
	}
	return splitLayers(t)
}

// VisualLayers are a prompt's image tokens by layer, [1,K,D]; none where it has none or is nil.
func VisualLayers(p *prompt.Prompt) ([]*graph.Tensor, error) {
	if p == nil || p.Tensors["visual"] == nil {
		return nil, nil
	}
	return splitLayers(p.Tensors["visual"])
}

// splitLayers cuts [depth,K,D] or [K,D] into tensors [1,K,D].
func splitLayers(t *graph.Tensor) ([]*graph.Tensor, error) {
	values, err := graph.Values[float32](t)
	if err != nil {
		return nil, err
	}
	k, d := t.Dims[len(t.Dims)-2], t.Dims[len(t.Dims)-1]
	var layers []*graph.Tensor
	for start := int64(0); start < int64(len(values)); start += k * d {
		layers = append(layers, graph.NewTensor(values[start:start+k*d], 1, k, d))
	}
	return layers, nil
}

// repeatRows repeats a tensor [1,K,D] to [rows,K,D].
func repeatRows(t *graph.Tensor, rows int64) (*graph.Tensor, error) {
	values, err := graph.Values[float32](t)
	if err != nil {
		return nil, err
	}
	out := make([]float32, 0, int(rows)*len(values))
	for range rows {
		out = append(out, values...)
	}
	return graph.NewTensor(out, rows, t.Dims[1], t.Dims[2]), nil
}

// EmbedImages returns the embeddings [B,P], L2-normalised, of tokens [B,N,D] under a prompt; a
// nil prompt is the frozen model.
func (m *Model) EmbedImages(ctx context.Context, tokens *graph.Tensor, p *prompt.Prompt) (*graph.Tensor, error) {
	layers, err := VisualLayers(p)
	if err != nil {
		return nil, err
	}
	for i := range layers {
		if layers[i], err = repeatRows(layers[i], tokens.Dims[0]); err != nil {
			return nil, err
		}
	}
	return m.EmbedRows(ctx, tokens, layers)
}

// EmbedRows is EmbedImages with a prompt for each row: [B,K,D] a layer.
func (m *Model) EmbedRows(ctx context.Context, tokens *graph.Tensor, layers []*graph.Tensor) (*graph.Tensor, error) {
	out, err := m.Images.EmbedTokens(ctx, tokens, layers)
	if err != nil {
		return nil, err
	}
	values, err := graph.Float32s(out)
	if err != nil {
		return nil, err
	}
	text.Normalize(values, int(out.Dims[1]))
	return graph.NewTensor(values, out.Dims...), nil
}
