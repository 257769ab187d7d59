package graph

import "slices"

// dependents are the values that depend on the elements of v: not through its shape, nor
// through an operator that only looks at one.
func dependents(g *Graph, v *Value) map[*Value]bool {
	on := map[*Value]bool{v: true}
	for _, n := range g.Nodes {
		if n.Op == "Shape" || n.Op == "Size" {
			continue
		}
		if slices.ContainsFunc(slices.Concat(n.Inputs, n.captured()), func(v *Value) bool { return on[v] }) {
			for _, out := range n.Outputs {
				on[out] = true
			}
		}
	}
	return on
}

// segment is a stretch of the graph between two cuts: tensors that every path from
// the start to the output crosses.
type segment struct {
	cut   *Value // where it begins
	nodes []*Node
}

// attends says whether the segment mixes tokens.
func (s segment) attends() bool {
	return slices.ContainsFunc(s.nodes, func(n *Node) bool {
		return n.Op == "Softmax" || n.Op == "Attention" || n.Op == "MultiHeadAttention"
	})
}

// residual says whether the segment adds something to its own input, as a transformer
// block does and a pooling head does not.
func (s segment) residual() bool {
	return slices.ContainsFunc(s.nodes, func(n *Node) bool {
		return (n.Op == "Add" || n.Op == "SkipLayerNormalization") && slices.Contains(n.Inputs, s.cut)
	})
}

// segments cuts the float paths from start to the outputs into segments, by sweeping over
// the nodes with the set of values that are still to be read.
func segments(g *Graph, start *Value) []segment {
	active := activeValues(g, g.Outputs, []*Value{start})
	readers := map[*Value]int{}
	isActive := func(v *Value) bool { return active[v] }
	var nodes []*Node
	for _, n := range g.Nodes {
		if slices.ContainsFunc(n.Inputs, isActive) && slices.ContainsFunc(n.Outputs, isActive) {
			nodes = append(nodes, n)
			for _, v := range n.Inputs {
				if active[v] {
					readers[v]++
				}
			}
		}
	}
	live := map[*Value]bool{start: true}
	current := segment{cut: start}
	var out []segment
	for _, n := range nodes {
		current.nodes = append(current.nodes, n)
		for _, v := range n.Inputs {
			if active[v] {
				if readers[v]--; readers[v] == 0 {
					delete(live, v)
				}
			}
		}
		for _, v := range n.Outputs {
			if active[v] {
				live[v] = true
			}
		}
		if len(live) == 1 {
			out = append(out, current)
			for v := range live {
				current = segment{cut: v}
			}
		}
	}
	return out
}

// blockInputs are the cuts where a transformer block begins, in order.
func blockInputs(g *Graph, start *Value) []*Value {
	var blocks []*Value
	for _, s := range segments(g, start) {
		if s.attends() && s.residual() {
			blocks = append(blocks, s.cut)
		}
	}
	return blocks
}
