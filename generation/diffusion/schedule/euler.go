package schedule

import (
	"math"
	"slices"
)

// euler are steps of Euler along the probability flow, over sigmas (Karras et al. 2022, algorithm 1);
// the ancestral kind goes further down and adds noise back.
type euler struct {
	prediction string
	sigmas     []float64
	ancestral  bool
}

func (s *Schedule) euler(steps int) (*Sampler, error) {
	c := &s.Config
	times := c.spaced(steps, s.Timesteps(), false)
	for i, t := range times {
		times[i] = float64(float32(t))
	}
	if err := s.checkTimes(times, steps); err != nil {
		return nil, err
	}
	var sigmas []float64
	if c.Class == Euler {
		sigmas, times = s.sigmaSteps(times)
	} else {
		sigmas = append(s.interpolated(s.sigmas(), times), 0)
	}
	levels := make([]level, len(times))
	for i := range sigmas {
		sigmas[i] = float64(float32(sigmas[i]))
	}
	for i := range levels {
		levels[i] = level{1, sigmas[i]}
		times[i] = float64(float32(times[i]))
		if c.Class == Euler && c.TimestepType == "continuous" && c.PredictionType == Velocity {
			times[i] = 0.25 * math.Log(sigmas[i])
		}
	}
	initial := slices.Max(sigmas)
	if c.TimestepSpacing == "leading" {
		initial = math.Hypot(initial, 1)
	}
	return &Sampler{
		times: times, levels: levels, scaled: true, initial: initial,
		method: &euler{c.PredictionType, sigmas, c.Class == EulerAncestral},
	}, nil
}

func (m *euler) noisy(i int) bool { return m.ancestral && m.sigmas[i+1] > 0 }

func (m *euler) step(i int, x, out, noise []float32) {
	from, to := level{1, m.sigmas[i]}, m.sigmas[i+1]
	up, down := 0.0, to
	if m.ancestral {
		up = math.Sqrt(to * to * (from.sigma*from.sigma - to*to) / (from.sigma * from.sigma))
		down = math.Sqrt(to*to - up*up)
	}
	for j := range x {
		sample := float64(x[j])
		slope := (sample - from.original(m.prediction, sample, float64(out[j]))) / from.sigma
		sample += slope * (down - from.sigma)
		if up > 0 {
			sample += up * float64(noise[j])
		}
		x[j] = float32(sample)
	}
}
