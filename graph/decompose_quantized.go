package graph

import (
	"errors"
	"slices"
)

// Quantised operators are written out in floats: weights as what they stand for, activations as
// they were ahead of rounding. So a gradient is that of the dequantised weights, and rounding, whose
// derivative is zero almost everywhere, is passed straight through.

// real is what quantised v stands for, (v - zero) * scale, and of an activation that was
// quantised in the graph, what it was before. Rows that were looked up in a table of codes are looked up in one of floats.
func (b *Builder) real(n *Node, v, scale, zero *Value, axis int) *Value {
	b.needsCodes(v)
	if x := b.unquantized(v); x != nil {
		return x
	}
	if d := v.Def; d != nil && d.Op == "Gather" && isCodeTable(d.Inputs[0]) && axisOf(d, "axis", 0) == 0 && scale.IsConst() && scale.Const.Len() == 1 {
		return b.Op("Gather", nil, b.dequantizedTable(n, d.Inputs[0], scale, zero), d.Inputs[1])
	}
	return b.Mul(b.shifted(n, v, zero, scale.Type, axis), b.alongOne(n, scale, v, axis))
}

// needsCodes says that the node which is written out reads v as codes. Once nothing makes codes of activations any more,
// it can't be put back.
func (b *Builder) needsCodes(v *Value) {
	if !v.IsConst() {
		b.whole = nil
	}
}

// moves lists operators that rearrange elements of any type, by how many operands they take them from.
var moves = map[string]int{
	"Concat": -1, "Expand": 1, "Flatten": 1, "Gather": 1, "GatherElements": 1, "GatherND": 1, "Identity": 1,
	"MaxPool": 1, "Reshape": 1, "Slice": 1, "Squeeze": 1, "Tile": 1, "Transpose": 1, "Unsqueeze": 1,
}

// unquantized is an activation ahead of its QuantizeLinear, also where its elements were rearranged
// since; nil for other values. Constants are what they were rounded to.
func (b *Builder) unquantized(v *Value) *Value {
	d := v.Def
	if d == nil || d.Domain != "" {
		return nil
	}
	if x := b.unrounded[d]; x != nil {
		return x
	}
	if d.Op == "QuantizeLinear" {
		if d.Inputs[0].IsConst() {
			return nil
		}
		return b.rectified(d.Inputs[0], d.Input(2), v.Type)
	}
	from, ok := moves[d.Op]
	if !ok || len(d.Outputs) > 1 {
		return nil
	}
	if from < 0 {
		from = len(d.Inputs)
	}
	inputs := slices.Clone(d.Inputs)
	for i := range from {
		if inputs[i] = b.unquantized(d.Inputs[i]); inputs[i] == nil {
			return nil
		}
	}
	at := Attrs{}
	for name, a := range d.Attrs {
		at[name] = a.Value
	}
	return b.Op(d.Op, at, inputs...)
}

// rectified is x as far as numbers of type t with the zero point stand for it: where zero is the lowest of
// them, what is negative is cut off. Quantisers leave a Relu out that comes before.
func (b *Builder) rectified(x, zero *Value, t DataType) *Value {
	lowest := byte(0)
	if t == Int8 {
		lowest = 0x80
	}
	if t != Uint8 && t != Int8 || zero == nil && t == Int8 {
		return x
	}
	if zero != nil {
		if !zero.IsConst() {
			return x
		}
		codes, err := zero.Const.Bytes()
		if err != nil || slices.ContainsFunc(codes, func(c byte) bool { return c != lowest }) {
			return x
		}
	}
	return b.Op("Relu", nil, x)
}

// shifted is v - zero as floats.
func (b *Builder) shifted(n *Node, v, zero *Value, t DataType, axis int) *Value {
	b.needsCodes(v)
	x := b.cast(v, t)
	if zero == nil {
		return x
	}
	return b.Sub(x, b.alongOne(n, b.cast(zero, t), v, axis))
}

// alongOne gives p, one number or one for each element along the axis of v, a shape that is repeated
// along v's other axes.
func (b *Builder) alongOne(n *Node, p, v *Value, axis int) *Value {
	switch {
	case len(p.Shape) == 0:
		return p
	case len(p.Shape) == 1 && p.Shape[0].Is(1):
		return b.Op("Reshape", nil, p, b.Const(NewTensor([]int64{}, 0)))
	case len(p.Shape) > 1:
		fail(n, "scales or zero points of shape %s", p.Shape)
	}
	rank := len(v.Shape)
	if axis < 0 {
		axis += rank
	}
	return b.Op("Unsqueeze", nil, p, b.Ints(slices.DeleteFunc(firstN(rank), func(i int64) bool { return int(i) == axis })...))
}

