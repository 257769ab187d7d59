package ort

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/process"
)

// TestWhatFusedNodesAreWorth runs every model of the folder FORETOKEN_FUSED (see bench/reference/fused.py) written out, with each
// operator that the processor has a kernel for put back by itself, and with all. It reports, a row each, the processor's time of a
// forward pass of 4 images on one thread, the least of several that take turns, and the peak memory of a process that makes one.
func TestWhatFusedNodesAreWorth(t *testing.T) {
	if path := os.Getenv("FORETOKEN_FUSED_ONE"); path != "" {
		opened(t, path, os.Getenv("FORETOKEN_FUSED_KERNELS")).run(t)
		peak, err := process.PeakMemory()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("peak %d\n", peak)
		return
	}
	dir := os.Getenv("FORETOKEN_FUSED")
	if dir == "" {
		t.Skip("FORETOKEN_FUSED names no folder of models; make fused does")
	}
	t.Setenv("FORETOKEN_THREADS", "1")
	models, err := filepath.Glob(filepath.Join(dir, "*.onnx"))
	if err != nil || len(models) == 0 {
		t.Fatal("no models", err)
	}
	for _, path := range models {
		var tried []*trial
		for _, choice := range choices(t, path) {
			tried = append(tried, opened(t, path, choice))
		}
		for range 7 {
			for _, s := range tried {
				s.run(t)
			}
		}
		for _, s := range tried {
			t.Logf("| %s | %s | %d | %.0f ms | %d MB |", strings.TrimSuffix(filepath.Base(path), ".onnx"), s.choice, s.back, float64(s.least)/1e6, peakOf(t, path, s.choice)>>20)
			s.session.Close()
		}
	}
}

// choices are the operators to put back, between commas: none, each of those that the model has, all.
func choices(t *testing.T, path string) []string {
	t.Helper()
	found := map[string]bool{}
	load(t, path).Fuse(true, func(n *graph.Node) bool {
		if op := operator(n); kernels[CPU][op] {
			found[op] = true
		}
		return false
	})
	ops := slices.Sorted(maps.Keys(found))
	switch len(ops) {
	case 0:
		return []string{""}
	case 1:
		return []string{"", ops[0]}
	}
	return append(append([]string{""}, ops...), strings.Join(ops, ","))
}

func load(t *testing.T, path string) *graph.Graph {
	t.Helper()
	g, err := graph.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// trial is a model with some operators put back, and the least time that a run took.
type trial struct {
	choice  string
	back    int // nodes
	session *Session
	in      map[string]*graph.Tensor
	least   time.Duration
}

func opened(t *testing.T, path, choice string) *trial {
	t.Helper()
	g := load(t, path)
	back := g.Fuse(true, func(n *graph.Node) bool {
		return choice != "" && slices.Contains(strings.Split(choice, ","), operator(n))
	})
	w, err := NewWeights()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s, err := NewSession(g, Options{Weights: w, WrittenOut: true})
	if err != nil {
		t.Fatal(err)
	}
	pixels := make([]float32, 4*3*224*224)
	for i := range pixels {
		pixels[i] = float32(i%255)/127 - 1
	}
	return &trial{choice: choice, back: back, session: s, in: map[string]*graph.Tensor{g.Inputs[0].Name: graph.NewTensor(pixels, 4, 3, 224, 224)}, least: time.Hour}
}

func (s *trial) run(t *testing.T) {
	t.Helper()
	before := process.Time()
	if _, err := s.session.Run(t.Context(), s.in); err != nil {
		t.Fatal(err)
	}
	s.least = min(s.least, process.Time()-before)
}

// peakOf is the peak memory of a process that makes one run.
func peakOf(t *testing.T, path, choice string) (bytes int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWhatFusedNodesAreWorth$")
	cmd.Env = append(os.Environ(), "FORETOKEN_FUSED_ONE="+path, "FORETOKEN_FUSED_KERNELS="+choice)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", path, err, out)
	}
	if _, err := fmt.Sscanf(string(out), "peak %d", &bytes); err != nil {
		t.Fatalf("%s: %s: %v", path, out, err)
	}
	return bytes
}
