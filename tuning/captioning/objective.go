package captioning

import (
	"context"
	"maps"
	"math"
	"slices"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/tuning"
)

// ignored marks a place whose token is not to be learned, as PyTorch's CrossEntropyLoss has it.
const ignored = -100

// Names of the training graph's inputs and outputs that are neither the model's nor learned.
const (
	targetsName = "targets" // [B,S] token ids, 0 where nothing is to be learned
	sharesName  = "shares"  // [B,S] what each token's loss counts for
	lossName    = "loss"
	guessesName = "guesses" // [B,S] the most likely token of each place
)

// objective is a training graph: the cross-entropy of texts behind the learned parts, and its gradients by
// them, in one run.
//
//	loss = sum over places t of share_t * ((1-e) * -log p(y_t) + e/V * sum over words v of -log p(v))
//
// with e the label smoothing, p the softmax of the logits and share_t one over the number of tokens to learn, or 0 where
// there is none. It is PyTorch's CrossEntropyLoss(ignore_index=-100, label_smoothing=e) over all places.
type objective struct {
	session *ort.Session
	decoder *graph.DecoderTower
	source  string   // the input that takes what the frozen part makes of images; "" for a decoder without images
	wrt     []string // inputs that get gradients
	lead    int      // 1 where the first token is told at the prefix's last place, else 0
	visual  int      // visual prompts among the encoder's tokens
	half    bool     // gradients are computed in half floats
}

// newObjective builds and differentiates the graph.
func newObjective(p parts, r *tuning.Recipe, options ort.Options) (*objective, error) {
	a, err := assemble(p, r)
	if err != nil {
		return nil, err
	}
	o := &objective{decoder: p.Decoder, source: a.source, visual: a.visual}
	if p.Open {
		o.lead = 1
	}
	if err := o.differentiate(a, p, r); err != nil {
		return nil, err
	}
	o.session, err = ort.NewSession(a.graph, options)
	return o, err
}

func (o *objective) close() { o.session.Close() }

// differentiate appends the loss and its gradients, and makes them the only outputs.
func (o *objective) differentiate(a *assembly, p parts, r *tuning.Recipe) error {
	g := a.graph
	logits := g.Output(p.Decoder.Logits.Name)
	g.Outputs = []*graph.Value{logits}
	g.Prune()
	o.half = tuning.InHalfFloats(g)
	return g.Build(func(b *graph.Builder) {
		g.Outputs = nil
		if p.Open { // places from the prefix's last on
			logits = b.Op("Slice", nil, logits, b.Ints(int64(a.prefix-1)), b.Ints(math.MaxInt64), b.Ints(1))
		}
		places := logits.Shape[:2]
		targets, shares := b.Input(targetsName, graph.Int64, places), b.Input(sharesName, graph.Float, places)
		loss := smoothed(b, b.Floats(logits), targets, shares, r.Caption.LabelSmoothing)
		b.Output(lossName, loss)
		b.Output(guessesName, b.Op("ArgMax", graph.Attrs{"axis": int64(-1), "keepdims": int64(0)}, logits))
		var wrt []*graph.Value
		for _, s := range parameterShapes(p, r) {
			wrt = append(wrt, g.Input(s.name))
		}
		if o.half {
			loss = b.Mul(loss, b.Input(tuning.LossScaleName, graph.Float, graph.Shape{graph.Known(1)}))
		}
		for i, d := range b.Gradient([]*graph.Value{loss}, nil, wrt) {
			o.wrt = append(o.wrt, wrt[i].Name)
			b.Output(tuning.GradientName(wrt[i].Name), d)
		}
	})
}

// smoothed is the cross-entropy of logits [B,S,V] and targets [B,S] with label smoothing, each place weighed by its share.
func smoothed(b *graph.Builder, logits, targets, shares *graph.Value, smoothing float64) *graph.Value {
	logs := b.Op("LogSoftmax", graph.Attrs{"axis": int64(-1)}, logits)
	last := b.Ints(2)
	picked := b.Op("Squeeze", nil, b.Op("GatherElements", graph.Attrs{"axis": int64(2)}, logs, b.Op("Unsqueeze", nil, targets, last)), last)
	likely := b.Mul(picked, b.Scalar(1-smoothing, picked))
	if smoothing > 0 {
		likely = b.Add(likely, b.Mul(b.Mean(logs, false, 2), b.Scalar(smoothing, logs)))
	}
	return b.Op("Neg", nil, b.Sum(b.Mul(likely, shares), false, 0, 1))
}

// batch is texts to learn and what the frozen part made of their images.
type batch struct {
	source *graph.Tensor // a row a text; nil for a decoder without images
	ids    [][]int64     // what the decoder reads, by text
	// targets are what it is to say after each id; [ignored] where nothing is to be learned.
	targets [][]int64
}

// outcome is what a run came to.
type outcome struct {
	loss      float64
	right     int                  // tokens to learn that the model finds most likely
	gradients map[string][]float32 // by parameter, of the loss times the loss scale where it is computed in half floats
}

