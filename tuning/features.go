package tuning

import (
	"context"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/rng"
)

// cacheLimit is the most bytes of features that a run keeps. Beyond it they are computed
// each time.
const cacheLimit = 2 << 30

// featureChunk is how many images go through a frozen tower at once.
const featureChunk = 32

// features computes what a frozen part of the model makes of samples, and keeps it by view.
// Samples are computed in fixed chunks, so that a run that is resumed sees the same bits.
type features struct {
	model   *Model
	samples []Sample
	views   int // 1: the plain view
	seed    uint64
	compute func(ctx context.Context, pixels *graph.Tensor) (*graph.Tensor, error)

	mu     sync.Mutex
	chunks map[[2]int]*graph.Tensor // by view and chunk
	keep   bool
	asked  bool
}

// rows returns the features of the samples of the given indexes in a view, one after the other.
func (f *features) rows(ctx context.Context, indexes []int, view int) (*graph.Tensor, error) {
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

func (f *features) row(ctx context.Context, i, view int) (*graph.Tensor, error) {
	if f.asked && !f.keep {
		return f.run(ctx, f.samples[i:i+1], view)
	}
	key := [2]int{view, i / featureChunk}
	start := key[1] * featureChunk
	if f.chunks[key] == nil {
		t, err := f.run(ctx, f.samples[start:min(start+featureChunk, len(f.samples))], view)
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
func (f *features) decide(t *graph.Tensor) {
	if !f.asked {
		total := t.Len() / t.Dims[0] * 4 * int64(len(f.samples)) * int64(f.views)
		f.asked, f.keep, f.chunks = true, total <= cacheLimit, map[[2]int]*graph.Tensor{}
	}
}

// run decodes, views and computes samples.
func (f *features) run(ctx context.Context, samples []Sample, view int) (*graph.Tensor, error) {
	pixels := make([][]float32, len(samples))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range samples {
		group.Go(func() error {
			img, err := s.Image(inner)
			if err != nil {
				return err
			}
			if f.views == 1 {
				pixels[i] = f.model.Images.Apply(img)
			} else {
				pixels[i] = f.model.Images.Augment(img, rng.New(f.seed, "view", s.ID, view))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return f.compute(ctx, f.model.Images.Pixels(pixels...))
}
