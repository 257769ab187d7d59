package graph

import (
	"fmt"
	"math"
)

func errRank(v *Value) error { return fmt.Errorf("%q has shape %s", v.Name, v.Shape) }

// scalar makes a scalar constant of a float type.
func scalar(x float64, t DataType) *Tensor {
	switch t {
	case Double:
		return NewTensor([]float64{x})
	case Int64:
		return NewTensor([]int64{int64(x)})
	case Int32:
		return NewTensor([]int32{int32(x)})
	case Float16:
		h := float16bits(float32(x))
		return &Tensor{Type: Float16, data: []byte{byte(h), byte(h >> 8)}}
	case BFloat16:
		h := math.Float32bits(float32(x)) >> 16
		return &Tensor{Type: BFloat16, data: []byte{byte(h), byte(h >> 8)}}
	}
	return NewTensor([]float32{float32(x)})
}

// float16bits rounds to the nearest half float.
func float16bits(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	exp := int(bits>>23&0xff) - 127 + 15
	frac := bits & 0x7fffff
	switch {
	case bits&0x7fffffff > 0x7f800000:
		return sign | 0x7e00
	case exp >= 31:
		return sign | 0x7c00
	case exp <= 0:
		if exp < -10 {
			return sign
		}
		frac |= 0x800000
		shift := uint(14 - exp)
		half := uint16(frac >> shift)
		if rest, mid := frac&(1<<shift-1), uint32(1)<<(shift-1); rest > mid || rest == mid && half&1 == 1 {
			half++
		}
		return sign | half
	}
	half := sign | uint16(exp<<10) | uint16(frac>>13)
	if rest := frac & 0x1fff; rest > 0x1000 || rest == 0x1000 && half&1 == 1 {
		half++
	}
	return half
}

var _ = register(map[string]row{
	"Add": {arithmetic(Dim.Add), func(b *backward, n *Node) {
		for i := range 2 {
			if b.wants(n, i) {
				b.give(n, i, b.dy(n))
			}
		}
	}, binaryKernel(plus)},
	"Sub": {arithmetic(Dim.Sub), func(b *backward, n *Node) {
		if b.wants(n, 0) {
			b.give(n, 0, b.dy(n))
		}
		if b.wants(n, 1) {
			b.give(n, 1, b.Op("Neg", nil, b.dy(n)))
		}
	}, binaryKernel(func(x, y float64) float64 { return x - y })},
	"Mul": {arithmetic(Dim.Mul), func(b *backward, n *Node) {
		for i := range 2 {
			if b.wants(n, i) {
				b.give(n, i, b.Mul(b.dy(n), n.Inputs[1-i]))
			}
		}
	}, binaryKernel(times)},
	"Div": {arithmetic(quotient), func(b *backward, n *Node) {
		dx := b.Div(b.dy(n), n.Inputs[1])
		if b.wants(n, 0) {
			b.give(n, 0, dx)
		}
		if b.wants(n, 1) {
			b.give(n, 1, b.Op("Neg", nil, b.Mul(dx, n.Outputs[0])))
		}
	}, divKernel},
	"Mod":            {modShape, gradMod, modKernel},
	"Pow":            {broadcastRule, gradPow, binaryKernel(math.Pow)},
	"Max":            {broadcastRule, gradExtreme, foldKernel(math.Max)},
	"Min":            {broadcastRule, gradExtreme, foldKernel(math.Min)},
	"Sum":            {broadcastRule, gradSum, foldKernel(plus)},
	"Mean":           {broadcastRule, gradMean, meanKernel},
	"Identity":       {identity, chain(func(b *backward, n *Node) *Value { return b.dy(n) }), identityKernel},
	"Cast":           {castShape, chain(func(b *backward, n *Node) *Value { return b.cast(b.dy(n), n.Inputs[0].Type) }), castKernel},
	"Where":          {whereShape, gradWhere, whereKernel},
	"Clip":           {unary, gradClip, clipKernel},
	"Equal":          {compare(func(x, y int64) bool { return x == y }), nil, comparisonKernel(func(x, y float64) bool { return x == y })},
	"Less":           {compare(func(x, y int64) bool { return x < y }), nil, comparisonKernel(func(x, y float64) bool { return x < y })},
	"Greater":        {compare(func(x, y int64) bool { return x > y }), nil, comparisonKernel(func(x, y float64) bool { return x > y })},
	"LessOrEqual":    {compare(func(x, y int64) bool { return x <= y }), nil, comparisonKernel(func(x, y float64) bool { return x <= y })},
	"GreaterOrEqual": {compare(func(x, y int64) bool { return x >= y }), nil, comparisonKernel(func(x, y float64) bool { return x >= y })},
	"And":            {logical, nil, comparisonKernel(func(x, y float64) bool { return x != 0 && y != 0 })},
	"Or":             {logical, nil, comparisonKernel(func(x, y float64) bool { return x != 0 || y != 0 })},
	"Xor":            {logical, nil, comparisonKernel(func(x, y float64) bool { return (x != 0) != (y != 0) })},
	"Not":            {logical, nil, testKernel(func(x float64) bool { return x == 0 })},
	"IsNaN":          {logical, nil, testKernel(math.IsNaN)},
	"IsInf":          {logical, nil, isInfKernel},
})

