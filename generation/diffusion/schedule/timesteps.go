package schedule

import (
	"math"
	"slices"
	"sort"

	"github.com/foretoken/foretoken/internal/errs"
)

// spaced are n of the timesteps 0 to last-1, descending, unrounded where they are linspaced (Lin et
// al. 2023, table 2). Where skip is set, one more is laid out and the smallest left out.
func (c *Config) spaced(n, last int, skip bool) []float64 {
	count := n
	if skip {
		count++
	}
	var times []float64
	switch c.TimestepSpacing {
	case "linspace":
		times = linspace(0, float64(last-1), count)
	case "leading":
		for i := range count {
			times = append(times, float64(i*(last/count)+c.StepsOffset))
		}
	default: // trailing
		return c.trailing(n, last)
	}
	slices.Reverse(times)
	return times[:n]
}

// trailing counts down from last, as numpy.arange does.
func (c *Config) trailing(n, last int) []float64 {
	ratio := float64(c.NumTrainTimesteps) / float64(n)
	start := float64(last)
	delta := start - ratio - start
	var times []float64
	for i := range int(math.Ceil(start / ratio)) {
		times = append(times, math.RoundToEven(start+float64(i)*delta)-1)
	}
	return times
}

// linspace is numpy's: n numbers from one to the other.
func linspace(from, to float64, n int) []float64 {
	out := make([]float64, n)
	out[0] = from
	if n == 1 {
		return out
	}
	step := (to - from) / float64(n-1)
	for i := range out {
		out[i] = float64(i)*step + from
	}
	out[n-1] = to
	return out
}

func rounded(times []float64) []float64 {
	for i, t := range times {
		times[i] = math.RoundToEven(t)
	}
	return times
}

// checkTimes refuses timesteps that the network was not trained on.
func (s *Schedule) checkTimes(times []float64, steps int) error {
	for _, t := range times {
		if t < 0 || t > float64(s.Timesteps()-1) {
			return errs.New(errs.Invalid, "scheduler: %d steps with timestep_spacing %s and steps_offset %d reach timestep %g; they are 0 to %d: take another number of steps",
				steps, s.Config.TimestepSpacing, s.Config.StepsOffset, t, s.Timesteps()-1)
		}
	}
	return nil
}

// sigmas is the ratio of noise to picture at each timestep, ascending.
func (s *Schedule) sigmas() []float64 {
	out := make([]float64, len(s.alphas))
	for i, a := range s.alphas {
		out[i] = float64(float32(math.Sqrt(float64((1 - a) / a))))
	}
	return out
}

// sigmaSteps are the sigmas of an Euler or DPM-Solver sampler, descending, with the one behind the
// last step; and its timesteps, which those of Karras and others change.
func (s *Schedule) sigmaSteps(times []float64) (sigmas, timesteps []float64) {
	c, n, table := &s.Config, len(times), s.sigmas()
	logs := make([]float64, len(table))
	for i, x := range table {
		logs[i] = float64(float32(math.Log(x)))
	}
	low, high := table[0], table[len(table)-1]
	if c.Class == Euler { // its own steps bound what Karras and others lay out
		sigmas = s.interpolated(table, times)
		low, high = sigmas[len(sigmas)-1], sigmas[0]
		if c.SigmaMin != nil {
			low = *c.SigmaMin
		}
		if c.SigmaMax != nil {
			high = *c.SigmaMax
		}
	}
	switch {
	case c.UseKarrasSigmas:
		sigmas = karras(low, high, n)
	case c.UseLuLambdas && c.Class == DPMSolver, c.UseExponentialSigmas:
		sigmas = exponential(low, high, n)
	case c.UseBetaSigmas:
		sigmas = betaSpaced(low, high, n)
	default:
		return append(s.interpolated(table, times), s.finalSigma()), times
	}
	for _, x := range sigmas {
		timesteps = append(timesteps, timestepOf(x, logs))
	}
	return append(sigmas, s.finalSigma()), timesteps
}

// interpolated are the sigmas at timesteps.
func (s *Schedule) interpolated(table, times []float64) []float64 {
	if s.Config.Class == Euler && s.Config.InterpolationType == "log_linear" {
		return exponential(table[0], table[len(table)-1], len(times)+1)
	}
	out := make([]float64, len(times))
	for i, t := range times {
		at := min(int(t), len(table)-2)
		out[i] = table[at] + (table[at+1]-table[at])*(t-float64(at))
	}
	return out
}

// finalSigma is what noise is left behind the last step.
func (s *Schedule) finalSigma() float64 {
	if s.Config.Class != EulerAncestral && s.Config.FinalSigmasType == "sigma_min" {
		return s.sigmas()[0]
	}
	return 0
}

// karras lays out n sigmas, descending, as Karras et al. 2022, equation 5, with rho = 7.
func karras(low, high float64, n int) []float64 {
	const rho = 7
	out := linspace(0, 1, n)
	from, to := math.Pow(high, 1./rho), math.Pow(low, 1./rho)
	for i, r := range out {
		out[i] = math.Pow(from+r*(to-from), rho)
	}
	return out
}

// exponential lays out n sigmas, descending, whose logarithms are evenly spaced.
func exponential(low, high float64, n int) []float64 {
	out := linspace(math.Log(high), math.Log(low), n)
	for i, l := range out {
		out[i] = math.Exp(l)
	}
	return out
}

// timestepOf is where a sigma lies between the timesteps, by logarithms that ascend.
func timestepOf(sigma float64, logs []float64) float64 {
	l := math.Log(max(sigma, 1e-10))
	above := sort.Search(len(logs), func(i int) bool { return logs[i] > l })
	at := min(max(above-1, 0), len(logs)-2)
	w := (logs[at] - l) / (logs[at] - logs[at+1])
	w = min(max(w, 0), 1)
	return (1-w)*float64(at) + w*float64(at+1)
}
