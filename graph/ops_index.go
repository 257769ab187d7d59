package graph

import (
	"maps"
	"slices"
)

var _ = register(map[string]row{
	"Gather":          {gatherShape, chain(gradGather), gatherKernel},
	"GatherND":        {gatherNDShape, chain(gradGatherND), gatherNDKernel},
	"GatherElements":  {gatherElementsShape, chain(gradGatherElements), gatherElementsKernel},
	"ScatterND":       {unary, gradScatter("GatherND"), scatterNDKernel},
	"ScatterElements": {unary, gradScatter("GatherElements"), scatterElementsKernel},
	"ArgMax":          {argShape, nil, argKernel(func(x, best float64) bool { return x > best })},
	"ArgMin":          {argShape, nil, argKernel(func(x, best float64) bool { return x < best })},
	"OneHot":          {oneHotShape, nil, oneHotKernel},
	"CumSum":          {unary, chain(gradCumSum), cumSumKernel},
	"TopK":            {topKShape, chain(gradTopK), topKKernel},
	"NonZero":         {nonZeroShape, nil, nonZeroKernel},
})

func gatherShape(c *ctx) {
	s, index := c.shape(0), c.shape(1)
	axis := c.axis(c.n.Int("axis", 0), len(s))
	c.out(0, c.n.Inputs[0].Type, joined(s[:axis], index, s[axis+1:]))
	in, ok := c.ints(0)
	at, okAt := c.known(1)
	if !ok || !okAt || len(s) != 1 || len(index) > 1 {
		return
	}
	out := make([]Dim, len(at))
	for i, k := range at {
		if k < 0 {
			k += int64(len(in))
		}
		if k < 0 || k >= int64(len(in)) {
			c.fail("index %d of %d elements", at[i], len(in))
		}
		out[i] = in[k]
	}
	c.holds(out)
}

// gradGather: one constant index puts the gradient back between zeros; else rows are added
// up where their index says.
func gradGather(b *backward, n *Node) *Value {
	x, index, dy := n.Inputs[0], n.Inputs[1], b.dy(n)
	axis := axisOf(n, "axis", 0)
	if at, ok := (&ctx{in: b.in, n: n}).known(1); ok && len(at) == 1 && len(index.Shape) <= 1 {
		return b.placeAt(n, dy, axis, at[0])
	}
	if axis != 0 {
		return b.gatherAlong(n, axis)
	}
	return b.scatterAdd("ScatterND", nil, x, b.lastUnsqueezed(index), dy)
}

func (b *backward) placeAt(n *Node, dy *Value, axis int, at int64) *Value {
	x := n.Inputs[0]
	if len(n.Inputs[1].Shape) == 0 {
		dy = b.Op("Unsqueeze", nil, dy, b.Ints(int64(axis)))
	}
	start := bound(Known(at), x.Shape[axis])
	return b.padAxis(n, dy, window{axis: axis, start: start, end: start.Add(Known(1))})
}

// gatherAlong brings the axis to the front, scatters there, and brings it back.
func (b *backward) gatherAlong(n *Node, axis int) *Value {
	x, index, dy := n.Inputs[0], n.Inputs[1], b.dy(n)
	front := moveToFront(len(x.Shape), axis, 1)
	rows := b.Transpose(dy, moveToFront(len(dy.Shape), axis, len(index.Shape))...)
	sum := b.scatterAdd("ScatterND", nil, b.Transpose(x, front...), b.lastUnsqueezed(index), rows)
	return b.Transpose(sum, inverse(front)...)
}

// moveToFront permutes count axes from axis on to the front.
func moveToFront(rank, axis, count int) []int64 {
	var perm []int64
	for i := axis; i < axis+count; i++ {
		perm = append(perm, int64(i))
	}
	for i := range rank {
		if i < axis || i >= axis+count {
			perm = append(perm, int64(i))
		}
	}
	return perm
}

// lastUnsqueezed makes Gather's indices ScatterND's, which are 64 bits wide.
func (b *backward) lastUnsqueezed(index *Value) *Value {
	return b.Op("Unsqueeze", nil, b.cast(index, Int64), b.Ints(-1))
}

