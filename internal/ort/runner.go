package ort

import (
	"context"

	"github.com/foretoken/foretoken/graph"
)

// Runner runs one graph after another, as [graph.TextTower.Verify] wants. The session of a graph is
// kept for as long as that graph is run again. Close frees the last one.
type Runner struct {
	Options Options
	graph   *graph.Graph
	session *Session
}

// Run is a [graph.Runner]. Inputs that the graph doesn't have are left out.
func (r *Runner) Run(g *graph.Graph, in map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
	if r.session == nil || r.graph != g {
		r.Close()
		s, err := NewSession(g, r.Options)
		if err != nil {
			return nil, err
		}
		r.graph, r.session = g, s
	}
	given := map[string]*graph.Tensor{}
	for _, v := range g.Inputs {
		given[v.Name] = in[v.Name]
	}
	return r.session.Run(context.Background(), given)
}

// Close frees the session that is held.
func (r *Runner) Close() {
	if r.session != nil {
		r.session.Close()
	}
	r.graph, r.session = nil, nil
}
