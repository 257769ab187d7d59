package schedule

import (
	"math"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// Sampler leads one picture from noise to what the network sees in it. Its steps are called in
// order, once each; it is not safe for concurrent use.
type Sampler struct {
	prediction string
	times      []float64
	levels     []level // of the picture ahead of each step
	scaled     bool    // the network's input is brought to variance one
	initial    float64
	method     method
}

// method is a class's way from one level to the next. i counts from the first step of all, also
// where a sampler begins later.
type method interface {
	// step replaces x with the picture behind step i; noise is nil where noisy is false.
	step(i int, x, out, noise []float32)
	noisy(i int) bool
}

// Sampler lays out a number of steps. A strength below 1 begins later, on a picture that
// [Sampler.AddNoise] has noised (image-to-image; Meng et al. 2022): int(steps * strength) steps are
// left, as in diffusers. Steps or a strength out of range are errors of kind errs.Invalid.
func (s *Schedule) Sampler(steps int, strength float64) (*Sampler, error) {
	if steps < 1 || steps > s.Timesteps() {
		return nil, errs.New(errs.Invalid, "scheduler: %d steps; there can be 1 to %d", steps, s.Timesteps())
	}
	if !(strength > 0 && strength <= 1) {
		return nil, errs.New(errs.Invalid, "scheduler: strength %g; it is above 0 and at most 1", strength)
	}
	if !(s.Eta >= 0 && s.Eta <= 1) || s.Eta > 0 && s.Config.Class != DDIM {
		return nil, errs.New(errs.Invalid, "scheduler: eta %g with %s; it is 0 to 1 with ddim, and 0 with others", s.Eta, ShortName(s.Config.Class))
	}
	begin := steps - int(float64(steps)*strength)
	if begin == steps {
		return nil, errs.New(errs.Invalid, "scheduler: strength %g of %d steps is no whole step: raise either", strength, steps)
	}
	var p *Sampler
	var err error
	switch s.Config.Class {
	case PNDM:
		p, err = s.pndm(steps, begin)
	case DDIM:
		p, err = s.ddim(steps)
	case LCM:
		p, err = s.lcm(steps)
	case DPMSolver:
		p, err = s.dpmSolver(steps)
	default:
		p, err = s.euler(steps)
	}
	if err != nil {
		return nil, err
	}
	if begin >= len(p.times) {
		return nil, errs.New(errs.Invalid, "scheduler: %d steps from timestep_spacing %s and lambda_min_clipped %g are %d, and none behind strength %g", steps, s.Config.TimestepSpacing, s.Config.LambdaMinClipped, len(p.times), strength)
	}
	p.prediction = s.Config.PredictionType
	if p.prediction == Epsilon && slices.ContainsFunc(p.levels[begin:], func(l level) bool { return l.alpha == 0 }) {
		return nil, errs.New(errs.Unsupported, "scheduler: rescale_betas_zero_snr leaves nothing of the picture at timestep %g, where prediction_type epsilon can't tell it", p.times[0])
	}
	p.times, p.levels = p.times[begin:], p.levels[begin:]
	p.method = &from{p.method, begin}
	return p, nil
}

// from is a method that begins at a later step.
type from struct {
	method
	begin int
}

func (f *from) step(i int, x, out, noise []float32) { f.method.step(i+f.begin, x, out, noise) }
func (f *from) noisy(i int) bool                    { return f.method.noisy(i + f.begin) }

// Timesteps are what the network is told at each step, a copy. Some schedulers ask it twice in one
// step: there may be more of them than steps.
func (p *Sampler) Timesteps() []float64 { return slices.Clone(p.times) }

// InitialSigma is the factor on noise of variance one that sampling begins with.
func (p *Sampler) InitialSigma() float64 { return p.initial }

// ScaleInput writes what the network is given at step i into dst.
func (p *Sampler) ScaleInput(dst, x []float32, i int) {
	factor := 1.0
	if p.scaled {
		factor = 1 / math.Hypot(p.levels[i].alpha, p.levels[i].sigma)
	}
	for j := range dst {
		dst[j] = float32(float64(x[j]) * factor)
	}
}

// AddNoise writes the picture x as it would be ahead of step i into dst.
func (p *Sampler) AddNoise(dst, x, noise []float32, i int) { p.levels[i].addNoise(dst, x, noise) }

// Denoised writes the picture that the network sees in x at step i into dst, by its output: what
// previews show.
func (p *Sampler) Denoised(dst, x, out []float32, i int) {
	l := p.levels[i]
	for j := range dst {
		dst[j] = float32(l.original(p.prediction, float64(x[j]), float64(out[j])))
	}
}

// Noisy says whether step i takes noise.
func (p *Sampler) Noisy(i int) bool { return p.method.noisy(i) }

// Step replaces x by the picture behind step i, by the network's output for it. noise has variance
// one, and is not looked at where [Sampler.Noisy] is false. All have the picture's length.
func (p *Sampler) Step(i int, x, out, noise []float32) { p.method.step(i, x, out, noise) }

// levelsAt are the levels of timesteps.
func (s *Schedule) levelsAt(times []float64) []level {
	levels := make([]level, len(times))
	for i, t := range times {
		levels[i] = s.at(int(t))
	}
	return levels
}

// before is the level at a timestep behind a step; below 0 nothing is left to remove.
func (s *Schedule) before(t int) level {
	switch {
	case t >= 0:
		return s.at(t)
	case s.Config.SetAlphaToOne:
		return level{1, 0}
	}
	return s.at(0)
}

// bound clips or thresholds predicted pictures, where the configuration says so.
func (c *Config) bound(original []float64) {
	limit := c.ClipSampleRange
	switch {
	case c.Thresholding:
		limit = c.threshold(original)
	case !c.ClipSample:
		return
	}
	for i, x := range original {
		x = min(max(x, -limit), limit)
		if c.Thresholding {
			x /= limit
		}
		original[i] = x
	}
}

// threshold is a percentile of the picture's absolute numbers, at least 1 (dynamic thresholding;
// Saharia et al. 2022).
func (c *Config) threshold(original []float64) float64 {
	magnitudes := make([]float64, len(original))
	for i, x := range original {
		magnitudes[i] = math.Abs(x)
	}
	slices.Sort(magnitudes)
	place := c.DynamicThresholdingRatio * float64(len(magnitudes)-1)
	low := int(place)
	high := min(low+1, len(magnitudes)-1)
	s := magnitudes[low] + (magnitudes[high]-magnitudes[low])*(place-float64(low))
	return min(max(s, 1), c.SampleMaxValue)
}
