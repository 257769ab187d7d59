package ort

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/graph"
)

// foldLimit is how many bytes a session may compute ahead of all runs and keep for itself. What is
// larger is computed once for all sessions.
const foldLimit = 64 << 10

// settle returns the graph with what depends on weights alone, such as their casts from half floats, as
// more weights in files: they are computed once for all sessions that share w. A matrix that is
// transposed for a product stays as it is, since the product's kernel reads it either way.
func (w *Weights) settle(g *graph.Graph) (*graph.Graph, error) {
	if len(settled(g)) == 0 {
		return g, nil
	}
	g = g.Clone()
	targets := settled(g)
	sources, err := w.computed(g, targets)
	if err != nil {
		return nil, err
	}
	for i, v := range targets {
		dims, _ := v.Shape.Ints()
		v.Const = &graph.Tensor{Type: v.Type, Dims: dims, Source: sources[i]}
		v.Def.Outputs, v.Def = nil, nil
	}
	g.Prune()
	return g, nil
}

// computed tells where the values' elements lie. What no session has needed before is computed.
func (w *Weights) computed(g *graph.Graph, values []*graph.Value) ([]*graph.Source, error) {
	w.settling.Lock()
	defer w.settling.Unlock()
	keys := keys{}
	var missing []*graph.Value
	for _, v := range values {
		if w.made[keys.of(v)] == nil {
			missing = append(missing, v)
		}
	}
	if err := w.compute(g, missing, keys); err != nil {
		return nil, fmt.Errorf("weights in the form that they are computed with: %w", err)
	}
	sources := make([]*graph.Source, len(values))
	for i, v := range values {
		sources[i] = w.made[keys.of(v)]
	}
	return sources, nil
}

// settled are the values that depend on weights alone, are large, and are read by what depends on
// more. Graphs with graphs in them have none: what those read is not looked for.
func settled(g *graph.Graph) []*graph.Value {
	readers := map[*graph.Value][]*graph.Node{}
	for _, n := range g.Nodes {
		for _, a := range n.Attrs {
			if _, ok := a.Value.(*graph.Graph); ok {
				return nil
			}
		}
		for _, v := range n.Inputs {
			readers[v] = append(readers[v], n)
		}
	}
	frozen := map[*graph.Node]bool{}
	for _, n := range g.Nodes {
		frozen[n] = len(n.Inputs) > 0 && len(n.Outputs) == 1 && !strings.HasPrefix(n.Op, "Random") && !turns(n, readers) &&
			!slices.ContainsFunc(n.Inputs, func(v *graph.Value) bool { return v != nil && !v.IsConst() && !frozen[v.Def] })
	}
	var out []*graph.Value
	for _, n := range g.Nodes {
		if !frozen[n] || slices.Contains(g.Outputs, n.Outputs[0]) || size(n.Outputs[0]) <= foldLimit {
			continue
		}
		if slices.ContainsFunc(readers[n.Outputs[0]], func(r *graph.Node) bool { return !frozen[r] }) {
			out = append(out, n.Outputs[0])
		}
	}
	return out
}

// turns says whether the node transposes a matrix for products alone.
func turns(n *graph.Node, readers map[*graph.Value][]*graph.Node) bool {
	if n.Op != "Transpose" || len(n.Input(0).Shape) != 2 {
		return false
	}
	return !slices.ContainsFunc(readers[n.Outputs[0]], func(r *graph.Node) bool { return r.Op != "MatMul" })
}

// size is a value's bytes, 0 where they are not known.
func size(v *graph.Value) int64 {
	dims, known := v.Shape.Ints()
	if !known {
		return 0
	}
	return graph.Count(dims) * int64(v.Type.Size())
}

// compute runs the part of the graph that values depend on. The results go into a file, as the model's
// own weights are: where kernels have repacked them, they need no memory any more.
func (w *Weights) compute(g *graph.Graph, values []*graph.Value, keys keys) error {
	if len(values) == 0 {
		return nil
	}
	part := *g
	part.Inputs, part.Outputs, part.Nodes = nil, values, slices.Clone(g.Nodes)
	part.Prune()
	s, err := newShared(&part, Options{Weights: w})
	if err != nil {
		return err
	}
	defer s.close()
	total := int64(0)
	for _, v := range values {
		total += aligned(size(v))
	}
	path, memory, err := w.scratch(total)
	if err != nil {
		return err
	}
	var targets []*graph.Tensor
	at := int64(0)
	for _, v := range values {
		dims, _ := v.Shape.Ints()
		t, err := graph.NewTensorBytes(v.Type, memory[at:at+size(v)], dims...)
		if err != nil {
			return err
		}
		targets = append(targets, t)
		at += aligned(size(v))
	}
	if _, err := s.run(context.Background(), nil, targets); err != nil {
		return err
	}
	at = 0
	for _, v := range values {
		w.made[keys.of(v)] = &graph.Source{Path: path, Offset: at, Length: size(v)}
		at += aligned(size(v))
	}
	return nil
}

// aligned rounds up to where any kernel may read elements from.
func aligned(n int64) int64 { return (n + 63) &^ 63 }

// keys tell by what they are computed from whether two values are the same.
type keys map[*graph.Value]string

func (k keys) of(v *graph.Value) string {
	if v == nil {
		return ""
	}
	if k[v] == "" {
		h := sha256.New()
		k.describe(h, v)
		k[v] = fmt.Sprintf("%x", h.Sum(nil))
	}
	return k[v]
}

func (k keys) describe(h io.Writer, v *graph.Value) {
	if v.Def != nil {
		fmt.Fprintln(h, v.Def.Domain, v.Def.Op)
		for _, name := range slices.Sorted(maps.Keys(v.Def.Attrs)) {
			value := v.Def.Attrs[name].Value
			if t, ok := value.(*graph.Tensor); ok {
				k.tensor(h, t)
				continue
			}
			fmt.Fprintf(h, "%s %T %v\n", name, value, value)
		}
		for _, in := range v.Def.Inputs {
			fmt.Fprintln(h, k.of(in))
		}
		return
	}
	k.tensor(h, v.Const)
}

func (k keys) tensor(h io.Writer, t *graph.Tensor) {
	fmt.Fprintln(h, t.Type, t.Dims)
	if !t.InMemory() {
		fmt.Fprintln(h, *t.Source)
		return
	}
	b, _ := t.Bytes() // they are in memory
	h.Write(b)
}
