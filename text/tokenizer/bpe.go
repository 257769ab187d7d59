package tokenizer

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/foretoken/foretoken/internal/errs"
)

// bpe is byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909): neighbours are merged,
// the pair of lowest rank first.
type bpe struct {
	vocabulary
	merges  map[[2]int32]merge
	prefix  string // of tokens that continue a word
	suffix  string // of tokens that end a word
	unk     string
	fuseUnk bool
	whole   bool // a piece that is a token is taken as it is (ignore_merges)
	bytes   *byteFallback
	cache   wordCache
}

// merge says which token a pair becomes, and how early.
type merge struct{ rank, id int32 }

func newBPE(c config) (model, error) {
	var s struct {
		Vocab        map[string]int64 `json:"vocab"`
		Merges       merges           `json:"merges"`
		Prefix       string           `json:"continuing_subword_prefix"`
		Suffix       string           `json:"end_of_word_suffix"`
		Unk          string           `json:"unk_token"`
		FuseUnk      bool             `json:"fuse_unk"`
		ByteFallback bool             `json:"byte_fallback"`
		IgnoreMerges bool             `json:"ignore_merges"`
		Dropout      float64          `json:"dropout"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	if s.Dropout != 0 {
		return nil, errs.New(errs.Unsupported, "its dropout of %g is not supported: ids would be random", s.Dropout)
	}
	v, err := newVocabulary(s.Vocab)
	if err != nil {
		return nil, err
	}
	m := &bpe{vocabulary: v, prefix: s.Prefix, suffix: s.Suffix, unk: s.Unk, fuseUnk: s.FuseUnk, whole: s.IgnoreMerges}
	if s.ByteFallback {
		m.bytes = newByteFallback(v)
	}
	return m, m.read(s.Merges)
}

// merges are written as "a b" or as ["a","b"].
type merges [][2]string

func (m *merges) UnmarshalJSON(raw []byte) error {
	var pairs [][2]string
	if json.Unmarshal(raw, &pairs) == nil {
		*m = pairs
		return nil
	}
	var lines []string
	if err := json.Unmarshal(raw, &lines); err != nil {
		return err
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "#version") {
			continue
		}
		left, right, ok := strings.Cut(line, " ")
		if !ok || strings.Contains(right, " ") {
			return errs.New(errs.Invalid, "its merge %d is %q", len(*m), line)
		}
		*m = append(*m, [2]string{left, right})
	}
	return nil
}

func (m *bpe) read(all merges) error {
	m.merges = make(map[[2]int32]merge, len(all))
	for rank, pair := range all {
		left, ok1 := m.ids[pair[0]]
		right, ok2 := m.ids[pair[1]]
		if !ok1 || !ok2 || len(pair[1]) < len(m.prefix) {
			return errs.New(errs.Invalid, "its merge %d of %q and %q is of tokens that the vocabulary lacks", rank, pair[0], pair[1])
		}
		id, ok := m.ids[pair[0]+pair[1][len(m.prefix):]]
		if !ok {
			return errs.New(errs.Invalid, "its merge %d gives %q, which the vocabulary lacks", rank, pair[0]+pair[1][len(m.prefix):])
		}
		m.merges[[2]int32{left, right}] = merge{int32(rank), id}
	}
	return nil
}

func (m *bpe) tokenize(piece string, to []wordToken) []wordToken {
	if m.whole {
		if id, ok := m.ids[piece]; ok {
			return append(to, wordToken{id, piece, 0, len(piece)})
		}
	}
	return m.cache.do(piece, to, m.word)
}

// word merges the symbols of a word.
func (m *bpe) word(text string) []wordToken {
	w := mergeAll(m.symbols(text), m.merges)
	tokens := make([]wordToken, 0, len(w))
	at := 0
	for _, s := range w {
		if s.size > 0 {
			tokens = append(tokens, wordToken{s.id, m.tokens[s.id], at, at + s.size})
			at += s.size
		}
	}
	return tokens
}

// symbols are a word's characters as tokens; what the vocabulary lacks is written as bytes or
// is unknown, and without an unknown token left out.
func (m *bpe) symbols(text string) []symbol {
	symbols := make([]symbol, 0, len(text))
	unknown := 0 // how many bytes of unknown characters wait
	flush := func() {
		if unknown > 0 {
			symbols = append(symbols, symbol{id: m.unknown(m.unk, text), size: unknown})
			unknown = 0
		}
	}
	for at := 0; at < len(text); {
		_, n := utf8.DecodeRuneInString(text[at:])
		key := text[at : at+n]
		if at > 0 {
			key = m.prefix + key
		}
		if at+n == len(text) {
			key += m.suffix
		}
		at += n
		id, ok := m.ids[key]
		switch {
		case ok:
			flush()
			symbols = append(symbols, symbol{id: id, size: n})
		case m.bytes.covers(key):
			for i := range len(key) {
				symbols = append(symbols, symbol{id: m.bytes[key[i]].id, size: 1})
			}
		case m.unk != "":
			if !m.fuseUnk {
				flush()
			}
			unknown += n
		}
	}
	flush()
	return symbols
}

// symbol is a token of a word that is being merged, in a list by place; size 0: merged away.
type symbol struct {
	id             int32
	size           int
	previous, next int
}

// candidate is a pair that may be merged: the symbol at place with its next.
type candidate struct {
	merge
	place int
}

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.place < d.place
}

// mergeAll merges the pair of lowest rank, leftmost first, until none has one.
func mergeAll(word []symbol, merges map[[2]int32]merge) []symbol {
	queue := make(heap, 0, len(word))
	consider := func(place int) {
		if place < 0 || word[place].next < 0 {
			return
		}
		if m, ok := merges[[2]int32{word[place].id, word[word[place].next].id}]; ok {
			queue.push(candidate{m, place})
		}
	}
	for i := range word {
		word[i].previous, word[i].next = i-1, i+1
	}
	if len(word) > 0 {
		word[len(word)-1].next = -1
	}
	for i := range word {
		consider(i)
	}
	for len(queue) > 0 {
		c := queue.pop()
		left := &word[c.place]
		if left.size == 0 || left.next < 0 {
			continue
		}
		right := &word[left.next]
		if m, ok := merges[[2]int32{left.id, right.id}]; !ok || m.id != c.id {
			continue // it was merged otherwise since
		}
		left.id, left.size, left.next = c.id, left.size+right.size, right.next
		right.size = 0
		if left.next >= 0 {
			word[left.next].previous = c.place
		}
		consider(left.previous)
		consider(c.place)
	}
	return word
}

// heap is a priority queue of candidates; its first is the next to merge.
type heap []candidate

func (h *heap) push(c candidate) {
	*h = append(*h, c)
	q := *h
	for i := len(q) - 1; i > 0 && q[i].before(q[(i-1)/2]); i = (i - 1) / 2 {
		q[i], q[(i-1)/2] = q[(i-1)/2], q[i]
	}
}

func (h *heap) pop() candidate {
	q := *h
	top, last := q[0], len(q)-1
	q[0] = q[last]
	*h = q[:last]
	q = *h
	for i := 0; ; {
		least := i
		for k := 2*i + 1; k <= 2*i+2 && k < len(q); k++ {
			if q[k].before(q[least]) {
				least = k
			}
		}
		if least == i {
			return top
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}
