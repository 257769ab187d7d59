package graph

import (
	"math"
	"slices"
)

// openLength makes the length of the texts that a graph takes, which its export fixed, one that
// each run decides. Extents that were baked in are mended as where prompts are put in; constants
// that hold something for each place, such as positions and causal masks, are cut to the length.
type openLength struct {
	g    *Graph
	ids  *Value
	from map[string]place
	// limit is the longest text that the constants have something for, 0 without limit.
	limit int64
	// length is the number of tokens [1], read off the ids.
	length *Value
}

// openText returns a copy of an unfolded graph in which the length of the texts in the named
// inputs [B,S], ids first, is open, and the longest that it may be, 0 without limit.
func openText(g *Graph, was int64, inputs []string) (_ *Graph, limit int64, err error) {
	defer recoverBail(&err)
	if err := g.Infer(); err != nil {
		return nil, 0, err
	}
	c, to := g.CloneMap()
	old := map[*Value]Shape{}
	for v, w := range to {
		old[w] = v.Shape
	}
	o := &openLength{g: c, ids: c.Input(inputs[0]), from: map[string]place{}}
	for _, name := range inputs {
		in := c.Input(name)
		in.Shape = slices.Clone(in.Shape)
		in.Shape[1] = Sym(tokenSymbol)
		if d := in.Shape[0]; symbolic(d) {
			o.from[d.String()] = place{in, 0}
		}
	}
	o.from[tokenSymbol] = place{o.ids, 1}
	o.countPlaces(was)
	r := &growth{in: newInference(c), was: was, old: old, open: o}
	if err := r.run(); err != nil {
		return nil, 0, err
	}
	for _, name := range inputs {
		c.Input(name).Shape[1] = Sym(c.lengthSymbol())
	}
	return c, o.limit, finish(c)
}

// lengthSymbol is a name for the length that no extent of the inputs has.
func (g *Graph) lengthSymbol() string {
	name := "sequence"
	for slices.ContainsFunc(g.Inputs, func(v *Value) bool {
		return slices.ContainsFunc(v.Shape, func(d Dim) bool { return d.mentions(name) })
	}) {
		name += "_"
	}
	return name
}

// surgery adds nodes from a place on.
func (o *openLength) surgery(at int) *surgery {
	s := newSurgery(o.g, o.ids)
	s.at = at
	return s
}

// front adds nodes ahead of all others.
func (o *openLength) front() *surgery {
	at := 0
	if o.length != nil {
		at = o.g.position(o.length) + 1
	}
	s := o.surgery(at)
	if o.length == nil {
		o.length = s.op("Shape", map[string]Attr{"start": {int64(1)}, "end": {int64(2)}}, o.ids)
	}
	return s
}

// countPlaces puts a count of the places in the stead of each constant 0, 1, .. S-1, which
// positions are looked up by and masks compare.
func (o *openLength) countPlaces(was int64) {
	made := map[*Value]*Value{}
	o.front()
	for _, n := range slices.Clone(o.g.Nodes) {
		for i, v := range n.Inputs {
			if v == nil || !readsElements(n, i) {
				continue
			}
			if axis := countingAxis(v.Const, was); axis >= 0 {
				if made[v] == nil {
					made[v] = o.count(v, axis)
				}
				n.Inputs[i] = made[v]
			}
		}
	}
}

// readsElements says whether input i of n is data and not a shape, an axis or a bound.
func readsElements(n *Node, i int) bool {
	switch n.Op {
	case "Gather":
		return i == 1
	case "Unsqueeze", "Squeeze", "Reshape", "Expand", "Slice", "Transpose", "Cast", "Identity":
		return i == 0
	case "Concat":
		return true
	}
	return broadcasts[n.Op]
}

// countingAxis is the one axis along which an integer tensor holds 0, 1, .. n-1, -1 where there is none.
func countingAxis(t *Tensor, n int64) int {
	if t == nil || t.Type != Int64 && t.Type != Int32 || t.Len() != n || n < 2 {
		return -1
	}
	values, err := integersOf(t)
	if err != nil {
		return -1
	}
	for i, x := range values {
		if x != int64(i) {
			return -1
		}
	}
	return slices.Index(t.Dims, n)
}

