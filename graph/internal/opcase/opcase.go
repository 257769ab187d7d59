// Package opcase lists small graphs of one operator each, with operands to run them on. The
// checks of gradients against numerical differences and of the interpreter against other
// engines go over the same list. Adding an operator to package graph is adding a row to its
// table and a case here; the checks fail for a row without one.
package opcase

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/foretoken/foretoken/graph"
)

// Case is one use of an operator.
type Case struct {
	Op    string // "Op" or "domain.Op"
	Name  string // what is particular about this use
	Attrs graph.Attrs
	In    []Operand
	Out   int   // number of outputs; 0 is 1
	Opset int64 // 0 is 20
	// Refused is part of the error that asking for a gradient gives; "" where there is one.
	Refused string
	// Lacking says what of it ONNX Runtime has no kernel for; "" where it runs it.
	Lacking string
	// Instead makes the same of the operands with operators that ONNX Runtime has; nil where ONNX's node
	// tests stand in for what it lacks.
	Instead func(c *Chain, x []*graph.Value) *graph.Value
	// Chain makes the output out of the operands where one node does not: quantised operators take
	// and give what others have quantised. nil is a node of Op with the operands as they are.
	Chain func(c *Chain, x []*graph.Value) *graph.Value
	// Rounding is how far ONNX Runtime, which rounds what is quantised, may be from the loaded graph, which
	// does not: a part of the largest element. 0 where nothing is rounded.
	Rounding float64
}

// kind says what an operand holds.
type kind int

const (
	absent kind = iota // an optional input that is left out
	floats
	integers
	booleans
)

// Operand is one input of the operator.
type Operand struct {
	kind    kind
	dims    []int64
	free    []string // per axis, the symbol under which the graph knows it; "" where it is fixed
	fill    func(r *rand.Rand, n int) []float64
	ints    []int64
	typ     graph.DataType // of integers
	isConst bool
	wrt     bool
	single  bool // of type float whatever the case is built with
}

// F is a float input of the given extents that gradients are wanted for, with values from a
// normal distribution. Extents are written "b=2 3 4": the graph knows b by name only.
func F(extents string) Operand {
	o := Operand{kind: floats, wrt: true, fill: normal}
	for _, e := range strings.Fields(extents) {
		name, size, ok := strings.Cut(e, "=")
		if !ok {
			name, size = "", e
		}
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			panic(err)
		}
		o.dims, o.free = append(o.dims, n), append(o.free, name)
	}
	return o
}

// Positive is F with values from 0.5 to 2.
func Positive(extents string) Operand {
	o := F(extents)
	o.fill = func(r *rand.Rand, n int) []float64 { return draw(n, func() float64 { return 0.5 + 1.5*r.Float64() }) }
	return o
}

// Small is F with values of deviation 0.3, for products that a softmax is sharp on.
func Small(extents string) Operand {
	o := F(extents)
	o.fill = func(r *rand.Rand, n int) []float64 { return draw(n, func() float64 { return 0.3 * r.NormFloat64() }) }
	return o
}

// Apart is F with values of both signs that all lie 0.1 or more from each other, 0.02 or more
// from zero and, between operands of different lane (0 to 2), 0.03 apart: nothing lies near a kink.
func Apart(extents string, lane int) Operand {
	o := F(extents)
	o.fill = func(r *rand.Rand, n int) []float64 {
		i := -1
		values := draw(n, func() float64 { i++; return float64(i-n/2)*0.1 + 0.02 + 0.03*float64(lane) })
		r.Shuffle(n, func(i, j int) { values[i], values[j] = values[j], values[i] })
		return values
	}
	return o
}

// Values is F with the given values.
func Values(extents string, values ...float64) Operand {
	o := F(extents)
	o.fill = func(*rand.Rand, int) []float64 { return values }
	return o
}

// I is a constant of integers of the given extents, which may be "" for a scalar.
func I(extents string, values ...int64) Operand {
	o := F(extents)
	o.kind, o.typ, o.ints, o.wrt, o.isConst = integers, graph.Int64, values, false, true
	return o
}

// B is a bool input of the given extents with random values.
func B(extents string) Operand {
	o := F(extents)
	o.kind, o.wrt = booleans, false
	return o
}

// None is an optional input that is left out.
func None() Operand { return Operand{} }

// Held is the operand as an input that no gradient is wanted for.
func (o Operand) Held() Operand { o.wrt = false; return o }

// Const is the operand as a constant of the graph.
func (o Operand) Const() Operand { o.wrt, o.isConst = false, true; return o }

// Single is a constant of type float whatever the case is built with, as Resize's scales are.
func (o Operand) Single() Operand { o = o.Const(); o.single = true; return o }

// Fed is a constant as an input that the run decides.
func (o Operand) Fed() Operand { o.isConst = false; return o }

// Int32 makes integers 32 bits wide.
func (o Operand) Int32() Operand { o.typ = graph.Int32; return o }

// Bytes makes integers as wide as the given type, of 4 to 16 bits.
func (o Operand) Bytes(t graph.DataType) Operand { o.typ = t; return o }

