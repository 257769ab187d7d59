package interp_test

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
)

// skipped are node tests that the interpreter does not pass, each with the reason.
var skipped = map[string]string{
	"_qk_matmul":                             "scores as an output are not decomposed; such a node can only be run",
	"_nonpad":                                "lengths of keys are not decomposed; such a node can only be run",
	"mask4d_padded_kv":                       "lengths of keys are not decomposed; such a node can only be run",
	"_local_window":                          "attention windows are not decomposed; such a node can only be run",
	"_bidirectional_window":                  "attention windows are not decomposed; such a node can only be run",
	"4d_causal_with_past":                    "a past and causality are not decomposed; such a node can only be run",
	"nan_robustness":                         "rows that may look at nothing average over all instead of giving zeros",
	"2d_ceil_last_window_starts_on_pad":      "the expected averages are written with four digits",
	"training_mode":                          "batch statistics are a training matter",
	"einsum_batch_diagonal":                  "ellipses in equations are refused",
	"maxpool_with_argmax":                    "the places of maxima are not interpreted",
	"antialias":                              "antialiased resizing is not interpreted",
	"downsample_scales_cubic_align_corners":  "the reference divides by a fractional length, ONNX Runtime by the output's",
	"downsample_scales_linear_align_corners": "the reference divides by a fractional length, ONNX Runtime by the output's",
	"tf_crop_and_resize":                     "cropping by a region is not interpreted",
}

// TestONNXNodeTests runs ONNX's own node tests of the operators that package graph knows, after
// the loader has brought them to canonical form. error = |x-x'| <= 1e-5 + 1e-4 |x'| per element,
// as ONNX's runner has it (1e-7 and 1e-3) but stricter for values that are not near zero.
func TestONNXNodeTests(t *testing.T) {
	archive, err := zip.OpenReader(filepath.Join("..", "testdata", "onnx_node", "node.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	ran := 0
	for _, f := range archive.File {
		name, file := path.Split(f.Name)
		if file != "model.onnx" {
			continue
		}
		ran++
		name = strings.TrimSuffix(name, "/")
		t.Run(name, func(t *testing.T) {
			if why := reason(name); why != "" {
				t.Skip(why)
			}
			if err := runNode(read(t, archive, name+"/model.onnx"), read(t, archive, name+"/data.onnx")); err != nil {
				t.Error(err)
			}
		})
	}
	if ran < 700 {
		t.Errorf("%d tests in the archive", ran)
	}
}

func reason(name string) string {
	for part, why := range skipped {
		if strings.Contains(name, part) {
			return why
		}
	}
	return ""
}

func read(t *testing.T, archive *zip.ReadCloser, name string) []byte {
	t.Helper()
	i := slices.IndexFunc(archive.File, func(f *zip.File) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("no %s in the archive", name)
	}
	r, err := archive.File[i].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func runNode(model, data []byte) error {
	g, err := graph.Parse(model, "")
	if err != nil {
		return err
	}
	constants, err := graph.Parse(data, "")
	if err != nil {
		return err
	}
	in, want := map[string]*graph.Tensor{}, map[string]*graph.Tensor{}
	for _, v := range constants.Outputs {
		if name, ok := strings.CutPrefix(v.Name, "in."); ok {
			in[name] = v.Const
		} else {
			want[strings.TrimPrefix(v.Name, "out.")] = v.Const
		}
	}
	fix(g, in)
	if err := g.Infer(); err != nil {
		return err
	}
	got, err := interp.Run(g, in)
	if err != nil {
		return err
	}
	for name, w := range want {
		if err := same(got[name], w, g.Output(name).Shape); err != nil {
			return fmt.Errorf("output %s: %w", name, err)
		}
	}
	return nil
}

// fix makes the axes, sizes and the like that a test feeds constants, as they are in exported graphs.
func fix(g *graph.Graph, in map[string]*graph.Tensor) {
	for i, v := range slices.Backward(g.Inputs) {
		if i > 0 && v.Type == graph.Int64 && len(v.Shape) <= 1 {
			v.Const = in[v.Name]
			g.Inputs = slices.Delete(g.Inputs, i, i+1)
		}
	}
}

// same compares an output with what is expected, and its shape with the one inferred.
func same(got, want *graph.Tensor, inferred graph.Shape) error {
	if got == nil {
		return errors.New("it is missing")
	}
	if got.Type != want.Type || !slices.Equal(got.Dims, want.Dims) {
		return fmt.Errorf("it is %s%v, want %s%v", got.Type, got.Dims, want.Type, want.Dims)
	}
	for i, d := range inferred {
		if n, known := d.Int(); known && (i >= len(want.Dims) || n != want.Dims[i]) {
			return fmt.Errorf("its shape was inferred as %s, it is %v", inferred, want.Dims)
		}
	}
	if inferred != nil && len(inferred) != len(want.Dims) {
		return fmt.Errorf("its shape was inferred as %s, it is %v", inferred, want.Dims)
	}
	g, err1 := interp.FromTensor(got)
	w, err2 := interp.FromTensor(want)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for i, y := range w.Data {
		x := g.Data[i]
		if x == y || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		if !(math.Abs(x-y) <= 1e-5+1e-4*math.Abs(y)) {
			return fmt.Errorf("element %d is %g, want %g", i, x, y)
		}
	}
	return nil
}
