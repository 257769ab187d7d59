package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is found in the text as a whole, before the model sees it.
type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only where no letter touches it
	LStrip     bool   `json:"lstrip"`      // takes the white space before it
	RStrip     bool   `json:"rstrip"`      // takes the white space behind it
	Normalized bool   `json:"normalized"`  // looked for in the normalised text
	Special    bool   `json:"special"`     // left out of what is decoded
}

// addedTokens are the tokens beside the model's vocabulary.
type addedTokens struct {
	ids        map[string]int32
	byID       map[int32]addedToken
	text       map[int32]string // how a token reads: normalised, where it is looked for so
	special    map[string]bool
	plain      *trie // of the tokens that are looked for in the text as it is
	normalized *trie
}

// newAddedTokens gives each token the id that the model has for it, else the next one that is free.
func newAddedTokens(tokens []addedToken, m model, normalize normalizer) *addedTokens {
	a := &addedTokens{ids: map[string]int32{}, byID: map[int32]addedToken{}, text: map[int32]string{}, special: map[string]bool{}}
	next := int32(m.size())
	for _, t := range tokens {
		if t.Content == "" {
			continue
		}
		id, known := a.id(t.Content, m)
		if !known {
			id = next
			next++
		}
		a.ids[t.Content], a.byID[id], a.text[id] = id, t, t.Content
		a.special[t.Content] = a.special[t.Content] || t.Special
		if t.Normalized && normalize != nil {
			text := aligned{text: t.Content}
			normalize(&text)
			a.text[id] = text.text
		}
	}
	var plain, normalized []entry
	for id, t := range a.byID {
		if t.Normalized {
			normalized = append(normalized, entry{a.text[id], id})
		} else {
			plain = append(plain, entry{a.text[id], id})
		}
	}
	a.plain, a.normalized = newTrie(plain), newTrie(normalized)
	return a
}

func (a *addedTokens) id(content string, m model) (int32, bool) {
	if id, ok := a.ids[content]; ok {
		return id, true
	}
	return m.id(content)
}

// piece is a part of the text: an added token, or still to be tokenized.
type piece struct {
	aligned
	added bool
	id    int32
}

// cut takes the tokens of a trie out of a text.
func (a *addedTokens) cut(text aligned, t *trie) []piece {
	var pieces []piece
	last := 0
	plain := func(to int) {
		if last < to {
			pieces = append(pieces, piece{aligned: text.slice(last, to)})
		}
	}
	for at := 0; at < len(text.text); {
		length, id := t.longest(text.text[at:])
		if length == 0 {
			at++
			continue
		}
		start, end, ok := a.byID[id].widen(text.text, at, at+length)
		at += length
		if !ok || end <= last {
			continue
		}
		start = max(start, last)
		plain(start)
		pieces = append(pieces, piece{aligned: text.slice(start, end), added: true, id: id})
		last = end
	}
	plain(len(text.text))
	return pieces
}

// widen takes in the white space around a token that was found; ok is false where it is not
// the word of its own that it has to be.
func (t addedToken) widen(text string, start, end int) (lo, hi int, ok bool) {
	before, behind := text[:start], text[end:]
	if t.SingleWord {
		previous, _ := utf8.DecodeLastRuneInString(before)
		next, _ := utf8.DecodeRuneInString(behind)
		if before != "" && isWord(previous) || behind != "" && isWord(next) {
			return 0, 0, false
		}
	}
	if t.LStrip {
		start = len(strings.TrimRightFunc(before, unicode.IsSpace))
	}
	if t.RStrip {
		end += len(behind) - len(strings.TrimLeftFunc(behind, unicode.IsSpace))
	}
	return start, end, true
}
