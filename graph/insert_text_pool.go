package graph

import "slices"

// The poolings of text towers, beside [PoolMean] and [PoolNone].
const (
	PoolFirst Pooling = "first" // the first token, such as [CLS]
	PoolLast  Pooling = "last"  // the last one, padding or not
	PoolEnd   Pooling = "end"   // the one that ids or mask point at: where a text ends
)

// pooling says what becomes of the tokens behind the last block, "" where that can't be told.
func (t *TextTower) pooling() Pooling {
	switch {
	case countsTokens(t.Output, t.IDs.Shape[1]):
		return PoolNone
	case t.end == nil:
		return ""
	case t.mixes():
		return PoolMean
	}
	length := t.IDs.Shape[1]
	on := map[*Value]bool{t.end: true}
	for _, n := range t.Graph.Nodes {
		if n.Op == "Shape" || !slices.ContainsFunc(n.Inputs, func(v *Value) bool { return on[v] }) {
			continue
		}
		for _, v := range n.Outputs {
			on[v] = v != nil
		}
		if on[n.Inputs[0]] && countsTokens(n.Inputs[0], length) && !countsTokens(n.Outputs[0], length) {
			return t.picks(n)
		}
	}
	return ""
}

// picks says which of the tokens a node picks.
func (t *TextTower) picks(n *Node) Pooling {
	if n.Op != "Gather" && n.Op != "GatherND" && n.Op != "GatherElements" && n.Op != "Slice" {
		return ""
	}
	index := n.Inputs[1] // a Slice's starts
	if !reached(t.Graph, t.IDs)[index] && (t.Mask == nil || !reached(t.Graph, t.Mask)[index]) {
		return t.fixedPlace(index)
	}
	return PoolEnd
}

// fixedPlace says which token an index names that does not depend on the text.
func (t *TextTower) fixedPlace(index *Value) Pooling {
	at, ok := newInference(t.Graph).ints(index)
	if !ok || len(at) != 1 {
		return ""
	}
	switch length := t.IDs.Shape[1]; {
	case at[0].Is(0):
		return PoolFirst
	case at[0].Is(-1), at[0].Equal(length.Sub(Known(1))):
		return PoolLast
	}
	return ""
}

// averages says whether tokens are mixed behind the last block.
func (t *TextTower) averages() bool { return t.Pooling == PoolMean }

// mixes says whether tokens are mixed behind the last block, as in a mean: an axis as long as
// the text is reduced or summed over, and not picked from.
func (t *TextTower) mixes() bool {
	length := t.IDs.Shape[1]
	long := func(v *Value) bool {
		return v != nil && slices.ContainsFunc(v.Shape, func(d Dim) bool { return d.Equal(length) })
	}
	on := map[*Value]bool{t.end: true}
	for _, n := range t.Graph.Nodes {
		if !slices.ContainsFunc(n.Inputs, func(v *Value) bool { return on[v] && long(v) }) {
			continue
		}
		for _, v := range n.Outputs {
			on[v] = v != nil
		}
		if reduces[n.Op] && !long(n.Outputs[0]) {
			return true
		}
	}
	return false
}

// reduces lists operators that make one number of those along an axis.
var reduces = set("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSumExp",
	"ReduceSumSquare", "MatMul", "Gemm", "Einsum", "GlobalAveragePool", "GlobalMaxPool", "Softmax")
