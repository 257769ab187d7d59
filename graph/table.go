package graph

import (
	"fmt"
	"runtime"

	"github.com/foretoken/foretoken/internal/errs"
)

// row is what the package knows of one operator: how its outputs' types, shapes and, for
// shape arithmetic, contents follow from its inputs; how gradients pass it; and what it computes.
type row struct {
	// shape sets the outputs' types and shapes.
	shape func(c *ctx)
	// grad adds the gradient of each input, given the gradients of the outputs.
	// nil where none passes: comparisons, indices, shapes.
	grad func(b *backward, n *Node)
	// kernel computes a node's outputs from arrays, in plain Go. It is written from ONNX's text alone: what the other rules
	// give is checked against it, so it takes neither extents nor anything else from them.
	kernel func(c *computation) []Array
}

// table has a row for each operator, under "Op" or "domain.Op". The families are in the
// files ops_*.go.
var table = map[string]row{}

func register(rows map[string]row) bool {
	for op, r := range rows {
		if _, twice := table[op]; twice {
			panic("graph: operator " + op + " has two rows")
		}
		table[op] = r
	}
	return true
}

// flat has the operators whose derivative is zero wherever there is one, as they round or look at nothing but a shape: no
// path of gradients leads through them, so they are no reason to refuse a graph.
var flat = map[string]bool{}

// registerFlat is register for flat operators.
func registerFlat(rows map[string]row) bool {
	for op := range rows {
		flat[op] = true
	}
	return register(rows)
}

func key(n *Node) string {
	if n.Domain == "" {
		return n.Op
	}
	return n.Domain + "." + n.Op
}

// Operators lists the operators that have a row, those with a gradient marked true.
func Operators() map[string]bool {
	out := map[string]bool{}
	for op, r := range table {
		out[op] = r.grad != nil
	}
	return out
}

// bail carries an error through a panic to the package's door; see [recoverBail].
type bail struct{ err error }

// fail stops the present pass with an error that names the node.
func fail(n *Node, format string, args ...any) {
	panic(bail{errs.New(errs.Unsupported, "node %q (%s): %w", n.Name, key(n), fmt.Errorf(format, args...))})
}

// recoverBail turns a bail into err, and an index out of range as well: a file may hold a
// node with fewer operands than its operator has. Other panics go on.
func recoverBail(err *error) {
	switch p := recover().(type) {
	case nil:
	case bail:
		*err = p.err
	case runtime.Error:
		*err = errs.New(errs.Invalid, "the graph is malformed: %w", p)
	default:
		panic(p)
	}
}
