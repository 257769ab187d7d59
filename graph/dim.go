package graph

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
)

// Dim is the extent of an axis: a polynomial with integer coefficients over named
// symbols, in canonical form. The zero Dim is 0.
type Dim struct {
	terms []term // sorted by monomial, no zero coefficients
}

// term is coef times the product of its symbols.
type term struct {
	syms []string // sorted, repeated for powers; none for the constant
	coef int64
}

// Known is the dim of a fixed extent.
func Known(n int64) Dim {
	if n == 0 {
		return Dim{}
	}
	return Dim{[]term{{nil, n}}}
}

// Sym is the dim of an extent that a run decides.
func Sym(name string) Dim { return Dim{[]term{{[]string{name}, 1}}} }

// Int returns the extent where it is fixed.
func (d Dim) Int() (int64, bool) {
	switch {
	case len(d.terms) == 0:
		return 0, true
	case len(d.terms) == 1 && len(d.terms[0].syms) == 0:
		return d.terms[0].coef, true
	}
	return 0, false
}

// Is says whether the extent is known to be n.
func (d Dim) Is(n int64) bool {
	v, ok := d.Int()
	return ok && v == n
}

// Add returns d + e.
func (d Dim) Add(e Dim) Dim {
	sum := collect(append(slices.Clone(d.terms), e.terms...))
	if len(sum.terms) > maxTerms {
		return opaque("(" + d.String() + ")+(" + e.String() + ")")
	}
	return sum
}

// Sub returns d - e.
func (d Dim) Sub(e Dim) Dim { return d.Add(e.Mul(Known(-1))) }

// maxTerms bounds a polynomial. Shapes have a handful of terms; a file made to blow them up gets
// a symbol for the sum or product instead.
const maxTerms = 24

// Mul returns d * e.
func (d Dim) Mul(e Dim) Dim {
	if len(d.terms)*len(e.terms) > maxTerms || d.degree()+e.degree() > maxTerms {
		return opaque("(" + d.String() + ")*(" + e.String() + ")")
	}
	var out []term
	for _, a := range d.terms {
		for _, b := range e.terms {
			syms := slices.Concat(a.syms, b.syms)
			slices.Sort(syms)
			out = append(out, term{syms, a.coef * b.coef})
		}
	}
	return collect(out)
}

// Div returns the floor of d / e: exact where e divides the polynomial d, else a symbol of
// its own that stands for the quotient.
func (d Dim) Div(e Dim) Dim {
	if q, ok := d.exact(e); ok {
		return q
	}
	a, okA := d.Int()
	b, okB := e.Int()
	if okA && okB && b != 0 {
		q := a / b
		if a%b != 0 && (a < 0) != (b < 0) {
			q--
		}
		return Known(q)
	}
	return opaque("(" + d.String() + ")/(" + e.String() + ")")
}

// opaque is a symbol named after the term it stands for; a very long name is cut to its hash.
func opaque(name string) Dim {
	if len(name) > 256 {
		h := fnv.New128a()
		h.Write([]byte(name))
		name = fmt.Sprintf("(%x)", h.Sum(nil))
	}
	return Sym(name)
}

func (d Dim) degree() int {
	if len(d.terms) == 0 {
		return 0
	}
	return len(d.leading().syms)
}

// exact divides where nothing is left over.
func (d Dim) exact(e Dim) (Dim, bool) {
	if len(e.terms) == 0 {
		return Dim{}, false
	}
	by, quotient := e.leading(), Dim{}
	steps := 0
	for rest := d; len(rest.terms) > 0; steps++ {
		t := rest.leading()
		syms, ok := without(t.syms, by.syms)
		if !ok || t.coef%by.coef != 0 || steps > maxTerms {
			return Dim{}, false
		}
		q := Dim{[]term{{syms, t.coef / by.coef}}}
		quotient, rest = quotient.Add(q), rest.Sub(q.Mul(e))
	}
	return quotient, true
}

