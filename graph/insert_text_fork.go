package graph

import "slices"

// afterEnd are the nodes that tokens pass behind the last block.
func (c *contextInsertion) afterEnd() map[*Node]bool {
	on, after := map[*Value]bool{c.to[c.tower.end]: true}, map[*Node]bool{}
	for _, n := range c.g.Nodes {
		if c.carries(n) && slices.ContainsFunc(n.Inputs, func(v *Value) bool { return on[v] }) {
			after[n] = true
			for _, v := range n.Outputs {
				on[v] = v != nil
			}
		}
	}
	return after
}

// carries says whether the node computes something from the tokens, or the tokens themselves.
func (c *contextInsertion) carries(n *Node) bool {
	return slices.ContainsFunc(n.Outputs, func(v *Value) bool { return c.carried[v] })
}

// carried are the values that are computed from v, itself included. What only looks at its
// shape is not.
func carried(g *Graph, v *Value) map[*Value]bool {
	on := map[*Value]bool{v: true}
	for _, n := range g.Nodes {
		if n.Op != "Shape" && n.Op != "Size" && slices.ContainsFunc(n.reads(), func(x *Value) bool { return on[x] }) {
			for _, out := range n.Outputs {
				on[out] = out != nil
			}
		}
	}
	return on
}

// inputs are the graph's inputs that hold a number for each token.
func (c *contextInsertion) inputs() []*Value {
	var out []*Value
	for _, v := range []*Value{c.tower.IDs, c.tower.Mask, c.tower.Segments, c.tower.Positions} {
		if v != nil {
			out = append(out, c.to[v])
		}
	}
	return out
}

// fork gives the nodes that tokens pass, of those that readers selects, other inputs [B,S] to
// depend on: what change makes of each. All that is computed from the inputs for them, such as
// masks and positions, is computed a second time.
func (c *contextInsertion) fork(change func(*Value) *Value, readers func(*Node) bool) error {
	if err := c.readSizesOffInputs(); err != nil {
		return err
	}
	f := &forking{contextInsertion: c, made: map[*Value]*Value{}, depends: map[*Value]bool{}}
	for _, v := range c.inputs() {
		for x := range reached(c.g, v) {
			f.depends[x] = true
		}
	}
	for _, v := range c.inputs() {
		f.made[v] = c.ahead(func() *Value { return change(v) })
		f.made[v].Type = v.Type
	}
	for i, n := range c.g.Nodes {
		if i >= c.front && c.carries(n) && readers(n) {
			for j, v := range n.Inputs {
				if c.carried[v] {
					continue
				}
				var err error
				if n.Inputs[j], err = f.again(v); err != nil {
					return err
				}
			}
		}
		f.nodes = append(f.nodes, n)
	}
	c.g.Nodes = f.nodes
	return nil
}

type forking struct {
	*contextInsertion
	depends map[*Value]bool   // values that depend on an input [B,S]
	made    map[*Value]*Value // what stands for a value
	nodes   []*Node           // the graph's as they will be, so far
}

// again computes v from the other inputs.
func (f *forking) again(v *Value) (*Value, error) {
	switch {
	case v == nil || !f.depends[v]:
		return v, nil
	case f.made[v] != nil:
		return f.made[v], nil
	case f.carried[v] || v.Def == nil || len(v.Def.captured()) > 0:
		return nil, unpromptable("node %q depends on the number of tokens through %q, which can't be followed", nodeName(v.Def), v.Name)
	}
	m := *v.Def
	m.Name = ""
	m.Inputs, m.Outputs = slices.Clone(v.Def.Inputs), nil
	for i, x := range m.Inputs {
		var err error
		if m.Inputs[i], err = f.again(x); err != nil {
			return nil, err
		}
	}
	for _, y := range v.Def.Outputs {
		if y == nil {
			m.Outputs = append(m.Outputs, nil)
			continue
		}
		f.made[y] = &Value{Name: f.g.freshName(m.Op), Type: y.Type, Shape: y.Shape, Def: &m}
		m.Outputs = append(m.Outputs, f.made[y])
	}
	f.nodes = append(f.nodes, &m)
	return f.made[v], nil
}

func nodeName(n *Node) string {
	if n == nil {
		return ""
	}
	return n.Name
}

// readSizesOffInputs makes what asks tokens for their shape ask the inputs, so that nothing
// but the tokens' own path depends on where the asking stands.
func (c *contextInsertion) readSizesOffInputs() error {
	in, err := c.g.infer()
	if err != nil {
		return err
	}
	from := map[string]place{}
	for _, v := range c.inputs() {
		for axis, d := range v.Shape {
			if _, known := from[d.String()]; !known && symbolic(d) {
				from[d.String()] = place{v, axis}
			}
		}
	}
	for _, n := range slices.Clone(c.g.Nodes) {
		if n.Op != "Shape" || !c.carried[n.Inputs[0]] || c.lookups[n] {
			continue
		}
		ds, ok := in.ints(n.Outputs[0])
		if !ok {
			continue
		}
		c.at = slices.Index(c.g.Nodes, n)
		if sizes := c.sizes(ds, from); sizes != nil {
			c.g.replaceUses(n.Outputs[0], sizes, c.at)
		}
	}
	return nil
}

// sizes computes extents from inputs' shapes, nil where one has a symbol that from lacks.
func (s *surgery) sizes(ds []Dim, from map[string]place) *Value {
	var parts []*Value
	for _, d := range ds {
		p := s.size(d, from)
		if p == nil {
			return nil
		}
		parts = append(parts, p)
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return s.op("Concat", map[string]Attr{"axis": {int64(0)}}, parts...)
}

// size computes one extent: [1].
func (s *surgery) size(d Dim, from map[string]place) *Value {
	if n, ok := d.Int(); ok {
		return s.ints(n)
	}
	var sum *Value
	for _, t := range d.terms {
		product := s.ints(t.coef)
		for _, symbol := range t.syms {
			p, ok := from[symbol]
			if !ok {
				return nil
			}
			extent := s.op("Shape", map[string]Attr{"start": {int64(p.axis)}, "end": {int64(p.axis) + 1}}, p.v)
			if product.Const != nil && t.coef == 1 {
				product = extent
			} else {
				product = s.op("Mul", nil, product, extent)
			}
		}
		if sum == nil {
			sum = product
		} else {
			sum = s.op("Add", nil, sum, product)
		}
	}
	return sum
}
