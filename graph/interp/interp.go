// Package interp evaluates graphs in plain Go, one operator after the other, in the order
// and with the words of the ONNX specification. It is the oracle that the gradient
// rows and other engines are checked against; it prefers being readable to being fast.
package interp

import (
	"fmt"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Run computes the graph's outputs from its inputs. Floats of every type are computed in
// double precision; outputs are rounded to their type, half floats to float32.
func Run(g *graph.Graph, inputs map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
	exact, err := RunExact(g, inputs)
	if err != nil {
		return nil, err
	}
	out := map[string]*graph.Tensor{}
	for name, a := range exact {
		out[name] = a.tensor()
	}
	return out, nil
}

// RunExact is [Run] without the rounding.
func RunExact(g *graph.Graph, inputs map[string]*graph.Tensor) (out map[string]Array, err error) {
	env := map[*graph.Value]Array{}
	for _, v := range g.Inputs {
		t := inputs[v.Name]
		if t == nil {
			return nil, errs.New(errs.Invalid, "input %q is missing", v.Name)
		}
		if env[v], err = FromTensor(t); err != nil {
			return nil, fmt.Errorf("input %q: %w", v.Name, err)
		}
	}
	for _, n := range g.Nodes {
		if err := step(n, env); err != nil {
			return nil, fmt.Errorf("node %q (%s): %w", n.Name, n.Op, err)
		}
	}
	out = map[string]Array{}
	for _, v := range g.Outputs {
		a, err := lookup(v, env)
		if err != nil {
			return nil, err
		}
		out[v.Name] = a
	}
	return out, nil
}

func lookup(v *graph.Value, env map[*graph.Value]Array) (Array, error) {
	if a, ok := env[v]; ok {
		return a, nil
	}
	a, err := FromTensor(v.Const)
	if err != nil {
		return Array{}, fmt.Errorf("constant %q: %w", v.Name, err)
	}
	env[v] = a
	return a, nil
}

// choose evaluates an If by the branch that its condition takes.
func choose(n *graph.Node, env map[*graph.Value]Array) error {
	condition, err := lookup(n.Inputs[0], env)
	if err != nil {
		return err
	}
	name := "else_branch"
	if condition.Data[0] != 0 {
		name = "then_branch"
	}
	branch, ok := n.Attrs[name].Value.(*graph.Graph)
	if !ok {
		return errs.New(errs.Invalid, "it has no %s", name)
	}
	for _, m := range branch.Nodes {
		if err := step(m, env); err != nil {
			return fmt.Errorf("node %q (%s): %w", m.Name, m.Op, err)
		}
	}
	for i, v := range n.Outputs {
		if v == nil {
			continue
		}
		if env[v], err = lookup(branch.Outputs[i], env); err != nil {
			return err
		}
	}
	return nil
}

// step evaluates one node. Kernels signal a bad operand by panicking with a string.
func step(n *graph.Node, env map[*graph.Value]Array) (err error) {
	if n.Op == "If" && n.Domain == "" {
		return choose(n, env)
	}
	kernel := kernels[n.Op]
	if of := graph.Pointwise(n.Op); of != nil {
		kernel = unary(of)
	}
	if kernel == nil || n.Domain != "" {
		return errs.New(errs.Unsupported, "the interpreter has no kernel for it")
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	c := &call{n: n, in: make([]Array, len(n.Inputs))}
	for i, v := range n.Inputs {
		if v == nil {
			continue
		}
		if c.in[i], err = lookup(v, env); err != nil {
			return err
		}
	}
	results := kernel(c)
	for i, v := range n.Outputs {
		if v != nil {
			env[v] = results[i]
		}
	}
	return nil
}

// call is one evaluation of a node.
type call struct {
	n  *graph.Node
	in []Array
}

// has says whether optional input i is given.
func (c *call) has(i int) bool { return c.n.Input(i) != nil }

// ints reads input i as integers, def when it is left out.
func (c *call) ints(i int, def []int) []int {
	if !c.has(i) {
		return def
	}
	out := make([]int, len(c.in[i].Data))
	for j, x := range c.in[i].Data {
		out[j] = int(max(-1<<62, min(1<<62, x))) // "to the end" is written as the largest integer
	}
	return out
}

// axis brings an attribute into [0, rank).
func (c *call) axis(name string, def int64, rank int) int {
	a := int(c.n.Int(name, def))
	if a < 0 {
		a += rank
	}
	return a
}

// attrInts reads an attribute as ints.
func (c *call) attrInts(name string) []int {
	var out []int
	for _, v := range c.n.Ints(name) {
		out = append(out, int(v))
	}
	return out
}
