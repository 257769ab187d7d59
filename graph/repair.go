package graph

import (
	"math"
	"slices"
)

// tokenSymbol stands for the number of tokens, prompts included, while a graph is repaired.
const tokenSymbol = "#tokens"

// growth follows tokens that have become more through a graph and mends what its exporter
// baked in about their number: Reshape, Expand and Split targets, bounds that mean "to the
// end", and masks that hold one value along the tokens.
//
// The number of tokens is a symbol while this goes on, so that an equal number on another
// axis (a static batch, a head's width) is never taken for it.
type growth struct {
	in     *inference
	tokens *Value // the tokens with the prompts among them
	axis   int    // their axis
	at     int64  // where the prompts stand
	was    int64  // tokens before
	now    int64  // and after
	old    map[*Value]Shape
	// merged are the factors, outermost first, of axes that hold tokens and more.
	merged map[*Value]map[int][]Dim
	// equal is what uniform has found out.
	equal map[place]bool
}

// run infers the graph's shapes in the token symbol, mending each node ahead of its turn.
func (r *growth) run() (err error) {
	defer recoverBail(&err)
	g := r.in.g
	for i := 0; i < len(g.Nodes); i++ {
		n := g.Nodes[i]
		if slices.ContainsFunc(n.Inputs, r.grown) {
			r.mend(n)
		}
		for ; g.Nodes[i] != n; i++ { // what mending put in front
			r.in.node(g.Nodes[i])
		}
		r.in.node(n)
		if n == r.tokens.Def {
			r.tokens.Shape = slices.Clone(r.tokens.Shape)
			r.tokens.Shape[r.axis] = Sym(tokenSymbol)
		}
		r.verify(n)
	}
	return nil
}

// grown says whether the number of tokens takes part in v's shape.
func (r *growth) grown(v *Value) bool {
	return v != nil && slices.ContainsFunc(v.Shape, func(d Dim) bool { return d.mentions(tokenSymbol) })
}

func (r *growth) before(d Dim) Dim { return d.substitute(tokenSymbol, Known(r.was)) }

func (r *growth) after(s Shape) Shape {
	out := make(Shape, len(s))
	for i, d := range s {
		out[i] = d.substitute(tokenSymbol, Known(r.now))
	}
	return out
}

// verify compares a node's shape, for the old number of tokens, with that in the original.
func (r *growth) verify(n *Node) {
	for _, v := range n.Outputs {
		if v == nil || v.Shape == nil || r.old[v] == nil {
			continue
		}
		was := r.old[v]
		if len(was) != len(v.Shape) {
			fail(n, "its shape %s can't be followed to %s", was, v.Shape)
		}
		for i, d := range v.Shape {
			a, okA := r.before(d).Int()
			b, okB := was[i].Int()
			if okA && okB && a != b {
				fail(n, "its shape %s can't be followed to %s", was, v.Shape)
			}
		}
	}
}

func (r *growth) mend(n *Node) {
	switch n.Op {
	case "Reshape":
		r.reshape(n)
	case "Flatten":
		axis := axisOf(n, "axis", 1)
		r.merge(n.Outputs[0], 0, r.axes(n.Inputs[0], 0, axis))
		r.merge(n.Outputs[0], 1, r.axes(n.Inputs[0], axis, len(n.Inputs[0].Shape)))
	case "Slice":
		r.slice(n)
	case "Split":
		r.split(n)
	case "Expand":
		r.expand(n)
	case "MatMul":
		r.matmul(n)
	case "Concat":
		r.concat(n)
	case "Einsum":
		r.einsum(n)
	default:
		if broadcasts[n.Op] && n.Domain == "" {
			r.widen(n)
		}
	}
}

// reshape works out the new target from the original one: the factors of the input's
// axes are dealt out to the output's axes from the left, as the original extents say.
func (r *growth) reshape(n *Node) {
	x, out := n.Inputs[0], n.Outputs[0]
	was := r.old[out]
	if !r.grown(x) {
		return
	}
	want, ok := r.deal(x, out, was)
	if !ok {
		fail(n, "its target %s can't be followed for an input of %s", was, x.Shape)
	}
	if target, known := r.in.ints(n.Inputs[1]); known && matches(target, x.Shape, want) {
		return
	}
	target, ok := targetFor(r.after(x.Shape), r.after(want))
	if !ok {
		fail(n, "its target %s has more than one extent that depends on the run", want)
	}
	delete(n.Attrs, "allowzero")
	n.Inputs[1] = r.in.g.constant("target", NewTensor(target, int64(len(target))))
	// Its shape in the token symbol is wanted, not the number.
	r.in.hold(n.Inputs[1], want)
}

