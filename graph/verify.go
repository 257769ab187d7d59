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
	v := &verification{t: t, run: run, r: rand.New(rand.NewPCG(1, 2)), tolerance: 1e-3}
	if t.Insert.Type != Float {
		v.tolerance = 3e-2
	}
	if len(t.Graph.Inputs) != 1 {
		return unpromptable("the image tower can't be checked: it has the inputs %s beside %q", names(t.Graph.Inputs), t.Pixels.Name)
	}
	v.pixels = v.noise(t.imageDims())
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

type verification struct {
	t         *ImageTower
	run       Runner
	r         *rand.Rand
	pixels    *Tensor
	tolerance float64 // of the largest element
}

func (v *verification) noise(dims []int64) *Tensor {
	data := make([]float32, Count(dims))
	for i := range data {
		data[i] = float32(v.r.NormFloat64())
	}
	return NewTensor(data, dims...)
}

// output runs a graph on the images, or on their tokens, and the prompts.
func (v *verification) output(g *Graph, in map[string]*Tensor) ([]float32, error) {
	given := map[string]*Tensor{}
	for _, x := range g.Inputs {
		given[x.Name] = in[x.Name]
		if x.Name == v.t.Pixels.Name {
			given[x.Name] = v.pixels
		}
	}
	out, err := v.run(g, given)
	if err != nil {
		return nil, err
	}
	y := out[g.Outputs[0].Name]
	if y == nil {
		return nil, errs.New(errs.Unsupported, "the run gave no output %q", g.Outputs[0].Name)
	}
	x, err := Float32s(y)
	if err == nil && slices.ContainsFunc(x, func(f float32) bool { return math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) }) {
		err = errs.New(errs.Unsupported, "the output %q is not finite", g.Outputs[0].Name)
	}
	return x, err
}

// check holds the tower with k prompts against the original.
func (v *verification) check(k, depth int, original []float32) error {
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
		p := v.noise([]int64{1, int64(k), int64(v.t.Width)})
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
func (v *verification) checkOthers(whole, half *Graph, y []float32, in, turned map[string]*Tensor, k int) error {
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

// withoutPrompts leaves the k prompts out of an output of tokens [B,N+K,D].
func (v *verification) withoutPrompts(y []float32, k int) []float32 {
	tokens := v.t.Tokens + k
	width := len(y) / (int(v.pixels.Dims[0]) * tokens)
	var out []float32
	for len(y) >= tokens*width && width > 0 {
		c := v.t.ClassTokens * width
		out = append(append(out, y[:c]...), y[c+k*width:tokens*width]...)
		y = y[tokens*width:]
	}
	return out
}

// differ says by how much got differs from want, nil when by no more than the tolerance.
func (v *verification) differ(got, want []float32) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d elements and not %d", len(got), len(want))
	}
	worst, largest := 0.0, 0.0
	for i, w := range want {
		worst = max(worst, math.Abs(float64(got[i])-float64(w)))
		largest = max(largest, math.Abs(float64(w)))
	}
	if worst <= v.tolerance*largest {
		return nil
	}
	return fmt.Errorf("by %.2g, where the largest element is %.2g", worst, largest)
}
