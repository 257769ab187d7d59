package ort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/foretoken/foretoken/graph"
)

// saved builds a graph, writes it, and loads it: its weights lie in a file then.
func saved(t testing.TB, f func(b *graph.Builder)) *graph.Graph {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := build(t, f).Save(path, graph.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	g, err := graph.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Infer(); err != nil {
		t.Fatal(err)
	}
	return g
}

// halves is a matrix of half floats.
func halves(b *graph.Builder, rows, columns int64) *graph.Value {
	data := make([]byte, 2*rows*columns)
	for i := range rows * columns {
		data[2*i], data[2*i+1] = byte(i), byte(0x30+i%8|i%2<<7) // 0.1 to 0.5, of either sign
	}
	t, err := graph.NewTensorBytes(graph.Float16, data, rows, columns)
	if err != nil {
		panic(err)
	}
	return b.Const(t)
}

func widened(b *graph.Builder, v *graph.Value) *graph.Value {
	return b.Op("Cast", graph.Attrs{"to": int64(graph.Float)}, v)
}

// TestWhatDependsOnWeightsAloneIsComputedOnce looks at what becomes of graphs, and that they compute the same.
func TestWhatDependsOnWeightsAloneIsComputedOnce(t *testing.T) {
	x := graph.Shape{graph.Sym("n"), graph.Known(256)}
	tests := []struct {
		name string
		f    func(b *graph.Builder)
		want int    // values that are computed
		left string // operators that are left
	}{
		{"a cast", func(b *graph.Builder) {
			b.Output("y", b.MatMul(b.Input("x", graph.Float, x), widened(b, halves(b, 256, 256))))
		}, 1, "MatMul"},
		{"a chain of operators", func(b *graph.Builder) {
			w := widened(b, halves(b, 256, 256))
			b.Output("y", b.MatMul(b.Input("x", graph.Float, x), b.Mul(b.Op("Tanh", nil, w), w)))
		}, 1, "MatMul"},
		{"one value for two readers", func(b *graph.Builder) {
			w, in := widened(b, halves(b, 256, 256)), b.Input("x", graph.Float, x)
			b.Output("y", b.MatMul(b.MatMul(in, w), w))
		}, 1, "MatMul MatMul"},
		{"a matrix that is transposed for a product", func(b *graph.Builder) {
			b.Output("y", b.MatMul(b.Input("x", graph.Float, x), b.SwapLast(widened(b, halves(b, 256, 256)))))
		}, 1, "Transpose MatMul"},
		{"a small weight", func(b *graph.Builder) {
			b.Output("y", b.Add(b.Input("x", graph.Float, x), widened(b, halves(b, 1, 256))))
		}, 0, "Cast Add"},
		{"a weight as it is", func(b *graph.Builder) {
			b.Output("y", b.MatMul(b.Input("x", graph.Float, x), b.Const(floats(256, 256))))
		}, 0, "MatMul"},
		{"an output of the graph", func(b *graph.Builder) {
			w := widened(b, halves(b, 256, 256))
			b.Output("w", w)
			b.Output("y", b.MatMul(b.Input("x", graph.Float, x), w))
		}, 0, "Cast MatMul"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, w := saved(t, tt.f), weights(t)
			settled, err := w.settle(g)
			if err != nil {
				t.Fatal(err)
			}
			var ops []string
			for _, n := range settled.Nodes {
				ops = append(ops, n.Op)
			}
			if len(w.made) != tt.want || strings.Join(ops, " ") != tt.left {
				t.Errorf("%d values were computed, %d should be; left are %v, should be %s", len(w.made), tt.want, ops, tt.left)
			}
			before := len(w.files)
			first, second := outputs(t, g, Options{Weights: w}), outputs(t, g.Clone(), Options{Weights: w})
			if len(w.files) > before+1 { // the model's file
				t.Errorf("something was computed again: %d files became %d", before, len(w.files))
			}
			plain := outputs(t, g, Options{Threads: 1})
			for name := range plain {
				if !slices.Equal(first[name], second[name]) {
					t.Errorf("%s: two sessions differ", name)
				}
				if !slices.Equal(first[name], plain[name]) {
					t.Errorf("%s: it differs from what a session of its own computes", name)
				}
			}
		})
	}
}

