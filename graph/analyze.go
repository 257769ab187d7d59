package graph

import "slices"

// segment is a stretch of the graph between two cuts: tensors that every path from
// the start to the output crosses.
type segment struct {
	cut    *Value // where it begins
	nodes  []*Node
	active map[*Value]bool // what lies on a float path through the graph
}

// attends says whether the segment mixes tokens with each other: a softmax, and a product of
// two operands that both come from the segment's input. Cross attention to other tokens has
// no such product.
func (s segment) attends() bool {
	softmax := slices.ContainsFunc(s.nodes, func(n *Node) bool { return n.Op == "Softmax" })
	return softmax && slices.ContainsFunc(s.nodes, func(n *Node) bool {
		return (n.Op == "MatMul" || n.Op == "Einsum") && len(n.Inputs) > 1 && s.active[n.Inputs[0]] && s.active[n.Inputs[1]]
	})
}

// residual says whether what the segment's softmax weighs is added to the segment's own
// input, as in a transformer block and not in a pooling head.
func (s segment) residual() bool {
	self, mixed := map[*Value]bool{s.cut: true}, map[*Value]bool{}
	for _, n := range s.nodes {
		isMixed := n.Op == "Softmax" || slices.ContainsFunc(n.Inputs, func(v *Value) bool { return mixed[v] })
		isSelf := onlyCopies[n.Op] && self[n.Inputs[0]] || scales(n, self, s.active)
		for _, out := range n.Outputs {
			mixed[out], self[out] = isMixed, isSelf
		}
		if n.Op == "Add" && (self[n.Inputs[0]] && mixed[n.Inputs[1]] || self[n.Inputs[1]] && mixed[n.Inputs[0]]) {
			return true
		}
	}
	return false
}

// onlyCopies lists operators whose output is their input in another form.
var onlyCopies = set("Identity", "Cast", "Transpose", "Reshape")

// scales says whether n multiplies a value of from by something that is not active.
func scales(n *Node, from, active map[*Value]bool) bool {
	if n.Op != "Mul" && n.Op != "Div" {
		return false
	}
	return from[n.Inputs[0]] && !active[n.Inputs[1]] || from[n.Inputs[1]] && !active[n.Inputs[0]]
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
	current := segment{cut: start, active: active}
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
				current = segment{cut: v, active: active}
			}
		}
	}
	return out
}

// isBlock says whether the segment is a transformer block, or its attention half.
func (s segment) isBlock() bool { return s.attends() && s.residual() }

// blockInputs are the cuts where a transformer block begins, in order.
func blockInputs(g *Graph, start *Value) []*Value {
	var blocks []*Value
	for _, s := range segments(g, start) {
		if s.isBlock() {
			blocks = append(blocks, s.cut)
		}
	}
	return blocks
}
