package tokenizer

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
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

func translate(expr string) (t *translation, err error) {
	defer catch(&err)
	t = &translation{in: expr}
	for t.in != "" {
		t.next()
	}
	t.expr = t.out.String()
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
		ranges := class()
		if !inClass && unicode.ToLower(c) == 'w' {
			ranges = loneWord()
		}
		switch {
		case inClass:
			return ranges.ranges(unicode.IsUpper(c))
		case unicode.IsUpper(c):
			return "[^" + ranges.in + "]"
		}
		return "[" + ranges.in + "]"
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
	return class().ranges(bare != name)
}

// classText is a class of characters as ranges in a bracket expression, and all others.
type classText struct{ in, out string }

func (c classText) ranges(negated bool) string {
	if negated {
		return c.out
	}
	return c.in
}

var shorthands = map[rune]func() classText{
	's': classOf(unicode.White_Space),
	'd': classOf(unicode.Nd),
	'w': word,
	'h': classOf(unicode.ASCII_Hex_Digit),
}

var posixClasses = map[string]func() classText{
	"alnum": classOf(unicode.L, unicode.M, unicode.Nd),
	"alpha": classOf(unicode.L, unicode.M),
	"digit": classOf(unicode.Nd),
	"lower": classOf(unicode.Ll),
	"space": classOf(unicode.White_Space),
	"upper": classOf(unicode.Lu),
	"word":  word,
}

// word is \w between brackets. Outside them Oniguruma takes ², ³, ¹, ¼, ½ and ¾ for parts of words too.
var (
	word     = classOf(wordTables...)
	loneWord = classOf(append(wordTables, rangetable.New(0xB2, 0xB3, 0xB9, 0xBC, 0xBD, 0xBE))...)
)

var wordTables = []*unicode.RangeTable{unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic}

func classOf(tables ...*unicode.RangeTable) func() classText {
	return sync.OnceValue(func() classText {
		var in, out strings.Builder
		next, last := rune(0), rune(-1)
		write := func(b *strings.Builder, lo, hi rune) {
			if lo <= hi {
				fmt.Fprintf(b, `\x{%x}-\x{%x}`, lo, hi)
			}
		}
		flush := func(until rune) {
			if last >= 0 {
				write(&in, next, last)
				write(&out, last+1, until-1)
			} else {
				write(&out, 0, until-1)
			}
		}
		rangetable.Visit(rangetable.Merge(tables...), func(c rune) {
			if c != last+1 || last < 0 {
				flush(c)
				next = c
			}
			last = c
		})
		flush(unicode.MaxRune + 1)
		return classText{in.String(), out.String()}
	})
}
