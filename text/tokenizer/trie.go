package tokenizer

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// trie finds which strings of a set a text begins with. Nodes lie level by level, so the
// children of a node are neighbours: node n's are first[n] up to first[n+1].
type trie struct {
	labels []byte
	values []int32 // -1: no string ends here
	first  []int32
}

type entry struct {
	key   string
	value int32
}

// newTrie makes a trie; of equal keys the last counts, empty ones are left out.
func newTrie(entries []entry) *trie {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	t := &trie{}
	type node struct{ lo, hi, depth int } // the entries below it, which share depth bytes
	level := []node{{0, len(entries), 0}}
	t.add(0)
	for len(level) > 0 {
		var next []node
		for _, n := range level {
			t.first = append(t.first, int32(len(t.labels)))
			for lo := n.lo; lo < n.hi; {
				if len(entries[lo].key) == n.depth {
					lo++
					continue
				}
				label := entries[lo].key[n.depth]
				size, _ := slices.BinarySearchFunc(entries[lo:n.hi], label, func(e entry, b byte) int {
					return cmp.Or(cmp.Compare(e.key[n.depth], b), -1)
				})
				t.add(label)
				child := node{lo, lo + size, n.depth + 1}
				for i := lo; i < child.hi && len(entries[i].key) == child.depth; i++ {
					t.values[len(t.values)-1] = entries[i].value
				}
				next = append(next, child)
				lo = child.hi
			}
		}
		level = next
	}
	t.first = append(t.first, int32(len(t.labels)))
	return t
}

func (t *trie) add(label byte) {
	t.labels = append(t.labels, label)
	t.values = append(t.values, -1)
}

// child is node n's child by a label, -1 if it has none.
func (t *trie) child(n int32, label byte) int32 {
	lo := t.first[n]
	if k := bytes.IndexByte(t.labels[lo:t.first[n+1]], label); k >= 0 {
		return lo + int32(k)
	}
	return -1
}

// prefixes calls found with the length and value of each string that text begins with,
// shortest first.
func (t *trie) prefixes(text string, found func(length int, value int32)) {
	n := int32(0)
	for i := range len(text) {
		if n = t.child(n, text[i]); n < 0 {
			return
		}
		if v := t.values[n]; v >= 0 {
			found(i+1, v)
		}
	}
}

// longest is the longest string that text begins with; length 0 if there is none.
func (t *trie) longest(text string) (length int, value int32) {
	t.prefixes(text, func(n int, v int32) { length, value = n, v })
	return length, value
}
