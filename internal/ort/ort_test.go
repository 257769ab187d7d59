package ort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/process"
)

// child is set in the process that TestInitSaysWhatToDo starts: Init runs once per process.
const child = "FORETOKEN_ORT_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) == "" {
		os.Exit(m.Run())
	}
	err := Init()
	if again := Init(); !errors.Is(again, err) {
		err = fmt.Errorf("a second Init says something else: %w", again)
	}
	fmt.Printf("kind=%s error=%v\n", errs.Of(err), err)
}

// TestInitSaysWhatToDo looks for the library where it is not, and asks for threads that there can't be.
func TestInitSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, library string
		threads       string
		kind          errs.Kind
		want          []string
	}{
		{"a path where nothing is", filepath.Join(dir, "none.so"), "", errs.Unavailable, []string{"FORETOKEN_ORT_LIB", "none.so", "no such file", "make setup"}},
		{"a file that is no library", text, "", errs.Unavailable, []string{"text.so", "not an ONNX Runtime library", "make setup", "FORETOKEN_ORT_LIB"}},
		{"a folder", dir, "", errs.Unavailable, []string{dir, "make setup", "FORETOKEN_ORT_LIB"}},
		{"a library of something else", otherLibrary(t), "2", errs.Unavailable, []string{"not an ONNX Runtime library", "make setup", "FORETOKEN_ORT_LIB"}},
		{"no path, and none of the usual places", "", "", errs.Unavailable, []string{"was not found", "make setup", "FORETOKEN_ORT_LIB"}},
		{"no number of threads", "", "two", errs.Invalid, []string{"FORETOKEN_THREADS", `"two"`, "from 1 on"}},
		{"no threads", "", "0", errs.Invalid, []string{"FORETOKEN_THREADS", `"0"`, "from 1 on"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Dir = dir // .cache/ort is looked for from here upwards
			cmd.Env = append(os.Environ(), child+"=1", "FORETOKEN_ORT_LIB="+tt.library, "FORETOKEN_THREADS="+tt.threads)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, want := range append(tt.want, "kind="+tt.kind.String()) {
				if !strings.Contains(string(out), want) {
					t.Errorf("got %q, which should say %q", out, want)
				}
			}
		})
	}
}

// otherLibrary is the C library, which the dynamic loader itself knows by this name.
func otherLibrary(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/lib/*/libc.so.6", "/usr/lib/*/libc.so.6", "/lib*/libc.so.6", "/usr/lib*/libc.so.6"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Skip("no C library was found")
	return ""
}

// onBoth runs a test on the wrapper's sessions and on those that share weights.
func onBoth(t *testing.T, test func(t *testing.T, o Options)) {
	t.Run("wrapped", func(t *testing.T) { test(t, Options{Threads: 1}) })
	t.Run("shared", func(t *testing.T) { test(t, Options{Weights: weights(t), Deterministic: true}) })
}

