// Package caption makes texts of images, with bundles of an image encoder and a text decoder, and with prompts
// tuned for them. It knows graphs, prompts and tokens, and nothing of requests, tuning or HTTP.
package caption

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"sync"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/generation/decode"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/text/tokenizer"
	"github.com/foretoken/foretoken/vision"
)

// Model is a captioner's bundle, opened. Sessions are made when first wanted and kept. It is safe for
// concurrent use.
type Model struct {
	Bundle    *bundle.Bundle
	Tokenizer *tokenizer.Tokenizer
	// Images is the image encoder. Its output is the tokens [B,N,E] that the decoder looks at, or where there is no
	// cross attention ([Model.Mapped]) the embedding [B,E] that is mapped to a prefix.
	Images *vision.Tower
	// Decoder computes the first step: it takes no past, or an empty one. Prefixes enter it.
	Decoder *graph.DecoderTower
	// Mapper computes the prefix [B,P,D] before the text from the embedding [B,E]; nil where the bundle has none.
	Mapper *graph.Graph

	step    *graph.DecoderTower // computes a token behind a past; nil where the bundle has no such graph
	ahead   *graph.Graph        // what steps need of the encoder's output alone, computed once; nil for nothing
	behind  *graph.Graph        // the step's graph, which takes that
	config  *decode.Config
	options ort.Options

	mu       sync.Mutex
	sessions map[variant]*ort.Session
}

// variant tells the sessions of a model apart.
type variant struct {
	part   part
	prefix int  // embeddings before the tokens
	pairs  int  // keys and values before them
	kept   bool // logits at the prefix's places are kept
	// unplaced is how many keys and values stand before the tokens at no place.
	unplaced int
}

type part int

const (
	firstPart part = iota
	stepPart
	aheadPart
	mapperPart
)

// The outputs of image encoders, by exporters' habit.
var (
	tokenOutputs     = []string{"last_hidden_state", "encoder_hidden_states", "hidden_states", "image_embeds"}
	embeddingOutputs = []string{"image_embeds", "pooler_output", "embeds"}
)

// logitsOutput is what exporters call the decoder's output.
const logitsOutput = "logits"

// Open opens a captioner's bundle. Decoders that take no prefix are refused with the reason; an image encoder that prompts can't
// enter refuses visual prompts alone. All sessions share one copy of the weights, and compute the same bits in every run.
func Open(b *bundle.Bundle, o ort.Options) (_ *Model, err error) {
	if b.Kind() != bundle.Captioner {
		return nil, errs.New(errs.Invalid, "bundle %s: its files are those of a %s bundle, not of a captioner: one has an image encoder (encoder_model.onnx or vision_model.onnx) and a decoder (decoder_model.onnx or decoder_model_merged.onnx)", b.Name, b.Kind())
	}
	m := &Model{Bundle: b, options: o, sessions: map[variant]*ort.Session{}}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if m.options.Weights == nil {
		if m.options.Weights, err = ort.NewWeights(); err != nil {
			return nil, err
		}
	}
	m.options.Deterministic = true
	if m.Tokenizer, err = tokenizer.Load(b.Path("tokenizer.json")); err != nil {
		return nil, err
	}
	if m.config, err = readConfig(b); err != nil {
		return nil, err
	}
	if err := m.openDecoder(b.Decoder()); err != nil {
		return nil, errs.New(errs.Of(err), "bundle %s: decoder: %w", b.Name, err)
	}
	outputs := tokenOutputs
	if m.Mapped() {
		outputs = embeddingOutputs
		if err := m.openMapper(b.MapperFile()); err != nil {
			return nil, errs.New(errs.Of(err), "bundle %s: %w", b.Name, err)
		}
	}
	if m.Images, err = vision.OpenEncoder(b, m.options, outputs...); err != nil {
		return nil, err
	}
	return m, m.fit()
}

