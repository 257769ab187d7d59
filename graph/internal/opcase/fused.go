package opcase

import (
	"math"
	"math/rand/v2"

	"github.com/foretoken/foretoken/graph"
)

const msft = "com.microsoft."

// Fused lists uses of operators that loading a graph writes out as others.
var Fused = join(
	Quantized,
	devices,
	of("any number", []Operand{Apart("b=2 3 8", 0)}, nil, "HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Mish", msft+"Gelu", msft+"FastGelu", msft+"QuickGelu"),
	of("with parameters", []Operand{Apart("b=2 3 8", 0)}, attrs{"alpha": float32(0.3)}, "LeakyRelu", "Elu", "HardSigmoid", msft+"QuickGelu"),
	of("values of both signs", []Operand{Apart("b=2 3 8", 0)}, nil, "Celu", "Selu", "Softsign"),
	[]Case{
		{Op: "Swish", Name: "plain", In: []Operand{F("b=2 3 8")}, Opset: 24},
		{Op: "Swish", Name: "with a factor", In: []Operand{F("b=2 3 8")}, Attrs: attrs{"alpha": float32(1.702)}, Opset: 24},
		{Op: "SwiGLU", Name: "with a factor", In: []Operand{F("b=2 3 8"), F("b=2 3 8")}, Attrs: attrs{"alpha": float32(1.3)}, Opset: 28, Lacking: "the operator"},
		{Op: "Shrink", Name: "towards zero", In: []Operand{Apart("b=2 3 8", 1)}, Attrs: attrs{"lambd": float32(0.47), "bias": float32(0.2)}},
		{Op: "CastLike", Name: "as the other operand is", In: []Operand{F("b=2 3"), F("1").Held()}},
		{Op: "DepthToSpace", Name: "blocks first", In: []Operand{F("b=2 12 h=2 3")}, Attrs: attrs{"blocksize": int64(2)}},
		{Op: "DepthToSpace", Name: "blocks last", In: []Operand{F("b=2 12 h=2 3")}, Attrs: attrs{"blocksize": int64(2), "mode": "CRD"}},
		{Op: "SpaceToDepth", Name: "an image", In: []Operand{F("b=2 3 h=4 6")}, Attrs: attrs{"blocksize": int64(2)}},
		{Op: "SpaceToDepth", Name: "blocks last", In: []Operand{F("b=2 3 h=4 6")}, Attrs: attrs{"blocksize": int64(2), "mode": "CRD"}, Opset: 28, Lacking: "the mode"},
		{Op: "BatchNormalization", Name: "in training mode", In: []Operand{F("3 2 4"), F("2"), F("2"), F("2").Held(), Positive("2").Held()}, Attrs: attrs{"training_mode": yes, "epsilon": float32(0.01)}, Lacking: "training mode"},
		{Op: "GlobalMaxPool", Name: "an image", In: []Operand{Apart("b=2 3 4 5", 0)}},
		{Op: "GlobalLpPool", Name: "by length", In: []Operand{F("b=2 3 4 5")}},
		{Op: "GlobalLpPool", Name: "by cubes", In: []Operand{Apart("b=2 3 2 3", 0)}, Attrs: attrs{"p": int64(3)}},
		{Op: "LpPool", Name: "by length, padded", In: []Operand{F("2 3 5 5")}, Attrs: attrs{"kernel_shape": []int64{2, 3}, "strides": []int64{2, 2}, "pads": []int64{0, 1, 1, 1}}},
		{Op: "LpPool", Name: "by absolute values", In: []Operand{Apart("2 1 6", 0)}, Attrs: attrs{"kernel_shape": []int64{3}, "p": yes}},
		{Op: "LRN", Name: "across an odd number of channels", In: []Operand{F("b=2 6 3 2")}, Attrs: attrs{"size": int64(3), "alpha": float32(0.5), "beta": float32(0.6), "bias": float32(1.5)}},
		{Op: "LRN", Name: "across an even number of channels", In: []Operand{F("b=2 6 3 2")}, Attrs: attrs{"size": int64(4), "alpha": float32(0.5)}, Lacking: "even sizes"},
		{Op: msft + "Trilu", Name: "upper, above the diagonal", In: []Operand{F("4 3"), I("", 1)}},
		{Op: msft + "TransposeMatMul", Name: "second transposed", In: []Operand{F("b=2 3 4"), F("b=2 5 4")}, Attrs: attrs{"transB": yes}},
		{Op: msft + "GroupQueryAttention", Name: "queries share keys, lengths", Attrs: attrs{"num_heads": int64(4), "kv_num_heads": int64(2)}, Out: 3, In: []Operand{
			F("2 3 32"), F("2 3 16"), F("2 3 16"), None(), None(), I("2", 2, 1).Int32().Fed(), I("", 3).Int32(),
		}},
		{Op: msft + "GroupQueryAttention", Name: "packed, turned, with a past", Attrs: attrs{"num_heads": int64(4), "kv_num_heads": int64(2), "do_rotary": yes}, Out: 3, In: []Operand{
			F("2 1 128"), None(), None(), F("2 2 4 16"), F("2 2 4 16"), I("2", 4, 4).Int32().Fed(), I("", 5).Int32(), F("8 8").Held(), F("8 8").Held(),
		}},
		{Op: "ThresholdedRelu", Name: "above one half", In: []Operand{Apart("b=2 3 8", 1)}, Attrs: attrs{"alpha": float32(0.47)}},
		{Op: "LpNormalization", Name: "by length", In: []Operand{F("b=2 3 8")}},
		{Op: "LpNormalization", Name: "by absolute values, another axis", In: []Operand{Apart("b=2 3 8", 0)}, Attrs: attrs{"axis": yes, "p": yes}},
		{Op: "MeanVarianceNormalization", Name: "an image", In: []Operand{F("2 3 4 5")}},
		{Op: "SimplifiedLayerNormalization", Name: "the last axis", In: []Operand{F("b=2 3 8"), F("8")}},
		{Op: msft + "SkipSimplifiedLayerNormalization", Name: "with a bias", In: []Operand{F("b=2 3 8"), F("b=2 3 8"), F("8"), F("8")}, Attrs: attrs{"epsilon": float32(1e-3)}},
		{Op: msft + "FusedGemm", Name: "an activation behind", In: []Operand{F("2 4"), F("5 4"), F("5")}, Attrs: attrs{"transB": yes, "activation": "Tanh"}},
		{Op: msft + "FusedConv", Name: "an activation behind", In: []Operand{F("2 3 5 5"), F("4 3 2 2"), F("4")}, Attrs: attrs{"strides": []int64{2, 2}, "activation": "Sigmoid"}},
		{Op: "RotaryEmbedding", Name: "heads apart", In: []Operand{F("2 2 3 8"), F("2 3 4").Held(), F("2 3 4").Held()}, Opset: 23},
		{Op: "RotaryEmbedding", Name: "interleaved, heads side by side", In: []Operand{F("2 3 16"), F("2 3 4").Held(), F("2 3 4").Held()}, Attrs: attrs{"interleaved": yes, "num_heads": int64(2)}, Opset: 23},
		{Op: "RotaryEmbedding", Name: "a part of each head, by positions", In: []Operand{F("2 2 3 8"), F("5 2").Held(), F("5 2").Held(), I("2 3", 0, 1, 2, 2, 3, 4).Fed()}, Attrs: attrs{"rotary_embedding_dim": int64(4)}, Opset: 23},
		{Op: msft + "RotaryEmbedding", Name: "heads side by side", In: []Operand{F("2 3 16"), I("2 3", 0, 1, 2, 2, 3, 4).Fed(), F("5 4").Held(), F("5 4").Held()}},
		{Op: msft + "RotaryEmbedding", Name: "counting on from a position, interleaved", In: []Operand{F("2 3 16"), I("1", 1).Fed(), F("5 4").Held(), F("5 4").Held()}, Attrs: attrs{"interleaved": yes}},
		{Op: "SoftmaxCrossEntropyLoss", Name: "the mean", In: []Operand{F("3 5"), I("3", 0, 4, 2).Fed()}},
		{Op: "SoftmaxCrossEntropyLoss", Name: "some ignored, weighted", In: []Operand{F("2 5 3"), I("2 3", 0, -100, 2, 1, 4, -100).Fed(), Positive("5").Held()}, Attrs: attrs{"ignore_index": int64(-100)}},
		{Op: "SoftmaxCrossEntropyLoss", Name: "each by itself", In: []Operand{F("3 5"), I("3", 0, 4, 2).Fed()}, Attrs: attrs{"reduction": "none"}},
		{Op: "NegativeLogLikelihoodLoss", Name: "the sum, some ignored", In: []Operand{F("3 5"), I("3", 0, 4, 2).Fed()}, Attrs: attrs{"reduction": "sum", "ignore_index": int64(4)}},
	},
	of("with a bias", []Operand{F("b=2 3 8"), F("8")}, nil, msft+"BiasGelu", msft+"FastGelu"),
	[]Case{
		{Op: "DequantizeLinear", Name: "one scale", In: []Operand{I("2 3", 0, 5, 255, 128, 7, 9).Bytes(graph.Uint8).Fed(), Positive("").Const(), I("", 127).Bytes(graph.Uint8)}},
		{Op: "DequantizeLinear", Name: "a scale for each column", In: []Operand{I("2 3", 0, 5, -128, 127, 7, -9).Bytes(graph.Int8).Fed(), Positive("3").Const(), I("3", 1, 0, -3).Bytes(graph.Int8)}},
		{Op: "DequantizeLinear", Name: "in blocks", In: []Operand{I("2 4", 0, 5, 255, 128, 7, 9, 1, 2).Bytes(graph.Uint8), Positive("2 2"), I("2 2", 1, 2, 3, 4).Bytes(graph.Uint8)}, Attrs: attrs{"axis": yes, "block_size": int64(2)}, Opset: 21},
		{Op: "DequantizeLinear", Name: "4 bits, a scale for each row", In: []Operand{I("2 3", 0, 5, -8, 7, -1, 3).Bytes(graph.Int4), Positive("2"), I("2", 1, -3).Bytes(graph.Int4)}, Attrs: attrs{"axis": no}, Opset: 21},
		{Op: "DequantizeLinear", Name: "4 bits in blocks, the last one shorter", In: []Operand{I("2 5", 0, 5, 15, 8, 7, 9, 1, 2, 14, 3).Bytes(graph.Uint4), Positive("2 3"), I("2 3", 1, 2, 3, 4, 8, 15).Bytes(graph.Uint4)}, Attrs: attrs{"axis": yes, "block_size": int64(2)}, Opset: 21},
		{Op: "DequantizeLinear", Name: "4 bits in blocks along the first axis, as weights have them", In: []Operand{I("4 2", 0, 5, -8, 7, -7, -1, 1, 2).Bytes(graph.Int4), Positive("2 2")}, Attrs: attrs{"axis": no, "block_size": int64(2)}, Opset: 21},
		{Op: msft + "DequantizeLinear", Name: "one scale", In: []Operand{I("2 3", 0, 5, 255, 128, 7, 9).Bytes(graph.Uint8).Fed(), Positive(""), I("", 127).Bytes(graph.Uint8)}},
		{Op: msft + "MatMulNBits", Name: "4 bits, the middle for zero", In: []Operand{F("b=2 20"), nibbles(3, 2, 8), Positive("6").Const()}, Attrs: attrs{"K": int64(20), "N": int64(3), "bits": int64(4), "block_size": int64(16)}},
		{Op: msft + "MatMulNBits", Name: "4 bits, zero points", In: []Operand{F("b=2 32"), nibbles(3, 2, 8), Positive("6").Const(), nibbles(3)}, Attrs: attrs{"K": int64(32), "N": int64(3), "bits": int64(4), "block_size": int64(16)}},
		{Op: msft + "MatMulNBits", Name: "8 bits", In: []Operand{F("b=2 32"), nibbles(3, 1, 32), Positive("3").Const()}, Attrs: attrs{"K": int64(32), "N": int64(3), "bits": int64(8), "block_size": int64(32)}},
		{Op: "PRelu", Name: "a slope for each", In: []Operand{Apart("b=2 3 4", 0), F("3 1")}},
		{Op: "RMSNormalization", Name: "the last axis", In: []Operand{F("b=2 3 8"), F("8")}, Opset: 23},
		{Op: "RMSNormalization", Name: "two axes", In: []Operand{F("b=2 3 8"), F("3 8")}, Attrs: attrs{"axis": int64(-2), "epsilon": float32(0.1)}, Opset: 23},
		{Op: "InstanceNormalization", Name: "an image", In: []Operand{F("b=2 3 4 5"), F("3"), F("3")}},
		{Op: "GroupNormalization", Name: "scales by group, as opset 18 has them", In: []Operand{F("b=2 6 2 3"), F("3"), F("3")}, Attrs: attrs{"num_groups": int64(3)}, Opset: 18},
		{Op: "GroupNormalization", Name: "an image", In: []Operand{F("b=2 6 2 3"), F("6"), F("6")}, Attrs: attrs{"num_groups": int64(3)}, Opset: 21},
		{Op: msft + "FusedMatMul", Name: "second transposed and scaled", In: []Operand{F("b=2 3 4"), F("b=2 5 4")}, Attrs: attrs{"transB": yes, "alpha": float32(0.25)}},
		{Op: msft + "FusedMatMul", Name: "batches behind rows", In: []Operand{F("3 2 4"), F("5 2 4")}, Attrs: attrs{"transB": yes, "transBatchA": yes, "transBatchB": yes}},
		{Op: msft + "FusedMatMul", Name: "first transposed", In: []Operand{F("b=2 4 3"), F("b=2 4 5")}, Attrs: attrs{"transA": yes}},
		{Op: msft + "SkipLayerNormalization", Name: "bare", In: []Operand{F("b=2 3 8"), F("b=2 3 8"), F("8")}},
		{Op: msft + "SkipLayerNormalization", Name: "with both biases", In: []Operand{F("b=2 3 8"), F("b=2 3 8"), F("8"), F("8"), F("8")}, Attrs: attrs{"epsilon": float32(1e-3)}},
		{Op: msft + "EmbedLayerNormalization", Name: "words, positions and segments", Attrs: attrs{"epsilon": float32(1e-3)}, Out: 2, In: []Operand{
			I("2 3", 4, 0, 2, 1, 1, 3).Int32().Fed(), I("2 3", 0, 1, 1, 0, 0, 1).Int32().Fed(), F("5 8"), F("4 8"), F("2 8"), F("8"), F("8"), I("2 3", 1, 1, 0, 1, 1, 1).Int32().Fed(),
		}},
		{Op: "Attention", Name: "heads apart", In: []Operand{F("b=2 2 3 4"), F("b=2 2 5 4"), F("b=2 2 5 6")}, Opset: 23},
		{Op: "Attention", Name: "heads side by side, scaled", In: []Operand{F("b=2 3 8"), F("b=2 5 8"), F("b=2 5 8")}, Attrs: attrs{"q_num_heads": int64(2), "kv_num_heads": int64(2), "scale": float32(0.2)}, Opset: 23},
		{Op: "Attention", Name: "causal", In: []Operand{F("b=2 2 4 4"), F("b=2 2 4 4"), F("b=2 2 4 4")}, Attrs: attrs{"is_causal": yes}, Opset: 23},
		{Op: "Attention", Name: "scores are added to", In: []Operand{F("b=2 2 3 4"), F("b=2 2 5 4"), F("b=2 2 5 4"), F("3 5")}, Opset: 23},
		{Op: "Attention", Name: "keys are masked", In: []Operand{F("2 2 3 4"), F("2 2 5 4"), F("2 2 5 4"), Mask("3 5")}, Opset: 23},
		{Op: "Attention", Name: "scores are capped", In: []Operand{F("b=2 2 3 4"), F("b=2 2 5 4"), F("b=2 2 5 4")}, Attrs: attrs{"softcap": float32(1.5)}, Opset: 23},
		{Op: "Attention", Name: "queries share keys", In: []Operand{F("b=2 4 3 4"), F("b=2 2 5 4"), F("b=2 2 5 4")}, Opset: 23},
		{Op: msft + "Attention", Name: "packed", In: []Operand{F("b=2 3 8"), Small("8 24"), F("24")}, Attrs: attrs{"num_heads": int64(2)}},
		{Op: msft + "Attention", Name: "packed and causal", In: []Operand{F("b=2 3 8"), Small("8 24"), F("24")}, Attrs: attrs{"num_heads": int64(2), "unidirectional": yes}},
		{Op: msft + "Attention", Name: "packed, keys masked", In: []Operand{F("2 3 8"), Small("8 24"), F("24"), I("2 3", 1, 1, 0, 1, 1, 1).Int32().Fed()}, Attrs: attrs{"num_heads": int64(2)}},
		{Op: msft + "Attention", Name: "packed, lengths", In: []Operand{F("2 3 8"), Small("8 24"), F("24"), I("2", 2, 3).Int32().Fed()}, Attrs: attrs{"num_heads": int64(2)}},
		{Op: msft + "Attention", Name: "packed, keys masked and scores added to", In: []Operand{
			F("2 3 8"), Small("8 24"), F("24"), I("2 3", 1, 1, 0, 1, 1, 1).Int32().Fed(), None(), F("2 2 3 3"),
		}, Attrs: attrs{"num_heads": int64(2)}},
		{Op: msft + "MultiHeadAttention", Name: "keys masked and scores added to", In: []Operand{
			F("2 3 8"), F("2 5 8"), F("2 5 8"), None(), I("2 5", 1, 1, 0, 1, 1, 1, 1, 1, 1, 0).Int32().Fed(), F("2 2 3 5"),
		}, Attrs: attrs{"num_heads": int64(2)}},
		{Op: "TensorScatter", Name: "a place for each row", In: []Operand{F("2 3 5 2"), F("2 3 2 2"), I("2", 1, 3).Fed()}, Opset: 24},
		{Op: "TensorScatter", Name: "around the end, another axis", In: []Operand{F("2 5 3"), F("2 3 3"), I("2", 1, 4).Fed()}, Attrs: attrs{"mode": "circular", "axis": yes}, Opset: 24},
		{Op: "TensorScatter", Name: "at the front", In: []Operand{F("2 5 2"), F("2 3 2")}, Opset: 24},
		{Op: msft + "Attention", Name: "packed and causal, behind a past", In: []Operand{F("2 3 8"), Small("8 24"), F("24"), None(), F("2 2 2 4 4")}, Out: 2, Attrs: attrs{"num_heads": int64(2), "unidirectional": yes}},
		{Op: msft + "Attention", Name: "packed, behind a past, keys masked", In: []Operand{
			F("2 3 8"), Small("8 24"), F("24"), I("2 5", 1, 1, 0, 1, 1, 0, 1, 1, 1, 1).Int32().Fed(), F("2 2 2 2 4"),
		}, Out: 2, Attrs: attrs{"num_heads": int64(2)}},
		{Op: msft + "MultiHeadAttention", Name: "behind a past", In: []Operand{F("2 3 8"), F("2 3 8"), F("2 3 8"), None(), None(), None(), F("2 2 4 4"), F("2 2 4 4")}, Out: 3, Attrs: attrs{"num_heads": int64(2)}},
		{Op: msft + "MultiHeadAttention", Name: "causal, behind a past", In: []Operand{F("2 3 8"), F("2 3 8"), F("2 3 8"), None(), None(), None(), F("2 2 4 4"), F("2 2 4 4")}, Out: 3, Attrs: attrs{"num_heads": int64(2), "unidirectional": yes}},
		{Op: msft + "MultiHeadAttention", Name: "keys and values by head already", In: []Operand{F("2 3 8"), F("2 2 5 4"), F("2 2 5 4")}, Attrs: attrs{"num_heads": int64(2)}},
		{Op: msft + "MultiHeadAttention", Name: "plain", In: []Operand{F("b=2 3 8"), F("b=2 5 8"), F("b=2 5 8")}, Attrs: attrs{"num_heads": int64(2)}},
		{Op: msft + "MultiHeadAttention", Name: "with biases", In: []Operand{F("b=2 3 8"), F("b=2 5 8"), F("b=2 5 8"), F("24")}, Attrs: attrs{"num_heads": int64(4), "scale": float32(0.3)}},
	},
)

