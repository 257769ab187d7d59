package tuning

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"runtime"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/vision"
)

// cacheLimit is the most bytes of features that a run keeps. Beyond it they are computed
// each time.
const cacheLimit = 2 << 30

// featureChunk is how many images go through a frozen tower at once.
const featureChunk = 32

// Features computes what a frozen part of the model makes of samples, and keeps it by view.
// Samples are computed in fixed chunks, so that a run that is resumed sees the same bits. It is safe for concurrent use.
type Features struct {
	Images  *vision.Preprocessor
	Samples []Sample
	Views   int    // 1: the plain view
	Seed    uint64 // draws the views
	// Compute makes [B,...] of pixels [B,3,H,W].
	Compute func(ctx context.Context, pixels *graph.Tensor) (*graph.Tensor, error)

	// shared, where it is set, keeps plain views beyond the run: those of test images.
	shared *chunkCache

	mu     sync.Mutex
	chunks map[[2]int]*graph.Tensor // by view and chunk
	keep   bool
	asked  bool
}

// chunkCache keeps the chunks of features that were used last, up to a number of bytes.
type chunkCache struct {
	mu     sync.Mutex
	bytes  int64
	chunks *lru.Cache[string, *graph.Tensor]
}

// sharedLimit is the most bytes that a model keeps of test images' tokens.
const sharedLimit = 512 << 20

func newChunkCache() *chunkCache {
	chunks, _ := lru.New[string, *graph.Tensor](math.MaxInt32) // bounded by bytes below
	return &chunkCache{chunks: chunks}
}

// key names a chunk by the images in it.
func (c *chunkCache) key(samples []Sample) string {
	h := sha256.New()
	for _, s := range samples {
		fmt.Fprintln(h, s.ID)
	}
	return string(h.Sum(nil))
}

func (c *chunkCache) get(key string) (*graph.Tensor, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.chunks.Get(key)
}

func (c *chunkCache) add(key string, t *graph.Tensor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chunks.Contains(key) {
		return
	}
	c.chunks.Add(key, t)
	for c.bytes += 4 * t.Len(); c.bytes > sharedLimit; {
		_, oldest, _ := c.chunks.RemoveOldest()
		c.bytes -= 4 * oldest.Len()
	}
}

// Rows returns the features of the samples of the given indexes in a view, one after the other.
func (f *Features) Rows(ctx context.Context, indexes []int, view int) (*graph.Tensor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []float32
	var dims []int64
	for _, i := range indexes {
		row, err := f.row(ctx, i, view)
		if err != nil {
			return nil, err
		}
		values, err := graph.Values[float32](row)
		if err != nil {
			return nil, err
		}
		out, dims = append(out, values...), row.Dims[1:]
	}
	return graph.NewTensor(out, append([]int64{int64(len(indexes))}, dims...)...), nil
}

func (f *Features) row(ctx context.Context, i, view int) (*graph.Tensor, error) {
	if f.asked && !f.keep {
		return f.run(ctx, f.Samples[i:i+1], view)
	}
	key := [2]int{view, i / featureChunk}
	start := key[1] * featureChunk
	if f.chunks[key] == nil {
		t, err := f.run(ctx, f.Samples[start:min(start+featureChunk, len(f.Samples))], view)
		if err != nil {
			return nil, err
		}
		f.decide(t)
		if !f.keep {
			return f.row(ctx, i, view)
		}
		f.chunks[key] = t
	}
	return f.chunks[key].Rows(int64(i-start), int64(i-start+1)), nil
}

// decide settles, once the features' size is known, whether they are kept.
func (f *Features) decide(t *graph.Tensor) {
	if !f.asked {
		total := t.Len() / t.Dims[0] * 4 * int64(len(f.Samples)) * int64(f.Views)
		f.asked, f.keep, f.chunks = true, total <= cacheLimit, map[[2]int]*graph.Tensor{}
	}
}

// run returns the features of samples, from the shared cache where they are there.
func (f *Features) run(ctx context.Context, samples []Sample, view int) (*graph.Tensor, error) {
	if f.shared == nil {
		return f.computeViews(ctx, samples, view)
	}
	key := f.shared.key(samples)
	if t, ok := f.shared.get(key); ok {
		return t, nil
	}
	t, err := f.computeViews(ctx, samples, view)
	if err == nil {
		f.shared.add(key, t)
	}
	return t, err
}

// computeViews decodes, views and computes samples.
func (f *Features) computeViews(ctx context.Context, samples []Sample, view int) (*graph.Tensor, error) {
	pixels := make([][]float32, len(samples))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range samples {
		group.Go(func() error {
			img, err := s.Image(inner)
			if err != nil {
				return err
			}
			if f.Views == 1 {
				pixels[i] = f.Images.Apply(img)
			} else {
				pixels[i] = f.Images.Augment(img, rng.New(f.Seed, "view", s.ID, view))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return f.Compute(ctx, f.Images.Pixels(pixels...))
}
