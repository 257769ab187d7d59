package graph

import (
	"maps"
	"slices"
)

// Widen makes the graph compute in floats where it computes in elements of type t, Float16 or BFloat16: for
// devices that have no kernels for them. Weights stay as they are in their file; each is cast once, which a
// runtime does when it loads the graph. Inputs and outputs of type t become floats as well.
func (g *Graph) Widen(t DataType) error {
	w := &widening{g: g, from: t, made: map[*Value]*Value{}}
	if err := w.graph(g); err != nil {
		return err
	}
	g.Nodes = append(w.casts, g.Nodes...)
	return g.Infer()
}

type widening struct {
	g     *Graph // the outermost
	from  DataType
	casts []*Node
	made  map[*Value]*Value // what a constant is read as
}

func (w *widening) graph(g *Graph) error {
	for _, v := range g.Inputs {
		w.retype(v)
	}
	for _, n := range g.Nodes {
		for i, v := range n.Inputs {
			n.Inputs[i] = w.read(v)
		}
		for _, v := range n.Outputs {
			w.retype(v)
		}
		if err := w.attributes(n); err != nil {
			return err
		}
	}
	for i, v := range g.Outputs {
		g.Outputs[i] = w.read(v)
	}
	return nil
}

func (w *widening) retype(v *Value) {
	if v != nil && v.Type == w.from {
		v.Type = Float
	}
}

// read is v, or a constant's cast.
func (w *widening) read(v *Value) *Value {
	if v == nil || v.Const == nil || v.Type != w.from {
		return v
	}
	if w.made[v] == nil {
		n := newNode("Cast", map[string]Attr{"to": {int64(Float)}}, []*Value{v})
		out := &Value{Name: w.g.freshName("wide"), Type: Float, Shape: v.Shape, Def: n}
		n.Outputs = []*Value{out}
		w.casts, w.made[v] = append(w.casts, n), out
	}
	return w.made[v]
}

// typeAttrs name attributes that hold an element type.
var typeAttrs = []string{"to", "dtype", "softmax_precision"}

func (w *widening) attributes(n *Node) error {
	n.Attrs = maps.Clone(n.Attrs)
	for _, name := range typeAttrs {
		if DataType(n.Int(name, 0)) == w.from {
			n.Attrs[name] = Attr{int64(Float)}
		}
	}
	for name, a := range n.Attrs {
		switch v := a.Value.(type) {
		case *Graph:
			if err := w.graph(v); err != nil {
				return err
			}
		case *Tensor:
			if v.Type != w.from {
				continue
			}
			wide, err := Float32s(v)
			if err != nil {
				return err
			}
			n.Attrs[name] = Attr{NewTensor(wide, v.Dims...)}
		}
	}
	return nil
}

// ResidentBytes is how much memory the graph's weights take when they are loaded, those of the given types
// widened to floats as [Graph.Widen] does.
func (g *Graph) ResidentBytes(widened ...DataType) int64 {
	total := int64(0)
	for v := range g.Constants() {
		stored := v.Type
		if slices.Contains(widened, stored) {
			stored = Float
		}
		total += stored.Bytes(v.Const.Len())
	}
	return total
}
