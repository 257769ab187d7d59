package schedule

import "math"

// alphasCumprod multiplies 1 - beta, in the precision of diffusers: betas in float32, the running
// product in float64, rounded at each timestep.
func alphasCumprod(c Config) []float32 {
	b := betas(c)
	if c.RescaleZeroSNR {
		b = rescaleZeroSNR(b)
	}
	a := cumprod(b)
	if c.RescaleZeroSNR && (c.Class == Euler || c.Class == EulerAncestral || c.Class == DPMSolver) {
		a[len(a)-1] = 1.0 / (1 << 24) // their first sigma would be infinite
	}
	return a
}

func cumprod(betas []float32) []float32 {
	a := make([]float32, len(betas))
	product := 1.0
	for i, b := range betas {
		product *= float64(1 - b)
		a[i] = float32(product)
	}
	return a
}

func betas(c Config) []float32 {
	n := c.NumTrainTimesteps
	b := make([]float32, n)
	switch {
	case c.TrainedBetas != nil:
		for i := range b {
			b[i] = float32(c.TrainedBetas[i])
		}
	case c.BetaSchedule == "linear":
		linspace32(b, c.BetaStart, c.BetaEnd)
	case c.BetaSchedule == "scaled_linear":
		linspace32(b, math.Sqrt(c.BetaStart), math.Sqrt(c.BetaEnd))
		for i := range b {
			b[i] *= b[i]
		}
	default: // squaredcos_cap_v2: Nichol and Dhariwal 2021, equation 17, betas at most 0.999
		bar := func(t float64) float64 {
			cos := math.Cos((t + 0.008) / 1.008 * math.Pi / 2)
			return cos * cos
		}
		for i := range b {
			t, next := float64(i)/float64(n), float64(i+1)/float64(n)
			b[i] = float32(min(1-bar(next)/bar(t), 0.999))
		}
	}
	return b
}

// linspace32 is torch.linspace in float32: from both ends to the middle.
func linspace32(b []float32, from, to float64) {
	start, end, n := float32(from), float32(to), len(b)
	step := (end - start) / float32(n-1)
	for i := range b {
		if i < n/2 {
			b[i] = start + step*float32(i)
		} else {
			b[i] = end - step*float32(n-1-i)
		}
	}
}

// rescaleZeroSNR changes betas so that nothing of the picture is left at the last timestep (Lin et
// al. 2023, algorithm 1).
func rescaleZeroSNR(betas []float32) []float32 {
	root := cumprod(betas)
	for i := range root {
		root[i] = float32(math.Sqrt(float64(root[i])))
	}
	first, last := root[0], root[len(root)-1]
	out := make([]float32, len(betas))
	var before float32
	for i := range root {
		r := (root[i] - last) * (first / (first - last))
		bar := r * r
		if i == 0 {
			out[i] = 1 - bar
		} else {
			out[i] = 1 - bar/before
		}
		before = bar
	}
	return out
}
