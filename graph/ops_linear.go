package graph

import (
	"slices"
	"strings"
)

var _ = register(map[string]row{
	"MatMul":        {matmulShape, gradMatMul},
	"Gemm":          {gemmShape, gradGemm},
	"Conv":          {convShape, gradConv},
	"ConvTranspose": {convTransposeShape, nil},
	"MaxPool":       {poolShape, nil},
	"AveragePool":   {poolShape, nil},
})

func matmulShape(c *ctx) {
	a, b := c.shape(0), c.shape(1)
	if len(a) == 0 || len(b) == 0 {
		c.fail("operands %s and %s", a, b)
	}
	vectorA, vectorB := len(a) == 1, len(b) == 1
	if vectorA {
		a = Shape{Known(1), a[0]}
	}
	if vectorB {
		b = Shape{b[0], Known(1)}
	}
	c.either(a[len(a)-1], b[len(b)-2], b)
	out := c.broadcast(a[:len(a)-2], b[:len(b)-2])
	if !vectorA {
		out = append(out, a[len(a)-2])
	}
	if !vectorB {
		out = append(out, b[len(b)-1])
	}
	c.out(0, c.n.Inputs[0].Type, out)
}

// gradMatMul: dA = dY B', dB = A' dY, summed over broadcast axes. A vector is a matrix of one
// row, or as the second operand of one column.
func gradMatMul(b *backward, n *Node) {
	x, y, dy := n.Inputs[0], n.Inputs[1], b.dy(n)
	column := len(y.Shape) == 1
	if column {
		y, dy = b.Op("Unsqueeze", nil, y, b.Ints(1)), b.Op("Unsqueeze", nil, dy, b.Ints(-1))
	}
	if len(x.Shape) == 1 {
		x, dy = b.Op("Unsqueeze", nil, x, b.Ints(0)), b.Op("Unsqueeze", nil, dy, b.Ints(-2))
	}
	if b.wants(n, 0) {
		b.give(n, 0, b.MatMul(dy, b.transposed(y)))
	}
	switch {
	case !b.wants(n, 1):
		return
	case column:
		b.give(n, 1, b.Op("Squeeze", nil, b.MatMul(b.SwapLast(x), dy), b.Ints(-1)))
		return
	}
	if len(y.Shape) == 2 && len(x.Shape) > 2 {
		// One weight for all rows: one product over all of them, not a sum of many.
		rows := func(v *Value) *Value { return b.Op("Flatten", Attrs{"axis": int64(len(v.Shape) - 1)}, v) }
		b.give(n, 1, b.MatMul(b.SwapLast(rows(x)), rows(dy)))
		return
	}
	b.give(n, 1, b.MatMul(b.SwapLast(x), dy))
}

// transposed swaps the last two axes, undoing a Transpose that was only made for the product.
func (b *Builder) transposed(y *Value) *Value {
	if d := y.Def; d != nil && d.Op == "Transpose" {
		perm := permutation(d, len(y.Shape))
		k := len(perm)
		swap := firstN(k)
		swap[k-1], swap[k-2] = swap[k-2], swap[k-1]
		if slices.Equal(perm, swap) {
			return d.Inputs[0]
		}
	}
	return b.SwapLast(y)
}

func gemmShape(c *ctx) {
	a, b := c.shape(0), c.shape(1)
	if len(a) != 2 || len(b) != 2 {
		c.fail("operands %s and %s", a, b)
	}
	rows, cols := a[0], b[1]
	if c.n.Int("transA", 0) != 0 {
		rows = a[1]
	}
	if c.n.Int("transB", 0) != 0 {
		cols = b[0]
	}
	c.out(0, c.n.Inputs[0].Type, Shape{rows, cols})
}

