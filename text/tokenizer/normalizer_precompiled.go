package tokenizer

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/foretoken/foretoken/internal/errs"
)

// charsmap is SentencePiece's compiled table of replacements: a double-array trie
// (Yata et al., darts-clone's units) over what is replaced, and the replacements, each ended
// by a zero byte.
type charsmap struct {
	units        []uint32
	replacements string
}

func newPrecompiled(c config) (normalizer, error) {
	var s struct {
		Charsmap []byte `json:"precompiled_charsmap"` // base64
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	if len(s.Charsmap) == 0 {
		return func(*aligned) {}, nil
	}
	m, err := parseCharsmap(s.Charsmap)
	if err != nil {
		return nil, err
	}
	return m.normalize, nil
}

// parseCharsmap reads the trie's length in bytes, its units, and the replacements.
func parseCharsmap(b []byte) (*charsmap, error) {
	if len(b) < 4 {
		return nil, errs.New(errs.Invalid, "precompiled_charsmap has %d bytes", len(b))
	}
	size := int64(binary.LittleEndian.Uint32(b))
	b = b[4:]
	if size > int64(len(b)) || size%4 != 0 {
		return nil, errs.New(errs.Invalid, "precompiled_charsmap: a trie of %d bytes in %d", size, len(b))
	}
	m := &charsmap{units: make([]uint32, size/4), replacements: string(b[size:])}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	if !utf8.ValidString(m.replacements) {
		return nil, errs.New(errs.Invalid, "precompiled_charsmap: its replacements are not UTF-8")
	}
	return m, nil
}

// unit is node i of the trie; nodes that a broken trie points to beyond its end are empty.
func (m *charsmap) unit(i uint32) uint32 {
	if int64(i) < int64(len(m.units)) {
		return m.units[i]
	}
	return 0
}

// offset is how far a unit's children lie from it.
func offset(unit uint32) uint32 { return (unit >> 10) << ((unit & (1 << 9)) >> 6) }

// replacement is what the shortest key that text begins with is replaced by.
func (m *charsmap) replacement(text string) (string, bool) {
	at := offset(m.unit(0))
	for i := range len(text) {
		c := uint32(text[i])
		if c == 0 {
			break
		}
		at ^= c
		u := m.unit(at)
		if u&(1<<31|0xFF) != c {
			break
		}
		at ^= offset(u)
		if u>>8&1 == 1 { // a key ends here
			return m.at(m.unit(at) & (1<<31 - 1))
		}
	}
	return "", false
}

// at is the replacement that begins at a byte.
func (m *charsmap) at(i uint32) (string, bool) {
	if int64(i) > int64(len(m.replacements)) || int64(i) < int64(len(m.replacements)) && !utf8.RuneStart(m.replacements[i]) {
		return "", false
	}
	s, _, _ := strings.Cut(m.replacements[i:], "\x00")
	return s, true
}

// shortGrapheme: grapheme clusters of fewer bytes are looked up whole, others by character, as
// Python's tokenizers do.
const shortGrapheme = 6

func (m *charsmap) normalize(a *aligned) {
	var edits []edit
	changed := false
	put := func(old string) {
		if s, ok := m.replacement(old); ok {
			changed = true
			edits = substitute(edits, old, s)
			return
		}
		for _, c := range old {
			edits = append(edits, edit{c, 0})
		}
	}
	for rest := a.text; rest != ""; {
		var g string
		g, rest = grapheme(rest)
		if _, ok := m.replacement(g); ok && len(g) < shortGrapheme {
			put(g)
			continue
		}
		for i, c := range g {
			put(g[i : i+utf8.RuneLen(c)])
		}
	}
	if changed {
		a.apply(edits, 0)
	}
}

// grapheme cuts off the first grapheme cluster.
func grapheme(s string) (first, rest string) {
	if s[0] < utf8.RuneSelf && s[0] != '\r' && (len(s) == 1 || s[1] < utf8.RuneSelf) {
		return s[:1], s[1:]
	}
	first, rest, _, _ = uniseg.FirstGraphemeClusterInString(s, -1)
	return first, rest
}

// substitute writes s in the place of old: what s has more is put in, what it has fewer goes
// with the last character before.
func substitute(edits []edit, old, s string) []edit {
	more := utf8.RuneCountInString(s) - utf8.RuneCountInString(old)
	for _, c := range s {
		edits = append(edits, edit{c, 0})
	}
	for i := range max(0, more) {
		edits[len(edits)-1-i].change = 1
	}
	if more < 0 && len(edits) > 0 {
		edits[len(edits)-1].change += more
	}
	return edits
}
