package text

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
)

// Tower is a bundle's text encoder with its tokenizer. Sessions are made when first wanted and
// kept. It is safe for concurrent use.
type Tower struct {
	*Tokenizer
	Info    *graph.TextTower
	options ort.Options

	mu       sync.Mutex
	sessions map[graph.ContextOptions]*ort.Session
}

// chunk is how many texts go through the tower at once.
const chunk = 64

// OpenTower reads the bundle's text tower and tokenizer. A tower that context can't enter is
// refused with the reason.
func OpenTower(b *bundle.Bundle, o ort.Options) (*Tower, error) {
	tok, err := LoadTokenizer(b.Path("tokenizer.json"))
	if err != nil {
		return nil, err
	}
	info, err := b.TextTower()
	if err != nil {
		return nil, err
	}
	o.Rounding = true // what is served computes as the model's file says
	return &Tower{Tokenizer: tok, Info: info, options: o, sessions: map[graph.ContextOptions]*ort.Session{}}, nil
}

// ContextStart is the place that context takes in a text's tokens: behind those that open it, where
// foretoken.yaml does not say otherwise.
func (t *Tower) ContextStart() int {
	if t.Info.Start != nil {
		return *t.Info.Start
	}
	return t.Tokenizer.ContextStart()
}

// Depth is the number of blocks that context can enter.
func (t *Tower) Depth() int { return len(t.Info.Blocks) }

// Dims is the number of dimensions of the embeddings.
func (t *Tower) Dims() int64 {
	n, _ := t.Info.Output.Shape[1].Int()
	return n
}

// Batch stacks id lists into [C,S], padded to the longest. A tower to which padding matters is given
// the length that its tokenizer pads to, or that it was exported for, as it was trained on it.
func (t *Tower) Batch(ids [][]int64) *graph.Tensor {
	longest, most := t.Info.Lengths()
	if !t.Info.Trims {
		longest = max(longest, t.PadLength(), t.Info.Exported)
	}
	if most > 0 {
		longest = min(longest, most)
	}
	for _, row := range ids {
		longest = max(longest, len(row))
	}
	data := make([]int64, 0, len(ids)*longest)
	for _, row := range ids {
		data = append(data, row...)
		for range longest - len(row) {
			data = append(data, t.Pad())
		}
	}
	return graph.NewTensor(data, int64(len(ids)), int64(longest))
}

// Embed returns the texts' embeddings [C,P], L2-normalised. Texts longer than the window are cut.
func (t *Tower) Embed(ctx context.Context, texts []string) (*graph.Tensor, error) {
	var ids [][]int64
	for _, text := range texts {
		row, err := t.Encode(text, t.Info.Window)
		if err != nil {
			return nil, err
		}
		ids = append(ids, row)
	}
	return t.EmbedContext(ctx, t.Batch(ids), nil)
}

