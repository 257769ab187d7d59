package schedule

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// pndm are pseudo numerical methods on manifolds (Liu et al. 2022): linear multistep, after four
// steps of Runge-Kutta, or, where these are skipped, one step of Euler that is corrected once.
type pndm struct {
	s       *Schedule
	times   []float64
	stride  int // timesteps in a step
	prk     int // how many of times are Runge-Kutta's
	begin   int
	outs    [][]float32 // the network's last outputs, the newest at the end
	sum     []float64   // of a step of Runge-Kutta
	started []float32   // the picture ahead of a step that asks the network more than once
}

// maxPRK is how many steps Runge-Kutta makes.
const maxPRK = 4

func (s *Schedule) pndm(steps, begin int) (*Sampler, error) {
	times := rounded(s.Config.spaced(steps, s.Timesteps(), false))
	m := &pndm{s: s, stride: s.Timesteps() / steps, begin: begin}
	switch {
	case !s.Config.SkipPRKSteps && (steps < maxPRK || begin > 0):
		return nil, errs.New(errs.Unsupported, "scheduler: PNDM without skip_prk_steps takes %d steps or more, and no strength below 1; there are %d from %d", maxPRK, steps, begin)
	case !s.Config.SkipPRKSteps:
		times = m.withRungeKutta(times)
	case steps > 1:
		times = slices.Insert(times, 1, times[1])
	}
	if err := s.checkTimes(times, steps); err != nil {
		return nil, err
	}
	m.times = times
	return &Sampler{times: times, levels: s.levelsAt(times), initial: 1, method: m}, nil
}

// withRungeKutta puts the timesteps of Runge-Kutta in front: each of its steps asks at both ends,
// and twice in the middle.
func (m *pndm) withRungeKutta(times []float64) []float64 {
	half := float64(m.stride / 2)
	var prk []float64
	for i := range maxPRK - 1 {
		middle := times[i+1] + half
		prk = append(prk, times[i], middle, middle, times[i+1])
	}
	m.prk = len(prk)
	return append(prk, times[3:]...)
}

func (*pndm) noisy(int) bool { return false }

func (m *pndm) step(i int, x, out, _ []float32) {
	i -= m.begin
	if i < m.prk {
		m.rungeKutta(i, x, out)
	} else {
		m.multistep(i, x, out)
	}
}

// weights of Runge-Kutta's four slopes.
var weights = [4]float64{1. / 6, 1. / 3, 1. / 3, 1. / 6}

func (m *pndm) rungeKutta(i int, x, out []float32) {
	first := i / 4 * 4
	t := int(m.times[i])
	next := t
	if i%2 == 0 {
		next = t - m.stride/2
	}
	if i == first {
		m.outs = append(m.outs, slices.Clone(out))
		m.started, m.sum = slices.Clone(x), make([]float64, len(x))
	}
	slope := make([]float64, len(x))
	for j := range x {
		m.sum[j] += weights[i%4] * float64(out[j])
		slope[j] = float64(out[j])
		if i%4 == 3 {
			slope[j] = m.sum[j]
		}
	}
	m.move(x, m.started, slope, int(m.times[first]), next)
}

// The multistep weights by how many outputs there are, the newest first (Adams-Bashforth).
var multistepWeights = [][]float64{{1}, {3. / 2, -1. / 2}, {23. / 12, -16. / 12, 5. / 12}, {55. / 24, -59. / 24, 37. / 24, -9. / 24}}

func (m *pndm) multistep(i int, x, out []float32) {
	t := int(m.times[i+m.begin])
	next := t - m.stride
	sample := x
	slope := make([]float64, len(x))
	if corrected := i == 1 && m.prk == 0; corrected {
		t, next = t+m.stride, t
		sample = m.started
		for j := range slope {
			slope[j] = (float64(out[j]) + float64(m.outs[0][j])) / 2
		}
	} else {
		m.outs = append(m.outs[max(0, len(m.outs)-3):], slices.Clone(out))
		for k, w := range multistepWeights[len(m.outs)-1] {
			for j, o := range m.outs[len(m.outs)-1-k] {
				slope[j] += w * float64(o)
			}
		}
	}
	if i == 0 {
		m.started = slices.Clone(x)
	}
	m.move(x, sample, slope, t, next)
}

// move writes sample, moved from timestep t to next by the slope, into x: equation 9.
func (m *pndm) move(x, sample []float32, slope []float64, t, next int) {
	from, to := m.s.at(min(t, m.s.Timesteps()-1)), m.s.before(next)
	a, b := from.alpha*from.alpha, to.alpha*to.alpha
	denominator := a*to.sigma + from.alpha*from.sigma*to.alpha
	for j := range x {
		e := from.epsilon(m.s.Config.PredictionType, float64(sample[j]), slope[j])
		x[j] = float32(to.alpha/from.alpha*float64(sample[j]) - (b-a)*e/denominator)
	}
}
