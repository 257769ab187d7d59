package captioning

import (
	"fmt"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/tuning"
)

// Names where the pieces of a training graph meet.
const (
	tokensName   = "tokens"   // [B,N,D] what the image tower holds where visual prompts enter
	featuresName = "features" // [B,F] image features that a map takes
	mappedName   = "mapped"   // [B,P,D] what a map makes of them
	prefixName   = "prefix"   // a decoder's input of tokens before its own
	oursName     = "ours"     // [1,P,D] a learned prefix that stands before mapped tokens
	madeName     = "made."    // stands before the name of keys or values that a network makes
)

// parts is where learned tensors can enter an image-to-text model.
type parts struct {
	// Decoder takes no past, or an empty one: it reads a whole text at once.
	Decoder *graph.DecoderTower
	// Images is the encoder, nil where prompts can't enter it; Patch the side in pixels that one of its tokens stands for.
	Images *graph.ImageTower
	Patch  int
	// Mapped says that images reach the decoder as tokens before its own, made of features [B,F] by Mapper, which is nil
	// where the model has none.
	Mapped   bool
	Features int
	Mapper   *graph.Graph
	// Open says that texts begin with nothing: the first token is told at the prefix's last place.
	Open bool
}

// assembly is the decoder and what it goes on from, in one graph.
type assembly struct {
	graph  *graph.Graph
	source string // the input that takes what the frozen part makes of images; "" for none
	prefix int    // tokens before the decoder's own
	visual int    // visual prompts among the encoder's tokens
}

// assemble puts what the loss depends on into one graph: the decoder, in front of it what makes its prefix, and the image
// tower where it holds prompts. What holds nothing learned is left out: what it gives is an input.
func assemble(p parts, r *tuning.Recipe) (*assembly, error) {
	a := &assembly{}
	build := a.attending
	if p.Mapped {
		build = a.mapped
	}
	if err := build(p, r); err != nil || r.Visual.Tokens == 0 {
		return a, err
	}
	return a, a.seeing(p, r)
}

// attending is a decoder that attends to the encoder's tokens, or to no image at all.
func (a *assembly) attending(p parts, r *tuning.Recipe) (err error) {
	if p.Decoder.Encoder != nil {
		a.source = p.Decoder.Encoder.Name
	}
	switch r.Method {
	case tuning.CaptionPrefix:
		a.prefix = r.Prefix.Tokens
		a.graph, err = p.Decoder.WithPrefix(graph.PrefixOptions{Tokens: r.Prefix.Tokens, KeepLogits: p.Open})
	case tuning.CaptionKeyValues:
		err = a.keysAndValues(p, r)
	case tuning.CaptionMap:
		return errs.New(errs.Unsupported, "recipe %q: the decoder attends to the image's tokens, it takes no map of one feature: use caption-prefix, caption-kv or caption-visual", r.Name)
	default:
		a.graph = p.Decoder.Graph.Clone()
	}
	return err
}

// keysAndValues is a decoder with a prefix of keys and values, and the network that makes them where there is one.
func (a *assembly) keysAndValues(p parts, r *tuning.Recipe) error {
	g, err := p.Decoder.WithKeyValues(graph.PrefixOptions{Tokens: r.Prefix.Tokens, Unplaced: r.Prefix.Unplaced})
	a.graph = g
	if err != nil || r.Prefix.Hidden == 0 {
		return err
	}
	front, err := reparametrisation(p.Decoder, r.Prefix)
	if err != nil {
		return err
	}
	var names []string
	for _, s := range keyValues(p.Decoder, 1) {
		names = append(names, s.name)
	}
	return a.ahead(front, names...)
}