// gradGemm: Y = alpha op(A) op(B) + beta C.
func gradGemm(b *backward, n *Node) {
	alpha, tA, tB := n.Float("alpha", 1), n.Int("transA", 0), n.Int("transB", 0)
	x, y, dy := n.Inputs[0], n.Inputs[1], b.dy(n)
	gemm := func(p, q *Value, tp, tq int64) *Value {
		return b.Op("Gemm", Attrs{"alpha": alpha, "transA": tp, "transB": tq}, p, q)
	}
	if b.wants(n, 0) {
		if tA == 0 {
			b.give(n, 0, gemm(dy, y, 0, 1-tB))
		} else {
			b.give(n, 0, gemm(y, dy, tB, 1))
		}
	}
	if b.wants(n, 1) {
		if tB == 0 {
			b.give(n, 1, gemm(x, dy, 1-tA, 0))
		} else {
			b.give(n, 1, gemm(dy, x, 1, tA))
		}
	}
	if b.wants(n, 2) {
		b.give(n, 2, b.Mul(dy, b.Scalar(float64(n.Float("beta", 1)), dy)))
	}
}

// conv reads a convolution's attributes with their defaults written out.
type conv struct {
	kernel           []int64
	strides, dilates []int64
	pads             []int64 // begins, then ends
	group            int64
}

func readConv(n *Node) conv {
	w := n.Inputs[1].Shape
	c := readWindow(n, len(w)-2)
	if c.kernel == nil {
		k, ok := w[2:].Ints()
		if !ok {
			fail(n, "the kernel's extents %s depend on the run", w)
		}
		c.kernel = k
	}
	if auto := n.Str("auto_pad", "NOTSET"); auto != "NOTSET" && auto != "VALID" {
		c.padSame(n, auto == "SAME_LOWER")
	}
	return c
}

// readWindow reads what convolutions and pooling have in common.
func readWindow(n *Node, spatial int) conv {
	c := conv{n.Ints("kernel_shape"), n.Ints("strides"), n.Ints("dilations"), n.Ints("pads"), n.Int("group", 1)}
	ones := make([]int64, spatial)
	for i := range ones {
		ones[i] = 1
	}
	if c.strides == nil {
		c.strides = ones
	}
	if c.dilates == nil {
		c.dilates = ones
	}
	if c.pads == nil {
		c.pads = make([]int64, 2*spatial)
	}
	return c
}

// padSame works out the padding with which an axis shrinks by its stride and no more. An
// odd row goes to the end, or to the front where lower is set.
func (c *conv) padSame(n *Node, lower bool) {
	c.pads = make([]int64, 2*len(c.kernel))
	for i, k := range c.kernel {
		extent, ok := n.Inputs[0].Shape[2+i].Int()
		if !ok {
			fail(n, "auto_pad %q with an input of %s", n.Str("auto_pad", ""), n.Inputs[0].Shape)
		}
		out := (extent + c.strides[i] - 1) / c.strides[i]
		total := max(0, (out-1)*c.strides[i]+c.dilates[i]*(k-1)+1-extent)
		front := total / 2
		if lower {
			front = total - front
		}
		c.pads[i], c.pads[len(c.kernel)+i] = front, total-front
	}
}

func convShape(c *ctx) {
	x, w := c.shape(0), c.shape(1)
	if len(x) != len(w) || len(x) < 3 {
		c.fail("operands %s and %s", x, w)
	}
	v := readConv(c.n)
	out := Shape{x[0], w[0]}
	for i := range v.kernel {
		out = append(out, v.places(x[2+i], i, false))
	}
	c.out(0, c.n.Inputs[0].Type, out)
}

// places is how often the kernel fits along a spatial axis. Rounded up, a place that would
// begin in the padding at the end does not count.
func (v conv) places(extent Dim, axis int, up bool) Dim {
	span := v.dilates[axis]*(v.kernel[axis]-1) + 1
	free := extent.Add(Known(v.pads[axis] + v.pads[len(v.kernel)+axis] - span))
	if !up {
		return free.Div(Known(v.strides[axis])).Add(Known(1))
	}
	out := free.Add(Known(v.strides[axis] - 1)).Div(Known(v.strides[axis])).Add(Known(1))
	n, ok1 := extent.Int()
	count, ok2 := out.Int()
	if ok1 && ok2 && (count-1)*v.strides[axis] >= n+v.pads[axis] {
		return Known(count - 1)
	}
	return out
}

