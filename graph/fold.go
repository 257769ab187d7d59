package graph

import "fmt"

// Fold infers shapes and turns shape arithmetic into constants: integer values whose
// contents are known become constants, and Reshape targets with one extent that a run
// decides become constant targets. Nodes that nothing reads any more are dropped.
func (g *Graph) Fold() error {
	in, err := g.infer(nil)
	if err != nil {
		return err
	}
	for _, n := range g.Nodes {
		for i, v := range n.Inputs {
			if c := in.constant(v); c != nil {
				n.Inputs[i] = c
			}
		}
		if n.Op == "Reshape" && n.Inputs[1].Const == nil {
			in.foldTarget(n)
		}
	}
	g.Prune()
	_, err = g.infer(nil)
	return err
}

// constant returns a constant for an integer value of known contents, nil for others.
func (in *inference) constant(v *Value) *Value {
	if v == nil || v.Const != nil || v.Type != Int64 || len(v.Shape) > 1 {
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
	return in.g.constant("folded", NewTensor(n, dims...))
}

func (in *inference) foldTarget(n *Node) {
	ds, ok := in.ints(n.Inputs[1])
	if !ok || n.Outputs[0].Shape == nil || n.Inputs[0].Shape == nil || n.Int("allowzero", 0) != 0 || len(ds) != len(n.Outputs[0].Shape) {
		return
	}
	if target, ok := targetFor(n.Inputs[0].Shape, n.Outputs[0].Shape); ok {
		n.Inputs[1] = in.g.constant("target", NewTensor(target, int64(len(target))))
	}
}

// startAt cuts the graph at v: a new input of the given name takes its place. What else
// the rest of the graph read from the old inputs' shapes is read from the new one's.
func (s *surgery) startAt(v *Value, name string) error {
	g := s.g
	in, err := g.infer(nil)
	if err != nil {
		return err
	}
	input := &Value{Name: name, Type: v.Type, Shape: v.Shape}
	cut := g.position(v) + 1
	g.replaceUses(v, input, cut)
	s.at, s.like = cut, input
	for _, n := range g.Nodes[cut:] {
		for i, x := range n.Inputs {
			if x != nil && x.Const == nil && x.Def != nil && g.position(x) < cut {
				if n.Inputs[i], err = s.recompute(in, x, input); err != nil {
					return fmt.Errorf("node %q (%s): %w", n.Name, n.Op, err)
				}
			}
		}
	}
	g.Prune()
	g.PruneInputs()
	g.Inputs = append([]*Value{input}, g.Inputs...)
	return nil
}

// recompute rebuilds the value x, which lies before the cut, from the new input's shape: by
// its contents where they are known, else by repeating its node on recomputed inputs.
func (s *surgery) recompute(in *inference, x, input *Value) (*Value, error) {
	if x == nil || x.Const != nil {
		return x, nil
	}
	if ds, ok := in.ints(x); ok {
		return s.assemble(ds, len(x.Shape), input)
	}
	if x.Def == nil {
		return nil, fmt.Errorf("it needs %q itself, not only the tokens", x.Name)
	}
	args := make([]*Value, len(x.Def.Inputs))
	for i, a := range x.Def.Inputs {
		var err error
		if args[i], err = s.recompute(in, a, input); err != nil {
			return nil, err
		}
	}
	out := s.op(x.Def.Op, x.Def.Attrs, args...)
	out.Type, out.Shape = x.Type, x.Shape
	return out, nil
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