// mapped is a decoder behind the tokens that are made of an image's feature. A learned prefix comes before them.
func (a *assembly) mapped(p parts, r *tuning.Recipe) error {
	ours, theirs := 0, mapperTokens(p.Mapper)
	switch r.Method {
	case tuning.CaptionPrefix:
		ours = r.Prefix.Tokens
	case tuning.CaptionMap:
		theirs = r.Prefix.Tokens
	case tuning.CaptionKeyValues:
		return errs.New(errs.Unsupported, "recipe %q: the image stands before the text of this model, keys and values before both aren't learned: use caption-prefix or caption-map", r.Name)
	}
	if theirs == 0 {
		return errs.New(errs.Unsupported, "recipe %q: the model has no map from its image feature to tokens (mapper.onnx): learn one with caption-map", r.Name)
	}
	a.prefix = ours + theirs
	g, err := p.Decoder.WithPrefix(graph.PrefixOptions{Tokens: a.prefix, PerRow: true, KeepLogits: p.Open})
	if err != nil {
		return err
	}
	a.graph, a.source = g, prefixName
	if ours > 0 {
		front, err := joined(p, ours, theirs)
		if err != nil {
			return err
		}
		if err := a.ahead(front, prefixName); err != nil {
			return err
		}
		a.source = mappedName
	}
	if r.Method != tuning.CaptionMap && r.Visual.Tokens == 0 {
		return nil
	}
	front, err := mapping(p, r)
	if err != nil {
		return err
	}
	err = a.ahead(front, a.source)
	a.source = featuresName
	return err
}

// mapperTokens is the number of tokens that a map makes, 0 where there is none.
func mapperTokens(mapper *graph.Graph) int {
	if mapper == nil || len(mapper.Outputs[0].Shape) != 3 {
		return 0
	}
	n, _ := mapper.Outputs[0].Shape[1].Int()
	return int(n)
}

// seeing puts the image tower with its prompts in front.
func (a *assembly) seeing(p parts, r *tuning.Recipe) error {
	if a.source == "" || p.Images == nil {
		return errs.New(errs.Unsupported, "recipe %q: visual.tokens is %d, but no image tower that prompts can enter leads to the decoder", r.Name, r.Visual.Tokens)
	}
	tower, err := p.Images.WithPrompts(graph.ImagePromptOptions{Tokens: r.Visual.Tokens, Depth: r.Visual.Depth, FromTokens: true})
	if err != nil {
		return err
	}
	tower.Input(tokensName).Shape[0] = p.Decoder.IDs.Shape[0]
	if err := tower.Infer(); err != nil {
		return err
	}
	if p.Images.Pooling == graph.PoolNone {
		a.visual = r.Visual.Tokens
	}
	err = a.ahead(tower, a.source)
	a.source = tokensName
	return err
}

// ahead puts a graph in front and makes its outputs, in order, the named inputs of what stands behind it.
func (a *assembly) ahead(front *graph.Graph, inputs ...string) error {
	g, err := graph.Merge(front, a.graph)
	if err != nil {
		return err
	}
	for i, input := range inputs { // Merge may have given outputs other names
		if err := g.Feed(input, g.Outputs[i]); err != nil {
			return err
		}
	}
	g.Outputs = g.Outputs[len(inputs):]
	a.graph = g
	return g.Infer()
}

// joined is a learned prefix, the same for all rows, and behind it each row's mapped tokens.
func joined(p parts, ours, theirs int) (*graph.Graph, error) {
	g := graph.New()
	return g, g.Build(func(b *graph.Builder) {
		batch, width := p.Decoder.IDs.Shape[0], graph.Known(int64(p.Decoder.Width))
		mine := b.Input(oursName, graph.Float, graph.Shape{graph.Known(1), graph.Known(int64(ours)), width})
		yours := b.Input(mappedName, graph.Float, graph.Shape{batch, graph.Known(int64(theirs)), width})
		rows := b.Op("Shape", graph.Attrs{"start": int64(0), "end": int64(1)}, yours)
		mine = b.Op("Expand", nil, mine, b.Op("Concat", graph.Attrs{"axis": int64(0)}, rows, b.Ints(1, 1)))
		b.Output("joined", b.Op("Concat", graph.Attrs{"axis": int64(1)}, mine, yours))
	})
}

// reparametrised are the tensors of the network that makes keys and values while they are learned (Li and Liang
// 2021, section 4.3; PEFT's PrefixEncoder): a table [P,D] and two linear layers.
func reparametrised(d *graph.DecoderTower, prefix tuning.Prefix) []shape {
	width, hidden, out := int64(d.Width), int64(prefix.Hidden), int64(0)
	for _, s := range keyValues(d, 1) {
		out += s.dims[1] * s.dims[3]
	}
	return []shape{
		{"reparam.embedding", []int64{int64(prefix.Tokens), width}},
		{"reparam.0.weight", []int64{hidden, width}},
		{"reparam.0.bias", []int64{hidden}},
		{"reparam.1.weight", []int64{out, hidden}},
		{"reparam.1.bias", []int64{out}},
	}
}

