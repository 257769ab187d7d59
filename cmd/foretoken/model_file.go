package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// modelFiles lists the ONNX files that path stands for: itself, or those of a bundle's folder, in
// it and in its folder "onnx".
func modelFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "model: %w: name an .onnx file or a folder that holds some", err)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	for _, pattern := range []string{"*.onnx", "onnx/*.onnx"} {
		found, err := filepath.Glob(filepath.Join(escapeGlob(path), filepath.FromSlash(pattern)))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, errs.New(errs.NotFound, "model: no .onnx file in %s or in its folder onnx", path)
	}
	slices.Sort(files)
	return files, nil
}

// escapeGlob takes the meaning out of a path's special characters.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// loadModel reads the one model that path stands for.
func loadModel(path string) (*graph.Graph, error) {
	files, err := modelFiles(path)
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