func gatherNDShape(c *ctx) {
	s, index := c.shape(0), c.shape(1)
	batch := int(c.n.Int("batch_dims", 0))
	k, ok := index[len(index)-1].Int()
	if !ok {
		c.fail("the indices' length depends on the run")
	}
	c.out(0, c.n.Inputs[0].Type, joined(index[:len(index)-1], s[batch+int(k):]))
}

func gradGatherND(b *backward, n *Node) *Value {
	return b.scatterAdd("ScatterND", nil, n.Inputs[0], b.wholeIndices(n), b.dy(n))
}

// wholeIndices are GatherND's indices with the places along its batch axes put in front, which
// GatherND implies and ScatterND wants.
func (b *backward) wholeIndices(n *Node) *Value {
	index, batch := n.Inputs[1], int(n.Int("batch_dims", 0))
	if batch == 0 {
		return index
	}
	last, one := int64(len(index.Shape)-1), b.Ints(1)
	tuples := b.Op("Concat", Attrs{"axis": int64(0)}, b.Op("Shape", Attrs{"start": int64(0), "end": last}, index), one)
	var parts []*Value
	for axis := range batch {
		target := slices.Repeat([]int64{1}, int(last)+1)
		target[axis] = -1
		at := b.Op("Reshape", nil, b.countAlong(n.Inputs[0], axis), b.Ints(target...))
		parts = append(parts, b.Op("Expand", nil, at, tuples))
	}
	return b.Op("Concat", Attrs{"axis": last}, append(parts, index)...)
}

// countAlong is 0, 1, ... up to the extent of x along the axis.
func (b *Builder) countAlong(x *Value, axis int) *Value {
	extent := b.Op("Shape", Attrs{"start": int64(axis), "end": int64(axis + 1)}, x)
	zero, one := b.Const(NewTensor([]int64{0})), b.Const(NewTensor([]int64{1}))
	return b.Op("Range", nil, zero, b.Op("Squeeze", nil, extent, b.Ints(0)), one)
}

func gatherElementsShape(c *ctx) { c.out(0, c.n.Inputs[0].Type, c.shape(1)) }

func gradGatherElements(b *backward, n *Node) *Value {
	return b.scatterAdd("ScatterElements", Attrs{"axis": n.Int("axis", 0)}, n.Inputs[0], n.Inputs[1], b.dy(n))
}

// scatterAdd adds up the updates where the indices say, in zeros shaped like x.
func (b *backward) scatterAdd(op string, attrs Attrs, x, indices, updates *Value) *Value {
	return b.scatterAddInto(op, attrs, b.zerosLike(x), indices, updates)
}

// scatterAddInto adds up the updates in a tensor where the indices say; half floats are added up as floats.
func (b *backward) scatterAddInto(op string, attrs Attrs, into, indices, updates *Value) *Value {
	at := Attrs{"reduction": "add"}
	maps.Copy(at, attrs)
	sum := b.Op(op, at, b.widened(into), indices, b.widened(updates))
	return b.cast(sum, into.Type)
}

// scatter is a Scatter operator's gradient at work: what it reads, and the operators with its axis.
type scatter struct {
	*backward
	n          *Node
	gatherOp   string
	at         Attrs
	data, with *Value // what is written to, and what is written there
}

// gradScatter: the data keeps its gradient except where it was overwritten; the updates get
// theirs from where they were put. Of places that are overwritten twice the specification says nothing.
func gradScatter(gather string) func(b *backward, n *Node) {
	return func(b *backward, n *Node) {
		s := &scatter{backward: b, n: n, gatherOp: gather, at: Attrs{}, data: n.Inputs[0], with: n.Inputs[2]}
		if n.Op == "ScatterElements" {
			s.at["axis"] = n.Int("axis", 0)
		}
		rules := map[string]func() (*Value, *Value){"none": s.overwritten, "add": s.added, "mul": s.multiplied, "max": s.largest, "min": s.largest}
		rule := rules[n.Str("reduction", "none")]
		if rule == nil {
			fail(n, "reduction %q", n.Str("reduction", "none"))
		}
		data, with := rule()
		if b.wants(n, 0) {
			b.give(n, 0, data)
		}
		if b.wants(n, 2) {
			b.give(n, 2, with)
		}
	}
}

