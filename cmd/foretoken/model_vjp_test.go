package main

import (
	"bytes"
	"math"
	"path/filepath"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/npz"
)

// command runs a command line in this process and returns what it prints.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, args...)
	if err != nil {
		t.Fatalf("foretoken %q: %v\n%s", args, err, out)
	}
	return out
}

func readNPZ(t *testing.T, path string) map[string]*graph.Tensor {
	t.Helper()
	arrays, err := npz.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return arrays
}

// difference is max|got-want| / max|want|.
func difference(t *testing.T, got, want *graph.Tensor) float64 {
	t.Helper()
	if got == nil || want == nil {
		t.Fatalf("got %v, want %v", got, want)
	}
	g, err1 := graph.Float32s(got)
	w, err2 := graph.Float32s(want)
	if err1 != nil || err2 != nil || len(g) != len(w) {
		t.Fatal(err1, err2, len(g), len(w))
	}
	var worst, largest float64
	for i := range g {
		worst = math.Max(worst, math.Abs(float64(g[i])-float64(w[i])))
		largest = math.Max(largest, math.Abs(float64(w[i])))
	}
	return worst / largest
}

// TestVJPIsPyTorchsGradient computes gradients by inputs on both engines and from the graph that is
// written, and compares them with PyTorch's in the fixtures.
func TestVJPIsPyTorchsGradient(t *testing.T) {
	tests := []struct{ fixture, output, wrt string }{
		{"clip_vision_ts_sdpa_op14", "image_embeds", "pixel_values"},
		{"ext_clip_vision", "image_embeds", "pixel_values"},
		{"sd_unet_ts_op14", "out_sample", "encoder_hidden_states"},
	}
	for _, tt := range tests {
		t.Run(tt.fixture, func(t *testing.T) {
			folder := filepath.Join("..", "..", "graph", "testdata", "fixtures", tt.fixture)
			model, inputs := filepath.Join(folder, "model.onnx"), filepath.Join(folder, "inputs.npz")
			dir := t.TempDir()
			cotangent, emitted := filepath.Join(dir, "cotangent.npz"), filepath.Join(dir, "gradient.onnx")
			weight := readNPZ(t, inputs)["loss_weight"]
			if err := npz.Write(cotangent, map[string]*graph.Tensor{tt.output: weight}); err != nil {
				t.Fatal(err)
			}
			want := readNPZ(t, filepath.Join(folder, "gradients.npz"))["grad_"+tt.wrt]
			common := []string{"model", "vjp", model, "--in", inputs, "--wrt", tt.wrt, "--output", tt.output, "--cotangent", cotangent}
			for _, engine := range [][]string{{"--emit", emitted}, {"--interpreter"}} {
				out := filepath.Join(dir, "grads.npz")
				mustRun(t, append(append(common, "--out", out), engine...)...)
				if d := difference(t, readNPZ(t, out)[tt.wrt], want); d > 1e-4 {
					t.Errorf("with %q: difference %.1e to PyTorch", engine, d)
				}
			}
			again := filepath.Join(dir, "again.npz")
			gradient := "grad_" + tt.wrt
			g, err := graph.Load(emitted)
			if err != nil {
				t.Fatal(err)
			}
			f := &vjpFlags{in: inputs}
			arrays := readNPZ(t, inputs)
			arrays[cotangentName(tt.output)] = weight
			out, err := f.compute(t.Context(), g, arrays)
			if err != nil {
				t.Fatal(err)
			}
			if err := npz.Write(again, out); err != nil {
				t.Fatal(err)
			}
			if d := difference(t, readNPZ(t, again)[gradient], want); d > 1e-4 {
				t.Errorf("the written graph: difference %.1e to PyTorch", d)
			}
		})
	}
}

// TestVJPOfAWeight: the gradient of the sum of y = x W by W has in each row the sum of x's column.
func TestVJPOfAWeight(t *testing.T) {
	dir := t.TempDir()
	g := &graph.Graph{Opset: map[string]int64{"": 18}}
	err := g.Build(func(b *graph.Builder) {
		x := b.Input("x", graph.Float, graph.Shape{graph.Sym("rows"), graph.Known(2)})
		w := b.Const(graph.NewTensor([]float32{1, 2, 3, 4, 5, 6}, 2, 3))
		w.Name = "w"
		b.Output("loss", b.Sum(b.MatMul(x, w), false, 0, 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	model, in, out := filepath.Join(dir, "model.onnx"), filepath.Join(dir, "in.npz"), filepath.Join(dir, "out.npz")
	if err := g.Save(model, graph.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := npz.Write(in, map[string]*graph.Tensor{"x": graph.NewTensor([]float32{1, 10, 2, 20}, 2, 2)}); err != nil {
		t.Fatal(err)
	}
	printed := mustRun(t, "model", "vjp", model, "--in", in, "--wrt", "w,x", "--output", "loss", "--out", out)
	if want := "w:float[2,3]\nx:float[2,2]\n"; printed != want {
		t.Errorf("printed %q, want %q", printed, want)
	}
	got := readNPZ(t, out)
	if d := difference(t, got["w"], graph.NewTensor([]float32{3, 3, 3, 30, 30, 30}, 2, 3)); d > 0 {
		t.Errorf("gradient by w is off by %g", d)
	}
	if d := difference(t, got["x"], graph.NewTensor([]float32{6, 15, 6, 15}, 2, 2)); d > 0 {
		t.Errorf("gradient by x is off by %g", d)
	}
}
