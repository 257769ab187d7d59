package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// span is a range of bytes of the original text.
type span struct{ start, end int32 }

// aligned is a text on its way through the stages, with where each of its bytes comes from.
type aligned struct {
	text  string
	from  []span // one a byte; nil: the text is the original's bytes from start on, as they are
	start int    // where in the original the text begins
}

// at is the origin of byte i: the original character, or characters, that it was made of.
func (a *aligned) at(i int) span {
	if a.from != nil {
		return a.from[i]
	}
	lo := i
	for lo > 0 && !utf8.RuneStart(a.text[lo]) {
		lo--
	}
	_, n := utf8.DecodeRuneInString(a.text[lo:])
	return span{int32(a.start + lo), int32(a.start + lo + n)}
}

// origin is where in the original the bytes from lo up to hi come from.
func (a *aligned) origin(lo, hi int) (start, end int) {
	if lo >= hi {
		return a.start + lo, a.start + lo
	}
	return int(a.at(lo).start), int(a.at(hi - 1).end)
}

// slice is the part of the text from byte lo up to hi.
func (a *aligned) slice(lo, hi int) aligned {
	part := aligned{text: a.text[lo:hi]}
	part.start, _ = a.origin(lo, hi)
	if a.from != nil {
		part.from = a.from[lo:hi]
	}
	return part
}

// rebuild collects a text that takes an aligned text's place.
type rebuild struct {
	old  *aligned
	text strings.Builder
	from []span
}

func newRebuild(a *aligned) *rebuild {
	r := &rebuild{old: a, from: make([]span, 0, len(a.text)+8)}
	r.text.Grow(len(a.text) + 8)
	return r
}

// keep copies bytes lo up to hi.
func (r *rebuild) keep(lo, hi int) {
	r.text.WriteString(r.old.text[lo:hi])
	if r.old.from != nil {
		r.from = append(r.from, r.old.from[lo:hi]...)
		return
	}
	for i := lo; i < hi; i++ {
		r.from = append(r.from, r.old.at(i))
	}
}

func (r *rebuild) put(c rune, from span) {
	n := r.text.Len()
	r.text.WriteRune(c)
	for range r.text.Len() - n {
		r.from = append(r.from, from)
	}
}

func (r *rebuild) done() {
	r.old.text, r.old.from = r.text.String(), r.from
}

// edit writes one character of a changed text. Change 0 puts it in the place of the next old
// character, -n of that and of n more; above 0 it is put in, and shares its predecessor's origin.
type edit struct {
	char   rune
	change int
}

// apply makes the text from edits, after skip old characters that are gone.
func (a *aligned) apply(edits []edit, skip int) {
	r := newRebuild(a)
	at := a.after(0, skip)
	for _, e := range edits {
		from := span{int32(a.start), int32(a.start)}
		switch {
		case e.change > 0 && at > 0:
			from = a.at(at - 1)
		case e.change <= 0 && len(a.text) > 0:
			from = a.at(min(at, len(a.text)-1))
			at = a.after(at, 1-e.change)
		}
		r.put(e.char, from)
	}
	r.done()
}

// after is the place n characters behind byte at.
func (a *aligned) after(at, n int) int {
	for ; n > 0 && at < len(a.text); n-- {
		_, size := utf8.DecodeRuneInString(a.text[at:])
		at += size
	}
	return at
}

// each replaces every character c by f(c).
func (a *aligned) each(f func(rune) rune) {
	if strings.IndexFunc(a.text, func(c rune) bool { return f(c) != c }) < 0 {
		return
	}
	r := newRebuild(a)
	for i, c := range a.text {
		r.put(f(c), a.at(i))
	}
	r.done()
}

// remove takes out the characters that gone is true for.
func (a *aligned) remove(gone func(rune) bool) {
	if strings.IndexFunc(a.text, gone) < 0 {
		return
	}
	r := newRebuild(a)
	for i, c := range a.text {
		if !gone(c) {
			r.put(c, a.at(i))
		}
	}
	r.done()
}

// prepend puts s before the text; it shares the first character's origin.
func (a *aligned) prepend(s string) {
	if a.text == "" {
		return
	}
	r := newRebuild(a)
	for _, c := range s {
		r.put(c, a.at(0))
	}
	r.keep(0, len(a.text))
	r.done()
}

// replace puts content in place of each place found; it shares the origin of the last
// character that it replaces.
func (a *aligned) replace(places []place, content string) {
	same := utf8.RuneCountInString(content) == 1 // of more, each would share the last one's origin
	for _, p := range places {
		same = same && a.text[p.start:p.end] == content
	}
	if same || len(places) == 0 {
		return
	}
	r := newRebuild(a)
	last := 0
	for _, p := range places {
		r.keep(last, p.start)
		from := span{int32(a.start), int32(a.start)}
		if p.end > 0 {
			from = a.at(p.end - 1)
		}
		for _, c := range content {
			r.put(c, from)
		}
		last = p.end
	}
	r.keep(last, len(a.text))
	r.done()
}

// strip takes white space off the ends.
func (a *aligned) strip(left, right bool) {
	lo, hi := 0, len(a.text)
	if left {
		lo = hi - len(strings.TrimLeftFunc(a.text, unicode.IsSpace))
	}
	if right {
		hi = max(lo, len(strings.TrimRightFunc(a.text, unicode.IsSpace)))
	}
	if lo > 0 || hi < len(a.text) {
		*a = a.slice(lo, hi)
	}
}
