package tuning

import (
	"math"

	"github.com/foretoken/foretoken/graph"
)

// AdamW's constants, PyTorch's defaults.
const (
	beta1   = 0.9
	beta2   = 0.999
	epsilon = 1e-8
)

// optimizerState is what an optimiser remembers of a parameter.
type optimizerState struct {
	first, second []float32 // momentum; AdamW's second moment
}

// Update changes a parameter's values by one step (counted from 1) along gradient, in place, as PyTorch's
// torch.optim.SGD and AdamW do, without dampening, Nesterov or AMSGrad.
func (o Optimizer) Update(p *Parameter, gradient []float32, step int, rate float64) {
	values, state := p.values, &p.state
	if o.Name == "adamw" {
		o.adamw(values, gradient, state, step, rate)
		return
	}
	for i, g := range gradient {
		d := float64(g) + o.WeightDecay*float64(values[i])
		if step > 1 {
			d += o.Momentum * float64(state.first[i])
		}
		state.first[i] = float32(d)
		values[i] = float32(float64(values[i]) - rate*d)
	}
}

func (o Optimizer) adamw(values, gradient []float32, state *optimizerState, step int, rate float64) {
	scale1 := 1 - math.Pow(beta1, float64(step))
	scale2 := 1 - math.Pow(beta2, float64(step))
	for i, g := range gradient {
		v := float64(values[i]) * (1 - rate*o.WeightDecay)
		m1 := beta1*float64(state.first[i]) + (1-beta1)*float64(g)
		m2 := beta2*float64(state.second[i]) + (1-beta2)*float64(g)*float64(g)
		state.first[i], state.second[i] = float32(m1), float32(m2)
		values[i] = float32(v - rate*m1/scale1/(math.Sqrt(m2/scale2)+epsilon))
	}
}

// Rate is the learning rate of an epoch, counted from 0. After a constant warm-up the cosine
// counts on over all epochs (Dassl, the code of CoOp); after a linear one it spans those that
// are left (VPT), and the ramp reaches the full rate when it ends.
func (s Schedule) Rate(base float64, epoch int) float64 {
	if epoch < s.WarmupEpochs && s.Warmup == "constant" {
		return s.WarmupRate
	}
	if epoch < s.WarmupEpochs && s.Warmup == "linear" {
		return base * float64(epoch+1) / float64(s.WarmupEpochs+1)
	}
	done, all := epoch, s.Epochs
	switch s.Warmup {
	case "constant":
		done -= s.WarmupEpochs
	case "linear":
		done, all = done-s.WarmupEpochs, all-s.WarmupEpochs
	}
	return base / 2 * (1 + math.Cos(math.Pi*float64(done)/float64(all)))
}

// Parameter is one learned tensor with its optimiser's state.
type Parameter struct {
	Name   string
	Tensor *graph.Tensor
	values []float32 // the tensor's elements
	state  optimizerState
}

// NewParameter makes a parameter that starts from values, which it keeps and changes. Its optimiser's state is zero.
func NewParameter(name string, values []float32, dims ...int64) *Parameter {
	return &Parameter{
		Name: name, Tensor: graph.NewTensor(values, dims...), values: values,
		state: optimizerState{make([]float32, len(values)), make([]float32, len(values))},
	}
}

// Values are the parameter's numbers as they stand, its own.
func (p *Parameter) Values() []float32 { return p.values }
