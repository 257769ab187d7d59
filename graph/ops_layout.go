package graph

import (
	"math"
	"slices"
)

var _ = register(map[string]row{
	"Reshape":   {reshapeShape, chain(func(b *backward, n *Node) *Value { return b.likeInput(n) }), reshapeKernel},
	"Flatten":   {flattenShape, chain(func(b *backward, n *Node) *Value { return b.likeInput(n) }), flattenKernel},
	"Squeeze":   {squeezeShape, chain(func(b *backward, n *Node) *Value { return b.likeInput(n) }), squeezeKernel},
	"Unsqueeze": {unsqueezeShape, chain(func(b *backward, n *Node) *Value { return b.likeInput(n) }), unsqueezeKernel},
	"Transpose": {transposeShape, chain(gradTranspose), transposeKernel},
	"Concat":    {concatShape, gradConcat, concatKernel},
	"Split":     {splitShape, gradSplit, splitKernel},
	"Slice":     {sliceShape, chain(gradSlice), sliceKernel},
	"Pad":       {padShape, chain(gradPad), padKernel},
	"Expand":    {expandShape, func(b *backward, n *Node) { b.give(n, 0, b.dy(n)) }, expandKernel},
	"Tile":      {tileShape, chain(gradTile), tileKernel},
	"Range":     {rangeShape, nil, rangeKernel},
	"Trilu":     {unary, chain(gradTrilu), triluKernel},
})

// What only looks at a shape.
var _ = registerFlat(map[string]row{
	"Shape":           {shapeShape, nil, shapeKernel},
	"Size":            {sizeShape, nil, sizeKernel},
	"ConstantOfShape": {constantOfShape, nil, constantOfShapeKernel},
})

// likeInput gives the gradient of a node that only rearranges the shape the input's shape.
func (b *backward) likeInput(n *Node) *Value {
	return b.Reshape(b.dy(n), n.Inputs[0].Shape, n.Inputs[0])
}

// keep passes on contents through a node that only rearranges a small tensor's shape.
func (c *ctx) keep() {
	if ds, ok := c.ints(0); ok && len(c.n.Outputs[0].Shape) <= 1 {
		c.holds(ds)
	}
}

func reshapeShape(c *ctx) {
	in := c.shape(0)
	target, ok := c.ints(1)
	if !ok {
		c.out(0, c.n.Inputs[0].Type, c.unknownTarget())
		return
	}
	out := make(Shape, len(target))
	rest, hole := in.Count(), -1
	for i, d := range target {
		switch {
		case d.Is(0) && c.n.Int("allowzero", 0) == 0:
			if i >= len(in) {
				c.fail("target %s copies axis %d of %s", Shape(target), i, in)
			}
			out[i] = in[i]
		case d.Is(-1):
			hole = i
			continue
		default:
			out[i] = d
		}
		rest = divide(rest, out[i])
	}
	if hole >= 0 {
		out[hole] = rest
	} else if n, known := rest.Int(); known && n != 1 && !in.Count().Is(0) {
		c.fail("%s does not fit %s", in, out)
	}
	c.out(0, c.n.Inputs[0].Type, out)
	c.keep()
}

// divide is division that keeps 0/0 harmless.
func divide(a, b Dim) Dim {
	if b.Is(0) {
		return Known(1)
	}
	return a.Div(b)
}

// unknownTarget is the shape that a computed target of known length gives.
func (c *ctx) unknownTarget() Shape {
	s := c.shape(1)
	if len(s) != 1 {
		return nil
	}
	n, ok := s[0].Int()
	if !ok {
		return nil
	}
	out := make(Shape, n)
	for i := range out {
		out[i] = c.in.symbol(c.n)
	}
	return out
}

func flattenShape(c *ctx) {
	s := c.shape(0)
	axis := int(c.n.Int("axis", 1))
	if axis < 0 {
		axis += len(s)
	}
	c.out(0, c.n.Inputs[0].Type, Shape{s[:axis].Count(), s[axis:].Count()})
}

