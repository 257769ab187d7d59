package graph

import "math"

// What makes codes of floats. Most of it is written out: see decompose_quantized.go.
var _ = register(map[string]row{
	"QuantizeLinear":        {quantizeLinearShape, nil, quantizeLinearKernel},
	"DynamicQuantizeLinear": {dynamicQuantizeLinearShape, nil, dynamicQuantizeLinearKernel},
})

// quantizeLinearShape: the zero point, or an attribute, says what is quantised to.
func quantizeLinearShape(c *ctx) {
	t := DataType(c.n.Int("output_dtype", int64(Uint8)))
	if zero := c.n.Input(2); zero != nil {
		t = zero.Type
	}
	c.out(0, t, c.shape(0))
}

// quantizeLinearKernel rounds x/scale to the nearest, even where two are, and cuts what the type can't hold.
func quantizeLinearKernel(c *computation) []Array {
	x, scale := c.in[0], c.in[1]
	zero := Array{Type: DataType(c.n.Int("output_dtype", int64(Uint8)))}
	if c.has(2) {
		zero = c.in[2]
	}
	low, high := span(zero.Type)
	of := c.scaleOf(x, scale)
	out := zeros(zero.Type, x.Dims...)
	for i, v := range x.Data {
		k := of(i)
		shift := 0.0
		if len(zero.Data) > 0 {
			shift = zero.Data[k]
		}
		out.Data[i] = max(low, min(high, math.RoundToEven(v/scale.Data[k])+shift))
	}
	return one(out)
}

// span is the lowest and the highest code of a type.
func span(t DataType) (low, high float64) {
	bits := 8
	switch t {
	case Uint16, Int16:
		bits = 16
	case Uint4, Int4:
		bits = 4
	}
	if t == Int16 || t == Int8 || t == Int4 {
		return -math.Exp2(float64(bits - 1)), math.Exp2(float64(bits-1)) - 1
	}
	return 0, math.Exp2(float64(bits)) - 1
}

// scaleOf finds the scale of each element: the only one, one along an axis, or one for each block of elements
// along it.
func (c *computation) scaleOf(x, scale Array) func(i int) int {
	if len(scale.Data) == 1 {
		return func(int) int { return 0 }
	}
	axis := c.axis("axis", 1, len(x.Dims))
	_, n, inner := x.split(axis)
	if block := int(c.n.Int("block_size", 0)); block > 0 {
		blocks := scale.Dims[axis]
		return func(i int) int { return (i/(n*inner)*blocks+i/inner%n/block)*inner + i%inner }
	}
	return func(i int) int { return i / inner % n }
}

// dynamicQuantizeLinearShape: codes, and the scale and zero point that they are in.
func dynamicQuantizeLinearShape(c *ctx) {
	c.out(0, Uint8, c.shape(0))
	c.out(1, c.n.Inputs[0].Type, Shape{})
	c.out(2, Uint8, Shape{})
}

// dynamicQuantizeLinearKernel quantises to bytes that span what x spans, zero included.
func dynamicQuantizeLinearKernel(c *computation) []Array {
	x := c.in[0]
	low, high := 0.0, 0.0
	for _, v := range x.Data {
		low, high = min(low, v), max(high, v)
	}
	scale := (high - low) / 255
	zero := max(0, min(255, math.RoundToEven(-low/scale)))
	if x.Type == Float {
		scale = float64(float32(scale)) // where halves fall is decided by floats
	}
	codes := apply(x, func(v float64) float64 { return max(0, min(255, math.RoundToEven(float64(float32(v/scale)))+zero)) })
	codes.Type = Uint8
	return []Array{codes, {x.Type, []int{}, []float64{scale}}, {Uint8, []int{}, []float64{zero}}}
}