// poolShape is a convolution's, channel by channel.
func poolShape(c *ctx) {
	x := c.shape(0)
	spatial := len(c.n.Ints("kernel_shape"))
	if len(x) != spatial+2 || spatial == 0 {
		c.fail("kernel %v for an operand of %s", c.n.Ints("kernel_shape"), x)
	}
	v := readWindow(c.n, spatial)
	if auto := c.n.Str("auto_pad", "NOTSET"); auto != "NOTSET" && auto != "VALID" {
		v.padSame(c.n, auto == "SAME_LOWER")
	}
	out := Shape{x[0], x[1]}
	for i := range v.kernel {
		out = append(out, v.places(x[2+i], i, c.n.Int("ceil_mode", 0) != 0))
	}
	c.out(0, c.n.Inputs[0].Type, out)
	c.out(1, Int64, out)
}

func convTransposeShape(c *ctx) {
	x, w := c.shape(0), c.shape(1)
	v, extra, fixed := readWindow(c.n, len(w)-2), c.n.Ints("output_padding"), c.n.Ints("output_shape")
	same := strings.HasPrefix(c.n.Str("auto_pad", "NOTSET"), "SAME")
	kernel, ok := w[2:].Ints()
	if !ok {
		c.fail("the kernel's extents %s depend on the run", w)
	}
	out := Shape{x[0], w[1].Mul(Known(v.group))}
	for i, k := range kernel {
		switch {
		case fixed != nil:
			out = append(out, Known(fixed[len(fixed)-len(kernel)+i]))
			continue
		case same:
			out = append(out, x[2+i].Mul(Known(v.strides[i])))
			continue
		}
		d := x[2+i].Sub(Known(1)).Mul(Known(v.strides[i])).Add(Known(v.dilates[i]*(k-1) + 1 - v.pads[i] - v.pads[len(kernel)+i]))
		if extra != nil {
			d = d.Add(Known(extra[i]))
		}
		out = append(out, d)
	}
	c.out(0, c.n.Inputs[0].Type, out)
}

// gradConv: the input's gradient is the transposed convolution with the same weights; where
// strides left rows over at the end, they are padded on again. The bias gets the sum.
func gradConv(b *backward, n *Node) {
	dy := b.dy(n)
	if b.wants(n, 1) {
		fail(n, "gradients of its weights")
	}
	if b.wants(n, 2) {
		axes := []int64{0}
		for i := 2; i < len(dy.Shape); i++ {
			axes = append(axes, int64(i))
		}
		b.accumulate(n.Inputs[2], b.Sum(dy, false, axes...))
	}
	if !b.wants(n, 0) {
		return
	}
	v := readConv(n)
	extra, overhang := make([]int64, len(v.kernel)), false
	for i, k := range v.kernel {
		span := v.dilates[i]*(k-1) + 1
		padded, ok := n.Inputs[0].Shape[2+i].Add(Known(v.pads[i] + v.pads[len(v.kernel)+i])).Int()
		if ok {
			extra[i] = (padded - span) % v.strides[i]
		} else {
			// The run decides how many rows were left over; none has more than this.
			extra[i] = v.strides[i] - 1
			overhang = overhang || extra[i] > 0
		}
	}
	dx := b.Op("ConvTranspose", Attrs{
		"strides": v.strides, "dilations": v.dilates, "pads": v.pads, "group": v.group, "kernel_shape": v.kernel, "output_padding": extra,
	}, dy, n.Inputs[1])
	if overhang {
		axes := firstN(len(v.kernel) + 2)[2:]
		ends := b.Op("Shape", Attrs{"start": int64(2)}, n.Inputs[0])
		dx = b.Op("Slice", nil, dx, b.Ints(make([]int64, len(axes))...), ends, b.Ints(axes...))
	}
	dx.Shape = n.Inputs[0].Shape
	b.give(n, 0, dx)
}