// devices lists uses of operators that ONNX Runtime has kernels for on other devices than the CPU.
var devices = []Case{
	{Op: msft + "BiasAdd", Name: "a bias and a skip", In: []Operand{F("2 3 8"), F("8"), F("2 3 8")}, Lacking: "a kernel", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		return c.Op("Sum", nil, x...)
	}},
	{Op: msft + "BiasSoftmax", Name: "the last axis", In: []Operand{F("b=2 3 4"), F("b=2 1 4")}, Attrs: attrs{"axis": int64(2), "is_inner_broadcast": no}, Lacking: "a kernel", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		return c.Op("Softmax", nil, c.Op("Add", nil, x...))
	}},
	{Op: msft + "BiasSplitGelu", Name: "halves", In: []Operand{F("2 3 8"), F("8")}, Lacking: "a kernel", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		half := c.Node("Split", 2, attrs{"axis": int64(-1), "num_outputs": int64(2)}, c.Op("Add", nil, x...))
		return c.Op("Mul", nil, half[0], c.Op("Gelu", nil, half[1]))
	}},
	{Op: msft + "FusedMatMulActivation", Name: "scaled and transposed", In: []Operand{F("3 4"), F("5 4")}, Attrs: attrs{"transB": yes, "alpha": float32(0.5), "activation": "Tanh"}, Lacking: "a kernel", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		return c.Op("Tanh", nil, c.Op("Gemm", attrs{"transB": yes, "alpha": float32(0.5)}, x...))
	}},
	{Op: msft + "GemmFastGelu", Name: "with a bias", In: []Operand{F("b=2 3 4"), F("4 5"), F("5")}, Lacking: "a kernel", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		return c.Op("Gelu", attrs{"approximate": "tanh"}, c.Op("Add", nil, c.Op("MatMul", nil, x[:2]...), x[2]))
	}},
	{Op: msft + "MultiHeadAttention", Name: "query, key and value packed", In: []Operand{F("2 5 2 3 4")}, Attrs: attrs{"num_heads": int64(2)}, Lacking: "packed operands", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		q := apart(c, x[0], 3)
		return c.Op(msft+"MultiHeadAttention", attrs{"num_heads": int64(2)}, q[0], q[1], q[2])
	}},
	{Op: msft + "MultiHeadAttention", Name: "key and value packed", In: []Operand{F("2 3 8"), F("2 5 2 2 4")}, Attrs: attrs{"num_heads": int64(2)}, Lacking: "packed operands", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		k := apart(c, x[1], 2)
		return c.Op(msft+"MultiHeadAttention", attrs{"num_heads": int64(2)}, x[0], k[0], k[1])
	}},
	{Op: msft + "GroupNorm", Name: "channels last, an activation behind", In: []Operand{F("2 3 2 6"), F("6"), F("6")}, Attrs: attrs{"groups": int64(3), "activation": yes, "epsilon": float32(0.01)}, Opset: 21, Lacking: "a kernel", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		y := groupsLast(c, 0.01, x...)
		return c.Op("Mul", nil, y, c.Op("Sigmoid", nil, y))
	}},
	{Op: msft + "GroupNorm", Name: "channels first", In: []Operand{F("2 6 3 2"), F("6"), F("6")}, Attrs: attrs{"groups": int64(2), "channels_last": no, "activation": no}, Opset: 21, Lacking: "a kernel", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		return c.Op("GroupNormalization", attrs{"num_groups": int64(2)}, x...)
	}},
	{Op: msft + "SkipGroupNorm", Name: "a skip for all pixels, a bias", In: []Operand{F("2 3 2 6"), F("6"), F("6"), F("2 1 1 6"), F("6")}, Attrs: attrs{"groups": int64(3), "activation": no}, Opset: 21, Lacking: "a kernel", Instead: func(c *Chain, x []*graph.Value) *graph.Value {
		return groupsLast(c, 1e-5, c.Op("Sum", nil, x[0], x[3], x[4]), x[1], x[2])
	}},
}

