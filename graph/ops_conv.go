package graph

import (
	"slices"
	"strings"
)

var _ = register(map[string]row{
	"Conv":          {convShape, gradConv, convKernel},
	"ConvTranspose": {convTransposeShape, gradConvTranspose, convTransposeKernel},
	"MaxPool":       {poolShape, chain(gradMaxPool), maxPoolKernel},
	"AveragePool":   {poolShape, chain(gradAveragePool), averagePoolKernel},
})

// conv reads a convolution's attributes with their defaults written out.
type conv struct {
	kernel           []int64
	strides, dilates []int64
	pads             []int64 // begins, then ends
	group            int64
}

func readConv(n *Node) conv {
	w := n.Inputs[1].Shape
	c := readWindow(n, len(w)-2)
	if c.kernel == nil {
		k, ok := w[2:].Ints()
		if !ok {
			fail(n, "the kernel's extents %s depend on the run", w)
		}
		c.kernel = k
	}
	if auto := n.Str("auto_pad", "NOTSET"); auto != "NOTSET" && auto != "VALID" {
		c.padSame(n, auto == "SAME_LOWER")
	}
	return c
}

// readWindow reads what convolutions and pooling have in common.
func readWindow(n *Node, spatial int) conv {
	c := conv{n.Ints("kernel_shape"), n.Ints("strides"), n.Ints("dilations"), n.Ints("pads"), n.Int("group", 1)}
	ones := make([]int64, spatial)
	for i := range ones {
		ones[i] = 1
	}
	if c.strides == nil {
		c.strides = ones
	}
	if c.dilates == nil {
		c.dilates = ones
	}
	if c.pads == nil {
		c.pads = make([]int64, 2*spatial)
	}
	return c
}

// padSame works out the padding with which an axis shrinks by its stride and no more. An
// odd row goes to the end, or to the front where lower is set.
func (c *conv) padSame(n *Node, lower bool) {
	c.pads = make([]int64, 2*len(c.kernel))
	for i, k := range c.kernel {
		extent, ok := n.Inputs[0].Shape[2+i].Int()
		if !ok {
			fail(n, "auto_pad %q with an input of %s", n.Str("auto_pad", ""), n.Inputs[0].Shape)
		}
		out := (extent + c.strides[i] - 1) / c.strides[i]
		total := max(0, (out-1)*c.strides[i]+c.dilates[i]*(k-1)+1-extent)
		front := total / 2
		if lower {
			front = total - front
		}
		c.pads[i], c.pads[len(c.kernel)+i] = front, total-front
	}
}

func convShape(c *ctx) {
	x, w := c.shape(0), c.shape(1)
	if len(x) != len(w) || len(x) < 3 {
		c.fail("operands %s and %s", x, w)
	}
	v := readConv(c.n)
	out := Shape{x[0], w[0]}
	for i := range v.kernel {
		out = append(out, v.places(x[2+i], i, false))
	}
	c.out(0, c.n.Inputs[0].Type, out)
}

// places is how often the kernel fits along a spatial axis. Rounded up, a place that would
// begin in the padding at the end does not count.
func (v conv) places(extent Dim, axis int, up bool) Dim {
	span := v.dilates[axis]*(v.kernel[axis]-1) + 1
	free := extent.Add(Known(v.pads[axis] + v.pads[len(v.kernel)+axis] - span))
	if !up {
		return free.Div(Known(v.strides[axis])).Add(Known(1))
	}
	out := free.Add(Known(v.strides[axis] - 1)).Div(Known(v.strides[axis])).Add(Known(1))
	n, ok1 := extent.Int()
	count, ok2 := out.Int()
	if ok1 && ok2 && (count-1)*v.strides[axis] >= n+v.pads[axis] {
		return Known(count - 1)
	}
	return out
}