func dequantizeLinear(b *Builder, n *Node) []*Value {
	x, scale, axis, size := n.Inputs[0], n.Inputs[1], int(n.Int("axis", 1)), n.Int("block_size", 0)
	if isCodeTable(x) && slices.ContainsFunc(b.readers[n.Outputs[0]], func(m *Node) bool { return m.Op == "Gather" }) {
		return []*Value{b.dequantizedTable(n, x, scale, n.Input(2))}
	}
	if size > 0 {
		return []*Value{b.blockwise(n, size)}
	}
	return []*Value{b.real(n, x, scale, n.Input(2), axis)}
}

// isCodeTable says whether v is a constant matrix of numbers of 4 or 8 bits.
func isCodeTable(v *Value) bool {
	return v.IsConst() && len(v.Shape) == 2 && (v.Type == Int8 || v.Type == Uint8 || v.Type == Int4 || v.Type == Uint4)
}

// dequantizedTable is a table as n dequantises it or rows of it, in memory: token tables are looked for as tables of floats.
func (b *Builder) dequantizedTable(n *Node, table, scale, zero *Value) *Value {
	if !scale.IsConst() || zero != nil && !zero.IsConst() {
		fail(n, "a table whose scales depend on the run")
	}
	codes, err1 := Codes(table.Const)
	by, err2 := Float32s(scale.Const)
	shift := make([]int16, len(by))
	var err3 error
	if zero != nil {
		shift, err3 = Codes(zero.Const)
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		fail(n, "its table: %w", err)
	}
	unit := unitAt(n, table.Const.Dims, scale.Const.Dims)
	out := make([]float32, len(codes))
	for i, c := range codes {
		u := unit(int64(i)/table.Const.Dims[1], int64(i)%table.Const.Dims[1])
		out[i] = float32(c-shift[u]) * by[u]
	}
	return b.cast(b.Const(NewTensor(out, table.Const.Dims...)), scale.Type)
}

// unitAt says which of n's scales is that of a matrix's element: there is one, one for each row or column, or one for
// each block of a row or column.
func unitAt(n *Node, dims, scales []int64) func(row, column int64) int64 {
	axis, size := axisOf(n, "axis", 1), n.Int("block_size", 0)
	switch {
	case Count(scales) == 1:
		return func(_, _ int64) int64 { return 0 }
	case len(scales) == 1 && scales[0] == dims[axis]:
		return func(row, column int64) int64 { return []int64{row, column}[axis] }
	case size > 0 && len(scales) == 2 && scales[axis] == (dims[axis]+size-1)/size && scales[1-axis] == dims[1-axis]:
		return func(row, column int64) int64 {
			at := []int64{row, column}
			at[axis] /= size
			return at[0]*scales[1] + at[1]
		}
	}
	fail(n, "scales of dims %v for a table of %v", scales, dims)
	return nil
}

// blockwise is DequantizeLinear with a scale for each block of elements along its axis, the last of which may be
// shorter.
func (b *Builder) blockwise(n *Node, size int64) *Value {
	x, scale := n.Inputs[0], n.Inputs[1]
	axis := axisOf(n, "axis", 1)
	extent, fixed := x.Shape[axis].Int()
	size = max(1, min(size, extent))
	if !fixed || len(scale.Shape) != len(x.Shape) || !scale.Shape[axis].Is((extent+size-1)/size) {
		fail(n, "blocks of %d in an operand of %s with scales of %s", size, x.Shape, scale.Shape)
	}
	y := b.cast(x, scale.Type)
	if zero := n.Input(2); zero != nil {
		y = b.Sub(y, b.repeated(b.cast(zero, scale.Type), axis, size, extent))
	}
	return b.Mul(y, b.repeated(scale, axis, size, extent))
}

// repeated repeats each element so many times along the axis, up to the extent.
func (b *Builder) repeated(v *Value, axis int, times, extent int64) *Value {
	at := slices.Repeat([]int64{1}, len(v.Shape)+1)
	at[axis+1] = times
	wide := b.Op("Expand", nil, b.Op("Unsqueeze", nil, v, b.Ints(int64(axis+1))), b.Ints(at...))
	shape := slices.Clone(v.Shape)
	shape[axis] = shape[axis].Mul(Known(times))
	return b.Op("Slice", nil, b.Reshape(wide, shape, v), b.Ints(0), b.Ints(extent), b.Ints(int64(axis)))
}

