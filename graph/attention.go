package graph

import "slices"

// attentionLayer is one softmax over keys, and what it weighs.
type attentionLayer struct {
	softmax *Node
	key     weighed
	value   weighed
	// self says that the keys come from the same tokens as the queries; otherwise it is
	// cross attention.
	self bool
	// masks are what is put over the scores and does not depend on the tokens themselves.
	masks []*Value
}

// weighed is the keys or the values of an attention, followed from the product that reads
// them to where they are made.
type weighed struct {
	// made is where they have heads first, in some order of axes: [B,H,T,d]; nil where they never have.
	made *Value
	// past is the input that they are put behind, or that holds them all; nil for none.
	past *Value
	// forms are all values on the way, joined with the past and not.
	forms []*Value
}

// attentions finds every attention on the float paths through active, in the graph's order.
func attentions(g *Graph, active map[*Value]bool) []attentionLayer {
	f := &attentionFinder{active: active, varies: map[*Value]bool{}, readers: map[*Value][]*Node{}}
	for _, in := range g.Inputs {
		f.varies[in] = true
	}
	for _, n := range g.Nodes {
		if slices.ContainsFunc(n.reads(), func(v *Value) bool { return f.varies[v] }) {
			for _, v := range n.Outputs {
				f.varies[v] = v != nil
			}
		}
		for _, v := range n.Inputs {
			f.readers[v] = append(f.readers[v], n)
		}
	}
	var found []attentionLayer
	for _, n := range g.Nodes {
		if n.Op == "Softmax" && active[n.Outputs[0]] {
			if a, ok := f.at(n); ok {
				found = append(found, a)
			}
		}
	}
	return found
}

type attentionFinder struct {
	active  map[*Value]bool
	varies  map[*Value]bool // what depends on the graph's inputs
	readers map[*Value][]*Node
}

// at reads the attention around one softmax.
func (f *attentionFinder) at(softmax *Node) (attentionLayer, bool) {
	scores, masks := f.scores(softmax.Inputs[0])
	weighted := f.weighted(softmax.Outputs[0])
	if scores == nil || weighted == nil {
		return attentionLayer{}, false
	}
	key := scores.Inputs[1]
	return attentionLayer{softmax, f.follow(key), f.follow(weighted.Inputs[1]), f.active[key], masks}, true
}

