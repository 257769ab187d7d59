package graph

import (
	"maps"
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
	ours   map[*Node]bool // what puts prompts in and out, which is as it should be
	tokens *Value         // the tokens with the prompts among them
	axis   int            // their axis
	at     int64          // where the prompts stand
	was    int64          // tokens before
	now    int64          // and after
	old    map[*Value]Shape
	// longer are values that grew, each with the extent of its axis 1, where the tokens
	// are spelled in ids and masks.
	longer map[*Value]Dim
	// places says that tokens are known by their place: what was made for one is not left out or
	// zero for a prompt.
	places bool
	// bare are the tokens after the prompts were taken out again; nil where they flow on.
	bare     *Value
	bareAxis int // its axis of tokens
	// spared are stretches of the graph that prompts pass by.
	spared []*detour
	// tables are products of the tokens with a table that holds something else for each
	// place. What they come to with prompts is not known yet: see detours.
	tables []*Node
	// merged are the factors, outermost first, of axes that hold tokens and more.
	merged map[*Value]map[int][]Dim
	// equal is what uniform has found out.
	equal map[place]bool
	// shapes are those that follow from how prompts were put in, beyond what a node's rule says.
	shapes map[*Value]func() Shape
	// counts are sums over tokens, with how many tokens each is over.
	counts map[*Value]Dim
	// flowing are the values that depend on the tokens.
	flowing map[*Value]bool
	// open is set where there are no prompts, but the number of tokens becomes one that each run
	// decides.
	open *openLength
}

// run infers the graph's shapes in the token symbol, mending each node ahead of its turn.
func (r *growth) run() (err error) {
	defer recoverBail(&err)
	g := r.in.g
	r.expect()
	past := false
	for i := 0; i < len(g.Nodes); i++ {
		n := g.Nodes[i]
		if past || slices.ContainsFunc(r.spared, func(d *detour) bool { return d.nodes[n] }) {
			r.settle(n)
		}
		if !r.ours[n] && slices.ContainsFunc(n.Inputs, r.grown) {
			r.mend(n)
		}
		r.quotient(n)
		for ; g.Nodes[i] != n; i++ { // what mending put in front
			r.infer(g.Nodes[i])
		}
		r.infer(n)
		r.verify(n)
		past = past || r.bare != nil && n == r.bare.Def
	}
	return nil
}

// expect notes the shapes of what the surgery put in.
func (r *growth) expect() {
	r.merged, r.equal, r.counts = map[*Value]map[int][]Dim{}, map[place]bool{}, map[*Value]Dim{}
	if r.open != nil {
		return
	}
	r.flowing = activeValues(r.in.g, r.in.g.Outputs, append(slices.Collect(maps.Keys(r.longer)), r.tokens))
	r.shapes = map[*Value]func() Shape{}
	if r.tokens != nil {
		r.shapes[r.tokens] = func() Shape { return r.tokens.Shape.with(r.axis, Sym(tokenSymbol)) }
	}
	for v, d := range r.longer {
		r.shapes[v] = func() Shape { return v.Shape.with(1, d) }
	}
	if r.bare != nil {
		r.shapes[r.bare] = func() Shape { return r.bare.Shape.with(r.bareAxis, Known(r.was)) }
	}
	for _, d := range r.spared {
		r.shapes[d.rest] = func() Shape { return d.rest.Shape.with(d.axis, r.before(d.entry.Shape[d.axis])) }
		r.shapes[d.joined] = func() Shape { return d.joined.Shape.with(d.axis, d.entry.Shape[d.axis]) }
	}
}

// infer infers one node's outputs.
func (r *growth) infer(n *Node) {
	r.in.node(n)
	if len(n.Outputs) == 1 && r.shapes[n.Outputs[0]] != nil {
		n.Outputs[0].Shape = r.shapes[n.Outputs[0]]()
	}
}

// with is the shape with another extent along an axis.
func (s Shape) with(axis int, d Dim) Shape {
	out := slices.Clone(s)
	out[axis] = d
	return out
}

