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

// row is one image to embed.
type row struct {
	pixels []float32       // [3,H,W]
	layers []*graph.Tensor // the prompt's image tokens, [1,K,D] a layer
}

const (
	maxRows = 32
	// settle is how long a batch waits for company after its last arrival, and patience how long
	// while requests are known to be on their way.
	settle   = 5 * time.Millisecond
	patience = 250 * time.Millisecond
)

// waiting is a request that waits for its answer.
type waiting[Q, A any] struct {
	ctx     context.Context // ends when the client is gone
	request Q
	answer  func(A, error) // called once; it may not wait
}

// batcher gathers requests and has those that come together answered at once.
type batcher[Q, A any] struct {
	turn   *sync.Mutex // of those whose batches use every core
	coming func() bool // whether requests are on their way
	most   int         // requests of a batch
	answer func(ctx context.Context, requests []Q) ([]A, error)
	queue  chan waiting[Q, A]
}

// add hands a request over, unless its client goes first.
func (b *batcher[Q, A]) add(r waiting[Q, A]) error {
	select {
	case b.queue <- r:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// run serves batches until ctx ends.
func (b *batcher[Q, A]) run(ctx context.Context) {
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
func (b *batcher[Q, A]) serve(ctx context.Context, first waiting[Q, A]) {
	requests := b.gather([]waiting[Q, A]{first}, settle)
	b.turn.Lock()
	defer b.turn.Unlock()
	requests = b.gather(requests, 0)
	live := requests[:0]
	for _, r := range requests {
		if r.ctx.Err() == nil {
			live = append(live, r)
		}
	}
	if len(live) > 0 {
		answerAll(ctx, live, b.answer)
	}
}

// gather adds requests until none has come for the given time, though not while others are on
// their way and patience lasts.
func (b *batcher[Q, A]) gather(requests []waiting[Q, A], wait time.Duration) []waiting[Q, A] {
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

// answerAll has a batch answered at once; where that fails, each request alone, so that a bad one fails by itself. It ends
// early when all clients are gone.
func answerAll[Q, A any](ctx context.Context, batch []waiting[Q, A], answer func(context.Context, []Q) ([]A, error)) {
	ctx, cancel := whileWanted(ctx, batch)
	defer cancel()
	requests := make([]Q, len(batch))
	for i, w := range batch {
		requests[i] = w.request
	}
	answers, err := safely(func() ([]A, error) { return answer(ctx, requests) })
	if err == nil && len(answers) != len(batch) {
		err = errs.New(errs.Internal, "%d answers to %d requests", len(answers), len(batch))
	}
	if err != nil && len(batch) > 1 && ctx.Err() == nil {
		for i := range batch {
			answerAll(ctx, batch[i:i+1], answer)
		}
		return
	}
	for i, w := range batch {
		if err != nil {
			var none A
			w.answer(none, err)
		} else {
			w.answer(answers[i], nil)
		}
	}
}

// whileWanted returns a context that ends when those of all requests have.
func whileWanted[Q, A any](ctx context.Context, batch []waiting[Q, A]) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for _, w := range batch {
			select {
			case <-ctx.Done():
				return
			case <-w.ctx.Done():
			}
		}
		cancel()
	}()
	return ctx, cancel
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
	shape                   shape
	metrics                 *Metrics
	batcher[row, []float32] // embeddings [P], L2-normalised
}

// embed waits for the row's embedding.
func (e *embedder) embed(ctx context.Context, r row) ([]float32, error) {
	box := newMailbox[news[struct{}, []float32]]()
	err := e.add(waiting[row, []float32]{ctx, r, func(x []float32, err error) { box.put(news[struct{}, []float32]{answer: &x, err: err}) }})
	if err != nil {
		return nil, err
	}
	got, err := await(ctx, box, 1, nil, nil)
	if err != nil {
		return nil, err
	}
	return got[0], nil
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
