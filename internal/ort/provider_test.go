package ort

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

func TestDevicesAreNamed(t *testing.T) {
	for name, want := range map[string]Provider{"": CPU, "cpu": CPU, "webgpu": WebGPU, "WebGPU": WebGPU, "cuda": CUDA} {
		t.Setenv("FORETOKEN_DEVICE", name)
		if p, err := ProviderFromEnv(); p != want || err != nil {
			t.Errorf("%q is %q: %v", name, p, err)
		}
	}
	t.Setenv("FORETOKEN_DEVICE", "abacus")
	if _, err := ProviderFromEnv(); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), "abacus") {
		t.Errorf("an unknown device: %v", err)
	}
}

func TestADeviceThatIsNotThereIsSaidToBe(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		o.Provider = "NoSuchDevice"
		g := build(t, func(b *graph.Builder) {
			b.Output("y", b.Op("Tanh", nil, b.Input("x", graph.Float, graph.Shape{graph.Known(2)})))
		})
		_, err := NewSession(g, o)
		if errs.Of(err) != errs.Unavailable || !strings.Contains(err.Error(), "there is no NoSuchDevice here") {
			t.Errorf("got %v (%s)", err, errs.Of(err))
		}
	})
}

// device is the one beside the CPU that FORETOKEN_DEVICE names; a test without one is skipped.
func device(t *testing.T) Provider {
	t.Helper()
	p, err := ProviderFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if p == CPU {
		t.Skip("FORETOKEN_DEVICE names no device beside the CPU; make test-webgpu does")
	}
	return p
}

// TestTheDeviceComputesTheSame runs products, a softmax and a norm on the device that FORETOKEN_DEVICE names, all
// kernels on the device, from weights in a file that a cast is computed from.
func TestTheDeviceComputesTheSame(t *testing.T) {
	p := device(t)
	g := saved(t, func(b *graph.Builder) {
		x := b.MatMul(b.Input("x", graph.Float, graph.Shape{graph.Sym("n"), graph.Known(256)}), widened(b, halves(b, 256, 256)))
		x = b.Op("Softmax", graph.Attrs{"axis": int64(-1)}, b.Mul(x, b.Scalar(0.1, x)))
		scale := make([]float32, 256)
		for i := range scale {
			scale[i] = 1 + float32(i)/256
		}
		b.Output("y", b.Op("LayerNormalization", graph.Attrs{"axis": int64(-1)}, x, b.Const(graph.NewTensor(scale, 256)), b.Const(graph.NewTensor(scale, 256))))
	})
	want := outputs(t, g, Options{Threads: 1})["y"]
	onBoth(t, func(t *testing.T, o Options) {
		// The cast is the wrapped session's own, and folded on the CPU.
		o.Provider, o.Strict = p, o.Weights != nil
		if s, err := NewSession(g, o); err == nil {
			s.Close()
		} else if p == CUDA && errs.Of(err) == errs.Unavailable {
			t.Skipf("THERE IS NO CUDA HERE: %v", err)
		}
		got := outputs(t, g, o)["y"]
		worst := 0.0
		for i := range want {
			worst = max(worst, math.Abs(float64(got[i]-want[i])))
		}
		t.Logf("%s differs from the CPU by at most %.1e", p, worst)
		if !(worst < 1e-4) {
			t.Errorf("%s differs from the CPU by %g", p, worst)
		}
	})
	lacking := build(t, func(b *graph.Builder) {
		b.Output("y", b.Op("Det", nil, b.Input("x", graph.Float, graph.Shape{graph.Known(2), graph.Known(2)})))
	})
	if _, err := NewSession(lacking, Options{Provider: p, Strict: true}); errs.Of(err) == errs.Unavailable && p == CUDA {
		return
	} else if errs.Of(err) != errs.Unsupported {
		t.Errorf("an operator without a kernel for %s: %v", p, err)
	}
}

// TestTheDeviceCombinesTruthValues of different shapes as the CPU does, as masks are made of.
func TestTheDeviceCombinesTruthValues(t *testing.T) {
	p := device(t)
	in, data := map[string]*graph.Tensor{}, make([]float32, 144)
	for i := range data {
		data[i] = float32(i*37%23 - 11)
	}
	g := build(t, func(b *graph.Builder) {
		under := func(name string, dims ...int64) *graph.Value {
			in[name] = graph.NewTensor(data[:graph.Count(dims)], dims...)
			var shape graph.Shape
			for _, d := range dims {
				shape = append(shape, graph.Known(d))
			}
			x := b.Input(name, graph.Float, shape)
			return b.Op("Less", nil, x, b.Scalar(0, x))
		}
		square, column, row := under("square", 12, 12), under("column", 12, 1), under("row", 3, 1, 12)
		for op := range logical {
			for i, pair := range [][]*graph.Value{{square, column}, {column, row}, {square, row}} {
				b.Output(fmt.Sprint(op, i), b.Op("Cast", graph.Attrs{"to": int64(graph.Float)}, b.Op(op, nil, pair...)))
			}
		}
	})
	run := func(o Options) map[string]*graph.Tensor {
		out, err := open(t, o, g).Run(t.Context(), in)
		if errs.Of(err) == errs.Unavailable && p == CUDA {
			t.Skipf("THERE IS NO CUDA HERE: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want, got := run(Options{}), run(Options{Provider: p})
	for name := range want {
		theirs, err1 := graph.Values[float32](want[name])
		ours, err2 := graph.Values[float32](got[name])
		if err := errors.Join(err1, err2); err != nil || !slices.Equal(theirs, ours) {
			t.Errorf("%s is another on %s than on the CPU: %v", name, p, err)
		}
	}
}
