package graph

import (
	"math"
	"slices"
)

// Recompute makes a graph that holds a gradient compute parts of its forward pass a second time rather than keep
// them (Chen et al. 2016, "Training deep nets with sublinear memory cost"). Its first nodes, as many as forward says, are
// the forward pass. Where what they keep for the nodes behind takes at most budget bytes, nothing changes.
// Otherwise the forward pass is cut into stretches; only what flows from one to another is kept, and a stretch is computed
// again once the gradient has come to its end. The cuts are those for which what is kept and the largest
// stretch together are least. Outputs and gradients stay the same.
//
// A stretch waits for the gradient because its inputs get the sum of none of the gradient's elements added, which is
// zero: so an executor may take the nodes in any order that their inputs allow. All extents have to be known; one
// that is not is an error of kind [errs.Unsupported].
func (g *Graph) Recompute(forward int, budget int64) error {
	return g.Build(func(b *Builder) {
		r := newRecomputing(b, forward)
		if r.saved() <= budget {
			return
		}
		cuts := r.cuts()
		nodes := slices.Clone(g.Nodes)
		for i := len(cuts) - 2; i >= 0; i-- { // the last stretch is still there when the backward pass begins
			nodes = r.again(nodes, cuts[i], cuts[i+1])
		}
		g.Nodes = nodes
		if err := g.Infer(); err != nil {
			panic(bail{err})
		}
	})
}

// recomputing is what is known of the forward pass.
type recomputing struct {
	*Builder
	forward int
	index   map[*Value]int   // the node that defines a value, by its place
	last    map[*Value]int   // the last node of the forward pass that reads a value
	wanted  map[*Value]bool  // what the backward pass reads of the forward pass
	bytes   map[*Value]int64 // of what nodes of the forward pass define
	born    [][]lifetime     // by node: what it defines
	dying   [][]lifetime     // by node: what it is the last of the forward pass to read
}

// lifetime is from which node of the forward pass to which there is a value, and what it takes.
type lifetime struct {
	first, last int
	bytes       int64
	wanted      bool // by the backward pass
}

func newRecomputing(b *Builder, forward int) *recomputing {
	r := &recomputing{
		Builder: b, forward: forward, index: map[*Value]int{}, last: map[*Value]int{}, wanted: map[*Value]bool{}, bytes: map[*Value]int64{},
		born: make([][]lifetime, forward), dying: make([][]lifetime, forward),
	}
	for i, n := range b.g.Nodes[:forward] {
		for _, v := range n.reads() {
			r.last[v] = i
		}
		for _, v := range n.Outputs {
			if v != nil {
				r.index[v], r.bytes[v] = i, bytesOf(n, v)
			}
		}
	}
	for _, n := range b.g.Nodes[forward:] {
		for _, v := range n.reads() {
			if _, ok := r.index[v]; ok {
				r.wanted[v] = true
			}
		}
	}
	for _, v := range b.g.Outputs { // outputs are kept whatever happens
		r.last[v] = forward
	}
	for v, at := range r.index {
		l := lifetime{at, max(at, r.last[v]), r.bytes[v], r.wanted[v]}
		r.born[at] = append(r.born[at], l)
		if l.last < forward && l.last > at {
			r.dying[l.last] = append(r.dying[l.last], l)
		}
	}
	return r
}

// saved is the bytes that the forward pass keeps for the backward pass.
func (r *recomputing) saved() (total int64) {
	for v := range r.wanted {
		total += r.bytes[v]
	}
	return total
}

// cuts are where stretches begin, the first at 0. For each of some limits on what a stretch may hold, the cuts are
// found for which the least flows from one stretch to others; the limit is taken for which both together are least.
func (r *recomputing) cuts() []int {
	var best []int
	least := int64(math.MaxInt64)
	for limit := r.saved(); limit >= 1; limit /= 2 {
		cuts, kept, largest := r.cutsWithin(limit)
		if kept+largest < least {
			best, least = cuts, kept+largest
		}
	}
	return best
}

// cutsWithin are the cuts for which the least is kept where no stretch holds more than limit, save for one of a single node.
func (r *recomputing) cutsWithin(limit int64) (cuts []int, kept, largest int64) {
	n := r.forward
	cost, from, holds := make([]int64, n+1), make([]int, n+1), make([]int64, n+1)
	for i := range cost {
		cost[i] = math.MaxInt64
	}
	cost[0] = 0
	for start := range n {
		r.stretches(start, func(end int, out, inner int64) bool {
			if inner > limit && end > start+1 {
				return false
			}
			if total := cost[start] + out; total < cost[end] {
				cost[end], from[end], holds[end] = total, start, inner
			}
			return true
		})
	}
	for end := n; end > 0; end = from[end] {
		cuts, largest = append(cuts, from[end]), max(largest, holds[end])
	}
	slices.Reverse(cuts)
	return cuts, cost[n], largest
}