// unary: the output is like the input.
func unary(c *ctx) { c.same() }

func identity(c *ctx) {
	c.same()
	if ds, ok := c.ints(0); ok {
		c.holds(ds)
	}
}

func identityKernel(c *computation) []Array { return one(c.in[0]) }

// chain is the gradient of an operator whose first input alone matters.
func chain(dx func(b *backward, n *Node) *Value) func(*backward, *Node) {
	return func(b *backward, n *Node) {
		b.onlyWants(n, 1)
		if b.wants(n, 0) {
			b.give(n, 0, dx(b, n))
		}
	}
}

func (b *backward) twice(x *Value) *Value { return b.Add(x, x) }

// square is factor*x^2 + add, of the node's first input.
func (b *backward) square(n *Node, factor, add float64) *Value {
	x := n.Inputs[0]
	y := b.Mul(x, x)
	if factor != 1 {
		y = b.Mul(y, b.Scalar(factor, x))
	}
	return b.Add(y, b.Scalar(add, x))
}

// gradMod: the remainder is x - k*y, with a whole number k that does not change near by.
func gradMod(b *backward, n *Node) {
	x, y := n.Inputs[0], n.Inputs[1]
	if b.wants(n, 0) {
		b.give(n, 0, b.dy(n))
	}
	if b.wants(n, 1) {
		k := b.Div(b.Sub(x, n.Outputs[0]), y)
		b.give(n, 1, b.Op("Neg", nil, b.Mul(b.dy(n), k)))
	}
}

func (b *Builder) cast(x *Value, to DataType) *Value {
	if x.Type == to {
		return x
	}
	return b.Op("Cast", Attrs{"to": int64(to)}, x)
}

// widened is x, half floats as floats: what sums and norms are formed in.
func (b *Builder) widened(x *Value) *Value {
	if x.Type == Float16 || x.Type == BFloat16 {
		return b.cast(x, Float)
	}
	return x
}

func broadcastRule(c *ctx) {
	shapes := make([]Shape, len(c.n.Inputs))
	for i := range shapes {
		shapes[i] = c.shape(i)
	}
	c.out(0, c.n.Inputs[0].Type, c.broadcast(shapes...))
}

// foldKernel combines any number of operands, from the left.
func foldKernel(f func(x, y float64) float64) func(*computation) []Array {
	return func(c *computation) []Array {
		acc := c.in[0]
		for _, a := range c.in[1:] {
			acc = pair(acc, a, f)
		}
		return one(acc)
	}
}