// poolShape is a convolution's, channel by channel.
func poolShape(c *ctx) {
	x := c.shape(0)
	spatial := len(c.n.Ints("kernel_shape"))
	if len(x) != spatial+2 || spatial == 0 {
		c.fail("kernel %v for an operand of %s", c.n.Ints("kernel_shape"), x)
	}
	v := readWindow(c.n, spatial)
	if auto := c.n.Str("auto_pad", "NOTSET"); auto != "NOTSET" && auto != "VALID" {
		v.padSame(c.n, auto == "SAME_LOWER")
	}
	out := Shape{x[0], x[1]}
	for i := range v.kernel {
		out = append(out, v.places(x[2+i], i, c.n.Int("ceil_mode", 0) != 0))
	}
	c.out(0, c.n.Inputs[0].Type, out)
	c.out(1, Int64, out)
}

func convTransposeShape(c *ctx) {
	x, w := c.shape(0), c.shape(1)
	v, extra, fixed := readWindow(c.n, len(w)-2), c.n.Ints("output_padding"), c.n.Ints("output_shape")
	same := strings.HasPrefix(c.n.Str("auto_pad", "NOTSET"), "SAME")
	kernel, ok := w[2:].Ints()
	if !ok {
		c.fail("the kernel's extents %s depend on the run", w)
	}
	out := Shape{x[0], w[1].Mul(Known(v.group))}
	for i, k := range kernel {
		switch {
		case fixed != nil:
			out = append(out, Known(fixed[len(fixed)-len(kernel)+i]))
			continue
		case same:
			out = append(out, x[2+i].Mul(Known(v.strides[i])))
			continue
		}
		d := x[2+i].Sub(Known(1)).Mul(Known(v.strides[i])).Add(Known(v.dilates[i]*(k-1) + 1 - v.pads[i] - v.pads[len(kernel)+i]))
		if extra != nil {
			d = d.Add(Known(extra[i]))
		}
		out = append(out, d)
	}
	c.out(0, c.n.Inputs[0].Type, out)
}

// gradConv: the input's gradient is the transposed convolution with the same weights, the
// weights' a convolution of the input with dy, and the bias gets the sum.
func gradConv(b *backward, n *Node) {
	v, x, w, dy := readConv(n), n.Inputs[0], n.Inputs[1], b.dy(n)
	if b.wants(n, 0) {
		b.give(n, 0, b.convBack(v, dy, w, x))
	}
	if b.wants(n, 1) {
		b.give(n, 1, b.kernelGradient(v, x, dy, w))
	}
	b.giveChannelSum(n, 2)
}

// convBack is the transposed convolution of dy with weights w, shaped like x: where strides left
// rows over at the end, they are padded on again.
func (b *backward) convBack(v conv, dy, w, x *Value) *Value {
	extra, overhang := make([]int64, len(v.kernel)), false
	for i, k := range v.kernel {
		span := v.dilates[i]*(k-1) + 1
		padded, ok := x.Shape[2+i].Add(Known(v.pads[i] + v.pads[len(v.kernel)+i])).Int()
		if ok {
			extra[i] = (padded - span) % v.strides[i]
		} else {
			// The run decides how many rows were left over; none has more than this.
			extra[i] = v.strides[i] - 1
			overhang = overhang || extra[i] > 0
		}
	}
	dx := b.Op("ConvTranspose", Attrs{
		"strides": v.strides, "dilations": v.dilates, "pads": v.pads, "group": v.group, "kernel_shape": v.kernel, "output_padding": extra,
	}, dy, w)
	if overhang {
		dx = b.cutSpatial(dx, b.Op("Shape", Attrs{"start": int64(2)}, x))
	}
	dx.Shape = x.Shape
	return dx
}

// cutSpatial keeps the first rows along each axis behind batch and channels.
func (b *Builder) cutSpatial(x, extents *Value) *Value {
	axes := firstN(len(x.Shape))[2:]
	return b.Op("Slice", nil, x, b.Ints(make([]int64, len(axes))...), extents, b.Ints(axes...))
}

