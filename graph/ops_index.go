package graph

import (
	"maps"
	"slices"
)

var _ = register(map[string]row{
	"Gather":          {gatherShape, chain(gradGather)},
	"GatherND":        {gatherNDShape, chain(gradGatherND)},
	"GatherElements":  {gatherElementsShape, chain(gradGatherElements)},
	"ScatterND":       {unary, gradScatter("GatherND")},
	"ScatterElements": {unary, gradScatter("GatherElements")},
	"ArgMax":          {argShape, nil},
	"ArgMin":          {argShape, nil},
	"OneHot":          {oneHotShape, nil},
	"CumSum":          {unary, chain(gradCumSum)},
	"TopK":            {topKShape, chain(gradTopK)},
	"NonZero":         {nonZeroShape, nil},
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
	back := make([]int64, len(front))
	for i, p := range front {
		back[p] = int64(i)
	}
	return b.Transpose(sum, back...)
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
	if n.Int("batch_dims", 0) != 0 {
		fail(n, "batch_dims is %d", n.Int("batch_dims", 0))
	}
	return b.scatterAdd("ScatterND", nil, n.Inputs[0], n.Inputs[1], b.dy(n))
}

func gatherElementsShape(c *ctx) { c.out(0, c.n.Inputs[0].Type, c.shape(1)) }

func gradGatherElements(b *backward, n *Node) *Value {
	return b.scatterAdd("ScatterElements", Attrs{"axis": n.Int("axis", 0)}, n.Inputs[0], n.Inputs[1], b.dy(n))
}

// scatterAdd adds up the updates where the indices say, in zeros shaped like x; half floats are added up as floats.
func (b *backward) scatterAdd(op string, attrs Attrs, x, indices, updates *Value) *Value {
	at := Attrs{"reduction": "add"}
	maps.Copy(at, attrs)
	wide := x.Type
	if wide == Float16 || wide == BFloat16 {
		wide = Float
	}
	sum := b.Op(op, at, b.cast(b.zerosLike(x), wide), indices, b.cast(updates, wide))
	return b.cast(sum, x.Type)
}

// gradScatter: the data keeps its gradient except where it was overwritten; the updates get
// theirs from where they were put. Of places that are written twice the specification says nothing.
func gradScatter(gather string) func(b *backward, n *Node) {
	return func(b *backward, n *Node) {
		var at Attrs
		if n.Op == "ScatterElements" {
			at = Attrs{"axis": n.Int("axis", 0)}
		}
		dx := b.dy(n)
		switch r := n.Str("reduction", "none"); r {
		case "add":
		case "none":
			dx = b.Op(n.Op, at, dx, n.Inputs[1], b.zerosLike(n.Inputs[2]))
		default:
			fail(n, "reduction %q", r)
		}
		if b.wants(n, 0) {
			b.give(n, 0, dx)
		}
		if b.wants(n, 2) {
			b.give(n, 2, b.Op(gather, at, b.dy(n), n.Inputs[1]))
		}
	}
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
