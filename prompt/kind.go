package prompt

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Kind is what a prompt does, and so which tensors it holds.
type Kind string

// The kinds. A card without one is a classifier's, which is what the first cards were.
const (
	Classifier Kind = ""         // classifies and searches images with a dual encoder
	Caption    Kind = "caption"  // steers what an image-to-text model says
	Concept    Kind = "concept"  // one word of a text-to-image model: textual inversion
	Style      Kind = "style"    // stands before the words of a text-to-image prompt
	Negative   Kind = "negative" // stands where a text-to-image model takes its negative prompt
)

// String is the kind's name; a classifier's is written out.
func (k Kind) String() string {
	if k == Classifier {
		return "classifier"
	}
	return string(k)
}

// UnmarshalText reads a kind by its name.
func (k *Kind) UnmarshalText(text []byte) error {
	*k = Kind(text)
	if *k == "classifier" {
		*k = Classifier
	}
	return k.check()
}

func (k Kind) check() error {
	if _, known := tensorsOf[k]; !known {
		return errs.New(errs.Unsupported, "prompt card of kind %.40q: this version knows %s, %s, %s, %s and %s; update foretoken",
			string(k), Classifier, Caption, Concept, Style, Negative)
	}
	return nil
}

// form is what a kind demands of one of its tensors.
type form struct {
	ranks  []int // numbers of axes that it may have
	needed bool
}

// tensorsOf lists the tensors with a meaning by kind. Names that repeat by a number stand here
// without it.
var tensorsOf = map[Kind]map[string]form{
	Classifier: {
		"context": {ranks: []int{2, 3}}, "visual": {ranks: []int{3}},
		"head.weight": {ranks: []int{2}}, "head.bias": {ranks: []int{1}},
		"couple.weight": {ranks: []int{2}}, "couple.bias": {ranks: []int{1}},
	},
	Caption: {
		"prefix": {ranks: []int{2}}, "keys": {ranks: []int{4}}, "values": {ranks: []int{4}}, "visual": {ranks: []int{3}},
		"map.weight": {ranks: []int{2}}, "map.bias": {ranks: []int{1}},
	},
	Concept:  {"embedding": {[]int{2}, true}, "embedding_2": {ranks: []int{2}}},
	Style:    {"context": {[]int{2}, true}, "context_2": {ranks: []int{2}}},
	Negative: {"negative": {[]int{2}, true}, "negative_2": {ranks: []int{2}}},
}

// alike are the tensors of one kind whose first so many axes are equal; a group with whole set
// is there in full or not at all.
var alike = []struct {
	kind  Kind
	names [2]string
	axes  int
	whole bool
}{
	{Caption, [2]string{"keys", "values"}, 4, true},
	{Concept, [2]string{"embedding", "embedding_2"}, 1, false},
	{Style, [2]string{"context", "context_2"}, 1, false},
	{Negative, [2]string{"negative", "negative_2"}, 1, false},
}

// withoutIndex is "couple.weight" for "couple.3.weight", and so for "map.3.weight".
func withoutIndex(name string) string {
	parts := strings.Split(name, ".")
	if len(parts) == 3 && (parts[0] == "couple" || parts[0] == "map") && strings.Trim(parts[1], "0123456789") == "" {
		return parts[0] + "." + parts[2]
	}
	return name
}

// checkKind compares the tensors with what the card's kind demands.
func (p *Prompt) checkKind() error {
	forms := tensorsOf[p.Card.Kind]
	for _, name := range order(p.Tensors) {
		t := p.Tensors[name]
		if f, known := forms[withoutIndex(name)]; known && (!t.Type.IsFloat() || !slices.Contains(f.ranks, len(t.Dims))) {
			return errs.New(errs.Invalid, "prompt tensor %q: %s%v, must be a float tensor of rank %v", name, t.Type, t.Dims, f.ranks)
		}
	}
	for name, f := range forms {
		if f.needed && p.Tensors[name] == nil {
			return errs.New(errs.Invalid, "prompt of kind %s without the tensor %q", p.Card.Kind, name)
		}
	}
	for _, a := range alike {
		if a.kind != p.Card.Kind {
			continue
		}
		if err := p.checkAlike(a.names, a.axes, a.whole); err != nil {
			return err
		}
	}
	switch p.Card.Kind {
	case Classifier:
		return p.checkClasses()
	case Caption:
		return p.checkCaption()
	case Concept:
		return checkToken(p.Card.Token)
	}
	return nil
}

func (p *Prompt) checkAlike(names [2]string, axes int, whole bool) error {
	a, b := p.Tensors[names[0]], p.Tensors[names[1]]
	if a == nil || b == nil {
		if whole && a != b {
			return errs.New(errs.Invalid, "prompt of kind %s with only one of the tensors %q: it takes both", p.Card.Kind, names)
		}
		return nil
	}
	if !slices.Equal(a.Dims[:axes], b.Dims[:axes]) {
		return errs.New(errs.Invalid, "prompt tensors %q: %v and %v, the first %d axes must be equal", names, a.Dims, b.Dims, axes)
	}
	return nil
}

// checkCaption wants something that steers, and layers of the map that fit on each other.
func (p *Prompt) checkCaption() error {
	if p.Card.Unplaced && (p.Tensors["keys"] == nil || p.Tensors["prefix"] != nil) {
		return errs.New(errs.Invalid, "prompt card: unplaced is for keys and values, without a prefix beside them")
	}
	steers := p.Tensors["prefix"] != nil || p.Tensors["keys"] != nil || p.Tensors["visual"] != nil
	for _, name := range order(p.Tensors) {
		t := p.Tensors[name]
		switch withoutIndex(name) {
		case "map.weight":
			steers = true
		case "map.bias":
			weight := strings.TrimSuffix(name, "bias") + "weight"
			if w := p.Tensors[weight]; w == nil || w.Dims[0] != t.Dims[0] {
				return errs.New(errs.Invalid, "prompt tensor %q: %v without a tensor %q of as many rows", name, t.Dims, weight)
			}
		}
	}
	if !steers {
		return errs.New(errs.Invalid, "prompt of kind %s holds none of prefix, keys and values, map and visual", p.Card.Kind)
	}
	return nil
}

// maxToken is how long a placeholder may be, in bytes.
const maxToken = 64

// checkToken refuses a placeholder that could not be found again in a text.
func checkToken(token string) error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
	if token == "" || len(token) > maxToken || !utf8.ValidString(token) || strings.ContainsFunc(token, bad) {
		return errs.New(errs.Invalid, "prompt card: token %.80q, must be the concept's placeholder such as <mug>: 1 to %d bytes of UTF-8 without spaces", token, maxToken)
	}
	return nil
}

// Rows is the name of the tensor [n,D] that puts rows into a text encoder, for the kinds that have
// one: concept, style and negative; "" for others. Rows for a second encoder add "_2".
func Rows(k Kind) string {
	return map[Kind]string{Concept: "embedding", Style: "context", Negative: "negative"}[k]
}

// Widths are the lengths of the rows that a concept, style or negative prompt puts into the
// first and the second text encoder; 0 where it has none for it, and for other kinds.
func (p *Prompt) Widths() (first, second int) {
	width := func(t *graph.Tensor) int {
		if t == nil {
			return 0
		}
		return int(t.Dims[1])
	}
	name := Rows(p.Card.Kind)
	if name == "" {
		return 0, 0
	}
	return width(p.Tensors[name]), width(p.Tensors[name+"_2"])
}
