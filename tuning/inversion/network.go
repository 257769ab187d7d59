package inversion

import (
	"fmt"
	"slices"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/tuning"
)

// Network is the frozen graphs that a gradient passes on its way from the denoising loss to the embeddings of
// new words: the text encoders and the UNet, in diffusers' ONNX layout.
type Network struct {
	Encoders []Encoder
	UNet     *graph.Graph
	// Latent is the extents of one picture's latents: channels, height, width.
	Latent [3]int64
	// Seen is how many channels the UNet takes: those of the latents and, for inpainting, more behind them.
	Seen int64
	// Guidance is how a UNet with distilled guidance is told its scale; nil for others.
	Guidance []float32
	// Length is how many tokens each text has, padding included.
	Length int64
	// Recompute is how many bytes of the forward pass may be kept for the backward pass before it computes them
	// again; 0 keeps all. See [graph.Graph.Recompute].
	Recompute int64
	// Widen makes all of it compute in floats, as the CPU has no kernels for half floats.
	Widen bool
}

// Encoder is a text encoder.
type Encoder struct {
	Tower *graph.TextTower // found for Pooled where that is set, else for Hidden
	// Hidden is the tokens that the UNet attends to, [B,S,D]; where there are several encoders their D follow one another.
	Hidden string
	// Pooled is the embedding of the whole text, [B,P], that SDXL's UNet takes as text_embeds; "" for others.
	Pooled string
}

// The UNet's inputs and output, by diffusers' names.
const (
	inSample   = "sample"
	inTimestep = "timestep"
	inHidden   = "encoder_hidden_states"
	inPooled   = "text_embeds"
	inTimes    = "time_ids"
	inGuidance = "timestep_cond"
	outSample  = "out_sample"
)

// The training graph's inputs and outputs beside the UNet's: targets [B,C,h,w] is what the UNet should say,
// weights [B] are the samples' shares in the loss, and losses [B] are their mean squared errors.
const (
	inTargets  = "targets"
	inWeights  = "weights"
	outLoss    = "loss"
	outLosses  = "losses"
	maxEncoder = 2
)

// idsName and rowsName are the inputs of encoder i: token ids [B,S] and the new words' embeddings [n,D].
func idsName(i int) string  { return fmt.Sprintf("ids.%d", i) }
func rowsName(i int) string { return fmt.Sprintf("rows.%d", i) }

// Words are the ids of n new words of encoder i: those behind its token table.
func (m *Network) Words(i, n int) []int64 {
	rows, _ := m.Encoders[i].Tower.Table.Shape[0].Int()
	ids := make([]int64, n)
	for j := range ids {
		ids[j] = rows + int64(j)
	}
	return ids
}

// Forward is the graph of the loss of so many pictures under n new words:
//
//	loss = sum_b weights_b * mean((UNet(sample_b, timestep_b, text_b) - targets_b)^2)
//
// (Ho et al. 2020, equation 14; Gal et al. 2022, equation 2). All extents are fixed.
func (m *Network) Forward(pictures, words int) (*graph.Graph, error) {
	g, err := m.denoiser(int64(pictures), words)
	if err != nil {
		return nil, err
	}
	out := g.Outputs[0]
	g.Outputs = nil
	return g, g.Build(func(b *graph.Builder) {
		y := b.Floats(out)
		targets := b.Input(inTargets, graph.Float, y.Shape)
		weights := b.Input(inWeights, graph.Float, y.Shape[:1])
		e := b.Sub(y, targets)
		losses := b.Output(outLosses, b.Mean(b.Mul(e, e), false, 1, 2, 3))
		b.Output(outLoss, b.Sum(b.Mul(losses, weights), true, 0))
	})
}

// Training is [Network.Forward] with the gradients of the loss by each encoder's rows.
func (m *Network) Training(pictures, words int) (*graph.Graph, error) {
	g, err := m.Forward(pictures, words)
	if err != nil {
		return nil, err
	}
	forward := len(g.Nodes)
	err = g.Build(func(b *graph.Builder) {
		loss := g.Output(outLoss)
		if tuning.InHalfFloats(g) {
			loss = b.Mul(loss, b.Input(tuning.LossScaleName, graph.Float, graph.Shape{graph.Known(1)}))
		}
		var wrt []*graph.Value
		for i := range m.Encoders {
			wrt = append(wrt, g.Input(rowsName(i)))
		}
		for i, d := range b.Gradient([]*graph.Value{loss}, nil, wrt) {
			b.Output(tuning.GradientName(wrt[i].Name), d)
		}
	})
	if err == nil && m.Recompute > 0 {
		err = g.Recompute(forward, m.Recompute)
	}
	return g, err
}

// denoiser is the text encoders in front of the UNet. Its output is the UNet's.
func (m *Network) denoiser(pictures int64, words int) (*graph.Graph, error) {
	texts, err := m.texts(pictures, words)
	if err != nil {
		return nil, err
	}
	unet, err := m.unet(pictures, texts.Outputs)
	if err != nil {
		return nil, errs.New(errs.Of(err), "unet: %w", err)
	}
	given := len(texts.Outputs)
	g, err := graph.Merge(texts, unet)
	if err != nil {
		return nil, err
	}
	for i, name := range []string{inHidden, inPooled}[:given] {
		if err := g.Feed(name, g.Outputs[i]); err != nil {
			return nil, errs.New(errs.Of(err), "unet: %w", err)
		}
	}
	g.Outputs = g.Outputs[given:]
	return g, nil
}