func squeezeShape(c *ctx) {
	s := c.shape(0)
	var drop []int
	if c.n.Input(1) != nil {
		drop = c.axes(c.need(1, "its axes"), len(s))
	} else {
		for i, d := range s {
			if d.Is(1) {
				drop = append(drop, i)
			}
		}
	}
	out := Shape{}
	for i, d := range s {
		if !slices.Contains(drop, i) {
			out = append(out, d)
		}
	}
	c.out(0, c.n.Inputs[0].Type, out)
	c.keep()
}

func unsqueezeShape(c *ctx) {
	s := c.shape(0)
	axes := c.need(1, "its axes")
	rank := len(s) + len(axes)
	at := c.axes(axes, rank)
	out := Shape{}
	for i, next := 0, 0; i < rank; i++ {
		if slices.Contains(at, i) {
			out = append(out, Known(1))
		} else {
			out = append(out, s[next])
			next++
		}
	}
	c.out(0, c.n.Inputs[0].Type, out)
	c.keep()
}

func permutation(n *Node, rank int) []int64 {
	if p := n.Ints("perm"); p != nil {
		return p
	}
	p := firstN(rank)
	slices.Reverse(p)
	return p
}

func transposeShape(c *ctx) {
	s := c.shape(0)
	perm := permutation(c.n, len(s))
	if len(perm) != len(s) {
		c.fail("perm %v for a tensor of rank %d", perm, len(s))
	}
	out := make(Shape, len(s))
	for i, p := range perm {
		out[i] = s[c.axis(p, len(s))]
	}
	c.out(0, c.n.Inputs[0].Type, out)
	c.keep()
}

func gradTranspose(b *backward, n *Node) *Value {
	return b.Transpose(b.dy(n), inverse(permutation(n, len(n.Inputs[0].Shape)))...)
}

func concatShape(c *ctx) {
	out := slices.Clone(c.shape(0))
	axis := c.axis(c.n.Int("axis", 0), len(out))
	for i := 1; i < len(c.n.Inputs); i++ {
		s := c.shape(i)
		if len(s) != len(out) {
			c.fail("operands of ranks %d and %d", len(out), len(s))
		}
		for j := range out {
			if j == axis {
				out[j] = out[j].Add(s[j])
			} else {
				out[j] = c.either(out[j], s[j], s)
			}
		}
	}
	c.out(0, c.n.Inputs[0].Type, out)
	var all []Dim
	for i := range c.n.Inputs {
		ds, ok := c.ints(i)
		if !ok || len(out) != 1 {
			return
		}
		all = append(all, ds...)
	}
	c.holds(all)
}

// gradConcat cuts the gradient where the operands met. Where an operand other than the last
// is of unknown extent, the places to cut at are read off the operands when the graph runs.
func gradConcat(b *backward, n *Node) {
	axis, last := axisOf(n, "axis", 0), len(n.Inputs)-1
	start := int64(0)
	for i, v := range n.Inputs {
		size, ok := v.Shape[axis].Int()
		end := start + size
		switch {
		case !ok && i < last:
			b.splitConcat(n, axis, i)
			return
		case !ok:
			end = math.MaxInt64
		}
		if b.wants(n, i) {
			b.giveWhole(n, i, b.slice(b.dy(n), axis, start, end))
		}
		start = end
	}
}

// splitConcat gives operands from on their parts of a Concat's gradient.
func (b *backward) splitConcat(n *Node, axis, from int) {
	along := Attrs{"start": int64(axis), "end": int64(axis + 1)}
	sizes := make([]*Value, len(n.Inputs))
	for i, v := range n.Inputs {
		sizes[i] = b.Op("Shape", along, v)
	}
	parts := b.Ops("Split", len(sizes), Attrs{"axis": int64(axis)}, b.dy(n), b.Op("Concat", Attrs{"axis": int64(0)}, sizes...))
	for i := from; i < len(parts); i++ {
		if b.wants(n, i) {
			b.giveWhole(n, i, parts[i])
		}
	}
}

