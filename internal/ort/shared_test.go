package ort

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
	onnx "github.com/yalue/onnxruntime_go"
)

// TestOneEnvironmentForTheWrapperAndUs: the library has one environment a process; the versions
// of the API that are asked for are one as well.
func TestOneEnvironmentForTheWrapperAndUs(t *testing.T) {
	if err := Init(); err != nil {
		t.Fatal(err)
	}
	if !onnx.IsInitialized() {
		t.Error("the wrapper has no environment")
	}
	header, err := os.ReadFile("include/onnxruntime_c_api.h")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`#define ORT_API_VERSION (\d+)`).FindSubmatch(header)
	minor := strings.Split(strings.TrimPrefix(wrapperVersion(t), "v"), ".")[1]
	if version == nil || string(version[1]) != "24" || minor != "27" {
		t.Errorf("include/ holds the header of API %s, of wrapper 1.27 with API 24; the wrapper is 1.%s: take its header", version[1], minor)
	}
}

// wrapperVersion reads go.mod.
func wrapperVersion(t *testing.T) string {
	t.Helper()
	mod, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`yalue/onnxruntime_go (v\S+)`).FindSubmatch(mod)
	if found == nil {
		t.Fatal("go.mod does not name the wrapper")
	}
	return string(found[1])
}

func TestOutputsAreWrittenInPlace(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		s := open(t, o, build(t, func(b *graph.Builder) {
			x := b.Input("x", graph.Float, graph.Shape{graph.Sym("n"), graph.Known(3)})
			b.Output("twice", b.Add(x, x))
			b.Output("total", b.Sum(x, false, 0, 1))
		}))
		twice, total := floats(2, 3), floats()
		in := map[string]*graph.Tensor{"x": floats(2, 3)}
		for range 2 {
			out, err := s.RunInto(context.Background(), in, map[string]*graph.Tensor{"twice": twice, "total": total})
			if err != nil {
				t.Fatal(err)
			}
			if out["twice"] != twice || out["total"] != total {
				t.Error("other tensors came back")
			}
			if v, _ := graph.Values[float32](twice); !slices.Equal(v, []float32{0, 2, 4, 6, 8, 10}) {
				t.Errorf("twice is %v", v)
			}
			if v, _ := graph.Values[float32](total); v[0] != 15 || len(total.Dims) != 0 {
				t.Errorf("total is %v%v", total.Dims, v)
			}
		}
		tests := []struct {
			name string
			out  map[string]*graph.Tensor
			want string
		}{
			{"another extent", map[string]*graph.Tensor{"twice": floats(3, 3)}, "shape"},
			{"another rank", map[string]*graph.Tensor{"twice": floats(6)}, "has shape [6]"},
			{"another type", map[string]*graph.Tensor{"twice": graph.NewTensor(make([]int64, 6), 2, 3)}, "is int64, wants float"},
			{"no such output", map[string]*graph.Tensor{"thrice": floats(2, 3)}, "0 of the 1 outputs"},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if _, err := s.RunInto(context.Background(), in, tt.out); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, which should say %q", err, tt.want)
				}
			})
		}
	})
}

func TestErrorsSayWhatTheyAre(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		n := graph.Shape{graph.Sym("n")}
		m := graph.Shape{graph.Sym("m")}
		add := open(t, o, build(t, func(b *graph.Builder) {
			b.Output("y", b.Op("Concat", graph.Attrs{"axis": int64(1)}, b.Input("a", graph.Float, append(n, graph.Known(2))), b.Input("b", graph.Float, append(m, graph.Known(2)))))
		}))
		grow := open(t, o, build(t, func(b *graph.Builder) {
			b.Output("y", b.Op("Expand", nil, b.Input("a", graph.Float, graph.Shape{graph.Known(1)}), b.Input("shape", graph.Int64, graph.Shape{graph.Known(1)})))
		}))
		_, unfit := add.Run(context.Background(), map[string]*graph.Tensor{"a": floats(2, 2), "b": floats(3, 2)})
		_, large := grow.Run(context.Background(), map[string]*graph.Tensor{"a": floats(1), "shape": graph.NewTensor([]int64{1 << 46}, 1)})
		tests := []struct {
			name   string
			err    error
			is     []error
			is_not []error
			kind   errs.Kind
		}{
			{"a run that fails", unfit, []error{ErrRun}, []error{ErrLoad, ErrOutOfMemory}, errs.Internal},
			{"a run that wants 256 TiB", large, []error{ErrRun, ErrOutOfMemory}, []error{ErrLoad}, errs.TooLarge},
			{"a graph that is refused", refused(t, o), []error{ErrLoad}, []error{ErrRun, ErrOutOfMemory}, errs.Unsupported},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				for _, want := range tt.is {
					if !errors.Is(tt.err, want) {
						t.Errorf("%v is no %q", tt.err, want)
					}
				}
				for _, other := range tt.is_not {
					if errors.Is(tt.err, other) {
						t.Errorf("%v is a %q", tt.err, other)
					}
				}
				e, ok := errors.AsType[*Error](tt.err)
				if !ok || e.Message == "" || o.Weights != nil && e.Code == 0 {
					t.Errorf("%v holds %+v", tt.err, e)
				}
				if errs.Of(tt.err) != tt.kind {
					t.Errorf("%v is %s, not %s", tt.err, errs.Of(tt.err), tt.kind)
				}
			})
		}
	})
}

