// Package interp evaluates graphs in plain Go: one node after the other, each by its operator's kernel
// ([graph.Evaluate]), and of an If the branch that its condition takes. It is the oracle that rules for
// shapes, gradients and other engines are checked against; it prefers being readable to being fast.
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
		out[name] = a.Tensor()
	}
	return out, nil
}

// RunExact is [Run] without the rounding.
func RunExact(g *graph.Graph, inputs map[string]*graph.Tensor) (out map[string]graph.Array, err error) {
	env := map[*graph.Value]graph.Array{}
	for _, v := range g.Inputs {
		t := inputs[v.Name]
		if t == nil {
			return nil, errs.New(errs.Invalid, "input %q is missing", v.Name)
		}
		if env[v], err = graph.ArrayOf(t); err != nil {
			return nil, fmt.Errorf("input %q: %w", v.Name, err)
		}
	}
	for _, n := range g.Nodes {
		if err := step(n, env); err != nil {
			return nil, fmt.Errorf("node %q (%s): %w", n.Name, n.Op, err)
		}
	}
	out = map[string]graph.Array{}
	for _, v := range g.Outputs {
		a, err := lookup(v, env)
		if err != nil {
			return nil, err
		}
		out[v.Name] = a
	}
	return out, nil
}

func lookup(v *graph.Value, env map[*graph.Value]graph.Array) (graph.Array, error) {
	if a, ok := env[v]; ok {
		return a, nil
	}
	if v.Const == nil {
		return graph.Array{}, errs.New(errs.Invalid, "value %q is read and nothing defines it", v.Name)
	}
	a, err := graph.ArrayOf(v.Const)
	if err != nil {
		return graph.Array{}, fmt.Errorf("constant %q: %w", v.Name, err)
	}
	env[v] = a
	return a, nil
}

// choose evaluates an If by the branch that its condition takes.
func choose(n *graph.Node, env map[*graph.Value]graph.Array) error {
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

// step evaluates one node.
func step(n *graph.Node, env map[*graph.Value]graph.Array) (err error) {
	if n.Op == "If" && n.Domain == "" {
		return choose(n, env)
	}
	in := make([]graph.Array, len(n.Inputs))
	for i, v := range n.Inputs {
		if v == nil {
			continue
		}
		if in[i], err = lookup(v, env); err != nil {
			return err
		}
	}
	out, err := graph.Evaluate(n, in)
	if err != nil {
		return err
	}
	for i, v := range n.Outputs {
		if v != nil {
			env[v] = out[i]
		}
	}
	return nil
}
