package graph

import (
	"cmp"
	"math"
	"slices"
)

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

func flattenKernel(c *computation) []Array {
	x := c.in[0]
	axis := int(c.n.Int("axis", 1))
	if axis < 0 {
		axis += len(x.Dims)
	}
	return one(x.reshaped(Count(x.Dims[:axis]), Count(x.Dims[axis:])))
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

func transposeKernel(c *computation) []Array {
	perm := c.attrInts("perm")
	if perm == nil {
		for i := len(c.in[0].Dims) - 1; i >= 0; i-- {
			perm = append(perm, i)
		}
	}
	return one(c.in[0].transpose(perm))
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

func expandKernel(c *computation) []Array {
	return one(c.in[0].expand(broadcast(c.in[0].Dims, c.ints(1, nil))))
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

func shapeKernel(c *computation) []Array {
	dims := c.in[0].Dims
	start, end := int(c.n.Int("start", 0)), int(c.n.Int("end", int64(len(dims))))
	if start < 0 {
		start += len(dims)
	}
	if end < 0 {
		end += len(dims)
	}
	start, end = min(max(start, 0), len(dims)), min(max(end, 0), len(dims))
	dims = dims[min(start, end):end]
	out := zeros(Int64, len(dims))
	for i, d := range dims {
		out.Data[i] = float64(d)
	}
	return one(out)
}

func sizeKernel(c *computation) []Array {
	return one(Array{Int64, []int{}, []float64{float64(len(c.in[0].Data))}})
}

func constantOfShapeKernel(c *computation) []Array {
	fill := Array{Type: Float, Data: []float64{0}}
	if t, ok := c.n.Attrs["value"].Value.(*Tensor); ok {
		a, err := ArrayOf(t)
		if err != nil {
			panic(bail{err})
		}
		fill = a
	}
	out := zeros(fill.Type, c.ints(0, nil)...)
	for i := range out.Data {
		out.Data[i] = fill.Data[0]
	}
	return one(out)
}

func rangeKernel(c *computation) []Array {
	start, limit, delta := c.in[0].Data[0], c.in[1].Data[0], c.in[2].Data[0]
	out := Array{Type: c.in[0].Type}
	for x := start; delta > 0 && x < limit || delta < 0 && x > limit; x += delta {
		out.Data = append(out.Data, x)
	}
	out.Dims = []int{len(out.Data)}
	return one(out)
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

// elementAt is the place in dims that a *Elements operator's index means at position at.
func elementAt(at, dims []int, axis int, index float64) int {
	to := slices.Clone(at)
	to[axis] = wrap(int(index), dims[axis])
	k, _ := offset(to, dims)
	return k
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
