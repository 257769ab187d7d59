package diffusion

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/text"
)

// TextEncoder turns a text into what the network looks at.
type TextEncoder struct {
	Tokenizer *text.Tokenizer
	// Tower computes the tokens that the network looks at, [B,S,D].
	Tower *graph.TextTower
	// PooledTower computes the text's one vector [B,D], which SDXL takes from its second encoder; nil
	// elsewhere.
	PooledTower *graph.TextTower
	// Window is how many tokens every text is padded or cut to, those that open and close it among them.
	Window int

	name    string // the folder
	options ort.Options

	mu       sync.Mutex
	sessions map[towerKey]*ort.Session
}

// towerKey tells sessions apart: which output, and how many learned rows they take.
type towerKey struct {
	pooled bool
	rows   int
}

// defaultWindow is CLIP's.
const defaultWindow = 77

// openText opens an encoder by its folders' suffix.
func openText(p *Pipeline, suffix string) (*TextEncoder, error) {
	e := &TextEncoder{name: "text_encoder" + suffix, options: p.options, sessions: map[towerKey]*ort.Session{}}
	fail := func(err error) error { return errs.New(errs.Of(err), "bundle %s: %s: %w", p.Bundle.Name, e.name, err) }
	var err error
	if e.Tokenizer, err = text.LoadTokenizerFolder(p.Bundle.Path("tokenizer" + suffix)); err != nil {
		return nil, errs.New(errs.Of(err), "bundle %s: %w", p.Bundle.Name, err)
	}
	g, err := p.load(e.name)
	if err != nil {
		return nil, err
	}
	hidden, err := hiddenOutput(g, p.xl, p.index.ClipSkip)
	if err != nil {
		return nil, fail(err)
	}
	if e.Tower, err = p.tower(g, hidden); err != nil {
		return nil, fail(err)
	}
	if !p.xl {
		if e.Tower, err = e.Tower.WithoutBlocks(p.index.ClipSkip); err != nil {
			return nil, fail(err)
		}
	}
	if suffix != "" {
		if g.Output("text_embeds") == nil {
			return nil, fail(errs.New(errs.Unsupported, "no output text_embeds"))
		}
		if e.PooledTower, err = p.tower(g, "text_embeds"); err != nil {
			return nil, fail(err)
		}
	}
	e.Window = defaultWindow
	for _, limit := range []int{e.Tower.Window, e.Tower.Exported, e.Tokenizer.Window()} {
		if limit > 0 {
			e.Window = min(e.Window, limit)
		}
	}
	if around := len(e.Tokenizer.Frame(nil)); e.Window <= around {
		return nil, fail(errs.New(errs.Invalid, "texts of at most %d tokens, of which %d open and close them: model_max_length is too small", e.Window, around))
	}
	return e, nil
}

// tower finds where learned rows enter, in floats on the CPU.
func (p *Pipeline) tower(g *graph.Graph, output string) (*graph.TextTower, error) {
	g = g.Clone()
	if err := p.widen(g); err != nil {
		return nil, err
	}
	return graph.FindTextTower(g, output)
}

// hiddenOutput names the output that the network looks at: the last layer's tokens; in SDXL those of the
// layer before, or skip layers further, without the last norm.
func hiddenOutput(g *graph.Graph, xl bool, skip int) (string, error) {
	if !xl {
		if g.Output("last_hidden_state") == nil {
			return g.Outputs[0].Name, nil
		}
		return "last_hidden_state", nil
	}
	layers := 0
	for g.Output(fmt.Sprintf("hidden_states.%d", layers)) != nil {
		layers++
	}
	if skip < 0 || layers < 3+skip {
		return "", errs.New(errs.Unsupported, "no outputs hidden_states.0, hidden_states.1, ...: SDXL looks at the one before the last, or clip_skip %d further; export with them, as optimum does", skip)
	}
	return fmt.Sprintf("hidden_states.%d", layers-2-skip), nil
}

// encoded is a text as the network looks at it.
type encoded struct {
	tokens []float32 // [Window,D]
	pooled []float32 // [D2], nil without a pooled tower
}

// encode runs texts, each Window ids, through the encoder. rows are the learned words' vectors [R,D], for
// ids from the token table's length on.
func (e *TextEncoder) encode(ctx context.Context, ids [][]int64, rows []float32) ([]encoded, error) {
	tokens, err := e.run(ctx, e.Tower, towerKey{rows: e.capacity(rows)}, ids, rows)
	if err != nil {
		return nil, err
	}
	out := make([]encoded, len(ids))
	for i := range out {
		out[i].tokens = tokens[i]
	}
	if e.PooledTower == nil {
		return out, nil
	}
	pooled, err := e.run(ctx, e.PooledTower, towerKey{pooled: true, rows: e.capacity(rows)}, ids, rows)
	for i := range pooled {
		out[i].pooled = pooled[i]
	}
	return out, err
}

