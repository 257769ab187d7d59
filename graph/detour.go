package graph

import "slices"

// detour is a stretch of the graph that prompts pass by: what it does to each token depends on the
// token's place, and prompts have none. Rotary positions are of this kind: tokens go in, and come
// out turned by angles from tables. Prompts come out as they went in.
type detour struct {
	entry, exit *Value // tokens of equal shape
	nodes       map[*Node]bool
	axis        int   // of the tokens
	at          int64 // where along it the prompts stand
	// What the surgery puts in: the tokens without prompts behind entry, and all again behind exit.
	rest, joined *Value
}

// maxDetour bounds the nodes of a detour; rotary positions take some ten.
const maxDetour = 64

// findDetour looks for the shortest stretch around a product with a table that the tokens enter and
// leave at one place each, in one shape.
func findDetour(g *Graph, product *Node, active map[*Value]bool) (*detour, bool) {
	isActive := func(v *Value) bool { return active[v] }
	at := product
	for range maxDetour {
		i := slices.IndexFunc(at.Inputs, isActive)
		if i < 0 || slices.ContainsFunc(at.Inputs[i+1:], func(v *Value) bool { return active[v] && v != at.Inputs[i] }) {
			return nil, false
		}
		entry := at.Inputs[i]
		if d := detourFrom(g, entry, active); d != nil && d.nodes[product] {
			return d, true
		}
		if entry.Def == nil {
			return nil, false
		}
		at = entry.Def
	}
	return nil, false
}

// detourFrom follows the tokens from entry on to where they are one value of the same shape again.
// It is nil where other active values join them first.
func detourFrom(g *Graph, entry *Value, active map[*Value]bool) *detour {
	d := &detour{entry: entry, nodes: map[*Node]bool{}}
	unread := map[*Value]int{}
	nodes := g.Nodes[g.position(entry)+1:]
	for _, n := range nodes {
		for _, v := range n.Inputs {
			if active[v] {
				unread[v]++
			}
		}
	}
	live := map[*Value]bool{entry: true}
	for _, n := range nodes {
		if !slices.ContainsFunc(n.Inputs, func(v *Value) bool { return live[v] }) {
			continue
		}
		if len(d.nodes) == maxDetour || slices.ContainsFunc(n.Inputs, func(v *Value) bool { return active[v] && !live[v] }) {
			return nil
		}
		d.nodes[n] = true
		for _, v := range n.Inputs {
			if live[v] {
				if unread[v]--; unread[v] == 0 {
					delete(live, v)
				}
			}
		}
		for _, v := range n.Outputs {
			if active[v] {
				live[v] = true
			}
		}
		if len(live) == 1 && len(n.Outputs) == 1 && live[n.Outputs[0]] && n.Outputs[0].Shape.Equal(entry.Shape) {
			d.exit = n.Outputs[0]
			return d
		}
	}
	return nil
}

// findDetours finds the stretches around the products that growth came upon in a copy of g, whose
// values to holds.
func findDetours(g *Graph, to map[*Value]*Value, r *growth, active map[*Value]bool) []*detour {
	var out []*detour
	of := map[*Value]*Value{}
	for v, c := range to {
		of[c] = v
	}
	for _, n := range r.tables {
		product := of[n.Outputs[0]].Def
		if slices.ContainsFunc(out, func(d *detour) bool { return d.nodes[product] }) {
			continue
		}
		d, ok := findDetour(g, product, active)
		if ok {
			d.axis, d.at, ok = r.soleAxis(to[d.entry])
		}
		if ok {
			axis, _, same := r.soleAxis(to[d.exit])
			ok = same && axis == d.axis
		}
		if !ok {
			fail(product, "it multiplies each of %d tokens by something else, and no way around it was found for prompts", r.was)
		}
		out = append(out, d)
	}
	return out
}

// soleAxis is the one axis of v that holds tokens, and where along it the prompts stand.
func (r *growth) soleAxis(v *Value) (axis int, at int64, ok bool) {
	axis = -1
	for i, d := range v.Shape {
		if d.mentions(tokenSymbol) {
			if axis >= 0 {
				return 0, 0, false
			}
			axis = i
		}
	}
	if axis < 0 {
		return 0, 0, false
	}
	at, ok = r.promptsAt(v, axis, 0)
	return axis, at, ok
}

// lay leads k prompts past each detour of the copied graph.
func (s *surgery) lay(ds []*detour, to map[*Value]*Value, k int64) []*detour {
	var out []*detour
	for _, d := range ds {
		c := &detour{entry: to[d.entry], exit: to[d.exit], axis: d.axis, at: d.at, nodes: map[*Node]bool{}}
		for n := range d.nodes {
			c.nodes[outputOf(n, to).Def] = true
		}
		s.at = s.g.position(c.entry) + 1
		c.rest = s.without(c.entry, c.axis, c.at, k)
		for n := range c.nodes {
			replaceIn(n.Inputs, c.entry, c.rest)
		}
		s.at = s.g.position(c.exit) + 1
		from := s.at
		prompts := s.slice(c.entry, c.axis, c.at, c.at+k)
		c.joined = s.between(c.exit, c.axis, c.at, 0, prompts)
		s.reroute(c.exit, c.joined, from)
		out = append(out, c)
	}
	return out
}

func outputOf(n *Node, to map[*Value]*Value) *Value {
	i := slices.IndexFunc(n.Outputs, func(v *Value) bool { return to[v] != nil })
	return to[n.Outputs[i]]
}
