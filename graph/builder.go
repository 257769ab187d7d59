package graph

import "slices"

// Builder appends nodes at a graph's end and infers their shapes at once. What goes wrong
// inside the function given to [Graph.Build] ends it and is Build's error.
type Builder struct {
	g  *Graph
	in *inference
	// While a graph is decomposed: the nodes that read each value, what was given units by a node, and what codes
	// are made of whose units follow from a run.
	readers   map[*Value][]*Node
	unrounded map[*Node]*Value
	dynamic   map[*Value]*Value
	// Of the node that is written out: what can be put back in its place, nil for nothing, and whether that rounds.
	whole  *Node
	rounds bool
}

// Attrs are a node's attributes by name; see [Attr] for the types.
type Attrs map[string]any

// Build infers g's shapes and calls f to append to it. What was appended ahead of an error is
// taken away again.
func (g *Graph) Build(f func(b *Builder)) (err error) {
	in, err := g.infer()
	if err != nil {
		return err
	}
	nodes, inputs, outputs := len(g.Nodes), len(g.Inputs), len(g.Outputs)
	defer func() {
		if err != nil {
			g.Nodes, g.Inputs, g.Outputs = g.Nodes[:nodes], g.Inputs[:inputs], g.Outputs[:outputs]
		}
	}()
	defer recoverBail(&err)
	f(&Builder{g: g, in: in})
	return nil
}

// Input adds a graph input.
func (b *Builder) Input(name string, t DataType, s Shape) *Value {
	v := &Value{Name: name, Type: t, Shape: s}
	b.g.Inputs = append(b.g.Inputs, v)
	return v
}

// Output makes v a graph output under the given name.
func (b *Builder) Output(name string, v *Value) *Value {
	out := b.Op("Identity", nil, v)
	out.Name = name
	b.g.Outputs = append(b.g.Outputs, out)
	return out
}

// Const makes a constant.
func (b *Builder) Const(t *Tensor) *Value { return b.g.constant("const", t) }

// Scalar makes a scalar constant of the element type of like.
func (b *Builder) Scalar(x float64, like *Value) *Value {
	t := Float
	if like != nil {
		t = like.Type
	}
	return b.Const(scalar(x, t))
}

// Ints makes a 1-D constant of integers.
func (b *Builder) Ints(n ...int64) *Value { return b.Const(NewTensor(n, int64(len(n)))) }

// Op appends a node with one output.
func (b *Builder) Op(op string, attrs Attrs, inputs ...*Value) *Value {
	return b.Ops(op, 1, attrs, inputs...)[0]
}

// Ops appends a node with several outputs.
func (b *Builder) Ops(op string, outputs int, attrs Attrs, inputs ...*Value) []*Value {
	n := newNode(op, nil, inputs)
	for name, v := range attrs {
		n.Attrs[name] = Attr{v}
	}
	for range outputs {
		n.Outputs = append(n.Outputs, &Value{Name: b.g.freshName(op), Def: n})
	}
	b.g.Nodes = append(b.g.Nodes, n)
	b.in.node(n)
	return n.Outputs
}

// Add is x + y with numpy's broadcasting.
func (b *Builder) Add(x, y *Value) *Value { return b.Op("Add", nil, x, y) }

// Sub is x - y with numpy's broadcasting.
func (b *Builder) Sub(x, y *Value) *Value { return b.Op("Sub", nil, x, y) }

// Mul is x * y, element by element, with numpy's broadcasting.
func (b *Builder) Mul(x, y *Value) *Value { return b.Op("Mul", nil, x, y) }

// Div is x / y, element by element, with numpy's broadcasting.
func (b *Builder) Div(x, y *Value) *Value { return b.Op("Div", nil, x, y) }

// MatMul is numpy's matmul.
func (b *Builder) MatMul(x, y *Value) *Value { return b.Op("MatMul", nil, x, y) }

// Sum adds up over the axes and keeps them as extent 1 where keep is set. Over no axes it is x.
func (b *Builder) Sum(x *Value, keep bool, axes ...int64) *Value {
	if len(axes) == 0 {
		return x
	}
	return b.Op("ReduceSum", Attrs{"keepdims": flag(keep)}, x, b.Ints(axes...))
}

// Mean averages over the axes and keeps them as extent 1 where keep is set. Over no axes it is x.
func (b *Builder) Mean(x *Value, keep bool, axes ...int64) *Value {
	if len(axes) == 0 {
		return x
	}
	return b.Op("ReduceMean", Attrs{"keepdims": flag(keep)}, x, b.Ints(axes...))
}

// Transpose permutes the axes.
func (b *Builder) Transpose(x *Value, perm ...int64) *Value {
	return b.Op("Transpose", Attrs{"perm": perm}, x)
}

// Floats is x, half floats as floats: losses are computed in floats.
func (b *Builder) Floats(x *Value) *Value { return b.widened(x) }

// SwapLast swaps the last two axes.
func (b *Builder) SwapLast(x *Value) *Value {
	perm := make([]int64, len(x.Shape))
	for i := range perm {
		perm[i] = int64(i)
	}
	k := len(perm)
	if k < 2 {
		panic(bail{errRank(x)})
	}
	perm[k-1], perm[k-2] = perm[k-2], perm[k-1]
	return b.Transpose(x, perm...)
}

// Reshape gives x the shape s; at most one extent may be unknown, else the target is
// put together when the graph runs, from the shape of like.
func (b *Builder) Reshape(x *Value, s Shape, like *Value) *Value {
	if target, ok := reshapeTarget(s); ok {
		return b.Op("Reshape", nil, x, b.Ints(target...))
	}
	return b.Op("Reshape", nil, x, b.Op("Shape", nil, like))
}

// reshapeTarget writes a shape as Reshape's constant target, where one extent is unknown at most.
func reshapeTarget(s Shape) ([]int64, bool) {
	target := make([]int64, len(s))
	unknown := 0
	for i, d := range s {
		n, ok := d.Int()
		if !ok {
			unknown++
			n = -1
		}
		target[i] = n
	}
	return target, unknown == 0 || unknown == 1 && !slices.Contains(target, 0)
}

// Normalize divides x by its length along the last axis.
func (b *Builder) Normalize(x *Value) *Value {
	return b.Div(x, b.Op("ReduceL2", Attrs{"keepdims": int64(1)}, x, b.Ints(-1)))
}

func flag(on bool) int64 {
	if on {
		return 1
	}
	return 0
}
