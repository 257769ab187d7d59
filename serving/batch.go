package serving

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
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

func (r row) context() context.Context { return r.ctx }

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

// waiting is a request in a batcher: its context ends when the client is gone.
type waiting interface{ context() context.Context }

// batcher gathers requests and has those that come together answered at once.
type batcher[R waiting] struct {
	turn   *sync.Mutex // of those whose batches use every core
	coming func() bool // whether requests are on their way
	most   int         // requests of a batch
	answer func(ctx context.Context, requests []R)
	queue  chan R
}

// add hands a request over, unless its client goes first.
func (b *batcher[R]) add(r R) error {
	select {
	case b.queue <- r:
		return nil
	case <-r.context().Done():
		return r.context().Err()
	}
}

// run serves batches until ctx ends.
func (b *batcher[R]) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-b.queue:
			b.serve(ctx, first)
		}
	}
}

// serve takes what has gathered when the turn is this batcher's.
func (b *batcher[R]) serve(ctx context.Context, first R) {
	requests := b.gather([]R{first}, settle)
	b.turn.Lock()
	defer b.turn.Unlock()
	requests = b.gather(requests, 0)
	live := requests[:0]
	for _, r := range requests {
		if r.context().Err() == nil {
			live = append(live, r)
		}
	}
	if len(live) > 0 {
		b.answer(ctx, live)
	}
}

// gather adds requests until none has come for the given time, though not while others are on
// their way and patience lasts.
func (b *batcher[R]) gather(requests []R, wait time.Duration) []R {
	start := time.Now()
	for len(requests) < b.most {
		select {
		case r := <-b.queue:
			requests = append(requests, r)
			continue
		default:
		}
		if wait == 0 {
			return requests
		}
		select {
		case r := <-b.queue:
			requests = append(requests, r)
		case <-time.After(wait):
			if !b.coming() || time.Since(start) > patience {
				return requests
			}
		}
	}
	return requests
}

// safely makes a panic an error: a batch is of several clients.
func safely[T any](f func() (T, error)) (out T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

// embedder embeds rows of one shape, those of a batch in one forward pass.
type embedder struct {
	shape   shape
	metrics *Metrics
	batcher[row]
}

// embed waits for the row's embedding.
func (e *embedder) embed(ctx context.Context, pixels []float32, layers []*graph.Tensor) ([]float32, error) {
	r := row{ctx, pixels, layers, make(chan answer, 1)}
	if err := e.add(r); err != nil {
		return nil, err
	}
	select {
	case a := <-r.answer:
		return a.embedding, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answers embeds the rows together; where that fails, each alone, so that a bad row fails by itself.
func (e *embedder) answers(ctx context.Context, rows []row) {
	embeddings, err := safely(func() ([][]float32, error) { return e.forward(ctx, rows) })
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
		e.answers(ctx, rows[i:i+1])
	}
}

// forward runs the image tower once.
func (e *embedder) forward(ctx context.Context, rows []row) ([][]float32, error) {
	e.metrics.Forwards.Inc()
	e.metrics.Rows.Add(float64(len(rows)))
	start := time.Now()
	defer func() { e.metrics.Seconds.Observe(time.Since(start).Seconds()) }()
	pixels := make([][]float32, len(rows))
	for i, r := range rows {
		pixels[i] = r.pixels
	}
	m := e.shape.model
	tokens, err := m.Images.Tokens(ctx, m.Images.Pixels(pixels...))
	if err != nil {
		return nil, err
	}
	layers, err := e.stack(rows)
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
func (e *embedder) stack(rows []row) ([]*graph.Tensor, error) {
	layers := make([]*graph.Tensor, e.shape.depth)
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
