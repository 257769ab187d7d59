package graph

import "slices"

var _ = register(map[string]row{
	"Resize": {resizeShape, chain(gradResize)},
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

// gradResize serves the growth by whole factors to the nearest neighbour, which repeats each
// element: its gradient is the sum over the copies.
func gradResize(b *backward, n *Node) *Value {
	x, y := n.Inputs[0], n.Outputs[0]
	if n.Str("mode", "nearest") != "nearest" {
		fail(n, "mode %q", n.Str("mode", ""))
	}
	if at := n.Str("coordinate_transformation_mode", "half_pixel") + " " + n.Str("nearest_mode", "round_prefer_floor"); !copiesInPlace[at] {
		fail(n, "coordinate_transformation_mode and nearest_mode %q", at)
	}
	var parts []*Value
	var copies []int64
	for i, d := range x.Shape {
		times, ok := y.Shape[i].exact(d)
		k, fixed := times.Int()
		if !ok || !fixed {
			fail(n, "it grows %s to %s, not by a whole factor", d, y.Shape[i])
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