func (o *openLength) count(v *Value, axis int) *Value {
	s := o.front()
	out := s.upTo(o.length)
	if v.Type != Int64 {
		out = s.op("Cast", map[string]Attr{"to": {int64(v.Type)}}, out)
	}
	var axes []int64
	for i := range v.Const.Dims {
		if i != axis {
			axes = append(axes, int64(i))
		}
	}
	if len(axes) == 0 {
		return out
	}
	return s.op("Unsqueeze", nil, out, s.ints(axes...))
}

// target computes a Reshape's target when the graph runs; false where an extent does not follow
// from the inputs' shapes.
func (o *openLength) target(n *Node, want Shape) bool {
	s := o.surgery(o.g.index(n))
	target := s.sizes(want, o.from)
	if target == nil {
		return false
	}
	delete(n.Attrs, "allowzero")
	n.Inputs[1] = target
	return true
}

// cut takes as many of what v holds along the axis as there are tokens.
func (o *openLength) cut(r *growth, n *Node, v *Value, axis int) *Value {
	extent, ok := v.Shape[axis].Int()
	if !ok || extent != r.was {
		fail(n, "operand %q of shape %s can't be cut to a text's length", v.Name, v.Shape)
	}
	s := o.surgery(o.g.index(n))
	if longer := o.uncut(v, axis, r.was); longer != nil {
		v = longer
		extent, _ = v.Shape[axis].Int()
	}
	out := s.op("Slice", nil, v, s.ints(0), o.length, s.ints(int64(axis)))
	r.in.node(out.Def)
	if o.limit == 0 || extent < o.limit {
		o.limit = extent
	}
	return out
}

// uncut is the longer constant that v is the beginning of, nil where v is not cut out of one.
func (o *openLength) uncut(v *Value, axis int, was int64) *Value {
	n := v.Def
	if n == nil || n.Op != "Slice" || n.Inputs[0].Const == nil || len(n.Inputs) > 4 && n.Inputs[4] != nil {
		return nil
	}
	in := newInference(o.g)
	starts, ok1 := in.ints(n.Inputs[1])
	ends, ok2 := in.ints(n.Inputs[2])
	axes, ok3 := in.ints(n.Input(3))
	if !ok1 || !ok2 || !ok3 || len(axes) != 1 || len(starts) != 1 || len(ends) != 1 || !axes[0].Is(int64(axis)) || !starts[0].Is(0) || !ends[0].Is(was) {
		return nil
	}
	return n.Inputs[0]
}

// concat cuts operands that were made for the old length.
func (o *openLength) concat(r *growth, n *Node, axis int) {
	is := func(v *Value, i int, d Dim) bool { return v != nil && i < len(v.Shape) && v.Shape[i].Equal(d) }
	for i := range n.Inputs[0].Shape {
		if i == axis || !slices.ContainsFunc(n.Inputs, func(v *Value) bool { return is(v, i, Sym(tokenSymbol)) }) {
			continue
		}
		for j, v := range n.Inputs {
			if is(v, i, Known(r.was)) {
				n.Inputs[j] = o.cut(r, n, v, i)
			}
		}
	}
}

// Lengths are the shortest and the longest text that the graph takes, in tokens; 0 means that
// the longest has no limit that could be found.
func (t *TextTower) Lengths() (shortest, longest int) {
	if n, fixed := t.IDs.Shape[1].Int(); fixed {
		return int(n), int(n)
	}
	return 1, t.Window
}

// open opens the length of the tower's texts where the export fixed it and that can be done.
// unfolded is the graph as it was.
func (t *TextTower) open(unfolded *Graph, h TextHints) {
	was, fixed := t.IDs.Shape[1].Int()
	if !fixed {
		return
	}
	t.Exported = int(was)
	names := []string{t.IDs.Name}
	for _, in := range t.Graph.Inputs {
		if in != t.IDs && len(in.Shape) == 2 && in.Shape[1].Is(was) {
			names = append(names, in.Name)
		}
	}
	g, limit, err := openText(unfolded, was, names)
	if err != nil {
		t.Fixed = err
		return
	}
	n := &TextTower{Graph: g, Output: g.Outputs[0], Exported: int(was), limit: int(min(limit, math.MaxInt32))}
	if t.Fixed = n.findTable(h); t.Fixed == nil {
		*t = *n
	}
}
