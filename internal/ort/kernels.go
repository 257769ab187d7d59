package ort

import (
	"slices"

	"github.com/foretoken/foretoken/graph"
)

// kernels lists, for each device, the operators that loading writes out and that the device has a kernel for which is worth
// having: docs/decisions.md has what was measured. A graph's nodes of them run as the file has them where nothing was put
// inside them and nothing else needs what is in there.
var kernels = map[Provider]map[string]bool{
	CPU: operators(plain, "Attention", "RMSNormalization", "SimplifiedLayerNormalization",
		msft+"Gelu", msft+"BiasGelu", msft+"FastGelu", msft+"QuickGelu",
		msft+"SkipLayerNormalization", msft+"SkipSimplifiedLayerNormalization", msft+"EmbedLayerNormalization",
		msft+"Attention", msft+"MultiHeadAttention", msft+"RotaryEmbedding",
		msft+"MatMulNBits", msft+"GatherBlockQuantized", msft+"DynamicQuantizeMatMul"),
}

const msft = "com.microsoft."

// plain are operators of ONNX itself that each device has.
var plain []string

func operators(lists ...any) map[string]bool {
	out := map[string]bool{}
	for _, l := range lists {
		switch l := l.(type) {
		case string:
			out[l] = true
		case []string:
			for _, op := range l {
				out[op] = true
			}
		}
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
	return kernels[o.Provider][operator(n)] && (o.Provider != CPU || !slices.ContainsFunc(n.Inputs, isHalf))
}

func operator(n *graph.Node) string {
	if n.Domain == "" {
		return n.Op
	}
	return n.Domain + "." + n.Op
}
