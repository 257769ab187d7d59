package tokenizer

import "unicode/utf8"

// wordPiece is BERT's model: from the left, always the longest token that fits.
type wordPiece struct {
	vocabulary
	unk     string
	prefix  string // of tokens that continue a word
	longest int    // words of more characters are unknown
	widest  int    // the longest token, in bytes
}

func newWordPiece(c config) (model, error) {
	s := struct {
		Vocab   map[string]int64 `json:"vocab"`
		Unk     string           `json:"unk_token"`
		Prefix  string           `json:"continuing_subword_prefix"`
		Longest int              `json:"max_input_chars_per_word"`
	}{Unk: "[UNK]", Prefix: "##", Longest: 100}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	v, err := newVocabulary(s.Vocab)
	m := &wordPiece{vocabulary: v, unk: s.Unk, prefix: s.Prefix, longest: s.Longest}
	for token := range v.ids {
		m.widest = max(m.widest, len(token))
	}
	return m, err
}

func (m *wordPiece) tokenize(piece string, to []wordToken) []wordToken {
	before := len(to)
	if utf8.RuneCountInString(piece) <= m.longest {
		start := 0
		for start < len(piece) {
			t, ok := m.match(piece, start)
			if !ok {
				break
			}
			to = append(to, t)
			start = t.end
		}
		if start == len(piece) {
			return to
		}
	}
	return append(to[:before], wordToken{m.unknown(m.unk, piece), m.unk, 0, len(piece)})
}

// match is the longest token at start.
func (m *wordPiece) match(piece string, start int) (wordToken, bool) {
	prefix := ""
	if start > 0 {
		prefix = m.prefix
	}
	key := make([]byte, 0, 128)
	for end := min(len(piece), start+m.widest); end > start; end-- {
		if end < len(piece) && !utf8.RuneStart(piece[end]) {
			continue
		}
		key = append(append(key[:0], prefix...), piece[start:end]...)
		if id, ok := m.ids[string(key)]; ok {
			return wordToken{id, m.tokens[id], start, end}, true
		}
	}
	return wordToken{}, false
}