// part is one factor of an axis, with its extent in the original graph.
type part struct{ now, was Dim }

// deal deals the factors of x's axes out to the axes of a reshaped value whose original
// shape was was. A factor that holds tokens is never cut in two.
func (r *growth) deal(x, out *Value, was Shape) (Shape, bool) {
	var parts []part
	for _, d := range r.axes(x, 0, len(x.Shape)) {
		parts = append(parts, part{d, r.before(d)})
	}
	want := Shape{}
	for j, need := range was {
		var got []Dim
		for !need.Is(1) {
			var ok bool
			if got, parts, need, ok = take(got, parts, need); !ok {
				return nil, false
			}
		}
		want = append(want, Shape(got).Count())
		r.merge(out, j, got)
	}
	return want, !slices.ContainsFunc(parts, func(p part) bool { return !p.was.Is(1) }) && was != nil
}

// take moves the first part, or a piece of it, into got and divides need by it.
func take(got []Dim, parts []part, need Dim) ([]Dim, []part, Dim, bool) {
	if len(parts) == 0 {
		return nil, nil, need, false
	}
	p := parts[0]
	if p.was.Is(1) {
		return got, parts[1:], need, true
	}
	if q, ok := need.exact(p.was); ok {
		return append(got, p.now), parts[1:], q, true
	}
	if p.now.mentions(tokenSymbol) {
		return nil, nil, need, false
	}
	if q, ok := p.was.exact(need); ok {
		rest := append([]part{{q, q}}, parts[1:]...)
		return append(got, need), rest, Known(1), true
	}
	if len(parts) > 1 && !parts[1].now.mentions(tokenSymbol) {
		both := p.was.Mul(parts[1].was)
		return got, append([]part{{both, both}}, parts[2:]...), need, true
	}
	return nil, nil, need, false
}

// axes lists the factors of v's axes from..to, outermost first.
func (r *growth) axes(v *Value, from, to int) []Dim {
	var out []Dim
	for i := from; i < to; i++ {
		out = append(out, r.factors(v, i)...)
	}
	return out
}

// factors lists the factors of one axis. An axis that holds tokens and more, such as
// batch*tokens, was merged by a Reshape; which factor is the outer one is looked up there.
func (r *growth) factors(v *Value, axis int) []Dim {
	d := v.Shape[axis]
	if !d.mentions(tokenSymbol) || d.Equal(Sym(tokenSymbol)) {
		return []Dim{d}
	}
	if known, ok := r.merged[v][axis]; ok {
		return known
	}
	found := []Dim{d}
	if v.Def != nil && v.Def.Op != "Reshape" {
		found = r.inherited(v, d)
	}
	r.merge(v, axis, found)
	return found
}

// inherited looks for an operand that has an axis of the same extent.
func (r *growth) inherited(v *Value, d Dim) []Dim {
	for _, u := range v.Def.Inputs {
		if u == nil || u.Const != nil {
			continue
		}
		for i, e := range u.Shape {
			if e.Equal(d) {
				if f := r.factors(u, i); len(f) > 1 {
					return f
				}
			}
		}
	}
	return []Dim{d}
}

func (r *growth) merge(v *Value, axis int, factors []Dim) {
	if r.merged[v] == nil {
		r.merged[v] = map[int][]Dim{}
	}
	r.merged[v][axis] = slices.DeleteFunc(slices.Clone(factors), func(d Dim) bool { return d.Is(1) })
}

