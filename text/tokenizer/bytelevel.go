package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// byteSymbols writes each byte as a printable character, as GPT-2 does: bytes that are
// printable Latin-1 stand for themselves, the others follow from U+0100 on.
var byteSymbols, symbolBytes = func() (symbols [256]rune, bytes map[rune]byte) {
	bytes = map[rune]byte{}
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if printable := b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE; !printable {
			r = next
			next++
		}
		symbols[b], bytes[r] = r, byte(b)
	}
	return symbols, bytes
}()

// spaceSymbol is how a space is written.
var spaceSymbol = byteSymbols[' ']

// writeBytes writes each byte of the text as its symbol.
func writeBytes(a *aligned) {
	if strings.IndexFunc(a.text, func(c rune) bool { return c <= ' ' || c > '~' }) < 0 {
		return
	}
	r := newRebuild(a)
	for i := range len(a.text) {
		r.put(byteSymbols[a.text[i]], a.at(i))
	}
	r.done()
}

// newByteLevel makes the pre-tokenizer.
func newByteLevel(c config) (preTokenizer, error) {
	s := struct {
		PrefixSpace bool  `json:"add_prefix_space"`
		UseRegex    *bool `json:"use_regex"` // true, if it isn't given
	}{PrefixSpace: true}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	cuts := s.UseRegex == nil || *s.UseRegex
	return func(a aligned) []aligned {
		if s.PrefixSpace && !strings.HasPrefix(a.text, " ") {
			a.prepend(" ")
		}
		pieces := []aligned{a}
		if cuts && a.text != "" && gpt2Piece(a.text) < len(a.text) {
			pieces = a.split(parts(a.text, gpt2(a.text), false), isolated)
		}
		for i := range pieces {
			writeBytes(&pieces[i])
		}
		return pieces
	}, nil
}

// gpt2 finds what GPT-2's expression does: English contractions; letters, numbers or other
// signs with the space before them; white space, without the last where something follows.
func gpt2(text string) []place {
	var found []place
	for at := 0; at < len(text); {
		end := at + gpt2Piece(text[at:])
		found = append(found, place{at, end})
		at = end
	}
	return found
}

func gpt2Piece(s string) int {
	for _, c := range [...]string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		if strings.HasPrefix(s, c) {
			return len(c)
		}
	}
	space := 0
	if s[0] == ' ' && len(s) > 1 {
		space = 1
	}
	first, _ := utf8.DecodeRuneInString(s[space:])
	if k := kind(first); k != white {
		return space + run(s[space:], k)
	}
	n := run(s, white)
	_, last := utf8.DecodeLastRuneInString(s[:n])
	if n < len(s) && last < n {
		n -= last
	}
	return n
}

type charKind int

const (
	other charKind = iota
	letter
	number
	white
)

func kind(c rune) charKind {
	switch {
	case unicode.IsLetter(c):
		return letter
	case unicode.IsNumber(c):
		return number
	case unicode.IsSpace(c):
		return white
	}
	return other
}

// run is how many bytes of s are of a kind.
func run(s string, k charKind) int {
	if n := strings.IndexFunc(s, func(c rune) bool { return kind(c) != k }); n >= 0 {
		return n
	}
	return len(s)
}

// decodeBytes reads symbols back as bytes. A token that has other characters stands for itself.
func decodeBytes(tokens []string) []string {
	var out []byte
	for _, t := range tokens {
		before := len(out)
		for _, c := range t {
			b, ok := symbolBytes[c]
			if !ok {
				out = append(out[:before], t...)
				break
			}
			out = append(out, b)
		}
	}
	return []string{validUTF8(string(out))}
}

// validUTF8 replaces each longest part that could begin a character, or else each byte, by
// U+FFFD, as Unicode recommends.
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var out strings.Builder
	for s != "" {
		c, n := utf8.DecodeRuneInString(s)
		out.WriteRune(c)
		if c == utf8.RuneError && n == 1 {
			for n < len(s) && !utf8.FullRuneInString(s[:n+1]) {
				n++
			}
		}
		s = s[n:]
	}
	return out.String()
}
