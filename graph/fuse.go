package graph

import (
	"maps"
	"reflect"
	"slices"
)

// What is written out when a graph is read is remembered: each node that comes of it says which node of the file it was,
// and what it looked like then. So [Graph.Fuse] can put that node back where nothing has come in between.

// written is a node that was written out.
type written struct {
	node  *Node // as it can be put back; its inputs and outputs are values of the graph, or gone
	opset int64 // of its domain
	// rounds says that it rounds what the nodes that it was written out as do not.
	rounds bool
}

// piece is what a node has of the one that it was written out from.
type piece struct {
	of     *written
	op     string
	attrs  map[string]Attr
	inputs []*Value
}

// gone stands for a value that a graph has no more.
var gone = &Value{Name: "gone"}

// rememberParts notes what the nodes look like that others were written out as since it was called last. original is what
// the values stand for that were dropped meanwhile.
func (g *Graph) rememberParts(original map[*Value]*Value) {
	for _, n := range g.Nodes {
		p := n.piece
		if p == nil || p.op != "" {
			continue
		}
		p.op, p.attrs, p.inputs = n.Op, maps.Clone(n.Attrs), slices.Clone(n.Inputs)
		for i, v := range p.of.node.Inputs {
			p.of.node.Inputs[i] = resolve(original, v)
		}
	}
}

// folded notes that input i of n, which is part of what it was written out from, is the constant c in every run.
func (n *Node) folded(i int, c *Value) {
	if p := n.piece; p != nil && i < len(p.inputs) && p.inputs[i] == n.Inputs[i] && !slices.Contains(p.of.node.Inputs, n.Inputs[i]) {
		p.inputs[i] = c
	}
	n.Inputs[i] = c
}

// cloneParts gives the nodes of a copy what theirs know of those that they were written out from. Values that are in the
// graph no more are gone, but for constants.
func (g *Graph) cloneParts(to map[*Value]*Value) {
	kept := func(vs []*Value) []*Value {
		out := slices.Clone(vs)
		for i, v := range out {
			switch {
			case v == nil:
			case to[v] != nil:
				out[i] = to[v]
			case v.Const != nil:
				c := *v
				out[i], to[v] = &c, &c
			default:
				out[i] = gone
			}
		}
		return out
	}
	copies := map[*written]*written{}
	for _, n := range g.Nodes {
		if n.piece == nil {
			continue
		}
		p := *n.piece
		if copies[p.of] == nil {
			w, m := *p.of, *p.of.node
			m.Inputs, m.Outputs = kept(m.Inputs), kept(m.Outputs)
			w.node, copies[p.of] = &m, &w
		}
		p.of, p.inputs = copies[p.of], kept(p.inputs)
		n.piece = &p
	}
}

// Fuse puts nodes that loading wrote out back in place of what they were written out as, where has says that there is a
// kernel for the node, and returns how many. A node comes back where the nodes that it became are as they were, apart from
// what they read from outside, and where nothing else reads what only they have: so not where a prompt was put inside or
// what the export baked in was mended, nor where a gradient needs what is inside. rounded is whether has is asked for nodes
// that round activations, as integer products do and what they are written out as does not.
func (g *Graph) Fuse(rounded bool, has func(n *Node) bool) int {
	f := survey(g)
	stands := map[*Node]*Node{} // the node that is put back, at the last one that it stands for
	for _, w := range f.order {
		if w.rounds && !rounded {
			continue
		}
		if n := f.whole(w); n != nil && has(n) {
			parts := f.parts[w]
			for _, p := range parts {
				stands[p] = nil
			}
			stands[parts[len(parts)-1]] = n
			f.put(n)
		}
	}
	if len(stands) == 0 {
		return 0
	}
	count, nodes := 0, g.Nodes
	g.Nodes = make([]*Node, 0, len(nodes))
	for _, n := range nodes {
		whole, inside := stands[n]
		switch {
		case !inside:
			g.Nodes = append(g.Nodes, n)
		case whole != nil:
			g.Nodes = append(g.Nodes, whole)
			count++
		}
	}
	return count
}

