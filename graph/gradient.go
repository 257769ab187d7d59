package graph

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// Gradient appends the reverse-mode derivative of outputs to g, as ordinary nodes, and
// returns the gradient of each value in wrt, shaped like it. cotangents are the
// gradients of outputs; nil seeds a single scalar or one-element output with 1.
//
// Only nodes between wrt and outputs are visited; constants get no gradient unless they
// are asked for. A value of wrt that outputs do not depend on is an error, and so is an
// operator without a gradient on the way; all of them are named.
func Gradient(g *Graph, outputs, cotangents, wrt []*Value) (grads []*Value, err error) {
	err = g.Build(func(b *Builder) { grads = b.Gradient(outputs, cotangents, wrt) })
	return grads, err
}

// Gradient is [Gradient] at the end of what has been built.
func (b *Builder) Gradient(outputs, cotangents, wrt []*Value) []*Value {
	w := &backward{Builder: b, grads: map[*Value]*Value{}, active: activeValues(b.g, outputs, wrt), guarded: map[*Value]bool{}}
	w.refuse()
	for i, y := range outputs {
		w.accumulate(y, w.seed(y, cotangents, i))
	}
	nodes := slices.Clone(b.g.Nodes)
	for _, n := range nodes {
		if n.Op == "Where" || n.Op == "IsNaN" {
			for _, v := range n.Inputs {
				w.guarded[v] = true
			}
		}
	}
	for _, n := range slices.Backward(nodes) {
		if w.reached(n) {
			w.onlyFirst(n)
			table[key(n)].grad(w, n)
		}
	}
	out := make([]*Value, len(wrt))
	for i, v := range wrt {
		if out[i] = w.grads[v]; out[i] == nil {
			panic(bail{unreachable(b.g, outputs, v)})
		}
	}
	return out
}

// unreachable says why there is no gradient of outputs by v: what lies between them has a
// derivative of zero or none, or nothing lies there.
func unreachable(g *Graph, outputs []*Value, v *Value) error {
	on, to := reached(g, v), leadingTo(g, outputs)
	var between []*Node
	for _, n := range g.Nodes {
		dead := flat[key(n)] || !slices.ContainsFunc(n.Outputs, func(y *Value) bool { return y != nil && y.Type.IsFloat() })
		if dead && slices.ContainsFunc(n.reads(), func(x *Value) bool { return on[x] }) && slices.ContainsFunc(n.Outputs, func(y *Value) bool { return to[y] }) {
			between = append(between, n)
		}
	}
	if len(between) == 0 {
		return errs.New(errs.Invalid, "no gradient: the output does not depend on %q", v.Name)
	}
	return errs.New(errs.Unsupported, "no gradient: the output depends on %q only through operators that have none: %s", v.Name, census(between))
}

// backward is the state of one walk from the outputs back.
type backward struct {
	*Builder
	grads   map[*Value]*Value // the gradient found so far
	active  map[*Value]bool   // values on a path from wrt to the outputs
	guarded map[*Value]bool   // values that a Where or an IsNaN reads: some of them may be no numbers
}

// seed is the gradient of an output. One of known extents, where the output's are open, is laid out by those:
// further back they stand in products with others.
func (b *backward) seed(y *Value, cotangents []*Value, i int) *Value {
	if cotangents != nil {
		dy := cotangents[i]
		if fixes(dy.Shape, y.Shape) {
			return b.Op("Reshape", nil, dy, b.Op("Shape", nil, y))
		}
		return dy
	}
	ones := make([]int64, len(y.Shape))
	for j := range ones {
		ones[j] = 1
	}
	one := scalar(1, y.Type)
	one.Dims = ones
	return b.Const(one)
}

// fixes says whether a shape differs from another only by having numbers, other than 1, for open extents.
func fixes(s, open Shape) bool {
	if len(s) != len(open) || s.Equal(open) {
		return false
	}
	for i, d := range s {
		if !d.Equal(open[i]) && (symbolic(d) || d.Is(1) || !symbolic(open[i])) {
			return false
		}
	}
	return true
}

// activeValues are the float values that depend on wrt and on which the outputs depend.
func activeValues(g *Graph, outputs, wrt []*Value) map[*Value]bool {
	return onPaths(g, outputs, wrt, func(v *Value) bool { return v.Type.IsFloat() })
}

// onPaths are the values for which carries holds that depend on wrt and on which the outputs depend.
func onPaths(g *Graph, outputs, wrt []*Value, carries func(*Value) bool) map[*Value]bool {
	forward := map[*Value]bool{}
	for _, v := range wrt {
		forward[v] = true
	}
	for _, n := range g.Nodes {
		if slices.ContainsFunc(n.reads(), func(v *Value) bool { return forward[v] }) {
			for _, v := range n.Outputs {
				if v != nil && carries(v) && !flat[key(n)] {
					forward[v] = true
				}
			}
		}
	}
	active := map[*Value]bool{}
	for _, y := range outputs {
		active[y] = forward[y]
	}
	for _, n := range slices.Backward(g.Nodes) {
		if slices.ContainsFunc(n.Outputs, func(v *Value) bool { return active[v] }) {
			for _, v := range n.reads() {
				if v != nil && forward[v] {
					active[v] = true
				}
			}
		}
	}
	return active
}