// arithmetic is broadcasting that also follows the contents of integers.
func arithmetic(op func(a, b Dim) Dim) func(*ctx) {
	return func(c *ctx) {
		broadcastRule(c)
		if c.n.Inputs[0].Type.IsFloat() {
			return
		}
		if ds, ok := c.zip(op); ok {
			c.holds(ds)
		}
	}
}

// binaryKernel combines two operands.
func binaryKernel(f func(x, y float64) float64) func(*computation) []Array {
	return func(c *computation) []Array { return one(pair(c.in[0], c.in[1], f)) }
}

func plus(x, y float64) float64 { return x + y }

func times(x, y float64) float64 { return x * y }

// quotient is Div's of integers, which cuts off; extents are never negative.
func quotient(a, b Dim) Dim {
	x, ok1 := a.Int()
	y, ok2 := b.Int()
	if ok1 && ok2 && y != 0 {
		return Known(x / y)
	}
	return a.Div(b)
}

// divKernel truncates integers, as the specification has it.
func divKernel(c *computation) []Array {
	if c.in[0].Type.IsFloat() {
		return one(pair(c.in[0], c.in[1], func(x, y float64) float64 { return x / y }))
	}
	return one(pair(c.in[0], c.in[1], func(x, y float64) float64 { return math.Trunc(x / y) }))
}

// modShape: the remainder has the divisor's sign, with fmod the dividend's.
func modShape(c *ctx) {
	div := Dim.Div
	if c.n.Int("fmod", 0) != 0 {
		div = quotient
	}
	arithmetic(func(a, b Dim) Dim { return a.Sub(div(a, b).Mul(b)) })(c)
}

// modKernel takes the divisor's sign, with fmod the dividend's.
func modKernel(c *computation) []Array {
	return one(pair(c.in[0], c.in[1], func(x, y float64) float64 {
		r := math.Mod(x, y)
		if c.n.Int("fmod", 0) == 0 && r != 0 && (r < 0) != (y < 0) {
			r += y
		}
		return r
	}))
}

// zip combines the contents of inputs 0 and 1, one of which may be a single element.
func (c *ctx) zip(op func(a, b Dim) Dim) ([]Dim, bool) {
	a, okA := c.ints(0)
	b, okB := c.ints(1)
	if !okA || !okB || len(a) != len(b) && len(a) != 1 && len(b) != 1 {
		return nil, false
	}
	n := max(len(a), len(b))
	if len(a) == 0 || len(b) == 0 {
		n = 0
	}
	out := make([]Dim, n)
	for i := range out {
		x, y := a[i%len(a)], b[i%len(b)]
		if y.Is(0) && (c.n.Op == "Div" || c.n.Op == "Mod") {
			return nil, false
		}
		out[i] = op(x, y)
	}
	return out, true
}

func castShape(c *ctx) {
	to := DataType(c.n.Int("to", 0))
	c.out(0, to, c.shape(0))
	if to != Int64 && to != Int32 {
		return
	}
	if ds, ok := c.ints(0); ok {
		c.holds(ds)
	} else if c.n.Inputs[0].Type.IsFloat() {
		c.toInteger()
	}
}

func castKernel(c *computation) []Array {
	to := DataType(c.n.Int("to", 0))
	out := apply(c.in[0], func(x float64) float64 {
		switch {
		case to == Bool:
			return float64(flag(x != 0))
		case to.IsFloat():
			return x
		case math.IsNaN(x) || math.IsInf(x, 0):
			return indefinite(to)
		}
		return math.Trunc(x)
	})
	out.Type = to
	return one(out)
}

// indefinite is the integer that processors make of what is no finite number, which ONNX leaves open: some models multiply it by 0.
func indefinite(t DataType) float64 {
	switch t {
	case Int32:
		return math.MinInt32
	case Int64:
		return math.MinInt64
	}
	return 0
}