// leading is the term that polynomial division starts with: the first by name of those of
// the highest degree.
func (d Dim) leading() term {
	best := d.terms[0]
	for _, t := range d.terms[1:] {
		if len(t.syms) > len(best.syms) {
			best = t
		}
	}
	return best
}

// substitute puts the extent e in the place of a symbol.
func (d Dim) substitute(symbol string, e Dim) Dim {
	out := Dim{}
	for _, t := range d.terms {
		left := slices.DeleteFunc(slices.Clone(t.syms), func(s string) bool { return s == symbol })
		p := Dim{[]term{{left, t.coef}}}
		for range len(t.syms) - len(left) {
			p = p.Mul(e)
		}
		out = out.Add(p)
	}
	return out
}

// mentions says whether the symbol takes part in the extent, also inside a quotient that
// was not exact.
func (d Dim) mentions(symbol string) bool {
	for _, t := range d.terms {
		for _, s := range t.syms {
			if strings.Contains(s, symbol) {
				return true
			}
		}
	}
	return false
}

func without(syms, remove []string) ([]string, bool) {
	left := slices.Clone(syms)
	for _, r := range remove {
		i := slices.Index(left, r)
		if i < 0 {
			return nil, false
		}
		left = slices.Delete(left, i, i+1)
	}
	return left, true
}

func collect(terms []term) Dim {
	slices.SortFunc(terms, func(a, b term) int { return slices.Compare(a.syms, b.syms) })
	var out []term
	for _, t := range terms {
		if n := len(out); n > 0 && slices.Equal(out[n-1].syms, t.syms) {
			out[n-1].coef += t.coef
		} else {
			out = append(out, t)
		}
	}
	return Dim{slices.DeleteFunc(out, func(t term) bool { return t.coef == 0 })}
}

// Equal says whether both are the same polynomial: equal in every run.
func (d Dim) Equal(e Dim) bool {
	return slices.EqualFunc(d.terms, e.terms, func(a, b term) bool {
		return a.coef == b.coef && slices.Equal(a.syms, b.syms)
	})
}

// String writes the polynomial, for example "batch*17+4".
func (d Dim) String() string {
	if len(d.terms) == 0 {
		return "0"
	}
	var b strings.Builder
	for i := len(d.terms) - 1; i >= 0; i-- {
		t := d.terms[i]
		if b.Len() > 0 && t.coef > 0 {
			b.WriteByte('+')
		}
		switch {
		case len(t.syms) == 0:
			fmt.Fprint(&b, t.coef)
		case t.coef == 1:
			b.WriteString(strings.Join(t.syms, "*"))
		default:
			b.WriteString(strings.Join(t.syms, "*") + "*" + fmt.Sprint(t.coef))
		}
	}
	return b.String()
}

// known turns fixed extents into a shape.
func known(dims []int64) Shape {
	s := make(Shape, len(dims))
	for i, d := range dims {
		s[i] = Known(d)
	}
	return s
}

// Ints returns the extents where all are fixed.
func (s Shape) Ints() ([]int64, bool) {
	out := make([]int64, len(s))
	for i, d := range s {
		n, ok := d.Int()
		if !ok {
			return nil, false
		}
		out[i] = n
	}
	return out, s != nil
}

// Count is the number of elements.
func (s Shape) Count() Dim {
	n := Known(1)
	for _, d := range s {
		n = n.Mul(d)
	}
	return n
}

// Equal says whether both shapes are equal in every run.
func (s Shape) Equal(o Shape) bool { return slices.EqualFunc(s, o, Dim.Equal) }

// String writes the shape as "[batch,17,48]", "?" where the rank is unknown.
func (s Shape) String() string {
	if s == nil {
		return "?"
	}
	parts := make([]string, len(s))
	for i, d := range s {
		parts[i] = d.String()
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// joined puts shapes one after the other; never nil.
func joined(parts ...Shape) Shape {
	out := Shape{}
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
