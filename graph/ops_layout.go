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
	"Expand":    {expandShape, func(b *backward, n *Node) { b.give(n, 0, b.dy(n)) }, expandKernel},
	"Tile":      {tileShape, chain(gradTile), tileKernel},
	"Trilu":     {unary, chain(gradTrilu), triluKernel},
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

func reshapeKernel(c *computation) []Array {
	x, target := c.in[0], slices.Clone(c.ints(1, nil))
	hole, rest := -1, len(x.Data)
	for i, d := range target {
		if d == 0 && c.n.Int("allowzero", 0) == 0 {
			target[i] = x.Dims[i]
		}
		if d == -1 {
			hole = i
		} else if target[i] != 0 {
			rest /= target[i]
		}
	}
	if hole >= 0 {
		target[hole] = rest
	}
	if Count(target) != len(x.Data) {
		panic(unfit("%v does not fit %v", x.Dims, target))
	}
	return one(x.reshaped(target...))
}

func flattenShape(c *ctx) {
	s := c.shape(0)
	axis := int(c.n.Int("axis", 1))
	if axis < 0 {
		axis += len(s)
	}
	c.out(0, c.n.Inputs[0].Type, Shape{s[:axis].Count(), s[axis:].Count()})
}

func flattenKernel(c *computation) []Array {
	x := c.in[0]
	axis := int(c.n.Int("axis", 1))
	if axis < 0 {
		axis += len(x.Dims)
	}
	return one(x.reshaped(Count(x.Dims[:axis]), Count(x.Dims[axis:])))
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

func squeezeKernel(c *computation) []Array {
	x := c.in[0]
	axes := c.ints(1, nil)
	if axes == nil {
		for i, d := range x.Dims {
			if d == 1 {
				axes = append(axes, i)
			}
		}
	}
	return one(x.reshaped(dropAxes(x.Dims, inRange(axes, len(x.Dims)))...))
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

func unsqueezeKernel(c *computation) []Array {
	x, axes := c.in[0], c.ints(1, nil)
	rank := len(x.Dims) + len(axes)
	at := inRange(axes, rank)
	dims, next := make([]int, rank), 0
	for i := range dims {
		if dims[i] = 1; !slices.Contains(at, i) {
			dims[i] = x.Dims[next]
			next++
		}
	}
	return one(x.reshaped(dims...))
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

func transposeKernel(c *computation) []Array {
	perm := c.attrInts("perm")
	if perm == nil {
		for i := len(c.in[0].Dims) - 1; i >= 0; i-- {
			perm = append(perm, i)
		}
	}
	return one(c.in[0].transpose(perm))
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

func concatKernel(c *computation) []Array {
	axis := c.axis("axis", 0, len(c.in[0].Dims))
	dims := slices.Clone(c.in[0].Dims)
	dims[axis] = 0
	for _, a := range c.in {
		dims[axis] += a.Dims[axis]
	}
	out := Array{c.in[0].Type, dims, make([]float64, 0, Count(dims))}
	for o := range Count(dims[:axis]) {
		for _, a := range c.in {
			_, n, inner := a.split(axis)
			out.Data = append(out.Data, a.Data[o*n*inner:(o+1)*n*inner]...)
		}
	}
	return one(out)
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

func splitKernel(c *computation) []Array {
	x := c.in[0]
	axis := c.axis("axis", 0, len(x.Dims))
	sizes := c.ints(1, nil)
	if sizes == nil {
		parts := len(c.n.Outputs)
		each := (x.Dims[axis] + parts - 1) / parts
		for left := x.Dims[axis]; left > 0; left -= each {
			sizes = append(sizes, min(each, left))
		}
	}
	var out []Array
	start := 0
	for _, n := range sizes {
		out = append(out, x.cut(axis, start, start+n, 1))
		start += n
	}
	return out
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

func expandKernel(c *computation) []Array {
	return one(c.in[0].expand(broadcast(c.in[0].Dims, c.ints(1, nil))))
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

func tileKernel(c *computation) []Array {
	x, repeats := c.in[0], c.ints(1, nil)
	dims := slices.Clone(x.Dims)
	for i := range dims {
		dims[i] *= repeats[i]
	}
	out, i := zeros(x.Type, dims...), 0
	eachIndex(dims, func(at []int) {
		from := make([]int, len(at))
		for j := range at {
			from[j] = at[j] % x.Dims[j]
		}
		k, _ := offset(from, x.Dims)
		out.Data[i] = x.Data[k]
		i++
	})
	return one(out)
}

func gradTrilu(b *backward, n *Node) *Value {
	return b.Op("Trilu", Attrs{"upper": n.Int("upper", 1)}, append([]*Value{b.dy(n)}, n.Inputs[1:]...)...)
}

func triluKernel(c *computation) []Array {
	x := c.in[0]
	k, upper := 0, c.n.Int("upper", 1) != 0
	if c.has(1) {
		k = int(c.in[1].Data[0])
	}
	rank, i := len(x.Dims), 0
	out := zeros(x.Type, x.Dims...)
	eachIndex(x.Dims, func(at []int) {
		row, col := at[rank-2], at[rank-1]
		if upper && col >= row+k || !upper && col <= row+k {
			out.Data[i] = x.Data[i]
		}
		i++
	})
	return one(out)
}
