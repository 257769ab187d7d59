package ort

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Provider is a kind of device, by the name of ONNX Runtime's execution provider. Operators that it has
// no kernel for run on the CPU, and so do all where it is empty.
type Provider string

// The providers.
const (
	CPU    Provider = ""
	WebGPU Provider = "WebGPU"
	CUDA   Provider = "CUDA"
)

// ProviderFromEnv is what FORETOKEN_DEVICE names: cpu, webgpu or cuda; the CPU where it is not set.
func ProviderFromEnv() (Provider, error) {
	name := os.Getenv("FORETOKEN_DEVICE")
	switch strings.ToLower(name) {
	case "", "cpu":
		return CPU, nil
	case "webgpu":
		return WebGPU, nil
	case "cuda":
		return CUDA, nil
	}
	return CPU, errs.New(errs.Invalid, "FORETOKEN_DEVICE is %q: set it to cpu, webgpu or cuda", name)
}

// webGPU is held by who makes, runs or frees a session on it: the sessions of a process have one context,
// and two at a time crash ONNX Runtime 1.30.
var webGPU sync.Mutex

// hold waits for the device, where one at a time may use it; the function returned lets it go.
func (p Provider) hold() (release func()) {
	if p != WebGPU {
		return func() {}
	}
	webGPU.Lock()
	return webGPU.Unlock
}

// widen returns the graph in floats where it computes in half floats and the device can't, as WebGPU's can't
// without the feature shader-f16; nil where there is nothing to do.
func (p Provider) widen(g *graph.Graph) (*graph.Graph, error) {
	if p != WebGPU || !usesHalves(g) || webGPUHalves() {
		return nil, nil
	}
	g = g.Clone()
	return g, g.Widen(graph.Float16)
}

// logical says how operators on truth values are computed with numbers: what is not 0 is true.
var logical = map[string]string{"And": "Mul", "Or": "Max", "Xor": "Sub"}

// reckon returns the graph with numbers in place of truth values where WebGPU would combine those of different shapes: ONNX
// Runtime 1.30 gets And of [12,1] and [3,1,12] wrong beside one of [12,12] and [12,1], and so masks.
func (p Provider) reckon(g *graph.Graph) *graph.Graph {
	if p != WebGPU || !slices.ContainsFunc(g.Nodes, combines) {
		return g
	}
	g = g.Clone()
	nodes := g.Nodes
	g.Nodes = nil
	add := func(op string, y *graph.Value, attrs map[string]graph.Attr, inputs ...*graph.Value) *graph.Value {
		y.Def = &graph.Node{Op: op, Attrs: attrs, Inputs: inputs, Outputs: []*graph.Value{y}}
		g.Nodes = append(g.Nodes, y.Def)
		return y
	}
	cast := func(x, y *graph.Value) *graph.Value {
		return add("Cast", y, map[string]graph.Attr{"to": {Value: int64(y.Type)}}, x)
	}
	for _, n := range nodes {
		if !combines(n) {
			g.Nodes = append(g.Nodes, n)
			continue
		}
		y := n.Outputs[0]
		var numbers []*graph.Value
		for i, x := range n.Inputs {
			numbers = append(numbers, cast(x, &graph.Value{Name: fmt.Sprint(y.Name, ".", i), Type: graph.Float, Shape: x.Shape}))
		}
		cast(add(logical[n.Op], &graph.Value{Name: y.Name + ".number", Type: graph.Float, Shape: y.Shape}, nil, numbers...), y)
	}
	return g
}

// combines is whether n combines truth values that may be of different shapes.
func combines(n *graph.Node) bool {
	if n.Domain != "" || logical[n.Op] == "" {
		return false
	}
	a, b := n.Inputs[0].Shape, n.Inputs[1].Shape
	return a == nil || !a.Equal(b)
}

func usesHalves(g *graph.Graph) bool {
	return slices.ContainsFunc(g.Inputs, isHalf) || slices.ContainsFunc(g.Nodes, func(n *graph.Node) bool {
		return slices.ContainsFunc(n.Inputs, isHalf) || slices.ContainsFunc(n.Outputs, isHalf)
	})
}

func isHalf(v *graph.Value) bool { return v != nil && v.Type == graph.Float16 }

// webGPUHalves says whether the device has kernels for half floats, by having it take a tangent.
var webGPUHalves = sync.OnceValue(func() bool {
	g := &graph.Graph{Opset: map[string]int64{"": 18}}
	err := g.Build(func(b *graph.Builder) {
		b.Output("y", b.Op("Tanh", nil, b.Input("x", graph.Float16, graph.Shape{graph.Known(2)})))
	})
	if err != nil {
		return false
	}
	x, err := graph.NewTensorBytes(graph.Float16, make([]byte, 4), 2)
	if err != nil {
		return false
	}
	y, err := graph.NewTensorBytes(graph.Float16, make([]byte, 4), 2)
	if err != nil {
		return false
	}
	defer WebGPU.hold()()
	s, err := newWrapped(g, Options{Provider: WebGPU})
	if err != nil {
		return false
	}
	defer s.close()
	_, err = s.run(context.Background(), []*graph.Tensor{x}, []*graph.Tensor{y})
	return err == nil
})

// unavailable is the error for a device that this library or machine does not have.
func (p Provider) unavailable(err error) error {
	return errs.New(errs.Unavailable, "there is no %s here: %w: use a library of ONNX Runtime that is built with it (FORETOKEN_ORT_LIB) on a machine that has such a device, or run on the CPU", p, err)
}
