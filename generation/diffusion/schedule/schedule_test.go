package schedule

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/npz"
)

// golden is what bench/reference/schedulers.py had diffusers do.
type golden struct {
	Steps    int             `json:"steps"`
	Strength float64         `json:"strength"`
	Eta      float64         `json:"eta"`
	Config   json.RawMessage `json:"config"`

	arrays map[string]*graph.Tensor
	index  int
}

// rows are an array's rows of a width.
func (g *golden) rows(t *testing.T, name string, width int) [][]float32 {
	t.Helper()
	values, err := graph.Float32s(g.arrays[name])
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(slices.Chunk(values, width))
}

func (g *golden) own(t *testing.T, name string, width int) [][]float32 {
	return g.rows(t, fmt.Sprintf("%d.%s", g.index, name), width)
}

func readGolden(t *testing.T) []*golden {
	t.Helper()
	arrays, err := npz.Read("testdata/golden.npz")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("testdata/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []*golden
	// Python writes infinities that JSON doesn't have.
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(data), "-Infinity", "null")), &cases); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		c.arrays, c.index = arrays, i
	}
	return cases
}

func (g *golden) schedule(t *testing.T) *Schedule {
	t.Helper()
	c, err := Parse(g.Config, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// same compares with a tolerance that grows with the numbers above 1.
func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d numbers, diffusers has %d", what, len(got), len(want))
	}
	for i := range got {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= 1e-4*max(1, math.Abs(float64(want[i])))) {
			t.Fatalf("%s[%d]: %g, diffusers %g", what, i, got[i], want[i])
		}
	}
}

const latent = 8 // numbers in the golden pictures

func TestEachStepIsDiffusers(t *testing.T) {
	for _, g := range readGolden(t) {
		s := g.schedule(t)
		s.Eta = g.Eta
		t.Run(fmt.Sprintf("%d %s %d steps %g", g.index, s.Config.Class, g.Steps, g.Strength), func(t *testing.T) {
			p, err := s.Sampler(g.Steps, g.Strength)
			if err != nil {
				t.Fatal(err)
			}
			outs, noise := g.rows(t, "outs", latent), g.rows(t, "noise", latent)
			path, scaled := g.own(t, "x", latent), g.own(t, "scaled", latent)
			times := make([]float32, 0, len(scaled))
			for _, x := range p.Timesteps() {
				times = append(times, float32(x))
			}
			same(t, "timesteps", times, g.own(t, "times", len(scaled))[0])
			same(t, "initial sigma", []float32{float32(p.InitialSigma())}, g.own(t, "initial", 1)[0])

			last := noise[len(noise)-1]
			x := make([]float32, latent)
			for i := range x {
				x[i] = last[i] * float32(p.InitialSigma())
			}
			if g.Strength < 1 {
				p.AddNoise(x, outs[len(outs)-1], last, 0)
			}
			same(t, "start", x, path[0])
			for i := range scaled {
				input := make([]float32, latent)
				p.ScaleInput(input, x, i)
				same(t, fmt.Sprintf("input at step %d", i), input, scaled[i])
				p.Step(i, x, outs[i], noise[i])
				same(t, fmt.Sprintf("behind step %d", i), x, path[i+1])
			}
		})
	}
}

func TestTrainingSeesDiffusersNoise(t *testing.T) {
	for _, g := range readGolden(t) {
		s := g.schedule(t)
		n := s.Timesteps()
		outs, noise := g.rows(t, "outs", latent), g.rows(t, "noise", latent)
		alphas, noised, velocity := g.own(t, "alphas", 4)[0], g.own(t, "noised", latent), g.own(t, "velocity", latent)
		for i, at := range []int{0, 1, n / 2, n - 1} {
			what := fmt.Sprintf("case %d, timestep %d: ", g.index, at)
			if s.Config.RescaleZeroSNR && at == n-1 && s.Config.Class != DDIM && s.Config.Class != LCM {
				continue // diffusers keeps 2^-24 there in samplers over sigmas
			}
			same(t, what+"alpha", s.AlphasCumprod()[at:at+1], alphas[i:i+1])
			x := make([]float32, latent)
			s.AddNoise(x, outs[i], noise[i], at)
			same(t, what+"noised", x, noised[i])
			s.Velocity(x, outs[i], noise[i], at)
			same(t, what+"velocity", x, velocity[i])
		}
	}
}

