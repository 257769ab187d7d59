package vision

import (
	"context"
	"os"
	"sync"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
)

// Tower is a bundle's image encoder. It runs in two halves: [Tower.Tokens], which lies before
// every prompt, and [Tower.EmbedTokens], which prompts condition. Sessions are made when first
// wanted and kept. It is safe for concurrent use.
type Tower struct {
	*Preprocessor
	Info *graph.ImageTower // nil where prompts can't enter, for the reason in Refused
	// Refused says why prompts can't enter; the tower then runs in one piece, by [Tower.Embed].
	Refused error
	whole   *graph.Graph // of such a tower
	options ort.Options

	mu       sync.Mutex
	sessions map[graph.ImagePromptOptions]*ort.Session
	upstream *ort.Session // what lies before prompts, or the whole
}

// OpenTower reads the bundle's image tower and preprocessing. A tower that prompts can't enter
// is refused with the reason.
func OpenTower(b *bundle.Bundle, o ort.Options) (*Tower, error) {
	return openTower(b, o, b.ImageTower)
}

// OpenEncoder is [OpenTower] for the image encoder of a captioner: the first of the outputs that it has. One that prompts can't enter
// is kept as it is, with the reason.
func OpenEncoder(b *bundle.Bundle, o ort.Options, outputs ...string) (*Tower, error) {
	t, err := openTower(b, o, func() (*graph.ImageTower, error) { return b.Encoder(outputs...) })
	if errs.Of(err) != errs.Unsupported {
		return t, err
	}
	refused := err
	if t, err = openTower(b, o, func() (*graph.ImageTower, error) { return nil, nil }); err != nil {
		return nil, err
	}
	t.Refused = refused
	return t, t.keepWhole(b.EncoderModel(outputs...))
}

// keepWhole takes the encoder as it is: a graph from images of the preprocessor's size to one output.
func (t *Tower) keepWhole(g *graph.Graph, output string, err error) error {
	if err != nil {
		return err
	}
	if g, err = g.Only(output); err != nil {
		return err
	}
	if len(g.Inputs) != 1 || len(g.Inputs[0].Shape) != 4 {
		return t.Refused
	}
	for axis, n := range []int{3, t.height, t.width} {
		g.Inputs[0].Shape[1+axis] = graph.Known(int64(n))
	}
	if err := g.Fold(); err != nil {
		return err
	}
	t.whole = g
	return nil
}

func openTower(b *bundle.Bundle, o ort.Options, find func() (*graph.ImageTower, error)) (*Tower, error) {
	config, err := os.ReadFile(b.Path("preprocessor_config.json"))
	if err != nil {
		return nil, errs.New(errs.Invalid, "bundle %s: preprocessor_config.json is missing (looked in %s)", b.Name, b.Dir)
	}
	p, err := NewPreprocessor(config)
	if err != nil {
		return nil, errs.New(errs.Of(err), "bundle %s: %w", b.Name, err)
	}
	info, err := find()
	if err != nil {
		return nil, err
	}
	o.Rounding = true // what is served computes as the model's file says
	return &Tower{Preprocessor: p, Info: info, options: o, sessions: map[graph.ImagePromptOptions]*ort.Session{}}, nil
}

// Output is what the encoder gives: tokens [B,N,D], or embeddings [B,P].
func (t *Tower) Output() *graph.Value {
	if t.Info == nil {
		return t.whole.Outputs[0]
	}
	return t.Info.Output
}

// Depth is the number of blocks that prompts can enter, 0 where they can't.
func (t *Tower) Depth() int {
	if t.Info == nil {
		return 0
	}
	return len(t.Info.Blocks)
}

// Width is the tokens' width D, 0 where prompts can't enter.
func (t *Tower) Width() int {
	if t.Info == nil {
		return 0
	}
	return t.Info.Width
}

// PatchSize is the side in pixels that one token stands for: the input's side over the grid's.
func (t *Tower) PatchSize() int {
	grid := 1
	for (grid+1)*(grid+1) <= t.Info.Tokens-t.Info.ClassTokens {
		grid++
	}
	return t.height / grid
}

// Tokens computes what the image tower holds where prompts enter: [B,3,H,W] to [B,N,D].
func (t *Tower) Tokens(ctx context.Context, pixels *graph.Tensor) (*graph.Tensor, error) {
	return t.front(ctx, pixels, "tokens", t.Info.Upstream)
}

// front runs the graph that takes images to an output.
func (t *Tower) front(ctx context.Context, pixels *graph.Tensor, output string, of func() (*graph.Graph, error)) (*graph.Tensor, error) {
	t.mu.Lock()
	if t.upstream == nil {
		g, err := of()
		if err == nil {
			t.upstream, err = ort.NewSession(g, t.options)
		}
		if err != nil {
			t.mu.Unlock()
			return nil, err
		}
	}
	s := t.upstream
	t.mu.Unlock()
	out, err := s.Run(ctx, map[string]*graph.Tensor{s.Inputs()[0].Name: pixels})
	return out[output], err
}

// EmbedTokens computes the embeddings [B,P] of tokens [B,N,D], not normalised, conditioned by
// prompts: one tensor [B,K,D] a layer, none for the frozen model.
func (t *Tower) EmbedTokens(ctx context.Context, tokens *graph.Tensor, prompts []*graph.Tensor) (*graph.Tensor, error) {
	o := graph.ImagePromptOptions{Depth: len(prompts), PerRow: true, FromTokens: true}
	in := map[string]*graph.Tensor{"tokens": tokens}
	for i, p := range prompts {
		o.Tokens = int(p.Dims[1])
		in[graph.PromptName("visual", i)] = p
	}
	s, err := t.session(o)
	if err != nil {
		return nil, err
	}
	out, err := s.Run(ctx, in)
	return out[t.Info.Output.Name], err
}

// session returns the session for prompts of one shape.
func (t *Tower) session(o graph.ImagePromptOptions) (*ort.Session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.sessions[o]; s != nil {
		return s, nil
	}
	g, err := t.Graph(o)
	if err != nil {
		return nil, err
	}
	s, err := ort.NewSession(g, t.options)
	if err == nil {
		t.sessions[o] = s
	}
	return s, err
}

// Graph returns the tower's graph with prompts as inputs; Tokens 0 gives the frozen tower.
func (t *Tower) Graph(o graph.ImagePromptOptions) (*graph.Graph, error) {
	if o.Tokens == 0 {
		return t.Info.Downstream()
	}
	return t.Info.WithPrompts(o)
}

// Embed computes the frozen model's output, such as embeddings [B,P], of pixels [B,3,H,W], not normalised.
func (t *Tower) Embed(ctx context.Context, pixels *graph.Tensor) (*graph.Tensor, error) {
	if t.Info == nil {
		return t.front(ctx, pixels, t.Output().Name, func() (*graph.Graph, error) { return t.whole, nil })
	}
	tokens, err := t.Tokens(ctx, pixels)
	if err != nil {
		return nil, err
	}
	return t.EmbedTokens(ctx, tokens, nil)
}

// Close frees the sessions.
func (t *Tower) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.upstream != nil {
		t.upstream.Close()
	}
	for _, s := range t.sessions {
		s.Close()
	}
	t.upstream, t.sessions = nil, map[graph.ImagePromptOptions]*ort.Session{}
}
