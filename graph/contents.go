package graph

import "slices"

// Shape arithmetic of any rank. The rows of the table follow the contents of vectors; the rules here
// follow those of all small integer and bool tensors, as padding amounts that are reshaped to pairs
// and turned around need it. Contents of more than one axis are never made constants.

// maxFollowed is how many elements the rules here look at in one inference; models have thousands.
const maxFollowed = 1 << 22

// contentRules give the elements of output 0, in row-major order; its shape is known already.
var contentRules = map[string]func(c *folding) []Dim{
	"Identity": sameElements, "Reshape": sameElements, "Squeeze": sameElements, "Unsqueeze": sameElements, "Flatten": sameElements,
	"Cast": cast, "Transpose": transposed, "Slice": sliced, "Concat": concatenated, "Expand": expanded, "Tile": tiled,
	"Gather": gathered, "ScatterND": scattered, "Where": chosen, "CumSum": cumulated, "Trilu": triangular, "ConstantOfShape": filled,
	"Add": each(func(a, b Dim) (Dim, bool) { return a.Add(b), true }),
	"Sub": each(func(a, b Dim) (Dim, bool) { return a.Sub(b), true }),
	"Mul": each(func(a, b Dim) (Dim, bool) { return a.Mul(b), true }),
	"Div": each(func(a, b Dim) (Dim, bool) { return quotient(a, b), !b.Is(0) }),
	"Min": each(lesser(1)), "Max": each(lesser(-1)),
	"Pow": numeric(power),
	"And": numeric(func(a, b int64) (int64, bool) { return a & b, true }),
	"Or":  numeric(func(a, b int64) (int64, bool) { return a | b, true }),
	"Xor": numeric(func(a, b int64) (int64, bool) { return a ^ b, true }),
	"Not": func(c *folding) []Dim {
		return c.map1(func(d Dim) (Dim, bool) { n, ok := d.Int(); return Known(1 - n), ok })
	},
	"Neg":            func(c *folding) []Dim { return c.map1(func(d Dim) (Dim, bool) { return Known(0).Sub(d), true }) },
	"Abs":            func(c *folding) []Dim { return c.map1(func(d Dim) (Dim, bool) { return magnitude(d) }) },
	"Equal":          each(decided(func(x, y int64) bool { return x == y })),
	"Less":           each(decided(func(x, y int64) bool { return x < y })),
	"Greater":        each(decided(func(x, y int64) bool { return x > y })),
	"LessOrEqual":    each(decided(func(x, y int64) bool { return x <= y })),
	"GreaterOrEqual": each(decided(func(x, y int64) bool { return x >= y })),
	"ReduceSum":      reduced(Known(0), func(a, b Dim) (Dim, bool) { return a.Add(b), true }),
	"ReduceProd":     reduced(Known(1), func(a, b Dim) (Dim, bool) { return a.Mul(b), true }),
}

// folding is a node whose output's elements are asked for.
type folding struct {
	*ctx
	shape []int64 // of the output
}

// followContents records the elements of a small integer output that the table's row has not.
func (in *inference) followContents(n *Node) {
	rule, out := contentRules[n.Op], n.Output(0)
	if rule == nil || n.Domain != "" || out == nil || out.Type != Int64 && out.Type != Int32 && out.Type != Bool {
		return
	}
	shape, ok := out.Shape.ints()
	if _, known := in.contents[out]; known || !ok || out.Shape == nil || Count(shape) > maxContents || Count(shape) < 0 {
		return
	}
	if in.followed += Count(shape); in.followed > maxFollowed {
		return
	}
	var unknown error // operands that don't fit each other, of which the row says nothing
	defer recoverBail(&unknown)
	if ds := rule(&folding{&ctx{in: in, n: n}, shape}); ds != nil && int64(len(ds)) == Count(shape) {
		in.hold(out, ds)
	}
}

// elements are those of a small integer or bool tensor of any rank, in row-major order.
func (in *inference) elements(v *Value) ([]Dim, bool) {
	if v == nil {
		return nil, false
	}
	if ds, ok := in.contents[v]; ok {
		return ds, true
	}
	if v.Const == nil || v.Const.Len() > maxContents {
		return nil, false
	}
	return in.constContents(v)
}

