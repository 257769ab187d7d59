package graph

import "slices"

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
