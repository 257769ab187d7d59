package graph

import (
	"fmt"

	"github.com/foretoken/foretoken/internal/errs"
)

// Evaluate computes a node's outputs from its inputs, one array for each of n.Inputs, in double precision. What stands
// for an input that is left out is not looked at. An error does not name the node.
func Evaluate(n *Node, in []Array) (out []Array, err error) {
	kernel := table[key(n)].kernel
	if kernel == nil {
		return nil, errs.New(errs.Unsupported, "the operator has no kernel")
	}
	defer recoverBail(&err)
	out = kernel(&computation{n, in})
	for i, v := range n.Outputs {
		if v != nil && i >= len(out) {
			return nil, errs.New(errs.Invalid, "it has %d outputs, the operator gives %d", len(n.Outputs), len(out))
		}
	}
	return out, nil
}

// computation is what a kernel sees: one node and its operands.
type computation struct {
	n  *Node
	in []Array
}

// unfit is an error about operands that a kernel can't work on.
func unfit(format string, args ...any) bail { return bail{fmt.Errorf(format, args...)} }

// one is what a kernel of a single output gives.
func one(a Array) []Array { return []Array{a} }

// has says whether optional input i is given.
func (c *computation) has(i int) bool { return c.n.Input(i) != nil }

// ints reads input i as integers, def when it is left out.
func (c *computation) ints(i int, def []int) []int {
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
func (c *computation) axis(name string, def int64, rank int) int {
	a := int(c.n.Int(name, def))
	if a < 0 {
		a += rank
	}
	return a
}

// attrInts reads an attribute as ints.
func (c *computation) attrInts(name string) []int {
	var out []int
	for _, v := range c.n.Ints(name) {
		out = append(out, int(v))
	}
	return out
}

// inRange brings axes, which may count from the end, into [0, rank).
func inRange(axes []int, rank int) []int {
	out := make([]int, len(axes))
	for i, a := range axes {
		if out[i] = a; a < 0 {
			out[i] = a + rank
		}
	}
	return out
}
