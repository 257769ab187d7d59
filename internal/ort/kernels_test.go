package ort

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/foretoken/foretoken/graph"
)

// TestWhatFusedNodesAreWorth runs every model of the folder FORETOKEN_FUSED (see bench/reference/fused.py) written out, with each
// operator that the processor has a kernel for put back by itself, and with all. It reports the processor's time of a forward pass
// of 4 images, the least of five, and the process's peak memory, as a row each.
func TestWhatFusedNodesAreWorth(t *testing.T) {
	if of := os.Getenv("FORETOKEN_FUSED_ONE"); of != "" {
		measureOne(t, of, os.Getenv("FORETOKEN_FUSED_KERNELS"))
		return
	}
	dir := os.Getenv("FORETOKEN_FUSED")
	if dir == "" {
		t.Skip("FORETOKEN_FUSED names no folder of models; make fused does")
	}
	models, err := filepath.Glob(filepath.Join(dir, "*.onnx"))
	if err != nil || len(models) == 0 {
		t.Fatal("no models", err)
	}
	for _, path := range models {
		g, err := graph.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		g.Fuse(true, func(n *graph.Node) bool {
			if op := operator(n); kernels[CPU][op] {
				found[op] = true
			}
			return false
		})
		ops := slices.Sorted(maps.Keys(found))
		choices := []string{""}
		if len(ops) > 1 {
			choices = append(choices, ops...)
		}
		if len(ops) > 0 {
			choices = append(choices, strings.Join(ops, ","))
		}
		for _, choice := range choices {
			m := inAnotherProcess(t, path, choice)
			fmt.Printf("| %s | %s | %d | %.0f ms | %d MB |\n", strings.TrimSuffix(filepath.Base(path), ".onnx"), choice, m.Fused, m.Milliseconds, m.Peak>>20)
		}
	}
}

type measurement struct {
	Fused        int
	Milliseconds float64
	Peak         int64
}

func inAnotherProcess(t *testing.T, path, choice string) (m measurement) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWhatFusedNodesAreWorth$")
	cmd.Env = append(os.Environ(), "FORETOKEN_FUSED_ONE="+path, "FORETOKEN_FUSED_KERNELS="+choice, "FORETOKEN_THREADS=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", path, err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatalf("%s: %s: %v", path, out, err)
	}
	return m
}

func measureOne(t *testing.T, path, choice string) {
	kernels[CPU] = operators(strings.Split(choice, ","))
	g, err := graph.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWeights()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s, err := NewSession(g, Options{Weights: w, Rounding: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pixels := make([]float32, 4*3*224*224)
	for i := range pixels {
		pixels[i] = float32(i%255)/127 - 1
	}
	in := map[string]*graph.Tensor{g.Inputs[0].Name: graph.NewTensor(pixels, 4, 3, 224, 224)}
	m := measurement{Fused: s.Fused(), Milliseconds: 1e9}
	for range 6 {
		before := processorTime(t)
		if _, err := s.Run(context.Background(), in); err != nil {
			t.Fatal(err)
		}
		m.Milliseconds = min(m.Milliseconds, float64(processorTime(t)-before)/1e6)
	}
	m.Peak = peak(t)
	if err := json.NewEncoder(os.Stdout).Encode(m); err != nil {
		t.Fatal(err)
	}
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is the most memory that the process has had.
func peak(t *testing.T) int64 {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Maxrss << 10
}