// operand is input i: its elements and its shape.
func (c *folding) operand(i int) ([]Dim, []int64, bool) {
	v := c.n.Input(i)
	ds, ok := c.in.elements(v)
	if !ok {
		return nil, nil, false
	}
	shape, ok := v.Shape.ints()
	return ds, shape, ok && v.Shape != nil && int64(len(ds)) == Count(shape)
}

// numbers are the elements of input i where all of them are numbers.
func (c *folding) numbers(i int) ([]int64, []int64, bool) {
	ds, shape, ok := c.operand(i)
	if !ok {
		return nil, nil, false
	}
	n, ok := Shape(ds).ints()
	return n, shape, ok
}

// build makes the output by its coordinates.
func (c *folding) build(at func(index []int64) (Dim, bool)) []Dim {
	out, index := make([]Dim, 0, Count(c.shape)), make([]int64, len(c.shape))
	for range Count(c.shape) {
		d, ok := at(index)
		if !ok {
			return nil
		}
		out = append(out, d)
		for axis := len(index) - 1; axis >= 0; axis-- {
			if index[axis]++; index[axis] < c.shape[axis] {
				break
			}
			index[axis] = 0
		}
	}
	return out
}

// spread is the place in an operand of the given shape that broadcasts to index.
func spread(shape, steps, index []int64) (place int64) {
	back := len(index) - len(shape)
	for i, n := range shape {
		if n != 1 {
			place += index[back+i] * steps[i]
		}
	}
	return place
}

func sameElements(c *folding) []Dim {
	ds, _, _ := c.operand(0)
	return ds
}

func cast(c *folding) []Dim {
	if c.n.Outputs[0].Type != Bool {
		return sameElements(c)
	}
	return c.map1(func(d Dim) (Dim, bool) { n, ok := d.Int(); return Known(flag(n != 0)), ok })
}

func (c *folding) map1(f func(Dim) (Dim, bool)) []Dim {
	ds, _, ok := c.operand(0)
	if !ok {
		return nil
	}
	out := make([]Dim, len(ds))
	for i, d := range ds {
		if out[i], ok = f(d); !ok {
			return nil
		}
	}
	return out
}

// each combines two operands, or more from the left, element by element.
func each(f func(a, b Dim) (Dim, bool)) func(c *folding) []Dim {
	return func(c *folding) []Dim {
		var sum []Dim
		for i := range c.n.Inputs {
			ds, shape, ok := c.operand(i)
			if !ok || len(shape) > len(c.shape) {
				return nil
			}
			steps, place := strides(shape), 0
			sum = c.build(func(index []int64) (Dim, bool) {
				d := ds[spread(shape, steps, index)]
				if place++; i == 0 {
					return d, true
				}
				return f(sum[place-1], d)
			})
			if sum == nil {
				return nil
			}
		}
		return sum
	}
}

// numeric combines numbers.
func numeric(f func(a, b int64) (int64, bool)) func(c *folding) []Dim {
	return each(func(a, b Dim) (Dim, bool) {
		x, ok1 := a.Int()
		y, ok2 := b.Int()
		if !ok1 || !ok2 {
			return Dim{}, false
		}
		n, ok := f(x, y)
		return Known(n), ok
	})
}

func power(x, e int64) (int64, bool) {
	out := int64(1)
	for range min(max(e, 0), 64) {
		if out *= x; out > 1<<40 || out < -1<<40 {
			return 0, false
		}
	}
	return out, e >= 0 && e <= 64
}

// lesser takes the smaller of two where sign is 1, the larger where it is -1, if it is sure which.
func lesser(sign int64) func(a, b Dim) (Dim, bool) {
	return func(a, b Dim) (Dim, bool) {
		first, ok := decide(a, b, func(x, y int64) bool { return sign*x <= sign*y })
		if first {
			return a, ok
		}
		return b, ok
	}
}

func decided(cmp func(x, y int64) bool) func(a, b Dim) (Dim, bool) {
	return func(a, b Dim) (Dim, bool) {
		v, sure := decide(a, b, cmp)
		return Known(flag(v)), sure
	}
}

func magnitude(d Dim) (Dim, bool) {
	if n, ok := d.Int(); ok {
		return Known(max(n, -n)), true
	}
	return d, isExtent(d)
}

