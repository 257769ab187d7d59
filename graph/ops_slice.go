package graph

import "slices"

var _ = register(map[string]row{
	"Slice": {sliceShape, chain(gradSlice), sliceKernel},
	"Pad":   {padShape, chain(gradPad), padKernel},
})

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

// beyond is a bound that no extent reaches: the least that exporters write for an open end, tf2onnx's.
const beyond = 1_000_000_000

// bound brings a Slice's bound into [0, extent]: negative counts from the end, beyond is the end.
func bound(b, extent Dim) Dim {
	n, ok := b.Int()
	if !ok {
		if sum, known := extent.Add(b).Int(); known && sum <= 0 { // counted from the end, to the front or beyond
			return Known(0)
		}
		return b
	}
	e, okE := extent.Int()
	switch {
	case n < 0 && okE:
		return Known(max(0, e+n))
	case n < 0 && n > -beyond:
		return extent.Add(b)
	case n >= beyond:
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
	case step == -1 && start == -1 && end < -beyond:
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

func sliceKernel(c *computation) []Array {
	x := c.in[0]
	starts, ends := c.ints(1, nil), c.ints(2, nil)
	axes, steps := c.ints(3, nil), c.ints(4, nil)
	for i := range starts {
		axis, step := i, 1
		if axes != nil {
			axis = inRange(axes[i:i+1], len(x.Dims))[0]
		}
		if steps != nil {
			step = steps[i]
		}
		n := x.Dims[axis]
		start, end := starts[i], ends[i]
		if start < 0 {
			start += n
		}
		if end < 0 {
			end += n
		}
		if step > 0 {
			start, end = min(max(start, 0), n), min(max(end, 0), n)
		} else {
			start, end = min(max(start, 0), n-1), min(max(end, -1), n-1)
		}
		x = x.cut(axis, start, end, step)
	}
	return one(x)
}

// cut takes [start,end) with a step along one axis.
func (a Array) cut(axis, start, end, step int) Array {
	outer, n, inner := a.split(axis)
	dims := slices.Clone(a.Dims)
	var at []int
	for i := start; step > 0 && i < end || step < 0 && i > end; i += step {
		at = append(at, i)
	}
	dims[axis] = len(at)
	out := Array{a.Type, dims, make([]float64, 0, Count(dims))}
	for o := range outer {
		for _, i := range at {
			out.Data = append(out.Data, a.Data[(o*n+i)*inner:(o*n+i+1)*inner]...)
		}
	}
	return out
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

func padKernel(c *computation) []Array {
	x, pads := c.in[0], c.ints(1, nil)
	if mode := c.n.Str("mode", "constant"); mode != "constant" {
		return one(x.mirrored(c.padAmounts(pads), mode))
	}
	rank := len(x.Dims)
	pads = c.padAmounts(pads)
	dims := slices.Clone(x.Dims)
	for i := range dims {
		dims[i] += pads[i] + pads[rank+i]
	}
	out := zeros(x.Type, dims...)
	if c.has(2) {
		for i := range out.Data {
			out.Data[i] = c.in[2].Data[0]
		}
	}
	i := 0
	eachIndex(x.Dims, func(at []int) {
		to := make([]int, rank)
		for j := range at {
			to[j] = at[j] + pads[j]
		}
		if k, ok := offset(to, dims); ok {
			out.Data[k] = x.Data[i]
		}
		i++
	})
	return one(out)
}

// padAmounts spreads the amounts for named axes over all.
func (c *computation) padAmounts(pads []int) []int {
	rank := len(c.in[0].Dims)
	if !c.has(3) {
		return pads
	}
	axes := inRange(c.ints(3, nil), rank)
	all := make([]int, 2*rank)
	for i, a := range axes {
		all[a], all[rank+a] = pads[i], pads[len(axes)+i]
	}
	return all
}

// mirrored pads with the tensor's own elements: those behind its edge, or the edge itself.
func (a Array) mirrored(pads []int, mode string) Array {
	rank := len(a.Dims)
	dims := slices.Clone(a.Dims)
	for i := range dims {
		dims[i] += pads[i] + pads[rank+i]
	}
	out, i := zeros(a.Type, dims...), 0
	eachIndex(dims, func(at []int) {
		from := make([]int, rank)
		for j, n := range a.Dims {
			from[j] = padSource(at[j]-pads[j], n, mode)
		}
		k, _ := offset(from, a.Dims)
		out.Data[i] = a.Data[k]
		i++
	})
	return out
}

// padSource is the place in [0,n) that place i, perhaps outside, takes its element from.
func padSource(i, n int, mode string) int {
	switch {
	case mode == "edge", mode == "reflect" && n == 1 && i == 0:
		return min(max(i, 0), n-1)
	case mode == "wrap":
		return ((i % n) + n) % n
	case mode == "reflect" && n > 1:
		if i = ((i % (2*n - 2)) + 2*n - 2) % (2*n - 2); i >= n {
			i = 2*n - 2 - i
		}
		return i
	}
	panic(unfit("padding mode %s of extent %d is not interpreted", mode, n))
}
