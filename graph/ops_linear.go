package graph

import "slices"

var _ = register(map[string]row{
	"MatMul": {matmulShape, gradMatMul, matmulKernel},
	"Gemm":   {gemmShape, gradGemm, gemmKernel},
})

func matmulShape(c *ctx) {
	a, b := c.shape(0), c.shape(1)
	if len(a) == 0 || len(b) == 0 {
		c.fail("operands %s and %s", a, b)
	}
	vectorA, vectorB := len(a) == 1, len(b) == 1
	if vectorA {
		a = Shape{Known(1), a[0]}
	}
	if vectorB {
		b = Shape{b[0], Known(1)}
	}
	c.either(a[len(a)-1], b[len(b)-2], b)
	out := c.broadcast(a[:len(a)-2], b[:len(b)-2])
	if !vectorA {
		out = append(out, a[len(a)-2])
	}
	if !vectorB {
		out = append(out, b[len(b)-1])
	}
	c.out(0, c.n.Inputs[0].Type, out)
}

// gradMatMul: dA = dY B', dB = A' dY, summed over broadcast axes. A vector is a matrix of one
// row, or as the second operand of one column.
func gradMatMul(b *backward, n *Node) {
	x, y, dy := n.Inputs[0], n.Inputs[1], b.dy(n)
	column := len(y.Shape) == 1
	if column {
		y, dy = b.Op("Unsqueeze", nil, y, b.Ints(1)), b.Op("Unsqueeze", nil, dy, b.Ints(-1))
	}
	if len(x.Shape) == 1 {
		x, dy = b.Op("Unsqueeze", nil, x, b.Ints(0)), b.Op("Unsqueeze", nil, dy, b.Ints(-2))
	}
	if b.wants(n, 0) {
		b.give(n, 0, b.MatMul(dy, b.transposed(y)))
	}
	switch {
	case !b.wants(n, 1):
		return
	case column:
		b.give(n, 1, b.Op("Squeeze", nil, b.MatMul(b.SwapLast(x), dy), b.Ints(-1)))
		return
	}
	if len(y.Shape) == 2 && len(x.Shape) > 2 {
		// One weight for all rows: one product over all of them, not a sum of many.
		rows := func(v *Value) *Value { return b.Op("Flatten", Attrs{"axis": int64(len(v.Shape) - 1)}, v) }
		b.give(n, 1, b.MatMul(b.SwapLast(rows(x)), rows(dy)))
		return
	}
	b.give(n, 1, b.MatMul(b.SwapLast(x), dy))
}

// transposed swaps the last two axes, undoing a Transpose that was only made for the product.
func (b *Builder) transposed(y *Value) *Value {
	if d := y.Def; d != nil && d.Op == "Transpose" {
		perm := permutation(d, len(y.Shape))
		k := len(perm)
		swap := firstN(k)
		swap[k-1], swap[k-2] = swap[k-2], swap[k-1]
		if slices.Equal(perm, swap) {
			return d.Inputs[0]
		}
	}
	return b.SwapLast(y)
}

func matmulKernel(c *computation) []Array { return one(matmul(c.in[0], c.in[1])) }

// matmul takes a vector for a matrix of one row, or as the second operand of one column.
func matmul(a, b Array) Array {
	switch {
	case len(a.Dims) == 0 || len(b.Dims) == 0:
		panic(unfit("matmul of %v and %v", a.Dims, b.Dims))
	case len(a.Dims) == 1:
		out := matmul(a.reshaped(1, a.Dims[0]), b)
		at := len(out.Dims) - min(2, len(b.Dims))
		return out.reshaped(slices.Delete(slices.Clone(out.Dims), at, at+1)...)
	case len(b.Dims) == 1:
		out := matmul(a, b.reshaped(b.Dims[0], 1))
		return out.reshaped(out.Dims[:len(out.Dims)-1]...)
	}
	n, k := a.Dims[len(a.Dims)-2], a.Dims[len(a.Dims)-1]
	m := b.Dims[len(b.Dims)-1]
	if b.Dims[len(b.Dims)-2] != k {
		panic(unfit("matmul of %v and %v", a.Dims, b.Dims))
	}
	lead := broadcast(a.Dims[:len(a.Dims)-2], b.Dims[:len(b.Dims)-2])
	a = a.expand(append(slices.Clone(lead), n, k))
	single := len(b.Dims) == 2
	if !single {
		b = b.expand(append(slices.Clone(lead), k, m))
	}
	out := zeros(a.Type, append(slices.Clone(lead), n, m)...)
	for batch := range Count(lead) {
		right := b.Data
		if !single {
			right = b.Data[batch*k*m:]
		}
		for i := range n {
			row := out.Data[(batch*n+i)*m : (batch*n+i+1)*m]
			for j := range k {
				x := a.Data[(batch*n+i)*k+j]
				for l, y := range right[j*m : (j+1)*m] {
					row[l] += x * y
				}
			}
		}
	}
	return out
}

func gemmShape(c *ctx) {
	a, b := c.shape(0), c.shape(1)
	if len(a) != 2 || len(b) != 2 {
		c.fail("operands %s and %s", a, b)
	}
	rows, cols := a[0], b[1]
	if c.n.Int("transA", 0) != 0 {
		rows = a[1]
	}
	if c.n.Int("transB", 0) != 0 {
		cols = b[0]
	}
	c.out(0, c.n.Inputs[0].Type, Shape{rows, cols})
}

// gradGemm: Y = alpha op(A) op(B) + beta C.
func gradGemm(b *backward, n *Node) {
	alpha, tA, tB := n.Float("alpha", 1), n.Int("transA", 0), n.Int("transB", 0)
	x, y, dy := n.Inputs[0], n.Inputs[1], b.dy(n)
	gemm := func(p, q *Value, tp, tq int64) *Value {
		return b.Op("Gemm", Attrs{"alpha": alpha, "transA": tp, "transB": tq}, p, q)
	}
	if b.wants(n, 0) {
		if tA == 0 {
			b.give(n, 0, gemm(dy, y, 0, 1-tB))
		} else {
			b.give(n, 0, gemm(y, dy, tB, 1))
		}
	}
	if b.wants(n, 1) {
		if tB == 0 {
			b.give(n, 1, gemm(x, dy, 1-tA, 0))
		} else {
			b.give(n, 1, gemm(dy, x, 1, tA))
		}
	}
	if b.wants(n, 2) {
		b.give(n, 2, b.Mul(dy, b.Scalar(float64(n.Float("beta", 1)), dy)))
	}
}

func gemmKernel(c *computation) []Array {
	a, b := c.in[0], c.in[1]
	if c.n.Int("transA", 0) != 0 {
		a = a.transpose([]int{1, 0})
	}
	if c.n.Int("transB", 0) != 0 {
		b = b.transpose([]int{1, 0})
	}
	alpha, beta := float64(c.n.Float("alpha", 1)), float64(c.n.Float("beta", 1))
	out := apply(matmul(a, b), func(x float64) float64 { return alpha * x })
	if c.has(2) {
		out = pair(out, c.in[2], func(x, y float64) float64 { return x + beta*y })
	}
	return one(out)
}
