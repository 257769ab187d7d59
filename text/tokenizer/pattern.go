package tokenizer

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dlclark/regexp2"

	"github.com/foretoken/foretoken/internal/errs"
)

// place is where a pattern was found, in bytes.
type place struct{ start, end int }

// finder returns the places of a pattern in a text, in order, none overlapping another.
type finder func(text string) []place

// pattern is a literal or a regular expression in Oniguruma's syntax.
type pattern struct {
	Regex  *string `json:"Regex"`
	String *string `json:"String"`
}

// maxExpressions bounds how many regular expressions a file has.
const maxExpressions = 32

func (p pattern) compile(c config) (finder, error) {
	switch {
	case p.String != nil:
		return literal(*p.String), nil
	case p.Regex != nil:
		if *c.expressions++; *c.expressions > maxExpressions {
			return nil, errs.New(errs.TooLarge, "it has more than %d regular expressions", maxExpressions)
		}
		return compileRegex(*p.Regex)
	}
	return nil, errs.New(errs.Invalid, "a pattern has neither String nor Regex")
}

func literal(s string) finder {
	return func(text string) []place {
		if s == "" {
			return nil
		}
		var found []place
		for at := 0; ; {
			k := strings.Index(text[at:], s)
			if k < 0 {
				return found
			}
			found = append(found, place{at + k, at + k + len(s)})
			at += k + len(s)
		}
	}
}

// compileRegex uses Go's own engine, whose time is linear, wherever it knows the expression:
// everything but look-around, atomic groups, back-references and \b.
func compileRegex(expr string) (finder, error) {
	t, err := translate(expr)
	if err != nil {
		return nil, errs.New(errs.Or(err, errs.Unsupported), "its pattern %q: %w", shorten(expr), err)
	}
	if re, err := regexp.Compile(t.expr); err == nil && !t.backtracks {
		return func(text string) []place {
			var found []place
			for _, m := range re.FindAllStringIndex(text, -1) {
				found = append(found, place{m[0], m[1]})
			}
			return found
		}, nil
	}
	re, err := regexp2.Compile(t.expr, regexp2.None)
	if err != nil {
		return nil, errs.New(errs.Unsupported, "its pattern %q: %w", shorten(expr), err)
	}
	re.MatchTimeout = patternTimeout
	return func(text string) []place { return findBacktracking(re, expr, text) }, nil
}

// patternTimeout bounds the search in one text, as some expressions take exponential time.
const patternTimeout = time.Second

// findBacktracking converts regexp2's places, counted in characters, to bytes.
func findBacktracking(re *regexp2.Regexp, expr, text string) []place {
	var found []place
	begun := time.Now()
	m, err := re.FindStringMatch(text)
	at, chars := 0, 0
	forward := func(to int) int {
		for ; chars < to; chars++ {
			_, n := utf8.DecodeRuneInString(text[at:])
			at += n
		}
		return at
	}
	for m != nil && err == nil && time.Since(begun) < patternTimeout {
		start := forward(m.Index)
		found = append(found, place{start, forward(m.Index + m.Length)})
		m, err = re.FindNextMatch(m)
	}
	if err != nil || m != nil {
		fail(errs.New(errs.Invalid, "the pattern %q takes more than %v on this text", expr, patternTimeout))
	}
	return found
}

// failure carries an error from deep inside a stage to the door.
type failure struct{ err error }

func fail(err error) { panic(failure{err}) }

// catch turns a failure into an error; any other panic goes on.
func catch(err *error) {
	switch r := recover().(type) {
	case nil:
	case failure:
		*err = r.err
	default:
		panic(r)
	}
}

// behavior says what becomes of the places that a pattern is found at.
type behavior string

const (
	removed            behavior = "Removed"
	isolated           behavior = "Isolated"
	mergedWithPrevious behavior = "MergedWithPrevious"
	mergedWithNext     behavior = "MergedWithNext"
	contiguous         behavior = "Contiguous"
)

// UnmarshalJSON refuses a behaviour that isn't known.
func (b *behavior) UnmarshalJSON(raw []byte) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	switch v := behavior(s); v {
	case removed, isolated, mergedWithPrevious, mergedWithNext, contiguous:
		*b = v
		return nil
	}
	return errs.New(errs.Unsupported, "its split behavior %q is not supported", s)
}

// part is a range of a text that either is a delimiter or lies between them.
type part struct {
	place
	delimiter bool
}

// parts covers the text with the delimiters and what lies between them; inverted, these swap.
func parts(text string, delimiters []place, invert bool) []part {
	all := make([]part, 0, 2*len(delimiters)+1)
	last := 0
	for _, d := range delimiters {
		if d.start > last {
			all = append(all, part{place{last, d.start}, invert})
		}
		all = append(all, part{d, !invert})
		last = d.end
	}
	if last < len(text) {
		all = append(all, part{place{last, len(text)}, invert})
	}
	return all
}

// split cuts the text at the parts; empty pieces are left out.
func (a *aligned) split(all []part, b behavior) []aligned {
	pieces := make([]aligned, 0, len(all))
	for _, p := range joinParts(all, b) {
		if p.start < p.end && !(b == removed && p.delimiter) {
			pieces = append(pieces, a.slice(p.start, p.end))
		}
	}
	return pieces
}

// joinParts joins neighbours as the behaviour asks for.
func joinParts(all []part, b behavior) []part {
	if b == removed || b == isolated || len(all) == 0 {
		return all
	}
	merged := []part{all[0]}
	for i, p := range all[1:] {
		previous := all[i]
		joins := false
		switch b {
		case contiguous:
			joins = p.delimiter == previous.delimiter
		case mergedWithPrevious:
			joins = p.delimiter && !previous.delimiter
		case mergedWithNext:
			joins = previous.delimiter && !p.delimiter
		}
		if joins {
			merged[len(merged)-1].end = p.end
		} else {
			merged = append(merged, p)
		}
	}
	return merged
}