// settle gives a node that works on the tokens without prompts the old number of tokens, where
// it reads it off values with them.
func (r *growth) settle(n *Node) {
	for i, v := range n.Inputs {
		ds, ok := r.in.contents[v]
		if !ok || !slices.ContainsFunc(ds, func(d Dim) bool { return d.mentions(tokenSymbol) }) {
			continue
		}
		was, theirs := make([]int64, len(ds)), make([]bool, len(ds))
		for j, d := range ds {
			if theirs[j] = d.mentions(tokenSymbol); !theirs[j] {
				continue
			}
			if was[j], ok = r.before(d).Int(); !ok {
				fail(n, "it depends on %s, the tokens with prompts", d)
			}
		}
		dims := []int64{int64(len(ds))}[:len(v.Shape)]
		g := r.in.g
		n.Inputs[i] = g.insertBefore(n, "Where", nil, g.constant("theirs", NewTensor(theirs, dims...)), g.integers("was", v.Type, was, dims...), v)
	}
}

// grown says whether the number of tokens takes part in v's shape.
func (r *growth) grown(v *Value) bool {
	return v != nil && slices.ContainsFunc(v.Shape, func(d Dim) bool { return d.mentions(tokenSymbol) })
}

func (r *growth) before(d Dim) Dim { return d.substitute(tokenSymbol, Known(r.was)) }