func chosen(c *folding) []Dim {
	which, shape, ok := c.numbers(0)
	a, shapeA, okA := c.operand(1)
	b, shapeB, okB := c.operand(2)
	if !ok || !okA || !okB {
		return nil
	}
	steps, stepsA, stepsB := strides(shape), strides(shapeA), strides(shapeB)
	return c.build(func(index []int64) (Dim, bool) {
		if which[spread(shape, steps, index)] != 0 {
			return a[spread(shapeA, stepsA, index)], true
		}
		return b[spread(shapeB, stepsB, index)], true
	})
}

func expanded(c *folding) []Dim {
	ds, shape, ok := c.operand(0)
	if !ok || len(shape) > len(c.shape) {
		return nil
	}
	steps := strides(shape)
	return c.build(func(index []int64) (Dim, bool) { return ds[spread(shape, steps, index)], true })
}

func tiled(c *folding) []Dim {
	ds, shape, ok := c.operand(0)
	if !ok || len(shape) != len(c.shape) {
		return nil
	}
	steps := strides(shape)
	return c.build(func(index []int64) (Dim, bool) {
		place := int64(0)
		for i, at := range index {
			place += at % shape[i] * steps[i]
		}
		return ds[place], true
	})
}

func transposed(c *folding) []Dim {
	ds, shape, ok := c.operand(0)
	if !ok {
		return nil
	}
	steps, perm := strides(shape), permutation(c.n, len(shape))
	return c.build(func(index []int64) (Dim, bool) {
		place := int64(0)
		for i, at := range index {
			place += at * steps[perm[i]]
		}
		return ds[place], true
	})
}

func sliced(c *folding) []Dim {
	ds, shape, ok := c.operand(0)
	starts, _, ok1 := c.numbers(1)
	if !ok || !ok1 {
		return nil
	}
	first, step := make([]int64, len(shape)), slices.Repeat([]int64{1}, len(shape))
	axes := firstN(len(starts))
	if c.n.Input(3) != nil {
		if axes, _, ok = c.numbers(3); !ok {
			return nil
		}
	}
	by := slices.Repeat([]int64{1}, len(starts))
	if c.n.Input(4) != nil {
		if by, _, ok = c.numbers(4); !ok {
			return nil
		}
	}
	for i, a := range axes {
		axis := c.axis(a, len(shape))
		start := starts[i]
		if start < 0 {
			start += shape[axis]
		}
		first[axis], step[axis] = max(0, min(start, shape[axis]-flag(by[i] < 0))), by[i]
	}
	steps := strides(shape)
	return c.build(func(index []int64) (Dim, bool) {
		place := int64(0)
		for i, at := range index {
			place += (first[i] + at*step[i]) * steps[i]
		}
		return ds[place], true
	})
}

func concatenated(c *folding) []Dim {
	axis := c.axis(c.n.Int("axis", 0), len(c.shape))
	var parts [][]Dim
	var shapes, steps [][]int64
	for i := range c.n.Inputs {
		ds, shape, ok := c.operand(i)
		if !ok || len(shape) != len(c.shape) {
			return nil
		}
		parts, shapes, steps = append(parts, ds), append(shapes, shape), append(steps, strides(shape))
	}
	return c.build(func(index []int64) (Dim, bool) {
		at, i := index[axis], 0
		for ; at >= shapes[i][axis]; i++ {
			at -= shapes[i][axis]
		}
		place := at * steps[i][axis]
		for k, n := range index {
			if k != axis {
				place += n * steps[i][k]
			}
		}
		return parts[i][place], true
	})
}

func gathered(c *folding) []Dim {
	ds, shape, ok := c.operand(0)
	at, where, ok1 := c.numbers(1)
	if !ok || !ok1 {
		return nil
	}
	axis := c.axis(c.n.Int("axis", 0), len(shape))
	steps, to := strides(shape), strides(where)
	return c.build(func(index []int64) (Dim, bool) {
		k := int64(0)
		for i, s := range to {
			k += index[axis+i] * s
		}
		row := at[k]
		if row < 0 {
			row += shape[axis]
		}
		place := row * steps[axis]
		for i := range shape {
			switch {
			case i < axis:
				place += index[i] * steps[i]
			case i > axis:
				place += index[i-1+len(where)] * steps[i]
			}
		}
		return ds[place], row >= 0 && row < shape[axis]
	})
}