// giveWhole adds dx to the gradient of input i, of which it is known to have the shape.
func (b *backward) giveWhole(n *Node, i int, dx *Value) {
	dx.Shape = n.Inputs[i].Shape
	b.accumulate(n.Inputs[i], dx)
}

func (b *Builder) slice(x *Value, axis int, start, end int64) *Value {
	return b.Op("Slice", nil, x, b.Ints(start), b.Ints(end), b.Ints(int64(axis)))
}

// axisOf is an axis attribute brought into range by the first input's rank.
func axisOf(n *Node, attr string, def int64) int {
	a := int(n.Int(attr, def))
	if a < 0 {
		a += len(n.Inputs[0].Shape)
	}
	return a
}

func splitShape(c *ctx) {
	s := c.shape(0)
	axis := c.axis(c.n.Int("axis", 0), len(s))
	sizes, ok := c.ints(1)
	for i := range c.n.Outputs {
		out := slices.Clone(s)
		switch {
		case ok && i < len(sizes):
			out[axis] = sizes[i]
		default:
			parts := Known(int64(len(c.n.Outputs)))
			out[axis] = s[axis].Add(parts).Sub(Known(1)).Div(parts)
			if n, known := s[axis].Int(); known && i == len(c.n.Outputs)-1 {
				each, _ := out[axis].Int()
				out[axis] = Known(n - each*int64(i))
			}
		}
		c.out(i, c.n.Inputs[0].Type, out)
	}
	if in, isInts := c.ints(0); isInts {
		c.splitContents(in)
	}
}

func (c *ctx) splitContents(in []Dim) {
	for _, v := range c.n.Outputs {
		if v == nil {
			return
		}
		n, ok := v.Shape.Count().Int()
		if !ok || int(n) > len(in) {
			return
		}
		c.in.hold(v, in[:n])
		in = in[n:]
	}
}

func gradSplit(b *backward, n *Node) {
	if !b.wants(n, 0) {
		return
	}
	parts := make([]*Value, len(n.Outputs))
	b.nameOutputs(n, len(n.Outputs))
	for i, v := range n.Outputs {
		if parts[i] = b.grads[v]; parts[i] == nil {
			parts[i] = b.zerosLike(v)
		}
	}
	b.give(n, 0, b.Op("Concat", Attrs{"axis": n.Int("axis", 0)}, parts...))
}

// zerosLike is a tensor of zeros of v's run-time shape.
func (b *Builder) zerosLike(v *Value) *Value {
	out := b.zeros(v.Type, b.Op("Shape", nil, v))
	out.Shape = v.Shape
	return out
}

// zeros is a tensor of zeros of the dims that a run finds.
func (b *Builder) zeros(t DataType, dims *Value) *Value {
	zero := scalar(0, t)
	zero.Dims = []int64{1}
	return b.Op("ConstantOfShape", Attrs{"value": zero}, dims)
}

// window is a Slice along one axis, start in [0, extent].
type window struct {
	axis       int
	start, end Dim
	step       int64
}

// windows reads a Slice's bounds as far as they are known.
func (c *ctx) windows() ([]window, bool) {
	starts, ok1 := c.ints(1)
	ends, ok2 := c.ints(2)
	if !ok1 || !ok2 {
		return nil, false
	}
	axes, steps := firstN(len(starts)), []int64(nil)
	if c.n.Input(3) != nil {
		axes = c.need(3, "its axes")
	}
	if c.n.Input(4) != nil {
		steps = c.need(4, "its steps")
	}
	s := c.shape(0)
	var out []window
	for i, a := range axes {
		w := window{axis: c.axis(a, len(s)), step: 1}
		if steps != nil {
			w.step = steps[i]
		}
		extent := s[w.axis]
		w.start, w.end = bound(starts[i], extent), bound(ends[i], extent)
		if w.step < 1 {
			return nil, false
		}
		out = append(out, w)
	}
	return out, true
}

// bound brings a Slice's bound into [0, extent]: negative counts from the end, beyond is the end.
func bound(b, extent Dim) Dim {
	n, ok := b.Int()
	if !ok {
		return b
	}
	e, okE := extent.Int()
	switch {
	case n < 0 && okE:
		return Known(max(0, e+n))
	case n < 0 && n > -(1<<30):
		return extent.Add(b)
	case n >= 1<<30:
		return extent
	case okE:
		return Known(min(n, e))
	}
	return b
}

