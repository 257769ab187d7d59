package graph

import (
	"cmp"
	"maps"
	"math"
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

func gatherKernel(c *computation) []Array {
	x, index := c.in[0], c.in[1]
	axis := c.axis("axis", 0, len(x.Dims))
	outer, n, inner := x.split(axis)
	dims := append(append(slices.Clone(x.Dims[:axis]), index.Dims...), x.Dims[axis+1:]...)
	out := Array{x.Type, dims, make([]float64, 0, Count(dims))}
	for o := range outer {
		for _, f := range index.Data {
			i := wrap(int(f), n)
			out.Data = append(out.Data, x.Data[(o*n+i)*inner:(o*n+i+1)*inner]...)
		}
	}
	return one(out)
}

func wrap(i, n int) int {
	if i < 0 {
		i += n
	}
	if i < 0 || i >= n {
		panic(unfit("index %d of %d", i, n))
	}
	return i
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

func gatherNDKernel(c *computation) []Array {
	x, index, batch := c.in[0], c.in[1], int(c.n.Int("batch_dims", 0))
	at, size := sliceStarts(x.Dims, index, batch)
	k := index.Dims[len(index.Dims)-1]
	dims := append(slices.Clone(index.Dims[:len(index.Dims)-1]), x.Dims[batch+k:]...)
	out := Array{Type: x.Type, Dims: dims}
	for _, start := range at {
		out.Data = append(out.Data, x.Data[start:start+size]...)
	}
	return one(out)
}

// sliceStarts lists, for each index tuple of a *ND operator, where its slice begins and how long it is.
func sliceStarts(dims []int, index Array, batch int) (at []int, size int) {
	k := index.Dims[len(index.Dims)-1]
	step := strides(dims)
	size = Count(dims[batch+k:])
	perBatch := Count(index.Dims[batch : len(index.Dims)-1])
	for i := 0; i < len(index.Data); i += k {
		start := 0
		if batch > 0 {
			start = i / k / perBatch * step[batch-1]
		}
		for j := range k {
			start += wrap(int(index.Data[i+j]), dims[batch+j]) * step[batch+j]
		}
		at = append(at, start)
	}
	return at, size
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

func gatherElementsKernel(c *computation) []Array {
	x, index := c.in[0], c.in[1]
	axis := c.axis("axis", 0, len(x.Dims))
	out, i := zeros(x.Type, index.Dims...), 0
	eachIndex(index.Dims, func(at []int) {
		out.Data[i] = x.Data[elementAt(at, x.Dims, axis, index.Data[i])]
		i++
	})
	return one(out)
}

// elementAt is the place in dims that a *Elements operator's index means at position at.
func elementAt(at, dims []int, axis int, index float64) int {
	to := slices.Clone(at)
	to[axis] = wrap(int(index), dims[axis])
	k, _ := offset(to, dims)
	return k
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

func scatterNDKernel(c *computation) []Array {
	out := Array{c.in[0].Type, c.in[0].Dims, slices.Clone(c.in[0].Data)}
	at, size := sliceStarts(out.Dims, c.in[1], 0)
	f := c.reduction()
	for i, start := range at {
		for j := range size {
			out.Data[start+j] = f(out.Data[start+j], c.in[2].Data[i*size+j])
		}
	}
	return one(out)
}

func scatterElementsKernel(c *computation) []Array {
	out := Array{c.in[0].Type, c.in[0].Dims, slices.Clone(c.in[0].Data)}
	axis, f, i := c.axis("axis", 0, len(out.Dims)), c.reduction(), 0
	eachIndex(c.in[1].Dims, func(at []int) {
		k := elementAt(at, out.Dims, axis, c.in[1].Data[i])
		out.Data[k] = f(out.Data[k], c.in[2].Data[i])
		i++
	})
	return one(out)
}

// reduction is what a scatter makes of an element that is there and one that comes.
func (c *computation) reduction() func(old, update float64) float64 {
	switch r := c.n.Str("reduction", "none"); r {
	case "none":
		return func(_, update float64) float64 { return update }
	case "add":
		return func(old, update float64) float64 { return old + update }
	case "mul":
		return func(old, update float64) float64 { return old * update }
	case "max":
		return math.Max
	case "min":
		return math.Min
	default:
		panic(unfit("reduction %s is not interpreted", r))
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

// argKernel finds where along an axis the element lies that is better than all others.
func argKernel(better func(x, best float64) bool) func(*computation) []Array {
	return func(c *computation) []Array { return c.argExtreme(better) }
}

func (c *computation) argExtreme(better func(x, best float64) bool) []Array {
	x := c.in[0]
	axis := c.axis("axis", 0, len(x.Dims))
	outer, n, inner := x.split(axis)
	dims := slices.Clone(x.Dims)
	dims[axis] = 1
	out := zeros(Int64, dims...)
	last := c.n.Int("select_last_index", 0) != 0
	for o := range outer {
		for i := range inner {
			best, at := math.NaN(), 0
			for k := range n {
				if v := x.Data[(o*n+k)*inner+i]; k == 0 || better(v, best) || last && v == best {
					best, at = v, k
				}
			}
			out.Data[o*inner+i] = float64(at)
		}
	}
	if c.n.Int("keepdims", 1) == 0 {
		out.Dims = dropAxes(out.Dims, []int{axis})
	}
	return one(out)
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

// oneHotKernel puts the second of two values where an index points along a new axis, the first elsewhere.
func oneHotKernel(c *computation) []Array {
	index, depth, values := c.in[0], int(c.in[1].Data[0]), c.in[2]
	axis := c.axis("axis", -1, len(index.Dims)+1)
	out := zeros(values.Type, slices.Insert(slices.Clone(index.Dims), axis, depth)...)
	for i := range out.Data {
		out.Data[i] = values.Data[0]
	}
	_, _, inner := out.split(axis)
	for i, f := range index.Data {
		k := int(f)
		if k < 0 {
			k += depth
		}
		if k >= 0 && k < depth {
			out.Data[(i/inner*depth+k)*inner+i%inner] = values.Data[1]
		}
	}
	return one(out)
}

func gradCumSum(b *backward, n *Node) *Value {
	return b.Op("CumSum", Attrs{"exclusive": n.Int("exclusive", 0), "reverse": 1 - n.Int("reverse", 0)}, b.dy(n), n.Inputs[1])
}

func cumSumKernel(c *computation) []Array {
	x := c.in[0]
	outer, n, inner := x.split(wrap(int(c.in[1].Data[0]), len(x.Dims)))
	exclusive, reverse := c.n.Int("exclusive", 0) != 0, c.n.Int("reverse", 0) != 0
	out := zeros(x.Type, x.Dims...)
	for o := range outer {
		for i := range inner {
			sum := 0.0
			for step := range n {
				k := step
				if reverse {
					k = n - 1 - step
				}
				at := (o*n+k)*inner + i
				if exclusive {
					out.Data[at] = sum
				}
				sum += x.Data[at]
				if !exclusive {
					out.Data[at] = sum
				}
			}
		}
	}
	return one(out)
}

func nonZeroShape(c *ctx) {
	c.out(0, Int64, Shape{Known(int64(c.rank(0))), c.in.symbol(c.n)})
}

// nonZeroKernel lists where the elements are that are not zero: a column each.
func nonZeroKernel(c *computation) []Array {
	x, i := c.in[0], 0
	var found [][]int
	eachIndex(x.Dims, func(at []int) {
		if x.Data[i] != 0 {
			found = append(found, slices.Clone(at))
		}
		i++
	})
	out := zeros(Int64, len(x.Dims), len(found))
	for k, at := range found {
		for axis, p := range at {
			out.Data[axis*len(found)+k] = float64(p)
		}
	}
	return one(out)
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

// topKKernel gives the k largest (or smallest) elements along an axis, best first, and their places; of
// equal ones the first is the better.
func topKKernel(c *computation) []Array {
	x := c.in[0]
	axis, k := c.axis("axis", -1, len(x.Dims)), c.ints(1, nil)[0]
	sign := 1.0
	if c.n.Int("largest", 1) == 0 {
		sign = -1
	}
	outer, n, inner := x.split(axis)
	dims := slices.Clone(x.Dims)
	dims[axis] = k
	values, places := zeros(x.Type, dims...), zeros(Int64, dims...)
	for o := range outer {
		for i := range inner {
			at := func(j int) float64 { return sign * x.Data[(o*n+j)*inner+i] }
			order := make([]int, n)
			for j := range order {
				order[j] = j
			}
			slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(at(b), at(a)) })
			for j, from := range order[:k] {
				values.Data[(o*k+j)*inner+i] = sign * at(from)
				places.Data[(o*k+j)*inner+i] = float64(from)
			}
		}
	}
	return []Array{values, places}
}
