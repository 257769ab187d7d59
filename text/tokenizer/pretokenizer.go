package tokenizer

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/foretoken/foretoken/internal/errs"
)

// preTokenizer cuts a text into the pieces that the model sees each on its own.
type preTokenizer func(aligned) []aligned

var preTokenizers = map[string]constructor[preTokenizer]{
	"BertPreTokenizer": as[preTokenizer](bertPreTokenize),
	"ByteLevel":        newByteLevel,
	"Digits":           newDigits,
	"Metaspace":        newMetaspace,
	"Punctuation":      newPunctuation,
	"Split":            newSplit,
	"Whitespace":       as[preTokenizer](splitWords),
	"WhitespaceSplit":  as[preTokenizer](splitAtSpace),
}

func init() { preTokenizers["Sequence"] = newPreTokenizerSequence } // apart, as it refers to the table

func newPreTokenizerSequence(c config) (preTokenizer, error) {
	var s struct {
		PreTokenizers []json.RawMessage `json:"pretokenizers"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	all, err := buildAll(preTokenizers, "pre-tokenizer", c, s.PreTokenizers)
	return func(a aligned) []aligned {
		pieces := []aligned{a}
		for _, cut := range all {
			pieces = cutEach(pieces, cut)
		}
		return pieces
	}, err
}

// cutEach cuts each piece; a nil cut leaves them.
func cutEach(pieces []aligned, cut preTokenizer) []aligned {
	if cut == nil {
		return pieces
	}
	next := make([]aligned, 0, len(pieces)+4)
	for _, p := range pieces {
		next = append(next, cut(p)...)
	}
	return next
}

func newSplit(c config) (preTokenizer, error) {
	var s struct {
		Pattern  pattern  `json:"pattern"`
		Behavior behavior `json:"behavior"`
		Invert   bool     `json:"invert"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	find, err := s.Pattern.compile(c)
	return func(a aligned) []aligned { return a.split(parts(a.text, find(a.text), s.Invert), s.Behavior) }, err
}

func newDigits(c config) (preTokenizer, error) {
	var s struct {
		Individual bool `json:"individual_digits"`
	}
	err := c.into(&s)
	b := contiguous
	if s.Individual {
		b = isolated
	}
	return func(a aligned) []aligned { return a.split(parts(a.text, each(a.text, unicode.IsNumber), false), b) }, err
}

func newPunctuation(c config) (preTokenizer, error) {
	s := struct {
		Behavior behavior `json:"behavior"`
	}{isolated}
	err := c.into(&s)
	return func(a aligned) []aligned {
		return a.split(parts(a.text, each(a.text, isPunctuation), false), s.Behavior)
	}, err
}

// each finds every character that is is true for.
func each(text string, is func(rune) bool) []place {
	var found []place
	for i, c := range text {
		if is(c) {
			found = append(found, place{i, i + utf8.RuneLen(c)})
		}
	}
	return found
}

func splitAtSpace(a aligned) []aligned {
	return a.split(parts(a.text, each(a.text, unicode.IsSpace), false), removed)
}

func bertPreTokenize(a aligned) []aligned {
	return cutEach(splitAtSpace(a), func(a aligned) []aligned {
		return a.split(parts(a.text, each(a.text, isPunctuation), false), isolated)
	})
}

// splitWords cuts out runs of letters and digits, and runs of other signs.
func splitWords(a aligned) []aligned {
	class := func(c rune) int {
		switch {
		case isWord(c):
			return 1
		case unicode.IsSpace(c):
			return 0
		}
		return 2
	}
	var pieces []aligned
	for at := 0; at < len(a.text); {
		first, _ := utf8.DecodeRuneInString(a.text[at:])
		n := strings.IndexFunc(a.text[at:], func(c rune) bool { return class(c) != class(first) })
		if n < 0 {
			n = len(a.text) - at
		}
		if class(first) > 0 {
			pieces = append(pieces, a.slice(at, at+n))
		}
		at += n
	}
	return pieces
}

// metaspace writes spaces as a visible sign, as SentencePiece does.
type metaspace struct {
	sign   string
	scheme string // whether the sign is put before: "always", "never", before the "first" piece
	splits bool
}

func readMetaspace(c config) (metaspace, error) {
	s := struct {
		Replacement string `json:"replacement"`
		PrefixSpace *bool  `json:"add_prefix_space"` // of older files
		Scheme      string `json:"prepend_scheme"`
		Split       *bool  `json:"split"` // true, if it isn't given
	}{Scheme: "always"}
	if err := c.into(&s); err != nil {
		return metaspace{}, err
	}
	if utf8.RuneCountInString(s.Replacement) != 1 {
		return metaspace{}, errs.New(errs.Invalid, "its replacement %q is not one character", s.Replacement)
	}
	switch {
	case s.Scheme != "always" && s.Scheme != "first" && s.Scheme != "never":
		return metaspace{}, errs.New(errs.Unsupported, "its prepend_scheme %q is not supported", s.Scheme)
	case s.PrefixSpace != nil && !*s.PrefixSpace:
		s.Scheme = "never"
	}
	return metaspace{s.Replacement, s.Scheme, s.Split == nil || *s.Split}, nil
}

func newMetaspace(c config) (preTokenizer, error) {
	m, err := readMetaspace(c)
	if err != nil {
		return nil, err
	}
	spaces, signs := literal(" "), literal(m.sign)
	return func(a aligned) []aligned {
		a.replace(spaces(a.text), m.sign)
		if !strings.HasPrefix(a.text, m.sign) && (m.scheme == "always" || m.scheme == "first" && a.start == 0) {
			a.prepend(m.sign)
		}
		if !m.splits {
			return []aligned{a}
		}
		return a.split(parts(a.text, signs(a.text), false), mergedWithNext)
	}, nil
}
