package graph

import (
	"math"
	"slices"
)

var _ = register(map[string]row{
	"ReduceSum": {reduceShape, chain(func(b *backward, n *Node) *Value {
		return b.spread(n, b.kept(n, b.dy(n)))
	}), reduceKernel(0, plus, nil)},
	"ReduceMean": {reduceShape, chain(gradReduceMean), reduceKernel(0, plus, func(acc float64, n int) float64 { return acc / float64(n) })},
	"ReduceMax":  {reduceShape, chain(gradReduceExtreme), reduceKernel(math.Inf(-1), math.Max, nil)},
	"ReduceMin":  {reduceShape, chain(gradReduceExtreme), reduceKernel(math.Inf(1), math.Min, nil)},
	"ReduceProd": {reduceShape, chain(gradReduceProd), reduceKernel(1, times, nil)},
	"ReduceLogSum": {reduceShape, chain(func(b *backward, n *Node) *Value {
		return b.spread(n, b.Div(b.kept(n, b.dy(n)), b.Op("Exp", nil, b.kept(n, n.Outputs[0]))))
	}), reduceKernel(0, plus, func(acc float64, _ int) float64 { return math.Log(acc) })},
	"ReduceL1": {reduceShape, chain(func(b *backward, n *Node) *Value {
		return b.Mul(b.kept(n, b.dy(n)), b.Op("Sign", nil, n.Inputs[0]))
	}), reduceKernel(0, func(acc, x float64) float64 { return acc + math.Abs(x) }, nil)},
	"ReduceL2": {reduceShape, chain(func(b *backward, n *Node) *Value {
		dy, y := b.widened(b.kept(n, b.dy(n))), b.widened(b.kept(n, n.Outputs[0]))
		return b.Mul(b.Div(dy, y), b.widened(n.Inputs[0]))
	}), reduceKernel(0, plusSquare, func(acc float64, _ int) float64 { return math.Sqrt(acc) })},
	"ReduceSumSquare": {reduceShape, chain(func(b *backward, n *Node) *Value {
		return b.Mul(b.kept(n, b.dy(n)), b.twice(n.Inputs[0]))
	}), reduceKernel(0, plusSquare, nil)},
	"ReduceLogSumExp": {reduceShape, chain(func(b *backward, n *Node) *Value {
		y := b.widened(b.kept(n, n.Outputs[0]))
		return b.Mul(b.widened(b.kept(n, b.dy(n))), b.Op("Exp", nil, b.Sub(b.widened(n.Inputs[0]), y)))
	}), reduceKernel(0, func(acc, x float64) float64 { return acc + math.Exp(x) }, func(acc float64, _ int) float64 { return math.Log(acc) })},
})

// reduced lists the axes that a reduction goes over.
func (c *ctx) reduced() []int {
	rank := c.rank(0)
	if c.n.Input(1) != nil {
		if axes := c.need(1, "its axes"); len(axes) > 0 {
			return c.axes(axes, rank)
		}
	}
	if c.n.Int("noop_with_empty_axes", 0) != 0 {
		return nil
	}
	return c.axes(firstN(rank), rank)
}

func reduceShape(c *ctx) {
	s := slices.Clone(c.shape(0))
	over := c.reduced()
	for _, a := range over {
		s[a] = Known(1)
	}
	if c.n.Int("keepdims", 1) == 0 {
		kept := Shape{}
		for i, d := range s {
			if !slices.Contains(over, i) {
				kept = append(kept, d)
			}
		}
		s = kept
	}
	c.out(0, c.n.Inputs[0].Type, s)
	if in, ok := c.ints(0); ok && len(s) == 0 && c.n.Op == "ReduceProd" {
		c.holds([]Dim{Shape(in).Count()})
	}
}

