package graph

import "slices"

// repair mends node n for its inputs' new shapes, ahead of its inference. old holds the
// shapes of the original graph. Three things are baked in by exporters: token counts in
// Reshape targets, masks of one value, and bounds that mean "to the end".
func repair(in *inference, n *Node, old map[*Value]Shape) {
	switch n.Op {
	case "Reshape":
		repairReshape(in, n, old)
	case "Slice":
		repairSlice(in, n, old)
	case "Add", "Sub", "Mul", "Where", "And", "Or":
		repairMask(in, n, old)
	}
}

// changed says whether v's shape differs from that in the original graph.
func changed(v *Value, old map[*Value]Shape) bool {
	was, ok := old[v]
	return !ok || v.Shape != nil && !v.Shape.Equal(was)
}

func repairReshape(in *inference, n *Node, old map[*Value]Shape) {
	x := n.Inputs[0]
	wasOut, known := old[n.Outputs[0]]
	wasIn, knownIn := old[x]
	if !knownIn {
		wasIn, knownIn = originalOf(x, old)
	}
	if !known || !knownIn || x.Shape == nil || x.Shape.Equal(wasIn) {
		return
	}
	want, ok := follow(wasIn, wasOut, x.Shape)
	if !ok {
		fail(n, "a reshape of %s to %s can't be followed to %s", wasIn, wasOut, x.Shape)
	}
	if ds, ok := in.ints(n.Inputs[1]); ok && matches(ds, x.Shape, want) {
		return
	}
	target, ok := targetFor(x.Shape, want)
	if !ok {
		fail(n, "its target %s has more than one extent that depends on the run", want)
	}
	delete(n.Attrs, "allowzero")
	n.Inputs[1] = in.g.constant("target", NewTensor(target, int64(len(target))))
}

// originalOf finds the old shape of what a splice replaced: the longest operand it took from
// the original graph.
func originalOf(x *Value, old map[*Value]Shape) (Shape, bool) {
	if x.Def == nil || x.Def.Op != "Concat" {
		return nil, false
	}
	for _, v := range x.Def.Inputs {
		if s, ok := old[v]; ok {
			return s, true
		}
		if v.Def != nil && v.Def.Op == "Slice" {
			if s, ok := old[v.Def.Inputs[0]]; ok {
				return s, true
			}
		}
	}
	return nil, false
}

// follow works out what a reshape of wasIn to wasOut becomes for an input of shape now.
// Axes are matched from the left in groups of equal products, so that equal numbers
// on other axes (a batch or a head size like the token count) cannot mislead it.
func follow(wasIn, wasOut, now Shape) (Shape, bool) {
	if len(wasIn) != len(now) {
		return nil, false
	}
	out := Shape{}
	for i, j := 0, 0; i < len(wasIn) || j < len(wasOut); {
		i0, j0 := i, j
		a, b := Known(1), Known(1)
		for i == i0 && j == j0 || !a.Equal(b) {
			switch {
			case i < len(wasIn) && (j >= len(wasOut) || i == i0 || !larger(a, b)):
				a = a.Mul(wasIn[i])
				i++
			case j < len(wasOut):
				b = b.Mul(wasOut[j])
				j++
			default:
				return nil, false
			}
		}
		group, ok := followGroup(wasIn[i0:i], wasOut[j0:j], now[i0:i])
		if !ok {
			return nil, false
		}
		out = append(out, group...)
	}
	return out, true
}

// larger compares products, for choosing which side of a group to extend.
func larger(a, b Dim) bool {
	probe := map[string]int64{}
	for _, d := range []Dim{a, b} {
		for _, t := range d.terms {
			for _, s := range t.syms {
				probe[s] = 1 << 20 // symbols are batches; any large number will do
			}
		}
	}
	x, _ := a.Eval(probe)
	y, _ := b.Eval(probe)
	return x > y
}

// followGroup: one group of axes whose products were equal.
func followGroup(wasIn, wasOut, now Shape) (Shape, bool) {
	if now.Equal(wasIn) {
		return slices.Clone(wasOut), true
	}
	if len(wasOut) == 1 {
		return Shape{now.Count()}, true
	}
	for j := range wasOut {
		others := Known(1)
		for i, d := range wasOut {
			if i != j {
				others = others.Mul(d)
			}
		}
		size, exact := now.Count().exact(others)
		if exact && slices.ContainsFunc(changedDims(wasIn, now), func(d Dim) bool { return d.Equal(size) }) {
			out := slices.Clone(wasOut)
			out[j] = size
			return out, true
		}
	}
	return followQuotient(wasOut, now)
}

// followQuotient serves a merged axis that is split again: [B*(N+K)] to [B,N+K].
func followQuotient(wasOut, now Shape) (Shape, bool) {
	for j := range slices.Backward(wasOut) {
		others := Known(1)
		for i, d := range wasOut {
			if i != j {
				others = others.Mul(d)
			}
		}
		if size, exact := now.Count().exact(others); exact {
			out := slices.Clone(wasOut)
			out[j] = size
			return out, true
		}
	}
	return nil, false
}

