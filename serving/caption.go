package serving

import (
	"context"

	"github.com/foretoken/foretoken/generation/caption"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
)

// Captioner is what captions and answers are conditioned by: a model and, perhaps, a prompt.
type Captioner struct {
	Model  *caption.Model
	Prompt *prompt.Prompt // nil for the frozen model
}

// Captioner finds what a name stands for: a prompt, as NAME or NAME@REVISION, else a bundle.
func (e *Engine) Captioner(ctx context.Context, name string) (*Captioner, error) {
	bundle, row, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	m, err := e.models.Captioner(ctx, bundle)
	if err != nil || row == nil {
		return &Captioner{Model: m}, err
	}
	p, err := e.promptOf(ctx, *row, m.Bundle.Digest, prompt.Caption)
	return &Captioner{m, p}, err
}

// most captions of a batch: their keys and values are in memory at once.
const maxCaptions = 16

// captionRow is one caption that waits to be made.
type captionRow struct {
	ctx     context.Context
	request caption.Request
	answer  func(caption.Answer, error)
}

func (r captionRow) context() context.Context { return r.ctx }

// said is what becomes of a request: a piece of text, or its end.
type said struct {
	request int
	piece   string
	answer  *caption.Answer
	err     error
}

// Caption makes the texts that are asked for. Requests that come at the same time share a batch, of
// whatever prompts and clients. onText, where it is set, is called with the pieces of each as they
// come; it may be slow. The requests' own Prompt and OnText are set here.
func (e *Engine) Caption(ctx context.Context, c *Captioner, requests []caption.Request, onText func(request int, piece string)) ([]caption.Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	box := newMailbox[said]()
	for i, r := range requests {
		r.Prompt = c.Prompt
		if onText != nil {
			r.OnText = func(piece string) { box.put(said{request: i, piece: piece}) }
		}
		err := e.captions(c.Model).add(captionRow{ctx, r, func(a caption.Answer, err error) { box.put(said{request: i, answer: &a, err: err}) }})
		if err != nil {
			return nil, err
		}
	}
	if arrived, ok := ctx.Value(arrival{}).(func()); ok {
		arrived()
	}
	answers := make([]caption.Answer, len(requests))
	for left := len(requests); left > 0; {
		news, err := box.take(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range news {
			switch {
			case n.err != nil:
				return nil, n.err
			case n.answer != nil:
				answers[n.request] = *n.answer
				left--
			default:
				onText(n.request, n.piece)
			}
		}
	}
	return answers, nil
}

// captions returns a model's batcher, and starts it where it is the first of it.
func (e *Engine) captions(m *caption.Model) *batcher[captionRow] {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.captioners[m]
	if b == nil {
		answer := func(ctx context.Context, rows []captionRow) { e.caption(ctx, m, rows) }
		b = &batcher[captionRow]{turn: &e.writing, coming: func() bool { return e.coming.Load() > 0 }, most: maxCaptions, answer: answer, queue: make(chan captionRow, maxCaptions)}
		e.captioners[m] = b
		e.running.Go(func() { b.run(e.ctx) })
	}
	return b
}

// caption makes a batch's texts together; where that fails, each alone, so that a bad one fails by
// itself. It ends early when all clients are gone.
func (e *Engine) caption(ctx context.Context, m *caption.Model, rows []captionRow) {
	ctx, cancel := whileWanted(ctx, rows)
	defer cancel()
	requests := make([]caption.Request, len(rows))
	for i, r := range rows {
		requests[i] = r.request
	}
	e.metrics.CaptionBatches.Inc()
	e.metrics.Captions.Add(float64(len(rows)))
	answers, err := safely(func() ([]caption.Answer, error) { return m.Generate(ctx, requests) })
	if err == nil && len(answers) != len(rows) {
		err = errs.New(errs.Internal, "%d answers to %d requests", len(answers), len(rows))
	}
	if err != nil && len(rows) > 1 && ctx.Err() == nil {
		for i := range rows {
			e.caption(ctx, m, rows[i:i+1])
		}
		return
	}
	for i, r := range rows {
		if err != nil {
			r.answer(caption.Answer{}, err)
		} else {
			r.answer(answers[i], nil)
		}
	}
}

// whileWanted returns a context that ends when those of all requests have.
func whileWanted[R waiting](ctx context.Context, requests []R) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for _, r := range requests {
			select {
			case <-ctx.Done():
				return
			case <-r.context().Done():
			}
		}
		cancel()
	}()
	return ctx, cancel
}
