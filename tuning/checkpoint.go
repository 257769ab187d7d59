package tuning

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"slices"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// State is where a run stands. Random numbers need none: they follow from the seed and the step.
type State struct {
	Step   int // steps done
	Params []*Parameter
	Scale  LossScale // of gradients in half floats
}

// checkpoint is a state as it is written.
type checkpoint struct {
	Step   int
	Recipe []byte // JSON, resolved
	Params []savedParameter
	Scale  LossScale
}

// savedParameter is a parameter in a checkpoint, its optimiser's state with it.
type savedParameter struct {
	Name                  string
	Dims                  []int64
	Values, First, Second []float32
}

// EncodeCheckpoint writes a state of a run of a resolved recipe, and behind it what more the method keeps.
func EncodeCheckpoint(r *Recipe, s State, more ...any) ([]byte, error) {
	recipe, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	c := checkpoint{Step: s.Step, Recipe: recipe, Scale: s.Scale}
	for _, p := range s.Params {
		c.Params = append(c.Params, savedParameter{p.Name, p.Tensor.Dims, p.values, p.state.first, p.state.second})
	}
	var out bytes.Buffer
	e := gob.NewEncoder(&out)
	for _, v := range append([]any{c}, more...) {
		if err := e.Encode(v); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// DecodeCheckpoint reads what [EncodeCheckpoint] wrote; more points to where the rest goes. Bytes that are no checkpoint,
// and numbers that don't fit their extents, are errors of kind [errs.Invalid]; another recipe's is one of kind
// [errs.Conflict].
func DecodeCheckpoint(b []byte, r *Recipe, more ...any) (State, error) {
	var c checkpoint
	d := gob.NewDecoder(bytes.NewReader(b))
	for _, into := range append([]any{&c}, more...) {
		if err := d.Decode(into); err != nil {
			return State{}, errs.New(errs.Invalid, "checkpoint: %w", err)
		}
	}
	recipe, err := json.Marshal(r)
	if err != nil {
		return State{}, err
	}
	if !bytes.Equal(recipe, c.Recipe) {
		return State{}, errs.New(errs.Conflict, "checkpoint is of another recipe: %s, this run's is %s", c.Recipe, recipe)
	}
	s := State{Step: c.Step, Scale: c.Scale}
	for _, saved := range c.Params {
		if n := graph.Count(saved.Dims); n != int64(len(saved.Values)) || len(saved.First) != len(saved.Values) || len(saved.Second) != len(saved.Values) {
			return State{}, errs.New(errs.Invalid, "checkpoint: %q is damaged: %d values, dims %v", saved.Name, len(saved.Values), saved.Dims)
		}
		p := NewParameter(saved.Name, saved.Values, saved.Dims...)
		p.state = optimizerState{saved.First, saved.Second}
		s.Params = append(s.Params, p)
	}
	return s, nil
}

// Learns refuses a state of other parameters than these: of other names or extents.
func (s State) Learns(params []*Parameter) error {
	if len(s.Params) != len(params) {
		return errs.New(errs.Invalid, "checkpoint: %d tensors, this run learns %d", len(s.Params), len(params))
	}
	for i, p := range s.Params {
		if mine := params[i]; p.Name != mine.Name || !slices.Equal(p.Tensor.Dims, mine.Tensor.Dims) {
			return errs.New(errs.Invalid, "checkpoint: %q%v in the place of %q%v", p.Name, p.Tensor.Dims, mine.Name, mine.Tensor.Dims)
		}
	}
	return nil
}
