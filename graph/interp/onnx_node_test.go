package interp_test

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
)

// refused are node tests that no frozen encoder holds, with part of the error that loading them gives.
var refused = map[string]string{"training_dropout": "it drops at random"}

// differing are node tests whose reference is not what ONNX Runtime computes, which the interpreter follows (see the
// cases of Resize in opcase).
var differing = map[string]string{
	"test_resize_downsample_scales_cubic_align_corners":  "the reference divides by a fractional length, ONNX Runtime by the output's",
	"test_resize_downsample_scales_linear_align_corners": "the reference divides by a fractional length, ONNX Runtime by the output's",
}

// fourDigits are tests whose expected outputs are written with four digits.
var fourDigits = map[string]bool{"test_averagepool_2d_ceil_last_window_starts_on_pad": true}

// withoutFloats are rows whose operator takes no floats, or whose node tests have none.
var withoutFloats = map[string]string{
	"And": "bools", "Or": "bools", "Xor": "bools", "Not": "bools",
	"NonZero": "its node test is on bools", "Equal": "its node tests are on integers", "Trilu": "so are its", // package fixtures runs them on floats
}

// TestONNXNodeTests runs ONNX's own node tests of the operators that package graph knows, after
// the loader has brought them to canonical form: those in testdata, or in the archive that FORETOKEN_NODE_TESTS names.
// error = |x-x'| <= 1e-5 + 1e-4 |x'| per element, as ONNX's runner has it (1e-7 and 1e-3) but stricter for values
// that are not near zero. Every row of the table passes at least one on floats. None is skipped; what the archive
// leaves out has operands of a type that the interpreter lacks. Those in others/ are run once their operator has a row.
func TestONNXNodeTests(t *testing.T) {
	from := os.Getenv("FORETOKEN_NODE_TESTS")
	if from == "" {
		from = filepath.Join("..", "testdata", "onnx_node", "node.zip")
	}
	archive, err := zip.OpenReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	passed, ran, waiting := map[string]bool{}, 0, 0
	for _, f := range archive.File {
		name, file := path.Split(f.Name)
		if file != "model.onnx" {
			continue
		}
		name = strings.TrimSuffix(name, "/")
		model := read(t, archive, f.Name)
		if strings.HasPrefix(name, "others/") && !hasRows(model) {
			waiting++
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			op, err := runNode(name, model, read(t, archive, name+"/data.onnx"))
			switch why := refusal(name); {
			case differing[name] != "" && err == nil:
				t.Error("it agrees with the reference: strike it from the list of those that differ")
			case differing[name] != "":
				t.Logf("%s: %v", differing[name], err)
			case why != "" && (err == nil || !strings.Contains(err.Error(), why)):
				t.Errorf("got %v, which should say %q", err, why)
			case why == "" && err != nil:
				t.Error(err)
			case err == nil:
				passed[op] = true
			}
		})
	}
	t.Logf("%d tests ran, %d wait for a row; left out of the archive for the type of an operand:\n%s", ran, waiting, read(t, archive, "left_out.txt"))
	if ran < 1000 {
		t.Errorf("%d tests in the archive", ran)
	}
	for op := range graph.Operators() {
		if !passed[op] && withoutFloats[op] == "" {
			t.Errorf("operator %s passes no node test on floats", op)
		}
	}
}

// hasRows says whether the table has a row for every node of the model, once it is loaded.
func hasRows(model []byte) bool {
	rows := graph.Operators()
	g, err := graph.Parse(model, "")
	return err == nil && !slices.ContainsFunc(g.Nodes, func(n *graph.Node) bool {
		_, has := rows[n.Op]
		return !has || n.Domain != ""
	})
}

// refusal is part of the error that loading the test gives; "" where it loads.
func refusal(name string) string {
	for part, why := range refused {
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

// runNode returns the operator of the test's graph, if that is one of the table's and takes or gives floats.
func runNode(name string, model, data []byte) (string, error) {
	g, err := graph.Parse(model, "")
	if err != nil {
		return "", err
	}
	constants, err := graph.Parse(data, "")
	if err != nil {
		return "", err
	}
	in, want := map[string]*graph.Tensor{}, map[string]*graph.Tensor{}
	floats := false
	for _, v := range constants.Outputs {
		floats = floats || v.Type.IsFloat()
		if name, ok := strings.CutPrefix(v.Name, "in."); ok {
			in[name] = v.Const
		} else {
			want[strings.TrimPrefix(v.Name, "out.")] = v.Const
		}
	}
	fix(g, in)
	if err := g.Infer(); err != nil {
		return "", err
	}
	got, err := interp.Run(g, in)
	if err != nil {
		return "", err
	}
	for output, w := range want {
		x := got[output]
		if x != nil && x.Type.IsFloat() && !w.Type.IsFloat() {
			if w, err = unrounded(x, w); err != nil { // what quantised operators are written out as
				return "", fmt.Errorf("output %s: %w", output, err)
			}
		}
		if err := same(x, w, g.Output(output).Shape, precision(name, w.Type)); err != nil {
			return "", fmt.Errorf("output %s: %w", output, err)
		}
	}
	if !floats || len(g.Nodes) != 1 {
		return "", nil
	}
	return g.Nodes[0].Op, nil
}

// unrounded is x where w is x rounded, and held to what w's type can hold; else it is w in floats.
func unrounded(x, w *graph.Tensor) (*graph.Tensor, error) {
	a, err1 := graph.ArrayOf(x)
	b, err2 := graph.ArrayOf(w)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	limits := map[graph.DataType][2]float64{graph.Uint8: {0, 255}, graph.Int8: {-128, 127}, graph.Int32: {math.MinInt32, math.MaxInt32}}[w.Type]
	out := make([]float32, len(b.Data))
	for i, y := range b.Data {
		out[i] = float32(y)
		if i < len(a.Data) && math.Abs(max(limits[0], min(limits[1], a.Data[i]))-y) <= 0.5+1e-4 {
			out[i] = float32(a.Data[i])
		}
	}
	return graph.NewTensor(out, w.Dims...), nil
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

// precision is the relative error of an expected output's elements.
func precision(name string, t graph.DataType) float64 {
	switch {
	case t == graph.Float16:
		return 2e-3
	case t == graph.BFloat16:
		return 1e-2
	case fourDigits[name]:
		return 1e-3
	}
	return 1e-4
}

// same compares an output with what is expected, and its shape with the one inferred. Half floats come as floats.
func same(got, want *graph.Tensor, inferred graph.Shape, relative float64) error {
	if got == nil {
		return errors.New("it is missing")
	}
	half := want.Type == graph.Float16 || want.Type == graph.BFloat16
	if got.Type != want.Type && !(half && got.Type == graph.Float) || !slices.Equal(got.Dims, want.Dims) {
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
	g, err1 := graph.ArrayOf(got)
	w, err2 := graph.ArrayOf(want)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for i, y := range w.Data {
		x := g.Data[i]
		if x == y || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		if !(math.Abs(x-y) <= 1e-5+relative*math.Abs(y)) {
			return fmt.Errorf("element %d is %g, want %g", i, x, y)
		}
	}
	return nil
}