func changedDims(was, now Shape) []Dim {
	var out []Dim
	for i, d := range now {
		if !d.Equal(was[i]) {
			out = append(out, d)
		}
	}
	return out
}

// matches says whether a target already gives the wanted shape.
func matches(target []Dim, in, want Shape) bool {
	if len(target) != len(want) {
		return false
	}
	rest, hole := in.Count(), -1
	for i, d := range target {
		switch {
		case d.Is(-1):
			hole = i
		case d.Is(0) && i < len(in) && in[i].Equal(want[i]):
			rest = divide(rest, want[i])
		case !d.Equal(want[i]):
			return false
		default:
			rest = divide(rest, d)
		}
	}
	return hole < 0 || rest.Equal(want[hole])
}

// targetFor writes a shape as a constant target: numbers, 0 where an axis is copied, and -1 once.
func targetFor(in, want Shape) ([]int64, bool) {
	target := make([]int64, len(want))
	hole := false
	for i, d := range want {
		n, ok := d.Int()
		switch {
		case ok:
			target[i] = n
		case i < len(in) && in[i].Equal(d):
			target[i] = 0
		case hole:
			return nil, false
		default:
			target[i], hole = -1, true
		}
	}
	return target, true
}

// repairSlice: a bound equal to the old extent of a changed axis means its end.
func repairSlice(in *inference, n *Node, old map[*Value]Shape) {
	x := n.Inputs[0]
	was, ok := old[x]
	ends, okEnds := in.ints(n.Inputs[2])
	if !ok || !okEnds || x.Shape == nil || len(was) != len(x.Shape) {
		return
	}
	axes := firstN(len(ends))
	if a := n.Input(3); a != nil {
		ds, known := in.ints(a)
		if !known {
			return
		}
		axes, _ = Shape(ds).ints()
	}
	moved := false
	for i, a := range axes {
		if a < 0 {
			a += int64(len(was))
		}
		if !x.Shape[a].Equal(was[a]) && ends[i].Equal(was[a]) {
			ends = slices.Clone(ends)
			ends[i], moved = x.Shape[a], true
		}
	}
	if moved {
		if fixed, known := Shape(ends).ints(); known {
			n.Inputs[2] = in.g.constant("ends", NewTensor(fixed, int64(len(fixed))))
		}
	}
}

// repairMask: an operand that holds one value everywhere serves any extent as a scalar.
func repairMask(in *inference, n *Node, old map[*Value]Shape) {
	anyChanged := slices.ContainsFunc(n.Inputs, func(v *Value) bool { return v.Const == nil && changed(v, old) })
	if !anyChanged {
		return
	}
	for i, v := range n.Inputs {
		if changed(v, old) && v.Const == nil || len(v.Shape) < 2 || fits(v, n) {
			continue
		}
		t, ok := uniform(v, 0)
		if !ok {
			fail(n, "operand %q of shape %s was made for the old number of tokens", v.Name, v.Shape)
		}
		n.Inputs[i] = in.g.constant("mask", t)
	}
}

// fits says whether v still broadcasts against the node's other operands.
func fits(v *Value, n *Node) bool {
	for _, o := range n.Inputs {
		for i, j := len(v.Shape)-1, len(o.Shape)-1; i >= 0 && j >= 0; i, j = i-1, j-1 {
			a, okA := v.Shape[i].Int()
			b, okB := o.Shape[j].Int()
			if okA && okB && a != b && a != 1 && b != 1 {
				return false
			}
		}
	}
	return true
}

// uniform finds the one value that all elements of v have, as a scalar.
func uniform(v *Value, depth int) (*Tensor, bool) {
	if v == nil || depth > 32 {
		return nil, false
	}
	if v.Const != nil {
		return uniformConst(v.Const)
	}
	if v.Def == nil {
		return nil, false
	}
	switch v.Def.Op {
	case "Expand", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Identity", "Slice", "Tile", "Gather":
		return uniform(v.Def.Inputs[0], depth+1)
	case "ConstantOfShape":
		if t, ok := v.Def.Attrs["value"].Value.(*Tensor); ok {
			return uniformConst(t)
		}
	case "Where":
		cond, ok := uniform(v.Def.Inputs[0], depth+1)
		if !ok {
			return nil, false
		}
		b, err := cond.Bytes()
		if err != nil {
			return nil, false
		}
		return uniform(v.Def.Inputs[2-int(b[0])], depth+1)
	case "And":
		a, okA := uniform(v.Def.Inputs[0], depth+1)
		b, okB := uniform(v.Def.Inputs[1], depth+1)
		if okA && okB {
			return &Tensor{Type: Bool, data: []byte{a.data[0] & b.data[0]}}, true
		}
	}
	return nil, false
}

func uniformConst(t *Tensor) (*Tensor, bool) {
	b, err := t.Bytes()
	size := t.Type.Size()
	if err != nil || size == 0 || len(b) < size {
		return nil, false
	}
	for i := size; i < len(b); i += size {
		if string(b[i:i+size]) != string(b[:size]) {
			return nil, false
		}
	}
	return &Tensor{Type: t.Type, data: slices.Clone(b[:size])}, true
}