// readConfig reads generation_config.json, or where there is none what config.json says of the same.
func readConfig(b *bundle.Bundle) (*decode.Config, error) {
	read := decode.ReadConfig
	data, err := os.ReadFile(b.Path("generation_config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		read = decode.ReadModelConfig
		data, err = os.ReadFile(b.Path("config.json"))
	}
	if err != nil {
		return nil, err
	}
	c, err := read(data)
	if err != nil {
		return nil, errs.New(errs.Of(err), "bundle %s: %w", b.Name, err)
	}
	return c, nil
}

// openDecoder finds the graphs of the first step and of those behind a past.
func (m *Model) openDecoder(d bundle.Decoder) (err error) {
	switch {
	case d.Merged != "":
		if m.Decoder, err = m.branch(d.Merged, false); err == nil {
			m.step, err = m.branch(d.Merged, true)
		}
	case d.First == "":
		m.Decoder, err = m.tower(d.WithPast)
	default:
		m.Decoder, err = m.tower(d.First)
		if err == nil && d.WithPast != "" {
			m.step, err = m.tower(d.WithPast)
		}
	}
	if err == nil && m.step == nil && takesPast(m.Decoder) {
		m.step = m.Decoder
	}
	if err != nil || m.step == nil {
		return err
	}
	return m.splitStep()
}

// splitStep takes out of the steps what is the same for each token: the keys and values of cross attention, where the file
// works them out anew.
func (m *Model) splitStep() (err error) {
	if m.step.Encoder != nil {
		m.ahead, m.behind, err = m.step.Graph.Hoist(m.step.Encoder.Name)
	}
	if m.ahead == nil {
		m.behind = m.step.Graph
	}
	return err
}

func (m *Model) tower(file string) (*graph.DecoderTower, error) {
	g, err := graph.Load(m.Bundle.Path(file))
	if err != nil {
		return nil, err
	}
	return findDecoder(file, g)
}

// branch is a merged decoder with or without a past: another graph on the same weights.
func (m *Model) branch(file string, past bool) (*graph.DecoderTower, error) {
	g, err := graph.Load(m.Bundle.Path(file))
	if err != nil {
		return nil, err
	}
	if g.Input("use_cache_branch") != nil { // decoders without an encoder are merged without one
		if err := g.Pin("use_cache_branch", graph.NewTensor([]bool{past}, 1)); err != nil {
			return nil, err
		}
		if err := g.Fold(); err != nil {
			return nil, err
		}
		g.PruneInputs()
	}
	return findDecoder(file, g)
}

func findDecoder(file string, g *graph.Graph) (*graph.DecoderTower, error) {
	t, err := graph.FindDecoder(g, logitsOutput)
	if err != nil {
		return nil, errs.New(errs.Of(err), "%s: %w", file, err)
	}
	return t, nil
}

// takesPast says whether a decoder takes the keys and values of tokens before its own.
func takesPast(t *graph.DecoderTower) bool {
	for _, l := range t.Layers {
		if !l.Cross && l.PastKey != nil {
			return true
		}
	}
	return false
}

func (m *Model) openMapper(file string) (err error) {
	if file == "" {
		return nil
	}
	if m.Mapper, err = graph.Load(m.Bundle.Path(file)); err != nil {
		return err
	}
	if err := m.Mapper.Infer(); err != nil {
		return err
	}
	if len(m.Mapper.Inputs) != 1 || len(m.Mapper.Outputs) != 1 || len(m.Mapper.Outputs[0].Shape) != 3 {
		return errs.New(errs.Unsupported, "%s has %d inputs and %d outputs: a mapper turns embeddings [batch,width] into a prefix [batch,tokens,width]", file, len(m.Mapper.Inputs), len(m.Mapper.Outputs))
	}
	return nil
}

// fit compares the widths of encoder and decoder.
func (m *Model) fit() error {
	out := m.Images.Output().Shape
	if m.Mapped() {
		if m.Mapper != nil {
			d := m.Mapper.Outputs[0].Shape
			_, known := d[1].Int()
			if width, _ := d[2].Int(); !known || width != int64(m.Decoder.Width) {
				return errs.New(errs.Unsupported, "bundle %s: the mapper's output %q of shape %s is no prefix of a known number of tokens of the decoder's width %d", m.Bundle.Name, m.Mapper.Outputs[0].Name, d, m.Decoder.Width)
			}
		}
		if len(out) != 2 {
			return errs.New(errs.Unsupported, "bundle %s: the decoder has no cross attention, so the image has to reach it as a prefix; the encoder's output %q of shape %s is no embedding [batch,width]", m.Bundle.Name, m.Images.Output().Name, out)
		}
		return nil
	}
	want, _ := m.Decoder.Encoder.Shape[2].Int()
	if have, known := out[len(out)-1].Int(); len(out) != 3 || known && want > 0 && have != want {
		return errs.New(errs.Unsupported, "bundle %s: the encoder's output %q of shape %s does not fit the decoder's input %q of shape %s", m.Bundle.Name, m.Images.Output().Name, out, m.Decoder.Encoder.Name, m.Decoder.Encoder.Shape)
	}
	return nil
}

// Verify runs the image encoder and the decoder on noise and on random words to see that prompts enter them as they
// should, and that texts go on from one token to the next. A model into which prompts would go wrongly is an error that says
// what came out otherwise.
func (m *Model) Verify() error {
	r, ahead := &ort.Runner{Options: m.options}, &ort.Runner{Options: m.options}
	defer r.Close()
	defer ahead.Close()
	var err error
	if m.Images.Info != nil {
		err = m.Images.Info.Verify(r.Run)
	}
	if err == nil {
		err = m.Decoder.Verify(r.Run)
	}
	if err == nil && m.step != nil && m.step != m.Decoder && m.Decoder.LeadsTo(m.step) {
		err = m.Decoder.VerifyStep(m.step, m.split(r.Run, ahead.Run))
	}
	if err != nil {
		return errs.New(errs.Of(err), "bundle %s: prompts go wrongly into the model, and it is refused: %w", m.Bundle.Name, err)
	}
	return nil
}

// split runs a step's graph in the parts that it was split into.
func (m *Model) split(run, ahead graph.Runner) graph.Runner {
	return func(g *graph.Graph, in map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
		if g != m.step.Graph || m.ahead == nil {
			return run(g, in)
		}
		out, err := ahead(m.ahead, in)
		if err != nil {
			return nil, err
		}
		in = maps.Clone(in)
		maps.Copy(in, out)
		return run(m.behind, in)
	}
}

// Mapped says whether the decoder has no cross attention: the image reaches it as a prefix alone.
func (m *Model) Mapped() bool { return m.Decoder.Encoder == nil }

// Options are how the bundle makes texts where a request says nothing: its generation_config.json. The copy is the caller's.
func (m *Model) Options() decode.Options { return m.config.Options.Clone() }

// Sessions are the options of further sessions on the bundle's weights.
func (m *Model) Sessions() ort.Options { return m.options }

// Pad is the id that fills up shorter texts: the bundle's, else the first end's, else 0.
func (m *Model) Pad() int64 {
	switch {
	case m.config.Pad != nil:
		return *m.config.Pad
	case len(m.config.Options.Ends) > 0:
		return m.config.Options.Ends[0]
	}
	return 0
}

// Opening is what the decoder is given before it says anything: the start token, where there is one, and a text's tokens.
// With cross attention it is decoder_start_token_id, else bos_token_id; without, decoder_start_token_id alone, as the
// text begins behind the image's prefix.
func (m *Model) Opening(text string) ([]int64, error) {
	var ids []int64
	switch {
	case m.config.Start != nil:
		ids = append(ids, *m.config.Start)
	case m.config.BOS != nil && !m.Mapped():
		ids = append(ids, *m.config.BOS)
	}
	tokens, err := m.Tokenizer.Plain(text)
	if err != nil {
		return nil, errs.New(errs.Or(err, errs.Invalid), "text %.40q: %w", text, err)
	}
	for _, t := range tokens {
		ids = append(ids, t.ID)
	}
	return ids, nil
}

// session returns the session of a variant.
func (m *Model) session(v variant) (*ort.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[v]; s != nil {
		return s, nil
	}
	g, err := m.graphOf(v)
	if err != nil {
		return nil, err
	}
	s, err := ort.NewSession(g, m.options)
	if err == nil {
		m.sessions[v] = s
	}
	return s, err
}

func (m *Model) graphOf(v variant) (*graph.Graph, error) {
	switch {
	case v.part == mapperPart:
		return m.Mapper, nil
	case v.part == aheadPart && v.unplaced > 0:
		ahead, _, err := m.unplacedStep(v.unplaced)
		return ahead, err
	case v.part == aheadPart:
		return m.ahead, nil
	case v.part == stepPart && v.unplaced > 0:
		_, behind, err := m.unplacedStep(v.unplaced)
		return behind, err
	case v.part == stepPart:
		return m.behind, nil
	case v.prefix > 0 && v.pairs > 0:
		return nil, errs.New(errs.Unsupported, "bundle %s: keys and values go together with a prefix only where the decoder takes a past: export it with one", m.Bundle.Name)
	case v.prefix > 0:
		return m.Decoder.WithPrefix(graph.PrefixOptions{Tokens: v.prefix, PerRow: true, KeepLogits: v.kept})
	case v.pairs > 0:
		return m.Decoder.WithKeyValues(graph.PrefixOptions{Tokens: v.pairs, PerRow: true, Unplaced: v.unplaced > 0})
	case v.unplaced > 0:
		return m.Decoder.Unplaced(v.unplaced)
	}
	return m.Decoder.Graph, nil
}

// unplacedStep is the graph of steps behind keys and values that stand at no place, split as the others are.
func (m *Model) unplacedStep(pairs int) (ahead, behind *graph.Graph, err error) {
	g, err := m.step.Unplaced(pairs)
	if err != nil || m.ahead == nil {
		return nil, g, err
	}
	return g.Hoist(m.step.Encoder.Name)
}

// Features computes what the decoder is told of images [B,3,H,W]: tokens [B,N,E], or where it is [Model.Mapped]
// embeddings [B,E]. visual are prompts in the encoder, one tensor [B,K,D] a layer, none for the frozen encoder.
func (m *Model) Features(ctx context.Context, pixels *graph.Tensor, visual []*graph.Tensor) (*graph.Tensor, error) {
	if len(visual) == 0 {
		return m.Images.Embed(ctx, pixels)
	}
	tokens, err := m.Images.Tokens(ctx, pixels)
	if err != nil {
		return nil, err
	}
	return m.Images.EmbedTokens(ctx, tokens, visual)
}

// Close frees the sessions, and the weights with the last of them.
func (m *Model) Close() {
	if m.Images != nil {
		m.Images.Close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		s.Close()
	}
	clear(m.sessions)
	if m.options.Weights != nil {
		m.options.Weights.Close()
	}
}

func keyName(layer int) string   { return "prefix_key." + strconv.Itoa(layer) }
func valueName(layer int) string { return "prefix_value." + strconv.Itoa(layer) }
