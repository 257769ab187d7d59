package tuning

import (
	"math"

	"github.com/foretoken/foretoken/internal/errs"
)

// The loss scale's start, after how many good steps it doubles, and below what it gives up, as PyTorch's
// GradScaler has them.
const (
	scaleStart    = 1 << 16
	scalePatience = 2000
	scaleLeast    = 1.0 / (1 << 14)
)

// LossScale keeps gradients that are computed in half floats within their range (Micikevicius et al. 2018): the loss
// is multiplied by Value before it is differentiated, and the gradients are divided by it. A step with a gradient
// that is not finite is skipped and halves the factor; it doubles after scalePatience steps without one. The
// zero value starts at scaleStart.
type LossScale struct {
	Value   float64
	Good    int // steps since it last changed
	Skipped int // steps, of all
}

// Factor is what the next step's loss is multiplied by.
func (s *LossScale) Factor() float64 {
	if s.Value == 0 {
		s.Value = scaleStart
	}
	return s.Value
}

// Unscale divides the gradients by the factor that they were computed with, and moves the factor. It is false for
// a step to skip. A factor below scaleLeast is an error of kind [errs.Invalid].
func (s *LossScale) Unscale(gradients map[string][]float32) (usable bool, err error) {
	by := s.Factor()
	if !finite(gradients) {
		s.Value, s.Good = by/2, 0
		s.Skipped++
		if s.Value < scaleLeast {
			return false, errs.New(errs.Invalid, "gradients overflow half floats even with the loss scaled by %g: lower optimizer.learning_rate, or use a model in floats", by)
		}
		return false, nil
	}
	for _, g := range gradients {
		for i := range g {
			g[i] = float32(float64(g[i]) / by)
		}
	}
	if s.Good++; s.Good == scalePatience {
		s.Value, s.Good = by*2, 0
	}
	return true, nil
}

func finite(gradients map[string][]float32) bool {
	for _, g := range gradients {
		for _, x := range g {
			if v := float64(x); math.IsNaN(v) || math.IsInf(v, 0) {
				return false
			}
		}
	}
	return true
}
