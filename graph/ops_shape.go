package graph

import (
	"math"
	"slices"
)

// What only looks at a shape.
var _ = registerFlat(map[string]row{
	"Shape":           {shapeShape, nil, shapeKernel},
	"Size":            {sizeShape, nil, sizeKernel},
	"ConstantOfShape": {constantOfShape, nil, constantOfShapeKernel},
})

var _ = register(map[string]row{
	"Range": {rangeShape, nil, rangeKernel},
})

func shapeShape(c *ctx) {
	s := c.shape(0)
	start, end := c.n.Int("start", 0), c.n.Int("end", int64(len(s)))
	if start < 0 {
		start += int64(len(s))
	}
	if end < 0 {
		end += int64(len(s))
	}
	start, end = min(max(start, 0), int64(len(s))), min(max(end, 0), int64(len(s)))
	s = s[min(start, end):end]
	c.out(0, Int64, Shape{Known(int64(len(s)))})
	c.holds(slices.Clone([]Dim(s)))
}

func shapeKernel(c *computation) []Array {
	dims := c.in[0].Dims
	start, end := int(c.n.Int("start", 0)), int(c.n.Int("end", int64(len(dims))))
	if start < 0 {
		start += len(dims)
	}
	if end < 0 {
		end += len(dims)
	}
	start, end = min(max(start, 0), len(dims)), min(max(end, 0), len(dims))
	dims = dims[min(start, end):end]
	out := zeros(Int64, len(dims))
	for i, d := range dims {
		out.Data[i] = float64(d)
	}
	return one(out)
}

func sizeShape(c *ctx) {
	c.out(0, Int64, Shape{})
	c.holds([]Dim{c.shape(0).Count()})
}

func sizeKernel(c *computation) []Array {
	return one(Array{Int64, []int{}, []float64{float64(len(c.in[0].Data))}})
}

func constantOfShape(c *ctx) {
	t := Float
	value, _ := c.n.Attrs["value"].Value.(*Tensor)
	if value != nil {
		t = value.Type
	}
	target, ok := c.ints(0)
	if !ok {
		if s := c.shape(0); len(s) == 1 {
			if n, known := s[0].Int(); known {
				c.out(0, t, make(Shape, n))
				for i := range c.n.Outputs[0].Shape {
					c.n.Outputs[0].Shape[i] = c.in.symbol(c.n)
				}
			}
		}
		return
	}
	c.out(0, t, Shape(target))
	if value != nil && t == Int64 {
		if v, err := Values[int64](value); err == nil && len(v) == 1 {
			c.fill(Known(v[0]))
		}
	}
}

func constantOfShapeKernel(c *computation) []Array {
	fill := Array{Type: Float, Data: []float64{0}}
	if t, ok := c.n.Attrs["value"].Value.(*Tensor); ok {
		a, err := ArrayOf(t)
		if err != nil {
			panic(bail{err})
		}
		fill = a
	}
	out := zeros(fill.Type, c.ints(0, nil)...)
	for i := range out.Data {
		out.Data[i] = fill.Data[0]
	}
	return one(out)
}

func rangeShape(c *ctx) {
	t := c.n.Inputs[0].Type
	c.out(0, t, Shape{c.in.symbol(c.n)})
	if t.IsFloat() {
		c.floatRange(t)
		return
	}
	start, ok1 := c.ints(0)
	limit, ok2 := c.ints(1)
	delta, ok3 := c.known(2)
	if !ok1 || !ok2 || !ok3 || len(delta) != 1 || delta[0] == 0 {
		return
	}
	n, step := limit[0].Sub(start[0]), delta[0]
	if step < 0 {
		n, step = start[0].Sub(limit[0]), -step
	}
	if step != 1 {
		n = n.Add(Known(step - 1)).Div(Known(step))
	}
	if count, ok := n.Int(); ok {
		n = Known(max(0, count))
	}
	c.out(0, t, Shape{n})
	count, ok := n.Int()
	if !ok || count > maxContents {
		return
	}
	out := make([]Dim, max(0, count))
	for i := range out {
		out[i] = start[0].Add(Known(int64(i) * delta[0]))
	}
	c.holds(out)
}

// floatRange: coordinates of patches are ranges such as 0.5, 1.5, ... to the grid's side.
func (c *ctx) floatRange(t DataType) {
	start, ok1 := c.in.number(c.n.Inputs[0])
	limit, ok2 := c.in.number(c.n.Inputs[1])
	delta, ok3 := c.in.number(c.n.Inputs[2])
	if n := math.Ceil((limit - start) / delta); ok1 && ok2 && ok3 && n < 1<<31 {
		c.out(0, t, Shape{Known(int64(max(0, n)))})
	}
}

func rangeKernel(c *computation) []Array {
	start, limit, delta := c.in[0].Data[0], c.in[1].Data[0], c.in[2].Data[0]
	out := Array{Type: c.in[0].Type}
	for x := start; delta > 0 && x < limit || delta < 0 && x > limit; x += delta {
		out.Data = append(out.Data, x)
	}
	out.Dims = []int{len(out.Data)}
	return one(out)
}
