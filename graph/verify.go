package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// Runner runs a graph on some runtime: inputs and outputs by name.
type Runner func(g *Graph, in map[string]*Tensor) (map[string]*Tensor, error)

// Verify runs the tower on noise to see that prompts were put in as they should be: none at all
// leave the output as it was; two different numbers of them, at the first block and at every
// block, change it to something finite of the same shape, whatever order they stand in; and the
// tower cut in two at the tokens is the tower. What does not hold is an error of kind
// [errs.Unsupported] that says so.
func (t *ImageTower) Verify(run Runner) error {
	v := &imageCheck{checker: newChecker(run, t.Graph, t.Insert.Type), t: t}
	v.pixels = v.noise(t.imageDims()...)
	v.others = given{}
	for _, in := range t.Graph.Inputs {
		v.others[in.Name] = v.filler(in, int(v.pixels.Dims[0]))
	}
	v.others[t.Pixels.Name] = v.pixels
	original, err := v.output(t.Graph, nil)
	if err != nil {
		return err
	}
	for _, depth := range slices.Compact([]int{1, len(t.Blocks)}) {
		for _, k := range []int{0, 1, 3} {
			if err := v.check(k, depth, original); err != nil {
				return errs.New(errs.Of(err), "image tower with %d prompts to depth %d: %w", k, depth, err)
			}
		}
	}
	return nil
}

// imageDims are the dims of a few images that the tower takes.
func (t *ImageTower) imageDims() []int64 {
	dims := []int64{2, 3, 224, 224}
	for i, d := range t.Pixels.Shape {
		if n, ok := d.Int(); ok {
			dims[i] = n
		}
	}
	return dims
}

// checker runs graphs on noise and compares what comes out.
type checker struct {
	run       Runner
	r         *rand.Rand
	tolerance float64 // of the largest element
}

// newChecker tolerates the more the coarser a graph computes. Activations that are rounded by
// their range take other values when other tokens are among them.
func newChecker(run Runner, g *Graph, tokens DataType) *checker {
	c := &checker{run, rand.New(rand.NewPCG(1, 2)), 1e-3}
	if tokens != Float {
		c.tolerance = 3e-2
	}
	if slices.ContainsFunc(g.Nodes, func(n *Node) bool { return n.Op == "DynamicQuantizeLinear" || n.Op == "QuantizeLinear" }) {
		c.tolerance = 0.1
	}
	return c
}

// noise is a tensor of normal random numbers.
func (c *checker) noise(dims ...int64) *Tensor {
	data := make([]float32, Count(dims))
	for i := range data {
		data[i] = float32(c.r.NormFloat64())
	}
	return NewTensor(data, dims...)
}

// filler is noise for an input of floats, such as what cross attention looks at, and ones for others.
// Extents that are open are rows, and 5 behind the first axis.
func (c *checker) filler(v *Value, rows int) *Tensor {
	dims := make([]int64, len(v.Shape))
	for i, d := range v.Shape {
		n, fixed := d.Int()
		switch {
		case fixed:
			dims[i] = n
		case i == 0:
			dims[i] = int64(rows)
		default:
			dims[i] = 5
		}
	}
	if v.Type.IsFloat() {
		return c.noise(dims...)
	}
	return Integers(slices.Repeat([]int64{1}, int(Count(dims))), v.Type, dims...)
}

// outputs runs a graph; all that comes out is finite.
func (c *checker) outputs(g *Graph, in map[string]*Tensor) (map[string][]float32, error) {
	out, err := c.run(g, in)
	if err != nil {
		return nil, err
	}
	all := map[string][]float32{}
	for _, v := range g.Outputs {
		if out[v.Name] == nil {
			return nil, errs.New(errs.Unsupported, "the run gave no output %q", v.Name)
		}
		x, err := Float32s(out[v.Name])
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(x, func(f float32) bool { return math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) }) {
			return nil, errs.New(errs.Unsupported, "the output %q is not finite", v.Name)
		}
		all[v.Name] = x
	}
	return all, nil
}

type imageCheck struct {
	*checker
	t      *ImageTower
	pixels *Tensor
	others given // by name, what goes into the tower's own inputs
}