// betweenScores lists what may lie between the product of queries and keys and its softmax.
var betweenScores = set("Add", "Sub", "Where", "Mul", "Div", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Tanh", "Clip", "Max", "Min")

// scores looks upstream for the product of queries and keys, and gathers the masks on the way.
func (f *attentionFinder) scores(v *Value) (product *Node, masks []*Value) {
	seen := map[*Value]bool{}
	for open := []*Value{v}; len(open) > 0; {
		v := open[len(open)-1]
		open = open[:len(open)-1]
		if v == nil || seen[v] {
			continue
		}
		seen[v] = true
		switch n := v.Def; {
		case !f.active[v]:
			masks = append(masks, v)
		case n == nil:
		case isProduct(n) && product == nil && f.varies[n.Inputs[0]] && f.varies[n.Inputs[1]]:
			product = n
		case betweenScores[n.Op]:
			open = append(open, n.Inputs...)
		}
	}
	return product, masks
}

func isProduct(n *Node) bool {
	return (n.Op == "MatMul" || n.Op == "Einsum") && len(n.Inputs) == 2
}

// weighted looks downstream of the softmax for its product with the values.
func (f *attentionFinder) weighted(v *Value) *Node {
	for open := []*Value{v}; len(open) > 0; {
		v := open[0]
		open = open[1:]
		for _, n := range f.readers[v] {
			switch {
			case isProduct(n) && n.Inputs[0] == v:
				return n
			case n.Op == "Where" || n.Op == "Mul" || onlyCopies[n.Op]:
				open = append(open, n.Outputs[0])
			}
		}
	}
	return nil
}

// follow looks upstream of a product's operand for where keys or values are made.
func (f *attentionFinder) follow(v *Value) weighed {
	var o weighed
	for v != nil {
		o.forms = append(o.forms, v)
		n := v.Def
		if n == nil {
			if !v.IsConst() && len(v.Shape) == 4 {
				o.past = v // cross attention's, computed once
			}
			break
		}
		if past, made := pastAnd(n); past != nil {
			o.past, o.made, o.forms = past, made, append(o.forms, made)
			return o
		}
		if len(v.Shape) == 4 {
			o.made = v
		}
		v = copied(n)
	}
	return o
}

// copied is the operand whose elements a node passes on, rearranged, repeated, or times one number.
func copied(n *Node) *Value {
	switch {
	case onlyCopies[n.Op], n.Op == "Concat" && len(n.Inputs) == 1, n.Op == "Expand", n.Op == "Squeeze", n.Op == "Unsqueeze":
		return n.Inputs[0]
	case (n.Op == "Mul" || n.Op == "Div") && n.Inputs[1].Shape.Count().Is(1):
		return n.Inputs[0]
	case n.Op == "Mul" && n.Inputs[0].Shape.Count().Is(1):
		return n.Inputs[1]
	}
	return nil
}

// pastAnd splits a Concat of an input [B,H,past,d] and what is new; past is nil for other ones.
func pastAnd(n *Node) (past, made *Value) {
	if n.Op != "Concat" || len(n.Inputs) != 2 {
		return nil, nil
	}
	past = n.Inputs[0]
	for past.Def != nil && (past.Def.Op == "Cast" || past.Def.Op == "Identity" || past.Def.Op == "Concat" && len(past.Def.Inputs) == 1) {
		past = past.Def.Inputs[0]
	}
	if past.Def != nil || past.IsConst() || len(past.Shape) != 4 {
		return nil, nil
	}
	return past, n.Inputs[1]
}

// sources are the inputs that v is computed from without passing a value of not.
func sources(v *Value, not map[*Value]bool, visit func(n *Node)) map[*Value]bool {
	from, seen := map[*Value]bool{}, map[*Value]bool{}
	for open := []*Value{v}; len(open) > 0; {
		v := open[len(open)-1]
		open = open[:len(open)-1]
		if v == nil || seen[v] || not[v] {
			continue
		}
		seen[v] = true
		switch {
		case v.Def != nil:
			visit(v.Def)
			open = append(open, v.Def.reads()...)
		case !v.IsConst():
			from[v] = true
		}
	}
	return from
}

// causal says whether the attention hides later tokens: a mask that takes part in it compares
// places with places, is cut to a triangle, or is a constant triangle.
func (a attentionLayer) causal(active map[*Value]bool) bool {
	found := false
	for _, m := range a.masks {
		found = found || isTriangle(m)
		sources(m, active, func(n *Node) {
			found = found || n.Op == "Trilu" || comparesPlaces(n) || slices.ContainsFunc(n.Inputs, isTriangle)
		})
	}
	return found
}

var comparisons = set("Less", "LessOrEqual", "Greater", "GreaterOrEqual")

// comparesPlaces: integers along one of the last two axes with integers along the other, perhaps as floats.
func comparesPlaces(n *Node) bool {
	fractions := func(v *Value) bool {
		return v.Type.IsFloat() && (v.Def == nil || v.Def.Op != "Cast" || v.Def.Inputs[0].Type.IsFloat())
	}
	if !comparisons[n.Op] || slices.ContainsFunc(n.Inputs, fractions) {
		return false
	}
	row := func(v *Value) bool {
		d, ok := fromRight(v, 1)
		e, ok2 := fromRight(v, 2)
		return ok && !d.Is(1) && (!ok2 || e.Is(1))
	}
	column := func(v *Value) bool {
		d, ok := fromRight(v, 1)
		e, ok2 := fromRight(v, 2)
		return ok && ok2 && d.Is(1) && !e.Is(1)
	}
	return row(n.Inputs[0]) && column(n.Inputs[1]) || column(n.Inputs[0]) && row(n.Inputs[1])
}

// isTriangle says whether v is a constant [..,S,S] of one element where a place looks back and
// another where it looks ahead.
func isTriangle(v *Value) bool {
	_, _, ok := triangle(v)
	return ok
}

// triangle reads such a constant: the first place among its bytes of an element for looking back, and
// of one for looking ahead.
func triangle(v *Value) (back, ahead []byte, ok bool) {
	if !v.IsConst() || len(v.Const.Dims) < 2 {
		return nil, nil, false
	}
	d, size := v.Const.Dims, v.Const.Type.Size()
	s := d[len(d)-1]
	if s < 2 || s != d[len(d)-2] || Count(d) != s*s || size == 0 {
		return nil, nil, false
	}
	b, err := v.Const.Bytes()
	if err != nil || int64(len(b)) != s*s*int64(size) {
		return nil, nil, false
	}
	element := func(i, j int64) []byte { at := (i*s + j) * int64(size); return b[at : at+int64(size)] }
	back, ahead = element(0, 0), element(0, 1)
	if string(back) == string(ahead) {
		return nil, nil, false
	}
	for i := range s {
		for j := range s {
			want := back
			if j > i {
				want = ahead
			}
			if string(element(i, j)) != string(want) {
				return nil, nil, false
			}
		}
	}
	return back, ahead, true
}