// stretches calls f for the stretches from start on, one node longer each, with the bytes that later stretches read of
// it and those that only the backward pass does, until f says false.
func (r *recomputing) stretches(start int, f func(end int, out, inner int64) bool) {
	var out, inner int64
	for end := start + 1; end <= r.forward; end++ {
		for _, v := range r.born[end-1] {
			if v.last >= end {
				out += v.bytes
			} else if v.wanted {
				inner += v.bytes
			}
		}
		for _, v := range r.dying[end-1] {
			if v.first < start {
				continue
			}
			out -= v.bytes
			if v.wanted {
				inner += v.bytes
			}
		}
		if !f(end, out, inner) {
			return
		}
	}
}

// again puts a second computation of the stretch ahead of the first node of the backward pass that reads of it.
func (r *recomputing) again(nodes []*Node, start, end int) []*Node {
	lost := func(v *Value) bool {
		at, ok := r.index[v]
		return ok && at >= start && at < end && r.last[v] < end && repeats(r.g.Nodes[at])
	}
	first := slices.IndexFunc(nodes[r.forward:], func(n *Node) bool { return slices.ContainsFunc(n.reads(), lost) })
	if first < 0 {
		return nodes
	}
	first += r.forward
	second := &repeating{recomputing: r, start: start, end: end, to: map[*Value]*Value{}, waits: deepest(nodes[r.forward:first])}
	before := len(r.g.Nodes)
	for _, n := range nodes[first:] {
		for i, v := range n.Inputs {
			if v != nil && lost(v) {
				n.Inputs[i] = second.value(v)
			}
		}
	}
	made := slices.Clone(r.g.Nodes[before:])
	r.g.Nodes = r.g.Nodes[:before]
	return slices.Insert(nodes, first, made...)
}

// repeats says whether a node may be computed a second time: one with graphs in it is not copied. Nodes that draw random
// numbers have no rows, so that their extents are not known and [Graph.Recompute] refuses them.
func repeats(n *Node) bool { return len(n.graphs()) == 0 }

// deepest is the float that the longest chain of the given nodes leads to: how far the gradient has come. It is
// nil where there is none.
func deepest(nodes []*Node) (found *Value) {
	depth, most := map[*Value]int{}, 0
	for _, n := range nodes {
		d := 0
		for _, v := range n.Inputs {
			d = max(d, depth[v])
		}
		for _, v := range n.Outputs {
			if v == nil {
				continue
			}
			if depth[v] = d + 1; d+1 >= most && v.Type.IsFloat() && len(v.Shape) > 0 {
				found, most = v, d+1
			}
		}
	}
	return found
}

// repeating is the second computation of a stretch.
type repeating struct {
	*recomputing
	start, end int
	to         map[*Value]*Value // what values become
	waits      *Value            // what the computation waits for
	nothing    *Value            // the sum of none of its elements
}

// value is v computed again, or, where v comes from without, v that waits.
func (s *repeating) value(v *Value) *Value {
	if v == nil || v.Const != nil {
		return v
	}
	if s.to[v] != nil {
		return s.to[v]
	}
	at, ok := s.index[v]
	if !ok || at < s.start || at >= s.end || s.last[v] >= s.end || !repeats(s.g.Nodes[at]) {
		s.to[v] = s.waiting(v)
		return s.to[v]
	}
	n := *v.Def
	n.Inputs, n.Outputs = slices.Clone(n.Inputs), slices.Clone(n.Outputs)
	for i, in := range n.Inputs {
		n.Inputs[i] = s.value(in)
	}
	n.Name = s.g.freshName(n.Op)
	for i, out := range n.Outputs {
		if out != nil {
			n.Outputs[i] = &Value{Name: s.g.freshName(n.Op), Type: out.Type, Def: &n}
			s.to[out] = n.Outputs[i]
		}
	}
	s.g.Nodes = append(s.g.Nodes, &n)
	s.in.node(&n)
	return s.to[v]
}

// waiting is v once there is what the stretch waits for. Integers, which are small, do not wait.
func (s *repeating) waiting(v *Value) *Value {
	if !v.Type.IsFloat() || s.waits == nil {
		return v
	}
	if s.nothing == nil {
		none := s.Op("Slice", nil, s.waits, s.Ints(0), s.Ints(0), s.Ints(0))
		s.nothing = s.Op("ReduceSum", Attrs{"keepdims": int64(0)}, none)
	}
	return s.Add(v, s.cast(s.nothing, v.Type))
}