// texts is the text encoders side by side. Its outputs are the tokens for the UNet, and the text's embedding where an encoder
// gives one.
func (m *Network) texts(pictures int64, words int) (*graph.Graph, error) {
	if len(m.Encoders) == 0 || len(m.Encoders) > maxEncoder {
		return nil, errs.New(errs.Invalid, "%d text encoders: 1 or %d are possible", len(m.Encoders), maxEncoder)
	}
	g := graph.New()
	for i := range m.Encoders {
		t, err := m.encoder(i, pictures, words)
		if err == nil {
			g, err = graph.Merge(g, t)
		}
		if err != nil {
			return nil, errs.New(errs.Of(err), "text encoder %d: %w", i+1, err)
		}
	}
	var hidden, pooled []*graph.Value
	for i := range m.Encoders {
		hidden = append(hidden, g.Output(hiddenName(i)))
		if p := g.Output(pooledName(i)); p != nil {
			pooled = []*graph.Value{p} // the last encoder's, as SDXL has it
		}
	}
	g.Outputs = nil
	return g, g.Build(func(b *graph.Builder) {
		tokens := hidden[0]
		if len(hidden) > 1 {
			tokens = b.Op("Concat", graph.Attrs{"axis": int64(-1)}, hidden...)
		}
		g.Outputs = append([]*graph.Value{tokens}, pooled...)
	})
}

func hiddenName(i int) string { return fmt.Sprintf("hidden.%d", i) }
func pooledName(i int) string { return fmt.Sprintf("pooled.%d", i) }

// encoder is text encoder i with learned rows, its outputs the tokens and, where there is one, the text's embedding.
func (m *Network) encoder(i int, pictures int64, words int) (*graph.Graph, error) {
	e := m.Encoders[i]
	t, err := e.Tower.WithTokenRows(m.Words(i, words))
	if err != nil {
		return nil, err
	}
	g := t.Graph
	hidden := g.Value(e.Hidden)
	if hidden == nil {
		return nil, errs.New(errs.Unsupported, "nothing on the way to its output %q is called %q", t.Output.Name, e.Hidden)
	}
	t.IDs.Name, g.Input("token_rows").Name = idsName(i), rowsName(i)
	t.IDs.Shape = graph.Shape{graph.Known(pictures), graph.Known(m.Length)}
	outputs := map[string]*graph.Value{hiddenName(i): hidden}
	if e.Pooled != "" {
		outputs[pooledName(i)] = t.Output
	}
	if t.Mask != nil { // diffusers masks no padding
		ones := graph.Integers(slices.Repeat([]int64{1}, int(pictures*m.Length)), t.Mask.Type, pictures, m.Length)
		if err := g.Pin(t.Mask.Name, ones); err != nil {
			return nil, err
		}
	}
	if len(g.Inputs) > 2 {
		return nil, errs.New(errs.Unsupported, "it takes more than token ids: %d inputs", len(g.Inputs)-1)
	}
	g.Outputs = nil
	for _, name := range []string{hiddenName(i), pooledName(i)} {
		if v := outputs[name]; v != nil {
			v.Name = name
			g.Outputs = append(g.Outputs, v)
		}
	}
	return g, m.fix(g)
}

// fix makes the graph compute in floats where that is wanted, and works out its extents, which are all known.
func (m *Network) fix(g *graph.Graph) error {
	g.Prune()
	if m.Widen {
		for _, half := range []graph.DataType{graph.Float16, graph.BFloat16} {
			if err := g.Widen(half); err != nil {
				return err
			}
		}
	}
	return g.Fold()
}

// unet is the UNet for so many pictures and what the text encoders give.
func (m *Network) unet(pictures int64, texts []*graph.Value) (*graph.Graph, error) {
	g, err := m.UNet.Only(m.UNet.Outputs[0].Name)
	if err != nil {
		return nil, err
	}
	batch := graph.Known(pictures)
	shapes := map[string]graph.Shape{
		inSample:   {batch, graph.Known(m.Seen), graph.Known(m.Latent[1]), graph.Known(m.Latent[2])},
		inTimestep: {batch},
		inHidden:   texts[0].Shape,
	}
	if len(texts) > 1 {
		shapes[inPooled], shapes[inTimes] = texts[1].Shape, graph.Shape{batch, graph.Known(6)}
	}
	if m.Guidance != nil {
		told := graph.NewTensor(slices.Repeat(m.Guidance, int(pictures)), pictures, int64(len(m.Guidance)))
		if err := g.Pin(inGuidance, told); err != nil {
			return nil, err
		}
	}
	for name, s := range shapes {
		v := g.Input(name)
		if v == nil {
			return nil, errs.New(errs.Unsupported, "it has no input %q", name)
		}
		if name == inTimestep && (len(v.Shape) == 0 || v.Shape[0].Is(1)) {
			if pictures > 1 {
				return nil, errs.New(errs.Unsupported, "its timestep is one for all pictures: set inversion.micro_batch to 1")
			}
			continue
		}
		if err := agrees(v, s); err != nil {
			return nil, err
		}
		v.Shape = s
	}
	if len(g.Inputs) > len(shapes) {
		return nil, errs.New(errs.Unsupported, "it takes inputs that are not known, beside %d of diffusers' names: %d in all", len(shapes), len(g.Inputs))
	}
	return g, m.fix(g)
}

// agrees checks the extents that a file fixed.
func agrees(v *graph.Value, s graph.Shape) error {
	same := len(v.Shape) == len(s)
	for i := range s {
		if same {
			n, known := v.Shape[i].Int()
			same = !known || s[i].Is(n)
		}
	}
	if !same {
		return errs.New(errs.Unsupported, "its input %q is %s; these texts and latents come as %s", v.Name, v.Shape, s)
	}
	return nil
}