// refused is the error for an operator that does not exist.
func refused(t *testing.T, o Options) error {
	t.Helper()
	x := &graph.Value{Name: "x", Type: graph.Float, Shape: graph.Shape{graph.Known(1)}}
	n := &graph.Node{Op: "NoSuchOperator", Inputs: []*graph.Value{x}}
	n.Outputs = []*graph.Value{{Name: "y", Type: graph.Float, Def: n}}
	_, err := NewSession(&graph.Graph{Opset: map[string]int64{"": 18}, Inputs: []*graph.Value{x}, Outputs: n.Outputs, Nodes: []*graph.Node{n}}, o)
	return err
}

// stack saves layers of x = tanh(x W), W [width,width], as a model whose weights lie in a file.
func stack(t testing.TB, layers, width int) *graph.Graph {
	t.Helper()
	g := build(t, func(b *graph.Builder) {
		x := b.Input("x", graph.Float, graph.Shape{graph.Sym("n"), graph.Known(int64(width))})
		random := rng.New(1, "stack")
		for range layers {
			w := make([]float32, width*width)
			for i := range w {
				w[i] = float32(random.NormFloat64()) / 32
			}
			x = b.Op("Tanh", nil, b.MatMul(x, b.Const(graph.NewTensor(w, int64(width), int64(width)))))
		}
		b.Output("y", x)
	})
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := g.Save(path, graph.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	loaded, err := graph.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// TestSharedWeightsComputeTheSame compares sessions over one file's weights: with each other to the
// bit, run after run, and with the wrapper's session.
func TestSharedWeightsComputeTheSame(t *testing.T) {
	g := stack(t, 3, 96)
	in := map[string]*graph.Tensor{"x": floats(5, 96)}
	w := weights(t)
	first, second := open(t, Options{Weights: w}, g), open(t, Options{Weights: w, Deterministic: true}, g)
	var results [][]byte
	for _, s := range []*Session{first, second, first, second, open(t, Options{Threads: 1}, g)} {
		out, err := s.Run(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		b, err := out["y"].Bytes()
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, b)
	}
	for i, b := range results[1:] {
		if !slices.Equal(b, results[0]) {
			t.Errorf("run %d differs from the first", i+1)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Run(context.Background(), in); err != nil {
		t.Errorf("after the other session is closed: %v", err)
	}
}

func TestWeightsLiveAsLongAsTheirSessions(t *testing.T) {
	g := stack(t, 1, 64)
	w, err := NewWeights()
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Weights: w}, g)
	w.Close()
	w.Close()
	if _, err := s.Run(context.Background(), map[string]*graph.Tensor{"x": floats(1, 64)}); err != nil {
		t.Errorf("a session whose weights' maker is gone: %v", err)
	}
	if _, err := NewSession(g, Options{Weights: w}); errs.Of(err) != errs.Internal {
		t.Errorf("closed weights were lent: %v", err)
	}
}

func TestAFileThatWasCutShortIsAnError(t *testing.T) {
	g := stack(t, 1, 64)
	for v := range g.Constants() {
		if v.Const.Source != nil {
			if err := os.Truncate(v.Const.Source.Path, v.Const.Source.Offset+10); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := NewSession(g, Options{Weights: weights(t)}); errs.Of(err) != errs.Conflict || !strings.Contains(fmt.Sprint(err), "was changed") {
		t.Errorf("got %v (%s)", err, errs.Of(err))
	}
}

// TestALeanSessionComputesTheSame leaves weights of products and convolutions as they lie in their file, forward and back.
func TestALeanSessionComputesTheSame(t *testing.T) {
	g := saved(t, func(b *graph.Builder) {
		x := b.Input("x", graph.Float, graph.Shape{graph.Known(3), graph.Known(256)})
		image := b.Op("Reshape", nil, x, b.Ints(3, 256, 1, 1))
		kernel := b.Op("Reshape", nil, widened(b, halves(b, 256, 256*9)), b.Ints(256, 256, 3, 3))
		y := b.Op("Conv", graph.Attrs{"pads": []int64{1, 1, 1, 1}}, image, kernel)
		y = b.MatMul(b.Op("Reshape", nil, y, b.Ints(3, 256)), widened(b, halves(b, 256, 256)))
		loss := b.Sum(b.Mul(y, y), false, 0, 1)
		b.Output("y", y)
		b.Output("dx", b.Gradient([]*graph.Value{loss}, nil, []*graph.Value{x})[0])
	})
	run := func(lean bool) map[string][]float32 {
		w, err := NewWeights()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		return outputs(t, g, Options{Weights: w, Lean: lean})
	}
	want := run(false)
	for name, got := range run(true) {
		worst, largest := 0.0, 0.0
		for i, x := range want[name] {
			worst, largest = max(worst, math.Abs(float64(got[i]-x))), max(largest, math.Abs(float64(x)))
		}
		if !(worst <= 1e-4*largest) || largest == 0 {
			t.Errorf("%s differs by %g, its largest element is %g", name, worst, largest)
		}
	}
}