func TestDenoisedIsThePictureThatTheOutputStandsFor(t *testing.T) {
	picture, noise := []float32{0.5, -0.25, 1}, []float32{1, 2, -0.5}
	for class := range names {
		for _, prediction := range []string{Epsilon, Velocity} {
			c, err := Parse(fmt.Appendf(nil, `{"_class_name": %q, "prediction_type": %q}`, names[class], prediction), "")
			if err != nil {
				t.Fatal(err)
			}
			s, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			p, err := s.Sampler(10, 1)
			if err != nil {
				t.Fatal(err)
			}
			at := len(p.Timesteps()) / 2
			x, out, denoised := make([]float32, 3), make([]float32, 3), make([]float32, 3)
			p.AddNoise(x, picture, noise, at)
			copy(out, noise)
			if prediction == Velocity {
				l := p.levels[at]
				for i := range out {
					c := math.Hypot(l.alpha, l.sigma)
					out[i] = float32((l.alpha*float64(noise[i]) - l.sigma*float64(picture[i])) / c)
				}
			}
			p.Denoised(denoised, x, out, at)
			same(t, class+" "+prediction, denoised, picture)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, config, scheduler, want string
		kind                          errs.Kind
	}{
		{"an unknown class", `{"_class_name": "UniPCMultistepScheduler"}`, "", "UniPCMultistepScheduler", errs.Unsupported},
		{"an unknown name", `{"_class_name": "PNDMScheduler"}`, "heun", `"heun" is not known; there are ddim, dpmpp_2m`, errs.Unsupported},
		{"no class", `{}`, "", "_class_name is missing", errs.Invalid},
		{"an unknown field", `{"_class_name": "DDIMScheduler", "sigma_data": 0.5}`, "", "sigma_data is 0.5", errs.Unsupported},
		{"a beta schedule", `{"_class_name": "DDIMScheduler", "beta_schedule": "sigmoid"}`, "", `beta_schedule is "sigmoid"`, errs.Unsupported},
		{"flows", `{"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true}`, "", "use_flow_sigmas", errs.Unsupported},
		{"learned variance", `{"_class_name": "DPMSolverMultistepScheduler", "variance_type": "learned_range"}`, "", "variance_type", errs.Unsupported},
		{"zero SNR on PNDM", `{"_class_name": "PNDMScheduler", "rescale_betas_zero_snr": true}`, "", "rescale_betas_zero_snr", errs.Unsupported},
		{"pictures on PNDM", `{"_class_name": "PNDMScheduler", "prediction_type": "sample"}`, "", `prediction_type is "sample"`, errs.Unsupported},
		{"two sigma schedules", `{"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "use_exponential_sigmas": true}`, "", "one can be", errs.Invalid},
		{"DPM-Solver to no noise", `{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}`, "", "sigma_min", errs.Unsupported},
		{"too many timesteps", `{"_class_name": "DDIMScheduler", "num_train_timesteps": 1000000000}`, "", "2 to 100000", errs.Invalid},
		{"a beta of 2", `{"_class_name": "DDIMScheduler", "trained_betas": [0.1, 2]}`, "", "trained_betas", errs.Invalid},
		{"a word for a number", `{"_class_name": "DDIMScheduler", "steps_offset": "one"}`, "", "steps_offset", errs.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.config), c.scheduler)
			if err == nil || errs.Of(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v (%v), want %q, %v", err, errs.Of(err), c.want, c.kind)
			}
		})
	}
}

func TestAnotherSchedulerReadsTheFilesFields(t *testing.T) {
	file := []byte(`{"_class_name": "UniPCMultistepScheduler", "beta_schedule": "scaled_linear", "beta_end": 0.012, "solver_type": "bh2", "predict_x0": true, "lambda_min_clipped": -Infinity}`)
	c, err := Parse(file, "dpmpp_2m")
	if err != nil {
		t.Fatal(err)
	}
	if c.Class != DPMSolver || c.BetaSchedule != "scaled_linear" || c.BetaEnd != 0.012 || c.SolverType != "midpoint" || c.TimestepSpacing != "linspace" {
		t.Fatalf("%+v", c)
	}
}

func TestStepsOutOfRangeAreRefused(t *testing.T) {
	for _, c := range []struct {
		config   string
		steps    int
		strength float64
		want     string
	}{
		{`{"_class_name": "DDIMScheduler"}`, 0, 1, "0 steps"},
		{`{"_class_name": "DDIMScheduler"}`, 1001, 1, "1001 steps"},
		{`{"_class_name": "DDIMScheduler"}`, 20, 0.01, "no whole step"},
		{`{"_class_name": "DDIMScheduler"}`, 20, math.NaN(), "strength NaN"},
		{`{"_class_name": "DDIMScheduler", "steps_offset": 1}`, 1000, 1, "reach timestep 1000"},
		{`{"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "trailing", "lambda_min_clipped": 1}`, 20, 0.2, "none behind strength 0.2"},
		{`{"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "trailing", "lambda_min_clipped": 100}`, 20, 1, "are 0"},
		{`{"_class_name": "LCMScheduler"}`, 51, 1, "original_inference_steps"},
		{`{"_class_name": "PNDMScheduler"}`, 3, 1, "skip_prk_steps"},
		{`{"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}`, 10, 1, "epsilon"},
	} {
		config, err := Parse([]byte(c.config), "")
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Sampler(c.steps, c.strength); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %d steps, strength %g: %v, want %q", c.config, c.steps, c.strength, err, c.want)
		}
	}
}

func TestEtaIsOfDDIM(t *testing.T) {
	for _, c := range []struct {
		scheduler string
		eta       float64
		fits      bool
	}{{"ddim", 0, true}, {"ddim", 1, true}, {"ddim", -0.1, false}, {"ddim", 1.1, false}, {"ddim", math.NaN(), false}, {"euler", 0.5, false}, {"euler", 0, true}} {
		config, err := Parse([]byte(`{"_class_name": "DDIMScheduler"}`), c.scheduler)
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		s.Eta = c.eta
		_, err = s.Sampler(10, 1)
		if c.fits != (err == nil) || !c.fits && (errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), "with "+c.scheduler)) {
			t.Errorf("eta %g of %s: %v", c.eta, c.scheduler, err)
		}
	}
}

// FuzzParse: no file makes a sampler panic.
func FuzzParse(f *testing.F) {
	for _, class := range names {
		f.Add(fmt.Appendf(nil, `{"_class_name": %q, "lambda_min_clipped": -Infinity, "use_karras_sigmas": true}`, class), 20, 1.0)
	}
	f.Fuzz(func(t *testing.T, data []byte, steps int, strength float64) {
		c, err := Parse(data, "")
		if err != nil {
			return
		}
		s, err := New(c)
		if err != nil {
			return
		}
		p, err := s.Sampler(min(steps, 30), strength)
		if err != nil {
			return
		}
		x, out, noise := []float32{1, 2}, []float32{0.5, -1}, []float32{1, 0}
		for i := range p.Timesteps() {
			p.Denoised(make([]float32, 2), x, out, i)
			p.Step(i, x, out, noise)
		}
	})
}