// EmbedContext returns the embeddings [C,P], L2-normalised, of ids [C,S] from
// [Tower.ContextIDs] with learned context in place of the placeholders: one tensor a layer,
// [1,M,D] for all texts or [C,M,D] for each its own; none for the frozen model.
func (t *Tower) EmbedContext(ctx context.Context, ids *graph.Tensor, layers []*graph.Tensor) (*graph.Tensor, error) {
	s, err := t.session(layers)
	if err != nil {
		return nil, err
	}
	var all []float32
	count := ids.Dims[0]
	for start := int64(0); start < count; start += chunk {
		end := min(start+chunk, count)
		part, err := t.trim(ids.Rows(start, end))
		if err != nil {
			return nil, err
		}
		in, err := t.Feeds(part)
		if err != nil {
			return nil, err
		}
		for i, layer := range layers {
			if layer.Dims[0] == count {
				layer = layer.Rows(start, end)
			}
			in[graph.PromptName("context", i)] = layer
		}
		out, err := s.Run(ctx, in)
		if err != nil {
			return nil, err
		}
		rows, err := graph.Values[float32](out[t.Info.Output.Name])
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	width := len(all) / int(max(1, count))
	Normalize(all, width)
	return graph.NewTensor(all, count, int64(width)), nil
}

// trim cuts ids [C,S] behind their longest text, where what follows changes nothing.
func (t *Tower) trim(ids *graph.Tensor) (*graph.Tensor, error) {
	values, err := graph.Values[int64](ids)
	longest, _ := t.Info.Lengths()
	if err != nil || !t.Info.Trims {
		return ids, err
	}
	length := int(ids.Dims[1])
	for row := 0; row < len(values); row += length {
		end := slices.Index(values[row:row+length], t.End()) + 1
		if end == 0 {
			end = length
		}
		longest = max(longest, end)
	}
	var cut []int64
	for row := 0; row < len(values); row += length {
		cut = append(cut, values[row:row+longest]...)
	}
	return graph.NewTensor(cut, ids.Dims[0], int64(longest)), nil
}

// Feeds are the tower's inputs for ids [C,S]: the ids in the type that the graph takes, and,
// where it takes one, the mask, 1 up to the first end token.
func (t *Tower) Feeds(ids *graph.Tensor) (map[string]*graph.Tensor, error) {
	values, err := graph.Values[int64](ids)
	if err != nil {
		return nil, err
	}
	in := map[string]*graph.Tensor{t.Info.IDs.Name: graph.Integers(values, t.Info.IDs.Type, ids.Dims...)}
	if t.Info.Mask == nil {
		return in, nil
	}
	mask := make([]int64, len(values))
	length := int(ids.Dims[1])
	for row := 0; row < len(values); row += length {
		for i := row; i < row+length; i++ {
			mask[i] = 1
			if values[i] == t.End() {
				break
			}
		}
	}
	in[t.Info.Mask.Name] = graph.Integers(mask, t.Info.Mask.Type, ids.Dims...)
	return in, nil
}

// session returns the session for context of the layers' shape.
func (t *Tower) session(layers []*graph.Tensor) (*ort.Session, error) {
	var o graph.ContextOptions
	if len(layers) > 0 {
		o = graph.ContextOptions{Tokens: int(layers[0].Dims[1]), Start: t.ContextStart(), Depth: len(layers), PerRow: layers[0].Dims[0] > 1}
	}
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

// Graph returns the tower's graph with context as inputs; Tokens 0 gives the frozen tower.
func (t *Tower) Graph(o graph.ContextOptions) (*graph.Graph, error) {
	if o.Tokens == 0 {
		return t.Info.Graph, nil
	}
	return t.Info.WithContext(o)
}

// ContextIDs returns the ids [C,S] of class names with m placeholders where context begins: behind the
// tokens that open a text as a rule. Names that do not fit the window are an error.
func (t *Tower) ContextIDs(names []string, m int) (*graph.Tensor, error) {
	var ids [][]int64
	longest, placeholders, start := "", slices.Repeat([]int64{t.Info.Placeholder()}, m), t.ContextStart()
	for _, name := range names {
		tokens, err := t.Tokens(name + ".")
		if err != nil {
			return nil, err
		}
		row := t.Frame(tokens)
		if start > len(row)-1 {
			return nil, errs.New(errs.Invalid, "context begins at place %d (text.start in foretoken.yaml), the class name %q has %d tokens", start, name, len(row))
		}
		row = slices.Insert(row, start, placeholders...)
		if len(row) > t.Info.Window && len(name) > len(longest) {
			longest = name
		}
		ids = append(ids, row)
	}
	if longest != "" {
		return nil, errs.New(errs.Invalid, "%d context tokens and the class name %q do not fit the text window of %d tokens", m, longest, t.Info.Window)
	}
	return t.Batch(ids), nil
}

// WordEmbeddings returns the token table's rows for words: [n,D].
func (t *Tower) WordEmbeddings(words string) (*graph.Tensor, error) {
	ids, err := t.Tokens(words)
	if err != nil {
		return nil, err
	}
	rows, err := t.Info.Embeddings(ids)
	if err != nil {
		return nil, err
	}
	return graph.NewTensor(rows, int64(len(ids)), int64(t.Info.Width)), nil
}

// Close frees the sessions.
func (t *Tower) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sessions {
		s.Close()
	}
	t.sessions = map[graph.ContextOptions]*ort.Session{}
}

// Normalize divides each row of the given width by its length.
func Normalize(data []float32, width int) {
	for i := 0; i+width <= len(data) && width > 0; i += width {
		row := data[i : i+width]
		var sum float64
		for _, x := range row {
			sum += float64(x) * float64(x)
		}
		scale := float32(1 / max(math.Sqrt(sum), 1e-12))
		for j := range row {
			row[j] *= scale
		}
	}
}
