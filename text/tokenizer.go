// Package text knows token ids, class names and templates, and the text tower of a bundle.
package text

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/text/tokenizer"
)

// Tokenizer gives the ids that a text tower takes. It is safe for concurrent use.
type Tokenizer struct {
	*tokenizer.Tokenizer
	before, after []int64 // the special tokens around a text
	pad           *int64  // of a tokenizer_config.json
	window        int     // the same file's longest text, 0 where it has no limit
}

// LoadTokenizer reads a tokenizer.json. A component that is not known is refused by name, and
// so is a file that puts no token behind a text: towers look for it.
func LoadTokenizer(path string) (*Tokenizer, error) {
	t, err := tokenizer.Load(path)
	if err != nil {
		return nil, err
	}
	return wrap(t, path)
}

// wrap refuses a tokenizer that puts no token behind a text.
func wrap(t *tokenizer.Tokenizer, path string) (*Tokenizer, error) {
	before, after := t.Around()
	if len(after) == 0 {
		return nil, errs.New(errs.Unsupported, "tokenizer %s: its post-processor puts no token behind a text", path)
	}
	return &Tokenizer{Tokenizer: t, before: before, after: after}, nil
}

// Window is the longest text that a tokenizer_config.json allows, with the tokens that open and close
// it; 0 where it does not say.
func (t *Tokenizer) Window() int { return t.window }

// idOf is the id of a special token, nil for no token.
func (t *Tokenizer) idOf(token string) (*int64, error) {
	if token == "" {
		return nil, nil
	}
	ids, err := t.Tokens(token)
	if err != nil {
		return nil, err
	}
	if len(ids) != 1 {
		return nil, errs.New(errs.Invalid, "%q is %d tokens", token, len(ids))
	}
	return &ids[0], nil
}

// Start is the id that opens a text; the end's, where nothing opens it.
func (t *Tokenizer) Start() int64 {
	if len(t.before) == 0 {
		return t.End()
	}
	return t.before[0]
}

// End is the id that closes a text.
func (t *Tokenizer) End() int64 { return t.after[0] }

// Pad is the id that fills up shorter texts: the file's, else the end's.
func (t *Tokenizer) Pad() int64 {
	if t.pad != nil {
		return *t.pad
	}
	if id, ok := t.PadID(); ok {
		return id
	}
	return t.End()
}

// ContextStart is the place that context takes in a text's tokens: behind those that open it.
func (t *Tokenizer) ContextStart() int { return len(t.before) }

// Encode returns the text's ids with the tokens that open and close it. A window above 0, or
// the file's own length, cuts the text so that all of it is at most that long.
func (t *Tokenizer) Encode(text string, window int) ([]int64, error) {
	ids, err := t.Tokens(text)
	if err != nil {
		return nil, err
	}
	if own := t.MaxLength(); own > 0 && (window <= 0 || own < window) {
		window = own
	}
	if room := max(0, window-len(t.before)-len(t.after)); window > 0 && len(ids) > room {
		ids = ids[:room]
	}
	return t.Frame(ids), nil
}

// Frame puts the tokens around ids that open and close a text.
func (t *Tokenizer) Frame(ids []int64) []int64 { return slices.Concat(t.before, ids, t.after) }

// Tokens returns the text's ids without those that open and close it.
func (t *Tokenizer) Tokens(text string) ([]int64, error) {
	tokens, err := t.Plain(text)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(tokens))
	for i, token := range tokens {
		ids[i] = token.ID
	}
	return ids, nil
}