// capacity is how many learned rows a session takes: 0, or a power of two from 8 on, so that few sessions
// serve any number.
func (e *TextEncoder) capacity(rows []float32) int {
	n := len(rows) / e.Tower.Width
	if n == 0 {
		return 0
	}
	capacity := 8
	for capacity < n {
		capacity *= 2
	}
	return capacity
}

func (e *TextEncoder) run(ctx context.Context, t *graph.TextTower, key towerKey, ids [][]int64, rows []float32) ([][]float32, error) {
	s, err := e.session(t, key)
	if err != nil {
		return nil, err
	}
	flat := slices.Concat(ids...)
	dims := []int64{int64(len(ids)), int64(e.Window)}
	feeds := map[string]*graph.Tensor{t.IDs.Name: graph.Integers(flat, t.IDs.Type, dims...)}
	if t.Mask != nil { // diffusers masks no padding
		feeds[t.Mask.Name] = graph.Integers(slices.Repeat([]int64{1}, len(flat)), t.Mask.Type, dims...)
	}
	if key.rows > 0 {
		padded := make([]float32, key.rows*t.Width)
		copy(padded, rows)
		feeds["token_rows"] = graph.NewTensor(padded, int64(key.rows), int64(t.Width))
	}
	got, err := s.Run(ctx, feeds)
	if err != nil {
		return nil, err
	}
	values, err := graph.Values[float32](got[t.Output.Name])
	if err != nil {
		return nil, err
	}
	return slices.Collect(slices.Chunk(values, len(values)/len(ids))), nil
}

// session returns the one for a tower with room for learned rows.
func (e *TextEncoder) session(t *graph.TextTower, key towerKey) (*ort.Session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sessions[key]; s != nil {
		return s, nil
	}
	if key.rows > 0 {
		ids := make([]int64, key.rows)
		for i := range ids {
			ids[i] = e.Vocabulary() + int64(i)
		}
		var err error
		if t, err = t.WithTokenRows(ids); err != nil {
			return nil, err
		}
	}
	s, err := ort.NewSession(t.Graph, e.options)
	if err != nil {
		return nil, err
	}
	e.sessions[key] = s
	return s, nil
}

// Vocabulary is the token table's length: ids from it on are learned words.
func (e *TextEncoder) Vocabulary() int64 { return int64(extent(e.Tower.Table, 0)) }

func (e *TextEncoder) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sessions {
		s.Close()
	}
	e.sessions = map[towerKey]*ort.Session{}
}

// Framed is a text as an encoder takes it.
type Framed struct {
	IDs    []int64 // [Window]: opened, closed, padded
	Tokens int     // how many of them are of the text itself
	Cut    bool    // whether the text was longer
}

// frame pads a text's ids to the window, or cuts it. A learned word that would be cut off is an error.
func (e *TextEncoder) frame(ids []int64) (Framed, error) {
	var f Framed
	room := e.Window - len(e.Tokenizer.Frame(nil))
	if len(ids) > room {
		if slices.Max(ids[room:]) >= e.Vocabulary() {
			return f, errs.New(errs.Invalid, "the prompt has %d tokens and a learned word behind the %d that %s looks at: make it shorter", len(ids), room, e.name)
		}
		ids, f.Cut = ids[:room], true
	}
	f.IDs, f.Tokens = e.Tokenizer.Frame(ids), len(ids)
	for len(f.IDs) < e.Window {
		f.IDs = append(f.IDs, e.Tokenizer.Pad())
	}
	return f, nil
}

// pieces cuts a text at the placeholders that it holds, whatever their case: "a <mug> here" at "<mug>" is
// "a ", "<mug>", " here".
func pieces(s string, placeholders []string) []string {
	var out []string
	lower := strings.ToLower(s)
	if len(lower) != len(s) { // letters whose lower case is longer: placeholders have to match as they are
		lower = s
	}
	start := 0
	for at := 0; at < len(s); {
		found := ""
		for _, p := range placeholders {
			if strings.HasPrefix(lower[at:], strings.ToLower(p)) && len(p) > len(found) {
				found = p
			}
		}
		if found == "" {
			at++
			continue
		}
		out = append(out, s[start:at], found)
		at += len(found)
		start = at
	}
	return append(out, s[start:])
}