// dynamicQuantizeLinear leaves x as it is: with a scale of one and a zero point of zero, what follows
// multiplies by the weights' scale alone. So nothing may look at the codes but what knows them as codes.
func dynamicQuantizeLinear(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	if slices.ContainsFunc(n.Outputs, func(v *Value) bool { return slices.Contains(b.g.Outputs, v) }) {
		fail(n, "its codes, or their scale, are an output of the graph")
	}
	for _, m := range b.readers[n.Outputs[0]] {
		if !takesCodes[key(m)] {
			fail(n, "its codes are read by node %q (%s)", m.Name, key(m))
		}
	}
	b.whole, b.dynamic[n.Outputs[0]] = nil, x
	return []*Value{x, b.Scalar(1, x), b.Const(NewTensor([]uint8{0}))}
}

// roundedProduct says what the node, a product of a DynamicQuantizeLinear's codes and weights with a scale, a zero point and
// a bias, can be put back as: its operand is still there, and is rounded in the product itself.
func (b *Builder) roundedProduct(n *Node, codes, w, scale, zero, bias *Value) {
	x := b.dynamic[codes]
	if x == nil || x.Type != Float || !w.IsConst() || len(w.Shape) != 2 {
		return
	}
	b.rounds = true
	b.whole = &Node{Op: "DynamicQuantizeMatMul", Domain: "com.microsoft", Name: n.Name, Inputs: []*Value{x, w, scale, zero, bias}}
}

// takesCodes are the operators that take an operand as codes with a scale or a zero point.
var takesCodes = set("MatMulInteger", "ConvInteger", "DequantizeLinear", "QLinearMatMul", "QLinearConv",
	"com.microsoft.MatMulIntegerToFloat", "com.microsoft.QAttention", "com.microsoft.QGemm", "com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")

// matMulInteger is (A - a0)(B - b0), with b0 one number or one a column.
func matMulInteger(b *Builder, n *Node) []*Value {
	x, w := n.Inputs[0], n.Inputs[1]
	y := b.MatMul(b.shifted(n, x, n.Input(2), Float, len(x.Shape)-2), b.shifted(n, w, n.Input(3), Float, len(w.Shape)-1))
	b.roundedProduct(n, x, w, b.Scalar(1, nil), n.Input(3), nil)
	return []*Value{y}
}

func convInteger(b *Builder, n *Node) []*Value {
	at := convAttrs(n)
	return []*Value{b.Op("Conv", at, b.shifted(n, n.Inputs[0], n.Input(2), Float, 1), b.shifted(n, n.Inputs[1], n.Input(3), Float, 0))}
}

// convAttrs copies what a convolution's node says of its window.
func convAttrs(n *Node) Attrs {
	at := Attrs{}
	for _, name := range []string{"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"} {
		if a, ok := n.Attrs[name]; ok {
			at[name] = a.Value
		}
	}
	return at
}

// dynamicQuantizeMatMul is com.microsoft DynamicQuantizeMatMul: floats A by quantised B.
func dynamicQuantizeMatMul(b *Builder, n *Node) []*Value {
	w := n.Inputs[1]
	y := b.MatMul(n.Inputs[0], b.real(n, w, n.Inputs[2], n.Input(3), len(w.Shape)-1))
	b.rounds = true
	return []*Value{b.biased(y, n.Input(4))}
}

// matMulIntegerToFloat is com.microsoft MatMulIntegerToFloat: both operands quantised, the result not.
func matMulIntegerToFloat(b *Builder, n *Node) []*Value {
	x, w := n.Inputs[0], n.Inputs[1]
	y := b.MatMul(b.real(n, x, n.Inputs[2], n.Input(4), len(x.Shape)-2), b.real(n, w, n.Inputs[3], n.Input(5), len(w.Shape)-1))
	b.roundedProduct(n, x, w, n.Inputs[3], n.Input(5), n.Input(6))
	return []*Value{b.biased(y, n.Input(6))}
}

func (b *Builder) biased(y, bias *Value) *Value {
	if bias == nil {
		return y
	}
	return b.Add(y, bias)
}

