package graph

// part is the extent of v along one axis, when the graph runs: [1].
func (b *Builder) part(v *Value, axis int) *Value {
	return b.Op("Shape", Attrs{"start": int64(axis), "end": int64(axis + 1)}, v)
}

// blocks splits an image's axes for DepthToSpace and SpaceToDepth: x [B,C,H,W] is given the shape dims
// (0 copies), transposed, and given the shape of channels by rows by columns, where -1 is left to be found.
func (b *Builder) blocks(n *Node, x *Value, dims func(c, h, w *Value) []*Value, perm []int64, end func(c, h, w *Value) []*Value) []*Value {
	if len(x.Shape) != 4 {
		fail(n, "an operand of shape %s", x.Shape)
	}
	c, h, w := b.part(x, 1), b.part(x, 2), b.part(x, 3)
	join := func(parts []*Value) *Value { return b.Op("Concat", Attrs{"axis": int64(0)}, parts...) }
	y := b.Op("Reshape", nil, x, join(append([]*Value{b.part(x, 0)}, dims(c, h, w)...)))
	return []*Value{b.Op("Reshape", nil, b.Transpose(y, perm...), join(append([]*Value{b.part(x, 0)}, end(c, h, w)...)))}
}

// depthToSpace moves channels into blocks of rows and columns: as the first part of the channel's number
// (DCR), or as its last (CRD).
func depthToSpace(b *Builder, n *Node) []*Value {
	k, hole := b.Ints(n.Int("blocksize", 0)), b.Ints(-1)
	end := func(_, h, w *Value) []*Value { return []*Value{hole, b.Mul(h, k), b.Mul(w, k)} }
	if n.Str("mode", "DCR") == "CRD" {
		return b.blocks(n, n.Inputs[0], func(_, h, w *Value) []*Value { return []*Value{hole, k, k, h, w} }, []int64{0, 1, 4, 2, 5, 3}, end)
	}
	return b.blocks(n, n.Inputs[0], func(_, h, w *Value) []*Value { return []*Value{k, k, hole, h, w} }, []int64{0, 3, 4, 1, 5, 2}, end)
}

// spaceToDepth undoes depthToSpace of the same mode.
func spaceToDepth(b *Builder, n *Node) []*Value {
	k, hole := b.Ints(n.Int("blocksize", 0)), b.Ints(-1)
	perm := []int64{0, 3, 5, 1, 2, 4}
	if n.Str("mode", "DCR") == "CRD" {
		perm = []int64{0, 1, 3, 5, 2, 4}
	}
	return b.blocks(n, n.Inputs[0],
		func(c, h, w *Value) []*Value { return []*Value{c, b.Div(h, k), k, b.Div(w, k), k} }, perm,
		func(_, h, w *Value) []*Value { return []*Value{hole, b.Div(h, k), b.Div(w, k)} })
}

// lpPower is the sum of |x|^p as sum forms it, and its p-th root.
func (b *Builder) lpPower(x *Value, p float64, sum func(*Value) *Value) *Value {
	if p == 1 {
		return sum(b.Op("Abs", nil, x))
	}
	if p == 2 {
		return b.Op("Sqrt", nil, sum(b.Mul(x, x)))
	}
	return b.Op("Pow", nil, sum(b.Op("Pow", nil, b.Op("Abs", nil, x), b.Scalar(p, x))), b.Scalar(1/p, x))
}

// lpPool sums up as an average of all taps does, the padding's zeros among them.
func lpPool(b *Builder, n *Node) []*Value {
	at := convAttrs(n)
	kernel := n.Ints("kernel_shape")
	if n.Int("ceil_mode", 0) != 0 {
		fail(n, "ceil_mode")
	}
	at["count_include_pad"] = int64(1)
	delete(at, "group")
	return []*Value{b.lpPower(n.Inputs[0], float64(n.Int("p", 2)), func(x *Value) *Value {
		return b.Mul(b.Op("AveragePool", at, x), b.Scalar(float64(Count(kernel)), x))
	})}
}

// spatial reduces all axes behind batch and channels.
func (b *Builder) spatial(op string, x *Value) *Value {
	return b.Op(op, Attrs{"keepdims": int64(1)}, x, b.Ints(firstN(len(x.Shape))[2:]...))
}

func globalMaxPool(b *Builder, n *Node) []*Value {
	return []*Value{b.spatial("ReduceMax", n.Inputs[0])}
}

func globalLpPool(b *Builder, n *Node) []*Value {
	return []*Value{b.lpPower(n.Inputs[0], float64(n.Int("p", 2)), func(x *Value) *Value { return b.spatial("ReduceSum", x) })}
}

