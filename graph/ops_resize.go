package graph

import "slices"

var _ = register(map[string]row{
	"Resize": {resizeShape, chain(gradResize), resizeKernel},
})

// resizeAxes are the axes that a Resize's sizes or scales are about.
func (c *ctx) resizeAxes() []int {
	axes := c.n.Ints("axes")
	if axes == nil {
		axes = firstN(c.rank(0))
	}
	return c.axes(axes, c.rank(0))
}

// resizeShape: sizes say the extents, or scales by how much they grow.
func resizeShape(c *ctx) {
	s, axes := slices.Clone(c.shape(0)), c.resizeAxes()
	sizes, bySizes := c.ints(3)
	bySizes = bySizes && c.n.Str("keep_aspect_ratio_policy", "stretch") == "stretch"
	scales, byScales := c.scales()
	for i, a := range axes {
		switch {
		case bySizes && i < len(sizes):
			s[a] = sizes[i]
		case byScales && i < len(scales):
			s[a] = scaled(c, s[a], scales[i])
		default:
			s[a] = c.in.symbol(c.n)
		}
	}
	c.out(0, c.n.Inputs[0].Type, s)
}

// scales reads the constant scales, false when there are none or a run decides them.
func (c *ctx) scales() ([]float32, bool) {
	v := c.n.Input(2)
	if v == nil || v.Const == nil || v.Const.Len() == 0 {
		return nil, false
	}
	f, err := Float32s(v.Const)
	return f, err == nil
}

func scaled(c *ctx, d Dim, by float32) Dim {
	if n, ok := d.Int(); ok {
		return Known(int64(float64(n) * float64(by)))
	}
	if whole := int64(by); float32(whole) == by {
		return d.Mul(Known(whole))
	}
	return c.in.symbol(c.n)
}

// copiesInPlace lists the ways to the nearest neighbour that put an element's copies side by
// side where it stood, when an axis grows by a whole factor.
var copiesInPlace = set("asymmetric floor", "half_pixel round_prefer_floor", "half_pixel round_prefer_ceil",
	"pytorch_half_pixel round_prefer_floor", "pytorch_half_pixel round_prefer_ceil")

// gradResize: growth by whole factors to the nearest neighbour repeats each element, and its
// gradient is the sum over the copies. All other ways are products with a matrix for each axis.
func gradResize(b *backward, n *Node) *Value {
	at := n.Str("coordinate_transformation_mode", "half_pixel") + " " + n.Str("nearest_mode", "round_prefer_floor")
	if n.Str("mode", "nearest") == "nearest" && copiesInPlace[at] {
		if dx := b.sumCopies(n); dx != nil {
			return dx
		}
	}
	dx, x, y := b.dy(n), n.Inputs[0], n.Outputs[0]
	for i, axis := range (&ctx{in: b.in, n: n}).resizeAxes() {
		if !x.Shape[axis].Equal(y.Shape[axis]) {
			dx = b.alongAxis(dx, b.resizeMatrix(n, i, axis), axis)
		}
	}
	return dx
}

// sumCopies adds up the copies of each element; nil where an axis does not grow by a whole factor.
func (b *backward) sumCopies(n *Node) *Value {
	x, y := n.Inputs[0], n.Outputs[0]
	var parts []*Value
	var copies []int64
	for i, d := range x.Shape {
		times, ok := y.Shape[i].exact(d)
		k, fixed := times.Int()
		if !ok || !fixed {
			return nil
		}
		parts = append(parts, b.Op("Shape", Attrs{"start": int64(i), "end": int64(i + 1)}, x))
		if k > 1 {
			copies = append(copies, int64(len(parts)))
			parts = append(parts, b.Ints(k))
		}
	}
	if len(copies) == 0 {
		return b.dy(n)
	}
	apart := b.Op("Reshape", nil, b.dy(n), b.Op("Concat", Attrs{"axis": int64(0)}, parts...))
	return b.Sum(apart, false, copies...)
}

// resizeMatrix is the matrix [out,in] by which the node resizes the axis, which is the i-th of its
// axes: what it makes of the identity.
func (b *backward) resizeMatrix(n *Node, i, axis int) *Value {
	x := n.Inputs[0]
	in, ok := x.Shape[axis].Int()
	if !ok {
		fail(n, "it resizes extent %s, which depends on the run", x.Shape[axis])
	}
	if n.Str("keep_aspect_ratio_policy", "stretch") != "stretch" || n.Str("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize" {
		fail(n, "its policy or crop")
	}
	at := Attrs{}
	for name, a := range n.Attrs {
		if name != "axes" {
			at[name] = a.Value
		}
	}
	identity := make([]float32, in*in)
	for k := range in {
		identity[k*in+k] = 1
	}
	c := &ctx{in: b.in, n: n}
	eye, scales, sizes := b.Const(NewTensor(identity, in, in)), (*Value)(nil), (*Value)(nil)
	if by, ok := c.scales(); ok {
		scales = b.Const(NewTensor([]float32{by[i], 1}, 2))
	} else if out, ok := n.Outputs[0].Shape[axis].Int(); ok {
		sizes = b.Ints(out, in)
	} else {
		fail(n, "the extents it gives depend on the run")
	}
	return b.cast(b.Op("Resize", at, eye, nil, scales, sizes), x.Type)
}

// alongAxis multiplies x by the matrix along an axis.
func (b *Builder) alongAxis(x, matrix *Value, axis int) *Value {
	swap := firstN(len(x.Shape))
	last := len(swap) - 1
	swap[axis], swap[last] = swap[last], swap[axis]
	return b.Transpose(b.MatMul(b.Transpose(x, swap...), matrix), swap...)
}
