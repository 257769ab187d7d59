// Package tokenizer turns text into a model's token ids and back, as a tokenizer.json says. It
// gives the ids, offsets and text that Python's `tokenizers` gives. It knows files and text,
// and nothing of towers or graphs.
//
// A text runs through five stages, each made of the file's section by a table from the
// component's type to its constructor: the normalizer changes the text, the pre-tokenizer cuts
// it into pieces, the model turns each into tokens, the post-processor puts special tokens
// around them; the decoder leads from tokens back to text. Adding a component is a row of its
// stage's table.
package tokenizer

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/foretoken/foretoken/internal/errs"
)

// Tokenizer is a tokenizer.json. It is safe for concurrent use.
type Tokenizer struct {
	added      *addedTokens
	normalize  normalizer // nil: none, as in the other stages
	cut        preTokenizer
	model      model
	post       postProcessor
	decode     decoder
	truncation *truncation
	padding    *padding
}

// Token is a token of an encoded text.
type Token struct {
	ID   int64
	Text string // as the vocabulary writes it
	// Start and End are where it comes from in the text: from the code point Start up to End.
	// Both are 0 for tokens that come from nowhere in it.
	Start, End int
	Segment    int64 // 0, or 1 in a pair's second text, as the post-processor says (token type id)
	Word       int   // which piece of the text it is of; -1: none
	Special    bool  // put there by the post-processor, or padding
	Padding    bool
}

// Encoding is a text as tokens.
type Encoding struct {
	Tokens []Token
	// Overflow is what the file's truncation cut off, in windows that have special tokens too.
	Overflow [][]Token
}

// IDs are the tokens' ids.
func (e *Encoding) IDs() []int64 {
	ids := make([]int64, len(e.Tokens))
	for i, t := range e.Tokens {
		ids[i] = t.ID
	}
	return ids
}

// Mask is 1 for each token, 0 for padding.
func (e *Encoding) Mask() []int64 {
	mask := make([]int64, len(e.Tokens))
	for i, t := range e.Tokens {
		if !t.Padding {
			mask[i] = 1
		}
	}
	return mask
}

// Load reads a tokenizer.json. A component that is not known is refused by name
// ([errs.Unsupported]); a file that contradicts itself is [errs.Invalid].
func Load(path string) (*Tokenizer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.NotFound, "tokenizer: %w", err)
	}
	t, err := Parse(b)
	if err != nil {
		return nil, errs.New(errs.Or(err, errs.Invalid), "tokenizer %s: %w", path, err)
	}
	return t, nil
}

