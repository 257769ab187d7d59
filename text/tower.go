package text

import (
	"context"
	"math"
	"sync"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
)

// Tower is a bundle's text encoder with its tokenizer. Its session is made when first wanted.
// It is safe for concurrent use.
type Tower struct {
	*Tokenizer
	Info    *graph.TextTower
	options ort.Options

	mu    sync.Mutex
	plain *ort.Session
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
	g, output, err := b.TextModel()
	if err != nil {
		return nil, err
	}
	info, err := graph.FindTextTower(g, output)
	if err != nil {
		return nil, errs.New(errs.Of(err), "bundle %s: text tower: %w", b.Name, err)
	}
	return &Tower{Tokenizer: tok, Info: info, options: o}, nil
}

// Depth is the number of blocks that context can enter.
func (t *Tower) Depth() int { return len(t.Info.Blocks) }

// Batch stacks id lists into [C,S], padded with the end token to the longest.
func (t *Tower) Batch(ids [][]int64) *graph.Tensor {
	longest := 0
	for _, row := range ids {
		longest = max(longest, len(row))
	}
	data := make([]int64, 0, len(ids)*longest)
	for _, row := range ids {
		data = append(data, row...)
		for range longest - len(row) {
			data = append(data, t.End())
		}
	}
	return graph.NewTensor(data, int64(len(ids)), int64(longest))
}

// Embed returns the texts' embeddings [C,P], L2-normalised. Texts longer than the window are cut.
func (t *Tower) Embed(ctx context.Context, texts []string) (*graph.Tensor, error) {
	s, err := t.session()
	if err != nil {
		return nil, err
	}
	var all []float32
	for start := 0; start < len(texts); start += chunk {
		var ids [][]int64
		for _, text := range texts[start:min(start+chunk, len(texts))] {
			ids = append(ids, t.Encode(text, t.Info.Window))
		}
		out, err := s.Run(ctx, map[string]*graph.Tensor{t.Info.IDs.Name: t.Batch(ids)})
		if err != nil {
			return nil, err
		}
		rows, err := graph.Values[float32](out[t.Info.Output.Name])
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	width := len(all) / max(1, len(texts))
	Normalize(all, width)
	return graph.NewTensor(all, int64(len(texts)), int64(width)), nil
}

func (t *Tower) session() (s *ort.Session, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plain == nil {
		t.plain, err = ort.NewSession(t.Info.Graph, t.options)
	}
	return t.plain, err
}

// ContextIDs returns the ids [C,S] of class names behind m placeholders that follow the start
// token, where context tokens are put. Names that do not fit the window are an error.
func (t *Tower) ContextIDs(names []string, m int) (*graph.Tensor, error) {
	var ids [][]int64
	longest := ""
	for _, name := range names {
		row := []int64{t.Start()}
		for range m {
			row = append(row, t.End()-1) // any id below the end token's: the end is looked for by value
		}
		row = append(append(row, t.Tokens(name+".")...), t.End())
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
	ids := t.Tokens(words)
	rows, err := t.Info.Embeddings(ids)
	if err != nil {
		return nil, err
	}
	return graph.NewTensor(rows, int64(len(ids)), int64(t.Info.Width)), nil
}

// Close frees the session.
func (t *Tower) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plain != nil {
		t.plain.Close()
		t.plain = nil
	}
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