// output runs a graph on the images, or on their tokens, and the prompts.
func (v *imageCheck) output(g *Graph, in map[string]*Tensor) ([]float32, error) {
	given := map[string]*Tensor{}
	for _, x := range g.Inputs {
		if given[x.Name] = in[x.Name]; v.others[x.Name] != nil {
			given[x.Name] = v.others[x.Name]
		}
	}
	out, err := v.outputs(g, given)
	return out[g.Outputs[0].Name], err
}

// check holds the tower with k prompts against the original.
func (v *imageCheck) check(k, depth int, original []float32) error {
	o := ImagePromptOptions{Tokens: k, Depth: depth, FromTokens: true}
	half, err := v.t.withPrompts(o)
	if err != nil {
		return err
	}
	o.FromTokens = false
	whole, err := v.t.withPrompts(o)
	if err != nil {
		return err
	}
	in, turned := map[string]*Tensor{}, map[string]*Tensor{}
	for i := range depth {
		p := v.noise(1, int64(k), int64(v.t.Width))
		in[PromptName("visual", i)], turned[PromptName("visual", i)] = p, rotated(p, v.t.Width)
	}
	y, err := v.output(whole, in)
	if err != nil {
		return err
	}
	without := y
	if v.t.Pooling == PoolNone {
		without = v.withoutPrompts(y, k)
	}
	if len(without) != len(original) {
		return errs.New(errs.Unsupported, "the output has %d elements and not %d", len(without), len(original))
	}
	switch changed := v.differ(without, original); {
	case k == 0 && changed != nil:
		return errs.New(errs.Unsupported, "no prompts change the output: %w", changed)
	case k > 0 && slices.Equal(without, original): // to the last bit: layers may start out scaled down to next to nothing
		return errs.New(errs.Unsupported, "they do not change the output")
	}
	return v.checkOthers(whole, half, y, in, turned, k)
}

// checkOthers compares the output y with that of prompts in another order, and of the tower cut in two.
func (v *imageCheck) checkOthers(whole, half *Graph, y []float32, in, turned map[string]*Tensor, k int) error {
	again, err := v.output(whole, turned)
	if err != nil {
		return err
	}
	a, b := y, again
	if v.t.Pooling == PoolNone {
		a, b = v.withoutPrompts(y, k), v.withoutPrompts(again, k)
	}
	if err := v.differ(b, a); err != nil {
		return errs.New(errs.Unsupported, "their order changes the output: %w", err)
	}
	upstream, err := v.t.Upstream()
	if err != nil {
		return err
	}
	out, err := v.run(upstream, map[string]*Tensor{v.t.Pixels.Name: v.pixels})
	if err != nil {
		return err
	}
	in["tokens"] = out["tokens"]
	cut, err := v.output(half, in)
	if err != nil {
		return err
	}
	if err := v.differ(cut, y); err != nil {
		return errs.New(errs.Unsupported, "the output from the tokens is not that from the image: %w", err)
	}
	return nil
}

// rotated puts the first prompt last.
func rotated(p *Tensor, width int) *Tensor {
	x, err := Values[float32](p)
	if err != nil || len(x) < width {
		return p
	}
	return NewTensor(slices.Concat(x[width:], x[:width]), p.Dims...)
}

// withoutPrompts leaves the k prompts out of an output of tokens.
func (v *imageCheck) withoutPrompts(y []float32, k int) []float32 {
	each := 1 // elements that a token has behind its axis
	for _, d := range v.t.Output.Shape[v.t.outAxis+1:] {
		n, fixed := d.Int()
		if !fixed {
			n = v.pixels.Dims[0]
		}
		each *= int(n)
	}
	tokens, _ := v.t.Output.Shape[v.t.outAxis].Int()
	head, prompts, whole := int(v.t.outAt)*each, k*each, (int(tokens)+k)*each
	var out []float32
	for len(y) >= whole && whole > 0 {
		out = append(append(out, y[:head]...), y[head+prompts:whole]...)
		y = y[whole:]
	}
	return out
}

// differ says by how much got differs from want, nil when by no more than the tolerance.
func (c *checker) differ(got, want []float32) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d elements and not %d", len(got), len(want))
	}
	worst, largest := 0.0, 0.0
	for i, w := range want {
		worst = max(worst, math.Abs(float64(got[i])-float64(w)))
		largest = max(largest, math.Abs(float64(w)))
	}
	if worst <= c.tolerance*largest {
		return nil
	}
	return fmt.Errorf("by %.2g, where the largest element is %.2g", worst, largest)
}