// Parse is [Load] on the file's bytes.
func Parse(b []byte) (*Tokenizer, error) {
	var f struct {
		AddedTokens   []addedToken    `json:"added_tokens"`
		Normalizer    json.RawMessage `json:"normalizer"`
		PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
		Model         json.RawMessage `json:"model"`
		PostProcessor json.RawMessage `json:"post_processor"`
		Decoder       json.RawMessage `json:"decoder"`
		Truncation    json.RawMessage `json:"truncation"`
		Padding       json.RawMessage `json:"padding"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	var r reader
	t := &Tokenizer{
		normalize: section(&r, normalizers, "normalizer", f.Normalizer),
		cut:       section(&r, preTokenizers, "pre-tokenizer", f.PreTokenizer),
		model:     section(&r, models, "model", f.Model),
		post:      section(&r, postProcessors, "post-processor", f.PostProcessor),
		decode:    section(&r, decoders, "decoder", f.Decoder),
	}
	if r.err != nil {
		return nil, r.err
	}
	var err error
	if t.truncation, err = readTruncation(f.Truncation); err != nil {
		return nil, err
	}
	if t.padding, err = readPadding(f.Padding); err != nil {
		return nil, err
	}
	if t.model == nil {
		return nil, errs.New(errs.Invalid, "it has no model")
	}
	return t, t.add(f.AddedTokens)
}

func (t *Tokenizer) add(tokens []addedToken) (err error) {
	defer catch(&err)
	t.added = newAddedTokens(tokens, t.model, t.normalize)
	return nil
}

// Encode turns a text into tokens: cut, with special tokens, and padded, as the file says. An
// error tells of characters that the vocabulary has no token for.
func (t *Tokenizer) Encode(text string) (*Encoding, error) {
	return t.encode([]string{text}, t.padding)
}

// EncodePair is [Tokenizer.Encode] of two texts as one.
func (t *Tokenizer) EncodePair(first, second string) (*Encoding, error) {
	return t.encode([]string{first, second}, t.padding)
}

// EncodeBatch is [Tokenizer.Encode] of texts that, where the file says so, are padded to the
// longest of them.
func (t *Tokenizer) EncodeBatch(texts []string) ([]*Encoding, error) {
	all := make([]*Encoding, 0, len(texts))
	longest := 0
	for _, text := range texts {
		e, err := t.encode([]string{text}, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
		longest = max(longest, len(e.Tokens))
	}
	if t.padding != nil {
		for _, e := range all {
			e.pad(t.padding, longest)
		}
	}
	return all, nil
}

// Plain is a text's tokens alone: neither cut, nor padded, nor with special tokens.
func (t *Tokenizer) Plain(text string) (tokens []Token, err error) {
	defer catch(&err)
	return t.tokens(text), nil
}

func (e *Encoding) pad(p *padding, longest int) {
	length := p.length(longest)
	e.Tokens = p.pad(e.Tokens, length)
	for i := range e.Overflow {
		e.Overflow[i] = p.pad(e.Overflow[i], length)
	}
}

func (t *Tokenizer) encode(texts []string, p *padding) (e *Encoding, err error) {
	defer catch(&err)
	all := make([][]Token, len(texts))
	for i, text := range texts {
		all[i] = t.tokens(text)
		for k := range all[i] {
			all[i][k].Segment = int64(i)
		}
	}
	windows := make([][][]Token, len(all))
	for i, tokens := range all {
		windows[i] = [][]Token{tokens}
	}
	if t.truncation != nil {
		if windows, err = t.truncation.cut(all, max(0, t.truncation.max-t.specials(len(all) == 2))); err != nil {
			return nil, err
		}
	}
	e = t.join(windows)
	if p != nil {
		e.pad(p, len(e.Tokens))
	}
	return e, nil
}

func (t *Tokenizer) specials(pair bool) int {
	if t.post == nil {
		return 0
	}
	return t.post.added(pair)
}

// maxOverflow bounds the combinations of the windows of a pair.
const maxOverflow = 1 << 10

// join post-processes the first windows, and all other combinations as overflow.
func (t *Tokenizer) join(windows [][][]Token) *Encoding {
	e := &Encoding{Tokens: t.process(first(windows))}
	if len(windows) == 1 {
		for _, w := range windows[0][1:] {
			e.Overflow = append(e.Overflow, t.process([][]Token{w}))
		}
		return e
	}
	if len(windows[0])*len(windows[1]) > maxOverflow {
		fail(errs.New(errs.TooLarge, "a pair cut to %d and %d windows, limit %d combinations", len(windows[0]), len(windows[1]), maxOverflow))
	}
	for i, a := range windows[0] {
		for k, b := range windows[1] {
			if i+k > 0 {
				e.Overflow = append(e.Overflow, t.process([][]Token{a, b}))
			}
		}
	}
	// Python's order: the combinations with the first window of the first text come last.
	n := len(windows[1]) - 1
	e.Overflow = append(e.Overflow[n:len(e.Overflow):len(e.Overflow)], e.Overflow[:n]...)
	return e
}

func first(windows [][][]Token) [][]Token {
	texts := make([][]Token, len(windows))
	for i, w := range windows {
		texts[i] = w[0]
	}
	return texts
}

// process runs the post-processor on texts, which it may not change: windows overlap.
func (t *Tokenizer) process(texts [][]Token) []Token {
	if t.post != nil {
		own := make([][]Token, len(texts))
		for i, tokens := range texts {
			own[i] = slices.Clone(tokens)
		}
		texts = t.post.process(own)
	}
	return slices.Concat(texts...)
}

// tokens runs a text through all stages but the last two.
func (t *Tokenizer) tokens(text string) []Token {
	if !utf8.ValidString(text) {
		text = string([]rune(text)) // a byte that is no character counts as one
	}
	pieces := t.pieces(text)
	var words []wordToken
	ends := make([]int, len(pieces)) // of each piece's tokens among all
	for i := range pieces {
		words = t.piece(&pieces[i], words)
		ends[i] = len(words)
	}
	position := codePoints(text)
	tokens := make([]Token, len(words))
	p := 0
	for i, w := range words {
		for ends[p] == i {
			p++
		}
		start, end := pieces[p].origin(w.start, w.end)
		tokens[i] = Token{ID: int64(w.id), Text: w.text, Start: position(start), End: position(end), Word: p}
	}
	return tokens
}

// pieces cuts a text at added tokens, normalizes what lies between, and pre-tokenizes it.
func (t *Tokenizer) pieces(text string) []piece {
	var all []piece
	for _, p := range t.added.cut(aligned{text: text}, t.added.plain) {
		if p.added {
			all = append(all, p)
			continue
		}
		if t.normalize != nil {
			t.normalize(&p.aligned)
		}
		for _, p := range t.added.cut(p.aligned, t.added.normalized) {
			if p.added || t.cut == nil {
				all = append(all, p)
				continue
			}
			for _, a := range t.cut(p.aligned) {
				if a.text != "" {
					all = append(all, piece{aligned: a})
				}
			}
		}
	}
	return all
}

// piece appends a piece's tokens.
func (t *Tokenizer) piece(p *piece, to []wordToken) []wordToken {
	if p.added {
		return append(to, wordToken{p.id, p.text, 0, len(p.text)})
	}
	return t.model.tokenize(p.text, to)
}

// codePoints converts places in a text from bytes to code points.
func codePoints(text string) func(int) int {
	if strings.IndexFunc(text, func(c rune) bool { return c >= utf8.RuneSelf }) < 0 {
		return func(i int) int { return i }
	}
	count := make([]int32, len(text)+1)
	n := int32(0)
	for i := range len(text) {
		count[i] = n
		if i+1 == len(text) || utf8.RuneStart(text[i+1]) {
			n++
		}
	}
	count[len(text)] = n
	return func(i int) int { return int(count[i]) }
}

// String says in words what the file's tokenizer is.
func (t *Tokenizer) String() string {
	s := fmt.Sprintf("%s of %d tokens", kindOf(t.model), t.model.size())
	if n := t.PadLength(); n > 0 {
		s += fmt.Sprintf(", pads to %d", n)
	}
	if n := t.MaxLength(); n > 0 {
		s += fmt.Sprintf(", cuts at %d", n)
	}
	return s
}

// Around returns the ids of the special tokens that stand before a text and behind it.
func (t *Tokenizer) Around() (before, after []int64) {
	for _, token := range t.process([][]Token{{{}}}) { // a token that stands for the text
		if token.Special {
			after = append(after, token.ID)
		} else {
			before, after = after, nil
		}
	}
	return before, after
}

// MaxLength is what the file cuts texts to, special tokens counted; 0: nothing.
func (t *Tokenizer) MaxLength() int {
	if t.truncation == nil {
		return 0
	}
	return t.truncation.max
}

// PadID is the id that the file fills texts up with, if it does.
func (t *Tokenizer) PadID() (id int64, ok bool) {
	if t.padding == nil {
		return 0, false
	}
	return t.padding.token.ID, true
}

// PadLength is how many tokens the file fills each text up to; 0: no set number.
func (t *Tokenizer) PadLength() int {
	if t.padding == nil {
		return 0
	}
	return t.padding.fixed
}

// Decode turns ids back into text. Tokens that the file calls special are left out, unless
// keepSpecial is set; so are ids that the vocabulary lacks.
func (t *Tokenizer) Decode(ids []int64, keepSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		if token, ok := t.Token(id); ok && (keepSpecial || !t.added.special[token]) {
			tokens = append(tokens, token)
		}
	}
	if t.decode == nil {
		return strings.Join(tokens, " ")
	}
	return strings.Join(t.decode(tokens), "")
}

// Token is the token of an id, as the vocabulary writes it.
func (t *Tokenizer) Token(id int64) (string, bool) {
	if id != int64(int32(id)) {
		return "", false
	}
	if text, ok := t.added.text[int32(id)]; ok {
		return text, true
	}
	return t.model.token(int32(id))
}

// ID is the id of a token, as the vocabulary writes it.
func (t *Tokenizer) ID(token string) (int64, bool) {
	id, ok := t.added.id(token, t.model)
	return int64(id), ok
}
