package tokenizer

import (
	"math"

	"github.com/foretoken/foretoken/internal/errs"
)

// model turns pieces of text into tokens.
type model interface {
	// tokenize appends the tokens of a piece, which is not empty.
	tokenize(piece string, to []wordToken) []wordToken
	id(token string) (int32, bool)
	token(id int32) (string, bool)
	size() int
}

// wordToken is a token of a piece of text, from byte start up to end of it.
type wordToken struct {
	id         int32
	text       string // as the vocabulary writes it, or, if that lacks it, the piece
	start, end int
}

var models = map[string]constructor[model]{
	"BPE":       newBPE,
	"Unigram":   newUnigram,
	"WordLevel": newWordLevel,
	"WordPiece": newWordPiece,
}

// vocabulary is a model's tokens by id and back.
type vocabulary struct {
	ids    map[string]int32
	tokens map[int32]string
}

func newVocabulary(ids map[string]int64) (vocabulary, error) {
	v := vocabulary{make(map[string]int32, len(ids)), make(map[int32]string, len(ids))}
	for token, id := range ids {
		if id < 0 || id > math.MaxInt32 {
			return v, errs.New(errs.Invalid, "the token %q has the id %d, which is out of range", token, id)
		}
		v.ids[token], v.tokens[int32(id)] = int32(id), token
	}
	return v, nil
}

func (v vocabulary) id(token string) (int32, bool) {
	id, ok := v.ids[token]
	return id, ok
}

func (v vocabulary) token(id int32) (string, bool) {
	token, ok := v.tokens[id]
	return token, ok
}

func (v vocabulary) size() int { return len(v.ids) }

// unknown is the id of the unknown token; without one the text can't be tokenized.
func (v vocabulary) unknown(token, piece string) int32 {
	id, ok := v.ids[token]
	if !ok {
		fail(errs.New(errs.Invalid, "%q has characters that the vocabulary lacks, and it has no token %q for them", shorten(piece), token))
	}
	return id
}

// shorten cuts what an error quotes.
func shorten(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// wordLevel has a token for each word.
type wordLevel struct {
	vocabulary
	unk string
}

func newWordLevel(c config) (model, error) {
	var s struct {
		Vocab map[string]int64 `json:"vocab"`
		Unk   string           `json:"unk_token"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	v, err := newVocabulary(s.Vocab)
	return &wordLevel{v, s.Unk}, err
}

func (m *wordLevel) tokenize(piece string, to []wordToken) []wordToken {
	if id, ok := m.ids[piece]; ok {
		return append(to, wordToken{id, piece, 0, len(piece)})
	}
	return append(to, wordToken{m.unknown(m.unk, piece), m.unk, 0, len(piece)})
}

// kindOf is the type of a model as tokenizer.json writes it.
func kindOf(m model) string {
	switch m.(type) {
	case *bpe:
		return "BPE"
	case *unigram:
		return "Unigram"
	case *wordPiece:
		return "WordPiece"
	}
	return "WordLevel"
}
