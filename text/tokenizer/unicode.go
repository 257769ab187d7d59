package tokenizer

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/unicode/rangetable"
)

// Python's tokenizers takes categories from Unicode 8 and decompositions from Unicode 9: to it,
// what came later is a letter that stands for itself.
var (
	unicode8 = rangetable.Assigned("8.0.0")
	unicode9 = rangetable.Assigned("9.0.0")
)

// in8 is unicode.In in Unicode 8.
func in8(c rune, tables ...*unicode.RangeTable) bool {
	return unicode.In(c, tables...) && unicode.Is(unicode8, c)
}

// composition is one of Unicode's four normal forms.
type composition struct {
	form     norm.Form // NFD or NFKD: how characters are taken apart
	composed bool      // whether they are put together again
	quick    norm.Form // the form itself, to see what has it already
}

var (
	nfc  = composition{norm.NFD, true, norm.NFC}
	nfd  = composition{norm.NFD, false, norm.NFD}
	nfkc = composition{norm.NFKD, true, norm.NFKC}
	nfkd = composition{norm.NFKD, false, norm.NFKD}
)

func (c composition) normalize(a *aligned) {
	if c.quick.IsNormalString(a.text) {
		return
	}
	edits := c.decompose(a.text)
	if c.composed {
		edits = compose(edits)
	}
	a.apply(edits, 0)
}

// decompose takes characters apart and brings marks into canonical order.
func (c composition) decompose(text string) []edit {
	edits := make([]edit, 0, len(text))
	pending := 0 // where the marks begin that are not in order yet
	for i, r := range text {
		whole := text[i : i+utf8.RuneLen(r)]
		for k, d := range decomposed(c.form, whole) {
			if combining(d) == 0 {
				sortMarks(edits[pending:])
			}
			edits = append(edits, edit{d, min(k, 1)})
			if combining(d) == 0 {
				pending = len(edits)
			}
		}
	}
	sortMarks(edits[pending:])
	return edits
}

func decomposed(form norm.Form, char string) string {
	if c, _ := utf8.DecodeRuneInString(char); c >= 0x300 && !unicode.Is(unicode9, c) {
		return char
	}
	if d := form.PropertiesString(char).Decomposition(); d != nil {
		return string(d)
	}
	if c, _ := utf8.DecodeRuneInString(char); c >= 0xAC00 && c <= 0xD7A3 { // Hangul is taken apart by rule, not by table
		return form.String(char)
	}
	return char
}

// combining is a character's canonical combining class.
func combining(c rune) uint8 {
	if c < 0x300 || !unicode.Is(unicode9, c) {
		return 0
	}
	var b [utf8.UTFMax]byte
	return norm.NFD.Properties(b[:utf8.EncodeRune(b[:], c)]).CCC()
}

func sortMarks(marks []edit) {
	for i := range marks { // a handful: by insertion, which keeps the order of equals
		for k := i; k > 0 && combining(marks[k-1].char) > combining(marks[k].char); k-- {
			marks[k-1], marks[k] = marks[k], marks[k-1]
		}
	}
}

// compose puts starters together with the marks, and the starters, that follow them.
func compose(edits []edit) []edit {
	out := edits[:0]
	starter := -1
	last := uint8(0) // the class of the mark before, since the starter
	for _, e := range edits {
		c := combining(e.char)
		blocked := starter >= 0 && len(out)-1 > starter && last >= c
		if starter >= 0 && !blocked {
			if r, ok := pair(out[starter].char, e.char); ok {
				out[starter] = edit{r, out[starter].change + e.change - 1}
				continue
			}
		}
		out = append(out, e)
		last = c
		if c == 0 {
			starter = len(out) - 1
		}
	}
	return out
}

// pair is the character that two are canonically composed to, if there is one.
func pair(a, b rune) (rune, bool) {
	if a < utf8.RuneSelf && b < utf8.RuneSelf {
		return 0, false
	}
	whole := norm.NFC.String(string([]rune{a, b}))
	r, n := utf8.DecodeRuneInString(whole)
	return r, n == len(whole)
}

// isWord is \w as Rust's regular expressions have it.
func isWord(c rune) bool {
	if c < utf8.RuneSelf {
		return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
	}
	return unicode.In(c, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc,
		unicode.Other_Alphabetic, unicode.Other_Lowercase, unicode.Other_Uppercase, unicode.Join_Control)
}

// isPunctuation is true for Unicode's punctuation and all of ASCII's, symbols included.
func isPunctuation(c rune) bool {
	ascii := c >= '!' && c <= '/' || c >= ':' && c <= '@' || c >= '[' && c <= '`' || c >= '{' && c <= '~'
	return ascii || c >= utf8.RuneSelf && in8(c, unicode.P)
}