func whereShape(c *ctx) {
	c.out(0, c.n.Inputs[1].Type, c.broadcast(c.shape(0), c.shape(1), c.shape(2)))
	cond, ok := c.known(0)
	a, okA := c.ints(1)
	b, okB := c.ints(2)
	if !ok || !okA || !okB || len(cond) == 0 {
		return
	}
	n := max(len(cond), len(a), len(b))
	if n%len(cond) != 0 || len(a) == 0 || len(b) == 0 {
		return
	}
	out := make([]Dim, n)
	for i := range out {
		if cond[i%len(cond)] != 0 {
			out[i] = a[i%len(a)]
		} else {
			out[i] = b[i%len(b)]
		}
	}
	c.holds(out)
}

// decide compares two contents: by number where both are known; equal polynomials are equal.
// A symbol stands for an extent, so it is never negative.
func decide(a, b Dim, cmp func(x, y int64) bool) (result, ok bool) {
	if a.Equal(b) {
		return cmp(0, 0), true
	}
	x, okX := a.Int()
	y, okY := b.Int()
	if okX && okY {
		return cmp(x, y), true
	}
	if okX && x < 0 && isExtent(b) {
		return cmp(x, 0), true
	}
	if okY && y < 0 && isExtent(a) {
		return cmp(0, y), true
	}
	return false, false
}

// isExtent says whether all of a polynomial's coefficients are positive.
func isExtent(d Dim) bool {
	for _, t := range d.terms {
		if t.coef < 0 {
			return false
		}
	}
	return true
}

func compare(cmp func(x, y int64) bool) func(*ctx) {
	return func(c *ctx) {
		c.out(0, Bool, c.broadcast(c.shape(0), c.shape(1)))
		all := true
		ds, ok := c.zip(func(a, b Dim) Dim {
			v, sure := decide(a, b, cmp)
			all = all && sure
			return Known(flag(v))
		})
		if ok && all {
			c.holds(ds)
		}
	}
}

// comparisonKernel compares two operands.
func comparisonKernel(f func(x, y float64) bool) func(*computation) []Array {
	return func(c *computation) []Array {
		out := pair(c.in[0], c.in[1], func(x, y float64) float64 { return float64(flag(f(x, y))) })
		out.Type = Bool
		return one(out)
	}
}

func logical(c *ctx) {
	shapes := make([]Shape, len(c.n.Inputs))
	for i := range shapes {
		shapes[i] = c.shape(i)
	}
	c.out(0, Bool, c.broadcast(shapes...))
}

// testKernel tests each element.
func testKernel(f func(float64) bool) func(*computation) []Array {
	return func(c *computation) []Array {
		out := apply(c.in[0], func(x float64) float64 { return float64(flag(f(x))) })
		out.Type = Bool
		return one(out)
	}
}

func isInfKernel(c *computation) []Array {
	negative, positive := c.n.Int("detect_negative", 1) != 0, c.n.Int("detect_positive", 1) != 0
	return testKernel(func(x float64) bool { return negative && math.IsInf(x, -1) || positive && math.IsInf(x, 1) })(c)
}

// gradPow: x^p. A constant exponent is the usual case; the exponent's own gradient is
// y * log(x) (x > 0).
func gradPow(b *backward, n *Node) {
	x, p := n.Inputs[0], n.Inputs[1]
	if b.wants(n, 0) {
		dp := b.cast(p, x.Type)
		slope := b.Mul(dp, b.Op("Pow", nil, x, b.Sub(dp, b.Scalar(1, x))))
		if e, ok := exponent(p); ok && e == 2 {
			slope = b.twice(x)
		}
		b.give(n, 0, b.Mul(b.dy(n), slope))
	}
	if b.wants(n, 1) {
		b.give(n, 1, b.Mul(b.dy(n), b.Mul(n.Outputs[0], b.Op("Log", nil, x))))
	}
}

