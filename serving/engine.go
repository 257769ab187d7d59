// Package serving answers requests with tuned prompts: many tenants' prompts share one copy of
// each model and, where their shapes agree, one forward pass.
package serving

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/foretoken/foretoken/generation/caption"
	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/vision"
)

// Metrics count what goes through the models.
type Metrics struct {
	Forwards       prometheus.Counter // through image towers
	Rows           prometheus.Counter
	Seconds        prometheus.Histogram
	CaptionBatches prometheus.Counter
	Captions       prometheus.Counter
	PictureBatches prometheus.Counter
	Pictures       prometheus.Counter
	PictureSeconds prometheus.Histogram
	Queued         prometheus.Gauge // pictures
}

func newMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		Forwards: prometheus.NewCounter(prometheus.CounterOpts{Name: "foretoken_image_forwards_total", Help: "Forward passes through an image tower."}),
		Rows:     prometheus.NewCounter(prometheus.CounterOpts{Name: "foretoken_image_rows_total", Help: "Images in those passes."}),
		Seconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "foretoken_image_forward_seconds", Help: "Time of a pass.", Buckets: prometheus.ExponentialBuckets(0.002, 2, 12)}),

		CaptionBatches: prometheus.NewCounter(prometheus.CounterOpts{Name: "foretoken_caption_batches_total", Help: "Batches of captions and answers."}),
		Captions:       prometheus.NewCounter(prometheus.CounterOpts{Name: "foretoken_captions_total", Help: "Captions and answers in those batches."}),
		PictureBatches: prometheus.NewCounter(prometheus.CounterOpts{Name: "foretoken_picture_batches_total", Help: "Batches of generated pictures."}),
		Pictures:       prometheus.NewCounter(prometheus.CounterOpts{Name: "foretoken_pictures_total", Help: "Generated pictures in those batches."}),
		PictureSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "foretoken_picture_batch_seconds", Help: "Time of a batch of pictures.", Buckets: prometheus.ExponentialBuckets(0.1, 2, 14)}),
		Queued:         prometheus.NewGauge(prometheus.GaugeOpts{Name: "foretoken_pictures_queued", Help: "Pictures that wait for their batch."}),
	}
	r.MustRegister(m.Forwards, m.Rows, m.Seconds, m.CaptionBatches, m.Captions, m.PictureBatches, m.Pictures, m.PictureSeconds, m.Queued)
	return m
}

const (
	cachedPrompts     = 4096
	cachedClassifiers = 4096
	cachedIndexes     = 16
)

// Engine serves prompts. It is safe for concurrent use.
type Engine struct {
	catalog *storage.Catalog
	objects storage.Objects
	models  *tuning.Models
	metrics *Metrics

	ctx     context.Context // ends the batchers
	stop    context.CancelFunc
	running sync.WaitGroup
	turn    sync.Mutex   // of forward passes through image towers
	writing sync.Mutex   // turn of batches of captions
	drawing sync.Mutex   // turn of batches of pictures
	coming  atomic.Int64 // requests on their way

	mu          sync.Mutex
	embedders   map[shape]*embedder
	captioners  map[*caption.Model]*batcher[caption.Request, caption.Answer]
	painters    map[*diffusion.Pipeline]*easel
	prompts     *lru.Cache[string, *prompt.Prompt]
	classifiers *lru.Cache[string, *tuning.Classifier]
	indexes     *lru.Cache[string, *index]
	loading     singleflight.Group
}