// learned counts the tokens to learn.
func (b batch) learned() int {
	n := 0
	for _, row := range b.targets {
		for _, id := range row {
			if id != ignored {
				n++
			}
		}
	}
	return n
}

// run computes the loss of a batch and its gradients. Each token counts for one of tokens: those of the batch, or of all
// the batches that a step's gradient is summed over.
func (o *objective) run(ctx context.Context, b batch, tokens int, learned map[string]*graph.Tensor, scale float64) (outcome, error) {
	in := o.feeds(b)
	maps.Copy(in, learned)
	o.label(in, b, tokens)
	if o.half {
		in[tuning.LossScaleName] = graph.NewTensor([]float32{float32(scale)}, 1)
	}
	out, err := o.session.Run(ctx, in)
	if err != nil {
		return outcome{}, err
	}
	loss, err := graph.Float32s(out[lossName])
	if err != nil {
		return outcome{}, err
	}
	guesses, err := graph.Values[int64](out[guessesName])
	if err != nil {
		return outcome{}, err
	}
	y := outcome{loss: float64(loss[0]), right: b.right(guesses), gradients: map[string][]float32{}}
	for _, name := range o.wrt {
		if y.gradients[name], err = graph.Float32s(out[tuning.GradientName(name)]); err != nil {
			return outcome{}, err
		}
	}
	return y, nil
}

// right counts the tokens to learn that were guessed.
func (b batch) right(guesses []int64) int {
	n, width := 0, len(guesses)/len(b.targets)
	for row, targets := range b.targets {
		for i, id := range targets {
			if guesses[row*width+i] == id {
				n++
			}
		}
	}
	return n
}

// longest is the number of places of the batch's longest text, at least one.
func (b batch) longest() int {
	n := 1
	for _, row := range b.ids {
		n = max(n, len(row))
	}
	return n
}

// feeds are the decoder's inputs for a batch, texts padded behind their ends: with zeros in ids and mask.
func (o *objective) feeds(b batch) map[string]*graph.Tensor {
	d, rows, length := o.decoder, len(b.ids), b.longest()
	if n, fixed := d.IDs.Shape[1].Int(); fixed {
		length = int(n)
	}
	ids, mask, places := make([]int64, rows*length), make([]int64, rows*length), make([]int64, rows*length)
	for row, text := range b.ids {
		copy(ids[row*length:], text)
		for i := range length {
			places[row*length+i] = int64(i)
		}
		for i := range text {
			mask[row*length+i] = 1
		}
	}
	dims := []int64{int64(rows), int64(length)}
	in := map[string]*graph.Tensor{}
	give := func(v *graph.Value, values []int64, dims ...int64) {
		if v != nil {
			in[v.Name] = graph.Integers(values, v.Type, dims...)
		}
	}
	give(d.IDs, ids, dims...)
	give(d.Mask, mask, dims...)
	give(d.Positions, places, dims...)
	if b.source != nil {
		in[o.source] = b.source
	}
	if d.EncoderMask != nil && b.source != nil {
		give(d.EncoderMask, slices.Repeat([]int64{1}, rows*o.states(b)), int64(rows), int64(o.states(b)))
	}
	for _, l := range d.Layers {
		for _, v := range []*graph.Value{l.PastKey, l.PastValue} {
			if v != nil && !l.Cross {
				in[v.Name] = graph.NewTensor([]float32{}, int64(rows), int64(l.Heads), 0, int64(l.HeadWidth))
			}
		}
	}
	taken := o.session.Inputs()
	maps.DeleteFunc(in, func(name string, _ *graph.Tensor) bool {
		return !slices.ContainsFunc(taken, func(v *graph.Value) bool { return v.Name == name })
	})
	return in
}

// states is how many of the encoder's tokens the decoder sees: visual prompts are among them where the image tower
// gives all its tokens out.
func (o *objective) states(b batch) int { return int(b.source.Dims[1]) + o.visual }

// label adds the targets and what each counts for.
func (o *objective) label(in map[string]*graph.Tensor, b batch, tokens int) {
	length := int(in[o.decoder.IDs.Name].Dims[1]) + o.lead
	targets, shares := make([]int64, len(b.ids)*length), make([]float32, len(b.ids)*length)
	for row, text := range b.targets {
		for i, id := range text {
			if id != ignored {
				targets[row*length+i], shares[row*length+i] = id, 1/float32(tokens)
			}
		}
	}
	dims := []int64{int64(len(b.ids)), int64(length)}
	in[targetsName], in[sharesName] = graph.NewTensor(targets, dims...), graph.NewTensor(shares, dims...)
}

// rows are some of the batch's texts.
func (b batch) rows(start, end int) batch {
	part := batch{ids: b.ids[start:end], targets: b.targets[start:end]}
	if b.source != nil {
		part.source = b.source.Rows(int64(start), int64(end))
	}
	return part
}
