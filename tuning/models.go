package tuning

import (
	"context"
	"sync"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/generation/caption"
	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
)

// Models keeps bundles open: one copy of each model serves all prompts. It is safe for
// concurrent use.
type Models struct {
	// find says where a bundle's folder is and what digest it has to have.
	find    func(ctx context.Context, name string) (dir, digest string, err error)
	options ort.Options

	mu   sync.Mutex
	open map[string]*opened
}

// opened is a bundle's model, of its kind.
type opened struct {
	mu        sync.Mutex // held while it is opened
	kind      bundle.Kind
	encoder   *Model
	captioner *caption.Model
	painter   *diffusion.Pipeline
}

// NewModels opens bundles, when they are first wanted, where find says.
func NewModels(find func(ctx context.Context, name string) (dir, digest string, err error), o ort.Options) *Models {
	return &Models{find: find, options: o, open: map[string]*opened{}}
}

// Get returns the model of a bundle of two encoders.
func (ms *Models) Get(ctx context.Context, name string) (*Model, error) {
	m, err := ms.get(ctx, name, bundle.DualEncoder)
	if err != nil {
		return nil, err
	}
	return m.encoder, nil
}

// Captioner returns the model of a bundle that makes text of images.
func (ms *Models) Captioner(ctx context.Context, name string) (*caption.Model, error) {
	m, err := ms.get(ctx, name, bundle.Captioner)
	if err != nil {
		return nil, err
	}
	return m.captioner, nil
}

// Painter returns the model of a bundle that makes images of text.
func (ms *Models) Painter(ctx context.Context, name string) (*diffusion.Pipeline, error) {
	m, err := ms.get(ctx, name, bundle.Diffusion)
	if err != nil {
		return nil, err
	}
	return m.painter, nil
}

// Kind opens a bundle and says what it is.
func (ms *Models) Kind(ctx context.Context, name string) (bundle.Kind, error) {
	m, err := ms.opened(ctx, name)
	if err != nil {
		return 0, err
	}
	return m.kind, nil
}

// uses says what each kind of bundle is for.
var uses = map[bundle.Kind]string{
	bundle.DualEncoder: "it embeds, classifies and searches",
	bundle.Captioner:   "it makes captions and answers of images (/v1/chat/completions)",
	bundle.Diffusion:   "it makes images (/v1/images/generations)",
}

func (ms *Models) get(ctx context.Context, name string, kind bundle.Kind) (*opened, error) {
	m, err := ms.opened(ctx, name)
	if err == nil && m.kind != kind {
		err = errs.New(errs.Invalid, "bundle %q is a %s: %s; what is asked for takes a %s", name, m.kind, uses[m.kind], kind)
	}
	return m, err
}

// opened returns a bundle's model, and opens it where it is not. Others are opened meanwhile.
func (ms *Models) opened(ctx context.Context, name string) (*opened, error) {
	m, err := ms.entry(ctx, name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.is() {
		return m, nil
	}
	dir, digest, err := ms.find(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := bundle.Open(dir)
	if err != nil {
		return nil, err
	}
	if b.Digest != digest {
		return nil, errs.New(errs.Conflict, "bundle %q: the files in %s have the digest %s, they had %s when it was added: put the old files back, or add these under another name", name, dir, b.Digest, digest)
	}
	b.Name = name
	// The places of prompts may be others than when the bundle was added: the digest leaves them out.
	return m, m.load(b, ms.options, b.Overrides.NamePlaces())
}

// entry is a bundle's place among the models; there is none for a name that find does not know.
func (ms *Models) entry(ctx context.Context, name string) (*opened, error) {
	ms.mu.Lock()
	m := ms.open[name]
	ms.mu.Unlock()
	if m != nil {
		return m, nil
	}
	if _, _, err := ms.find(ctx, name); err != nil {
		return nil, err
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.open[name] == nil {
		ms.open[name] = &opened{}
	}
	return ms.open[name], nil
}

// is says whether the model is open.
func (m *opened) is() bool { return m.encoder != nil || m.captioner != nil || m.painter != nil }

// load opens a bundle by its kind; verify has encoders and decoders run with prompts in them.
func (m *opened) load(b *bundle.Bundle, o ort.Options, verify bool) error {
	m.kind = b.Kind()
	switch m.kind {
	case bundle.Captioner:
		c, err := caption.Open(b, o)
		if err == nil && verify {
			if err = c.Verify(); err != nil {
				c.Close()
			}
		}
		if err != nil {
			return err
		}
		m.captioner = c
	case bundle.Diffusion:
		p, err := diffusion.Open(b, o)
		if err != nil {
			return err
		}
		m.painter = p
	default:
		e, err := Open(b, o)
		if err == nil && verify {
			if err = e.Verify(); err != nil {
				e.Close()
			}
		}
		if err != nil {
			return err
		}
		m.encoder = e
	}
	return nil
}

func (m *opened) close() {
	if m.encoder != nil {
		m.encoder.Close()
	}
	if m.captioner != nil {
		m.captioner.Close()
	}
	if m.painter != nil {
		m.painter.Close()
	}
	m.encoder, m.captioner, m.painter = nil, nil, nil
}

// Check opens a bundle, runs its towers with prompts in them, and closes it again: an error says why
// it can't be used.
func (ms *Models) Check(b *bundle.Bundle) error {
	m := &opened{}
	defer m.close()
	return m.load(b, ms.options, true)
}

// Close frees all models.
func (ms *Models) Close() {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for _, m := range ms.open {
		m.mu.Lock()
		m.close()
		m.mu.Unlock()
	}
	clear(ms.open)
}
