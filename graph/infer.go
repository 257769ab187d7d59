package graph

import (
	"fmt"
	"slices"
)

// maxContents is how many elements an integer tensor may have for its contents to be
// followed: shapes and indices, never data.
const maxContents = 1024

// maxHeld is how many terms the contents of all tensors together may have; models have a few
// tens of thousands. Beyond, contents are not followed any more.
const maxHeld = 1 << 20

// inference holds what is known about a graph's values beside their types and shapes.
type inference struct {
	g *Graph
	// contents are the elements of small integer and bool tensors, as polynomials in the
	// symbols of the input shapes: the results of shape arithmetic.
	contents map[*Value][]Dim
	// numbers are one-element floats that follow from constants and extents alone.
	numbers map[*Value]float64
	held    int // terms in contents, held against maxHeld
	// followed are the elements that the rules for contents have looked at.
	followed int64
	free     int // counter behind one node's symbols for extents that nothing is known of
}

// Infer sets the type and shape of every value from the inputs' shapes. What a file
// declares for inner values and outputs is not trusted. An operator that the table lacks
// leaves its outputs unknown; that becomes an error only where a pass needs them.
func (g *Graph) Infer() error {
	_, err := g.infer()
	return err
}

func (g *Graph) infer() (in *inference, err error) {
	defer recoverBail(&err)
	in = newInference(g)
	for _, n := range g.Nodes {
		in.node(n)
	}
	return in, nil
}

func newInference(g *Graph) *inference {
	return &inference{g: g, contents: map[*Value][]Dim{}, numbers: map[*Value]float64{}}
}

// node infers one node's outputs.
func (in *inference) node(n *Node) {
	in.free = 0
	for _, v := range n.Outputs {
		if v != nil {
			v.Shape = nil
			in.forget(v)
		}
	}
	if isIf(n) {
		in.choice(n)
		return
	}
	r, ok := table[key(n)]
	if !ok {
		return
	}
	for i, v := range n.Inputs {
		if v != nil && v.Shape == nil && v.Const == nil {
			if i == 0 || r.grad != nil {
				return // an operator without a row lies upstream
			}
		}
	}
	r.shape(&ctx{in: in, n: n})
	in.follow(n)
	in.followContents(n)
}

// choice infers an If: of its outputs, what holds in both branches. A branch may hold nodes that
// don't fit the shapes at hand, as it is not taken then; what follows from them stays unknown.
func (in *inference) choice(n *Node) {
	branches := n.graphs()
	for _, b := range branches {
		for _, m := range b.Nodes {
			in.attempt(m)
		}
	}
	in.free = 0
	for i, v := range n.Outputs {
		if v == nil || len(branches) != 2 || i >= len(branches[0].Outputs) || i >= len(branches[1].Outputs) {
			continue
		}
		a, b := branches[0].Outputs[i], branches[1].Outputs[i]
		if a.Type == b.Type {
			v.Type = a.Type
		}
		if a.Shape != nil && len(a.Shape) == len(b.Shape) {
			v.Shape = slices.Clone(a.Shape)
			for axis, d := range b.Shape {
				if !d.Equal(a.Shape[axis]) {
					v.Shape[axis] = in.symbol(n)
				}
			}
		}
	}
}

func (in *inference) attempt(n *Node) {
	var err error
	defer recoverBail(&err)
	in.node(n)
}

// forget drops what was known of v's elements.
func (in *inference) forget(v *Value) {
	for _, d := range in.contents[v] {
		in.held -= 1 + len(d.terms)
	}
	delete(in.contents, v)
	delete(in.numbers, v)
}

// hold records v's elements.
func (in *inference) hold(v *Value, ds []Dim) {
	size := 0
	for _, d := range ds {
		size += 1 + len(d.terms)
	}
	if len(ds) <= maxContents && in.held+size <= maxHeld {
		in.forget(v)
		in.contents[v] = ds
		in.held += size
	}
}

// symbol returns a dim of which nothing is known.
func (in *inference) symbol(n *Node) Dim {
	in.free++
	named := slices.IndexFunc(n.Outputs, func(v *Value) bool { return v != nil })
	return Sym(fmt.Sprintf("%s#%d", nameOf(n.Output(named)), in.free))
}

// ints returns the contents of a small integer or bool tensor of at most one axis.
func (in *inference) ints(v *Value) ([]Dim, bool) {
	if v == nil || len(v.Shape) > 1 {
		return nil, false
	}
	return in.elements(v)
}

