package dataset

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/storage"
)

// memory is an object store in a map. Objects that are too large to hold lie in large.
type memory struct {
	mu    sync.Mutex
	blobs map[string][]byte
	puts  []string // keys in the order in which they were put
	large map[string]*io.SectionReader
	drop  bool // forget what is put, after reading it
	// fail, where set, is asked before each call.
	fail func(method, key string) error
}

func newMemory() *memory { return &memory{blobs: map[string][]byte{}} }

func (m *memory) Put(_ context.Context, key string, r io.Reader, size int64, _ storage.PutOptions) (storage.ObjectInfo, error) {
	if err := m.failing("put", key); err != nil {
		return storage.ObjectInfo{}, err
	}
	if m.drop {
		n, err := io.Copy(io.Discard, r)
		return storage.ObjectInfo{Key: key, Size: n}, err
	}
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) != size {
		return storage.ObjectInfo{}, fmt.Errorf("put %s: %d bytes of %d, %w", key, len(b), size, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[key] = b
	m.puts = append(m.puts, key)
	return storage.ObjectInfo{Key: key, Size: size}, nil
}

func (m *memory) failing(method, key string) error {
	if m.fail == nil {
		return nil
	}
	return m.fail(method, key)
}

func (m *memory) open(key string) (*io.SectionReader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.large[key]; ok {
		return r, nil
	}
	b, ok := m.blobs[key]
	if !ok {
		return nil, errs.New(errs.NotFound, "no object %s", key)
	}
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))), nil
}

func (m *memory) Get(ctx context.Context, key string) (io.ReadCloser, storage.ObjectInfo, error) {
	r, err := m.open(key)
	if err != nil {
		return nil, storage.ObjectInfo{}, err
	}
	body, err := m.GetRange(ctx, key, 0, r.Size())
	return body, storage.ObjectInfo{Key: key, Size: r.Size()}, err
}

func (m *memory) GetRange(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := m.failing("range", key); err != nil {
		return nil, err
	}
	r, err := m.open(key)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(r, offset, length)), nil
}

func (m *memory) Stat(_ context.Context, key string) (storage.ObjectInfo, error) {
	if err := m.failing("stat", key); err != nil {
		return storage.ObjectInfo{}, err
	}
	r, err := m.open(key)
	if err != nil {
		return storage.ObjectInfo{}, err
	}
	return storage.ObjectInfo{Key: key, Size: r.Size()}, nil
}

func (m *memory) List(_ context.Context, prefix string) iter.Seq2[storage.ObjectInfo, error] {
	return func(yield func(storage.ObjectInfo, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(m.blobs)) {
			if strings.HasPrefix(key, prefix) && !yield(storage.ObjectInfo{Key: key, Size: int64(len(m.blobs[key]))}, nil) {
				return
			}
		}
	}
}

func (m *memory) Share(_ context.Context, key string, _ time.Duration) (string, error) {
	return "memory:" + key, nil
}

func (m *memory) Delete(_ context.Context, keys ...string) error {
	for _, key := range keys {
		delete(m.blobs, key)
	}
	return nil
}

// check takes texts like "4x3 a cat" for images of 4 x 3 pixels.
func check(_ context.Context, image []byte) (width, height int, err error) {
	switch {
	case bytes.HasPrefix(image, []byte("huge")):
		return 0, 0, errs.New(errs.TooLarge, "99 megapixels, limit 40")
	case bytes.HasPrefix(image, []byte("panic")):
		panic("index out of range")
	case bytes.HasPrefix(image, []byte("\x00")):
		return 1, 1, nil
	}
	if _, err := fmt.Sscanf(string(image), "%dx%d", &width, &height); err != nil {
		return 0, 0, errs.New(errs.Invalid, "not an image")
	}
	return width, height, nil
}

func options() ImportOptions { return ImportOptions{ID: "pets", Check: check, Seed: 1} }

// importFiles imports a zip of the given names and contents.
func importFiles(t *testing.T, files [][2]string, o ImportOptions) (*Version, *memory, error) {
	t.Helper()
	m := newMemory()
	m.blobs["upload"] = zipOf(t, files)
	v, err := ImportZip(t.Context(), m, "upload", o)
	return v, m, err
}

func mustImport(t *testing.T, files [][2]string) (*Version, *memory) {
	t.Helper()
	v, m, err := importFiles(t, files, options())
	if err != nil {
		t.Fatal(err)
	}
	return v, m
}
