// Package text knows token ids, class names and templates, and the text tower of a bundle.
package text

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/text/unicode/norm"

	"github.com/foretoken/foretoken/internal/errs"
)

// Tokenizer turns text into token ids as CLIP does: lower-cased byte-level BPE with an
// end-of-word suffix, read from a tokenizer.json. It is safe for concurrent use.
type Tokenizer struct {
	normalize []func(string) string
	splits    []func(string) []string
	vocab     map[string]int64
	ranks     map[[2]string]int
	suffix    string
	unknown   int64
	special   []addedToken // matched in the text as it is
	start     int64
	end       int64
	pieces    map[int64]string
	words     sync.Map // word -> []int64, of words seen before
}

type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	Normalized bool   `json:"normalized"`
}

// component is one part of a tokenizer.json: its type and whatever settings it has.
type component struct {
	Type           string          `json:"type"`
	Normalizers    []component     `json:"normalizers"`
	Pretokenizers  []component     `json:"pretokenizers"`
	Pattern        pattern         `json:"pattern"`
	Content        string          `json:"content"`
	Behavior       string          `json:"behavior"`
	Invert         bool            `json:"invert"`
	AddPrefixSpace bool            `json:"add_prefix_space"`
	UseRegex       *bool           `json:"use_regex"`
	Cls            [2]any          `json:"cls"`
	Sep            [2]any          `json:"sep"`
	Single         json.RawMessage `json:"single"`
	SpecialTokens  json.RawMessage `json:"special_tokens"`
}

type pattern struct {
	Regex  string `json:"Regex"`
	String string `json:"String"`
}

type tokenizerFile struct {
	AddedTokens   []addedToken `json:"added_tokens"`
	Normalizer    *component   `json:"normalizer"`
	PreTokenizer  *component   `json:"pre_tokenizer"`
	PostProcessor *component   `json:"post_processor"`
	Model         struct {
		Type      string            `json:"type"`
		Vocab     map[string]int64  `json:"vocab"`
		Merges    []json.RawMessage `json:"merges"`
		Suffix    string            `json:"end_of_word_suffix"`
		UnkToken  string            `json:"unk_token"`
		ByteFall  bool              `json:"byte_fallback"`
		Continues string            `json:"continuing_subword_prefix"`
	} `json:"model"`
}

// LoadTokenizer reads a tokenizer.json. A component that is not known is refused by name.
func LoadTokenizer(path string) (*Tokenizer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.NotFound, "tokenizer: %w", err)
	}
	t, err := ParseTokenizer(b)
	if err != nil {
		return nil, errs.New(errs.Or(err, errs.Invalid), "tokenizer %s: %w", path, err)
	}
	return t, nil
}

// ParseTokenizer is [LoadTokenizer] on the file's bytes.
func ParseTokenizer(b []byte) (*Tokenizer, error) {
	var f tokenizerFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	if f.Model.Type != "BPE" || f.Model.ByteFall || f.Model.Continues != "" {
		return nil, unsupported("model", f.Model.Type)
	}
	t := &Tokenizer{vocab: f.Model.Vocab, suffix: f.Model.Suffix, special: f.AddedTokens, pieces: map[int64]string{}, unknown: -1}
	if id, ok := t.vocab[f.Model.UnkToken]; ok {
		t.unknown = id
	}
	if err := t.readMerges(f.Model.Merges); err != nil {
		return nil, err
	}
	if err := t.readNormalizer(f.Normalizer); err != nil {
		return nil, err
	}
	if err := t.readSplits(f.PreTokenizer); err != nil {
		return nil, err
	}
	for piece, id := range t.vocab {
		t.pieces[id] = piece
	}
	for _, a := range t.special {
		t.pieces[a.ID] = a.Content
		if t.unknown < 0 && a.Content == f.Model.UnkToken {
			t.unknown = a.ID
		}
	}
	return t, t.readEnds(f.PostProcessor)
}

func unsupported(what, name string) error {
	return errs.New(errs.Unsupported, "its %s %q is not supported", what, name)
}

// readMerges reads merges, written as "a b" or as ["a","b"].
func (t *Tokenizer) readMerges(merges []json.RawMessage) error {
	t.ranks = make(map[[2]string]int, len(merges))
	for i, raw := range merges {
		var pair [2]string
		if json.Unmarshal(raw, &pair) != nil {
			var line string
			if err := json.Unmarshal(raw, &line); err != nil {
				return errs.New(errs.Invalid, "merge %d: %w", i, err)
			}
			left, right, ok := strings.Cut(line, " ")
			if !ok {
				return errs.New(errs.Invalid, "merge %d is %q", i, line)
			}
			pair = [2]string{left, right}
		}
		t.ranks[pair] = i
	}
	return nil
}

