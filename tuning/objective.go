package tuning

import (
	"context"
	"maps"
	"slices"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
)

// objective is a training graph: the cross-entropy of images against class texts, and its
// gradients by the prompt's tokens, in one run. More than [classChunk] classes go through the text
// tower in chunks, in runs of their own.
//
// loss = -1/B sum_b log softmax_c(scale * f_b . w_c)[label_b], with f and w L2-normalised.
type objective struct {
	session *ort.Session
	texts   *chunkedTexts            // the text tower, where it is not in the session's graph
	wrt     []string                 // graph inputs that get gradients
	written map[string]*graph.Tensor // where each run writes the gradients, by the graph's name for them
	fixed   map[string]*graph.Tensor // inputs that stay the same at every step
	classes int
	half    bool    // gradients are computed in half floats
	scale   float64 // what the loss is multiplied by before it is differentiated, if so
}

// LossScaleName is a training graph's input [1] that the loss is multiplied by before it is differentiated.
const LossScaleName = "loss_scale"

// newObjective builds and differentiates the graph. Towers that hold nothing learned are left
// out: their features are inputs.
func (m *Model) newObjective(ctx context.Context, r *Recipe, names []string) (*objective, error) {
	o := &objective{classes: len(names), fixed: map[string]*graph.Tensor{}}
	var err error
	switch {
	case !r.learnsContext():
		o.fixed["classes"], err = m.templateFeatures(ctx, names, r.Templates)
	case len(names) > classChunk:
		o.texts, err = newChunkedTexts(m, r, names)
	}
	if err != nil {
		return nil, err
	}
	g, err := o.graph(m, r, names)
	if err == nil {
		o.session, err = ort.NewSession(g, m.options)
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// close frees the sessions.
func (o *objective) close() {
	if o.session != nil {
		o.session.Close()
	}
	if o.texts != nil {
		o.texts.close()
	}
}

// graph is the training graph.
func (o *objective) graph(m *Model, r *Recipe, names []string) (*graph.Graph, error) {
	g, err := o.towers(m, r, names)
	if err != nil {
		return nil, err
	}
	return g, o.differentiate(g, r, m.Texts.Dims(), m.Scale.Value)
}

// towers puts the towers that hold prompts into one graph. Its outputs are the image tower's
// embeddings, then the text tower's. A text tower that is taken in chunks is not in it.
func (o *objective) towers(m *Model, r *Recipe, names []string) (*graph.Graph, error) {
	withText := r.learnsContext() && o.texts == nil
	if !r.learnsVisual() {
		if withText {
			return o.textTower(m, r, names)
		}
		return graph.New(), nil
	}
	images, err := m.Images.Graph(graph.ImagePromptOptions{Tokens: r.Visual.Tokens, Depth: r.Visual.Depth, FromTokens: true})
	if err != nil || !withText {
		return images, err
	}
	texts, err := o.textTower(m, r, names)
	if err != nil {
		return nil, err
	}
	return graph.Merge(images, texts)
}

// textTower is the text tower with context, for all classes.
func (o *objective) textTower(m *Model, r *Recipe, names []string) (*graph.Graph, error) {
	ids, err := m.Texts.ContextIDs(names, r.Context.Tokens)
	if err != nil {
		return nil, err
	}
	feeds, err := m.Texts.Feeds(ids)
	if err != nil {
		return nil, err
	}
	maps.Copy(o.fixed, feeds)
	return m.contextTower(r, feeds)
}

// contextTower is the text tower with context, its extents fixed to those of the ids and mask that
// it will take.
func (m *Model) contextTower(r *Recipe, feeds map[string]*graph.Tensor) (*graph.Graph, error) {
	g, err := m.Texts.Graph(graph.ContextOptions{Tokens: r.Context.Tokens, Start: m.Texts.ContextStart(), Depth: r.Context.Depth, PerRow: r.Context.ClassSpecific})
	if err != nil {
		return nil, err
	}
	for name, t := range feeds {
		g.Input(name).Shape = graph.Shape{graph.Known(t.Dims[0]), graph.Known(t.Dims[1])}
		for i := range r.Context.Depth {
			if r.Context.ClassSpecific {
				g.Input(graph.PromptName("context", i)).Shape[0] = graph.Known(t.Dims[0])
			}
		}
	}
	return g, nil
}

// differentiate appends the loss and its gradients, and makes them the only outputs. Embeddings
// are width numbers.
func (o *objective) differentiate(g *graph.Graph, r *Recipe, width int64, scale float32) error {
	embeddings := g.Outputs
	g.Outputs = nil
	o.half = InHalfFloats(g) || o.texts != nil && o.texts.half
	return g.Build(func(b *graph.Builder) {
		batch, classes := graph.Sym("images"), graph.Known(int64(o.classes))
		var images, texts *graph.Value
		if r.learnsVisual() {
			images = b.Normalize(b.Floats(embeddings[0]))
			batch = images.Shape[0]
		} else {
			images = b.Input("images", graph.Float, graph.Shape{batch, graph.Known(width)})
		}
		if r.learnsContext() && o.texts == nil {
			texts = b.Normalize(b.Floats(embeddings[len(embeddings)-1]))
		} else {
			texts = b.Input("classes", graph.Float, graph.Shape{classes, graph.Known(width)})
		}
		labels := b.Input("labels", graph.Float, graph.Shape{batch, classes})
		logits := b.Mul(b.MatMul(images, b.SwapLast(texts)), b.Scalar(float64(scale), images))
		logs := b.Op("LogSoftmax", graph.Attrs{"axis": int64(-1)}, logits)
		loss := b.Mul(b.Mean(b.Sum(b.Mul(labels, logs), false, -1), false, 0), b.Scalar(-1, logs))
		b.Output("loss", loss)
		b.Output("logits", logits)
		wrt := o.wanted(g, r)
		if o.half {
			loss = b.Mul(loss, b.Input(LossScaleName, graph.Float, graph.Shape{graph.Known(1)}))
		}
		for i, d := range b.Gradient([]*graph.Value{loss}, nil, wrt) {
			o.wrt = append(o.wrt, wrt[i].Name)
			b.Output(GradientName(wrt[i].Name), d)
			o.allocate(wrt[i])
		}
	})
}

// allocate makes room for the gradient by an input, whose extents are those of the input.
func (o *objective) allocate(v *graph.Value) {
	dims, known := v.Shape.Ints()
	if !known {
		return // the runtime makes room
	}
	if o.written == nil {
		o.written = map[string]*graph.Tensor{}
	}
	o.written[GradientName(v.Name)] = graph.NewTensor(make([]float32, graph.Count(dims)), dims...)
}

// wanted are the inputs that get gradients: the prompts, and the embeddings of a text tower that is
// taken in chunks.
func (o *objective) wanted(g *graph.Graph, r *Recipe) []*graph.Value {
	var wrt []*graph.Value
	if o.texts != nil {
		wrt = append(wrt, g.Input("classes"))
	}
	for i := range r.Context.Depth {
		if o.texts == nil {
			wrt = append(wrt, g.Input(graph.PromptName("context", i)))
		}
	}
	for i := range r.Visual.Depth {
		wrt = append(wrt, g.Input(graph.PromptName("visual", i)))
	}
	return wrt
}

// InHalfFloats says whether the graph computes anything in half floats of small range.
func InHalfFloats(g *graph.Graph) bool {
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			if v != nil && v.Type == graph.Float16 {
				return true
			}
		}
	}
	return false
}