// refuse ends the walk when an operator on the way has no gradient.
func (b *backward) refuse() {
	var missing []*Node
	for _, n := range b.g.Nodes {
		if b.reachable(n) && table[key(n)].grad == nil {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		panic(bail{errs.New(errs.Unsupported, "no gradient passes these operators: %s", census(missing))})
	}
}

// leadingTo are the values that the outputs are computed from, themselves included.
func leadingTo(g *Graph, outputs []*Value) map[*Value]bool {
	to := map[*Value]bool{}
	for _, y := range outputs {
		to[y] = true
	}
	for _, n := range slices.Backward(g.Nodes) {
		if slices.ContainsFunc(n.Outputs, func(y *Value) bool { return y != nil && to[y] }) {
			for _, x := range n.reads() {
				to[x] = x != nil
			}
		}
	}
	return to
}

// census counts nodes by operator and names the first of each.
func census(nodes []*Node) string {
	byOp := map[string][]string{}
	for _, n := range nodes {
		byOp[key(n)] = append(byOp[key(n)], n.Name)
	}
	var parts []string
	for _, op := range slices.Sorted(maps.Keys(byOp)) {
		parts = append(parts, fmt.Sprintf("%s (%d, first %q)", op, len(byOp[op]), byOp[op][0]))
	}
	return strings.Join(parts, ", ")
}

// onlyFirst refuses gradients of outputs that the rules do not look at. Split's looks at all.
func (b *backward) onlyFirst(n *Node) {
	for i, v := range n.Outputs {
		if i > 0 && n.Op != "Split" && v != nil && b.grads[v] != nil {
			fail(n, "a gradient of its output %d", i)
		}
	}
}

// onlyWants refuses gradients of inputs from the given one on, that a rule has none for.
func (b *backward) onlyWants(n *Node, count int) {
	for i := count; i < len(n.Inputs); i++ {
		if b.wants(n, i) {
			fail(n, "a gradient of its input %d", i)
		}
	}
}

// nameOutputs makes the node give out its first count outputs, also those left out so far.
func (b *backward) nameOutputs(n *Node, count int) {
	for len(n.Outputs) < count {
		n.Outputs = append(n.Outputs, nil)
	}
	for i, v := range n.Outputs {
		if v == nil {
			n.Outputs[i] = &Value{Name: b.g.freshName(n.Op), Def: n}
		}
	}
	b.in.node(n)
}

// reachable says whether a gradient has to pass the node.
func (b *backward) reachable(n *Node) bool {
	is := func(v *Value) bool { return v != nil && b.active[v] }
	return slices.ContainsFunc(n.Outputs, is) && slices.ContainsFunc(n.reads(), is)
}

// reached says whether a gradient has come to one of the node's outputs.
func (b *backward) reached(n *Node) bool {
	return b.reachable(n) && slices.ContainsFunc(n.Outputs, func(v *Value) bool { return b.grads[v] != nil })
}

// wants says whether input i needs a gradient.
func (b *backward) wants(n *Node, i int) bool {
	v := n.Input(i)
	return v != nil && b.active[v]
}

// dy is the gradient of the node's first output.
func (b *backward) dy(n *Node) *Value { return b.grads[n.Outputs[0]] }

// give adds dx, of the shape of the output, to the gradient of input i: where the input
// was broadcast, dx is summed over the axes it was repeated along.
func (b *backward) give(n *Node, i int, dx *Value) {
	b.accumulate(n.Inputs[i], b.unbroadcast(n, dx, n.Inputs[i].Shape))
}

// accumulate adds dv, which may be wider than v, to the gradient of v.
func (b *backward) accumulate(v, dv *Value) {
	dv = b.cast(dv, v.Type)
	if have := b.grads[v]; have != nil {
		dv = b.Add(have, dv)
	}
	b.grads[v] = dv
}

// unbroadcast sums dx over the axes that a value of shape to was repeated along.
func (b *backward) unbroadcast(n *Node, dx *Value, to Shape) *Value {
	lead := len(dx.Shape) - len(to)
	var axes []int64
	for i, d := range dx.Shape {
		switch {
		case i < lead, to[i-lead].Is(1) && !d.Is(1):
			axes = append(axes, int64(i))
		case !to[i-lead].Equal(d) && symbolic(to[i-lead]) && symbolic(d):
			fail(n, "it cannot be told whether extent %s is repeated to %s", to[i-lead], d)
		}
	}
	if len(axes) == 0 {
		return dx
	}
	dx = b.Sum(b.widened(dx), true, axes...)
	if lead == 0 {
		return dx
	}
	return b.Op("Squeeze", nil, dx, b.Ints(firstN(lead)...))
}

func symbolic(d Dim) bool {
	_, ok := d.Int()
	return !ok
}

func firstN(n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(i)
	}
	return out
}
