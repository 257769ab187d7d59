package tokenizer

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// byteFallback are the tokens "<0x00>" to "<0xFF>", which write what the vocabulary lacks; id
// -1 where it lacks that too.
type byteFallback [256]struct {
	id   int32
	text string
}

func newByteFallback(v vocabulary) *byteFallback {
	var f byteFallback
	for b := range f {
		f[b].text = fmt.Sprintf("<0x%02X>", b)
		f[b].id = -1
		if id, ok := v.ids[f[b].text]; ok {
			f[b].id = id
		}
	}
	return &f
}

// covers is true if each byte of s has a token; a nil fallback has none.
func (f *byteFallback) covers(s string) bool {
	if f == nil {
		return false
	}
	for i := range len(s) {
		if f[s[i]].id < 0 {
			return false
		}
	}
	return true
}

// wordCache remembers the tokens of short words, the first that come. It is safe for
// concurrent use.
type wordCache struct {
	words sync.Map // string -> []wordToken
	count atomic.Int64
}

const (
	cachedWords  = 10_000
	cachedLength = 64 // bytes of a word
)

// do appends a word's tokens, computed or remembered.
func (c *wordCache) do(word string, to []wordToken, compute func(string) []wordToken) []wordToken {
	if known, ok := c.words.Load(word); ok {
		return append(to, known.([]wordToken)...)
	}
	tokens := compute(word)
	if len(word) <= cachedLength && c.count.Load() < cachedWords {
		c.words.Store(strings.Clone(word), tokens) // a clone: the word must not keep the whole text alive
		c.count.Add(1)
	}
	return append(to, tokens...)
}