func normal(r *rand.Rand, n int) []float64 { return draw(n, r.NormFloat64) }

func draw(n int, f func() float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = f()
	}
	return out
}

// String names the case for a test.
func (c Case) String() string { return c.Op + ": " + c.Name }

// Graph makes the case's graph, with floats of type Float or Double, and the inputs to run it
// on: "x0", "x1".. by the operand's place. Outputs are "y0", "y1"... Values are the same in
// both types: they are rounded to float32.
func (c Case) Graph(t graph.DataType, r *rand.Rand) (*graph.Graph, map[string]*graph.Tensor, error) {
	g := &graph.Graph{Opset: map[string]int64{"": 20}}
	if c.Opset != 0 {
		g.Opset[""] = c.Opset
	}
	in, x := map[string]*graph.Tensor{}, make([]*graph.Value, len(c.In))
	for i, o := range c.In {
		x[i] = o.value(g, i, t, r, in)
	}
	chain := &Chain{g: g, t: t}
	if c.Chain != nil {
		g.Outputs = []*graph.Value{c.Chain(chain, x)}
	} else {
		g.Outputs = chain.Node(c.Op, max(1, c.Out), c.Attrs, x...)
	}
	for i, y := range g.Outputs {
		y.Name, y.Type = "y"+strconv.Itoa(i), t
	}
	if g.Opset[""] < 18 {
		return g, in, nil // shapes are inferred in the present forms, after loading
	}
	return g, in, g.Infer()
}

// Grown is the case with every extent that the graph knows by name only larger by one, and the
// extents before and after. It is false where there is none, or where operands are written out.
func (c Case) Grown() (grown Case, before, after map[string]int64, ok bool) {
	grown, before, after = c, map[string]int64{}, map[string]int64{}
	grown.In = append([]Operand(nil), c.In...)
	for i, o := range c.In {
		if o.isConst {
			continue
		}
		o.dims = append([]int64(nil), o.dims...)
		for axis, name := range o.free {
			if name != "" {
				before[name], after[name] = o.dims[axis], o.dims[axis]+1
				o.dims[axis]++
			}
		}
		grown.In[i] = o
		if n := int(graph.Count(o.dims)); o.kind == integers && len(o.ints) != n || o.fill != nil && o.kind != integers && len(o.fill(rand.New(rand.NewPCG(1, 1)), n)) != n {
			return c, nil, nil, false
		}
	}
	return grown, before, after, len(before) > 0
}

// Wrt names the inputs that gradients are wanted for.
func (c Case) Wrt() []string {
	var names []string
	for i, o := range c.In {
		if o.wrt {
			names = append(names, "x"+strconv.Itoa(i))
		}
	}
	return names
}

func (o Operand) value(g *graph.Graph, i int, t graph.DataType, r *rand.Rand, in map[string]*graph.Tensor) *graph.Value {
	if o.kind == absent {
		return nil
	}
	x := o.tensor(t, r)
	v := &graph.Value{Name: fmt.Sprintf("x%d", i), Type: x.Type, Shape: graph.Shape{}}
	for j, d := range o.dims {
		if o.free[j] != "" && !o.isConst {
			v.Shape = append(v.Shape, graph.Sym(o.free[j]))
		} else {
			v.Shape = append(v.Shape, graph.Known(d))
		}
	}
	if o.isConst {
		v.Const = x
		return v
	}
	in[v.Name] = x
	g.Inputs = append(g.Inputs, v)
	return v
}

func (o Operand) tensor(t graph.DataType, r *rand.Rand) *graph.Tensor {
	n := int(graph.Count(o.dims))
	switch {
	case o.kind == booleans:
		bits := make([]bool, n)
		for i, x := range o.fill(r, n) {
			bits[i] = x > 0
		}
		return graph.NewTensor(bits, o.dims...)
	case o.kind == integers && o.typ == graph.Int32:
		return graph.NewTensor(convert[int32](o.ints), o.dims...)
	case o.kind == integers && o.typ == graph.Uint8:
		return graph.NewTensor(convert[uint8](o.ints), o.dims...)
	case o.kind == integers && o.typ == graph.Int8:
		return graph.NewTensor(convert[int8](o.ints), o.dims...)
	case o.kind == integers && o.typ == graph.Int16:
		return graph.NewTensor(convert[int16](o.ints), o.dims...)
	case o.kind == integers && (o.typ == graph.Uint4 || o.typ == graph.Int4):
		return graph.NewCodes(o.typ, convert[int16](o.ints), o.dims...)
	case o.kind == integers:
		return graph.NewTensor(o.ints, o.dims...)
	}
	single := convert[float32](o.fill(r, n))
	if t == graph.Double && !o.single {
		return graph.NewTensor(convert[float64](single), o.dims...)
	}
	return graph.NewTensor(single, o.dims...)
}

func convert[To, From int8 | uint8 | int16 | int32 | int64 | float32 | float64](values []From) []To {
	out := make([]To, len(values))
	for i, v := range values {
		out[i] = To(v)
	}
	return out
}
