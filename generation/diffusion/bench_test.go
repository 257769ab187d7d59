package diffusion

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/npz"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/process"
)

// TestDenoisingSteps is one of the rivals of bench/reference/denoise.py: the network sees two rows for
// each line of standard input. Without FORETOKEN_BENCH_DENOISE there is nothing to do.
func TestDenoisingSteps(t *testing.T) {
	dir := os.Getenv("FORETOKEN_BENCH_DENOISE")
	if dir == "" {
		t.Skip("run by `make bench`")
	}
	weights, err := ort.NewWeights()
	if err != nil {
		t.Fatal(err)
	}
	p := &Pipeline{Bundle: &bundle.Bundle{Name: "denoise", Dir: dir}, options: ort.Options{Weights: weights, Deterministic: true}}
	net, err := p.openUNet()
	if err != nil {
		t.Fatal(err)
	}
	defer net.close()
	given, err := npz.Read(filepath.Join(dir, "inputs.npz"))
	if err != nil {
		t.Fatal(err)
	}
	half := func(name string) [][]float32 {
		values, err := graph.Float32s(given[name])
		if err != nil {
			t.Fatal(err)
		}
		return [][]float32{values[:len(values)/2], values[len(values)/2:]}
	}
	sample, texts, side := half("sample"), half("text"), int(given["sample"].Dims[2])
	rows := []*condition{{tokens: texts[0], length: int(given["text"].Dims[1])}, {tokens: texts[1]}}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		start := time.Now()
		out, err := net.run(t.Context(), sample, 500, rows, 4, side, side)
		if err != nil {
			t.Fatal(err)
		}
		seconds := time.Since(start).Seconds()
		err = npz.Write(filepath.Join(dir, "output-foretoken.npz"), map[string]*graph.Tensor{"output": graph.NewTensor(slices.Concat(out...), given["sample"].Dims...)})
		if err != nil {
			t.Fatal(err)
		}
		peak, err := process.PeakMemory()
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(map[string]any{"seconds": seconds, "peak": peak})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(string(line))
	}
}
