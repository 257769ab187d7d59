package tuning

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/rng"
)

// newParameters initialises what a recipe learns, in a fixed order.
func (m *Model) newParameters(r *Recipe, classes int) ([]*Parameter, error) {
	var params []*Parameter
	if r.learnsContext() {
		context, err := m.newContext(r, classes)
		if err != nil {
			return nil, err
		}
		params = append(params, context...)
	}
	switch r.Method {
	case VPT:
		params = append(params, m.newVisual(r)...)
	case MaPLe:
		params = append(params, m.newCouplings(r)...)
	}
	return params, nil
}

// newContext draws context from N(0, Std); the first layer's first tokens start from words
// where the recipe gives some (CoOp).
func (m *Model) newContext(r *Recipe, classes int) ([]*Parameter, error) {
	rows := 1
	if r.Context.ClassSpecific {
		rows = classes
	}
	width := m.Texts.Info.Width
	var params []*Parameter
	for layer := range r.Context.Depth {
		g := rng.New(r.Seed, "context", layer)
		values := make([]float32, rows*r.Context.Tokens*width)
		for i := range values {
			values[i] = float32(g.NormFloat64() * r.Context.Std)
		}
		if layer == 0 && r.Context.Init != "" {
			words, err := m.Texts.WordEmbeddings(r.Context.Init)
			if err != nil {
				return nil, err
			}
			start, err := graph.Values[float32](words)
			if err != nil {
				return nil, err
			}
			for row := range rows {
				copy(values[row*r.Context.Tokens*width:(row+1)*r.Context.Tokens*width], start)
			}
		}
		params = append(params, NewParameter(graph.PromptName("context", layer), values, int64(rows), int64(r.Context.Tokens), int64(width)))
	}
	return params, nil
}

// newVisual draws image tokens uniformly from +-sqrt(6 / (3*p*p + D)), p the side of a patch
// (VPT, Jia et al. 2022).
func (m *Model) newVisual(r *Recipe) []*Parameter {
	width, patch := m.Images.Width(), m.Images.PatchSize()
	limit := math.Sqrt(6 / float64(3*patch*patch+width))
	var params []*Parameter
	for layer := range r.Visual.Depth {
		values := uniform(rng.New(r.Seed, "visual", layer), r.Visual.Tokens*width, limit)
		params = append(params, NewParameter(graph.PromptName("visual", layer), values, 1, int64(r.Visual.Tokens), int64(width)))
	}
	return params
}

// newCouplings draws MaPLe's linear maps from context to image tokens, a map a layer, as
// PyTorch initialises nn.Linear: uniform in +-1/sqrt(D).
func (m *Model) newCouplings(r *Recipe) []*Parameter {
	in, out := m.Texts.Info.Width, m.Images.Width()
	limit := 1 / math.Sqrt(float64(in))
	var params []*Parameter
	for layer := range r.Visual.Depth {
		g := rng.New(r.Seed, "couple", layer)
		params = append(params,
			NewParameter(couplingName(layer, "weight"), uniform(g, in*out, limit), int64(out), int64(in)),
			NewParameter(couplingName(layer, "bias"), uniform(g, out, limit), int64(out)))
	}
	return params
}

func couplingName(layer int, part string) string { return fmt.Sprintf("couple.%d.%s", layer, part) }

func uniform(g *rand.Rand, n int, limit float64) []float32 {
	values := make([]float32, n)
	for i := range values {
		values[i] = float32((2*g.Float64() - 1) * limit)
	}
	return values
}

// couple computes y = x W^T + b for x [K,in], W [out,in], b [out].
func couple(x, weight, bias []float32) []float32 {
	out := len(bias)
	in := len(weight) / out
	y := make([]float32, len(x)/in*out)
	for k := range len(x) / in {
		for o := range out {
			sum := float64(bias[o])
			for i := range in {
				sum += float64(x[k*in+i]) * float64(weight[o*in+i])
			}
			y[k*out+o] = float32(sum)
		}
	}
	return y
}

// coupleBackward adds to dx, and returns the gradients of W and b, given dy [K,out].
func coupleBackward(x, weight, dy, dx []float32, out int) (dWeight, dBias []float32) {
	in := len(weight) / out
	dWeight, dBias = make([]float32, len(weight)), make([]float32, out)
	for k := range len(x) / in {
		for o := range out {
			d := dy[k*out+o]
			dBias[o] += d
			for i := range in {
				dWeight[o*in+i] += d * x[k*in+i]
				dx[k*in+i] += d * weight[o*in+i]
			}
		}
	}
	return dWeight, dBias
}
