package tuning

import (
	"context"
	"sync"

	"github.com/foretoken/foretoken/bundle"
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
	open map[string]*Model
}

// NewModels opens bundles, when they are first wanted, where find says.
func NewModels(find func(ctx context.Context, name string) (dir, digest string, err error), o ort.Options) *Models {
	return &Models{find: find, options: o, open: map[string]*Model{}}
}

// Get returns the model of a bundle.
func (ms *Models) Get(ctx context.Context, name string) (*Model, error) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m := ms.open[name]; m != nil {
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
	m, err := Open(b, ms.options)
	if err != nil {
		return nil, err
	}
	if b.Overrides.NamePlaces() { // they may be others than when the bundle was added: the digest leaves them out
		if err := m.Verify(); err != nil {
			m.Close()
			return nil, err
		}
	}
	ms.open[name] = m
	return m, nil
}

// Check opens a bundle, runs its towers with prompts in them, and closes it again: an error says why
// it can't be tuned.
func (ms *Models) Check(b *bundle.Bundle) error {
	m, err := Open(b, ms.options)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Verify()
}

// Close frees all models.
func (ms *Models) Close() {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for _, m := range ms.open {
		m.Close()
	}
	clear(ms.open)
}
