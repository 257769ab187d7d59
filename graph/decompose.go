package graph

import (
	"math"
	"slices"
)

// decompositions write operators that stand for several others as those: what an optimizer
// fused (the com.microsoft domain), what opsets above 18 brought, and activations and norms
// that a few plain operators make up. So each needs no row, kernel or gradient of its own, and
// values inside a fused operator, such as the sum in SkipLayerNormalization, become tensors
// that prompts can be put into.
var decompositions = map[string]func(b *Builder, n *Node) []*Value{
	"Attention":              attention,
	"RMSNormalization":       rmsNorm,
	"InstanceNormalization":  instanceNorm,
	"GroupNormalization":     groupNorm,
	"HardSwish":              hardSwish,
	"HardSigmoid":            hardSigmoid,
	"LeakyRelu":              leakyRelu,
	"PRelu":                  func(b *Builder, n *Node) []*Value { return negative(b, n.Inputs[0], b.Mul(n.Inputs[0], n.Inputs[1])) },
	"Elu":                    elu,
	"Mish":                   mish,
	"com.microsoft.Gelu":     func(b *Builder, n *Node) []*Value { return []*Value{b.gelu(n.Inputs[0])} },
	"com.microsoft.BiasGelu": func(b *Builder, n *Node) []*Value { return []*Value{b.gelu(b.Add(n.Inputs[0], n.Inputs[1]))} },
	"com.microsoft.FastGelu": fastGelu,
	"com.microsoft.QuickGelu": func(b *Builder, n *Node) []*Value {
		x := n.Inputs[0]
		return []*Value{b.Mul(x, b.Op("Sigmoid", nil, b.Mul(x, b.Scalar(float64(n.Float("alpha", 1.702)), x))))}
	},
	"com.microsoft.FusedMatMul":             fusedMatMul,
	"com.microsoft.SkipLayerNormalization":  skipLayerNorm,
	"com.microsoft.EmbedLayerNormalization": embedLayerNorm,
	"com.microsoft.Attention":               packedAttention,
	"com.microsoft.MultiHeadAttention":      multiHeadAttention,
}

// decompose applies the decompositions.
func decompose(g *Graph) (err error) {
	if !slices.ContainsFunc(g.Nodes, func(n *Node) bool { return decompositions[key(n)] != nil }) {
		return nil
	}
	defer recoverBail(&err)
	nodes := g.Nodes
	g.Nodes = nil
	b := &Builder{g, newInference(g)}
	for _, n := range nodes {
		rewrite, before := decompositions[key(n)], len(g.Nodes)
		if rewrite != nil && b.try(n, rewrite) == nil {
			continue
		}
		g.Nodes = append(g.Nodes[:before], n)
		b.in.node(n)
	}
	return nil
}

// try replaces n by what rewrite builds. A node in a form that rewrite doesn't know, or
// whose operands' shapes are unknown, is an error; such a node can still be run.
func (b *Builder) try(n *Node, rewrite func(*Builder, *Node) []*Value) (err error) {
	defer recoverBail(&err)
	for _, v := range n.Inputs {
		if v != nil && v.Shape == nil {
			fail(n, "operand %q is of unknown shape", v.Name)
		}
	}
	from := len(b.g.Nodes)
	outs := rewrite(b, n)
	for i, v := range n.Outputs {
		if v != nil && (i >= len(outs) || outs[i] == nil) {
			fail(n, "its output %q has no decomposition", v.Name)
		}
	}
	for i, v := range n.Outputs {
		if v != nil {
			b.become(n, v, outs[i], from)
		}
	}
	return nil
}

// become makes out, which n defined, the output that a new node defines as v; the new nodes
// begin at from.
func (b *Builder) become(n *Node, out, v *Value, from int) {
	if v.Def == nil || slices.Contains(n.Inputs, v) {
		v = b.Op("Identity", nil, v)
	}
	if ds, ok := b.in.contents[v]; ok {
		b.in.hold(out, ds)
	}
	if x, ok := b.in.numbers[v]; ok {
		b.in.numbers[out] = x
	}
	out.Def, out.Type, out.Shape = v.Def, v.Type, v.Shape
	replaceIn(v.Def.Outputs, v, out)
	// What the decomposition already read as v is read as out.
	for _, m := range b.g.Nodes[from:] {
		replaceIn(m.Inputs, v, out)
	}
}

// extent is a fixed extent of v, counted from the right.
func (b *Builder) extent(n *Node, v *Value, back int) int64 {
	d, ok := fromRight(v, back)
	k, fixed := d.Int()
	if !ok || !fixed {
		fail(n, "operand %q has shape %s", v.Name, v.Shape)
	}
	return k
}

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

