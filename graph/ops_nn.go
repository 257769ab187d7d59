package graph

import (
	"math"
	"slices"
)

var _ = register(map[string]row{
	"Softmax":            {unary, chain(gradSoftmax), softmaxKernel},
	"LogSoftmax":         {unary, chain(gradLogSoftmax), logSoftmaxKernel},
	"LayerNormalization": {layerNormShape, gradLayerNorm, layerNormKernel},
	"Gelu":               {unary, chain(gradGelu), geluKernel},
	"GlobalAveragePool":  {globalPoolShape, chain(gradGlobalAveragePool), globalAveragePoolKernel},
	"BatchNormalization": {unary, gradBatchNorm, batchNormKernel},
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

// gradSoftmax: y * (dy - sum(dy * y)); finite also where masked scores are -inf. A row of -inf alone is no numbers;
// where the graph guards against that, no gradient comes to it and none leaves it.
func gradSoftmax(b *backward, n *Node) *Value {
	y, dy := b.widened(n.Outputs[0]), b.widened(b.dy(n))
	if b.guarded[n.Outputs[0]] {
		y = b.Op("Where", nil, b.Op("IsNaN", nil, y), b.Scalar(0, y), y)
	}
	return b.Mul(y, b.Sub(dy, b.Sum(b.Mul(dy, y), true, n.Int("axis", -1))))
}

// gradLogSoftmax: dy - softmax * sum(dy).
func gradLogSoftmax(b *backward, n *Node) *Value {
	dy := b.widened(b.dy(n))
	return b.Sub(dy, b.Mul(b.Op("Exp", nil, b.widened(n.Outputs[0])), b.Sum(dy, true, n.Int("axis", -1))))
}

func layerNormShape(c *ctx) {
	c.same()
	s := slices.Clone(c.shape(0))
	for i := c.axis(c.n.Int("axis", -1), len(s)); i < len(s); i++ {
		s[i] = Known(1)
	}
	c.out(1, Float, s)
	c.out(2, Float, s)
}

// gradLayerNorm: with x^ the normalised input, r one over the deviation and g = dy * scale,
// dx = r * (g - mean(g) - x^ * mean(g * x^)), means over the normalised axes. The forward
// node's own mean and r are used.
func gradLayerNorm(b *backward, n *Node) {
	x, scale, dy := b.widened(n.Inputs[0]), b.widened(n.Inputs[1]), b.widened(b.dy(n))
	axis := axisOf(n, "axis", -1)
	var over, before []int64
	for i := range x.Shape {
		if i >= axis {
			over = append(over, int64(i))
		} else {
			before = append(before, int64(i))
		}
	}
	b.nameOutputs(n, 3)
	mean, r := b.cast(n.Outputs[1], x.Type), b.cast(n.Outputs[2], x.Type)
	hat := b.Mul(b.Sub(x, mean), r)
	if b.wants(n, 0) {
		g := b.Mul(dy, scale)
		dx := b.Sub(b.Sub(g, b.Mean(g, true, over...)), b.Mul(hat, b.Mean(b.Mul(g, hat), true, over...)))
		b.give(n, 0, b.Mul(dx, r))
	}
	if b.wants(n, 1) {
		b.accumulate(n.Inputs[1], b.Sum(b.Mul(dy, hat), false, before...))
	}
	if b.wants(n, 2) {
		b.accumulate(n.Inputs[2], b.Sum(dy, false, before...))
	}
}

// gradBatchNorm: y = (x - mean) / sqrt(variance + epsilon) * scale + bias, channel by channel,
// with the running statistics, which get no gradient.
func gradBatchNorm(b *backward, n *Node) {
	if b.wants(n, 3) || b.wants(n, 4) {
		fail(n, "gradients of its statistics")
	}
	x, dy := b.widened(n.Inputs[0]), b.widened(b.dy(n))
	scale, mean, variance := b.widened(n.Inputs[1]), b.widened(n.Inputs[3]), b.widened(n.Inputs[4])
	deviation := b.Op("Sqrt", nil, b.Add(variance, b.Scalar(float64(n.Float("epsilon", 1e-5)), x)))
	over := append([]int64{0}, firstN(len(x.Shape))[2:]...)
	if b.wants(n, 0) {
		b.give(n, 0, b.Mul(dy, b.perChannel(b.Div(scale, deviation), x)))
	}
	if b.wants(n, 1) {
		hat := b.Div(b.Sub(x, b.perChannel(mean, x)), b.perChannel(deviation, x))
		b.accumulate(n.Inputs[1], b.Sum(b.Mul(dy, hat), false, over...))
	}
	if b.wants(n, 2) {
		b.accumulate(n.Inputs[2], b.Sum(dy, false, over...))
	}
}

// gradGelu: exact, Phi(x) + x phi(x); or the tanh approximation's derivative.
func gradGelu(b *backward, n *Node) *Value {
	x := n.Inputs[0]
	k := func(v float64) *Value { return b.Scalar(v, x) }
	if n.Str("approximate", "none") == "tanh" {
		c := math.Sqrt(2 / math.Pi)
		square := b.Mul(x, x)
		t := b.Op("Tanh", nil, b.Mul(b.Mul(x, k(c)), b.Add(k(1), b.Mul(square, k(0.044715)))))
		slope := b.Mul(k(c), b.Add(k(1), b.Mul(square, k(3*0.044715))))
		left := b.Mul(k(0.5), b.Add(k(1), t))
		right := b.Mul(b.Mul(b.Mul(x, k(0.5)), b.Sub(k(1), b.Mul(t, t))), slope)
		return b.Mul(b.dy(n), b.Add(left, right))
	}
	phi := b.Mul(k(1/math.Sqrt(2*math.Pi)), b.Op("Exp", nil, b.Mul(k(-0.5), b.Mul(x, x))))
	cdf := b.Mul(k(0.5), b.Add(k(1), b.Op("Erf", nil, b.Mul(x, k(1/math.Sqrt2)))))
	return b.Mul(b.dy(n), b.Add(cdf, b.Mul(x, phi)))
}

func globalPoolShape(c *ctx) {
	s := slices.Clone(c.shape(0))
	for i := 2; i < len(s); i++ {
		s[i] = Known(1)
	}
	c.out(0, c.n.Inputs[0].Type, s)
}

// gradGlobalAveragePool is ReduceMean's over all axes behind batch and channels.
func gradGlobalAveragePool(b *backward, n *Node) *Value { return b.spreadMean(n, b.dy(n)) }

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