// reparametrisation computes keys and values of all layers as tanh(E A^T + a) B^T + b, whose columns are cut by
// layer, then keys and values, then heads, as PEFT cuts them.
func reparametrisation(d *graph.DecoderTower, prefix tuning.Prefix) (*graph.Graph, error) {
	kv := keyValues(d, int64(prefix.Tokens))
	for _, s := range kv {
		if s.dims[1] != kv[0].dims[1] || s.dims[3] != kv[0].dims[3] {
			return nil, errs.New(errs.Unsupported, "prefix.hidden: the decoder's layers differ in heads or their width (%v, %v): set it to 0", kv[0].dims, s.dims)
		}
	}
	g := graph.New()
	return g, g.Build(func(b *graph.Builder) {
		in := inputs(b, reparametrised(d, prefix))
		y := linear(b, b.Op("Tanh", nil, linear(b, in[0], in[1], in[2])), in[3], in[4])
		dims := kv[0].dims
		y = b.Op("Reshape", nil, y, b.Ints(int64(prefix.Tokens), int64(len(kv)), dims[1], dims[3]))
		y = b.Transpose(y, 1, 2, 0, 3)
		sizes := make([]int64, len(kv))
		for i := range sizes {
			sizes[i] = 1
		}
		for i, layer := range b.Ops("Split", len(kv), graph.Attrs{"axis": int64(0)}, y, b.Ints(sizes...)) {
			b.Output(madeName+kv[i].name, layer)
		}
	})
}

// mapLayers are the layers from an image feature [F] to a prefix [P,D] (ClipCap; Mokady et al. 2021): one, or two with a
// tanh between them where there are hidden units.
func mapLayers(p parts, prefix tuning.Prefix) []shape {
	in, out := int64(p.Features), int64(prefix.Tokens*p.Decoder.Width)
	widths := []int64{in, out}
	if prefix.Hidden > 0 {
		widths = []int64{in, int64(prefix.Hidden), out}
	}
	var list []shape
	for i := range len(widths) - 1 {
		list = append(list, shape{fmt.Sprintf("map.%d.weight", i), []int64{widths[i+1], widths[i]}}, shape{fmt.Sprintf("map.%d.bias", i), []int64{widths[i+1]}})
	}
	return list
}

// mapping computes the tokens [B,P,D] of each image's feature: by the recipe's map, or the model's own.
func mapping(p parts, r *tuning.Recipe) (*graph.Graph, error) {
	batch, features := p.Decoder.IDs.Shape[0], graph.Known(int64(p.Features))
	if r.Method != tuning.CaptionMap {
		g := p.Mapper.Clone()
		g.Inputs[0].Name, g.Inputs[0].Shape = featuresName, graph.Shape{batch, features}
		return g, g.Infer()
	}
	g := graph.New()
	return g, g.Build(func(b *graph.Builder) {
		x := b.Input(featuresName, graph.Float, graph.Shape{batch, features})
		in := inputs(b, mapLayers(p, r.Prefix))
		x = linear(b, x, in[0], in[1])
		if len(in) > 2 {
			x = linear(b, b.Op("Tanh", nil, x), in[2], in[3])
		}
		b.Output(mappedName, b.Reshape(x, graph.Shape{batch, graph.Known(int64(r.Prefix.Tokens)), graph.Known(int64(p.Decoder.Width))}, nil))
	})
}

func inputs(b *graph.Builder, shapes []shape) []*graph.Value {
	var in []*graph.Value
	for _, s := range shapes {
		var extents graph.Shape
		for _, n := range s.dims {
			extents = append(extents, graph.Known(n))
		}
		in = append(in, b.Input(s.name, graph.Float, extents))
	}
	return in
}

// linear is x W^T + b, as PyTorch's nn.Linear.
func linear(b *graph.Builder, x, weight, bias *graph.Value) *graph.Value {
	return b.Add(b.MatMul(x, b.SwapLast(weight)), bias)
}
