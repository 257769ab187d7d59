package diffusion

import "github.com/foretoken/foretoken/internal/rng"

// noiseSource draws n numbers of a normal distribution for a purpose and step of a seed.
type noiseSource func(seed uint64, purpose string, step, n int) []float32

// What noise is for.
const (
	forLatents   = "latents"   // where sampling begins
	forStep      = "step"      // what a sampler adds behind a step
	forPosterior = "posterior" // which latents of an image are taken
	forMasked    = "masked"    // and of the image without what the mask covers
)

// drawNormal is the noise of everyday: of the seed and the purpose alone.
func drawNormal(seed uint64, purpose string, step, n int) []float32 {
	r := rng.New(seed, "diffusion", purpose, step)
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	return out
}
