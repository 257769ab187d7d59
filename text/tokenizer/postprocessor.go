package tokenizer

import (
	"encoding/json"
	"strings"
	"unicode"

	"github.com/foretoken/foretoken/internal/errs"
)

// postProcessor puts special tokens around and between one text or two.
type postProcessor interface {
	// added is how many tokens it puts to one text, or to a pair.
	added(pair bool) int
	// process returns the parts, to be joined.
	process(texts [][]Token) [][]Token
}

var postProcessors = map[string]constructor[postProcessor]{
	"BertProcessing":     newBertProcessing,
	"ByteLevel":          newTrimOffsets,
	"RobertaProcessing":  newRobertaProcessing,
	"TemplateProcessing": newTemplate,
}

func init() { postProcessors["Sequence"] = newPostProcessorSequence } // apart, as it refers to the table

// processors run one after the other.
type processors []postProcessor

func newPostProcessorSequence(c config) (postProcessor, error) {
	var s struct {
		Processors []json.RawMessage `json:"processors"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	all, err := buildAll(postProcessors, "post-processor", c, s.Processors)
	if err != nil {
		return nil, err
	}
	adding := 0
	for _, p := range all {
		if p != nil && p.added(false)+p.added(true) > 0 {
			adding++
		}
	}
	if adding > 1 {
		return nil, errs.New(errs.Unsupported, "%d of its processors add tokens; one may", adding)
	}
	return processors(all), nil
}

func (ps processors) added(pair bool) int {
	n := 0
	for _, p := range ps {
		if p != nil {
			n += p.added(pair)
		}
	}
	return n
}

func (ps processors) process(texts [][]Token) [][]Token {
	for _, p := range ps {
		if p != nil {
			texts = p.process(texts)
		}
	}
	return texts
}

// trimOffsets takes the white space that tokens carry out of their offsets.
type trimOffsets struct {
	trims       bool
	prefixSpace bool // a space was put before the text, which the first token carries
}

func newTrimOffsets(c config) (postProcessor, error) {
	s := struct {
		Trim        bool `json:"trim_offsets"`
		PrefixSpace bool `json:"add_prefix_space"`
	}{true, true}
	err := c.into(&s)
	return trimOffsets{s.Trim, s.PrefixSpace}, err
}

func (trimOffsets) added(bool) int { return 0 }

func (p trimOffsets) process(texts [][]Token) [][]Token {
	for _, tokens := range texts {
		for i := range tokens {
			p.trim(&tokens[i], i == 0)
		}
	}
	return texts
}

func (p trimOffsets) trim(t *Token, first bool) {
	if !p.trims {
		return
	}
	blank := func(c rune) bool { return c == spaceSymbol || unicode.IsSpace(c) }
	chars := []rune(t.Text)
	leading, trailing := 0, 0
	for leading < len(chars) && blank(chars[leading]) {
		leading++
	}
	for trailing < len(chars) && blank(chars[len(chars)-1-trailing]) {
		trailing++
	}
	if leading == 1 && p.prefixSpace && (first || t.Start == 0) {
		leading = 0 // the one that was put there
	}
	t.Start = min(t.Start+leading, t.End)
	if t.End >= trailing {
		t.End = max(t.End-trailing, t.Start)
	}
}

// template says what stands around one text, and around two.
type template struct {
	single, pair []templatePart
}

// templatePart is a text, or special tokens, in segment segment.
type templatePart struct {
	text    int // 0 or 1; -1: special tokens
	special []Token
	segment int64
}

// named is a token and its id, as Bert's and Roberta's processors write them: ["[SEP]",102].
type named struct {
	text string
	id   int64
}

// UnmarshalJSON reads the two.
func (n *named) UnmarshalJSON(raw []byte) error {
	return json.Unmarshal(raw, &[]any{&n.text, &n.id})
}

func (n named) in(segment int64) templatePart {
	return templatePart{-1, []Token{{ID: n.id, Text: n.text, Word: -1, Special: true, Segment: segment}}, segment}
}

type ends struct {
	Sep *named `json:"sep"`
	Cls *named `json:"cls"`
}

func (e ends) check() error {
	if e.Sep == nil || e.Cls == nil {
		return errs.New(errs.Invalid, "it lacks sep or cls")
	}
	return nil
}

func text(i int, segment int64) templatePart { return templatePart{i, nil, segment} }

func newBertProcessing(c config) (postProcessor, error) {
	var s ends
	if err := c.into(&s); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return template{
		[]templatePart{s.Cls.in(0), text(0, 0), s.Sep.in(0)},
		[]templatePart{s.Cls.in(0), text(0, 0), s.Sep.in(0), text(1, 1), s.Sep.in(1)},
	}, nil
}

func newRobertaProcessing(c config) (postProcessor, error) {
	var s ends
	if err := c.into(&s); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	trim, err := newTrimOffsets(c)
	return processors{trim, template{
		[]templatePart{s.Cls.in(0), text(0, 0), s.Sep.in(0)},
		[]templatePart{s.Cls.in(0), text(0, 0), s.Sep.in(0), s.Sep.in(0), text(1, 0), s.Sep.in(0)},
	}}, err
}

// templateEntry is a part of a template as the file has it.
type templateEntry struct {
	Sequence     *templateID `json:"Sequence"`
	SpecialToken *templateID `json:"SpecialToken"`
}

type templateID struct {
	ID      string `json:"id"`
	Segment int64  `json:"type_id"`
}

// templateTokens is what a special token of a template stands for.
type templateTokens struct {
	IDs    []int64  `json:"ids"`
	Tokens []string `json:"tokens"`
}

func newTemplate(c config) (postProcessor, error) {
	var s struct {
		Single  []templateEntry           `json:"single"`
		Pair    []templateEntry           `json:"pair"`
		Special map[string]templateTokens `json:"special_tokens"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	var t template
	var err error
	if t.single, err = readTemplate(s.Single, s.Special, 1); err != nil {
		return nil, err
	}
	t.pair, err = readTemplate(s.Pair, s.Special, 2)
	return t, err
}

func readTemplate(entries []templateEntry, special map[string]templateTokens, texts int) ([]templatePart, error) {
	var all []templatePart
	for i, e := range entries {
		switch {
		case e.Sequence != nil:
			n := strings.Index("AB", e.Sequence.ID)
			if n < 0 || n >= texts || len(e.Sequence.ID) != 1 {
				return nil, errs.New(errs.Invalid, "part %d of a template of %d texts is the text %q", i, texts, e.Sequence.ID)
			}
			all = append(all, text(n, e.Sequence.Segment))
		case e.SpecialToken != nil:
			tokens, ok := special[e.SpecialToken.ID]
			if !ok || len(tokens.IDs) != len(tokens.Tokens) {
				return nil, errs.New(errs.Invalid, "part %d of a template is %q, which special_tokens lacks, or has more ids for than tokens", i, e.SpecialToken.ID)
			}
			part := templatePart{text: -1, segment: e.SpecialToken.Segment}
			for k, id := range tokens.IDs {
				part.special = append(part.special, named{tokens.Tokens[k], id}.in(part.segment).special...)
			}
			all = append(all, part)
		default:
			return nil, errs.New(errs.Invalid, "part %d of a template is neither a Sequence nor a SpecialToken", i)
		}
	}
	return all, nil
}

func (t template) of(pair bool) []templatePart {
	if pair {
		return t.pair
	}
	return t.single
}

func (t template) added(pair bool) int {
	n := 0
	for _, p := range t.of(pair) {
		n += len(p.special)
	}
	return n
}

func (t template) process(texts [][]Token) [][]Token {
	var out [][]Token
	for _, p := range t.of(len(texts) == 2) {
		if p.text < 0 {
			out = append(out, p.special)
			continue
		}
		for i := range texts[p.text] {
			texts[p.text][i].Segment = p.segment
		}
		out = append(out, texts[p.text])
	}
	return out
}