func (t *Tokenizer) readNormalizer(c *component) error {
	if c == nil {
		return nil
	}
	switch c.Type {
	case "Sequence":
		for i := range c.Normalizers {
			if err := t.readNormalizer(&c.Normalizers[i]); err != nil {
				return err
			}
		}
	case "NFC":
		t.normalize = append(t.normalize, norm.NFC.String)
	case "Lowercase":
		t.normalize = append(t.normalize, lower)
	case "Replace":
		re, err := compile(c.Pattern)
		if err != nil {
			return err
		}
		t.normalize = append(t.normalize, func(s string) string { return re.ReplaceAllLiteralString(s, c.Content) })
	default:
		return unsupported("normalizer", c.Type)
	}
	return nil
}

func (t *Tokenizer) readSplits(c *component) error {
	if c == nil {
		return nil
	}
	switch {
	case c.Type == "Sequence":
		for i := range c.Pretokenizers {
			if err := t.readSplits(&c.Pretokenizers[i]); err != nil {
				return err
			}
		}
	case c.Type == "Split" && c.Behavior == "Removed" && c.Invert:
		re, err := compile(c.Pattern)
		if err != nil {
			return err
		}
		t.splits = append(t.splits, func(s string) []string { return re.FindAllString(s, -1) })
	case c.Type == "ByteLevel" && !c.AddPrefixSpace:
		if c.UseRegex == nil || *c.UseRegex {
			t.splits = append(t.splits, func(s string) []string { return byteLevel.FindAllString(s, -1) })
		}
	default:
		return unsupported("pre-tokenizer", c.Type)
	}
	return nil
}

// byteLevel is GPT-2's pattern, for pieces that hold no white space.
var byteLevel = regexp.MustCompile(`'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+`)

// white is Unicode's White_Space, which \s means in the files; Go's \s is ASCII only.
const white = `\t\n\v\f\r\x{85}\p{Z}`

func compile(p pattern) (*regexp.Regexp, error) {
	expr := p.Regex
	if expr == "" {
		expr = regexp.QuoteMeta(p.String)
	}
	expr = strings.ReplaceAll(expr, `[^\s`, `[^`+white)
	expr = strings.ReplaceAll(expr, `\s`, `[`+white+`]`)
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, errs.New(errs.Unsupported, "its pattern %q: %w", p.Regex, err)
	}
	return re, nil
}

// lower maps each character to its lower case; one of them becomes two.
func lower(s string) string {
	return strings.ToLower(strings.ReplaceAll(s, "İ", "i\u0307"))
}

// readEnds finds the tokens that open and close a text.
func (t *Tokenizer) readEnds(c *component) error {
	if c == nil {
		return unsupported("post-processor", "none")
	}
	switch c.Type {
	case "RobertaProcessing":
		start, ok1 := c.Cls[1].(float64)
		end, ok2 := c.Sep[1].(float64)
		if !ok1 || !ok2 {
			return errs.New(errs.Invalid, "RobertaProcessing lacks cls or sep")
		}
		t.start, t.end = int64(start), int64(end)
		return nil
	case "TemplateProcessing":
		return t.readTemplate(c)
	}
	return unsupported("post-processor", c.Type)
}

func (t *Tokenizer) readTemplate(c *component) error {
	var single []map[string]struct {
		ID string `json:"id"`
	}
	var ids map[string]struct {
		IDs []int64 `json:"ids"`
	}
	if json.Unmarshal(c.Single, &single) != nil || json.Unmarshal(c.SpecialTokens, &ids) != nil || len(single) != 3 {
		return unsupported("template", string(c.Single))
	}
	first, last := ids[single[0]["SpecialToken"].ID].IDs, ids[single[2]["SpecialToken"].ID].IDs
	if len(first) != 1 || len(last) != 1 {
		return unsupported("template", string(c.Single))
	}
	t.start, t.end = first[0], last[0]
	return nil
}

// Start and End are the ids that open and close a text.
func (t *Tokenizer) Start() int64 { return t.start }
func (t *Tokenizer) End() int64   { return t.end }

// Encode returns the text's ids between the start and the end token. A window above 0 cuts
// the text so that all of it, the end token included, is at most that long.
func (t *Tokenizer) Encode(text string, window int) []int64 {
	ids := append([]int64{t.start}, t.Tokens(text)...)
	if window > 0 && len(ids) > window-1 {
		ids = ids[:window-1]
	}
	return append(ids, t.end)
}