// apart takes [B,S,H,n,d] apart along its fourth axis, heads side by side: [B,S,H*d] each.
func apart(c *Chain, x *graph.Value, n int) []*graph.Value {
	parts := c.Node("Split", n, attrs{"axis": int64(3), "num_outputs": int64(n)}, x)
	for i, p := range parts {
		parts[i] = c.Op("Reshape", nil, p, c.Const(I("3", 0, 0, -1)))
	}
	return parts
}

// groupsLast is GroupNormalization of three groups on [B,H,W,C].
func groupsLast(c *Chain, epsilon float32, x ...*graph.Value) *graph.Value {
	first := c.Op("Transpose", attrs{"perm": []int64{0, 3, 1, 2}}, x[0])
	y := c.Op("GroupNormalization", attrs{"num_groups": int64(3), "epsilon": epsilon}, first, x[1], x[2])
	return c.Op("Transpose", attrs{"perm": []int64{0, 2, 3, 1}}, y)
}

// nibbles is a constant of bytes that all differ from their neighbours.
func nibbles(dims ...int64) Operand {
	values := make([]int64, graph.Count(dims))
	for i := range values {
		values[i] = int64(i*37+11) % 256
	}
	o := I("", values...).Bytes(graph.Uint8)
	o.dims, o.free = dims, make([]string, len(dims))
	return o
}

// Mask is a bool input of the given extents, true but for the last element of each row.
func Mask(extents string) Operand {
	o := B(extents)
	row := int(o.dims[len(o.dims)-1])
	o.fill = func(_ *rand.Rand, n int) []float64 {
		i := 0
		return draw(n, func() float64 { i++; return math.Min(1, float64(i%row)) })
	}
	return o
}
