package tokenizer

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/rangetable"

	"github.com/foretoken/foretoken/internal/errs"
)

// translation writes an expression of Oniguruma's as Go's engines understand it: classes in
// Unicode's sense, ^ and $ at each line, possessive quantifiers as atomic groups.
type translation struct {
	expr       string
	backtracks bool // only an engine that goes back knows it

	in     string
	out    strings.Builder
	groups []int // where the open groups begin in out
	atom   int   // where the last atom begins in out
	lines  bool  // ^ or $ occurs
}

// maxExpression bounds expressions, in bytes, as written and as translated: engines take thousands
// of bytes for a short \p{L}.
const (
	maxExpression  = 2 << 10
	maxTranslation = 32 << 10
)

func translate(expr string) (t *translation, err error) {
	defer catch(&err)
	if len(expr) > maxExpression {
		return nil, errs.New(errs.TooLarge, "%d bytes, limit %d", len(expr), maxExpression)
	}
	t = &translation{in: expr}
	for t.in != "" {
		t.next()
	}
	if t.expr = t.out.String(); len(t.expr) > maxTranslation {
		return nil, errs.New(errs.TooLarge, "its classes take %d bytes, limit %d", len(t.expr), maxTranslation)
	}
	if t.lines {
		t.expr = "(?m)" + t.expr
	}
	return t, nil
}

// next translates one atom, quantifier, group's begin or end, or anchor.
func (t *translation) next() {
	switch c := t.in[0]; {
	case c == '\\':
		t.begin(t.escape(false))
	case c == '[':
		t.begin(t.class())
	case strings.HasPrefix(t.in, "(?"):
		t.groups = append(t.groups, t.out.Len())
		t.out.WriteString(t.opening())
	case c == '(':
		t.groups = append(t.groups, t.out.Len())
		t.out.WriteString(t.take(1))
	case c == ')' && len(t.groups) > 0:
		t.atom = t.groups[len(t.groups)-1]
		t.groups = t.groups[:len(t.groups)-1]
		t.out.WriteString(t.take(1))
	case strings.IndexByte("?*+", c) >= 0:
		t.quantifier(1, true)
	case counted.MatchString(t.in):
		t.quantifier(strings.IndexByte(t.in, '}')+1, false)
	default:
		t.lines = t.lines || c == '^' || c == '$'
		_, n := utf8.DecodeRuneInString(t.in)
		t.begin(t.take(n))
	}
}

// counted is a quantifier in braces.
var counted = regexp.MustCompile(`^\{[0-9]*,?[0-9]*\}`)

func (t *translation) take(n int) string {
	s := t.in[:n]
	t.in = t.in[n:]
	return s
}

func (t *translation) begin(atom string) {
	t.atom = t.out.Len()
	t.out.WriteString(atom)
}

// quantifier copies a quantifier of n bytes. A + behind it makes it possessive, or, behind
// braces, repeats it.
func (t *translation) quantifier(n int, possessive bool) {
	t.out.WriteString(t.take(n))
	switch {
	case strings.HasPrefix(t.in, "+"):
		atom := t.out.String()
		t.out.Reset()
		open := "(?:"
		if possessive {
			open, t.backtracks = "(?>", true
			t.take(1)
		}
		t.out.WriteString(atom[:t.atom] + open + atom[t.atom:] + ")")
	case strings.HasPrefix(t.in, "?"):
		t.out.WriteString(t.take(1))
	}
}

// opening translates a group's begin with "(?"; Oniguruma's option m is Go's s.
func (t *translation) opening() string {
	end := strings.IndexAny(t.in[2:], ":)=!<>#'")
	if end < 0 {
		fail(errs.New(errs.Unsupported, "an open group"))
	}
	options := t.take(2 + end)
	switch t.in[0] {
	case '=', '!', '>', '#':
		t.backtracks = true
	case '<':
		t.backtracks = t.backtracks || strings.HasPrefix(t.in, "<=") || strings.HasPrefix(t.in, "<!")
	}
	return strings.ReplaceAll(options, "m", "s")
}

// escape translates an escape; inClass, what it stands for is written without brackets.
func (t *translation) escape(inClass bool) string {
	if len(t.in) < 2 {
		fail(errs.New(errs.Unsupported, "a lone backslash at the end"))
	}
	c, n := utf8.DecodeRuneInString(t.in[1:])
	if class, ok := shorthands[unicode.ToLower(c)]; ok && c < utf8.RuneSelf {
		t.take(2)
		if inClass {
			return class.text(unicode.IsUpper(c))
		}
		return alone(class, c)
	}
	switch c {
	case 'p', 'P':
		return t.property()
	case 'u':
		if len(t.in) < 6 {
			fail(errs.New(errs.Unsupported, "a short \\u"))
		}
		return `\x{` + t.take(6)[2:] + `}`
	case 'x':
		if end := strings.IndexByte(t.in, '}'); strings.HasPrefix(t.in[2:], "{") && end > 0 {
			return t.take(end + 1)
		}
	case 'R':
		t.take(2)
		return `(?:\r\n|[\n-\r\x{85}\x{2028}\x{2029}])`
	case 'b', 'B', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'Z':
		t.backtracks = t.backtracks || !inClass
	case 'X', 'K', 'G', 'k', 'g', 'O', 'N', 'y', 'Y':
		fail(errs.New(errs.Unsupported, `\%c`, c))
	}
	return t.take(1 + n)
}

