package inspect

import (
	"context"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Options say how large the step is whose cost is estimated.
type Options struct {
	Batch   int  // images, or texts, a step
	Prompts int  // tokens a block
	Depth   int  // blocks that have prompts of their own; a tower of fewer has them at all
	Length  int  // tokens a text, context among them; 0 is the window
	Measure bool // run some steps as well
}

func (o Options) check() error {
	for _, f := range []struct {
		name         string
		value, least int
	}{{"batch", o.Batch, 1}, {"prompts", o.Prompts, 1}, {"depth", o.Depth, 1}, {"length", o.Length, 0}} {
		if f.value < f.least || f.value > 1<<20 {
			return errs.New(errs.Invalid, "%s is %d, must be %d to %d", f.name, f.value, f.least, 1<<20)
		}
	}
	return nil
}

// imageStep is the graph of a step through an image tower: from the tokens, which are computed once an image, to the
// embeddings, and back to the prompts. The loss's gradient by the embeddings is an input, "cotangent".
func imageStep(t *graph.ImageTower, s *Step) (*graph.Graph, error) {
	s.Depth = min(s.Depth, len(t.Blocks))
	if t.Batch > 0 {
		s.Batch = t.Batch
	}
	g, err := t.WithPrompts(graph.ImagePromptOptions{Tokens: s.Prompts, Depth: s.Depth, FromTokens: true})
	if err != nil {
		return nil, err
	}
	return g, differentiate(g, "visual", s)
}

// textStep is the same for a text tower, from token ids; context starts at the given place.
func textStep(t *graph.TextTower, start int, s *Step) (*graph.Graph, error) {
	s.Depth = min(s.Depth, len(t.Blocks))
	shortest, longest := t.Lengths()
	if s.Length == 0 {
		s.Length = t.Window
	}
	if s.Length == 0 {
		s.Length = defaultLength
	}
	s.Length = max(s.Length, shortest)
	if longest > 0 {
		s.Length = min(s.Length, longest)
	}
	if start+s.Prompts > s.Length {
		return nil, errs.New(errs.Invalid, "%d context tokens from place %d on are not possible in a text of %d tokens", s.Prompts, start, s.Length)
	}
	g, err := t.WithContext(graph.ContextOptions{Tokens: s.Prompts, Start: start, Depth: s.Depth})
	if err != nil {
		return nil, err
	}
	return g, differentiate(g, "context", s)
}

// decoderStep is the same for a decoder with a soft prefix, from token ids to their scores.
func decoderStep(t *graph.DecoderTower, s *Step) (*graph.Graph, error) {
	s.Depth = 1
	if s.Length == 0 {
		s.Length = captionLength
	}
	if longest := t.LongestText(s.Prompts); longest >= 0 {
		s.Length = min(s.Length, longest)
	}
	if n := extent(t.IDs, 1); n > 0 {
		s.Length = n
	}
	if s.Length < 1 {
		return nil, errs.New(errs.Invalid, "a prefix of %d tokens leaves no room for text in %d places", s.Prompts, t.Window)
	}
	g, err := t.WithPrefix(graph.PrefixOptions{Tokens: s.Prompts})
	if err != nil {
		return nil, err
	}
	g.Outputs = g.Outputs[:1] // without present keys and values
	g.Prune()
	g.PruneInputs()
	fixInputs(g, s.Batch, s.Length, t.IDs, t.Mask, t.Positions)
	fixInputs(g, s.Batch, encoded, t.Encoder, t.EncoderMask)
	for _, l := range t.Layers {
		length := 0 // nothing came before
		if l.Cross {
			length = encoded
		}
		for _, past := range []*graph.Value{l.PastKey, l.PastValue} {
			if v := fixInput(g, past, 0, s.Batch); v != nil {
				fix(v, 2, length)
			}
		}
	}
	return g, appendGradients(g, []string{"prefix"})
}

// captionLength is the length of a decoder's text in tokens where none is asked for.
const captionLength = 32

// encoded is the length of what a decoder's cross attention looks at: ViT-B/16's tokens, for example.
const encoded = 197

// fixInputs fixes the first two extents of the inputs that stand for a tower's.
func fixInputs(g *graph.Graph, rows, columns int, inputs ...*graph.Value) {
	for _, of := range inputs {
		if v := fixInput(g, of, 0, rows); v != nil {
			fix(v, 1, columns)
		}
	}
}

// fixInput fixes an extent of the input that stands for a tower's, which it returns; nil where there is none.
func fixInput(g *graph.Graph, of *graph.Value, axis, size int) *graph.Value {
	if of == nil || g.Input(of.Name) == nil {
		return nil
	}
	v := g.Input(of.Name)
	fix(v, axis, size)
	return v
}

// defaultLength is the length of texts in tokens where a tower has no window.
const defaultLength = 77

// differentiate fixes the extents that are open and appends the gradients by the prompts of each block.
func differentiate(g *graph.Graph, kind string, s *Step) error {
	for _, v := range g.Inputs {
		fix(v, 0, s.Batch)
		fix(v, 1, s.Length)
	}
	var prompts []string
	for i := range s.Depth {
		prompts = append(prompts, graph.PromptName(kind, i))
	}
	return appendGradients(g, prompts)
}

// appendGradients appends the gradients of the output by the prompts: "d.visual.0" and so on.
func appendGradients(g *graph.Graph, prompts []string) error {
	return g.Build(func(b *graph.Builder) {
		y := g.Outputs[0]
		var wrt []*graph.Value
		for _, name := range prompts {
			wrt = append(wrt, g.Input(name))
		}
		cotangent := b.Input("cotangent", y.Type, y.Shape)
		for i, d := range b.Gradient([]*graph.Value{y}, []*graph.Value{cotangent}, wrt) {
			b.Output("d."+prompts[i], d)
		}
	})
}

// fix sets an extent that the file leaves open.
func fix(v *graph.Value, axis, size int) {
	if axis >= len(v.Shape) {
		return
	}
	if _, fixed := v.Shape[axis].Int(); !fixed {
		v.Shape[axis] = graph.Known(int64(size))
	}
}

// step estimates what a step takes, and measures it where that is asked for. Reasons why a gradient can't be computed are
// the error; where the machine can't be measured, the step has no time.
func (in *inspector) step(build func(s *Step) (*graph.Graph, error)) (*Step, error) {
	s := &Step{Batch: in.options.Batch, Prompts: in.options.Prompts, Depth: in.options.Depth, Length: in.options.Length}
	g, err := build(s)
	if err != nil {
		return nil, err
	}
	// The CPU has no kernels for half floats: the runtime computes in floats.
	for _, half := range []graph.DataType{graph.Float16, graph.BFloat16} {
		if err := g.Widen(half); err != nil {
			return nil, err
		}
	}
	cost, err := g.Cost()
	if err != nil {
		return nil, err
	}
	s.Operations, s.Moved, s.Memory = cost.Products, cost.Moved, memory(cost)
	speed, err := calibrate()
	if err != nil {
		in.note("no estimate of time: " + err.Error())
		return s, nil
	}
	s.Seconds = speed.seconds(cost)
	if in.options.Measure {
		if s.MeasuredSeconds, s.MeasuredMemory, err = measure(in.ctx, g); err != nil {
			in.note("not measured: " + err.Error())
		}
	}
	return s, in.ctx.Err()
}

// measure runs some steps: their median in seconds, and the bytes that the process grew by at most.
func measure(ctx context.Context, g *graph.Graph) (seconds float64, bytes int64, err error) {
	before := startPeak()
	took, err := timed(ctx, g, 5)
	if err != nil {
		return 0, 0, err
	}
	return took[len(took)/2], peakSince(before), nil
}
