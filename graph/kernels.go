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

// geometry is how a convolution moves its kernel over any number of axes.
type geometry struct {
	kernel, stride, dilate, pad []int
	group                       int
}

// geometry reads how a node moves a kernel over spatial axes.
func (c *computation) geometry(kernel, spatial []int) geometry {
	w := geometry{kernel: kernel, stride: c.attrInts("strides"), dilate: c.attrInts("dilations"), pad: c.attrInts("pads"), group: int(c.n.Int("group", 1))}
	ones := slices.Repeat([]int{1}, len(w.kernel))
	if w.stride == nil {
		w.stride = ones
	}
	if w.dilate == nil {
		w.dilate = ones
	}
	if w.pad == nil {
		w.pad = make([]int, 2*len(w.kernel))
	}
	switch auto := c.n.Str("auto_pad", "NOTSET"); auto {
	case "SAME_UPPER", "SAME_LOWER":
		w.padSame(spatial, auto == "SAME_LOWER")
	}
	return w
}

// padSame pads so that an axis shrinks by its stride alone; an odd row goes to the end, or
// to the front.
func (w *geometry) padSame(spatial []int, front bool) {
	for i, n := range spatial {
		out := (n + w.stride[i] - 1) / w.stride[i]
		total := max(0, (out-1)*w.stride[i]+w.dilate[i]*(w.kernel[i]-1)+1-n)
		w.pad[i], w.pad[len(spatial)+i] = total/2, total-total/2
		if front {
			w.pad[i], w.pad[len(spatial)+i] = total-total/2, total/2
		}
	}
}

// extents are the numbers of places that the kernel takes along each axis.
func (w geometry) extents(spatial []int, roundUp bool) []int {
	out := make([]int, len(spatial))
	for i, n := range spatial {
		free := n + w.pad[i] + w.pad[len(spatial)+i] - w.dilate[i]*(w.kernel[i]-1) - 1
		out[i] = free/w.stride[i] + 1
		if roundUp && free%w.stride[i] != 0 && out[i]*w.stride[i] < n+w.pad[i] {
			out[i]++ // a place that would begin in the padding at the end does not count
		}
	}
	return out
}

// source is where tap k of the kernel reads, for output position o.
func (w geometry) source(o, k []int) []int {
	at := make([]int, len(o))
	for i := range o {
		at[i] = o[i]*w.stride[i] + k[i]*w.dilate[i] - w.pad[i]
	}
	return at
}

func convKernel(c *computation) []Array {
	x, weight := c.in[0], c.in[1]
	spatial := x.Dims[2:]
	w := c.geometry(weight.Dims[2:], spatial)
	outDims := w.extents(spatial, false)
	outs, perGroup := weight.Dims[0], weight.Dims[1]
	out := zeros(x.Type, append([]int{x.Dims[0], outs}, outDims...)...)
	area, outArea, taps := Count(spatial), Count(outDims), Count(w.kernel)
	for b := range x.Dims[0] {
		for o := range outs {
			group := o / (outs / w.group)
			pos := 0
			eachIndex(outDims, func(at []int) {
				sum := 0.0
				if c.has(2) {
					sum = c.in[2].Data[o]
				}
				tap := 0
				eachIndex(w.kernel, func(k []int) {
					if from, ok := offset(w.source(at, k), spatial); ok {
						for ch := range perGroup {
							sum += x.Data[(b*x.Dims[1]+group*perGroup+ch)*area+from] * weight.Data[(o*perGroup+ch)*taps+tap]
						}
					}
					tap++
				})
				out.Data[(b*outs+o)*outArea+pos] = sum
				pos++
			})
		}
	}
	return one(out)
}

// convTransposeKernel scatters what convolve gathers.
func convTransposeKernel(c *computation) []Array {
	x, weight := c.in[0], c.in[1]
	spatial := x.Dims[2:]
	w, outDims := c.transposedGeometry(weight.Dims[2:], spatial)
	perGroup := weight.Dims[1]
	outs := perGroup * w.group
	out := zeros(x.Type, append([]int{x.Dims[0], outs}, outDims...)...)
	area, outArea, taps := Count(spatial), Count(outDims), Count(w.kernel)
	ins := x.Dims[1] / w.group
	for b := range x.Dims[0] {
		for ch := range x.Dims[1] {
			group, pos := ch/ins, 0
			eachIndex(spatial, func(at []int) {
				value, tap := x.Data[(b*x.Dims[1]+ch)*area+pos], 0
				eachIndex(w.kernel, func(k []int) {
					if to, ok := offset(w.source(at, k), outDims); ok {
						for o := range perGroup {
							out.Data[(b*outs+group*perGroup+o)*outArea+to] += value * weight.Data[(ch*perGroup+o)*taps+tap]
						}
					}
					tap++
				})
				pos++
			})
		}
	}
	if c.has(2) {
		for i := range out.Data {
			out.Data[i] += c.in[2].Data[i/outArea%outs]
		}
	}
	return one(out)
}

