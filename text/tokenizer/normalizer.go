package tokenizer

import (
	"encoding/json"
	"strings"
	"unicode"
)

// normalizer changes a text before it is cut.
type normalizer func(*aligned)

var normalizers = map[string]constructor[normalizer]{
	"BertNormalizer": newBertNormalizer,
	"ByteLevel":      as[normalizer](writeBytes),
	"Lowercase":      as[normalizer](lowercase),
	"NFC":            as[normalizer](nfc.normalize),
	"NFD":            as[normalizer](nfd.normalize),
	"NFKC":           as[normalizer](nfkc.normalize),
	"NFKD":           as[normalizer](nfkd.normalize),
	"Nmt":            as[normalizer](nmt),
	"Precompiled":    newPrecompiled,
	"Prepend":        newPrepend,
	"Replace":        newReplace,
	"Strip":          newStrip,
	"StripAccents":   as[normalizer](stripAccents),
}

func init() { normalizers["Sequence"] = newNormalizerSequence } // apart, as it refers to the table

func newNormalizerSequence(c config) (normalizer, error) {
	var s struct {
		Normalizers []json.RawMessage `json:"normalizers"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	all, err := buildAll(normalizers, "normalizer", c, s.Normalizers)
	return func(a *aligned) {
		for _, normalize := range all {
			if normalize != nil {
				normalize(a)
			}
		}
	}, err
}

func newReplace(c config) (normalizer, error) {
	find, content, err := readReplace(c)
	return func(a *aligned) {
		if a.text != "" {
			a.replace(find(a.text), content)
		}
	}, err
}

func readReplace(c config) (finder, string, error) {
	var s struct {
		Pattern pattern `json:"pattern"`
		Content string  `json:"content"`
	}
	if err := c.into(&s); err != nil {
		return nil, "", err
	}
	find, err := s.Pattern.compile(c)
	return find, s.Content, err
}

func newPrepend(c config) (normalizer, error) {
	var s struct {
		Prepend string `json:"prepend"`
	}
	err := c.into(&s)
	return func(a *aligned) { a.prepend(s.Prepend) }, err
}

func newStrip(c config) (normalizer, error) {
	var s struct {
		Left  bool `json:"strip_left"`
		Right bool `json:"strip_right"`
	}
	err := c.into(&s)
	return func(a *aligned) { a.strip(s.Left, s.Right) }, err
}

// lowercase maps each character on its own, so there is no final sigma; İ becomes two.
func lowercase(a *aligned) {
	if !strings.ContainsRune(a.text, 'İ') {
		a.each(unicode.ToLower)
		return
	}
	var edits []edit
	for _, c := range a.text {
		if c == 'İ' {
			edits = append(edits, edit{'i', 0}, edit{'\u0307', 1})
		} else {
			edits = append(edits, edit{unicode.ToLower(c), 0})
		}
	}
	a.apply(edits, 0)
}

func stripAccents(a *aligned) {
	a.remove(func(c rune) bool { return unicode.IsMark(c) && unicode.Is(unicode9, c) })
}

// nmt is SentencePiece's clean-up: control characters go, other white space becomes a space.
func nmt(a *aligned) {
	a.remove(func(c rune) bool {
		return c >= 0x1 && c <= 0x8 || c == 0xB || c >= 0xE && c <= 0x1F || c == 0x7F || c == 0x8F || c == 0x9F
	})
	a.each(func(c rune) rune {
		switch {
		case c == '\t' || c == '\n' || c == '\f' || c == '\r', c == 0x1680, c >= 0x200B && c <= 0x200F,
			c == 0x2028 || c == 0x2029, c == 0x2581, c == 0xFEFF, c == 0xFFFD:
			return ' '
		}
		return c
	})
}