// fusing is what is known of a graph while nodes are put back into it.
type fusing struct {
	g       *Graph
	at      map[*Node]int   // nodes' places
	bound   map[*Value]bool // outputs, and what graphs within nodes read
	readers map[*Value][]*Node
	order   []*written
	parts   map[*written][]*Node
	names   map[string]*Value
}

func survey(g *Graph) *fusing {
	f := &fusing{g: g, at: map[*Node]int{}, bound: map[*Value]bool{}, readers: map[*Value][]*Node{}, parts: map[*written][]*Node{}, names: map[string]*Value{}}
	for v := range g.values() {
		f.names[v.Name] = v
	}
	for _, v := range g.Outputs {
		f.bound[v] = true
	}
	for i, n := range g.Nodes {
		f.at[n] = i
		for _, v := range n.captured() {
			f.bound[v] = true
		}
		for _, v := range n.Inputs {
			f.readers[v] = append(f.readers[v], n)
		}
		if n.piece != nil {
			w := n.piece.of
			if f.parts[w] == nil {
				f.order = append(f.order, w)
			}
			f.parts[w] = append(f.parts[w], n)
		}
	}
	return f
}

// whole is the node that w remembers as it can stand for its parts; nil where it can't.
func (f *fusing) whole(w *written) *Node {
	parts := f.parts[w]
	if w.node.Domain == "" && f.g.Opset[""] != w.opset || !f.closed(w, parts) {
		return nil
	}
	now, ok := unchanged(w, parts)
	if !ok {
		return nil
	}
	n := *w.node
	n.Inputs, n.Outputs = slices.Clone(n.Inputs), slices.Clone(n.Outputs)
	for i, v := range n.Inputs {
		switch {
		case v == nil:
		case now[v] != nil:
			n.Inputs[i] = now[v]
		case v.Const == nil:
			return nil // none of its parts reads it: there may be more behind it meanwhile
		}
	}
	for i, v := range n.Outputs {
		if v != nil && !slices.ContainsFunc(parts, func(p *Node) bool { return p == v.Def }) {
			n.Outputs[i] = nil // nothing reads it
		}
	}
	if n.Outputs[0] == nil {
		return nil
	}
	return &n
}

// closed says whether the rest of the graph reads nothing of the parts but what the whole has as outputs, and that
// behind the last of them.
func (f *fusing) closed(w *written, parts []*Node) bool {
	last := f.at[parts[len(parts)-1]]
	for _, n := range parts {
		for _, v := range n.Outputs {
			if v == nil {
				continue
			}
			isOutput := slices.Contains(w.node.Outputs, v)
			if f.bound[v] && !isOutput {
				return false
			}
			for _, r := range f.readers[v] {
				if own := r.piece != nil && r.piece.of == w; !own && (!isOutput || f.at[r] < last) {
					return false
				}
			}
		}
	}
	return true
}

// unchanged says whether parts are as they were, and what they read now in place of each value that the whole reads.
func unchanged(w *written, parts []*Node) (now map[*Value]*Value, ok bool) {
	now = map[*Value]*Value{}
	for _, n := range parts {
		p := n.piece
		if n.Op != p.op || len(n.Inputs) != len(p.inputs) || !reflect.DeepEqual(n.Attrs, p.attrs) {
			return nil, false
		}
		for i, was := range p.inputs {
			is := n.Inputs[i]
			fromOutside := was != nil && slices.Contains(w.node.Inputs, was)
			if !fromOutside && is != was || fromOutside && (is == nil || now[was] != nil && now[was] != is) {
				return nil, false
			}
			if fromOutside {
				now[was] = is
			}
		}
	}
	return now, true
}

// put makes n define its outputs, and gives the constants that only it reads names of their own.
func (f *fusing) put(n *Node) {
	for _, v := range n.Outputs {
		if v != nil {
			v.Def = n
		}
	}
	for _, v := range n.Inputs {
		if v == nil || v.Const == nil || f.names[v.Name] == v {
			continue
		}
		if f.names[v.Name] != nil || v.Name == "" {
			v.Name = f.g.freshName("weight")
		}
		f.names[v.Name] = v
	}
	if f.g.Opset[n.Domain] == 0 {
		f.g.Opset[n.Domain] = 1
	}
}