// Tokens returns the text's ids without start and end.
func (t *Tokenizer) Tokens(text string) []int64 {
	var ids []int64
	for _, part := range cutAt(text, t.special, false) {
		if part.added {
			ids = append(ids, part.id)
			continue
		}
		for _, f := range t.normalize {
			part.text = f(part.text)
		}
		for _, p := range cutAt(part.text, t.special, true) {
			if p.added {
				ids = append(ids, p.id)
				continue
			}
			ids = append(ids, t.plain(p.text)...)
		}
	}
	return ids
}

// plain tokenizes normalised text.
func (t *Tokenizer) plain(text string) []int64 {
	pieces := []string{text}
	for _, split := range t.splits {
		var next []string
		for _, p := range pieces {
			next = append(next, split(p)...)
		}
		pieces = next
	}
	var ids []int64
	for _, p := range pieces {
		ids = append(ids, t.word(p)...)
	}
	return ids
}

type part struct {
	text  string
	id    int64
	added bool
}

// cutAt cuts text at the added tokens that are matched at this stage: before or after normalising.
func cutAt(text string, tokens []addedToken, normalized bool) []part {
	var parts []part
	for text != "" {
		at, found := len(text), -1
		for i, a := range tokens {
			if a.Normalized != normalized || a.Content == "" {
				continue
			}
			if k := strings.Index(text, a.Content); k >= 0 && (k < at || k == at && found >= 0 && len(a.Content) > len(tokens[found].Content)) {
				at, found = k, i
			}
		}
		if at > 0 {
			parts = append(parts, part{text: text[:at]})
		}
		if found < 0 {
			break
		}
		parts = append(parts, part{id: tokens[found].ID, added: true})
		text = text[at+len(tokens[found].Content):]
	}
	return parts
}

// maxCached bounds the length of the words that are remembered.
const maxCached = 32

// word merges one word's bytes by rank.
func (t *Tokenizer) word(w string) []int64 {
	if ids, ok := t.words.Load(w); ok {
		return ids.([]int64)
	}
	symbols := make([]string, 0, len(w))
	for i := range len(w) {
		symbols = append(symbols, byteSymbols[w[i]])
	}
	if len(symbols) == 0 {
		return nil
	}
	symbols[len(symbols)-1] += t.suffix
	symbols = t.merge(symbols)
	ids := make([]int64, 0, len(symbols))
	for _, s := range symbols {
		id, ok := t.vocab[s]
		if !ok {
			id = t.unknown
		}
		if id >= 0 {
			ids = append(ids, id)
		}
	}
	if len(w) <= maxCached {
		t.words.Store(strings.Clone(w), ids)
	}
	return ids
}

// merge joins the neighbours of lowest rank, leftmost first, until none has a rank.
func (t *Tokenizer) merge(symbols []string) []string {
	for len(symbols) > 1 {
		best, at := len(t.ranks), -1
		for i := range len(symbols) - 1 {
			if r, ok := t.ranks[[2]string{symbols[i], symbols[i+1]}]; ok && r < best {
				best, at = r, i
			}
		}
		if at < 0 {
			return symbols
		}
		symbols[at] += symbols[at+1]
		symbols = slices.Delete(symbols, at+1, at+2)
	}
	return symbols
}

// Decode turns ids back into text; start, end and unknown ids are left out.
func (t *Tokenizer) Decode(ids []int64) string {
	var out []byte
	for _, id := range ids {
		piece, ok := t.pieces[id]
		if !ok || id == t.start || id == t.end {
			continue
		}
		word, ends := strings.CutSuffix(piece, t.suffix)
		for _, r := range word {
			if b, known := symbolBytes[r]; known {
				out = append(out, b)
			}
		}
		if ends && t.suffix != "" {
			out = append(out, ' ')
		}
	}
	return strings.TrimRight(strings.ToValidUTF8(string(out), "\uFFFD"), " ")
}

// byteSymbols writes each byte as a printable character, as GPT-2 does: bytes that are
// printable Latin-1 stand for themselves, the others follow from U+0100 on.
var byteSymbols, symbolBytes = func() (symbols [256]string, bytes map[rune]byte) {
	bytes = map[rune]byte{}
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if printable := b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE; !printable {
			r = next
			next++
		}
		symbols[b], bytes[r] = string(r), byte(b)
	}
	return symbols, bytes
}()