func sliceShape(c *ctx) {
	s := slices.Clone(c.shape(0))
	ws, ok := c.windows()
	if !ok {
		c.slicedSomehow(s)
		return
	}
	for _, w := range ws {
		d := w.end.Sub(w.start)
		if w.step != 1 {
			d = d.Add(Known(w.step - 1)).Div(Known(w.step))
		}
		if n, known := d.Int(); known && n < 0 {
			d = Known(0)
		}
		s[w.axis] = d
	}
	c.out(0, c.n.Inputs[0].Type, s)
	c.sliceContents(ws)
}

// slicedSomehow: some bounds depend on the run, or a step goes backward. Of the axes that are cut,
// those extents are known whose own bounds are.
func (c *ctx) slicedSomehow(s Shape) {
	axes, ok := firstN(len(s)), true
	if c.n.Input(3) != nil {
		axes, ok = c.known(3)
	}
	if !ok {
		axes = firstN(len(s))
	}
	for i, a := range axes {
		axis := c.axis(a, len(s))
		if d, known := c.extentBetween(i, s[axis]); ok && known {
			s[axis] = d
		} else {
			s[axis] = c.in.symbol(c.n)
		}
	}
	c.out(0, c.n.Inputs[0].Type, s)
}

// extentBetween is what bounds i leave of an extent: all of it, turned around, or a known part.
func (c *ctx) extentBetween(i int, extent Dim) (Dim, bool) {
	steps, ok := []int64{1}, true
	if c.n.Input(4) != nil {
		steps, ok = c.known(4)
	} else {
		steps = slices.Repeat(steps, i+1)
	}
	starts, ok1 := c.ints(1)
	ends, ok2 := c.ints(2)
	if !ok || !ok1 || !ok2 || i >= min(len(steps), len(starts), len(ends)) {
		return Dim{}, false
	}
	start, ok1 := starts[i].Int()
	end, ok2 := ends[i].Int()
	step := steps[i]
	if !ok1 || !ok2 || step == 0 {
		return Dim{}, false
	}
	n, known := extent.Int()
	switch {
	case step == -1 && start == -1 && end < -1<<30:
		return extent, true
	case !known:
		return Dim{}, false
	}
	if start < 0 {
		start += n
	}
	if end < 0 && end >= -n {
		end += n
	}
	if step > 0 {
		return Known(max(0, (min(end, n)-max(start, 0)+step-1)/step)), true
	}
	return Known(max(0, (min(start, n-1)-max(end, -1)-step-1)/-step)), true
}

func (c *ctx) sliceContents(ws []window) {
	in, ok := c.ints(0)
	if !ok || len(ws) != 1 || len(c.shape(0)) != 1 {
		return
	}
	start, ok1 := ws[0].start.Int()
	end, ok2 := ws[0].end.Int()
	if !ok1 || !ok2 {
		return
	}
	out := []Dim{}
	for i := start; i < end; i += ws[0].step {
		out = append(out, in[i])
	}
	c.holds(out)
}

// gradSlice puts the gradient back between zeros.
func gradSlice(b *backward, n *Node) *Value {
	dy := b.dy(n)
	ws, ok := (&ctx{in: b.in, n: n}).windows()
	if !ok {
		return b.sumSliced(n)
	}
	for _, w := range slices.Backward(ws) {
		dy = b.padAxis(n, b.strew(n, dy, &w), w)
	}
	return dy
}

