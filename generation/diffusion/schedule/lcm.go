package schedule

import (
	"math"

	"github.com/foretoken/foretoken/internal/errs"
)

// lcm is multistep consistency sampling (Luo et al. 2023, algorithm 3).
type lcm struct {
	s     *Schedule
	times []float64
	steps int
}

// sigmaData is the pictures' standard deviation in the boundary condition.
const sigmaData = 0.5

func (s *Schedule) lcm(steps int) (*Sampler, error) {
	original := s.Config.OriginalInferenceSteps
	if steps > original {
		return nil, errs.New(errs.Invalid, "scheduler: %d steps; LCM takes at most the %d of original_inference_steps", steps, original)
	}
	stride := s.Timesteps() / original
	times := make([]float64, steps)
	for i := range times {
		place := int(math.Floor(float64(i) * (float64(original) / float64(steps))))
		times[i] = float64((original-place)*stride - 1)
	}
	return &Sampler{times: times, levels: s.levelsAt(times), initial: 1, method: &lcm{s, times, steps}}, nil
}

func (m *lcm) noisy(i int) bool { return i != m.steps-1 }

func (m *lcm) step(i int, x, out, noise []float32) {
	from := m.s.at(int(m.times[i]))
	original := make([]float64, len(x))
	for j := range x {
		original[j] = from.original(m.s.Config.PredictionType, float64(x[j]), float64(out[j]))
	}
	m.s.Config.bound(original)
	scaled := m.times[i] * m.s.Config.TimestepScaling
	skip := sigmaData * sigmaData / (scaled*scaled + sigmaData*sigmaData)
	keep := scaled / math.Hypot(scaled, sigmaData)
	for j := range x {
		denoised := keep*original[j] + skip*float64(x[j])
		if m.noisy(i) {
			to := m.s.at(int(m.times[i+1]))
			denoised = to.alpha*denoised + to.sigma*float64(noise[j])
		}
		x[j] = float32(denoised)
	}
}