// New makes an engine over the catalogue's prompts. Its counters go to r.
func New(c *storage.Catalog, objs storage.Objects, models *tuning.Models, r prometheus.Registerer) *Engine {
	e := &Engine{
		catalog: c, objects: objs, models: models, metrics: newMetrics(r), embedders: map[shape]*embedder{},
		captioners: map[*caption.Model]*batcher[caption.Request, caption.Answer]{}, painters: map[*diffusion.Pipeline]*easel{},
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.prompts, _ = lru.New[string, *prompt.Prompt](cachedPrompts) // fails for sizes below 1 alone
	e.classifiers, _ = lru.New[string, *tuning.Classifier](cachedClassifiers)
	e.indexes, _ = lru.New[string, *index](cachedIndexes)
	return e
}

// Close ends the batchers, once what is under way is answered.
func (e *Engine) Close() {
	e.stop()
	e.running.Wait()
}

// Target is what a request is conditioned by: a prompt, or a bundle alone. Key tells it from
// all others.
type Target struct {
	Model  *tuning.Model
	Prompt *prompt.Prompt // nil for the frozen model
	Key    string
}

// Resolve finds a prompt by "name" (its promoted or latest revision) or "name@revision"; where
// the name is empty, the frozen bundle of the other name.
func (e *Engine) Resolve(ctx context.Context, promptRef, bundle string) (*Target, error) {
	if promptRef == "" {
		m, err := e.models.Get(ctx, bundle)
		if err != nil {
			return nil, err
		}
		return &Target{Model: m, Key: "bundle " + m.Bundle.Digest}, nil
	}
	row, err := e.row(ctx, promptRef)
	if err != nil {
		return nil, err
	}
	m, err := e.models.Get(ctx, row.Bundle)
	if err != nil {
		return nil, err
	}
	p, err := e.promptOf(ctx, row, m.Bundle.Digest, prompt.Classifier)
	if err != nil {
		return nil, err
	}
	return &Target{Model: m, Prompt: p, Key: "prompt " + row.Digest}, nil
}

// row finds a prompt by NAME or NAME@REVISION.
func (e *Engine) row(ctx context.Context, ref string) (storage.Prompt, error) {
	name, revision, err := ParseRef(ref)
	if err != nil {
		return storage.Prompt{}, err
	}
	return e.catalog.Prompt(ctx, name, revision)
}

// find says what a name stands for: a prompt, whose row it returns, else a bundle.
func (e *Engine) find(ctx context.Context, name string) (bundle string, row *storage.Prompt, err error) {
	r, err := e.row(ctx, name)
	if err == nil {
		return r.Bundle, &r, nil
	}
	if errs.Of(err) != errs.NotFound {
		return "", nil, err
	}
	if _, err := e.catalog.Bundle(ctx, name); err != nil {
		if errs.Of(err) == errs.NotFound {
			err = errs.New(errs.NotFound, "the model %.100q does not exist: GET /v1/models lists bundles and prompts", name)
		}
		return "", nil, err
	}
	return name, nil, nil
}

// promptOf reads a prompt, which has to be of a bundle and of one of the kinds.
func (e *Engine) promptOf(ctx context.Context, row storage.Prompt, digest string, kinds ...prompt.Kind) (*prompt.Prompt, error) {
	p, err := e.load(ctx, row)
	if err != nil {
		return nil, err
	}
	if err := p.CheckBundle(digest); err != nil {
		return nil, err
	}
	if !slices.Contains(kinds, p.Card.Kind) {
		return nil, errs.New(errs.Invalid, "prompt %q is of the kind %s; what is asked for takes %s", row.Name, p.Card.Kind, kinds)
	}
	return p, nil
}

// ParseRef splits "name@revision"; without a revision it is 0.
func ParseRef(ref string) (name string, revision int, err error) {
	name, number, found := strings.Cut(ref, "@")
	if !found {
		return name, 0, nil
	}
	revision, err = strconv.Atoi(number)
	if err != nil || revision < 1 {
		return "", 0, errs.New(errs.Invalid, "prompt %q: the revision after @ must be a number from 1 on", ref)
	}
	return name, revision, nil
}

// load reads a prompt's file, once for all who ask at the same time.
func (e *Engine) load(ctx context.Context, row storage.Prompt) (*prompt.Prompt, error) {
	if p, ok := e.prompts.Get(row.Digest); ok {
		return p, nil
	}
	v, err, _ := e.loading.Do(row.Digest, func() (any, error) {
		b, err := ReadObject(context.WithoutCancel(ctx), e.objects, row.Object)
		if err != nil {
			return nil, err
		}
		p, err := prompt.ReadBytes(b)
		if err != nil {
			return nil, err
		}
		if digest, err := p.Digest(); err != nil || digest != row.Digest {
			return nil, errors.Join(err, errs.New(errs.Internal, "prompt %s: the stored file has the digest %s, not %s: it was changed or damaged", row.Name, digest, row.Digest))
		}
		e.prompts.Add(row.Digest, p)
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*prompt.Prompt), nil
}

// ReadObject reads a whole object, which is known to be small.
func ReadObject(ctx context.Context, objs storage.Objects, key string) ([]byte, error) {
	body, _, err := objs.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// EmbedImage returns the embedding [P], L2-normalised, of an encoded image under the target.
func (e *Engine) EmbedImage(ctx context.Context, t *Target, image []byte) ([]float32, error) {
	pixels, err := e.pixels(t.Model, image)
	if err != nil {
		return nil, err
	}
	layers, err := tuning.VisualLayers(t.Prompt)
	if err != nil {
		return nil, err
	}
	Arrived(ctx)
	s := shape{model: t.Model, depth: len(layers)}
	if s.depth > 0 {
		s.tokens = int(layers[0].Dims[1])
	}
	return e.embedder(s).embed(ctx, row{pixels, layers})
}

// arrival is the context's key for what Expect returns.
type arrival struct{}

// Expect tells that a request with an image is on its way, so that batches wait for it a little. It
// has arrived when its image is ready to be embedded, or when the function returned or [Arrived] is called.
func (e *Engine) Expect(ctx context.Context) (context.Context, func()) {
	e.coming.Add(1)
	arrived := sync.OnceFunc(func() { e.coming.Add(-1) })
	return context.WithValue(ctx, arrival{}, arrived), arrived
}

// Arrived tells that no batch need wait any longer for the request of a context that [Engine.Expect] made.
func Arrived(ctx context.Context) {
	if arrived, ok := ctx.Value(arrival{}).(func()); ok {
		arrived()
	}
}

// pixels decodes and preprocesses an image.
func (e *Engine) pixels(m *tuning.Model, image []byte) ([]float32, error) {
	img, err := vision.Decode(bytes.NewReader(image), vision.Limits{})
	if err != nil {
		return nil, err
	}
	return m.Images.Apply(img), nil
}

// embedder returns the embedder of a shape, and starts it where it is the first of it.
func (e *Engine) embedder(s shape) *embedder {
	e.mu.Lock()
	defer e.mu.Unlock()
	em := e.embedders[s]
	if em == nil {
		em = &embedder{shape: s, metrics: e.metrics}
		em.batcher = batcher[row, []float32]{turn: &e.turn, coming: func() bool { return e.coming.Load() > 0 }, most: maxRows, answer: em.forward, queue: make(chan waiting[row, []float32], maxRows)}
		e.embedders[s] = em
		e.running.Go(func() { em.run(e.ctx) })
	}
	return em
}
