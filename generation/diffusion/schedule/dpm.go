package schedule

import (
	"math"
	"slices"
	"sort"
	"strings"
)

// dpmSolver are the multistep solvers of DPM-Solver and DPM-Solver++ (Lu et al. 2022), of orders 1
// to 3, and their stochastic forms.
type dpmSolver struct {
	s      *Schedule
	levels []level // one more than there are steps
	steps  int
	outs   [][]float64 // converted outputs, the newest at the end, at most the order
	plus   bool        // predicts pictures, not noise
	noised bool
}

func (s *Schedule) dpmSolver(steps int) (*Sampler, error) {
	c := &s.Config
	times := rounded(c.spaced(steps, s.lastClipped(), true))
	if err := s.checkTimes(times, steps); err != nil {
		return nil, err
	}
	sigmas, times := s.sigmaSteps(times)
	if (c.UseKarrasSigmas || c.UseLuLambdas) && c.BetaSchedule != "squaredcos_cap_v2" {
		times = rounded(times)
	}
	for i, t := range times { // it tells networks whole timesteps
		times[i] = math.Trunc(t)
	}
	levels := make([]level, len(sigmas))
	for i, x := range sigmas {
		levels[i] = ofSigma(float64(float32(x)))
	}
	m := &dpmSolver{s: s, levels: levels, steps: len(times), plus: strings.HasSuffix(c.AlgorithmType, "++"), noised: strings.HasPrefix(c.AlgorithmType, "sde")}
	return &Sampler{times: times, levels: levels[:len(times)], initial: 1, method: m}, nil
}

// lastClipped is the number of timesteps whose lambda is not below lambda_min_clipped.
func (s *Schedule) lastClipped() int {
	n := s.Timesteps()
	return sort.Search(n, func(t int) bool { return s.at(t).lambda() < s.Config.LambdaMinClipped })
}

func (m *dpmSolver) noisy(int) bool { return m.noised }

// order is that of step i: the first ones have no outputs to look back at, the last ones are lower
// for stability.
func (m *dpmSolver) order(i int) int {
	c := &m.s.Config
	few := c.LowerOrderFinal && m.steps < 15
	limit := c.SolverOrder
	switch {
	case i == m.steps-1 && (c.EulerAtFinal || few || c.FinalSigmasType == "zero"):
		limit = 1
	case i == m.steps-2 && few:
		limit = min(limit, 2)
	}
	return min(limit, len(m.outs))
}

func (m *dpmSolver) step(i int, x, out, noise []float32) {
	m.outs = append(m.outs[max(0, len(m.outs)-m.s.Config.SolverOrder+1):], m.converted(i, x, out))
	order := m.order(i)
	d := m.differences(i, order)
	sample, terms, spread := m.coefficients(i, order)
	for j := range x {
		y := sample * float64(x[j])
		for k, w := range terms {
			y += w * d[k][j]
		}
		if m.noised {
			y += spread * float64(noise[j])
		}
		x[j] = float32(y)
	}
}

// converted is what the solver integrates: the predicted picture or noise.
func (m *dpmSolver) converted(i int, x, out []float32) []float64 {
	c, l := &m.s.Config, m.levels[i]
	y := make([]float64, len(x))
	if m.plus || c.Thresholding {
		for j := range x {
			y[j] = l.original(c.PredictionType, float64(x[j]), float64(out[j]))
		}
		if c.Thresholding {
			c.bound(y)
		}
		if !m.plus {
			for j := range x {
				y[j] = (float64(x[j]) - l.alpha*y[j]) / l.sigma
			}
		}
		return y
	}
	for j := range x {
		y[j] = l.epsilon(c.PredictionType, float64(x[j]), float64(out[j]))
	}
	return y
}

// differences are D0, D1 and D2 of the papers: the newest output and divided differences of it and
// those before.
func (m *dpmSolver) differences(i, order int) [][]float64 {
	newest := len(m.outs) - 1
	d := [][]float64{m.outs[newest]}
	if order == 1 {
		return d
	}
	h := m.levels[i+1].lambda() - m.levels[i].lambda()
	r0 := (m.levels[i].lambda() - m.levels[i-1].lambda()) / h
	d1 := divided(m.outs[newest], m.outs[newest-1], r0)
	if order == 2 {
		return append(d, d1)
	}
	r1 := (m.levels[i-1].lambda() - m.levels[i-2].lambda()) / h
	older := divided(m.outs[newest-1], m.outs[newest-2], r1)
	d2 := divided(d1, older, r0+r1)
	for j := range d1 {
		d1[j] += r0 * d2[j]
	}
	return append(d, d1, d2)
}

func divided(a, b []float64, by float64) []float64 {
	out := slices.Clone(a)
	for j := range out {
		out[j] = (a[j] - b[j]) / by
	}
	return out
}

// coefficients are the factors of a step on the picture, on the differences, and on noise: the
// papers' exponential integrals. The stochastic third order's is diffusers'.
func (m *dpmSolver) coefficients(i, order int) (sample float64, terms []float64, noise float64) {
	from, to := m.levels[i], m.levels[i+1]
	h := to.lambda() - from.lambda()
	var scale, z float64 // the differences' common factor, and how far the exponent goes
	switch m.s.Config.AlgorithmType {
	case "dpmsolver++":
		sample, scale, z = to.sigma/from.sigma, to.alpha, -h
	case "sde-dpmsolver++":
		sample, scale, z = to.sigma/from.sigma*math.Exp(-h), to.alpha, -2*h
		noise = to.sigma * math.Sqrt(1-math.Exp(-2*h))
	case "dpmsolver":
		sample, scale, z = to.alpha/from.alpha, to.sigma, h
	default: // sde-dpmsolver
		sample, scale, z = to.alpha/from.alpha, 2*to.sigma, h
		noise = to.sigma * math.Sqrt(math.Exp(2*h)-1)
	}
	first := math.Expm1(z) // e^z - 1
	terms = []float64{-scale * first}
	if order == 1 {
		return sample, terms, noise
	}
	second := -scale * (first/z - 1)
	if order == 2 && m.s.Config.SolverType == "midpoint" {
		second = -0.5 * scale * first
	}
	terms = append(terms, second)
	if order == 3 {
		half := 0.5
		if m.s.Config.AlgorithmType == "sde-dpmsolver++" {
			half = -half
		}
		terms = append(terms, -scale*((first-z)/(z*z)-half))
	}
	return sample, terms, noise
}
