package ort

import (
	"runtime"
	"slices"

	"golang.org/x/sys/cpu"

	"github.com/foretoken/foretoken/graph"
)

const msft = "com.microsoft."

// kernels lists, for each device, the operators that loading writes out and that the device has kernels for: a graph's nodes of them
// run as the model's file has them where nothing was put inside them and nothing else needs what is in there. docs/decisions.md says
// what that is worth, and what is left out. Others of ONNX's own operators the runtime writes out itself, or has slower kernels for
// than for their parts.
var kernels = map[Provider]map[string]bool{
	CPU: set("Attention", "Celu", "DepthToSpace", "Elu", "HardSigmoid", "InstanceNormalization", "LeakyRelu", "LpNormalization", "PRelu",
		"RMSNormalization", "Selu", "Shrink", "SimplifiedLayerNormalization", "Softsign", "SpaceToDepth", "TensorScatter", "ThresholdedRelu",
		msft+"Attention", msft+"BiasGelu", msft+"DynamicQuantizeMatMul", msft+"EmbedLayerNormalization", msft+"FastGelu", msft+"FusedConv",
		msft+"FusedGemm", msft+"FusedMatMul", msft+"GatherBlockQuantized", msft+"Gelu", msft+"MatMulNBits", msft+"MultiHeadAttention",
		msft+"QuickGelu", msft+"RotaryEmbedding", msft+"SkipLayerNormalization", msft+"SkipSimplifiedLayerNormalization"),
	CUDA: set("Elu", "HardSigmoid", "InstanceNormalization", "LeakyRelu", "PRelu", "Selu", "Shrink", "SimplifiedLayerNormalization", "Softsign",
		"ThresholdedRelu",
		msft+"Attention", msft+"BiasAdd", msft+"BiasGelu", msft+"BiasSoftmax", msft+"BiasSplitGelu", msft+"EmbedLayerNormalization", msft+"FastGelu",
		msft+"FusedConv", msft+"FusedMatMul", msft+"Gelu", msft+"GroupNorm", msft+"MatMulNBits", msft+"MultiHeadAttention", msft+"QuickGelu",
		msft+"RotaryEmbedding", msft+"SkipGroupNorm", msft+"SkipLayerNormalization", msft+"SkipSimplifiedLayerNormalization"),
	WebGPU: set("Elu", "HardSigmoid", "InstanceNormalization", "LeakyRelu", "SimplifiedLayerNormalization", "ThresholdedRelu",
		msft+"BiasAdd", msft+"BiasSplitGelu", msft+"FastGelu", msft+"Gelu", msft+"MatMulNBits", msft+"MultiHeadAttention", msft+"QuickGelu",
		msft+"RotaryEmbedding", msft+"SkipLayerNormalization", msft+"SkipSimplifiedLayerNormalization"),
}

func set(operators ...string) map[string]bool {
	out := map[string]bool{}
	for _, op := range operators {
		out[op] = true
	}
	return out
}

// fuse returns the graph with what the device has kernels for in place of what it was written out as, and how many nodes these
// are; g itself where there are none.
func (o Options) fuse(g *graph.Graph) (*graph.Graph, int) {
	if o.WrittenOut {
		return g, 0
	}
	fused := g.Clone()
	count := fused.Fuse(o.Rounding, o.hasKernel)
	if count == 0 {
		return g, 0
	}
	return fused, count
}

func (o Options) hasKernel(n *graph.Node) bool {
	op := operator(n)
	switch {
	case !kernels[o.Provider][op]:
		return false
	case o.Weights != nil && packers[op] && n.Inputs[1].IsConst():
		return false
	case op == msft+"DynamicQuantizeMatMul" && n.Inputs[1].Type == graph.Int8 && saturates:
		return false
	}
	return o.Provider != CPU || !slices.ContainsFunc(n.Inputs, isHalf)
}

// packers pack the weights that are their second input in a form of their own, which a session that trains, where products and
// convolutions stand in their place, can't share.
var packers = set(msft+"Attention", msft+"FusedConv", msft+"FusedGemm", msft+"FusedMatMul")

// saturates is whether this processor's integer products with signed weights are wrong where sums of two are more than 16 bits
// hold: ONNX Runtime uses VPMADDUBSW on x86 without VNNI
// (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When and why do I need to try U8U8").
var saturates = runtime.GOARCH == "amd64" && !cpu.X86.HasAVX512VNNI && !cpu.X86.HasAVXVNNI

func operator(n *graph.Node) string {
	if n.Domain == "" {
		return n.Op
	}
	return n.Domain + "." + n.Op
}