// sumSliced puts the gradient back where the same slice of the elements' numbers says, for bounds that
// depend on the run and for negative steps.
func (b *backward) sumSliced(n *Node) *Value {
	x, c := n.Inputs[0], &ctx{in: b.in, n: n}
	count, known := n.Inputs[1].Shape.Count().Int()
	if !known {
		fail(n, "the number of its bounds depends on the run")
	}
	axes := firstN(int(count))
	if n.Input(3) != nil {
		axes = c.need(3, "its axes")
	}
	dx := b.dy(n)
	for i, axis := range c.axes(axes, len(x.Shape)) {
		bounds := []*Value{b.countAlong(x, axis)}
		for k := 1; k < len(n.Inputs); k++ {
			switch {
			case k == 3:
				bounds = append(bounds, b.Ints(0))
			default:
				bounds = append(bounds, b.Op("Slice", nil, n.Inputs[k], b.Ints(int64(i)), b.Ints(int64(i+1)), b.Ints(0)))
			}
		}
		dx = b.sumRows(dx, b.Op("Slice", nil, bounds...), x, axis)
	}
	return dx
}

// strew puts step-1 zeros behind each element of dy along the window's axis and makes it a
// window of step 1.
func (b *backward) strew(n *Node, dy *Value, w *window) *Value {
	if w.step == 1 {
		return dy
	}
	inner, ok := dy.Shape[w.axis+1:].ints()
	if !ok {
		fail(n, "its step is %d and extents %s behind the axis depend on the run", w.step, dy.Shape[w.axis+1:])
	}
	rank := len(dy.Shape) + 1
	pads, target := make([]int64, 2*rank), append(make([]int64, w.axis), -1)
	pads[rank+w.axis+1] = w.step - 1
	count := dy.Shape[w.axis].Mul(Known(w.step))
	out := b.Op("Pad", nil, b.Op("Unsqueeze", nil, dy, b.Ints(int64(w.axis+1))), b.Ints(pads...), b.Scalar(0, dy))
	out = b.Op("Reshape", nil, out, b.Ints(append(target, inner...)...))
	out.Shape = slices.Clone(dy.Shape)
	out.Shape[w.axis], w.end = count, w.start.Add(count)
	return out
}

// padAxis puts dy, the window of x along an axis, back between zeros. Where only one of the
// two gaps is known, the other is worked out when the graph runs.
func (b *backward) padAxis(n *Node, dy *Value, w window) *Value {
	x := n.Inputs[0]
	extent := x.Shape[w.axis]
	before, ok1 := w.start.Int()
	after, ok2 := extent.Sub(w.end).Int()
	rank := len(dy.Shape)
	var pads *Value
	switch {
	case ok1 && ok2 && before == 0 && after == 0:
		return dy
	case ok1 && ok2:
		at := make([]int64, 2*rank)
		at[w.axis], at[rank+w.axis] = before, after
		pads = b.Ints(at...)
	case ok1:
		lead := b.Ints(before)
		pads = b.padsAlong(w.axis, rank, lead, b.Sub(b.gap(x, dy, w.axis), lead))
	case ok2:
		tail := b.Ints(after)
		pads = b.padsAlong(w.axis, rank, b.Sub(b.gap(x, dy, w.axis), tail), tail)
	default:
		fail(n, "its bounds %s:%s depend on the run", w.start, w.end)
	}
	out := b.Op("Pad", nil, dy, pads, b.Scalar(0, dy))
	out.Shape = slices.Clone(dy.Shape)
	out.Shape[w.axis] = extent
	return out
}

// padsAlong makes Pad's amounts: lead and tail, each [1], along one axis, none elsewhere.
func (b *Builder) padsAlong(axis, rank int, lead, tail *Value) *Value {
	front, back := b.Ints(make([]int64, axis)...), b.Ints(make([]int64, rank-axis-1)...)
	return b.Op("Concat", Attrs{"axis": int64(0)}, front, lead, back, front, tail, back)
}

// gap is how much longer x is than dy along the axis, found when the graph runs: [1].
func (b *Builder) gap(x, dy *Value, axis int) *Value {
	along := Attrs{"start": int64(axis), "end": int64(axis + 1)}
	return b.Sub(b.Op("Shape", along, x), b.Op("Shape", along, dy))
}