// slice: an end at or behind the original extent means the end.
func (r *growth) slice(n *Node) {
	x := n.Inputs[0]
	ends, ok := r.in.ints(n.Inputs[2])
	axes := firstN(len(ends))
	if a := n.Input(3); ok && a != nil {
		var ds []Dim
		if ds, ok = r.in.ints(a); ok {
			axes, ok = Shape(ds).ints()
		}
	}
	if !ok {
		return
	}
	moved := slices.Clone(ends)
	for i, a := range axes {
		if a < 0 {
			a += int64(len(x.Shape))
		}
		was, known := r.before(x.Shape[a]).Int()
		end, fixed := ends[i].Int()
		if x.Shape[a].mentions(tokenSymbol) && known && fixed && end >= was {
			moved[i] = Known(math.MaxInt64)
		}
	}
	if fixed, known := Shape(moved).ints(); known && !Shape(moved).Equal(ends) {
		n.Inputs[2] = r.in.g.constant("ends", NewTensor(fixed, int64(len(fixed))))
	}
}

// split: the piece where the prompts stand grows.
func (r *growth) split(n *Node) {
	d := n.Inputs[0].Shape[axisOf(n, "axis", 0)]
	if !d.mentions(tokenSymbol) {
		return
	}
	var sizes []int64
	ds, ok := r.in.ints(n.Input(1))
	if ok {
		sizes, ok = Shape(ds).ints()
	}
	if !ok {
		fail(n, "it splits the tokens into equal parts")
	}
	grown, end := len(sizes)-1, int64(0)
	for i, size := range sizes {
		if end += size; r.at < end {
			grown = i
			break
		}
	}
	sizes = slices.Clone(sizes)
	sizes[grown] += r.now - r.was
	n.Inputs[1] = r.in.g.constant("sizes", NewTensor(sizes, int64(len(sizes))))
	ds = slices.Clone(ds)
	ds[grown] = ds[grown].Add(Sym(tokenSymbol)).Sub(Known(r.was))
	r.in.hold(n.Inputs[1], ds)
}

// expand: where the input has the tokens already, the target leaves the axis alone.
func (r *growth) expand(n *Node) {
	x := n.Inputs[0]
	target, ok := r.in.ints(n.Inputs[1])
	if !ok {
		fail(n, "its target is not known")
	}
	alone := make([]bool, len(target))
	for i, d := range x.Shape {
		if j := len(target) - len(x.Shape) + i; j >= 0 && d.mentions(tokenSymbol) && !target[j].Equal(d) {
			alone[j] = true
		}
	}
	if !slices.Contains(alone, true) {
		return
	}
	g := r.in.g
	ones := make([]int64, len(target))
	for i := range ones {
		ones[i] = 1
	}
	length := int64(len(target))
	n.Inputs[1] = g.insertBefore(n, "Where", nil, g.constant("alone", NewTensor(alone, length)), g.constant("ones", NewTensor(ones, length)), n.Inputs[1])
}

// matmul: the axis that is summed over must be tokens on both sides or on none.
func (r *growth) matmul(n *Node) {
	a, b := n.Inputs[0].Shape, n.Inputs[1].Shape
	if len(a) > 0 && len(b) > 1 && a[len(a)-1].mentions(tokenSymbol) != b[len(b)-2].mentions(tokenSymbol) {
		fail(n, "operands %s and %s: one was made for %d tokens", a, b, r.was)
	}
}

// einsum: axes of one label must all be tokens or none.
func (r *growth) einsum(n *Node) {
	operands, _ := equation(n)
	grown := map[byte]bool{}
	for i, labels := range operands {
		for j := range labels {
			is := n.Inputs[i].Shape[j].mentions(tokenSymbol)
			if was, seen := grown[labels[j]]; seen && was != is && !n.Inputs[i].Shape[j].Is(1) {
				fail(n, "operands disagree about axis %q: one was made for %d tokens", labels[j], r.was)
			}
			grown[labels[j]] = is
		}
	}
}

func (r *growth) concat(n *Node) {
	axis := axisOf(n, "axis", 0)
	for i := range n.Inputs[0].Shape {
		grown := 0
		for _, v := range n.Inputs {
			if len(v.Shape) > i && v.Shape[i].mentions(tokenSymbol) {
				grown++
			}
		}
		if i != axis && grown > 0 && grown < len(n.Inputs) {
			fail(n, "some of its operands were made for %d tokens", r.was)
		}
	}
}