// scattered overwrites slices of input 0 with those of input 2, where input 1 says.
func scattered(c *folding) []Dim {
	ds, shape, ok := c.operand(0)
	at, where, ok1 := c.numbers(1)
	updates, _, ok2 := c.operand(2)
	if !ok || !ok1 || !ok2 || len(where) == 0 || c.n.Str("reduction", "none") != "none" {
		return nil
	}
	deep := where[len(where)-1]
	size, steps, out := Count(shape[deep:]), strides(shape), slices.Clone(ds)
	for i := range Count(where[:len(where)-1]) {
		place := int64(0)
		for k := range deep {
			n := at[i*deep+k]
			if n < 0 {
				n += shape[k]
			}
			if n < 0 || n >= shape[k] {
				return nil
			}
			place += n * steps[k]
		}
		copy(out[place:place+size], updates[i*size:(i+1)*size])
	}
	return out
}

func cumulated(c *folding) []Dim {
	ds, shape, ok := c.operand(0)
	along, _, ok1 := c.numbers(1)
	if !ok || !ok1 || len(along) != 1 {
		return nil
	}
	axis := c.axis(along[0], len(shape))
	step, n := strides(shape)[axis], shape[axis]
	out := make([]Dim, len(ds))
	for i := range ds {
		place := int64(i) / step % n
		from, to := int64(0), place
		if c.n.Int("reverse", 0) != 0 {
			from, to = place, n-1
		}
		exclusive := c.n.Int("exclusive", 0) != 0
		for k := from; k <= to; k++ {
			if !exclusive || k != place {
				out[i] = out[i].Add(ds[int64(i)+(k-place)*step])
			}
		}
	}
	return out
}

func triangular(c *folding) []Dim {
	ds, shape, ok := c.operand(0)
	rank, k := len(shape), int64(0)
	if c.n.Input(1) != nil {
		by, _, ok := c.numbers(1)
		if !ok || len(by) != 1 {
			return nil
		}
		k = by[0]
	}
	if !ok || rank < 2 {
		return nil
	}
	place := 0
	return c.build(func(index []int64) (Dim, bool) {
		d, above := ds[place], index[rank-1]-index[rank-2]
		if place++; c.n.Int("upper", 1) != 0 && above < k || c.n.Int("upper", 1) == 0 && above > k {
			d = Known(0)
		}
		return d, true
	})
}

func filled(c *folding) []Dim {
	t, _ := c.n.Attrs["value"].Value.(*Tensor)
	if t == nil || t.Len() != 1 {
		return nil
	}
	ds, ok := c.in.elements(&Value{Type: t.Type, Shape: known(t.Dims), Const: t})
	if !ok {
		return nil
	}
	return slices.Repeat(ds, int(Count(c.shape)))
}

// reduced combines the elements along the axes that input 1 names, or all.
func reduced(empty Dim, f func(a, b Dim) (Dim, bool)) func(c *folding) []Dim {
	return func(c *folding) []Dim {
		ds, shape, ok := c.operand(0)
		if !ok {
			return nil
		}
		over := make([]bool, len(shape))
		if c.n.Input(1) != nil {
			axes, _, ok := c.numbers(1)
			if !ok || len(axes) == 0 {
				return nil
			}
			for _, a := range axes {
				over[c.axis(a, len(shape))] = true
			}
		} else if c.n.Int("noop_with_empty_axes", 0) != 0 {
			return nil
		} else {
			for i := range over {
				over[i] = true
			}
		}
		steps, next := make([]int64, len(shape)), int64(1)
		for i := len(shape) - 1; i >= 0; i-- {
			if !over[i] {
				steps[i], next = next, next*shape[i]
			}
		}
		out := slices.Repeat([]Dim{empty}, int(next))
		for i, d := range ds {
			place := int64(0)
			for k, s := range strides(shape) {
				place += int64(i) / s % shape[k] * steps[k]
			}
			if out[place], ok = f(out[place], d); !ok {
				return nil
			}
		}
		return out
	}
}