// GradientName is the output of a training graph with the gradient by an input.
func GradientName(input string) string { return "d." + input }

// AddGradients adds gradients, by parameter, to sums, which start empty.
func AddGradients(sums, gradients map[string][]float32) {
	for name, g := range gradients {
		if sums[name] == nil {
			sums[name] = slices.Clone(g)
			continue
		}
		for i, x := range g {
			sums[name][i] += x
		}
	}
}

// batch is one step's images: their features, under the graph's name for them, and labels.
type batch struct {
	input    string
	features *graph.Tensor
	labels   []int
}

// run computes the loss of a batch, how many of its images are classified right, and the
// gradients by graph input, which are those of the loss times o.scale where o.half is set. The
// gradients are overwritten by the next run.
func (o *objective) run(ctx context.Context, b batch, prompts map[string]*graph.Tensor) (loss float64, right int, gradients map[string][]float32, err error) {
	in := map[string]*graph.Tensor{b.input: b.features, "labels": o.oneHot(b.labels)}
	maps.Copy(in, o.fixed)
	if o.half {
		in[LossScaleName] = graph.NewTensor([]float32{float32(o.scale)}, 1)
	}
	if o.texts != nil {
		if in["classes"], err = o.texts.embed(ctx, prompts); err != nil {
			return 0, 0, nil, err
		}
	}
	for name, t := range prompts {
		if o.texts == nil || !slices.Contains(o.texts.layers, name) {
			in[name] = t
		}
	}
	out, err := o.session.RunInto(ctx, in, o.written)
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
		gradients[name] = floats[GradientName(name)]
	}
	if o.texts != nil {
		byContext, err := o.texts.gradients(ctx, prompts, gradients["classes"])
		if err != nil {
			return 0, 0, nil, err
		}
		maps.Copy(gradients, byContext)
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
