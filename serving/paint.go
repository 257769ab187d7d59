package serving

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
)

// Painter is what pictures are conditioned by: a model and the prompts that take part.
type Painter struct {
	Model   *diffusion.Pipeline
	Prompts []NamedPrompt
}

// NamedPrompt is a prompt with the name and digest that a picture's card gives.
type NamedPrompt struct {
	Name   string
	Digest string
	Prompt *prompt.Prompt
}

// Concepts are the prompts, as a request takes them.
func (p *Painter) Concepts() []*prompt.Prompt {
	var concepts []*prompt.Prompt
	for _, n := range p.Prompts {
		concepts = append(concepts, n.Prompt)
	}
	return concepts
}

// Painter finds what names stand for. The first is a prompt, as NAME or NAME@REVISION, or a bundle;
// the others are further prompts of the same bundle: concepts, a style, a negative.
func (e *Engine) Painter(ctx context.Context, name string, more ...string) (*Painter, error) {
	bundle, row, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	m, err := e.models.Painter(ctx, bundle)
	if err != nil {
		return nil, err
	}
	p := &Painter{Model: m}
	if row != nil {
		more = append([]string{name}, more...)
	}
	for _, ref := range more {
		row, err := e.row(ctx, ref)
		if err != nil {
			return nil, err
		}
		if row.Bundle != bundle {
			return nil, errs.New(errs.Invalid, "prompt %q is of bundle %q, the model's is %q: prompts go together on one bundle", ref, row.Bundle, bundle)
		}
		named := NamedPrompt{Name: fmt.Sprintf("%s@%d", row.Name, row.Revision), Digest: row.Digest}
		if named.Prompt, err = e.promptOf(ctx, row, m.Bundle.Digest, prompt.Concept, prompt.Style, prompt.Negative); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(p.Prompts, func(n NamedPrompt) bool { return n.Digest == named.Digest }) {
			p.Prompts = append(p.Prompts, named)
		}
	}
	return p, nil
}

const (
	// maxPictures is how many pictures a batch has.
	maxPictures = 4
	// maxQueued is how many pictures of one bundle may wait.
	maxQueued = 32
)

// Busy says that too much is waiting, and when to try again.
type Busy struct {
	After time.Duration
	error
}

// Unwrap gives the error that it is.
func (b *Busy) Unwrap() error { return b.error }

// order is for a picture that waits to be drawn.
type order = waiting[diffusion.Request, diffusion.Result]

// together says whether two pictures can be drawn in one batch: all but words, prompts, guidance,
// eta and seeds has to be the same.
func together(a, b *diffusion.Request) bool {
	return a.Width == b.Width && a.Height == b.Height && a.Steps == b.Steps && a.Scheduler == b.Scheduler &&
		(a.Image == nil) == (b.Image == nil) && (a.Mask == nil) == (b.Mask == nil) && a.Strength == b.Strength
}

// easel is one bundle's queue of pictures. Batches of all bundles take turns, since each uses every
// core.
type easel struct {
	model   *diffusion.Pipeline
	turn    *sync.Mutex
	metrics *Metrics

	mu      sync.Mutex
	queue   []order
	drawing int           // pictures of the batch under way
	each    time.Duration // what a picture took of late
	more    chan struct{} // has room for one: there are pictures
}

// Drawn is a step of one of the pictures.
type Drawn struct {
	Picture int // which of the requests
	diffusion.Step
}

// Watch follows pictures on their way. Either field may be nil. Both are called where [Engine.Paint]
// was; they may be slow, and an error ends the pictures.
type Watch struct {
	Step func(Drawn) error
	Done func(picture int, r diffusion.Result) error
}

// Paint draws the pictures that are asked for, in the order of asking, those that can be together in
// one batch. Beyond a number of waiting pictures it is a [Busy]. The requests' own OnStep is set here.
func (e *Engine) Paint(ctx context.Context, p *Painter, requests []diffusion.Request, watch Watch) ([]diffusion.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	box := newMailbox[news[diffusion.Step, diffusion.Result]]()
	pictures := make([]order, len(requests))
	for i, r := range requests {
		if watch.Step != nil {
			r.OnStep = func(s diffusion.Step) { box.put(news[diffusion.Step, diffusion.Result]{request: i, step: s}) }
		}
		pictures[i] = order{ctx, r, func(r diffusion.Result, err error) {
			box.put(news[diffusion.Step, diffusion.Result]{request: i, answer: &r, err: err})
		}}
	}
	if err := e.easel(p.Model).add(pictures); err != nil {
		return nil, err
	}
	return await(ctx, box, len(requests), func(i int, s diffusion.Step) error { return watch.Step(Drawn{i, s}) }, watch.Done)
}

// easel returns a model's queue, and starts it where it is the first of it.
func (e *Engine) easel(m *diffusion.Pipeline) *easel {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := e.painters[m]
	if w == nil {
		w = &easel{model: m, turn: &e.drawing, metrics: e.metrics, more: make(chan struct{}, 1)}
		e.painters[m] = w
		e.running.Go(func() { w.run(e.ctx) })
	}
	return w
}

// add puts pictures into the queue, all or none.
func (w *easel) add(pictures []order) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = slices.DeleteFunc(w.queue, func(p order) bool { return p.ctx.Err() != nil })
	if n := len(w.queue); n+len(pictures) > maxQueued {
		after := max(time.Second, w.each*time.Duration(n+w.drawing))
		return &Busy{after, errs.New(errs.Quota, "%d pictures wait to be drawn, and %d more would be over the limit of %d: try again in about %.0f s", n, len(pictures), maxQueued, after.Seconds())}
	}
	w.queue = append(w.queue, pictures...)
	w.metrics.Queued.Set(float64(len(w.queue)))
	select {
	case w.more <- struct{}{}:
	default:
	}
	return nil
}

// run draws batches until ctx ends.
func (w *easel) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.more:
		}
		for ctx.Err() == nil && w.next(ctx) {
		}
	}
}

// next draws a batch, and says whether there was one.
func (w *easel) next(ctx context.Context) bool {
	w.turn.Lock()
	defer w.turn.Unlock()
	batch := w.take()
	if len(batch) == 0 {
		return false
	}
	start := time.Now()
	answerAll(ctx, batch, w.draw)
	took := time.Since(start)
	w.metrics.PictureSeconds.Observe(took.Seconds())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drawing, w.each = 0, took/time.Duration(len(batch))
	return true
}

// take takes the first picture whose client is still there, and those that can go with it.
func (w *easel) take() (batch []order) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var rest []order
	for _, p := range w.queue {
		switch {
		case p.ctx.Err() != nil:
		case len(batch) < maxPictures && (len(batch) == 0 || together(&batch[0].request, &p.request)):
			batch = append(batch, p)
		default:
			rest = append(rest, p)
		}
	}
	w.queue, w.drawing = rest, len(batch)
	w.metrics.Queued.Set(float64(len(rest)))
	return batch
}

// draw draws pictures.
func (w *easel) draw(ctx context.Context, requests []diffusion.Request) ([]diffusion.Result, error) {
	w.metrics.PictureBatches.Inc()
	w.metrics.Pictures.Add(float64(len(requests)))
	return w.model.Generate(ctx, requests)
}