// matMulNBits is com.microsoft MatMulNBits: A [...,K] by weights [N,K] of 2, 4 or 8 bits, in blocks along K
// with a scale and a zero point each.
func matMulNBits(b *Builder, n *Node) []*Value {
	if n.Input(4) != nil {
		fail(n, "columns in another order (g_idx)")
	}
	x, scales := n.Inputs[0], n.Inputs[2]
	k, rows, bits, block := n.Int("K", 0), n.Int("N", 0), n.Int("bits", 4), n.Int("block_size", 0)
	if k < 1 || rows < 1 || block < 1 || bits != 2 && bits != 4 && bits != 8 {
		fail(n, "%d bits in blocks of %d, K %d and N %d", bits, block, k, rows)
	}
	b.rounds = n.Int("accuracy_level", 0) == 4 // it then rounds activations to 8 bits
	blocks := (k + block - 1) / block
	each := func(v *Value) *Value { return b.Op("Reshape", nil, v, b.Ints(rows, blocks, 1)) }
	q := b.cast(b.Op("Reshape", nil, b.unpack(n.Inputs[1], bits), b.Ints(rows, blocks, block)), scales.Type)
	zero := b.Scalar(float64(int64(1)<<(bits-1)), scales)
	if z := n.Input(3); z != nil && z.Type.IsFloat() {
		zero = each(b.cast(z, scales.Type))
	} else if z != nil {
		all := b.Op("Reshape", nil, b.unpack(z, bits), b.Ints(rows, -1))
		zero = each(b.cast(b.Op("Slice", nil, all, b.Ints(0), b.Ints(blocks), b.Ints(1)), scales.Type))
	}
	w := b.Op("Reshape", nil, b.Mul(b.Sub(q, zero), each(scales)), b.Ints(rows, blocks*block))
	w = b.Op("Slice", nil, w, b.Ints(0), b.Ints(k), b.Ints(1))
	y := b.MatMul(x, b.cast(b.SwapLast(w), x.Type))
	return []*Value{b.biased(y, n.Input(5))}
}

// unpack takes bytes apart into numbers of so many bits, the lowest bits first, along a new last axis.
func (b *Builder) unpack(v *Value, bits int64) *Value {
	x := b.Op("Cast", Attrs{"to": int64(Int32)}, v)
	if bits == 8 {
		return x
	}
	base, last := b.Const(scalar(float64(int64(1)<<bits), Int32)), b.Ints(-1)
	var parts []*Value
	for range 8 / bits {
		parts = append(parts, b.Op("Unsqueeze", nil, b.Op("Mod", nil, x, base), last))
		x = b.Div(x, base)
	}
	return b.Op("Concat", Attrs{"axis": int64(-1)}, parts...)
}

// qLinear reads operand i of an operator that takes each as value, scale and zero point.
func (b *Builder) qLinear(n *Node, i, axis int) *Value {
	return b.real(n, n.Inputs[i], n.Inputs[i+1], n.Input(i+2), axis)
}

// requantized is y in the units of the scale and zero point at i, unrounded. What reads it as codes reads y.
func (b *Builder) requantized(n *Node, y *Value, i int) []*Value {
	scale := n.Inputs[i]
	t := Uint8
	if zero := n.Input(i + 1); zero != nil {
		t = zero.Type
	}
	x := b.rectified(y, n.Input(i+1), t)
	y = b.Div(x, b.alongOne(n, scale, x, 1))
	if zero := n.Input(i + 1); zero != nil {
		y = b.Add(y, b.alongOne(n, b.cast(zero, scale.Type), y, 1))
	}
	b.unrounded[y.Def] = x
	return []*Value{y}
}

func qLinearMatMul(b *Builder, n *Node) []*Value {
	x, w := n.Inputs[0], n.Inputs[3]
	return b.requantized(n, b.MatMul(b.qLinear(n, 0, len(x.Shape)-2), b.qLinear(n, 3, len(w.Shape)-1)), 6)
}

// qLinearConv has a bias in units of both scales' product.
func qLinearConv(b *Builder, n *Node) []*Value {
	y := b.Op("Conv", convAttrs(n), b.qLinear(n, 0, 1), b.qLinear(n, 3, 0))
	if bias := n.Input(8); bias != nil {
		unit := b.Mul(n.Inputs[1], n.Inputs[4])
		y = b.Add(y, b.perChannel(b.Mul(b.cast(bias, unit.Type), unit), y))
	}
	return b.requantized(n, y, 6)
}

// qLinearBinary is com.microsoft QLinearAdd and QLinearMul.
func qLinearBinary(op string) func(b *Builder, n *Node) []*Value {
	return func(b *Builder, n *Node) []*Value {
		return b.requantized(n, b.Op(op, nil, b.qLinear(n, 0, 1), b.qLinear(n, 3, 1)), 6)
	}
}

// qLinearUnary is an operator of the com.microsoft domain on one operand with scale and zero point.
func qLinearUnary(f func(b *Builder, n *Node, x *Value) *Value) func(b *Builder, n *Node) []*Value {
	return func(b *Builder, n *Node) []*Value { return b.requantized(n, f(b, n, b.qLinear(n, 0, 1)), 3) }
}