// broadcasts lists the operators whose operands broadcast against each other.
var broadcasts = set("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "Where", "PRelu",
	"And", "Or", "Xor", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")

// elementwise lists operators of one operand that keep equal elements equal.
var elementwise = set("Cast", "Not", "Neg", "Identity", "Abs", "Sqrt", "Exp", "Log", "IsNaN", "IsInf", "Sign", "Reciprocal", "Clip")

func set(names ...string) map[string]bool {
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out
}

// widen: an operand of the old extent that is the same all along the tokens, as masks that
// hide nothing are, is cut to extent 1, which broadcasts.
func (r *growth) widen(n *Node) {
	rank := 0
	for _, v := range n.Inputs {
		rank = max(rank, len(v.Shape))
	}
	for back := 1; back <= rank; back++ {
		grown := Dim{}
		for _, v := range n.Inputs {
			if d, ok := fromRight(v, back); ok && d.mentions(tokenSymbol) {
				grown = d
			}
		}
		if grown.Equal(Dim{}) {
			continue
		}
		for i, v := range n.Inputs {
			if d, ok := fromRight(v, back); ok && !d.Is(1) && !d.Equal(grown) {
				n.Inputs[i] = r.narrow(n, v, len(v.Shape)-back)
			}
		}
	}
}

func fromRight(v *Value, back int) (Dim, bool) {
	if v == nil || back > len(v.Shape) {
		return Dim{}, false
	}
	return v.Shape[len(v.Shape)-back], true
}

func (r *growth) narrow(n *Node, v *Value, axis int) *Value {
	if !r.uniform(v, axis, 0) {
		fail(n, "operand %q of shape %s was made for %d tokens and says something different of each", v.Name, v.Shape, r.was)
	}
	g := r.in.g
	one := func(i int64) *Value { return g.constant("const", NewTensor([]int64{i}, 1)) }
	out := g.insertBefore(n, "Slice", nil, v, one(0), one(1), one(int64(axis)))
	r.in.node(out.Def)
	return out
}

// uniform says whether v's elements are equal all along the axis, as far as can be told.
func (r *growth) uniform(v *Value, axis, depth int) bool {
	switch {
	case v == nil || depth > 32:
		return false
	case axis < 0 || len(v.Shape) > axis && v.Shape[axis].Is(1):
		return true // the axis is one that broadcasting adds
	}
	at := place{v, axis}
	is, seen := r.equal[at]
	if !seen {
		is = r.isUniform(v, axis, depth)
		r.equal[at] = is
	}
	return is
}

// place is one axis of a value.
type place struct {
	v    *Value
	axis int
}

func (r *growth) isUniform(v *Value, axis, depth int) bool {
	switch {
	case v.Const != nil:
		return uniformConst(v.Const, axis)
	case v.Def == nil || v.Def.Domain != "":
		return false
	}
	n := v.Def
	of := func(x *Value, axis int) bool { return r.uniform(x, axis, depth+1) }
	switch n.Op {
	case "ConstantOfShape":
		return true
	case "Expand", "Tile":
		return of(n.Inputs[0], axis+len(n.Inputs[0].Shape)-len(v.Shape))
	case "Transpose":
		return of(n.Inputs[0], int(permutation(n, len(v.Shape))[axis]))
	case "Slice":
		return of(n.Inputs[0], axis)
	case "Concat":
		return axis != axisOf(n, "axis", 0) && !slices.ContainsFunc(n.Inputs, func(x *Value) bool { return !of(x, axis) })
	case "Unsqueeze", "Squeeze", "Reshape", "Flatten":
		x := n.Inputs[0]
		for i := range x.Shape {
			if !of(x, i) {
				return false
			}
		}
		return true
	}
	if !broadcasts[n.Op] && !elementwise[n.Op] {
		return false
	}
	return !slices.ContainsFunc(n.Inputs, func(x *Value) bool {
		return x != nil && !of(x, axis+len(x.Shape)-len(v.Shape))
	})
}

func uniformConst(t *Tensor, axis int) bool {
	b, err := t.Bytes()
	if err != nil || axis >= len(t.Dims) || t.Type.Size() == 0 {
		return false
	}
	inner := int(Count(t.Dims[axis+1:])) * t.Type.Size()
	group := inner * int(t.Dims[axis])
	for start := 0; start < len(b); start += group {
		for i := start + inner; i < start+group; i += inner {
			if string(b[i:i+inner]) != string(b[start:start+inner]) {
				return false
			}
		}
	}
	return true
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
