package graph

import "math"

// number is a one-element float that follows from constants and known extents alone, as sizes
// do that an exporter computes in floats: the side of a square table by Pow(N, 0.5), a scale by Div.
func (in *inference) number(v *Value) (float64, bool) {
	switch {
	case v == nil:
		return 0, false
	case !v.Type.IsFloat():
		ds, ok := in.ints(v)
		if !ok || len(ds) != 1 {
			return 0, false
		}
		n, ok := ds[0].Int()
		return float64(n), ok
	case v.Const != nil:
		if v.Const.Len() != 1 {
			return 0, false
		}
		a, err := ArrayOf(v.Const)
		if err != nil || len(a.Data) != 1 {
			return 0, false
		}
		return a.Data[0], true
	}
	x, ok := in.numbers[v]
	return x, ok
}

// follow records the number that a node makes of numbers.
func (in *inference) follow(n *Node) {
	out := n.Output(0)
	if out == nil || !out.Type.IsFloat() || n.Domain != "" {
		return
	}
	if passes[n.Op] {
		if x, ok := in.number(n.Input(0)); ok {
			in.numbers[out] = x
		}
		return
	}
	if !followed[n.Op] {
		return
	}
	operands := make([]Array, len(n.Inputs))
	for i, v := range n.Inputs {
		x, ok := in.number(v)
		if !ok {
			return
		}
		operands[i] = Array{Type: out.Type, Data: []float64{x}}
	}
	in.numbers[out] = table[n.Op].kernel(&computation{n, operands})[0].Data[0]
}

// passes are operators that leave a single number as it is.
var passes = set("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape")

// followed are operators whose kernels work on single numbers as they do on arrays. Those on each element by itself
// are among them.
var followed = set("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max")

// toInteger follows a Cast of such a float to an integer, which cuts off its fraction.
// Sizes are far below 2^31; a value close below a whole number is one that floats missed.
func (c *ctx) toInteger() {
	x, ok := c.in.number(c.n.Inputs[0])
	if !ok || math.Abs(x) > 1<<31 || len(c.n.Outputs[0].Shape) > 1 {
		return
	}
	if near := math.Round(x); math.Abs(x-near) < 1e-6*math.Abs(x) {
		x = near
	}
	c.holds([]Dim{Known(int64(x))})
}
