package schedule

import "math"

// ddim are denoising diffusion implicit models (Song et al. 2021).
type ddim struct {
	s      *Schedule
	times  []float64
	stride int
}

func (s *Schedule) ddim(steps int) (*Sampler, error) {
	times := rounded(s.Config.spaced(steps, s.Timesteps(), false))
	if err := s.checkTimes(times, steps); err != nil {
		return nil, err
	}
	return &Sampler{times: times, levels: s.levelsAt(times), initial: 1, method: &ddim{s, times, s.Timesteps() / steps}}, nil
}

func (m *ddim) noisy(int) bool { return m.s.Eta > 0 }

// step is equation 12: of the noise that is left behind it, a part is the network's and a part is new.
func (m *ddim) step(i int, x, out, noise []float32) {
	t := int(m.times[i])
	from, to := m.s.at(t), m.s.before(t-m.stride)
	original := make([]float64, len(x))
	for j := range x {
		original[j] = from.original(m.s.Config.PredictionType, float64(x[j]), float64(out[j]))
	}
	m.s.Config.bound(original)
	fresh := m.s.Eta * freshNoise(from, to)
	kept := math.Sqrt(max(to.sigma*to.sigma-fresh*fresh, 0))
	for j := range x {
		e := from.epsilon(m.s.Config.PredictionType, float64(x[j]), float64(out[j]))
		y := to.alpha*original[j] + kept*e
		if fresh > 0 {
			y += fresh * float64(noise[j])
		}
		x[j] = float32(y)
	}
}

// freshNoise is equation 16 at eta 1: the deviation of the noise that a step of the process that
// networks are trained on (Ho et al. 2020) puts back.
func freshNoise(from, to level) float64 {
	ratio := from.alpha / to.alpha
	return to.sigma / from.sigma * math.Sqrt(max(1-ratio*ratio, 0))
}
