package graph

import "slices"

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
		return []*Value{b.silu(n.Inputs[0], float64(n.Float("alpha", 1.702)))}
	},
	"com.microsoft.FusedMatMul": fusedMatMul,
	"com.microsoft.FusedGemm":   fusedGemm,
	"com.microsoft.FusedConv":   fusedConv,
	"com.microsoft.BiasAdd": func(b *Builder, n *Node) []*Value {
		return []*Value{b.Add(b.Add(n.Inputs[0], n.Inputs[1]), n.Inputs[2])}
	},
	"com.microsoft.BiasSplitGelu":   biasSplitGelu,
	"com.microsoft.GroupNorm":       channelsLastGroupNorm,
	"RotaryEmbedding":               rotaryEmbedding,
	"com.microsoft.RotaryEmbedding": packedRotaryEmbedding,
	"TensorScatter":                 tensorScatter,
	"Swish":                         swish,
	"Celu":                          celu,
	"Selu":                          selu,
	"Softsign": func(b *Builder, n *Node) []*Value {
		x := n.Inputs[0]
		return []*Value{b.Div(x, b.Add(b.Op("Abs", nil, x), b.Scalar(1, x)))}
	},
	"ThresholdedRelu":                                thresholdedRelu,
	"LpNormalization":                                lpNorm,
	"MeanVarianceNormalization":                      meanVarianceNorm,
	"SoftmaxCrossEntropyLoss":                        crossEntropy,
	"NegativeLogLikelihoodLoss":                      crossEntropy,
	"SimplifiedLayerNormalization":                   rmsNorm, // as ONNX Runtime's optimizer writes it
	"com.microsoft.SkipSimplifiedLayerNormalization": skipRMSNorm,
	"DequantizeLinear":                               dequantizeLinear,
	"DynamicQuantizeLinear":                          dynamicQuantizeLinear,
	"MatMulInteger":                                  matMulInteger,
	"ConvInteger":                                    convInteger,
	"QLinearMatMul":                                  qLinearMatMul,
	"QLinearConv":                                    qLinearConv,
	"com.microsoft.DequantizeLinear":                 dequantizeLinear,
	"com.microsoft.DynamicQuantizeMatMul":            dynamicQuantizeMatMul,
	"com.microsoft.QuantizeLinear":                   renamed("QuantizeLinear", "axis"),
	"com.microsoft.MatMulIntegerToFloat":             matMulIntegerToFloat,
	"com.microsoft.MatMulNBits":                      matMulNBits,
	"com.microsoft.QLinearAdd":                       qLinearBinary("Add"),
	"com.microsoft.QLinearMul":                       qLinearBinary("Mul"),
	"BatchNormalization":                             trainingNorm,
	"CastLike":                                       castLike,
	"DepthToSpace":                                   depthToSpace,
	"SpaceToDepth":                                   spaceToDepth,
	"GlobalMaxPool":                                  globalMaxPool,
	"GlobalLpPool":                                   globalLpPool,
	"LpPool":                                         lpPool,
	"LRN":                                            localResponseNorm,
	"Shrink":                                         shrink,
	"SwiGLU": func(b *Builder, n *Node) []*Value {
		return []*Value{b.Mul(b.silu(n.Inputs[0], float64(n.Float("alpha", 1))), n.Inputs[1])}
	},
	"com.microsoft.BiasSoftmax": biasSoftmax,
	"com.microsoft.FusedMatMulActivation": func(b *Builder, n *Node) []*Value {
		return []*Value{b.activation(n, fusedMatMul(b, n)[0])}
	},
	"com.microsoft.GemmFastGelu":             gemmFastGelu,
	"com.microsoft.GroupQueryAttention":      groupQueryAttention,
	"com.microsoft.SkipGroupNorm":            skipGroupNorm,
	"com.microsoft.TransposeMatMul":          fusedMatMul, // its former name
	"com.microsoft.Trilu":                    renamed("Trilu", "upper"),
	"com.microsoft.GatherBlockQuantized":     gatherBlockQuantized,
	"com.microsoft.QAttention":               quantizedAttention,
	"com.microsoft.QGemm":                    qGemm,
	"com.microsoft.QLinearAveragePool":       qLinearAveragePool,
	"com.microsoft.QLinearConcat":            qLinearConcat,
	"com.microsoft.QLinearGlobalAveragePool": qLinearGlobalAveragePool,
	"com.microsoft.QLinearLeakyRelu":         qLinearUnary(func(b *Builder, n *Node, x *Value) *Value { return leakyReluOf(b, n, x) }),
	"com.microsoft.QLinearSigmoid":           qLinearUnary(func(b *Builder, _ *Node, x *Value) *Value { return b.Op("Sigmoid", nil, x) }),
	"com.microsoft.QLinearSoftmax": qLinearUnary(func(b *Builder, n *Node, x *Value) *Value {
		return b.Op("Softmax", Attrs{"axis": n.Int("axis", -1)}, x)
	}),
	"com.microsoft.SkipLayerNormalization":  skipLayerNorm,
	"com.microsoft.EmbedLayerNormalization": embedLayerNorm,
	"com.microsoft.Attention":               packedAttention,
	"com.microsoft.MultiHeadAttention":      multiHeadAttention,
}

