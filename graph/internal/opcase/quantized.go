package opcase

import (
	"slices"

	"github.com/foretoken/foretoken/graph"
)

// units are a scale and a zero point: a code stands for (code - zero) * scale.
type units struct {
	scale float64
	zero  int64
	typ   graph.DataType
}

// fine are bytes from -2.56 to 2.54, coarse ones from -12.8 to 12.7, part from 0 to 1.
var (
	fine   = units{0.02, 128, graph.Uint8}
	coarse = units{0.1, 128, graph.Uint8}
	part   = units{1.0 / 256, 0, graph.Uint8}
)

// of are the units as a quantised operator's two operands.
func (u units) of(c *Chain) []*graph.Value {
	return []*graph.Value{c.Const(Values("", u.scale)), c.Const(I("", u.zero).Bytes(u.typ))}
}

// codes are x in these units, and the units: three operands.
func (u units) codes(c *Chain, x *graph.Value) []*graph.Value {
	pair := u.of(c)
	return []*graph.Value{c.Op("QuantizeLinear", nil, x, pair[0], pair[1]), pair[0], pair[1]}
}

// floats are what codes q in these units stand for.
func (u units) floats(c *Chain, q *graph.Value) *graph.Value {
	return c.Op("DequantizeLinear", nil, append([]*graph.Value{q}, u.of(c)...)...)
}

// linear is an operator that takes each operand as codes, scale and zero point, and gives codes.
func linear(op string, a graph.Attrs, to, from units) func(c *Chain, x []*graph.Value) *graph.Value {
	return func(c *Chain, x []*graph.Value) *graph.Value {
		var in []*graph.Value
		for _, v := range x {
			in = append(in, from.codes(c, v)...)
		}
		return to.floats(c, c.Op(op, a, append(in, to.of(c)...)...))
	}
}

// weighed is an operator that takes its first operand as codes, the second, which is codes already, with its own units,
// and perhaps a bias of 32-bit integers behind the units of its result.
func weighed(op string, a graph.Attrs, to units, bias bool) func(c *Chain, x []*graph.Value) *graph.Value {
	return func(c *Chain, x []*graph.Value) *graph.Value {
		in := slices.Concat(fine.codes(c, x[0]), x[1:2], fine.of(c), to.of(c))
		if bias {
			in = append(in, x[2])
		}
		return to.floats(c, c.Op(op, a, in...))
	}
}

// dynamic is an integer product of what DynamicQuantizeLinear makes of the first operand, brought back to floats.
func dynamic(op string, a graph.Attrs) func(c *Chain, x []*graph.Value) *graph.Value {
	return func(c *Chain, x []*graph.Value) *graph.Value {
		q, weight := c.Node("DynamicQuantizeLinear", 3, nil, x[0]), fine.of(c)
		y := c.Op(op, a, q[0], x[1], q[2], weight[1])
		return c.Op("Mul", nil, c.Op("Cast", attrs{"to": int64(c.t)}, y), c.Op("Mul", nil, q[1], weight[0]))
	}
}