// reduceKernel forms acc from start with f, over the elements along the reduced axes, and ends with what end makes of it
// and of their number n; nil for acc itself.
func reduceKernel(start float64, f func(acc, x float64) float64, end func(acc float64, n int) float64) func(*computation) []Array {
	return func(c *computation) []Array {
		x := c.in[0]
		over := c.reducedAxes(len(x.Dims))
		if over == nil {
			return one(x)
		}
		keep := slices.Clone(x.Dims)
		n := 1
		for _, a := range over {
			n *= keep[a]
			keep[a] = 1
		}
		out := zeros(x.Type, keep...)
		for i := range out.Data {
			if out.Data[i] = start; x.Type == Bool {
				out.Data[i] = math.Max(0, math.Min(1, start))
			}
		}
		step, i := strides(keep), 0
		eachIndex(x.Dims, func(at []int) {
			to := 0
			for j, p := range at {
				if keep[j] != 1 {
					to += p * step[j]
				}
			}
			out.Data[to] = f(out.Data[to], x.Data[i])
			i++
		})
		if end != nil {
			for i, acc := range out.Data {
				out.Data[i] = end(acc, n)
			}
		}
		if c.n.Int("keepdims", 1) == 0 {
			out.Dims = dropAxes(out.Dims, over)
		}
		return one(out)
	}
}

func plusSquare(acc, x float64) float64 { return acc + x*x }

func (c *computation) reducedAxes(rank int) []int {
	axes := c.ints(1, nil)
	if len(axes) == 0 {
		if c.n.Int("noop_with_empty_axes", 0) != 0 {
			return nil
		}
		for i := range rank {
			axes = append(axes, i)
		}
	}
	return inRange(axes, rank)
}

// kept gives a reduction's result back the axes that it dropped, as extent 1.
func (b *backward) kept(n *Node, v *Value) *Value {
	over := (&ctx{in: b.in, n: n}).reduced()
	if n.Int("keepdims", 1) != 0 || len(over) == 0 {
		return v
	}
	axes := make([]int64, len(over))
	for i, a := range over {
		axes[i] = int64(a)
	}
	return b.Op("Unsqueeze", nil, v, b.Ints(axes...))
}

// spread repeats v to the shape of the node's input.
func (b *backward) spread(n *Node, v *Value) *Value {
	return b.Op("Expand", nil, v, b.Op("Shape", nil, n.Inputs[0]))
}

func gradReduceMean(b *backward, n *Node) *Value { return b.spreadMean(n, b.kept(n, b.dy(n))) }

// spreadMean shares out the gradient dy of means, of which the node has made one from every so many
// elements of its input.
func (b *backward) spreadMean(n *Node, dy *Value) *Value {
	x := n.Inputs[0]
	if k, ok := x.Shape.Count().Div(n.Outputs[0].Shape.Count()).Int(); ok {
		return b.spread(n, b.Div(dy, b.Scalar(float64(k), x)))
	}
	ratio := b.Op("Div", nil, b.Op("Size", nil, x), b.Op("Size", nil, n.Outputs[0]))
	return b.spread(n, b.Div(dy, b.cast(ratio, x.Type)))
}

// gradReduceProd is the product of the other elements: that of all that are not zero, divided by the
// element, where no other element is zero.
func gradReduceProd(b *backward, n *Node) *Value {
	x := n.Inputs[0]
	axes := b.reducedAxes(n)
	zero := b.Op("Equal", nil, x, b.Scalar(0, x))
	rest := b.Op("Where", nil, zero, b.Scalar(1, x), x)
	product := b.Op("ReduceProd", Attrs{"keepdims": int64(1), "noop_with_empty_axes": int64(1)}, rest, b.Ints(axes...))
	zeros := b.cast(zero, x.Type)
	others := b.Sub(b.Sum(zeros, true, axes...), zeros)
	alone := b.cast(b.Op("Equal", nil, others, b.Scalar(0, x)), x.Type)
	return b.Mul(b.kept(n, b.dy(n)), b.Mul(b.Div(product, rest), alone))
}

// reducedAxes are the axes that a reduction goes over, none if it goes over none.
func (b *backward) reducedAxes(n *Node) []int64 {
	axes := []int64{}
	for _, a := range (&ctx{in: b.in, n: n}).reduced() {
		axes = append(axes, int64(a))
	}
	return axes
}

// gradReduceExtreme shares the gradient between the elements that are the extreme.
func gradReduceExtreme(b *backward, n *Node) *Value {
	x := n.Inputs[0]
	is := b.cast(b.Op("Equal", nil, x, b.kept(n, n.Outputs[0])), x.Type)
	return b.Mul(is, b.Div(b.kept(n, b.dy(n)), b.Sum(is, true, b.reducedAxes(n)...)))
}
