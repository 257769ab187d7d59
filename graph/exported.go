package graph

// Exported is what a file held before [Load] brought it to the operator forms of one opset.
type Exported struct {
	Opset map[string]int64 // operator-set version by domain; "" is ai.onnx
	// Operators counts nodes by "Op" or "domain.Op", those of inner graphs and of functions'
	// bodies among them.
	Operators map[string]int
	// Parameters is how many numbers the weights hold: constants of more than one element that are
	// floats, or quantised weights.
	Parameters int64
}

// exported takes stock of a graph as it was read.
func exported(g *Graph) *Exported {
	e := &Exported{Opset: map[string]int64{}, Operators: map[string]int{}}
	for domain, version := range g.Opset {
		e.Opset[domain] = version
	}
	e.count(g)
	packed := packedWeights(g)
	for v := range g.Constants() {
		if n, isPacked := packed[v]; isPacked {
			e.Parameters += n
		} else if n := v.Const.Len(); n > 1 && (v.Type.IsFloat() || isQuantized(v)) {
			e.Parameters += n
		}
	}
	return e
}

func (e *Exported) count(g *Graph) {
	for _, n := range g.Nodes {
		e.Operators[key(n)]++
		for _, inner := range n.graphs() {
			e.count(inner)
		}
	}
}

// isQuantized says whether a constant is a matrix of small integers, as quantised weights are.
func isQuantized(v *Value) bool {
	return len(v.Const.Dims) > 1 && (v.Type == Int8 || v.Type == Uint8)
}

// packedWeights are the constants that hold several numbers a byte, with how many; zero points, which
// are no weights, with none.
func packedWeights(g *Graph) map[*Value]int64 {
	packed := map[*Value]int64{}
	for _, n := range g.Nodes {
		if n.Op == "MatMulNBits" {
			packed[n.Input(1)] = n.Int("K", 0) * n.Int("N", 0)
			packed[n.Input(3)] = 0
		}
	}
	return packed
}
