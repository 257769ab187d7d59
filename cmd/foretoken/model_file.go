package main

import (
	"strings"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// loadModel reads the one model that path stands for.
func loadModel(path string) (*graph.Graph, error) {
	files, err := bundle.ModelFiles(path)
	if err != nil {
		return nil, err
	}
	if len(files) > 1 {
		return nil, errs.New(errs.Invalid, "%s holds %d models: name one of %s", path, len(files), strings.Join(files, ", "))
	}
	return graph.Load(files[0])
}

// valuesByName finds inputs, constants and values between by their names.
func valuesByName(g *graph.Graph, flag string, names []string) ([]*graph.Value, error) {
	known := map[string]*graph.Value{}
	for v := range g.Constants() {
		known[v.Name] = v
	}
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			if v != nil {
				known[v.Name] = v
			}
		}
	}
	for _, v := range g.Inputs {
		known[v.Name] = v
	}
	out := make([]*graph.Value, len(names))
	for i, name := range names {
		if out[i] = known[name]; out[i] == nil {
			return nil, errs.New(errs.NotFound, "%s %q: the model has no such input, weight or tensor; its inputs are %s", flag, name, valueNames(g.Inputs))
		}
	}
	return out, nil
}

func valueNames(vs []*graph.Value) string {
	names := make([]string, len(vs))
	for i, v := range vs {
		names[i] = v.Name
	}
	return strings.Join(names, ", ")
}

// reduceTo keeps of a graph what leads to the outputs; inputs that do not are dropped.
func reduceTo(g *graph.Graph, outputs []*graph.Value) {
	g.Outputs = outputs
	g.Prune()
	g.PruneInputs()
}