// gather reads v where the updates were put.
func (s *scatter) gather(v *Value) *Value { return s.Op(s.gatherOp, s.at, v, s.n.Inputs[1]) }

// scatter puts v into the tensor as the node puts its updates into its data.
func (s *scatter) scatter(reduction string, into, v *Value) *Value {
	at := Attrs{"reduction": reduction}
	maps.Copy(at, s.at)
	out := s.Op(s.n.Op, at, into, s.n.Inputs[1], v)
	out.Shape = s.data.Shape
	return out
}

func (s *scatter) overwritten() (data, with *Value) {
	dy := s.dy(s.n)
	return s.scatter("none", dy, s.zerosLike(s.with)), s.gather(dy)
}

func (s *scatter) added() (data, with *Value) { return s.dy(s.n), s.gather(s.dy(s.n)) }

// multiplied: each factor's gradient is the product of the others at its place, as in [gradReduceProd].
func (s *scatter) multiplied() (data, with *Value) {
	dy, one := s.dy(s.n), s.Scalar(1, s.data)
	zero := s.Op("Equal", nil, s.with, s.Scalar(0, s.with))
	rest, zeros := s.Op("Where", nil, zero, one, s.with), s.cast(zero, s.with.Type)
	none := s.zerosLike(s.data)
	product := s.scatter("mul", s.Add(none, one), rest)
	others := s.Sub(s.gather(s.scatter("add", none, zeros)), zeros)
	alone := s.cast(s.Op("Equal", nil, others, s.Scalar(0, others)), others.Type)
	with = s.Mul(s.Div(s.gather(s.Mul(s.Mul(dy, s.data), product)), rest), alone)
	return s.Mul(dy, s.scatter("mul", s.Add(none, one), s.with)), with
}

// largest also is the smallest: what is left over at a place shares the gradient.
func (s *scatter) largest() (data, with *Value) {
	y := s.n.Outputs[0]
	stays := s.cast(s.Op("Equal", nil, s.data, y), y.Type)
	wins := s.cast(s.Op("Equal", nil, s.with, s.gather(y)), y.Type)
	share := s.Div(s.dy(s.n), s.scatter("add", stays, wins))
	return s.Mul(stays, share), s.Mul(wins, s.gather(share))
}

func argShape(c *ctx) {
	s := slices.Clone(c.shape(0))
	axis := c.axis(c.n.Int("axis", 0), len(s))
	if c.n.Int("keepdims", 1) != 0 {
		s[axis] = Known(1)
	} else {
		s = slices.Delete(s, axis, axis+1)
	}
	c.out(0, Int64, s)
}

func oneHotShape(c *ctx) {
	s := slices.Clone(c.shape(0))
	axis := c.n.Int("axis", -1)
	if axis < 0 {
		axis += int64(len(s)) + 1
	}
	d := c.in.symbol(c.n)
	if depth, ok := c.ints(1); ok && len(depth) == 1 {
		d = depth[0]
	}
	c.out(0, c.n.Inputs[2].Type, slices.Insert(s, int(axis), d))
}

func gradCumSum(b *backward, n *Node) *Value {
	return b.Op("CumSum", Attrs{"exclusive": n.Int("exclusive", 0), "reverse": 1 - n.Int("reverse", 0)}, b.dy(n), n.Inputs[1])
}

func nonZeroShape(c *ctx) {
	c.out(0, Int64, Shape{Known(int64(c.rank(0))), c.in.symbol(c.n)})
}

func topKShape(c *ctx) {
	s := slices.Clone(c.shape(0))
	axis := c.axis(c.n.Int("axis", -1), len(s))
	s[axis] = c.in.symbol(c.n)
	if k, ok := c.ints(1); ok && len(k) == 1 {
		s[axis] = k[0]
	}
	c.out(0, c.n.Inputs[0].Type, s)
	c.out(1, Int64, s)
}

// gradTopK puts the gradients back where the elements were taken from.
func gradTopK(b *backward, n *Node) *Value {
	b.nameOutputs(n, 2)
	return b.scatterAdd("ScatterElements", Attrs{"axis": n.Int("axis", -1)}, n.Inputs[0], n.Outputs[1], b.dy(n))
}