// decompose applies the decompositions, and remembers with each new node which it was written out from.
func decompose(g *Graph) (err error) {
	if !slices.ContainsFunc(g.Nodes, func(n *Node) bool { return decompositions[key(n)] != nil }) {
		return nil
	}
	defer recoverBail(&err)
	nodes := g.Nodes
	g.Nodes = nil
	b := &Builder{g: g, in: newInference(g), readers: map[*Value][]*Node{}, unrounded: map[*Node]*Value{}, dynamic: map[*Value]*Value{}}
	for _, n := range nodes {
		for _, v := range n.reads() {
			b.readers[v] = append(b.readers[v], n)
		}
	}
	for _, n := range nodes {
		rewrite, before := decompositions[key(n)], len(g.Nodes)
		if rewrite != nil && b.try(n, rewrite) == nil {
			continue
		}
		g.Nodes = append(g.Nodes[:before], n)
		b.in.node(n)
	}
	g.Prune() // nothing reads what was quantised any more
	g.rememberParts(g.dropIdentities())
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
	b.whole, b.rounds = n, false
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
	if b.whole != nil {
		m := *b.whole
		m.Inputs, m.Outputs = slices.Clone(m.Inputs), slices.Clone(n.Outputs)
		w := &written{node: &m, opset: b.g.Opset[m.Domain], rounds: b.rounds}
		for _, p := range b.g.Nodes[from:] {
			p.piece = &piece{of: w}
		}
	}
	return nil
}

