package tokenizer

import (
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/foretoken/foretoken/internal/errs"
)

// unigram is SentencePiece's unigram language model (Kudo 2018, arXiv:1804.10959): of all ways
// to cut a text into pieces, the one whose log probabilities sum highest.
type unigram struct {
	vocabulary
	trie     *trie
	scores   []float64
	unk      int32 // -1: there is none
	unkScore float64
	bytes    *byteFallback
	cache    wordCache
}

// unknownPenalty is how much less likely than the rarest piece an unknown character is.
const unknownPenalty = 10

func newUnigram(c config) (model, error) {
	var s struct {
		Vocab        [][2]any `json:"vocab"`
		UnkID        *int64   `json:"unk_id"`
		ByteFallback bool     `json:"byte_fallback"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	m := &unigram{unk: -1, scores: make([]float64, len(s.Vocab))}
	ids := make(map[string]int64, len(s.Vocab))
	entries := make([]entry, len(s.Vocab))
	least := math.Inf(1)
	for i, v := range s.Vocab {
		token, ok1 := v[0].(string)
		score, ok2 := v[1].(float64)
		if !ok1 || !ok2 {
			return nil, errs.New(errs.Invalid, "entry %d of its vocabulary is not a string and a number", i)
		}
		ids[token], entries[i], m.scores[i] = int64(i), entry{token, int32(i)}, score
		least = min(least, score)
	}
	if s.UnkID != nil {
		if *s.UnkID < 0 || *s.UnkID >= int64(len(s.Vocab)) {
			return nil, errs.New(errs.Invalid, "its unk_id %d is not in the vocabulary of %d", *s.UnkID, len(s.Vocab))
		}
		m.unk = int32(*s.UnkID)
	}
	m.unkScore = least - unknownPenalty
	m.trie = newTrie(entries)
	var err error
	if m.vocabulary, err = newVocabulary(ids); err != nil {
		return nil, err
	}
	for i, e := range entries { // of equal pieces each has an id to be decoded from
		m.tokens[int32(i)] = e.key
	}
	if s.ByteFallback {
		m.bytes = newByteFallback(m.vocabulary)
	}
	return m, nil
}

// size counts equal pieces too, so that ids of added tokens begin behind them.
func (m *unigram) size() int { return len(m.scores) }

func (m *unigram) tokenize(piece string, to []wordToken) []wordToken {
	return m.cache.do(piece, to, m.best)
}

// step is the best way to reach a place: the piece that ends there.
type step struct {
	score float64
	from  int32
	id    int32
}

// best finds the likeliest cut (Viterbi), and fuses neighbouring unknown characters.
func (m *unigram) best(text string) []wordToken {
	steps := make([]step, len(text)+1)
	for i := range steps {
		steps[i].from = -1
	}
	reach := func(from, to int, id int32, score float64) {
		if s := &steps[to]; s.from < 0 || score > s.score {
			*s = step{score, int32(from), id}
		}
	}
	for at, size := 0, 0; at < len(text); at += size {
		_, size = utf8.DecodeRuneInString(text[at:])
		single := false
		m.trie.prefixes(text[at:], func(length int, id int32) {
			single = single || length == size
			reach(at, at+length, id, m.scores[id]+steps[at].score)
		})
		if !single {
			if m.unk < 0 {
				fail(errs.New(errs.Invalid, "%q has characters that the vocabulary lacks, and it has no unk_id for them", shorten(text)))
			}
			reach(at, at+size, m.unk, m.unkScore+steps[at].score)
		}
	}
	var tokens []wordToken
	for end := len(text); end > 0; {
		s := steps[end]
		t := wordToken{s.id, text[s.from:end], int(s.from), end}
		if n := len(tokens); n > 0 && s.id == m.unk && tokens[n-1].id == m.unk {
			t.end = tokens[n-1].end
			t.text = text[t.start:t.end]
			tokens = tokens[:n-1]
		}
		tokens = append(tokens, t)
		end = int(s.from)
	}
	slices.Reverse(tokens)
	return m.fallBack(tokens)
}

// fallBack gives tokens their ids, and writes unknown ones as bytes where it can.
func (m *unigram) fallBack(tokens []wordToken) []wordToken {
	out := make([]wordToken, 0, len(tokens))
	for _, t := range tokens {
		id, known := m.ids[t.text]
		switch {
		case known:
			t.id, t.text = id, m.tokens[id]
		case m.bytes.covers(t.text):
			for i := range len(t.text) {
				b := t.text[i]
				out = append(out, wordToken{m.bytes[b].id, m.bytes[b].text, t.start, t.end})
			}
			continue
		default:
			t.id, t.text = m.unk, strings.Clone(t.text)
		}
		out = append(out, t)
	}
	return out
}