// kernelGradient is the gradient of weights w [O,C/g,k...] that took x [B,C,...] to y [B,O,...]. It is
// a convolution too, with batch and channels changed about and strides for dilations: x as C/g images
// of g*B channels, dy as kernels over B of them.
func (b *backward) kernelGradient(v conv, x, dy, w *Value) *Value {
	kernels := b.Transpose(dy, moveToFront(len(dy.Shape), 1, 1)...)
	dw := b.Op("Conv", Attrs{"strides": v.dilates, "dilations": v.strides, "pads": v.pads, "group": v.group}, b.byChannel(x, v.group), kernels)
	dw = b.Transpose(dw, moveToFront(len(dw.Shape), 1, 1)...)
	dw = b.cutSpatial(dw, b.Ints(v.kernel...)) // strides may have left rows over
	dw.Shape = w.Shape
	return dw
}

// byChannel turns [B,C,...] into [C/g,g*B,...].
func (b *backward) byChannel(x *Value, groups int64) *Value {
	if groups == 1 {
		return b.Transpose(x, moveToFront(len(x.Shape), 1, 1)...)
	}
	part := func(start, end int64) *Value { return b.Op("Shape", Attrs{"start": start, "end": end}, x) }
	rest := int64(len(x.Shape))
	join := func(parts ...*Value) *Value { return b.Op("Concat", Attrs{"axis": int64(0)}, parts...) }
	apart := b.Op("Reshape", nil, x, join(part(0, 1), b.Ints(groups, -1), part(2, rest)))
	perm := append([]int64{2, 1, 0}, firstN(len(x.Shape) + 1)[3:]...)
	each := b.Op("Div", nil, part(1, 2), b.Ints(groups))
	return b.Op("Reshape", nil, b.Transpose(apart, perm...), join(each, b.Ints(-1), part(2, rest)))
}