// alone is a shorthand outside brackets.
func alone(c class, letter rune) string {
	in := c.in
	if letter == 'w' || letter == 'W' {
		in += superscripts
	}
	if unicode.IsUpper(letter) {
		return "[^" + in + "]"
	}
	return "[" + in + "]"
}

// property translates \p{Name}, \p{^Name} and \P{Name}.
func (t *translation) property() string {
	end := strings.IndexByte(t.in, '}')
	if !strings.HasPrefix(t.in[2:], "{") || end < 0 {
		return t.take(2)
	}
	name := t.take(end + 1)
	if inner, negated := strings.CutPrefix(name[3:], "^"); negated {
		return `\P{` + inner
	}
	return name
}

// class translates a bracket expression.
func (t *translation) class() string {
	var out strings.Builder
	out.WriteString(t.take(1))
	if strings.HasPrefix(t.in, "^") {
		out.WriteString(t.take(1))
	}
	for first := true; ; first = false {
		switch {
		case t.in == "":
			fail(errs.New(errs.Unsupported, "an open bracket"))
		case t.in[0] == ']' && first:
			t.take(1)
			out.WriteString(`\]`)
		case t.in[0] == ']':
			return out.String() + t.take(1)
		case t.in[0] == '\\':
			out.WriteString(t.escape(true))
		case strings.HasPrefix(t.in, "[:"):
			out.WriteString(t.posix())
		case t.in[0] == '[' || strings.HasPrefix(t.in, "&&"):
			fail(errs.New(errs.Unsupported, "a set within a set"))
		default:
			_, n := utf8.DecodeRuneInString(t.in)
			out.WriteString(t.take(n))
		}
	}
}

// posix translates [:name:] and [:^name:].
func (t *translation) posix() string {
	name, rest, ok := strings.Cut(t.in[2:], ":]")
	bare := strings.TrimPrefix(name, "^")
	class, known := posixClasses[bare]
	if !ok || !known {
		fail(errs.New(errs.Unsupported, "[:%s:]", name))
	}
	t.in = rest
	return class.text(bare != name)
}

// class is a set of characters: how it is written between brackets, and its tables.
type class struct {
	in     string
	tables []*unicode.RangeTable
}

// text is the class between brackets, or, negated, all other characters.
func (c class) text(negated bool) string {
	if !negated {
		return c.in
	}
	var out strings.Builder
	next := rune(0)
	rangetable.Visit(rangetable.Merge(c.tables...), func(r rune) {
		if r > next {
			fmt.Fprintf(&out, `\x{%x}-\x{%x}`, next, r-1)
		}
		next = r + 1
	})
	fmt.Fprintf(&out, `\x{%x}-\x{%x}`, next, unicode.MaxRune)
	return out.String()
}

var (
	alnum = class{`\p{L}\p{M}\p{Nd}`, []*unicode.RangeTable{unicode.L, unicode.M, unicode.Nd}}
	alpha = class{`\p{L}\p{M}`, []*unicode.RangeTable{unicode.L, unicode.M}}
	digit = class{`\p{Nd}`, []*unicode.RangeTable{unicode.Nd}}
	hex   = class{`0-9A-Fa-f`, []*unicode.RangeTable{unicode.ASCII_Hex_Digit}}
	lower = class{`\p{Ll}`, []*unicode.RangeTable{unicode.Ll}}
	space = class{`\t-\r\x{85}\p{Z}`, []*unicode.RangeTable{unicode.White_Space}}
	upper = class{`\p{Lu}`, []*unicode.RangeTable{unicode.Lu}}
	word  = class{
		`\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189}`,
		[]*unicode.RangeTable{unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic},
	}
)

// superscripts are ², ³, ¹, ¼, ½ and ¾, which Oniguruma takes for parts of words, outside brackets.
const superscripts = `\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}`

var shorthands = map[rune]class{'d': digit, 'h': hex, 's': space, 'w': word}

var posixClasses = map[string]class{
	"alnum": alnum, "alpha": alpha, "digit": digit, "lower": lower, "space": space, "upper": upper, "word": word, "xdigit": hex,
}