// become makes out, which n defined, the output that a new node defines as v; the new nodes
// begin at from.
func (b *Builder) become(n *Node, out, v *Value, from int) {
	if !slices.Contains(b.g.Nodes[from:], v.Def) { // it was there before
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

func rmsNorm(b *Builder, n *Node) []*Value {
	return []*Value{b.meanSquareNorm(n.Inputs[0], n.Inputs[1], n.Float("epsilon", 1e-5), int(n.Int("axis", -1)))}
}

// meanSquareNorm divides x by the root of its mean square over the axes from axis on.
func (b *Builder) meanSquareNorm(x, scale *Value, epsilon float32, axis int) *Value {
	if axis < 0 {
		axis += len(x.Shape)
	}
	var over []int64
	for i := axis; i < len(x.Shape); i++ {
		over = append(over, int64(i))
	}
	wide := b.widened(x)
	square := b.Mean(b.Mul(wide, wide), true, over...)
	root := b.Op("Sqrt", nil, b.Add(square, b.Scalar(float64(epsilon), wide)))
	return b.Mul(b.cast(b.Div(wide, root), x.Type), scale)
}

// standardize takes off the mean and divides by the deviation, over the given axes.
func (b *Builder) standardize(x *Value, epsilon float32, over ...int64) *Value {
	wide := b.widened(x)
	centred := b.Sub(wide, b.Mean(wide, true, over...))
	variance := b.Mean(b.Mul(centred, centred), true, over...)
	return b.cast(b.Div(centred, b.Op("Sqrt", nil, b.Add(variance, b.Scalar(float64(epsilon), wide)))), x.Type)
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
	affine := func(y *Value) *Value {
		return b.Add(b.Mul(y, b.perChannel(n.Inputs[1], y)), b.perChannel(n.Inputs[2], y))
	}
	y := b.standardize(b.Op("Reshape", nil, x, b.Ints(0, groups, -1)), n.Float("epsilon", 1e-5), 2)
	perGroup := b.g.Opset[""] < 21
	if perGroup {
		y = affine(y)
	}
	y = b.Op("Reshape", nil, y, b.Op("Shape", nil, x))
	y.Shape = x.Shape
	if perGroup {
		return []*Value{y}
	}
	return []*Value{affine(y)}
}

// channelsLastGroupNorm is com.microsoft GroupNorm: [B,H,W,C] by default, with an optional SiLU.
func channelsLastGroupNorm(b *Builder, n *Node) []*Value {
	x, groups := n.Inputs[0], n.Int("groups", 1)
	last := n.Int("channels_last", 1) != 0
	rank := len(x.Shape)
	if last {
		x = b.Transpose(x, moveToFront(rank, rank-1, 1)...) // [C,B,H,W]
		x = b.Transpose(x, moveToFront(rank, 1, 1)...)
	}
	y := b.Op("Reshape", nil, x, b.Ints(0, groups, -1))
	y = b.standardize(y, n.Float("epsilon", 1e-5), 2)
	y = b.Op("Reshape", nil, y, b.Op("Shape", nil, x))
	y.Shape = x.Shape
	y = b.Add(b.Mul(y, b.perChannel(n.Inputs[1], x)), b.perChannel(n.Inputs[2], x))
	if n.Int("activation", 0) != 0 {
		y = b.silu(y, 1)
	}
	if last {
		perm := append(append([]int64{0}, firstN(rank)[2:]...), 1)
		y = b.Transpose(y, perm...)
	}
	return []*Value{y}
}

// skipRMSNorm is rmsNorm of input + skip (+ bias); output 3 is that sum.
func skipRMSNorm(b *Builder, n *Node) []*Value {
	sum := b.Add(n.Inputs[0], n.Inputs[1])
	if bias := n.Input(3); bias != nil {
		sum = b.Add(sum, bias)
	}
	return []*Value{b.meanSquareNorm(sum, n.Inputs[2], n.Float("epsilon", 1e-5), -1), nil, nil, sum}
}

// lpNorm divides by the sum of absolute values or by the length along an axis; zeros stay as they are.
func lpNorm(b *Builder, n *Node) []*Value {
	x, op := n.Inputs[0], "ReduceL2"
	if n.Int("p", 2) == 1 {
		op = "ReduceL1"
	}
	length := b.Op(op, Attrs{"keepdims": int64(1)}, x, b.Ints(n.Int("axis", -1)))
	none := b.Op("Equal", nil, length, b.Scalar(0, length))
	return []*Value{b.Div(x, b.Op("Where", nil, none, b.Scalar(1, length), length))}
}

func meanVarianceNorm(b *Builder, n *Node) []*Value {
	axes := n.Ints("axes")
	if axes == nil {
		axes = []int64{0, 2, 3}
	}
	x := b.widened(n.Inputs[0])
	centred := b.Sub(x, b.Mean(x, true, axes...))
	deviation := b.Op("Sqrt", nil, b.Mean(b.Mul(centred, centred), true, axes...))
	return []*Value{b.cast(b.Div(centred, b.Add(deviation, b.Scalar(1e-9, x))), n.Inputs[0].Type)}
}

// fusedMatMul scales a product of operands that may have their last two axes swapped, or, before
// that, their first axis moved behind the other batch axes.
func fusedMatMul(b *Builder, n *Node) []*Value {
	operand := func(i int, swap, batch string) *Value {
		x := n.Inputs[i]
		if last := len(x.Shape) - 1; n.Int(batch, 0) != 0 {
			perm := append(firstN(last)[1:], 0, int64(last))
			x = b.Transpose(x, perm...)
		}
		if n.Int(swap, 0) != 0 {
			x = b.SwapLast(x)
		}
		return x
	}
	x, y := operand(0, "transA", "transBatchA"), operand(1, "transB", "transBatchB")
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