func weights(t testing.TB) *Weights {
	t.Helper()
	w, err := NewWeights()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func build(t testing.TB, f func(b *graph.Builder)) *graph.Graph {
	t.Helper()
	g := &graph.Graph{Opset: map[string]int64{"": 18}}
	if err := g.Build(f); err != nil {
		t.Fatal(err)
	}
	return g
}

func open(t testing.TB, o Options, g *graph.Graph) *Session {
	t.Helper()
	s, err := NewSession(g, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// sum is x + y, for x [n,3] and y [3].
func sum(t testing.TB, o Options) *Session {
	return open(t, o, build(t, func(b *graph.Builder) {
		x := b.Input("x", graph.Float, graph.Shape{graph.Sym("n"), graph.Known(3)})
		y := b.Input("y", graph.Float, graph.Shape{graph.Known(3)})
		b.Output("sum", b.Add(x, y))
	}))
}

func floats(dims ...int64) *graph.Tensor {
	data := make([]float32, graph.Count(dims))
	for i := range data {
		data[i] = float32(i)
	}
	return graph.NewTensor(data, dims...)
}

func TestInputsThatDoNotFitAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		s := sum(t, o)
		x, y := floats(2, 3), floats(3)
		tests := []struct {
			name string
			in   map[string]*graph.Tensor
			want string
		}{
			{"one is missing", map[string]*graph.Tensor{"x": x}, `input "y" is missing`},
			{"one is nil", map[string]*graph.Tensor{"x": x, "y": nil}, `input "y" is missing`},
			{"none is given", nil, `input "x" is missing`},
			{"one too many", map[string]*graph.Tensor{"x": x, "y": y, "z": y}, `no input "z"`},
			{"another type", map[string]*graph.Tensor{"x": x, "y": graph.NewTensor([]int64{1, 2, 3}, 3)}, `"y" is int64, wants float`},
			{"another extent", map[string]*graph.Tensor{"x": floats(2, 4), "y": y}, `"x" has shape [2 4], wants [n,3]`},
			{"another rank", map[string]*graph.Tensor{"x": floats(3), "y": y}, `"x" has shape [3], wants [n,3]`},
			{"a scalar", map[string]*graph.Tensor{"x": x, "y": floats()}, `"y" has shape [], wants [3]`},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				_, err := s.Run(context.Background(), tt.in)
				if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v (%s), which should say %q", err, errs.Of(err), tt.want)
				}
			})
		}
		if out, err := s.Run(context.Background(), map[string]*graph.Tensor{"x": x, "y": y}); err != nil || fmt.Sprint(out["sum"].Dims) != "[2 3]" {
			t.Errorf("what fits gives %v: %v", out, err)
		}
		if in := s.Inputs(); len(in) != 2 || in[0].Name != "x" || in[1].Name != "y" {
			t.Errorf("the inputs are %v", in)
		}
	})
}

func TestGraphsThatCannotRunAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		x := &graph.Value{Name: "x", Type: graph.Float, Shape: graph.Shape{graph.Known(1)}}
		unknown := &graph.Node{Op: "NoSuchOperator", Name: "odd", Inputs: []*graph.Value{x}}
		y := &graph.Value{Name: "y", Type: graph.Float, Def: unknown}
		unknown.Outputs = []*graph.Value{y}
		opset := map[string]int64{"": 18}
		tests := []struct {
			name string
			g    *graph.Graph
			kind errs.Kind
			want string
		}{
			{"an operator that does not exist", &graph.Graph{Opset: opset, Inputs: []*graph.Value{x}, Outputs: []*graph.Value{y}, Nodes: []*graph.Node{unknown}}, errs.Unsupported, "NoSuchOperator"},
			{"no inputs", &graph.Graph{Opset: opset, Outputs: []*graph.Value{y}, Nodes: []*graph.Node{unknown}}, errs.Invalid, "0 inputs"},
			{"no outputs", &graph.Graph{Opset: opset, Inputs: []*graph.Value{x}}, errs.Invalid, "0 outputs"},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				_, err := NewSession(tt.g, o)
				if errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v (%s), which should say %q", err, errs.Of(err), tt.want)
				}
			})
		}
	})
}

// TestEveryTypeAndRankPasses sends tensors of each type through, as vectors, scalars and empty ones.
func TestEveryTypeAndRankPasses(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		types := []graph.DataType{
			graph.Float, graph.Double, graph.Int64, graph.Int32, graph.Int16, graph.Int8, graph.Uint8, graph.Uint16,
			graph.Uint32, graph.Uint64, graph.Bool,
		}
		for _, typ := range types {
			for _, dims := range [][]int64{{2, 3}, {1}, {}, {0, 3}} {
				t.Run(fmt.Sprint(typ, dims), func(t *testing.T) {
					data := make([]byte, graph.Count(dims)*int64(typ.Size()))
					for i := range data {
						data[i] = byte(i % 2)
					}
					x, err := graph.NewTensorBytes(typ, data, dims...)
					if err != nil {
						t.Fatal(err)
					}
					got := through(t, o, x)
					b, err := got.Bytes()
					if err != nil || got.Type != typ || !slices.Equal(got.Dims, dims) || !slices.Equal(b, data) {
						t.Errorf("%s%v %v came back as %s%v %v: %v", typ, dims, data, got.Type, got.Dims, b, err)
					}
				})
			}
		}
	})
}

// through runs a tensor through a graph that changes nothing.
func through(t *testing.T, o Options, x *graph.Tensor) *graph.Tensor {
	t.Helper()
	s := open(t, o, build(t, func(b *graph.Builder) {
		shape := graph.Shape{}
		for _, d := range x.Dims {
			shape = append(shape, graph.Known(d))
		}
		b.Output("y", b.Input("x", x.Type, shape))
	}))
	out, err := s.Run(context.Background(), map[string]*graph.Tensor{"x": x})
	if err != nil {
		t.Fatal(err)
	}
	return out["y"]
}

