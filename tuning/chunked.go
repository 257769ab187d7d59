package tuning

import (
	"context"
	"maps"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
)

// classChunk is how many classes go through the text tower's backward pass at once: what one pass
// holds grows with its classes.
const classChunk = 64

// chunkedTexts takes many classes through the text tower in chunks: forward for all, then, when
// the loss's gradient by the embeddings is known, forward and backward again. Its memory is that of
// one chunk, for a second forward pass. The last chunk is filled up with repetitions that weigh
// nothing, so that all are of one shape.
type chunkedTexts struct {
	forward, backward *ort.Session
	chunks            []map[string]*graph.Tensor // ids and masks
	layers            []string                   // names of the context's inputs
	perClass          bool
	classes           int
	half              bool // it computes in half floats
}

// newChunkedTexts prepares both passes for the classes.
func newChunkedTexts(m *Model, r *Recipe, names []string) (*chunkedTexts, error) {
	ids, err := m.Texts.ContextIDs(names, r.Context.Tokens)
	if err != nil {
		return nil, err
	}
	c := &chunkedTexts{perClass: r.Context.ClassSpecific, classes: len(names)}
	for start := 0; start < len(names); start += classChunk {
		part, err := rows[int64](ids, start, min(start+classChunk, len(names)))
		if err != nil {
			return nil, err
		}
		in, err := m.Texts.Feeds(part)
		if err != nil {
			return nil, err
		}
		c.chunks = append(c.chunks, in)
	}
	for layer := range r.Context.Depth {
		c.layers = append(c.layers, graph.PromptName("context", layer))
	}
	g, err := m.contextTower(r, c.chunks[0])
	if err != nil {
		return nil, err
	}
	c.half = InHalfFloats(g)
	forward, backward := g.Clone(), g.Clone()
	if err := forward.Build(func(b *graph.Builder) { only(forward, b, "classes", b.Normalize(b.Floats(forward.Outputs[0]))) }); err != nil {
		return nil, err
	}
	if err := backward.Build(func(b *graph.Builder) { c.differentiate(backward, b) }); err != nil {
		return nil, err
	}
	if c.forward, err = ort.NewSession(forward, m.options); err != nil {
		return nil, err
	}
	if c.backward, err = ort.NewSession(backward, m.options); err != nil {
		c.forward.Close()
		return nil, err
	}
	return c, nil
}

func only(g *graph.Graph, b *graph.Builder, name string, v *graph.Value) {
	g.Outputs = nil
	b.Output(name, v)
}

// differentiate makes the graph compute the gradients by the context, given those by the
// normalised embeddings as the input "d.classes".
func (c *chunkedTexts) differentiate(g *graph.Graph, b *graph.Builder) {
	y := b.Normalize(b.Floats(g.Outputs[0]))
	dy := b.Input(GradientName("classes"), graph.Float, y.Shape)
	var wrt []*graph.Value
	for _, name := range c.layers {
		wrt = append(wrt, g.Input(name))
	}
	g.Outputs = nil
	for i, d := range b.Gradient([]*graph.Value{y}, []*graph.Value{dy}, wrt) {
		b.Output(GradientName(c.layers[i]), d)
	}
}

// embed returns the classes' embeddings [C,P], L2-normalised.
func (c *chunkedTexts) embed(ctx context.Context, prompts map[string]*graph.Tensor) (*graph.Tensor, error) {
	var all []float32
	width := 0
	for i := range c.chunks {
		in, err := c.inputs(i, prompts)
		if err != nil {
			return nil, err
		}
		out, err := c.forward.Run(ctx, in)
		if err != nil {
			return nil, err
		}
		rows, err := graph.Float32s(out["classes"])
		if err != nil {
			return nil, err
		}
		width = len(rows) / classChunk
		all = append(all, rows...)
	}
	return graph.NewTensor(all[:c.classes*width], int64(c.classes), int64(width)), nil
}

// gradients returns the gradients by the context, given those by the embeddings, [C,P].
func (c *chunkedTexts) gradients(ctx context.Context, prompts map[string]*graph.Tensor, dy []float32) (map[string][]float32, error) {
	sums, width := map[string][]float32{}, len(dy)/c.classes
	for i := range c.chunks {
		start, end := i*classChunk, min((i+1)*classChunk, c.classes)
		part := make([]float32, classChunk*width)
		copy(part, dy[start*width:end*width])
		in, err := c.inputs(i, prompts)
		if err != nil {
			return nil, err
		}
		in[GradientName("classes")] = graph.NewTensor(part, classChunk, int64(width))
		out, err := c.backward.Run(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, name := range c.layers {
			d, err := graph.Float32s(out[GradientName(name)])
			if err != nil {
				return nil, err
			}
			sums[name] = c.gather(sums[name], d, end-start)
		}
	}
	return sums, nil
}

// gather adds a chunk's gradient to what the chunks before came to; where each class has context of
// its own, it is appended.
func (c *chunkedTexts) gather(sum, d []float32, classes int) []float32 {
	switch {
	case c.perClass:
		return append(sum, d[:len(d)/classChunk*classes]...)
	case sum == nil:
		return append(sum, d...)
	}
	for i, x := range d {
		sum[i] += x
	}
	return sum
}

// inputs are what a chunk's pass takes.
func (c *chunkedTexts) inputs(chunk int, prompts map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
	in := maps.Clone(c.chunks[chunk])
	for _, name := range c.layers {
		in[name] = prompts[name]
		if c.perClass {
			var err error
			start := chunk * classChunk
			if in[name], err = rows[float32](prompts[name], start, min(start+classChunk, c.classes)); err != nil {
				return nil, err
			}
		}
	}
	return in, nil
}

// rows are a tensor's rows of one chunk; behind its end, its first row again.
func rows[T graph.Element](t *graph.Tensor, start, end int) (*graph.Tensor, error) {
	values, err := graph.Values[T](t.Rows(int64(start), int64(end)))
	if err != nil {
		return nil, err
	}
	width := len(values) / (end - start)
	filled := make([]T, 0, classChunk*width)
	filled = append(filled, values...)
	for len(filled) < classChunk*width {
		filled = append(filled, values[:width]...)
	}
	return graph.NewTensor(filled, append([]int64{classChunk}, t.Dims[1:]...)...), nil
}

func (c *chunkedTexts) close() {
	c.forward.Close()
	c.backward.Close()
}
