package opcase

import (
	"slices"
	"strconv"
	"strings"

	"github.com/foretoken/foretoken/graph"
)

// Chain appends nodes to a case's graph.
type Chain struct {
	g    *graph.Graph
	t    graph.DataType // of its floats
	made int            // values named so far
}

// Node appends a node of the operator, "Op" or "domain.Op".
func (c *Chain) Node(op string, outputs int, a graph.Attrs, inputs ...*graph.Value) []*graph.Value {
	n := &graph.Node{Op: op, Name: "node of " + op, Inputs: inputs, Attrs: map[string]graph.Attr{}}
	if at := strings.LastIndexByte(op, '.'); at >= 0 {
		n.Domain, n.Op = op[:at], op[at+1:]
		c.g.Opset[n.Domain] = 1
	}
	for name, v := range a {
		n.Attrs[name] = graph.Attr{Value: v}
	}
	for range outputs {
		n.Outputs = append(n.Outputs, &graph.Value{Name: c.name(), Def: n})
	}
	c.g.Nodes = append(c.g.Nodes, n)
	return slices.Clone(n.Outputs)
}

// Op appends a node with one output.
func (c *Chain) Op(op string, a graph.Attrs, inputs ...*graph.Value) *graph.Value {
	return c.Node(op, 1, a, inputs...)[0]
}

// Const makes a constant of an operand that has its values.
func (c *Chain) Const(o Operand) *graph.Value {
	x := o.tensor(c.t, nil)
	v := &graph.Value{Name: c.name(), Type: x.Type, Shape: graph.Shape{}, Const: x}
	for _, d := range x.Dims {
		v.Shape = append(v.Shape, graph.Known(d))
	}
	return v
}

func (c *Chain) name() string {
	c.made++
	return "v" + strconv.Itoa(c.made)
}