func TestHalfFloatsComeBackAsFloats(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		for _, dims := range [][]int64{{2}, {2, 1}} {
			x, err := graph.NewTensorBytes(graph.Float16, []byte{0x00, 0x3e, 0x00, 0xc0}, dims...) // 1.5, -2
			if err != nil {
				t.Fatal(err)
			}
			got := through(t, o, x)
			v, err := graph.Values[float32](got)
			if err != nil || !slices.Equal(v, []float32{1.5, -2}) || !slices.Equal(got.Dims, dims) {
				t.Errorf("%s%v %v: %v", got.Type, got.Dims, v, err)
			}
		}
		x, err := graph.NewTensorBytes(graph.Float16, []byte{0x00, 0x3e})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := graph.Values[float32](through(t, o, x)); err != nil || v[0] != 1.5 {
			t.Errorf("a scalar: %v, %v", v, err)
		}
	})
}

// slow is a chain of products that runs for a second or more.
func slow(t *testing.T, o Options) *Session {
	return open(t, o, build(t, func(b *graph.Builder) {
		x := b.Input("x", graph.Float, graph.Shape{graph.Known(512), graph.Known(512)})
		y := x
		for range 400 {
			y = b.Op("Tanh", nil, b.MatMul(y, x))
		}
		b.Output("y", y)
	}))
}

func TestAnEndedContextEndsTheRun(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		s, in := slow(t, o), map[string]*graph.Tensor{"x": floats(512, 512)}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		used := func(ctx context.Context) (time.Duration, error) { // of the processor's time: how much was computed
			start := process.Time()
			_, err := s.Run(ctx, in)
			return process.Time() - start, err
		}
		part, err := used(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a run past its deadline: %v", err)
		}
		none, err := used(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a run whose context has ended: %v", err)
		}
		whole, err := used(context.Background())
		if err != nil {
			t.Fatalf("the session after a run that was ended: %v", err)
		}
		if part > whole/2 || none > whole/2 {
			t.Errorf("a whole run computes for %s, one that was ended for %s, one that should not begin for %s", whole, part, none)
		}
	})
}

func TestManyGoroutinesShareOneSession(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		s := sum(t, o)
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				for round := range 50 {
					rows := int64(1 + (worker+round)%5)
					y := graph.NewTensor([]float32{float32(worker), float32(round), 1}, 3)
					out, err := s.Run(context.Background(), map[string]*graph.Tensor{"x": floats(rows, 3), "y": y})
					if err != nil {
						t.Error(err)
						return
					}
					got, err := graph.Values[float32](out["sum"])
					last := len(got) - 3
					if err != nil || len(got) != int(3*rows) || got[last] != float32(last+worker) || got[last+1] != float32(last+1+round) {
						t.Errorf("worker %d, round %d: %v, %v", worker, round, got, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestCloseWaitsForRunsAndEndsTheSession(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		s, in := slow(t, o), map[string]*graph.Tensor{"x": floats(512, 512)}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		started, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			close(started)
			s.Run(ctx, in)
		}()
		<-started
		time.Sleep(20 * time.Millisecond) // the run is under way, or ahead of Close
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		<-ended
		if err := s.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
		if _, err := s.Run(context.Background(), in); err == nil {
			t.Error("a closed session runs")
		}
	})
}

// BenchmarkRun measures what a run costs beside its computation: three additions.
func BenchmarkRun(b *testing.B) {
	s, in := sum(b, Options{Threads: 1}), map[string]*graph.Tensor{"x": floats(1, 3), "y": floats(3)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Run(context.Background(), in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRunLargeTensors measures what 4 MB in and 4 MB out cost.
func BenchmarkRunLargeTensors(b *testing.B) {
	s, in := sum(b, Options{Threads: 1}), map[string]*graph.Tensor{"x": floats(1<<20/3, 3), "y": floats(3)}
	b.SetBytes(1 << 22)
	for b.Loop() {
		if _, err := s.Run(context.Background(), in); err != nil {
			b.Fatal(err)
		}
	}
}