func (r *growth) after(s Shape) Shape {
	if r.open != nil {
		return s
	}
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
	case "Gather":
		r.last(n)
	case "AveragePool", "MaxPool", "Conv", "ConvTranspose", "Resize":
		if slices.ContainsFunc(n.Inputs[0].Shape[2:], func(d Dim) bool { return d.mentions(tokenSymbol) }) {
			fail(n, "it works on neighbouring tokens, among which prompts have no place")
		}
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
		fail(n, "it lays %d tokens of %s out as %s: in windows, a grid or one row, prompts have no place", r.was, x.Shape, was)
	}
	if target, known := r.in.ints(n.Inputs[1]); known && matches(target, x.Shape, want) {
		return
	}
	target, ok := targetFor(r.after(x.Shape), r.after(want))
	if !ok && r.open != nil && r.open.target(n, want) {
		return
	}
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
		n.Inputs[2] = r.in.g.integers("ends", n.Inputs[2].Type, fixed, int64(len(fixed)))
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
	if !ok || r.open != nil {
		fail(n, "it splits the tokens into equal parts, or parts of fixed sizes")
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
	if r.open != nil {
		r.open.concat(r, n, axis)
	}
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

// last: the index of the last token goes on meaning that where the number of tokens is open.
func (r *growth) last(n *Node) {
	x, index := n.Inputs[0], n.Inputs[1]
	axis := axisOf(n, "axis", 0)
	at, ok := r.in.ints(index)
	if r.open != nil && ok && len(at) == 1 && at[0].Is(r.was-1) && axis >= 0 && axis < len(x.Shape) && x.Shape[axis].Equal(Sym(tokenSymbol)) {
		n.Inputs[1] = r.in.g.constant("last", NewTensor([]int64{-1}, slices.Repeat([]int64{1}, len(index.Shape))...))
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

// widen fits operands of the old extent to the tokens.
func (r *growth) widen(n *Node) {
	rank := 0
	for _, v := range n.Inputs {
		rank = max(rank, len(v.Shape))
	}
	for back := 1; back <= rank; back++ {
		grown, short := Dim{}, false
		for _, v := range n.Inputs {
			d, ok := fromRight(v, back)
			switch {
			case ok && d.mentions(tokenSymbol):
				grown = d
			case ok && !d.Is(1) && r.flowing[v]:
				short = true // the tokens themselves, with the prompts gone
			}
		}
		if grown.Equal(Dim{}) {
			continue
		}
		for i, v := range n.Inputs {
			d, ok := fromRight(v, back)
			if ok && !d.Is(1) && (short && d.Equal(grown) || !short && !d.Equal(grown)) {
				n.Inputs[i] = r.fit(n, v, n.Op == "Add" || n.Op == "Sub" && i == 1, len(v.Shape)-back, grown)
			}
		}
	}
}

// fit makes an operand fit the tokens along one of its axes. What is the same all along them, as
// masks that hide nothing are, is cut to extent 1, which broadcasts. A table that adds something
// for each place, as positions and relative positions do, adds nothing for prompts (as VPT has
// it for Swin's biases). A table that multiplies is left for detours to deal with.
func (r *growth) fit(n *Node, v *Value, added bool, axis int, grown Dim) *Value {
	switch {
	case r.uniform(v, axis, 0):
		return r.narrow(n, v, axis)
	case r.open != nil:
		return r.open.cut(r, n, v, axis)
	case r.places:
		fail(n, "operand %q of shape %s holds something for each of %d places and nothing for more: the export needs a free sequence axis", v.Name, v.Shape, r.was)
	case r.flowing[v] || v.Shape[axis].mentions(tokenSymbol):
	case n.Op == "Mul":
		r.tables = append(r.tables, n)
		return r.narrow(n, v, axis)
	case added && r.adds(v, 0):
		if at, ok := r.promptsIn(n, len(v.Shape)-axis, grown); ok {
			return r.pad(n, v, axis, at, grown)
		}
	case added && v.Def != nil && (v.Def.Op == "Add" || v.Def.Op == "Max"): // of a mask and a table; of these and the lowest number
		return r.fitParts(n, v, axis, grown)
	}
	fail(n, "operand %q of shape %s was made for %d tokens and says something different of each", v.Name, v.Shape, r.was)
	return nil
}

// fitParts fits the operands of a sum or a maximum, one by one.
func (r *growth) fitParts(n *Node, v *Value, axis int, grown Dim) *Value {
	var parts []*Value
	back := len(v.Shape) - axis
	for _, x := range v.Def.Inputs {
		if d, ok := fromRight(x, back); ok && !d.Is(1) {
			x = r.fit(n, x, true, len(x.Shape)-back, grown)
		}
		parts = append(parts, x)
	}
	out := r.in.g.insertBefore(n, v.Def.Op, nil, parts...)
	r.in.node(out.Def)
	return out
}

// adds says whether v is a table of numbers to add, and no mask, which would hide tokens.
func (r *growth) adds(v *Value, depth int) bool {
	switch {
	case v == nil || !v.Type.IsFloat():
		return true
	case depth > 32:
		return false
	case v.Const != nil:
		x, err := Float32s(v.Const)
		return err == nil && !slices.ContainsFunc(x, func(f float32) bool { return f < -1e3 || f != f })
	case v.Def == nil || v.Def.Op == "Where" || v.Def.Op == "Trilu" || v.Def.Op == "Cast" && !v.Def.Inputs[0].Type.IsFloat():
		return false
	}
	return !slices.ContainsFunc(v.Def.Inputs, func(x *Value) bool { return !r.adds(x, depth+1) })
}

// promptsIn says where along the grown axis of n's operands, counted from the right, the prompts
// stand.
func (r *growth) promptsIn(n *Node, back int, grown Dim) (int64, bool) {
	for _, v := range n.Inputs {
		if d, ok := fromRight(v, back); ok && d.Equal(grown) {
			return r.promptsAt(v, len(v.Shape)-back, 0)
		}
	}
	return 0, false
}

// promptsAt says where along an axis of v the prompts stand.
func (r *growth) promptsAt(v *Value, axis, depth int) (int64, bool) {
	if v == r.tokens {
		return r.at, axis == r.axis
	}
	if v.Def == nil || depth > 1000 {
		return 0, false
	}
	n, d := v.Def, v.Shape[axis]
	switch n.Op {
	case "Slice":
		return r.promptsInSlice(n, axis, depth)
	case "Split":
		if axisOf(n, "axis", 0) == axis {
			at, ok := r.promptsAt(n.Inputs[0], axis, depth+1)
			for _, out := range n.Outputs[:slices.Index(n.Outputs, v)] {
				size, known := out.Shape[axis].Int()
				at, ok = at-size, ok && known
			}
			return at, ok
		}
	case "Concat":
		if axisOf(n, "axis", 0) == axis {
			before := Dim{}
			for _, x := range n.Inputs {
				if x.Shape[axis].mentions(tokenSymbol) {
					at, ok := r.promptsAt(x, axis, depth+1)
					size, known := before.Int()
					return at + size, ok && known
				}
				before = before.Add(x.Shape[axis])
			}
			return 0, false
		}
	}
	return r.promptsUpstream(n, len(v.Shape)-axis, d, depth)
}

// promptsUpstream looks for the axis in the operands: at the same place first.
func (r *growth) promptsUpstream(n *Node, back int, d Dim, depth int) (int64, bool) {
	for _, x := range n.Inputs {
		if e, ok := fromRight(x, back); ok && e.Equal(d) {
			return r.promptsAt(x, len(x.Shape)-back, depth+1)
		}
	}
	for _, x := range n.Inputs {
		if x != nil {
			if i := slices.IndexFunc(x.Shape, d.Equal); i >= 0 {
				return r.promptsAt(x, i, depth+1)
			}
		}
	}
	return 0, false
}

func (r *growth) promptsInSlice(n *Node, axis, depth int) (int64, bool) {
	x := n.Inputs[0]
	at, ok := r.promptsAt(x, axis, depth+1)
	if !ok || x.Shape[axis].Equal(n.Outputs[0].Shape[axis]) {
		return at, ok
	}
	starts, ok1 := r.in.ints(n.Inputs[1])
	axes, ok2 := firstN(len(starts)), true
	if a := n.Input(3); a != nil {
		var ds []Dim
		if ds, ok2 = r.in.ints(a); ok2 {
			axes, ok2 = Shape(ds).ints()
		}
	}
	if !ok1 || !ok2 {
		return 0, false
	}
	for i, a := range axes {
		if a == int64(axis) || a == int64(axis-len(x.Shape)) {
			start, known := starts[i].Int()
			return at - start, known && start >= 0
		}
	}
	return at, true
}

// pad puts zeros into v where the prompts stand.
func (r *growth) pad(n *Node, v *Value, axis int, at int64, grown Dim) *Value {
	g, k, rank := r.in.g, r.now-r.was, len(v.Shape)
	one := func(i int64) *Value { return g.constant("const", NewTensor([]int64{i}, 1)) }
	op := func(op string, attrs map[string]Attr, inputs ...*Value) *Value {
		out := g.insertBefore(n, op, attrs, inputs...)
		r.in.node(out.Def)
		return out
	}
	zeros := func(x *Value, i int) *Value {
		pads := make([]int64, 2*rank)
		pads[i] = k
		return op("Pad", nil, x, g.constant("pads", NewTensor(pads, int64(2*rank))))
	}
	var out *Value
	if at == 0 {
		out = zeros(v, axis)
	} else {
		head := zeros(op("Slice", nil, v, one(0), one(at), one(int64(axis))), rank+axis)
		out = op("Concat", map[string]Attr{"axis": {int64(axis)}}, head, op("Slice", nil, v, one(at), one(math.MaxInt64), one(int64(axis))))
	}
	r.shapes[out] = func() Shape { return out.Shape.with(axis, grown) }
	r.infer(out.Def)
	return out
}

// quotient: a mean may be a sum over tokens divided by their number as it was.
func (r *growth) quotient(n *Node) {
	if n.Op == "ReduceSum" && r.grown(n.Inputs[0]) {
		if axes, ok := r.summed(n); ok {
			r.counts[n.Outputs[0]] = axes
		}
		return
	}
	i := slices.IndexFunc(n.Inputs, func(v *Value) bool { _, ok := r.counts[v]; return ok })
	if i < 0 {
		return
	}
	count := r.counts[n.Inputs[i]]
	was, ok1 := r.before(count).Int()
	now, ok2 := count.substitute(tokenSymbol, Known(r.now)).Int()
	switch {
	case onlyCopies[n.Op] || n.Op == "Squeeze" || n.Op == "Unsqueeze":
		r.counts[n.Outputs[0]] = count
	case !ok1 || !ok2:
	case n.Op == "Div" && i == 0:
		r.rescale(n, 1, float64(was), float64(now))
	case n.Op == "Mul":
		r.rescale(n, 1-i, 1/float64(was), 1/float64(now))
	}
}

// summed is the number of tokens that a ReduceSum adds up.
func (r *growth) summed(n *Node) (Dim, bool) {
	s := n.Inputs[0].Shape
	axes, ok := r.in.ints(n.Input(1))
	if !ok {
		return Dim{}, false
	}
	count := Known(1)
	for _, a := range axes {
		i, known := a.Int()
		if i < 0 {
			i += int64(len(s))
		}
		if !known || i < 0 || i >= int64(len(s)) {
			return Dim{}, false
		}
		count = count.Mul(s[i])
	}
	return count, count.mentions(tokenSymbol)
}

// rescale replaces a one-element constant operand that has the value was.
func (r *growth) rescale(n *Node, i int, was, now float64) {
	c := n.Inputs[i].Const
	if c == nil || c.Len() != 1 || !c.Type.IsFloat() {
		return
	}
	x, err := Float32s(c)
	if err != nil || math.Abs(float64(x[0])-was) > 1e-3*was {
		return
	}
	if r.open != nil {
		fail(n, "it divides by %d tokens, as many as there were", r.was)
	}
	t := scalar(now, c.Type)
	t.Dims = slices.Clone(c.Dims)
	n.Inputs[i] = r.in.g.constant("count", t)
}

func fromRight(v *Value, back int) (Dim, bool) {
	if v == nil || back > len(v.Shape) {
		return Dim{}, false
	}
	return v.Shape[len(v.Shape)-back], true
}

// narrow cuts an axis of v to its first element.
func (r *growth) narrow(n *Node, v *Value, axis int) *Value {
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
	case "LessOrEqual":
		if hidesNothing(n) {
			return true
		}
	case "Expand", "Tile":
		return of(n.Inputs[0], axis+len(n.Inputs[0].Shape)-len(v.Shape))
	case "Transpose":
		return of(n.Inputs[0], int(permutation(n, len(v.Shape))[axis]))
	case "Slice":
		return of(n.Inputs[0], axis)
	case "Concat":
		return axis != axisOf(n, "axis", 0) && !slices.ContainsFunc(n.Inputs, func(x *Value) bool { return !of(x, axis) })
	case "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Gather", "GatherND":
		x := n.Inputs[0] // if all of it is the same, so is what is looked up in it
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

// hidesNothing says whether n asks which rows of a mask hide all, of a mask that can be seen to hide nothing.
func hidesNothing(n *Node) bool {
	row, limit := n.Inputs[0].Def, n.Inputs[1]
	return row != nil && row.Op == "ReduceMax" && limit.Const != nil && !above(limit, hidden, 0) && above(row.Inputs[0], hidden, 0)
}

// hidden is lower than any number that is added to scores but to hide them.
const hidden = -1e30

// above says whether all of v is above a negative limit, as far as can be told.
func above(v *Value, limit float32, depth int) bool {
	switch {
	case v.Const != nil && v.Type.IsFloat():
		x, err := Float32s(v.Const)
		return err == nil && !slices.ContainsFunc(x, func(f float32) bool { return !(f > limit) })
	case v.Def == nil || depth > 32:
		return false
	}
	switch n := v.Def; n.Op {
	case "Cast":
		return n.Inputs[0].Type == Bool || above(n.Inputs[0], limit, depth+1)
	case "Expand", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Identity":
		return above(n.Inputs[0], limit, depth+1)
	case "Add": // of numbers that are far from the limit
		return !slices.ContainsFunc(n.Inputs, func(x *Value) bool { return !above(x, limit/2, depth+1) })
	}
	return false
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