// giveChannelSum gives input i, a bias by channel, the sum of dy over everything else.
func (b *backward) giveChannelSum(n *Node, i int) {
	if !b.wants(n, i) {
		return
	}
	dy := b.widened(b.dy(n))
	b.give(n, i, b.Sum(dy, false, append([]int64{0}, firstN(len(dy.Shape))[2:]...)...))
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

// geometry is how a convolution moves its kernel over any number of axes. Kernels read it apart from [conv], which the
// other rules go by, so that an error in either shows.
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

// gradConvTranspose: the transpose of a transposed convolution is the convolution.
func gradConvTranspose(b *backward, n *Node) {
	x, w, dy := n.Inputs[0], n.Inputs[1], b.dy(n)
	v := readTransposed(n)
	if b.wants(n, 0) {
		dx := b.Op("Conv", Attrs{"strides": v.strides, "dilations": v.dilates, "pads": v.pads, "group": v.group, "kernel_shape": v.kernel}, dy, w)
		dx.Shape = x.Shape
		b.give(n, 0, dx)
	}
	if b.wants(n, 1) {
		b.give(n, 1, b.kernelGradient(v, dy, x, w))
	}
	b.giveChannelSum(n, 2)
}

// readTransposed reads a ConvTranspose's window. Where the node says how large its output is, the
// padding follows from it: what the whole would have more is cut off on both sides, an odd row in front
// unless auto_pad is SAME_UPPER.
func readTransposed(n *Node) conv {
	x, w := n.Inputs[0], n.Inputs[1]
	v := readWindow(n, len(w.Shape)-2)
	v.kernel, _ = w.Shape[2:].Ints()
	auto, extra, given := n.Str("auto_pad", "NOTSET"), n.Ints("output_padding"), n.Ints("output_shape")
	if given == nil && !strings.HasPrefix(auto, "SAME") {
		return v
	}
	v.pads = make([]int64, 2*len(v.kernel))
	for i, k := range v.kernel {
		in, ok := x.Shape[2+i].Int()
		if !ok {
			fail(n, "padding that follows from extent %s, which depends on the run", x.Shape[2+i])
		}
		size := in * v.strides[i]
		if given != nil {
			size = given[len(given)-len(v.kernel)+i]
		}
		whole := (in-1)*v.strides[i] + v.dilates[i]*(k-1) + 1
		if extra != nil {
			whole += extra[i]
		}
		more := max(0, whole-size)
		front := more - more/2
		if auto == "SAME_UPPER" {
			front = more / 2
		}
		v.pads[i], v.pads[len(v.kernel)+i] = front, more-front
	}
	return v
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

// gradMaxPool puts the gradient where the largest elements came from; the operator itself says where.
func gradMaxPool(b *backward, n *Node) *Value {
	if n.Int("storage_order", 0) != 0 {
		if n.Output(1) != nil {
			fail(n, "places that are read and count columns first (storage_order 1)")
		}
		n.Attrs["storage_order"] = Attr{int64(0)}
	}
	b.nameOutputs(n, 2)
	x, flat := n.Inputs[0], func(v *Value) *Value { return b.Op("Reshape", nil, v, b.Ints(-1)) }
	sum := b.scatterAdd("ScatterElements", nil, flat(x), flat(n.Outputs[1]), flat(b.dy(n)))
	return b.Op("Reshape", nil, sum, b.Op("Shape", nil, x))
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

// gradAveragePool spreads each mean's gradient over what it was taken of: channel by channel, the
// transposed convolution with a kernel of ones.
func gradAveragePool(b *backward, n *Node) *Value {
	x := n.Inputs[0]
	v := readWindow(n, len(x.Shape)-2)
	v.kernel = n.Ints("kernel_shape")
	if auto := n.Str("auto_pad", "NOTSET"); auto != "NOTSET" && auto != "VALID" {
		v.padSame(n, auto == "SAME_LOWER")
	}
	padding := slices.Clone(v.pads)
	overhangs := n.Int("ceil_mode", 0) != 0 && v.reachOut(n)
	kernel := b.ones(x.Type, append([]int64{1, 1}, v.kernel...)...)
	// One channel at a time: [B,C,...] as [B*C,1,...].
	single := func(u *Value) *Value {
		return b.Op("Reshape", nil, u, b.Op("Concat", Attrs{"axis": int64(0)}, b.Ints(-1, 1), b.Op("Shape", Attrs{"start": int64(2)}, u)))
	}
	count := b.Scalar(float64(Count(v.kernel)), x)
	if padded := n.Int("count_include_pad", 0) != 0; !padded || overhangs {
		within, at := b.Add(b.zerosLike(x), b.Scalar(1, x)), v
		if padded { // its places count, those beyond do not
			within, at.pads = b.Op("Pad", nil, within, b.Ints(spatialPads(padding)...), b.Scalar(1, x)), make([]int64, len(v.pads))
			for i := range at.pads {
				at.pads[i] = v.pads[i] - padding[i]
			}
		}
		count = b.Op("Conv", Attrs{"strides": v.strides, "dilations": v.dilates, "pads": at.pads, "kernel_shape": v.kernel}, single(within), kernel)
	}
	dx := b.convBack(v, b.Div(single(b.dy(n)), count), kernel, single(x))
	return b.Op("Reshape", nil, dx, b.Op("Shape", nil, x))
}

// reachOut adds to the padding at the ends what the last places of a kernel reach beyond it when their
// number is rounded up, and says whether that is anything.
func (c *conv) reachOut(n *Node) bool {
	c.pads = slices.Clone(c.pads)
	any := false
	for i, k := range c.kernel {
		extent, ok1 := n.Inputs[0].Shape[2+i].Int()
		count, ok2 := n.Outputs[0].Shape[2+i].Int()
		if !ok1 || !ok2 {
			fail(n, "ceil_mode with an input of %s", n.Inputs[0].Shape)
		}
		end := (count-1)*c.strides[i] + c.dilates[i]*(k-1) + 1
		beyond := max(0, end-extent-c.pads[i]-c.pads[len(c.kernel)+i])
		c.pads[len(c.kernel)+i] += beyond
		any = any || beyond > 0
	}
	return any
}

// spatialPads are Pad's amounts for all axes, given those of the spatial ones.
func spatialPads(pads []int64) []int64 {
	half := len(pads) / 2
	return slices.Concat([]int64{0, 0}, pads[:half], []int64{0, 0}, pads[half:])
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

// ones is a tensor of ones.
func (b *Builder) ones(t DataType, dims ...int64) *Value {
	one := scalar(1, t)
	one.Dims = []int64{1}
	return b.Op("ConstantOfShape", Attrs{"value": one}, b.Ints(dims...))
}