// localResponseNorm divides by (bias + alpha * mean of squares)^beta, the mean over size channels round
// about, those beyond the first and last counting as zeros.
func localResponseNorm(b *Builder, n *Node) []*Value {
	x, size := n.Inputs[0], n.Int("size", 1)
	alpha, beta, bias := float64(n.Float("alpha", 1e-4)), float64(n.Float("beta", 0.75)), float64(n.Float("bias", 1))
	before := (size - 1) / 2
	image := b.Op("Reshape", nil, b.Mul(x, x), b.Op("Concat", Attrs{"axis": int64(0)}, b.part(x, 0), b.Ints(1), b.part(x, 1), b.Ints(-1)))
	mean := b.Op("AveragePool", Attrs{"kernel_shape": []int64{size, 1}, "pads": []int64{before, 0, size - 1 - before, 0}, "count_include_pad": int64(1)}, image)
	mean = b.Op("Reshape", nil, mean, b.Op("Shape", nil, x))
	mean.Shape = x.Shape
	return []*Value{b.Div(x, b.Op("Pow", nil, b.Add(b.Mul(mean, b.Scalar(alpha, x)), b.Scalar(bias, x)), b.Scalar(beta, x)))}
}

// skipGroupNorm is com.microsoft SkipGroupNorm: group normalisation of input + skip (+ bias), which
// is output 1. A skip [B,C] is the same for all pixels.
func skipGroupNorm(b *Builder, n *Node) []*Value {
	x, skip := n.Inputs[0], n.Inputs[3]
	if len(skip.Shape) == 2 && len(x.Shape) == 4 {
		skip = b.Op("Unsqueeze", nil, skip, b.Ints(1, 2))
	}
	sum := b.Add(x, skip)
	if bias := n.Input(4); bias != nil {
		sum = b.Add(sum, bias)
	}
	m := *n
	m.Inputs = []*Value{sum, n.Inputs[1], n.Inputs[2]}
	return []*Value{channelsLastGroupNorm(b, &m)[0], sum}
}

// shrink moves what lies beyond lambd towards zero and makes the rest zero.
func shrink(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	bias, lambda := b.Scalar(float64(n.Float("bias", 0)), x), float64(n.Float("lambd", 0.5))
	y := b.Op("Where", nil, b.Op("Greater", nil, x, b.Scalar(lambda, x)), b.Sub(x, bias), b.Scalar(0, x))
	return []*Value{b.Op("Where", nil, b.Op("Less", nil, x, b.Scalar(-lambda, x)), b.Add(x, bias), y)}
}

func castLike(b *Builder, n *Node) []*Value {
	return []*Value{b.Op("Cast", Attrs{"to": int64(n.Inputs[1].Type)}, n.Inputs[0])}
}

// gemmFastGelu is com.microsoft GemmFastGelu: a product, an optional bias, and the tanh approximation.
func gemmFastGelu(b *Builder, n *Node) []*Value {
	m := *n
	m.Inputs = append([]*Value{b.MatMul(n.Inputs[0], n.Inputs[1])}, n.Inputs[2:]...)
	return fastGelu(b, &m)
}

// biasSoftmax is com.microsoft BiasSoftmax: the softmax of a sum over the axes from one on.
func biasSoftmax(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	if axis := axisOf(n, "axis", 1); axis != len(x.Shape)-1 || n.Int("is_inner_broadcast", 0) != 0 && len(n.Inputs[1].Shape) != len(x.Shape) {
		fail(n, "axes from %d on of an operand of shape %s", axis, x.Shape)
	}
	return []*Value{b.Op("Softmax", Attrs{"axis": int64(-1)}, b.Add(x, n.Inputs[1]))}
}

// renamed is an operator of another domain that the standard has by now.
func renamed(op string, attrs ...string) func(b *Builder, n *Node) []*Value {
	return func(b *Builder, n *Node) []*Value {
		at := Attrs{}
		for _, name := range attrs {
			if a, ok := n.Attrs[name]; ok {
				at[name] = a.Value
			}
		}
		return []*Value{b.Op(op, at, n.Inputs...)}
	}
}

// trainingNorm is BatchNormalization in training mode: with the batch's own statistics, and running ones that
// move towards them.
func trainingNorm(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	if n.Int("training_mode", 0) == 0 {
		fail(n, "running statistics: an operator of its own")
	}
	over, momentum := append([]int64{0}, firstN(len(x.Shape))[2:]...), float64(n.Float("momentum", 0.9))
	mean := b.Mean(x, true, over...)
	centred := b.Sub(x, mean)
	variance := b.Mean(b.Mul(centred, centred), true, over...)
	y := b.Div(centred, b.Op("Sqrt", nil, b.Add(variance, b.Scalar(float64(n.Float("epsilon", 1e-5)), x))))
	running := func(old, now *Value) *Value {
		now = b.Op("Reshape", nil, now, b.Ints(-1))
		return b.Add(b.Mul(old, b.Scalar(momentum, old)), b.Mul(now, b.Scalar(1-momentum, now)))
	}
	y = b.Add(b.Mul(y, b.perChannel(n.Inputs[1], x)), b.perChannel(n.Inputs[2], x))
	return []*Value{y, running(n.Inputs[3], mean), running(n.Inputs[4], variance)}
}
