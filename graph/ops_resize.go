package graph

import (
	"math"
	"slices"
)

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

// resizeKernel evaluates Resize one axis after the other: each output element is a weighted sum of
// a few input elements along the axis. All modes are such products.
func resizeKernel(c *computation) []Array {
	a := c.in[0]
	axes := c.attrInts("axes")
	if axes == nil {
		for i := range a.Dims {
			axes = append(axes, i)
		}
	}
	axes = inRange(axes, len(a.Dims))
	sizes := c.fitted(c.ints(3, nil), axes)
	for i, axis := range axes {
		in := a.Dims[axis]
		var out int
		var scale float64
		if len(sizes) > 0 {
			out = sizes[i]
			scale = float64(out) / float64(in)
		} else {
			scale = c.in[2].Data[i]
			out = int(math.Floor(float64(in) * scale))
		}
		if out != in || scale != 1 || c.crops() {
			a = a.resample(axis, c.taps(in, out, scale, c.region(i, len(axes))), float64(c.n.Float("extrapolation_value", 0)))
		}
	}
	return []Array{a}
}

// fitted changes the sizes so that all axes grow by one factor, where the node wants that.
func (c *computation) fitted(sizes, axes []int) []int {
	policy := c.n.Str("keep_aspect_ratio_policy", "stretch")
	if policy == "stretch" || len(sizes) == 0 {
		return sizes
	}
	pick, scale := math.Min, math.Inf(1)
	if policy == "not_smaller" {
		pick, scale = math.Max, 0
	}
	for i, axis := range axes {
		scale = pick(scale, float64(sizes[i])/float64(c.in[0].Dims[axis]))
	}
	out := make([]int, len(sizes))
	for i, axis := range axes {
		out[i] = int(math.Round(scale * float64(c.in[0].Dims[axis])))
	}
	return out
}

// tap is one input element's share in an output element.
type tap struct {
	from   int
	weight float64
}

// crops says whether the node cuts a region out of its input.
func (c *computation) crops() bool {
	return c.n.Str("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
}

// region is the part of an axis, from 0 to 1, that is cut out: starts come first, then ends.
func (c *computation) region(i, axes int) [2]float64 {
	if !c.crops() {
		return [2]float64{0, 1}
	}
	return [2]float64{c.in[1].Data[i], c.in[1].Data[axes+i]}
}

// taps lists the shares for each output position along an axis; none where it lies outside.
func (c *computation) taps(in, out int, scale float64, region [2]float64) [][]tap {
	list := make([][]tap, out)
	for i := range list {
		x := c.coordinate(float64(i), in, out, scale, region)
		if c.crops() && (x < 0 || x > float64(in-1)) {
			continue
		}
		for _, t := range c.around(x, scale) {
			if outside := t.from < 0 || t.from >= in; outside && c.n.Int("exclude_outside", 0) != 0 {
				continue
			}
			t.from = max(0, min(in-1, t.from))
			list[i] = append(list[i], t)
		}
		normalize(list[i])
	}
	return list
}

// normalize makes the shares add up to one, as they do unless some lie outside.
func normalize(taps []tap) {
	sum := 0.0
	for _, t := range taps {
		sum += t.weight
	}
	for i := range taps {
		taps[i].weight /= sum
	}
}

// coordinate is where output position i lies on the input axis.
func (c *computation) coordinate(i float64, in, out int, scale float64, region [2]float64) float64 {
	switch mode := c.n.Str("coordinate_transformation_mode", "half_pixel"); mode {
	case "tf_crop_and_resize":
		start, length := region[0]*float64(in-1), (region[1]-region[0])*float64(in-1)
		if out == 1 {
			return start + length/2
		}
		return start + i*length/float64(out-1)
	case "asymmetric":
		return i / scale
	case "align_corners":
		if out == 1 {
			return 0
		}
		return i * float64(in-1) / float64(out-1)
	case "pytorch_half_pixel":
		if out == 1 {
			return 0
		}
		return (i+0.5)/scale - 0.5
	case "half_pixel":
		return (i+0.5)/scale - 0.5
	case "half_pixel_symmetric":
		adjustment := float64(out) / (scale * float64(in))
		return float64(in)/2*(1-adjustment) + (i+0.5)/scale - 0.5
	default:
		panic(unfit("coordinate mode %s is not interpreted", mode))
	}
}

// around lists the elements next to x with their weights, which fall off with the distance: up to 1 or 2
// elements, or where an antialiased axis shrinks, so many elements of the output.
func (c *computation) around(x, scale float64) []tap {
	low := math.Floor(x)
	i, t := int(low), x-low
	unit := 1.0
	if c.n.Int("antialias", 0) != 0 {
		unit = math.Min(1, scale)
	}
	a := float64(c.n.Float("cubic_coeff_a", -0.75))
	switch c.n.Str("mode", "nearest") {
	case "linear":
		return tapsWithin(i, t, unit, 1, func(d float64) float64 { return 1 - d })
	case "cubic":
		return tapsWithin(i, t, unit, 2, func(d float64) float64 {
			if d <= 1 {
				return ((a+2)*d-(a+3))*d*d + 1
			}
			return ((a*d-5*a)*d+8*a)*d - 4*a
		})
	}
	switch c.n.Str("nearest_mode", "round_prefer_floor") {
	case "floor":
		return []tap{{i, 1}}
	case "ceil":
		return []tap{{int(math.Ceil(x)), 1}}
	case "round_prefer_ceil":
		return []tap{{int(math.Floor(x + 0.5)), 1}}
	}
	return []tap{{int(math.Ceil(x - 0.5)), 1}}
}

// tapsWithin weighs the elements around i+t whose distance, times unit, is at most reach.
func tapsWithin(i int, t, unit, reach float64, weight func(distance float64) float64) (taps []tap) {
	for k := int(math.Ceil(t - reach/unit)); float64(k) <= t+reach/unit; k++ {
		if d := math.Abs(float64(k)-t) * unit; d < reach {
			taps = append(taps, tap{i + k, weight(d)})
		}
	}
	return taps
}

// resample sums up the taps along an axis, and puts outside where there are none.
func (a Array) resample(axis int, taps [][]tap, outside float64) Array {
	dims := append([]int{}, a.Dims...)
	dims[axis] = len(taps)
	out := zeros(a.Type, dims...)
	inner := 1
	for _, d := range a.Dims[axis+1:] {
		inner *= d
	}
	for i := range out.Data {
		row := i / inner
		start := row / len(taps) * a.Dims[axis]
		if taps[row%len(taps)] == nil {
			out.Data[i] = outside
		}
		for _, t := range taps[row%len(taps)] {
			out.Data[i] += t.weight * a.Data[(start+t.from)*inner+i%inner]
		}
	}
	return out
}
