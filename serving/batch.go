package serving

import (
	"context"
	"sync"
	"time"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/tuning"
)

// shape is what rows must share to go through the image tower together: the model and the number
// of prompt tokens and layers. Each row may carry another prompt.
type shape struct {
	model         *tuning.Model
	tokens, depth int
}

// row is one image that waits for its embedding.
type row struct {
	ctx    context.Context
	pixels []float32       // [3,H,W]
	layers []*graph.Tensor // the prompt's image tokens, [1,K,D] a layer
	answer chan answer
}

type answer struct {
	embedding []float32 // [P], L2-normalised
	err       error
}

const (
	maxRows = 32
	// settle is how long a batch waits for company after its last arrival, and patience how long
	// while requests are known to be on their way.
	settle   = 5 * time.Millisecond
	patience = 250 * time.Millisecond
)

// batcher gathers rows of one shape and embeds them in one forward pass. The forward passes of
// all shapes take turns, since each uses every core.
type batcher struct {
	shape   shape
	turn    *sync.Mutex
	coming  func() bool // whether requests are on their way
	metrics *Metrics
	rows    chan row
}

// embed waits for the row's embedding.
func (b *batcher) embed(ctx context.Context, pixels []float32, layers []*graph.Tensor) ([]float32, error) {
	r := row{ctx, pixels, layers, make(chan answer, 1)}
	select {
	case b.rows <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a := <-r.answer:
		return a.embedding, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run serves batches until ctx ends.
func (b *batcher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-b.rows:
			b.serve(ctx, first)
		}
	}
}

// serve takes what has gathered when the forward passes' turn is this shape's.
func (b *batcher) serve(ctx context.Context, first row) {
	rows := b.gather([]row{first}, settle)
	b.turn.Lock()
	defer b.turn.Unlock()
	rows = b.gather(rows, 0)
	live := rows[:0]
	for _, r := range rows {
		if r.ctx.Err() == nil {
			live = append(live, r)
		}
	}
	if len(live) > 0 {
		b.answer(ctx, live)
	}
}

// gather adds rows until none has come for the given time, though not while others are on their
// way and patience lasts.
func (b *batcher) gather(rows []row, wait time.Duration) []row {
	start := time.Now()
	for len(rows) < maxRows {
		select {
		case r := <-b.rows:
			rows = append(rows, r)
			continue
		default:
		}
		if wait == 0 {
			return rows
		}
		select {
		case r := <-b.rows:
			rows = append(rows, r)
		case <-time.After(wait):
			if !b.coming() || time.Since(start) > patience {
				return rows
			}
		}
	}
	return rows
}

// answer embeds the rows together; where that fails, each alone, so that a bad row fails by itself.
func (b *batcher) answer(ctx context.Context, rows []row) {
	embeddings, err := b.forward(ctx, rows)
	if err == nil {
		for i, r := range rows {
			r.answer <- answer{embedding: embeddings[i]}
		}
		return
	}
	if len(rows) == 1 {
		rows[0].answer <- answer{err: err}
		return
	}
	for i := range rows {
		b.answer(ctx, rows[i:i+1])
	}
}

// forward runs the image tower once.
func (b *batcher) forward(ctx context.Context, rows []row) ([][]float32, error) {
	b.metrics.Forwards.Inc()
	b.metrics.Rows.Add(float64(len(rows)))
	start := time.Now()
	defer func() { b.metrics.Seconds.Observe(time.Since(start).Seconds()) }()
	pixels := make([][]float32, len(rows))
	for i, r := range rows {
		pixels[i] = r.pixels
	}
	m := b.shape.model
	tokens, err := m.Images.Tokens(ctx, m.Images.Pixels(pixels...))
	if err != nil {
		return nil, err
	}
	layers, err := b.stack(rows)
	if err != nil {
		return nil, err
	}
	out, err := m.EmbedRows(ctx, tokens, layers)
	if err != nil {
		return nil, err
	}
	values, err := graph.Values[float32](out)
	if err != nil {
		return nil, err
	}
	width := len(values) / len(rows)
	embeddings := make([][]float32, len(rows))
	for i := range rows {
		embeddings[i] = values[i*width : (i+1)*width]
	}
	return embeddings, nil
}

// stack joins the rows' prompts layer by layer: [B,K,D].
func (b *batcher) stack(rows []row) ([]*graph.Tensor, error) {
	layers := make([]*graph.Tensor, b.shape.depth)
	for layer := range layers {
		var all []float32
		var dims []int64
		for _, r := range rows {
			values, err := graph.Values[float32](r.layers[layer])
			if err != nil {
				return nil, err
			}
			all, dims = append(all, values...), r.layers[layer].Dims
		}
		layers[layer] = graph.NewTensor(all, int64(len(rows)), dims[1], dims[2])
	}
	return layers, nil
}
