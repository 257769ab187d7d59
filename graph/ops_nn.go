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

func softmaxKernel(c *computation) []Array {
	x := c.in[0]
	outer, n, inner := x.split(c.axis("axis", -1, len(x.Dims)))
	out := zeros(x.Type, x.Dims...)
	for o := range outer {
		for i := range inner {
			at := func(k int) int { return (o*n+k)*inner + i }
			top, sum := math.Inf(-1), 0.0
			for k := range n {
				top = math.Max(top, x.Data[at(k)])
			}
			for k := range n {
				e := math.Exp(x.Data[at(k)] - top)
				out.Data[at(k)] = e
				sum += e
			}
			for k := range n {
				out.Data[at(k)] /= sum
			}
		}
	}
	return one(out)
}

// gradLogSoftmax: dy - softmax * sum(dy).
func gradLogSoftmax(b *backward, n *Node) *Value {
	dy := b.widened(b.dy(n))
	return b.Sub(dy, b.Mul(b.Op("Exp", nil, b.widened(n.Outputs[0])), b.Sum(dy, true, n.Int("axis", -1))))
}

func logSoftmaxKernel(c *computation) []Array { return one(apply(softmaxKernel(c)[0], math.Log)) }

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

func layerNormKernel(c *computation) []Array {
	x := c.in[0]
	axis := c.axis("axis", -1, len(x.Dims))
	epsilon := float64(c.n.Float("epsilon", 1e-5))
	rows, n := Count(x.Dims[:axis]), Count(x.Dims[axis:])
	stat := slices.Clone(x.Dims)
	for i := axis; i < len(stat); i++ {
		stat[i] = 1
	}
	out, means, rs := zeros(x.Type, x.Dims...), zeros(Float, stat...), zeros(Float, stat...)
	for r := range rows {
		row := x.Data[r*n : (r+1)*n]
		mean, variance := 0.0, 0.0
		for _, v := range row {
			mean += v / float64(n)
		}
		for _, v := range row {
			variance += (v - mean) * (v - mean) / float64(n)
		}
		inverse := 1 / math.Sqrt(variance+epsilon)
		means.Data[r], rs.Data[r] = mean, inverse
		for i, v := range row {
			y := (v - mean) * inverse * c.in[1].Data[i]
			if c.has(2) {
				y += c.in[2].Data[i]
			}
			out.Data[r*n+i] = y
		}
	}
	return []Array{out, means, rs}
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

// batchNormKernel normalises each channel by its running mean and variance.
func batchNormKernel(c *computation) []Array {
	x := c.in[0]
	scale, bias, mean, variance := c.in[1].Data, c.in[2].Data, c.in[3].Data, c.in[4].Data
	epsilon := float64(c.n.Float("epsilon", 1e-5))
	_, channels, inner := x.split(1)
	out := zeros(x.Type, x.Dims...)
	for i, v := range x.Data {
		k := i / inner % channels
		out.Data[i] = (v-mean[k])/math.Sqrt(variance[k]+epsilon)*scale[k] + bias[k]
	}
	return one(out)
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

func geluKernel(c *computation) []Array {
	if c.n.Str("approximate", "none") == "tanh" {
		return one(apply(c.in[0], func(x float64) float64 {
			return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
		}))
	}
	return one(apply(c.in[0], func(x float64) float64 { return x / 2 * (1 + math.Erf(x/math.Sqrt2)) }))
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

func globalAveragePoolKernel(c *computation) []Array {
	x := c.in[0]
	dims := slices.Clone(x.Dims)
	for i := 2; i < len(dims); i++ {
		dims[i] = 1
	}
	out, area := zeros(x.Type, dims...), Count(x.Dims[2:])
	for i, v := range x.Data {
		out.Data[i/area] += v / float64(area)
	}
	return one(out)
}
