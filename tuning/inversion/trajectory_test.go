package inversion

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/npz"
	"github.com/foretoken/foretoken/tuning/tuningtest"
)

// trajectorySteps is how far the runs are followed.
const trajectorySteps = 20

// trajectories are by pipeline and prediction type: the network's output is the noise, or the velocity; texts come from one encoder,
// or from two; it is told of a mask and of guidance. The learning rate is one at which twenty steps get somewhere.
var trajectories = map[string]func(t *testing.T) *Trainer{
	"sd-epsilon": func(t *testing.T) *Trainer {
		r := recipe(t, "textual-inversion")
		r.Batch, r.Inversion.MicroBatch, r.Inversion.Vectors, r.Optimizer.LearningRate = 2, 2, 1, 0.02
		return trainer(t, pipeline(t, "sd"), r, data(5, 0, "mug"))
	},
	"sd-v_prediction": func(t *testing.T) *Trainer {
		r := recipe(t, "style")
		r.Batch, r.Inversion.MicroBatch, r.Optimizer.LearningRate = 2, 1, 0.02
		tr := trainer(t, pipeline(t, "sd", `"epsilon"`, `"v_prediction"`), r, data(5, 0, "mug"))
		tr.network.Recompute = 1 // byte: as much as can be
		return tr
	},
	"inpaint-epsilon": func(t *testing.T) *Trainer {
		r := recipe(t, "textual-inversion")
		r.Batch, r.Inversion.MicroBatch, r.Inversion.Vectors, r.Optimizer.LearningRate = 2, 1, 1, 0.02
		return trainer(t, inpainting(t), r, data(5, 0, "mug"))
	},
	"xl-epsilon": func(t *testing.T) *Trainer {
		r := recipe(t, "textual-inversion")
		r.Batch, r.Inversion.MicroBatch, r.Inversion.Vectors, r.Optimizer.LearningRate = 2, 2, 2, 0.02
		return trainer(t, pipeline(t, "xl"), r, data(5, 0, "mug"))
	},
}

// TestTrajectory follows 20 steps and compares the first gradient and where the steps lead with PyTorch: for each text
// encoder, ||dp - dp'|| / ||dp'|| <= 1e-2, dp what the steps changed. What PyTorch made of the same start, pictures, texts and noise lies in
// testdata/trajectory, written by `make reference`.
func TestTrajectory(t *testing.T) {
	if dir := os.Getenv("FORETOKEN_INVERSION_OUT"); dir != "" {
		for name, open := range trajectories {
			writeTrajectory(t, open(t), filepath.Join(dir, name+".npz"))
		}
		return
	}
	for name, open := range trajectories {
		t.Run(name, func(t *testing.T) {
			tr := open(t)
			want, err := npz.Read(filepath.Join("testdata", "trajectory", name+".npz"))
			if err != nil {
				t.Fatal(err)
			}
			start := map[string][]float32{}
			for _, p := range tr.params {
				start[p.Name] = slices.Clone(p.Values())
			}
			examples, err := tr.examples(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, first, err := tr.gradients(t.Context(), examples)
			if err != nil {
				t.Fatal(err)
			}
			losses := steps(t, tr, trajectorySteps)
			for i, l := range floats(t, want["losses"]) {
				if math.Abs(losses[i]-float64(l)) > 1e-3*math.Abs(float64(l)) {
					t.Errorf("step %d: loss %g, PyTorch's %g", i, losses[i], l)
				}
			}
			for _, p := range tr.params {
				g := tuningtest.Distance(first[p.Name], floats(t, want["first."+p.Name]), make([]float32, len(p.Values())))
				if !(g <= 1e-3) {
					t.Errorf("%s: the first gradient is off by %.2e of its length, at most 1e-3", p.Name, g)
				}
				e := tuningtest.Distance(p.Values(), floats(t, want["end."+p.Name]), start[p.Name])
				t.Logf("%s: gradient %.1e, trajectory %.1e", p.Name, g, e)
				if !(e <= 1e-2) {
					t.Errorf("%s: ||dp - dp'|| / ||dp'|| is %.2e, at most 1e-2", p.Name, e)
				}
			}
		})
	}
}

// TestAWrongGradientLeavesTheTrajectory runs TestTrajectory with one gradient rule, softmax's, made 5 % too large. It has to fail.
func TestAWrongGradientLeavesTheTrajectory(t *testing.T) {
	tuningtest.FailsWithAWrongGradient(t, "../../graph", "^TestTrajectory$/^sd-epsilon$", "at most 1e-2")
}

func floats(t *testing.T, x *graph.Tensor) []float32 {
	t.Helper()
	if x == nil {
		t.Fatal("PyTorch's file lacks a tensor")
	}
	values, err := graph.Float32s(x)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// writeTrajectory writes what the reference needs.
func writeTrajectory(t *testing.T, tr *Trainer, path string) {
	t.Helper()
	one := func(x float64) *graph.Tensor { return graph.NewTensor([]float64{x}, 1) }
	out := map[string]*graph.Tensor{"rate": one(tr.Recipe.InversionRate()), "weight_decay": one(tr.Recipe.Optimizer.WeightDecay), "steps": one(trajectorySteps)}
	for _, p := range tr.params {
		out["start."+p.Name] = graph.NewTensor(slices.Clone(p.Values()), p.Tensor.Dims...)
	}
	for tr.step < trajectorySteps {
		examples, err := tr.examples(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(out, tr.written(examples))
		tr.step++
	}
	if err := npz.Write(path, out); err != nil {
		t.Fatal(err)
	}
}

// written are a step's examples: what was made of latents and noise is left to PyTorch to make.
func (t *Trainer) written(examples []example) map[string]*graph.Tensor {
	var latents, noise, weights []float32
	var times []int64
	ids := make([][]int64, len(t.network.Encoders))
	for _, e := range examples {
		latents, noise, weights = append(latents, e.clean...), append(noise, e.noise...), append(weights, e.weight)
		times = append(times, e.timestep)
		for i := range ids {
			ids[i] = append(ids[i], e.ids[i]...)
		}
	}
	n, l := int64(len(examples)), t.network.Latent
	name := func(s string) string { return fmt.Sprintf("step.%04d.%s", t.step, s) }
	out := map[string]*graph.Tensor{
		name("latents"): graph.NewTensor(latents, n, l[0], l[1], l[2]), name("noise"): graph.NewTensor(noise, n, l[0], l[1], l[2]),
		name("weights"): graph.NewTensor(weights, n), name("timesteps"): graph.NewTensor(times, n),
	}
	for i := range ids {
		out[name(fmt.Sprintf("ids.%d", i))] = graph.NewTensor(ids[i], n, t.network.Length)
	}
	return out
}