func padShape(c *ctx) {
	s := slices.Clone(c.shape(0))
	pads, ok := c.ints(1)
	axes := firstN(len(s))
	if c.n.Input(3) != nil {
		axes = c.need(3, "its axes")
	}
	for i, a := range axes {
		at := c.axis(a, len(s))
		if ok {
			s[at] = s[at].Add(pads[i]).Add(pads[len(axes)+i])
		} else {
			s[at] = c.in.symbol(c.n)
		}
	}
	c.out(0, c.n.Inputs[0].Type, s)
}

// gradPad pads by as much less: it takes off what was put on and puts zeros where something was
// cut off.
func gradPad(b *backward, n *Node) *Value {
	if n.Str("mode", "constant") != "constant" {
		return b.sumPadded(n)
	}
	less := b.Op("Neg", nil, n.Inputs[1])
	if pads, ok := (&ctx{in: b.in, n: n}).known(1); ok {
		for i := range pads {
			pads[i] = -pads[i]
		}
		less = b.Ints(pads...)
	}
	inputs := []*Value{b.dy(n), less, b.Scalar(0, b.dy(n))}
	if axes := n.Input(3); axes != nil {
		inputs = append(inputs, axes)
	}
	dx := b.Op("Pad", nil, inputs...)
	dx.Shape = n.Inputs[0].Shape
	return dx
}

// sumPadded adds up, along one axis after the other, what was taken of each element: the mode pads
// the elements' numbers to tell.
func (b *backward) sumPadded(n *Node) *Value {
	c := &ctx{in: b.in, n: n}
	pads, axes := c.need(1, "its amounts"), firstN(len(n.Inputs[0].Shape))
	if n.Input(3) != nil {
		axes = c.need(3, "its axes")
	}
	dx := b.dy(n)
	for i, axis := range c.axes(axes, len(n.Inputs[0].Shape)) {
		before, after := pads[i], pads[len(axes)+i]
		if before == 0 && after == 0 {
			continue
		}
		from := b.Op("Pad", Attrs{"mode": n.Str("mode", "")}, b.countAlong(n.Inputs[0], axis), b.Ints(before, after))
		dx = b.sumRows(dx, from, n.Inputs[0], axis)
	}
	return dx
}

// sumRows adds up slices of dy along an axis by the numbers in at, into as many slices as x has there.
func (b *backward) sumRows(dy, at, x *Value, axis int) *Value {
	front := moveToFront(len(dy.Shape), axis, 1)
	rows := b.Transpose(dy, front...)
	extent := b.Op("Shape", Attrs{"start": int64(axis), "end": int64(axis + 1)}, x)
	dims := b.Op("Concat", Attrs{"axis": int64(0)}, extent, b.Op("Shape", Attrs{"start": int64(1)}, rows))
	none := b.zeros(dy.Type, dims)
	none.Shape = joined(x.Shape[axis:axis+1], rows.Shape[1:])
	sum := b.scatterAddInto("ScatterND", nil, none, b.lastUnsqueezed(at), rows)
	return b.Transpose(sum, inverse(front)...)
}

// inverse is the permutation that undoes perm.
func inverse(perm []int64) []int64 {
	out := make([]int64, len(perm))
	for i, p := range perm {
		out[p] = int64(i)
	}
	return out
}

func expandShape(c *ctx) {
	target, ok := c.ints(1)
	if !ok {
		target = c.unknownTarget()
	}
	if target == nil && !ok {
		return
	}
	c.out(0, c.n.Inputs[0].Type, c.broadcast(c.shape(0), Shape(target)))
	if in, isInts := c.ints(0); isInts && len(in) == 1 {
		c.fill(in[0])
	}
}

// fill records a one-dimensional output whose elements are all x.
func (c *ctx) fill(x Dim) {
	s := c.n.Outputs[0].Shape
	n, ok := s.Count().Int()
	if !ok || len(s) > 1 || n > maxContents {
		return
	}
	out := make([]Dim, n)
	for i := range out {
		out[i] = x
	}
	c.holds(out)
}

func tileShape(c *ctx) {
	s := slices.Clone(c.shape(0))
	repeats, ok := c.ints(1)
	for i := range s {
		if ok {
			s[i] = s[i].Mul(repeats[i])
		} else {
			s[i] = c.in.symbol(c.n)
		}
	}
	c.out(0, c.n.Inputs[0].Type, s)
}