// constContents reads a small constant's elements.
func (in *inference) constContents(v *Value) ([]Dim, bool) {
	var out []Dim
	switch v.Const.Type {
	case Int64:
		out = dims[int64](v.Const)
	case Int32:
		out = dims[int32](v.Const)
	case Bool:
		bs, err := Values[uint8](&Tensor{Type: Uint8, Dims: v.Const.Dims, Source: v.Const.Source, data: v.Const.data})
		if err != nil {
			return nil, false
		}
		for _, b := range bs {
			out = append(out, Known(int64(b)))
		}
	default:
		return nil, false
	}
	if out == nil {
		out = []Dim{}
	}
	in.hold(v, out)
	return out, true
}

func dims[T int64 | int32](t *Tensor) []Dim {
	vs, err := Values[T](t)
	if err != nil {
		return nil
	}
	out := make([]Dim, len(vs))
	for i, v := range vs {
		out[i] = Known(int64(v))
	}
	return out
}

// ctx is what a shape rule sees: one node and what is known of its inputs.
type ctx struct {
	in *inference
	n  *Node
}

func (c *ctx) fail(format string, args ...any) { fail(c.n, format, args...) }

// shape returns the shape of input i.
func (c *ctx) shape(i int) Shape {
	v := c.n.Input(i)
	if v == nil {
		c.fail("input %d is missing", i)
	}
	return v.Shape
}

func (c *ctx) rank(i int) int { return len(c.shape(i)) }

// ints returns the contents of input i where they are known as polynomials.
func (c *ctx) ints(i int) ([]Dim, bool) { return c.in.ints(c.n.Input(i)) }

// known returns the contents of input i where they are plain numbers.
func (c *ctx) known(i int) ([]int64, bool) {
	ds, ok := c.ints(i)
	if !ok {
		return nil, false
	}
	return Shape(ds).ints()
}

// need is known, and an error where the numbers depend on a run.
func (c *ctx) need(i int, what string) []int64 {
	v, ok := c.known(i)
	if !ok {
		c.fail("%s depend on the run", what)
	}
	return v
}

func (s Shape) ints() ([]int64, bool) {
	if len(s) == 0 {
		return []int64{}, true
	}
	return s.Ints()
}

// out sets output i's type and shape.
func (c *ctx) out(i int, t DataType, s Shape) {
	if len(s) > maxRank {
		c.fail("its output has %d axes, at most %d are followed", len(s), maxRank)
	}
	if v := c.n.Output(i); v != nil {
		v.Type, v.Shape = t, s
	}
}

// same gives output 0 the type and shape of input 0.
func (c *ctx) same() { c.out(0, c.n.Inputs[0].Type, c.shape(0)) }

// holds records output 0's contents.
func (c *ctx) holds(ds []Dim) { c.in.hold(c.n.Outputs[0], ds) }

// axis brings an axis into [0, rank).
func (c *ctx) axis(axis int64, rank int) int {
	a := int(axis)
	if a < 0 {
		a += rank
	}
	if a < 0 || a >= rank {
		c.fail("axis %d of a tensor of rank %d", axis, rank)
	}
	return a
}

// axes brings axes into [0, rank).
func (c *ctx) axes(axes []int64, rank int) []int {
	out := make([]int, len(axes))
	for i, a := range axes {
		out[i] = c.axis(a, rank)
	}
	return out
}

// broadcast is numpy's rule. Two extents that may or may not be equal are taken to be.
func (c *ctx) broadcast(shapes ...Shape) Shape {
	var out Shape
	for _, s := range shapes {
		for len(out) < len(s) {
			out = append(Shape{Known(1)}, out...)
		}
		at := len(out) - len(s)
		for i, d := range s {
			have := out[at+i]
			switch {
			case d.Is(1) || d.Equal(have):
			case have.Is(1):
				out[at+i] = d
			default:
				out[at+i] = c.either(have, d, s)
			}
		}
	}
	if out == nil {
		out = Shape{}
	}
	return out
}

// either picks between two unequal extents: a known one before a symbol.
func (c *ctx) either(a, b Dim, s Shape) Dim {
	_, okA := a.Int()
	_, okB := b.Int()
	if okA && okB && !a.Equal(b) {
		c.fail("extents %s and %s do not go together (operand %s)", a, b, s)
	}
	if okB {
		return b
	}
	return a
}