func qLinearGlobalAveragePool(b *Builder, n *Node) []*Value {
	if n.Int("channels_last", 0) != 0 {
		fail(n, "channels behind the pixels (channels_last)")
	}
	return b.requantized(n, b.Op("GlobalAveragePool", nil, b.qLinear(n, 0, 1)), 3)
}

func qLinearAveragePool(b *Builder, n *Node) []*Value {
	if n.Int("channels_last", 0) != 0 {
		fail(n, "channels behind the pixels (channels_last)")
	}
	at := convAttrs(n)
	at["ceil_mode"], at["count_include_pad"] = n.Int("ceil_mode", 0), n.Int("count_include_pad", 0)
	return b.requantized(n, b.Op("AveragePool", at, b.qLinear(n, 0, 1)), 3)
}

// qLinearConcat has the result's scale and zero point first, then the operands, each with its own.
func qLinearConcat(b *Builder, n *Node) []*Value {
	var parts []*Value
	for i := 2; i+2 < len(n.Inputs); i += 3 {
		parts = append(parts, b.qLinear(n, i, 1))
	}
	return b.requantized(n, b.Op("Concat", Attrs{"axis": n.Int("axis", 0)}, parts...), 0)
}

// qGemm is com.microsoft QGemm. Its bias is in units of both scales' product; without a scale for the result it
// is floats.
func qGemm(b *Builder, n *Node) []*Value {
	columns := 1
	if n.Int("transB", 0) != 0 {
		columns = 0
	}
	inputs := []*Value{b.qLinear(n, 0, 1), b.qLinear(n, 3, columns)}
	at := Attrs{"alpha": n.Float("alpha", 1), "transA": n.Int("transA", 0), "transB": n.Int("transB", 0)}
	y := b.Op("Gemm", at, inputs...)
	if bias := n.Input(6); bias != nil {
		unit := b.Mul(b.Mul(n.Inputs[1], n.Inputs[4]), b.Scalar(float64(n.Float("alpha", 1)), y))
		y = b.Add(y, b.Mul(b.cast(bias, y.Type), unit))
	}
	if n.Input(7) == nil {
		return []*Value{y}
	}
	return b.requantized(n, y, 7)
}

// quantizedAttention is com.microsoft QAttention: Attention with quantised operand and weights.
func quantizedAttention(b *Builder, n *Node) []*Value {
	if n.Input(8) != nil {
		fail(n, "its past is used")
	}
	m := *n
	m.Inputs = []*Value{b.real(n, n.Inputs[0], n.Inputs[3], n.Input(6), 1), b.real(n, n.Inputs[1], n.Inputs[4], n.Input(7), 1), n.Input(2), n.Input(5)}
	return packedAttention(b, &m)
}

// gatherBlockQuantized takes rows of a table of 4 or 8 bits in blocks along the last axis, with a scale and
// perhaps a zero point each.
func gatherBlockQuantized(b *Builder, n *Node) []*Value {
	data, scales, block, bits := n.Inputs[0], n.Inputs[2], n.Int("block_size", 128), n.Int("bits", 4)
	if n.Int("gather_axis", 0) != 0 || len(data.Shape) != 2 || data.Type != Uint8 || axisOf(n, "quantize_axis", 1) != 1 || bits != 4 && bits != 8 {
		fail(n, "other than rows of a table of bytes that hold 4 or 8 bits each")
	}
	rows := func(v *Value) *Value {
		return b.Op("Reshape", nil, b.unpack(v, bits), b.Ints(b.extent(n, v, 2), -1))
	}
	codes := rows(data)
	width, blocks := b.extent(n, codes, 1), b.extent(n, scales, 1)
	if width != blocks*block {
		fail(n, "%d numbers a row in %d blocks of %d", width, blocks, block)
	}
	like := b.Ints(b.extent(n, data, 2), blocks, block)
	zero := b.Scalar(float64(int64(1)<<(bits-1)), scales)
	if z := n.Input(3); z != nil {
		zero = b.Op("Unsqueeze", nil, b.cast(b.Op("Slice", nil, rows(z), b.Ints(0), b.Ints(blocks), b.Ints(1)), scales.Type), b.Ints(2))
	}
	table := b.Mul(b.Sub(b.cast(b.Op("Reshape", nil, codes, like), scales.Type), zero), b.Op("Unsqueeze", nil, scales, b.Ints(2)))
	return []*Value{b.Op("Gather", nil, b.Op("Reshape", nil, table, b.Ints(b.extent(n, data, 2), width)), n.Inputs[1])}
}
