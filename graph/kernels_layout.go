package graph

import (
	"cmp"
	"math"
	"slices"
)

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
