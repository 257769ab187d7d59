package graph

import "math"

// pointwise is an operator on each element by itself.
type pointwise struct {
	// of is what it makes of a number.
	of func(x float64) float64
	// slope is the gradient of its operand, given that of its result; nil where that is zero wherever there is one.
	slope func(b *backward, n *Node) *Value
}

// registerPointwise gives such operators their rows.
func registerPointwise(fs map[string]pointwise) bool {
	rows := map[string]row{}
	for op, f := range fs {
		r := row{unary, nil, pointwiseKernel(f.of)}
		if f.slope != nil {
			r.grad = chain(f.slope)
		} else {
			flat[op] = true
		}
		rows[op], followed[op] = r, true
	}
	return register(rows)
}

func pointwiseKernel(f func(x float64) float64) func(*computation) []Array {
	return func(c *computation) []Array { return one(apply(c.in[0], f)) }
}

var _ = registerPointwise(map[string]pointwise{
	"Neg":  {func(x float64) float64 { return -x }, func(b *backward, n *Node) *Value { return b.Op("Neg", nil, b.dy(n)) }},
	"Sqrt": {math.Sqrt, func(b *backward, n *Node) *Value { return b.Div(b.dy(n), b.twice(n.Outputs[0])) }},
	"Exp":  {math.Exp, func(b *backward, n *Node) *Value { return b.Mul(b.dy(n), n.Outputs[0]) }},
	"Log":  {math.Log, func(b *backward, n *Node) *Value { return b.Div(b.dy(n), n.Inputs[0]) }},
	"Abs":  {math.Abs, func(b *backward, n *Node) *Value { return b.Mul(b.dy(n), b.Op("Sign", nil, n.Inputs[0])) }},
	"Sin":  {math.Sin, func(b *backward, n *Node) *Value { return b.Mul(b.dy(n), b.Op("Cos", nil, n.Inputs[0])) }},
	"Cos": {math.Cos, func(b *backward, n *Node) *Value {
		return b.Op("Neg", nil, b.Mul(b.dy(n), b.Op("Sin", nil, n.Inputs[0])))
	}},
	"Tan": {math.Tan, func(b *backward, n *Node) *Value {
		y := n.Outputs[0]
		return b.Mul(b.dy(n), b.Add(b.Mul(y, y), b.Scalar(1, y)))
	}},
	"Sinh": {math.Sinh, func(b *backward, n *Node) *Value { return b.Mul(b.dy(n), b.Op("Cosh", nil, n.Inputs[0])) }},
	"Cosh": {math.Cosh, func(b *backward, n *Node) *Value { return b.Mul(b.dy(n), b.Op("Sinh", nil, n.Inputs[0])) }},
	"Asin": {math.Asin, func(b *backward, n *Node) *Value { return b.Div(b.dy(n), b.Op("Sqrt", nil, b.square(n, -1, 1))) }},
	"Acos": {math.Acos, func(b *backward, n *Node) *Value {
		return b.Op("Neg", nil, b.Div(b.dy(n), b.Op("Sqrt", nil, b.square(n, -1, 1))))
	}},
	"Atan":  {math.Atan, func(b *backward, n *Node) *Value { return b.Div(b.dy(n), b.square(n, 1, 1)) }},
	"Asinh": {math.Asinh, func(b *backward, n *Node) *Value { return b.Div(b.dy(n), b.Op("Sqrt", nil, b.square(n, 1, 1))) }},
	"Acosh": {math.Acosh, func(b *backward, n *Node) *Value { return b.Div(b.dy(n), b.Op("Sqrt", nil, b.square(n, 1, -1))) }},
	"Atanh": {math.Atanh, func(b *backward, n *Node) *Value { return b.Div(b.dy(n), b.square(n, -1, 1)) }},
	"Reciprocal": {func(x float64) float64 { return 1 / x }, func(b *backward, n *Node) *Value {
		y := n.Outputs[0]
		return b.Op("Neg", nil, b.Mul(b.dy(n), b.Mul(y, y)))
	}},
	"Sigmoid": {func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, func(b *backward, n *Node) *Value {
		y := n.Outputs[0]
		return b.Mul(b.dy(n), b.Mul(y, b.Sub(b.Scalar(1, y), y)))
	}},
	"Tanh": {math.Tanh, func(b *backward, n *Node) *Value {
		y := n.Outputs[0]
		return b.Mul(b.dy(n), b.Sub(b.Scalar(1, y), b.Mul(y, y)))
	}},
	"Relu": {func(x float64) float64 { return math.Max(x, 0) }, func(b *backward, n *Node) *Value {
		return b.Op("Where", nil, b.Op("Greater", nil, n.Outputs[0], b.Scalar(0, n.Outputs[0])), b.dy(n), b.Scalar(0, b.dy(n)))
	}},
	"Erf": {math.Erf, func(b *backward, n *Node) *Value {
		x := n.Inputs[0]
		return b.Mul(b.dy(n), b.Mul(b.Scalar(2/math.Sqrt(math.Pi), x), b.Op("Exp", nil, b.Op("Neg", nil, b.Mul(x, x)))))
	}},
	"Softplus": {func(x float64) float64 { return math.Log1p(math.Exp(x)) }, func(b *backward, n *Node) *Value { return b.Mul(b.dy(n), b.Op("Sigmoid", nil, n.Inputs[0])) }},
	"Floor":    {math.Floor, nil},
	"Ceil":     {math.Ceil, nil},
	"Round":    {math.RoundToEven, nil},
	"Sign": {func(x float64) float64 {
		switch {
		case x > 0:
			return 1
		case x < 0:
			return -1
		}
		return 0
	}, nil},
})
