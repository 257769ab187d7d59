package graph

import (
	"fmt"
	"math"
	"slices"
)

// maxFolds is how often branches are looked for again after some were put in place of their If:
// a condition may depend on a shape that only follows once operators in a branch are written out.
const maxFolds = 16

// Fold infers shapes and turns shape arithmetic into constants: integer values whose
// contents are known become constants, and Reshape targets with one extent that a run
// decides become constant targets. An If whose condition is the same in every run is replaced
// by its branch; other control flow stays. Nodes that nothing reads any more are dropped.
func (g *Graph) Fold() (err error) {
	defer recoverBail(&err)
	for i := 0; i < maxFolds && g.foldBranches(); i++ {
		g.dropIdentities()
		if err := decompose(g); err != nil {
			return err
		}
	}
	in, err := g.infer()
	if err != nil {
		return err
	}
	for _, n := range g.Nodes {
		in.foldOperands(n)
		if n.Op == "Reshape" && n.Inputs[1].Const == nil {
			in.foldTarget(n)
		}
	}
	g.Prune()
	_, err = g.infer()
	return err
}

// foldOperands makes what the node reads constant where it is known, also what graphs within it read.
func (in *inference) foldOperands(n *Node) {
	for i, v := range n.Inputs {
		if c := in.constant(v); c != nil {
			n.folded(i, c)
		}
	}
	for _, sub := range n.graphs() {
		for _, m := range sub.Nodes {
			in.foldOperands(m)
		}
	}
}

// constant returns a constant for an integer or bool of known contents, nil for others. Of bools only
// single ones, which are conditions: several are masks.
func (in *inference) constant(v *Value) *Value {
	if v == nil || v.Const != nil || len(v.Shape) > 1 {
		return nil
	}
	ds, ok := in.ints(v)
	if !ok {
		return nil
	}
	n, ok := Shape(ds).ints()
	if !ok || len(v.Shape) == 0 && len(n) != 1 {
		return nil
	}
	dims := []int64{}
	if len(v.Shape) == 1 {
		dims = []int64{int64(len(n))}
	}
	switch {
	case v.Type == Int64 || v.Type == Int32:
		return in.g.integers("folded", v.Type, n, dims...)
	case v.Type == Bool && len(n) == 1:
		return in.g.constant("folded", NewTensor([]bool{n[0] != 0}, dims...))
	}
	return nil
}

// integers is a constant of one of the integer types that a graph counts in: what the narrow one can't hold is its
// largest or smallest number.
func (g *Graph) integers(name string, t DataType, n []int64, dims ...int64) *Value {
	if t != Int32 {
		return g.constant(name, NewTensor(n, dims...))
	}
	small := make([]int32, len(n))
	for i, x := range n {
		small[i] = int32(min(max(x, math.MinInt32), math.MaxInt32))
	}
	return g.constant(name, NewTensor(small, dims...))
}

func (in *inference) foldTarget(n *Node) {
	ds, ok := in.ints(n.Inputs[1])
	if !ok || n.Outputs[0].Shape == nil || n.Inputs[0].Shape == nil || n.Int("allowzero", 0) != 0 || len(ds) != len(n.Outputs[0].Shape) {
		return
	}
	if target, ok := targetFor(n.Inputs[0].Shape, n.Outputs[0].Shape); ok {
		n.folded(1, in.g.constant("target", NewTensor(target, int64(len(target)))))
	}
}

// startAt cuts the graph at v: a new input of the given name takes its place. What else
// the rest of the graph read off the input from, above all its batch size, is read off the
// new one.
func (s *surgery) startAt(v, from *Value, name string) error {
	g := s.g
	in, err := g.infer()
	if err != nil {
		return err
	}
	g.freeName(name)
	input := &Value{Name: name, Type: Float, Shape: v.Shape}
	s.at, s.like = g.position(v)+1, input
	tokens := s.cast(input, v.Type)
	g.replaceUses(v, tokens, s.at)
	c := &cutting{surgery: s, in: in, lost: reached(g, from), made: map[*Value]*Value{}}
	kept := reached(g, input)
	for _, n := range slices.Clone(g.Nodes) {
		if !slices.ContainsFunc(n.Inputs, func(x *Value) bool { return kept[x] }) {
			continue
		}
		s.at = slices.Index(g.Nodes, n)
		for i, x := range n.Inputs {
			if kept[x] {
				continue
			}
			if n.Inputs[i], err = c.recompute(x); err != nil {
				return unpromptable("node %q (%s): %w", n.Name, n.Op, err)
			}
		}
	}
	g.Prune()
	g.PruneInputs()
	g.Inputs = append([]*Value{input}, g.Inputs...)
	return nil
}

// reached are the values that depend on v in any way, its shape included.
func reached(g *Graph, v *Value) map[*Value]bool {
	on := map[*Value]bool{v: true}
	for _, n := range g.Nodes {
		if slices.ContainsFunc(n.reads(), func(x *Value) bool { return on[x] }) {
			for _, out := range n.Outputs {
				on[out] = out != nil
			}
		}
	}
	return on
}

// cutting rebuilds what was computed from an input that is no more.
type cutting struct {
	*surgery
	in   *inference
	lost map[*Value]bool // values that depend on the old input
	made map[*Value]*Value
}

// recompute rebuilds the value x from the new input's shape: by its contents where they are
// known, else by repeating its node on recomputed inputs.
func (c *cutting) recompute(x *Value) (*Value, error) {
	if !c.lost[x] {
		return x, nil
	}
	if y := c.made[x]; y != nil {
		return y, nil
	}
	if ds, ok := c.in.ints(x); ok {
		y, err := c.assemble(ds, len(x.Shape), c.like)
		c.made[x] = y
		return y, err
	}
	if x.Def == nil {
		return nil, fmt.Errorf("it needs %q itself, not only the tokens", x.Name)
	}
	args := make([]*Value, len(x.Def.Inputs))
	for i, a := range x.Def.Inputs {
		var err error
		if args[i], err = c.recompute(a); err != nil {
			return nil, err
		}
	}
	if len(x.Def.Outputs) != 1 {
		return nil, fmt.Errorf("it needs %q of %s, not only the tokens", x.Name, x.Def.Op)
	}
	y := c.op(x.Def.Op, x.Def.Attrs, args...)
	y.Def.Domain, y.Type, y.Shape = x.Def.Domain, x.Type, x.Shape
	c.made[x] = y
	return y, nil
}

// assemble computes an integer tensor of the given contents, which may speak of the batch.
func (s *surgery) assemble(ds []Dim, rank int, input *Value) (*Value, error) {
	batch := input.Shape[0]
	var parts []*Value
	for _, d := range ds {
		n, ok := d.Int()
		if ok {
			parts = append(parts, s.ints(n))
			continue
		}
		factor, exact := d.exact(batch)
		k, isInt := factor.Int()
		if !exact || !isInt {
			return nil, fmt.Errorf("extent %s does not follow from the tokens' shape %s", d, input.Shape)
		}
		rows := s.op("Shape", map[string]Attr{"start": {int64(0)}, "end": {int64(1)}}, input)
		if k != 1 {
			rows = s.op("Mul", nil, rows, s.ints(k))
		}
		parts = append(parts, rows)
	}
	if rank == 0 {
		return s.op("Squeeze", nil, parts[0], s.ints(0)), nil
	}
	return s.op("Concat", map[string]Attr{"axis": {int64(0)}}, parts...), nil
}