// transposedGeometry is the geometry of a ConvTranspose. Where the node says how large the
// output is, the padding follows from it.
func (c *computation) transposedGeometry(kernel, spatial []int) (w geometry, out []int) {
	w = c.geometry(kernel, spatial)
	auto, extra := c.n.Str("auto_pad", "NOTSET"), c.attrInts("output_padding")
	if extra == nil {
		extra = make([]int, len(spatial))
	}
	want := c.attrInts("output_shape")
	for i, n := range spatial {
		full := (n-1)*w.stride[i] + w.dilate[i]*(w.kernel[i]-1) + 1 + extra[i]
		size := full - w.pad[i] - w.pad[len(spatial)+i]
		switch {
		case want != nil:
			size = want[len(want)-len(spatial)+i]
		case auto == "SAME_UPPER" || auto == "SAME_LOWER":
			size = n * w.stride[i]
		default:
			out = append(out, size)
			continue
		}
		total := max(0, full-size)
		if w.pad[i] = total / 2; auto != "SAME_UPPER" {
			w.pad[i] = total - total/2
		}
		out = append(out, size)
	}
	return w, out
}

// pool gathers, channel by channel, what lies under the kernel and reduces it with f: the indices
// of its elements in x, and how many places the kernel has there, padding included.
func (c *computation) pool(f func(under []int, taps int) float64) Array {
	x := c.in[0]
	spatial := x.Dims[2:]
	w := c.geometry(c.attrInts("kernel_shape"), spatial)
	outDims := w.extents(spatial, c.n.Int("ceil_mode", 0) != 0)
	out := zeros(x.Type, append(slices.Clone(x.Dims[:2]), outDims...)...)
	padded := make([]int, len(spatial))
	for i, n := range spatial {
		padded[i] = n + w.pad[len(spatial)+i]
	}
	i, area := 0, Count(spatial)
	for channel := range x.Dims[0] * x.Dims[1] {
		eachIndex(outDims, func(at []int) {
			var under []int
			taps := 0
			eachIndex(w.kernel, func(k []int) {
				from := w.source(at, k)
				if at, ok := offset(from, spatial); ok {
					under = append(under, channel*area+at)
				}
				if within(from, padded) {
					taps++
				}
			})
			out.Data[i] = f(under, taps)
			i++
		})
	}
	return out
}

// within says whether a place lies before the end of the padding along every axis.
func within(at, ends []int) bool {
	for i, x := range at {
		if x >= ends[i] {
			return false
		}
	}
	return true
}

// maxPoolKernel also tells where in x each largest element stands; places in an image may count columns first.
func maxPoolKernel(c *computation) []Array {
	x, spatial := c.in[0].Data, c.in[0].Dims[2:]
	area := Count(spatial)
	turned := c.n.Int("storage_order", 0) != 0
	var indices []float64
	out := c.pool(func(under []int, _ int) float64 {
		best := under[0]
		for _, i := range under {
			if x[i] > x[best] {
				best = i
			}
		}
		place := best
		if turned {
			place = best - best%area + columnsFirst(best%area, spatial)
		}
		indices = append(indices, float64(place))
		return x[best]
	})
	return []Array{out, {Int64, out.Dims, indices}}
}

// columnsFirst is the number of the place k in dims when the first axis runs fastest.
func columnsFirst(k int, dims []int) int {
	out, step := 0, strides(dims)
	for i, size := len(dims)-1, Count(dims); i >= 0; i-- {
		size /= dims[i]
		out += k / step[i] % dims[i] * size
	}
	return out
}

func averagePoolKernel(c *computation) []Array {
	withPadding := c.n.Int("count_include_pad", 0) != 0
	return one(c.pool(func(under []int, taps int) float64 {
		if !withPadding {
			taps = len(under)
		}
		sum := 0.0
		for _, i := range under {
			sum += c.in[0].Data[i]
		}
		return sum / float64(taps)
	}))
}
