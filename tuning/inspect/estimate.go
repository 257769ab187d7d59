package inspect

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
)

// Step is what a step of tuning takes: forward from where prompts join, and back to them.
type Step struct {
	Batch   int `json:"batch"`            // images, or texts
	Prompts int `json:"prompts"`          // tokens a block
	Depth   int `json:"depth"`            // blocks that have prompts of their own
	Length  int `json:"length,omitempty"` // tokens a text
	// Operations are the additions and multiplications of matrix products and convolutions, Moved the bytes that
	// other nodes read and write.
	Operations int64 `json:"operations"`
	Moved      int64 `json:"moved_bytes"`
	// Memory is what a process takes while it runs steps, the program itself aside: weights, forward and, for
	// the gradient, transposed; and at their most what lies between forward and backward.
	Memory  int64   `json:"memory_bytes"`
	Seconds float64 `json:"seconds,omitempty"` // 0 where the machine's speed could not be measured
	// MeasuredMemory and MeasuredSeconds are what a step took.
	MeasuredMemory  int64   `json:"measured_memory_bytes,omitempty"`
	MeasuredSeconds float64 `json:"measured_seconds,omitempty"`
}

// The runtime's share of memory, fitted to runs on ViT-B/16, CLIP's text tower and the starter: what it packs weights
// into is a little larger than they are, and its arena holds more than is alive at a time.
const (
	packing = 1.03
	arena   = 1.18
)

// memory estimates how many bytes a process that has loaded the runtime grows by at most: when the session is made,
// from the mapped files, or when it runs.
func memory(c graph.Cost) int64 {
	kept := packing * float64(c.Kept)
	return int64(kept + max(float64(c.Constants), arena*float64(c.Peak)))
}

// speed is how many seconds this machine takes: see [graph.Cost].
type speed struct {
	product float64 // an addition and a multiplication of a matrix product
	byte    float64 // one read or written by other nodes
	node    float64 // to get to a node
}

// seconds estimates how long a run takes.
func (s speed) seconds(c graph.Cost) float64 {
	return s.product*float64(c.Products) + s.byte*float64(c.Moved) + s.node*float64(c.Nodes)
}

// calibrate measures the machine, once.
var calibrate = sync.OnceValues(func() (s speed, err error) {
	if s.product, err = each(layer, func(c graph.Cost) int64 { return c.Products }); err != nil {
		return speed{}, err
	}
	if s.byte, err = each(passes, func(c graph.Cost) int64 { return c.Moved }); err != nil {
		return speed{}, err
	}
	s.node, err = each(nothing, func(c graph.Cost) int64 { return int64(c.Nodes) })
	return s, err
})

// each is how many seconds a graph takes for each of what it does.
func each(build func(b *graph.Builder) *graph.Value, of func(graph.Cost) int64) (float64, error) {
	g := graph.New()
	if err := g.Build(func(b *graph.Builder) { b.Output("y", build(b)) }); err != nil {
		return 0, err
	}
	cost, err := g.Cost()
	if err != nil {
		return 0, err
	}
	took, err := timed(context.Background(), g, 9)
	if err != nil {
		return 0, err
	}
	return took[len(took)/2] / float64(of(cost)), nil
}

// layer is the two products of a layer of width 512.
func layer(b *graph.Builder) *graph.Value {
	x := b.Input("x", graph.Float, graph.Shape{graph.Known(512), graph.Known(512)})
	return b.MatMul(b.MatMul(x, b.Const(pattern(512, 2048))), b.Const(pattern(2048, 512)))
}

// passes go over 16 MB as a gradient does.
func passes(b *graph.Builder) *graph.Value {
	x := b.Input("x", graph.Float, graph.Shape{graph.Known(2048), graph.Known(2048)})
	y := b.Op("Sigmoid", nil, x)
	y = b.Mul(y, b.Sub(b.Scalar(1, y), y))
	return b.Sum(b.Transpose(b.Add(x, y), 1, 0), false, 0)
}

// nothing is nodes that have little to do: what they take is to get to them, and to share a small product among threads.
func nothing(b *graph.Builder) *graph.Value {
	x := b.Input("x", graph.Float, graph.Shape{graph.Known(32), graph.Known(64)})
	square := b.Const(pattern(64, 64))
	y := x
	for range 128 {
		y = b.Add(b.MatMul(y, square), x)
	}
	return y
}

// started is when the program's clock began; clock reads it.
var started = time.Now()

var clock = func() time.Duration { return time.Since(started) }

// timed runs a graph on patterns, once to warm up and then some times: what these took in seconds, the shortest first.
func timed(ctx context.Context, g *graph.Graph, times int) ([]float64, error) {
	weights, err := ort.NewWeights()
	if err != nil {
		return nil, err
	}
	defer weights.Close()
	session, err := ort.NewSession(g, ort.Options{Weights: weights, Deterministic: true}) // as tuning has them
	if err != nil {
		return nil, err
	}
	defer session.Close()
	in, took := feeds(g), []float64{}
	for i := range times + 1 {
		start := clock()
		if _, err := session.Run(ctx, in); err != nil {
			return nil, err
		}
		if i > 0 {
			took = append(took, (clock() - start).Seconds())
		}
	}
	slices.Sort(took)
	return took, nil
}

// pattern is a tensor of small numbers that are not all the same.
func pattern(dims ...int64) *graph.Tensor {
	data := make([]float32, graph.Count(dims))
	for i := range data {
		data[i] = float32(i%13-6) / 64
	}
	return graph.NewTensor(data, dims...)
}

// feeds are patterns for the graph's inputs: small floats, and ones for ids and masks.
func feeds(g *graph.Graph) map[string]*graph.Tensor {
	in := map[string]*graph.Tensor{}
	for _, v := range g.Inputs {
		dims, _ := v.Shape.Ints()
		switch v.Type {
		case graph.Float:
			in[v.Name] = pattern(dims...)
		case graph.Int32:
			in[v.Name] = graph.NewTensor(slices.Repeat([]int32{1}, int(graph.Count(dims))), dims...)
		default:
			in[v.Name] = graph.NewTensor(slices.Repeat([]int64{1}, int(graph.Count(dims))), dims...)
		}
	}
	return in
}