func leakyRelu(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	return negative(b, x, b.Mul(x, b.Scalar(float64(n.Float("alpha", 0.01)), x)))
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

// rmsNorm divides by the root of the mean square.
func rmsNorm(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	var over []int64
	for i := axisOf(n, "axis", -1); i < len(x.Shape); i++ {
		over = append(over, int64(i))
	}
	square := b.Mean(b.Mul(x, x), true, over...)
	root := b.Op("Sqrt", nil, b.Add(square, b.Scalar(float64(n.Float("epsilon", 1e-5)), x)))
	return []*Value{b.Mul(b.Div(x, root), n.Inputs[1])}
}

// standardize takes off the mean and divides by the deviation, over the given axes.
func (b *Builder) standardize(x *Value, epsilon float32, over ...int64) *Value {
	centred := b.Sub(x, b.Mean(x, true, over...))
	variance := b.Mean(b.Mul(centred, centred), true, over...)
	return b.Div(centred, b.Op("Sqrt", nil, b.Add(variance, b.Scalar(float64(epsilon), x))))
}

// perChannel gives a vector over channels the rank of x, [1,C,1,...].
func (b *Builder) perChannel(v, x *Value) *Value {
	axes := append([]int64{0}, firstN(len(x.Shape))[2:]...)
	return b.Op("Unsqueeze", nil, v, b.Ints(axes...))
}

func instanceNorm(b *Builder, n *Node) []*Value {
	x := n.Inputs[0]
	y := b.standardize(x, n.Float("epsilon", 1e-5), firstN(len(x.Shape))[2:]...)
	return []*Value{b.Add(b.Mul(y, b.perChannel(n.Inputs[1], x)), b.perChannel(n.Inputs[2], x))}
}

// groupNorm has scale and bias per channel; in opset 18 they were per group.
func groupNorm(b *Builder, n *Node) []*Value {
	x, groups := n.Inputs[0], n.Int("num_groups", 1)
	if b.g.Opset[""] < 21 {
		fail(n, "the form of opset 18, which was withdrawn")
	}
	y := b.Op("Reshape", nil, x, b.Ints(0, groups, -1))
	y = b.standardize(y, n.Float("epsilon", 1e-5), 2)
	y = b.Op("Reshape", nil, y, b.Op("Shape", nil, x))
	y.Shape = x.Shape
	return []*Value{b.Add(b.Mul(y, b.perChannel(n.Inputs[1], x)), b.perChannel(n.Inputs[2], x))}
}

func fusedMatMul(b *Builder, n *Node) []*Value {
	if n.Int("transBatchA", 0)+n.Int("transBatchB", 0) != 0 {
		fail(n, "batch transposes")
	}
	x, y := n.Inputs[0], n.Inputs[1]
	if n.Int("transA", 0) != 0 {
		x = b.SwapLast(x)
	}
	if n.Int("transB", 0) != 0 {
		y = b.SwapLast(y)
	}
	out := b.MatMul(x, y)
	if alpha := n.Float("alpha", 1); alpha != 1 {
		out = b.Mul(out, b.Scalar(float64(alpha), out))
	}
	return []*Value{out}
}

// layerNorm normalises the last axis. Without a bias, zero is added nowhere.
func (b *Builder) layerNorm(x, scale, bias *Value, epsilon float32) *Value {
	inputs := []*Value{x, scale}
	if bias != nil {
		inputs = append(inputs, bias)
	}
	return b.Op("LayerNormalization", Attrs{"axis": int64(-1), "epsilon": epsilon}, inputs...)
}

// skipLayerNorm normalises input + skip (+ bias); output 3 is that sum.
func skipLayerNorm(b *Builder, n *Node) []*Value {
	sum := b.Add(n.Inputs[0], n.Inputs[1])
	if bias := n.Input(4); bias != nil {
		sum = b.Add(sum, bias)
	}
	return []*Value{b.layerNorm(sum, n.Inputs[2], n.Input(3), n.Float("epsilon", 1e-12)), nil, nil, sum}
}

// embedLayerNorm adds up word, position and segment embeddings and normalises them. Output 1
// counts each row's unmasked tokens, output 2 is the sum.
func embedLayerNorm(b *Builder, n *Node) []*Value {
	ids, segments := n.Inputs[0], n.Input(1)
	sum := b.Op("Gather", nil, n.Inputs[2], ids)
	if at := n.Input(8); at != nil {
		sum = b.Add(sum, b.Op("Gather", nil, n.Inputs[3], at))
	} else {
		length := b.Op("Shape", Attrs{"start": int64(1), "end": int64(2)}, ids)
		sum = b.Add(sum, b.Op("Slice", nil, n.Inputs[3], b.Ints(0), length, b.Ints(0)))
	}
	if segments != nil && n.Input(4) != nil {
		sum = b.Add(sum, b.Op("Gather", nil, n.Inputs[4], segments))
	}
	out := []*Value{b.layerNorm(sum, n.Inputs[5], n.Input(6), n.Float("epsilon", 1e-12)), nil, sum}
	if mask := n.Input(7); mask != nil {
		out[1] = b.Op("ReduceSum", Attrs{"keepdims": int64(0)}, b.Op("Cast", Attrs{"to": int64(Int32)}, mask), b.Ints(1))
	}
	return out
}
