package graph

import "math"

// gelu is x Phi(x), in operators of opset 18.
func (b *Builder) gelu(x *Value) *Value {
	cdf := b.Add(b.Op("Erf", nil, b.Mul(x, b.Scalar(1/math.Sqrt2, x))), b.Scalar(1, x))
	return b.Mul(b.Mul(x, b.Scalar(0.5, x)), cdf)
}

// fastGelu is gelu's tanh approximation, after an optional bias.
func fastGelu(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	if bias := n.Input(1); bias != nil {
		x = b.Add(x, bias)
	}
	cube := b.Mul(b.Mul(x, x), x)
	inner := b.Mul(b.Add(x, b.Mul(cube, b.Scalar(0.044715, x))), b.Scalar(math.Sqrt(2/math.Pi), x))
	return []*Value{b.Mul(b.Mul(x, b.Scalar(0.5, x)), b.Add(b.Op("Tanh", nil, inner), b.Scalar(1, x)))}
}

// negative is x where x is positive, else y.
func negative(b *Builder, x, y *Value) []*Value {
	return []*Value{b.Op("Where", nil, b.Op("Greater", nil, x, b.Scalar(0, x)), x, y)}
}

func leakyRelu(b *Builder, n *Node) []*Value { return []*Value{leakyReluOf(b, n, n.Inputs[0])} }

func leakyReluOf(b *Builder, n *Node, x *Value) *Value {
	return negative(b, x, b.Mul(x, b.Scalar(float64(n.Float("alpha", 0.01)), x)))[0]
}

// elu keeps the exponent at or below 0, so that the branch not taken stays finite.
func elu(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	e := b.Op("Exp", nil, b.Op("Min", nil, x, b.Scalar(0, x)))
	return negative(b, x, b.Mul(b.Sub(e, b.Scalar(1, x)), b.Scalar(float64(n.Float("alpha", 1)), x)))
}

func mish(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	return []*Value{b.Mul(x, b.Op("Tanh", nil, b.Op("Softplus", nil, x)))}
}

// clipLine is slope*x + offset, clipped to [0,1].
func (b *Builder) clipLine(x *Value, slope, offset float64) *Value {
	return b.Op("Clip", nil, b.Add(b.Mul(x, b.Scalar(slope, x)), b.Scalar(offset, x)), b.Scalar(0, x), b.Scalar(1, x))
}

func hardSigmoid(b *Builder, n *Node) []*Value {
	return []*Value{b.clipLine(n.Inputs[0], float64(n.Float("alpha", 0.2)), float64(n.Float("beta", 0.5)))}
}

func hardSwish(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	return []*Value{b.Mul(x, b.clipLine(x, 1.0/6, 0.5))}
}

// silu is x sigmoid(alpha x).
func (b *Builder) silu(x *Value, alpha float64) *Value {
	z := x
	if alpha != 1 {
		z = b.Mul(x, b.Scalar(alpha, x))
	}
	return b.Mul(x, b.Op("Sigmoid", nil, z))
}

func swish(b *Builder, n *Node) []*Value {
	return []*Value{b.silu(n.Inputs[0], float64(n.Float("alpha", 1)))}
}

func celu(b *Builder, n *Node) []*Value {
	x, alpha := n.Inputs[0], float64(n.Float("alpha", 1))
	e := b.Op("Exp", nil, b.Div(b.Op("Min", nil, x, b.Scalar(0, x)), b.Scalar(alpha, x)))
	return negative(b, x, b.Mul(b.Sub(e, b.Scalar(1, x)), b.Scalar(alpha, x)))
}

func selu(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	alpha, gamma := float64(n.Float("alpha", 1.67326319217681884765625)), float64(n.Float("gamma", 1.05070102214813232421875))
	e := b.Op("Exp", nil, b.Op("Min", nil, x, b.Scalar(0, x)))
	y := negative(b, x, b.Mul(b.Sub(e, b.Scalar(1, x)), b.Scalar(alpha, x)))
	return []*Value{b.Mul(y[0], b.Scalar(gamma, x))}
}

func thresholdedRelu(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	above := b.Op("Greater", nil, x, b.Scalar(float64(n.Float("alpha", 1)), x))
	return []*Value{b.Op("Where", nil, above, x, b.Scalar(0, x))}
}

// biasSplitGelu halves x + bias along the last axis: the left half times the gelu of the right.
func biasSplitGelu(b *Builder, n *Node) []*Value {
	x := b.Add(n.Inputs[0], n.Inputs[1])
	half := b.extent(n, x, 1) / 2
	parts := b.Ops("Split", 2, Attrs{"axis": int64(-1)}, x, b.Ints(half, half))
	return []*Value{b.Mul(parts[0], b.gelu(parts[1]))}
}

// activation applies what a fused operator does last.
func (b *Builder) activation(n *Node, x *Value) *Value {
	p, _ := n.Attrs["activation_params"].Value.([]float32)
	param := func(i int, attr string, def float32) float64 {
		if i < len(p) {
			return float64(p[i])
		}
		return float64(n.Float(attr, def))
	}
	switch f := n.Str("activation", ""); f {
	case "":
		return x
	case "Relu", "Sigmoid", "Tanh":
		return b.Op(f, nil, x)
	case "LeakyRelu":
		return negative(b, x, b.Mul(x, b.Scalar(param(0, "activation_alpha", 0.01), x)))[0]
	case "HardSigmoid":
		return b.clipLine(x, param(0, "activation_alpha", 0.2), param(1, "activation_beta", 0.5))
	case "Clip":
		return b.Op("Clip", nil, x, b.Scalar(param(0, "", -math.MaxFloat32), x), b.Scalar(param(1, "", math.MaxFloat32), x))
	default:
		fail(n, "its activation %q", f)
		return nil
	}
}

func fusedGemm(b *Builder, n *Node) []*Value {
	at := Attrs{"alpha": n.Float("alpha", 1), "beta": n.Float("beta", 1), "transA": n.Int("transA", 0), "transB": n.Int("transB", 0)}
	return []*Value{b.activation(n, b.Op("Gemm", at, n.Inputs...))}
}

// fusedConv is a convolution, an optional sum with input 3, and an activation.
func fusedConv(b *Builder, n *Node) []*Value {
	y := b.Op("Conv", convAttrs(n), n.Inputs[:min(3, len(n.Inputs))]...)
	if z := n.Input(3); z != nil {
		y = b.Add(y, z)
	}
	return []*Value{b.activation(n, y)}
}
