package graph

import (
	"math"
	"slices"
)

// findTrims says whether what follows a text's end changes nothing: later tokens are hidden
// from earlier ones, by a mask that is an input or by one that every block has, and by nothing are neighbours
// mixed; and the output is of a token that the ids or the mask point at, or a mean that the mask weighs.
func (t *TextTower) findTrims() bool {
	if t.end == nil || t.Mask == nil && (!t.causal() || t.averages()) || t.mixesNeighbours() {
		return false
	}
	length := t.IDs.Shape[1]
	on := map[*Value]bool{t.end: true}
	for _, n := range t.Graph.Nodes {
		if !slices.ContainsFunc(n.Inputs, func(v *Value) bool { return on[v] }) || n.Op == "Shape" {
			continue
		}
		for _, v := range n.Outputs {
			on[v] = v != nil
		}
		if n.Op != "Gather" && n.Op != "Slice" || !on[n.Inputs[0]] || countsTokens(n.Outputs[0], length) {
			continue
		}
		if x := n.Inputs[1].Const; x != nil && countsTokens(n.Inputs[0], length) {
			if at, err := integersOf(x); err != nil || len(at) == 0 || slices.Min(at) < 0 {
				return false // counted from the end
			}
		}
	}
	return !countsTokens(t.Output, length)
}

// mixesNeighbours says whether tokens are made of those next to them, past all masks: by a convolution along the text, or
// as copies of it that are moved by a place, with padding in the place of what has been cut off.
func (t *TextTower) mixesNeighbours() bool {
	length, on := t.IDs.Shape[1], activeValues(t.Graph, t.Graph.Outputs, []*Value{t.Embedding})
	return slices.ContainsFunc(t.Graph.Nodes, func(n *Node) bool {
		x := n.Input(0)
		if n.Op != "Conv" && n.Op != "Pad" || !on[x] {
			return false
		}
		for axis, extent := range n.Outputs[0].Shape {
			if extent.Equal(length) && (n.Op == "Pad" && !x.Shape[axis].Equal(length) || n.Op == "Conv" && axis > 1 && !n.Inputs[1].Shape[axis].Is(1)) {
				return true
			}
		}
		return false
	})
}

// countsTokens says whether an axis of v is as long as the text.
func countsTokens(v *Value, length Dim) bool {
	return slices.ContainsFunc(v.Shape, func(d Dim) bool { return d.Equal(length) || symbolic(length) && d.mentions(length.String()) })
}

// causal says whether in every block tokens look only at those in front of them.
func (t *TextTower) causal() bool {
	on := carried(t.Graph, t.Embedding)
	known := map[*Value]bool{}
	for _, s := range segments(t.Graph, t.Embedding) {
		if !s.isBlock() {
			continue
		}
		for _, n := range s.nodes {
			if n.Op == "Softmax" && !hidesLater(n.Inputs[0], on, known) {
				return false
			}
		}
	}
	return true
}

// hidesLater follows scores back to the product that they come from, and says whether a mask
// on the way is a triangle.
func hidesLater(scores *Value, on, known map[*Value]bool) bool {
	for v, depth := scores, 0; v != nil && v.Def != nil && depth < 32; depth++ {
		n := v.Def
		if n.Op == "MatMul" || n.Op == "Einsum" {
			return false
		}
		next := (*Value)(nil)
		for _, x := range n.Inputs {
			switch {
			case x == nil:
			case on[x] && x.Type.IsFloat():
				next = x
			case !on[x] && (n.Op == "Add" || n.Op == "Where") && holdsTriangle(x, known, 0):
				return true
			}
		}
		v = next
	}
	return false
}

// holdsTriangle says whether v is made of a triangle: a constant that is one, what Trilu leaves, or
// a comparison of places with places.
func holdsTriangle(v *Value, known map[*Value]bool, depth int) bool {
	if v == nil || depth > 64 {
		return false
	}
	is, seen := known[v]
	if seen {
		return is
	}
	known[v] = false
	switch {
	case v.Const != nil:
		is = looksBack(v.Const)
	case v.Def == nil:
	case v.Def.Op == "Trilu" || comparesPlaces(v.Def):
		is = true
	case v.Def.Op != "Shape":
		is = slices.ContainsFunc(v.Def.Inputs, func(x *Value) bool { return holdsTriangle(x, known, depth+1) })
	}
	known[v] = is
	return is
}

// looksBack says whether the last two axes of a mask let places see those up to themselves and hide
// those behind, or mark those behind.
func looksBack(t *Tensor) bool {
	k := len(t.Dims)
	if k < 2 || t.Dims[k-1] != t.Dims[k-2] || t.Dims[k-1] < 2 {
		return false
	}
	n := int(t.Dims[k-1])
	hidden, ok := hides(t)
	if !ok {
		return false
	}
	for i := range n {
		for j := range n {
			if hidden[i*n+j] == hidden[0] != (j <= i) {
				return false
			}
		}
	}
	return true
}

// hides says of each element whether it is false, or low enough to hide a score.
func hides(t *Tensor) ([]bool, bool) {
	var out []bool
	if t.Type == Bool {
		values, err := Values[bool](t)
		for _, x := range values {
			out = append(out, !x)
		}
		return out, err == nil
	}
	if !t.Type.IsFloat() {
		return nil, false
	}
	values, err := Float32s(t)
	for _, x := range values {
		out = append(out, x < -1e3 || math.IsInf(float64(x), -1))
	}
	return out, err == nil
}
