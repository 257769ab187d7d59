package schedule

// ddim are denoising diffusion implicit models (Song et al. 2021) without noise, eta = 0.
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

func (*ddim) noisy(int) bool { return false }

// step is equation 12.
func (m *ddim) step(i int, x, out, _ []float32) {
	t := int(m.times[i])
	from, to := m.s.at(t), m.s.before(t-m.stride)
	original := make([]float64, len(x))
	for j := range x {
		original[j] = from.original(m.s.Config.PredictionType, float64(x[j]), float64(out[j]))
	}
	m.s.Config.bound(original)
	for j := range x {
		e := from.epsilon(m.s.Config.PredictionType, float64(x[j]), float64(out[j]))
		x[j] = float32(to.alpha*original[j] + to.sigma*e)
	}
}
