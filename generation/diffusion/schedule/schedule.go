package schedule

import (
	"math"

	"github.com/foretoken/foretoken/internal/errs"
)

// Schedule says how much noise a picture has at each timestep. It is safe for concurrent use.
type Schedule struct {
	Config Config
	// Eta, 0 to 1, is how much of the noise that training has at each step DDIM puts back; by default
	// none. The other classes take 0 alone.
	Eta float64
	// alphas is the product of 1 - beta up to each timestep: the part of the picture's variance that
	// is left. In float32, as diffusers computes it.
	alphas []float32
}

// New makes the tables of a configuration from [Parse].
func New(c Config) (*Schedule, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Schedule{Config: c, alphas: alphasCumprod(c)}
	if last := s.alphas[len(s.alphas)-1]; !(last >= 0 && s.alphas[0] < 1) {
		return nil, errs.New(errs.Invalid, "scheduler_config.json: betas leave %g of the picture at the end; it is 0 to 1", last)
	}
	return s, nil
}

// Timesteps is how many timesteps the network was trained on: they are 0 to Timesteps()-1.
func (s *Schedule) Timesteps() int { return len(s.alphas) }

// AlphasCumprod is the part of the picture's variance that is left at each timestep, a copy.
func (s *Schedule) AlphasCumprod() []float32 { return append([]float32(nil), s.alphas...) }

// AddNoise writes the picture x at timestep t into dst: sqrt(a) x + sqrt(1-a) noise, with a of
// AlphasCumprod (Ho et al. 2020, equation 4). All have one length. t must be in range.
func (s *Schedule) AddNoise(dst, x, noise []float32, t int) { s.at(t).addNoise(dst, x, noise) }

// Velocity writes the target of v prediction into dst: sqrt(a) noise - sqrt(1-a) x (Salimans and Ho
// 2022, appendix D).
func (s *Schedule) Velocity(dst, x, noise []float32, t int) {
	l := s.at(t)
	for i := range dst {
		dst[i] = float32(l.alpha*float64(noise[i]) - l.sigma*float64(x[i]))
	}
}

// Target writes what the network is trained to give at timestep t, by the schedule's prediction
// type: the noise, the velocity or the picture x.
func (s *Schedule) Target(dst, x, noise []float32, t int) {
	switch s.Config.PredictionType {
	case Velocity:
		s.Velocity(dst, x, noise, t)
	case Original:
		copy(dst, x)
	default:
		copy(dst, noise)
	}
}

// at is the level of timestep t.
func (s *Schedule) at(t int) level { return variancePreserving(float64(s.alphas[t])) }

// level is a noise level: a picture x0 at it is alpha x0 + sigma noise.
type level struct{ alpha, sigma float64 }

// variancePreserving is the level at which the part a of the variance is the picture's.
func variancePreserving(a float64) level { return level{math.Sqrt(a), math.Sqrt(1 - a)} }

// ofSigma is the variance-preserving level with a ratio of noise to picture.
func ofSigma(sigma float64) level {
	alpha := 1 / math.Sqrt(sigma*sigma+1)
	return level{alpha, sigma * alpha}
}

// lambda is half the logarithm of the signal-to-noise ratio.
func (l level) lambda() float64 { return math.Log(l.alpha) - math.Log(l.sigma) }

func (l level) addNoise(dst, x, noise []float32) {
	for i := range dst {
		dst[i] = float32(l.alpha*float64(x[i]) + l.sigma*float64(noise[i]))
	}
}

// original is the picture that the network's output stands for.
func (l level) original(prediction string, x, out float64) float64 {
	switch prediction {
	case Original:
		return out
	case Velocity: // of the input that was scaled to variance one
		c := math.Hypot(l.alpha, l.sigma)
		return (l.alpha*x/c - l.sigma*out) / c
	}
	return (x - l.sigma*out) / l.alpha
}

// epsilon is the noise that the network's output stands for.
func (l level) epsilon(prediction string, x, out float64) float64 {
	switch prediction {
	case Original:
		return (x - l.alpha*out) / l.sigma
	case Velocity:
		return l.alpha*out + l.sigma*x
	}
	return out
}
