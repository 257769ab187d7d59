package caption

import (
	"context"
	"image"

	"github.com/foretoken/foretoken/generation/decode"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
)

// Request asks for a text about an image.
type Request struct {
	Image  image.Image
	Prompt *prompt.Prompt // tuned for the bundle; nil: the frozen model
	Text   string         // a question, or words that the text goes on from
	// Options say how the text is made; nil: as the bundle says ([Model.Options], of which a caller changes a copy).
	Options *decode.Options
	// OnText, where set, is called with each piece of text as soon as it is certain, from the goroutine that called
	// Generate.
	OnText func(piece string)
}

// Answer is the text.
type Answer struct {
	decode.Result
	PromptTokens int // tokens that the text was asked with: the opening's
	PrefixTokens int // places before them: tuned ones, keys and values, and those that the image is mapped to
	ImageTokens  int // tokens of the image that the decoder looks at, or that it was mapped to
}

// Generate makes a text for each request. Requests of one shape (as many tokens in the encoder, before the text and in its opening)
// share the model's runs, each with its own prompt; a text never depends on its company. When ctx ends, work ends between two
// tokens or within a run. A prompt of another bundle, a text that leaves no room and an option out of range are errors that
// say so, before anything is run.
func (m *Model) Generate(ctx context.Context, rs []Request) ([]Answer, error) {
	groups := map[shape]*group{}
	var order []*group
	for i, r := range rs {
		j, err := m.job(r)
		if err != nil {
			return nil, err
		}
		g := groups[j.steering.shape]
		if g == nil {
			g = &group{Model: m, shape: j.steering.shape}
			groups[g.shape], order = g, append(order, g)
		}
		g.jobs, g.at = append(g.jobs, j), append(g.at, i)
	}
	answers := make([]Answer, len(rs))
	for _, g := range order {
		if err := g.run(ctx, answers); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// job is a request made ready.
type job struct {
	request  decode.Request
	image    image.Image
	steering *steering
}

func (m *Model) job(r Request) (*job, error) {
	if r.Image == nil {
		return nil, errs.New(errs.Invalid, "a captioner needs an image, the request has none")
	}
	s, err := m.steer(r.Prompt)
	if err != nil {
		return nil, err
	}
	options := m.config.Options
	if r.Options != nil {
		options = *r.Options
	}
	opening, err := m.Opening(r.Text)
	if err != nil {
		return nil, err
	}
	if len(opening) == 0 && s.shape.prefix == 0 {
		return nil, errs.New(errs.Invalid, "bundle %s: the text has nothing to begin with: give a text, a prompt with a prefix, or a decoder_start_token_id in generation_config.json", m.Bundle.Name)
	}
	s.shape.opening, s.shape.uncached = len(opening), options.NoCache
	j := &job{image: r.Image, steering: s, request: decode.Request{Opening: opening, Options: options, OnText: r.OnText, Before: m.mapped(s)}}
	if m.Decoder.Window > 0 {
		j.request.Room = m.Decoder.LongestText(s.shape.prefix + s.shape.pairs)
		if j.request.Room < 1 {
			return nil, errs.New(errs.Invalid, "bundle %s: the prefix of %d places leaves none of the decoder's %d to the text: use a shorter prompt", m.Bundle.Name, s.shape.prefix+s.shape.pairs, m.Decoder.Window)
		}
	}
	return j, nil
}

// group is the requests of one shape.
type group struct {
	*Model
	shape shape
	jobs  []*job
	at    []int // which request each is
}

func (g *group) run(ctx context.Context, answers []Answer) error {
	rows, seen, err := g.rows(ctx)
	if err != nil {
		return err
	}
	requests := make([]decode.Request, len(g.jobs))
	for i, j := range g.jobs {
		requests[i] = j.request
	}
	results, err := decode.Generate(ctx, rows, g.Tokenizer, requests)
	if err != nil {
		return err
	}
	for i, r := range results {
		answers[g.at[i]] = Answer{Result: r, PromptTokens: g.shape.opening, PrefixTokens: g.shape.prefix + g.shape.pairs, ImageTokens: seen}
	}
	return nil
}

// rows computes what the decoder is told before it says anything, and how many tokens of the image that is.
func (g *group) rows(ctx context.Context) (*rows, int, error) {
	pixels := make([][]float32, len(g.jobs))
	steers := make([]*steering, len(g.jobs))
	for i, j := range g.jobs {
		pixels[i], steers[i] = g.Images.Apply(j.image), j.steering
	}
	features, err := g.Features(ctx, g.Images.Pixels(pixels...), g.visual())
	if err != nil {
		return nil, 0, err
	}
	r := &rows{group: g, owners: make([]int, len(g.jobs))}
	for i, j := range g.jobs {
		r.owners[i], r.ids = i, append(r.ids, j.request.Opening)
	}
	if r.prefix, err = g.prefixes(ctx, steers, features); err != nil {
		return nil, 0, err
	}
	for i := range 2 * len(g.selfLayers(g.Decoder)) {
		if g.shape.pairs > 0 {
			r.pairs = append(r.pairs, g.pair(i))
		}
	}
	if g.Mapped() {
		return r, g.mapped(steers[0]), nil
	}
	r.states = features
	return r, int(features.Dims[1]), nil
}

// visual stacks the prompts in the encoder, a tensor [B,K,D] a layer.
func (g *group) visual() []*graph.Tensor {
	var layers []*graph.Tensor
	for l := range g.shape.depth {
		var data []float32
		for _, j := range g.jobs {
			data = append(data, j.steering.visual[l]...)
		}
		layers = append(layers, graph.NewTensor(data, int64(len(g.jobs)), int64(g.shape.visual), int64(g.Images.Width())))
	}
	return layers
}

// pair stacks the i-th of all keys and values, [B,H,P,d].
func (g *group) pair(i int) *graph.Tensor {
	l := g.selfLayers(g.Decoder)[i/2]
	var data []float32
	for _, j := range g.jobs {
		data = append(data, j.steering.pairs[i]...)
	}
	return graph.NewTensor(data, int64(len(g.jobs)), int64(l.Heads), int64(g.shape.pairs), int64(l.HeadWidth))
}
