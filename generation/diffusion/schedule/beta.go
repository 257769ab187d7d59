package schedule

import "math"

// betaSpaced lays out n sigmas, descending, at the quantiles of a beta distribution with both parameters
// 0.6 (Lee et al. 2024).
func betaSpaced(low, high float64, n int) []float64 {
	const parameter = 0.6
	out := linspace(0, 1, n)
	for i, x := range out {
		out[i] = low + betaQuantile(1-x, parameter)*(high-low)
	}
	return out
}

// betaQuantile is where a beta distribution with both parameters a has the part p below it, by bisection.
// The distribution is symmetric.
func betaQuantile(p, a float64) float64 {
	if p > 0.5 {
		return 1 - betaQuantile(1-p, a)
	}
	low, high := 0.0, 0.5
	for range 60 {
		middle := (low + high) / 2
		if betaBelow(middle, a) < p {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2
}

// betaBelow is the part of the distribution below x, at most 0.5: the regularised incomplete beta
// function I_x(a,a), by its power series (DLMF 8.17.7).
func betaBelow(x, a float64) float64 {
	if x <= 0 {
		return 0
	}
	gammaA, _ := math.Lgamma(a)
	gamma2A, _ := math.Lgamma(2 * a)
	term, sum := 1.0, 1/a
	for k := 1.0; term > 1e-17; k++ { // x is at most one half
		term *= (k - a) / k * x
		sum += term / (a + k)
	}
	return math.Exp(a*math.Log(x)+gamma2A-2*gammaA) * sum
}
