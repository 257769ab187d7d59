package tuning

import (
	"context"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
)

// objective is a training graph: the cross-entropy of images against class texts, and its
// gradients by the prompt's tokens, in one run.
//
// loss = -1/B sum_b log softmax_c(scale * f_b . w_c)[label_b], with f and w L2-normalised.
type objective struct {
	session *ort.Session
	wrt     []string                 // graph inputs that get gradients
	fixed   map[string]*graph.Tensor // inputs that stay the same at every step
	classes int
}

// newObjective builds and differentiates the graph. Towers that hold nothing learned are left
// out: their features are inputs.
func (m *Model) newObjective(ctx context.Context, r *Recipe, names []string) (*objective, error) {
	o := &objective{classes: len(names), fixed: map[string]*graph.Tensor{}}
	g, err := o.towers(m, r, names)
	if err != nil {
		return nil, err
	}
	if !r.learnsContext() {
		if o.fixed["classes"], err = m.templateFeatures(ctx, names, r.Templates); err != nil {
			return nil, err
		}
	}
	if err := o.differentiate(g, r, m.Scale.Value); err != nil {
		return nil, err
	}
	o.session, err = ort.NewSession(g, ort.Options{})
	return o, err
}

// towers puts the towers that hold prompts into one graph. Its outputs are the image tower's
// embeddings, then the text tower's.
func (o *objective) towers(m *Model, r *Recipe, names []string) (*graph.Graph, error) {
	var images, texts *graph.Graph
	var err error
	if r.learnsVisual() {
		images, err = m.Images.Graph(graph.ImagePromptOptions{Tokens: r.Visual.Tokens, Depth: r.Visual.Depth, FromTokens: true})
		if err != nil || !r.learnsContext() {
			return images, err
		}
	}
	if texts, err = o.textTower(m, r, names); err != nil || !r.learnsVisual() {
		return texts, err
	}
	return graph.Merge(images, texts)
}

// textTower is the text tower with context, its extents fixed to the classes.
func (o *objective) textTower(m *Model, r *Recipe, names []string) (*graph.Graph, error) {
	ids, err := m.Texts.ContextIDs(names, r.Context.Tokens)
	if err != nil {
		return nil, err
	}
	g, err := m.Texts.Graph(graph.ContextOptions{Tokens: r.Context.Tokens, Start: 1, Depth: r.Context.Depth, PerRow: r.Context.ClassSpecific})
	if err != nil {
		return nil, err
	}
	feeds, err := m.Texts.Feeds(ids)
	if err != nil {
		return nil, err
	}
	for name, t := range feeds {
		o.fixed[name] = t
		g.Input(name).Shape = graph.Shape{graph.Known(t.Dims[0]), graph.Known(t.Dims[1])}
	}
	for i := range r.Context.Depth {
		if r.Context.ClassSpecific {
			g.Input(graph.PromptName("context", i)).Shape[0] = graph.Known(int64(len(names)))
		}
	}
	return g, nil
}

// differentiate appends the loss and its gradients, and makes them the only outputs.
func (o *objective) differentiate(g *graph.Graph, r *Recipe, scale float32) error {
	embeddings := g.Outputs
	g.Outputs = nil
	return g.Build(func(b *graph.Builder) {
		batch, classes := graph.Sym("images"), graph.Known(int64(o.classes))
		last := embeddings[len(embeddings)-1]
		width := last.Shape[len(last.Shape)-1]
		var images, texts *graph.Value
		if r.learnsVisual() {
			images = b.Normalize(embeddings[0])
			batch = images.Shape[0]
		} else {
			images = b.Input("images", graph.Float, graph.Shape{batch, width})
		}
		if r.learnsContext() {
			texts = b.Normalize(last)
		} else {
			texts = b.Input("classes", graph.Float, graph.Shape{classes, width})
		}
		labels := b.Input("labels", graph.Float, graph.Shape{batch, classes})
		logits := b.Mul(b.MatMul(images, b.SwapLast(texts)), b.Scalar(float64(scale), images))
		logs := b.Op("LogSoftmax", graph.Attrs{"axis": int64(-1)}, logits)
		loss := b.Mul(b.Mean(b.Sum(b.Mul(labels, logs), false, -1), false, 0), b.Scalar(-1, logs))
		b.Output("loss", loss)
		b.Output("logits", logits)
		var wrt []*graph.Value
		for i := range r.Context.Depth {
			wrt = append(wrt, g.Input(graph.PromptName("context", i)))
		}
		for i := range r.Visual.Depth {
			wrt = append(wrt, g.Input(graph.PromptName("visual", i)))
		}
		for i, d := range b.Gradient([]*graph.Value{loss}, nil, wrt) {
			o.wrt = append(o.wrt, wrt[i].Name)
			b.Output(gradientName(wrt[i].Name), d)
		}
	})
}

func gradientName(input string) string { return "d." + input }

// batch is one step's images: their features, under the graph's name for them, and labels.
type batch struct {
	input    string
	features *graph.Tensor
	labels   []int
}

// run computes the loss of a batch, how many of its images are classified right, and the
// gradients by graph input.
func (o *objective) run(ctx context.Context, b batch, prompts map[string]*graph.Tensor) (loss float64, right int, gradients map[string][]float32, err error) {
	in := map[string]*graph.Tensor{b.input: b.features, "labels": o.oneHot(b.labels)}
	for _, more := range []map[string]*graph.Tensor{o.fixed, prompts} {
		for name, t := range more {
			in[name] = t
		}
	}
	out, err := o.session.Run(ctx, in)
	if err != nil {
		return 0, 0, nil, err
	}
	floats := map[string][]float32{}
	for name, t := range out {
		if floats[name], err = graph.Float32s(t); err != nil {
			return 0, 0, nil, err
		}
	}
	for i, label := range b.labels {
		if argmax(floats["logits"][i*o.classes:(i+1)*o.classes]) == label {
			right++
		}
	}
	gradients = map[string][]float32{}
	for _, name := range o.wrt {
		gradients[name] = floats[gradientName(name)]
	}
	return float64(floats["loss"][0]), right, gradients, nil
}

func (o *objective) oneHot(labels []int) *graph.Tensor {
	data := make([]float32, len(labels)*o.classes)
	for i, label := range labels {
		data[i*o.classes+label] = 1
	}
	return graph.NewTensor(data, int64(len(labels)), int64(o.classes))
}

// argmax is the index of the first largest value.
func argmax(values []float32) int {
	best := 0
	for i, v := range values {
		if v > values[best] {
			best = i
		}
	}
	return best
}