// exponent reads a constant one-element exponent.
func exponent(p *Value) (float64, bool) {
	if p.Const == nil || p.Const.Len() != 1 {
		return 0, false
	}
	switch p.Type {
	case Float:
		v, err := Values[float32](p.Const)
		return float64(firstOr(v)), err == nil
	case Int64:
		v, err := Values[int64](p.Const)
		return float64(firstOr(v)), err == nil
	}
	return 0, false
}

func firstOr[T any](v []T) (z T) {
	if len(v) > 0 {
		return v[0]
	}
	return z
}

// gradExtreme: Max and Min give the gradient to the inputs that are the result; ties go to
// the first of them.
func gradExtreme(b *backward, n *Node) {
	taken := b.Op("Less", nil, n.Outputs[0], n.Outputs[0]) // false, infinite or not
	for i, x := range n.Inputs {
		is := b.Op("And", nil, b.Op("Equal", nil, x, n.Outputs[0]), b.Op("Not", nil, taken))
		if b.wants(n, i) {
			b.give(n, i, b.Op("Where", nil, is, b.dy(n), b.Scalar(0, b.dy(n))))
		}
		taken = b.Op("Or", nil, taken, is)
	}
}

func gradSum(b *backward, n *Node) {
	for i := range n.Inputs {
		if b.wants(n, i) {
			b.give(n, i, b.dy(n))
		}
	}
}

func gradMean(b *backward, n *Node) {
	dx := b.Div(b.dy(n), b.Scalar(float64(len(n.Inputs)), b.dy(n)))
	for i := range n.Inputs {
		if b.wants(n, i) {
			b.give(n, i, dx)
		}
	}
}

func meanKernel(c *computation) []Array {
	sum := foldKernel(plus)(c)[0]
	return one(apply(sum, func(x float64) float64 { return x / float64(len(c.in)) }))
}

func gradWhere(b *backward, n *Node) {
	dy, zero := b.dy(n), b.Scalar(0, n.Outputs[0])
	if b.wants(n, 1) {
		b.give(n, 1, b.Op("Where", nil, n.Inputs[0], dy, zero))
	}
	if b.wants(n, 2) {
		b.give(n, 2, b.Op("Where", nil, n.Inputs[0], zero, dy))
	}
}

func whereKernel(c *computation) []Array {
	dims := broadcast(c.in[0].Dims, c.in[1].Dims, c.in[2].Dims)
	cond, x, y := c.in[0].expand(dims), c.in[1].expand(dims), c.in[2].expand(dims)
	out := zeros(x.Type, dims...)
	for i, k := range cond.Data {
		if out.Data[i] = y.Data[i]; k != 0 {
			out.Data[i] = x.Data[i]
		}
	}
	return one(out)
}

// gradClip passes the gradient where the input lies within the limits; a limit gets that of what it
// stands in for. The upper limit is applied last, so it has the last word.
func gradClip(b *backward, n *Node) {
	x, dx := n.Inputs[0], b.dy(n)
	zero := b.Scalar(0, dx)
	for i := 2; i > 0; i-- {
		limit := n.Input(i)
		if limit == nil {
			continue
		}
		outside := b.Op([]string{"Less", "Greater"}[i-1], nil, x, limit)
		if b.wants(n, i) {
			b.give(n, i, b.Op("Where", nil, outside, dx, zero))
		}
		dx = b.Op("Where", nil, outside, zero, dx)
	}
	if b.wants(n, 0) {
		b.give(n, 0, dx)
	}
}

func clipKernel(c *computation) []Array {
	low, high := math.Inf(-1), math.Inf(1)
	if c.has(1) {
		low = c.in[1].Data[0]
	}
	if c.has(2) {
		high = c.in[2].Data[0]
	}
	return one(apply(c.in[0], func(x float64) float64 { return math.Min(math.Max(x, low), high) }))
}