// Quantized lists uses of quantised operators, between floats that are quantised in front of them and floats again.
var Quantized = []Case{
	{Op: "DynamicQuantizeLinear", Name: "ahead of a product", In: []Operand{Apart("b=2 3 4", 0), nibbles(4, 5)}, Chain: dynamic("MatMulInteger", nil), Rounding: 0.01},
	{Op: "MatMulInteger", Name: "activations by weights", In: []Operand{Apart("b=2 3 4", 0), nibbles(4, 5)}, Chain: dynamic("MatMulInteger", nil), Rounding: 0.01},
	{Op: "ConvInteger", Name: "an image by kernels", In: []Operand{Apart("2 2 3 3", 0), nibbles(3, 2, 2, 2)}, Chain: dynamic("ConvInteger", attrs{"pads": []int64{1, 0, 0, 1}}), Rounding: 0.01},
	{Op: "QLinearMatMul", Name: "activations by weights", In: []Operand{Apart("b=2 3 4", 0), nibbles(4, 5)}, Chain: weighed("QLinearMatMul", nil, coarse, false), Rounding: 0.02},
	{Op: "QLinearConv", Name: "an image by kernels, with a bias", In: []Operand{Apart("2 2 3 3", 0), nibbles(3, 2, 2, 2), I("3", 500, -700, 90).Int32()}, Chain: weighed("QLinearConv", attrs{"strides": []int64{1, 1}}, coarse, true), Rounding: 0.02},
	{Op: msft + "DynamicQuantizeMatMul", Name: "with a bias", In: []Operand{Apart("b=2 3 4", 0), nibbles(4, 5), F("5")}, Rounding: 0.01, Chain: func(c *Chain, x []*graph.Value) *graph.Value {
		return c.Op(msft+"DynamicQuantizeMatMul", nil, slices.Concat([]*graph.Value{x[0], x[1]}, fine.of(c), x[2:])...)
	}},
	{Op: msft + "MatMulIntegerToFloat", Name: "with a bias", In: []Operand{Apart("b=2 3 4", 0), nibbles(4, 5), F("5")}, Rounding: 0.01, Chain: func(c *Chain, x []*graph.Value) *graph.Value {
		q, w := fine.codes(c, x[0]), fine.of(c)
		return c.Op(msft+"MatMulIntegerToFloat", nil, q[0], x[1], q[1], w[0], q[2], w[1], x[2])
	}},
	{Op: msft + "QGemm", Name: "floats come out", In: []Operand{Apart("3 4", 0), nibbles(5, 4), I("5", 500, -700, 90, 0, 3).Int32()}, Rounding: 0.01, Chain: func(c *Chain, x []*graph.Value) *graph.Value {
		return c.Op(msft+"QGemm", attrs{"transB": yes, "alpha": float32(0.5)}, slices.Concat(fine.codes(c, x[0]), x[1:2], fine.of(c), x[2:])...)
	}},
	{Op: msft + "QGemm", Name: "codes come out", In: []Operand{Apart("3 4", 0), nibbles(4, 5), I("5", 500, -700, 90, 0, 3).Int32()}, Rounding: 0.03, Chain: func(c *Chain, x []*graph.Value) *graph.Value {
		return coarse.floats(c, c.Op(msft+"QGemm", nil, slices.Concat(fine.codes(c, x[0]), x[1:2], fine.of(c), x[2:], coarse.of(c))...))
	}},
	{Op: msft + "QLinearAdd", Name: "the second is repeated", In: []Operand{Apart("b=2 3 4", 0), Apart("4", 0)}, Chain: linear(msft+"QLinearAdd", nil, fine, fine), Rounding: 0.03},
	{Op: msft + "QLinearMul", Name: "of two signs", In: []Operand{Apart("b=2 3 4", 0), Values("4", -2, 1.5, 0.7, -1.1)}, Chain: linear(msft+"QLinearMul", nil, fine, fine), Rounding: 0.03},
	{Op: msft + "QLinearConcat", Name: "operands of other units", In: []Operand{Apart("2 3", 0), Apart("2 2", 0)}, Rounding: 0.03, Chain: func(c *Chain, x []*graph.Value) *graph.Value {
		in := slices.Concat(coarse.of(c), fine.codes(c, x[0]), coarse.codes(c, x[1]))
		return coarse.floats(c, c.Op(msft+"QLinearConcat", attrs{"axis": yes}, in...))
	}},
	{Op: msft + "QLinearAveragePool", Name: "padded", In: []Operand{Apart("2 3 4 4", 0)}, Chain: linear(msft+"QLinearAveragePool", attrs{"kernel_shape": []int64{2, 2}, "pads": []int64{0, 1, 0, 1}}, coarse, coarse), Rounding: 0.02},
	{Op: msft + "QLinearGlobalAveragePool", Name: "an image", In: []Operand{Apart("2 3 2 2", 0)}, Chain: linear(msft+"QLinearGlobalAveragePool", nil, fine, fine), Rounding: 0.02},
	{Op: msft + "QLinearLeakyRelu", Name: "of both signs", In: []Operand{Apart("b=2 3 4", 0)}, Chain: linear(msft+"QLinearLeakyRelu", attrs{"alpha": float32(0.3)}, fine, fine), Rounding: 0.02},
	{Op: msft + "QLinearSigmoid", Name: "of both signs", In: []Operand{Apart("b=2 3 4", 0)}, Chain: linear(msft+"QLinearSigmoid", nil, part, fine), Rounding: 0.01},
	{Op: msft + "QLinearSoftmax", Name: "the last axis", In: []Operand{Apart("b=2 3 4", 0)}, Chain: linear(msft+"QLinearSoftmax", attrs{"opset": int64(13), "axis": int64(-1)}, part, fine), Rounding: 0.01},
	{Op: msft + "QuantizeLinear", Name: "16 bits, and back", In: []Operand{Apart("b=2 3 4", 0)}, Rounding: 1e-3, Chain: func(c *Chain, x []*graph.Value) *graph.Value {
		units := []*graph.Value{c.Const(Values("", 0.0001)), c.Const(I("", 5).Bytes(graph.Int16))}
		q := c.Op(msft+"QuantizeLinear", nil, append(x, units...)...)
		return c.Op(msft+"DequantizeLinear", nil, append([]*graph.Value{q}, units...)...)
	}},
	{Op: msft + "QAttention", Name: "activations by weights", In: []Operand{Apart("b=2 3 8", 0), nibbles(8, 24), F("24")}, Rounding: 0.03, Chain: func(c *Chain, x []*graph.Value) *graph.Value {
		small := units{0.002, 128, graph.Uint8}
		q, w := fine.codes(c, x[0]), small.of(c)
		return c.Op(msft+"QAttention", attrs{"num_heads": int64(2)}, q[0], x[1], x[2], q[1], w[0], nil, q[2], w[1])
	}},
	{Op: msft + "GatherBlockQuantized", Name: "rows of 4 bits, zero points", In: []Operand{nibbles(3, 16), I("2 2", 1, 0, 2, 1).Fed(), Positive("3 2"), nibbles(3, 1)}, Attrs: attrs{"block_size": int64(16), "bits": int64(4), "quantize_axis": yes}},
}