// outputs are the elements of all outputs for one input.
func outputs(t *testing.T, g *graph.Graph, o Options) map[string][]float32 {
	t.Helper()
	in := make([]float32, 3*256)
	for i := range in {
		in[i] = float32(i%7) - 3
	}
	out, err := open(t, o, g).Run(context.Background(), map[string]*graph.Tensor{"x": graph.NewTensor(in, 3, 256)})
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]float32{}
	for name, v := range out {
		if values[name], err = graph.Values[float32](v); err != nil {
			t.Fatal(err)
		}
	}
	return values
}

// TestKeysTellValuesApart: equal keys would give one value's elements to another.
func TestKeysTellValuesApart(t *testing.T) {
	seen := map[string]string{}
	g := saved(t, func(b *graph.Builder) {
		in := b.Input("x", graph.Float, graph.Shape{graph.Sym("n"), graph.Known(256)})
		v, w := halves(b, 256, 256), b.Const(floats(256, 256))
		for _, m := range []*graph.Value{
			widened(b, v), b.Op("Tanh", nil, w), b.Op("Sin", nil, w), b.Transpose(w, 1, 0), b.Transpose(w, 0, 1),
			b.Sub(w, widened(b, v)), b.Sub(widened(b, v), w), b.Mul(w, b.Const(floats(1))), b.Mul(w, b.Const(floats(256))),
		} {
			b.Output(fmt.Sprint("y", m.Name), b.MatMul(in, b.Add(m, in)))
		}
	})
	keys := keys{}
	for _, n := range g.Nodes {
		if slices.ContainsFunc(n.Inputs, func(v *graph.Value) bool { return len(v.Shape) > 0 && !v.Shape[0].Is(256) && !v.IsConst() }) {
			continue
		}
		if n.Op == "Cast" {
			continue // there are several of one weight
		}
		key, what := keys.of(n.Outputs[0]), n.Op+" "+n.Outputs[0].Name
		if seen[key] != "" {
			t.Errorf("%s and %s have one key", what, seen[key])
		}
		seen[key] = what
	}
	if len(seen) < 8 {
		t.Errorf("only %d values were looked at", len(seen))
	}
}

// TestScratchFilesGoWithTheirProcess: those in use stay, those of closed weights and of killed processes go.
func TestScratchFilesGoWithTheirProcess(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	files := func() int {
		found, err := filepath.Glob(filepath.Join(os.TempDir(), scratchName+"*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	g := saved(t, func(b *graph.Builder) {
		b.Output("y", b.MatMul(b.Input("x", graph.Float, graph.Shape{graph.Sym("n"), graph.Known(256)}), widened(b, halves(b, 256, 256))))
	})
	abandoned := filepath.Join(os.TempDir(), scratchName+"of-one-that-was-killed")
	if err := os.WriteFile(abandoned, []byte("weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	var both [2]*Weights
	var sessions [2]*Session
	for i := range both {
		w, err := NewWeights()
		if err != nil {
			t.Fatal(err)
		}
		both[i], sessions[i] = w, open(t, Options{Weights: w}, g)
	}
	if n := files(); n != 2 {
		t.Errorf("there are %d files, there should be one for each of two", n)
	}
	if _, err := os.Stat(abandoned); err == nil {
		t.Error("the killed process's file is there")
	}
	for i := range both {
		both[i].Close()
		if err := sessions[i].Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := files(); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

func TestAFullDiskIsAnError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	if err := reserve(full, 3<<20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "room"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 3<<20 + 5
	if err := reserve(f, size); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != size {
		t.Errorf("%v bytes were reserved, not %d: %v", info.Size(), size, err)
	}
}
