package graph

import "slices"

// Cost is what a run of a graph takes, by its shapes.
type Cost struct {
	// Products is how many multiplications and additions there are in matrix products and convolutions.
	Products int64
	// Moved is how many bytes the other nodes read and write, products aside.
	Moved int64
	// Nodes is how many nodes do something when the graph runs: not those that see constants alone, nor those
	// that only give a tensor another shape.
	Nodes int
	// Constants is the bytes of the graph's constants, save for Tables, those that rows are looked up in, which can
	// stay in their file.
	Constants, Tables int64
	// Kept is the bytes of what nodes read of constants other than tables, and of what is computed of constants
	// alone, as weights that a gradient needs transposed: a runtime computes it once and keeps it.
	Kept int64
	// Peak is the most bytes that values take at once, outputs among them and inputs not, where nodes run in
	// their order and memory is given back behind the last node that reads it.
	Peak int64
}

// Cost adds up what a run takes. Every extent has to be known; a value of which one is not is an error that
// names it, of kind [errs.Unsupported].
func (g *Graph) Cost() (cost Cost, err error) {
	defer recoverBail(&err)
	c := &costing{g: g, still: map[*Value]bool{}, owner: map[*Value]*Value{}, kept: map[*Value]bool{}}
	tables := g.tables()
	for v := range g.Constants() {
		c.still[v] = true
		size := v.Const.Len() * int64(v.Type.Size())
		if c.kept[v] = tables[v]; tables[v] {
			c.Tables += size
		} else {
			c.Constants += size
		}
	}
	for _, n := range g.Nodes {
		c.add(n)
	}
	c.Peak = c.peak()
	return c.Cost, nil
}

type costing struct {
	Cost
	g     *Graph
	still map[*Value]bool   // constants, and what is computed of them alone
	kept  map[*Value]bool   // those of them that are counted, or are tables
	nodes []*Node           // those that see other values
	owner map[*Value]*Value // the value in whose memory another lies
}

// views give a tensor another shape and leave it where it lies.
var views = set("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")

func (c *costing) add(n *Node) {
	moves := func(v *Value) bool { return v != nil && !c.still[v] }
	if reads := n.reads(); len(reads) > 0 && !slices.ContainsFunc(reads, moves) {
		for _, v := range n.Outputs {
			c.still[v] = true
		}
		return
	}
	c.nodes = append(c.nodes, n)
	c.keep(n)
	if views[n.Op] {
		c.owner[n.Outputs[0]] = c.home(n.Inputs[0])
		return
	}
	c.Nodes++
	if products := products(n); products > 0 {
		c.Products += 2 * products
		return
	}
	c.move(n)
}

// move counts what a node reads and writes: of a table, only the rows.
func (c *costing) move(n *Node) {
	for i, v := range n.Inputs {
		if v != nil && !(n.Op == "Gather" && i == 0) {
			c.Moved += bytesOf(n, v)
		}
	}
	for _, v := range n.Outputs {
		if v != nil {
			c.Moved += bytesOf(n, v)
		}
	}
}

// keep counts what a node reads that is the same in every run.
func (c *costing) keep(n *Node) {
	for _, v := range n.reads() {
		if v != nil && c.still[v] && !c.kept[v] {
			c.kept[v] = true
			c.Kept += bytesOf(n, v)
		}
	}
}

// tables are the constants that nothing is done with but to look up rows.
func (g *Graph) tables() map[*Value]bool {
	looked, read := map[*Value]bool{}, map[*Value]bool{}
	for _, n := range g.Nodes {
		for i, v := range n.reads() {
			if n.Op == "Gather" && i == 0 {
				looked[v] = true
			} else {
				read[v] = true
			}
		}
	}
	for v := range looked {
		looked[v] = v.IsConst() && !read[v]
	}
	return looked
}

// home is the value in whose memory v lies.
func (c *costing) home(v *Value) *Value {
	if o := c.owner[v]; o != nil {
		return o
	}
	return v
}

// peak follows the nodes with the bytes that are taken.
func (c *costing) peak() int64 {
	last := map[*Value]int{}
	for i, n := range c.nodes {
		for _, v := range n.reads() {
			last[c.home(v)] = i
		}
	}
	for _, v := range c.g.Outputs {
		last[c.home(v)] = len(c.nodes)
	}
	live, most := int64(0), int64(0)
	taken := map[*Value]int64{}
	for i, n := range c.nodes {
		for _, v := range n.Outputs {
			if v != nil && c.home(v) == v {
				taken[v] = bytesOf(n, v)
				live += taken[v]
			}
		}
		most = max(most, live)
		for _, v := range slices.Concat(n.reads(), n.Outputs) {
			if home := c.home(v); last[home] <= i {
				live -= taken[home]
				delete(taken, home)
			}
		}
	}
	return most
}

// products is how many products of two numbers a node adds up; 0 for others.
func products(n *Node) int64 {
	switch n.Op {
	case "MatMul":
		x := n.Inputs[0].Shape
		return count(n, n.Outputs[0].Shape...) * count(n, x[len(x)-1])
	case "Gemm":
		return count(n, n.Outputs[0].Shape...) * count(n, n.Inputs[0].Shape[1-n.Int("transA", 0)])
	case "Conv": // each output adds up a kernel
		return count(n, n.Outputs[0].Shape...) * count(n, n.Inputs[1].Shape[1:]...)
	case "ConvTranspose": // each input is spread by a kernel
		return count(n, n.Inputs[0].Shape...) * count(n, n.Inputs[1].Shape[1:]...)
	case "Einsum":
		operands, _ := equation(n)
		if len(operands) < 2 {
			return 0
		}
		extents := map[byte]Dim{}
		for i, labels := range operands {
			for j := range labels {
				if d := n.Inputs[i].Shape[j]; !d.Is(1) {
					extents[labels[j]] = d
				}
			}
		}
		total := int64(1)
		for _, d := range extents {
			total *= count(n, d)
		}
		return total
	}
	return 0
}

func bytesOf(n *Node, v *Value) int64 {
	if v.Const != nil {
		return v.Const.Len() * int64(v.Type.Size())
	}
	if v.Shape == nil {
		fail(n, "the shape of %q is not known", v.Name)
	}
	return count(n, v.Shape...) * int64(v.Type.Size())
}

// count multiplies extents.
func count(n *Node, s ...Dim) int64 {
	total := int64(1)
	for _, d := range s {
		size, known := d.Int()
		if !known {
			fail(n, "extent %s depends on the run", d)
		}
		total *= size
	}
	return total
}