// gradTile folds the repeats into axes of their own and sums over them.
func gradTile(b *backward, n *Node) *Value {
	repeats, ok := (&ctx{in: b.in, n: n}).ints(1)
	if !ok {
		fail(n, "its repeats depend on the run")
	}
	var split Shape
	var sum []int64
	for i, d := range n.Inputs[0].Shape {
		sum = append(sum, int64(len(split)))
		split = append(split, repeats[i], d)
	}
	if _, one := reshapeTarget(split); !one {
		fail(n, "more than one of its extents depends on the run")
	}
	return b.Sum(b.Reshape(b.dy(n), split, nil), false, sum...)
}

func shapeShape(c *ctx) {
	s := c.shape(0)
	start, end := c.n.Int("start", 0), c.n.Int("end", int64(len(s)))
	if start < 0 {
		start += int64(len(s))
	}
	if end < 0 {
		end += int64(len(s))
	}
	start, end = min(max(start, 0), int64(len(s))), min(max(end, 0), int64(len(s)))
	s = s[min(start, end):end]
	c.out(0, Int64, Shape{Known(int64(len(s)))})
	c.holds(slices.Clone([]Dim(s)))
}

func sizeShape(c *ctx) {
	c.out(0, Int64, Shape{})
	c.holds([]Dim{c.shape(0).Count()})
}

func constantOfShape(c *ctx) {
	t := Float
	value, _ := c.n.Attrs["value"].Value.(*Tensor)
	if value != nil {
		t = value.Type
	}
	target, ok := c.ints(0)
	if !ok {
		if s := c.shape(0); len(s) == 1 {
			if n, known := s[0].Int(); known {
				c.out(0, t, make(Shape, n))
				for i := range c.n.Outputs[0].Shape {
					c.n.Outputs[0].Shape[i] = c.in.symbol(c.n)
				}
			}
		}
		return
	}
	c.out(0, t, Shape(target))
	if value != nil && t == Int64 {
		if v, err := Values[int64](value); err == nil && len(v) == 1 {
			c.fill(Known(v[0]))
		}
	}
}

func rangeShape(c *ctx) {
	t := c.n.Inputs[0].Type
	c.out(0, t, Shape{c.in.symbol(c.n)})
	if t.IsFloat() {
		c.floatRange(t)
		return
	}
	start, ok1 := c.ints(0)
	limit, ok2 := c.ints(1)
	delta, ok3 := c.known(2)
	if !ok1 || !ok2 || !ok3 || len(delta) != 1 || delta[0] == 0 {
		return
	}
	n, step := limit[0].Sub(start[0]), delta[0]
	if step < 0 {
		n, step = start[0].Sub(limit[0]), -step
	}
	if step != 1 {
		n = n.Add(Known(step - 1)).Div(Known(step))
	}
	if count, ok := n.Int(); ok {
		n = Known(max(0, count))
	}
	c.out(0, t, Shape{n})
	count, ok := n.Int()
	if !ok || count > maxContents {
		return
	}
	out := make([]Dim, max(0, count))
	for i := range out {
		out[i] = start[0].Add(Known(int64(i) * delta[0]))
	}
	c.holds(out)
}

// floatRange: coordinates of patches are ranges such as 0.5, 1.5, ... to the grid's side.
func (c *ctx) floatRange(t DataType) {
	start, ok1 := c.in.number(c.n.Inputs[0])
	limit, ok2 := c.in.number(c.n.Inputs[1])
	delta, ok3 := c.in.number(c.n.Inputs[2])
	if n := math.Ceil((limit - start) / delta); ok1 && ok2 && ok3 && n < 1<<31 {
		c.out(0, t, Shape{Known(int64(max(0, n)))})
	}
}

func gradTrilu(b *backward, n *Node) *Value {
	return b.Op("Trilu", Attrs{"upper": n.Int("upper", 1)}, append([]*Value{b.dy(n)}, n.Inputs[1:]...)...)
}
