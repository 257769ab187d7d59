package serving

import (
	"context"

	"github.com/foretoken/foretoken/generation/caption"
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

// Caption makes the texts that are asked for. Requests that come at the same time share a batch, of
// whatever prompts and clients. onText, where it is set, is called with the pieces of each as they
// come; it may be slow. The requests' own Prompt and OnText are set here.
func (e *Engine) Caption(ctx context.Context, c *Captioner, requests []caption.Request, onText func(request int, piece string)) ([]caption.Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	box := newMailbox[news[string, caption.Answer]]()
	for i, r := range requests {
		r.Prompt = c.Prompt
		if onText != nil {
			r.OnText = func(piece string) { box.put(news[string, caption.Answer]{request: i, step: piece}) }
		}
		answered := func(a caption.Answer, err error) {
			box.put(news[string, caption.Answer]{request: i, answer: &a, err: err})
		}
		if err := e.captions(c.Model).add(waiting[caption.Request, caption.Answer]{ctx, r, answered}); err != nil {
			return nil, err
		}
	}
	Arrived(ctx)
	return await(ctx, box, len(requests), func(i int, piece string) error {
		onText(i, piece)
		return nil
	}, nil)
}

// captions returns a model's batcher, and starts it where it is the first of it.
func (e *Engine) captions(m *caption.Model) *batcher[caption.Request, caption.Answer] {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.captioners[m]
	if b == nil {
		answer := func(ctx context.Context, requests []caption.Request) ([]caption.Answer, error) {
			e.metrics.CaptionBatches.Inc()
			e.metrics.Captions.Add(float64(len(requests)))
			return m.Generate(ctx, requests)
		}
		b = &batcher[caption.Request, caption.Answer]{
			turn: &e.writing, coming: func() bool { return e.coming.Load() > 0 }, most: maxCaptions, answer: answer,
			queue: make(chan waiting[caption.Request, caption.Answer], maxCaptions),
		}
		e.captioners[m] = b
		e.running.Go(func() { b.run(e.ctx) })
	}
	return b
}
