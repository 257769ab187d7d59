package graph

import (
	"maps"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// Verify runs the decoder on random words to see that prefixes enter as they should. For prefixes of one token and
// of three, or of as many as there are places for:
//
//   - none at all leaves logits, and the keys and values that are given out, as they were, and the logits are those
//     of the graph as exported;
//   - no token looks ahead, where [DecoderTower.Causal] says so;
//   - keys and values that the decoder gives out for words, fed as its past, are these words before the text;
//   - so are the embeddings of words: as one prefix for all rows, as each row's own, and from a bank; where the text is
//     padded, in front or behind; behind a past; and to the last place of the table of positions;
//   - so are the keys and values that the decoder itself makes of words;
//   - another prefix changes the logits, to something finite.
//
// A text of fixed length is compared with the front of the one that has the words before it; where tokens look ahead, what is
// cut off there would have been seen, and keys and values hold what comes behind them, so nothing of either is told. A table
// of more than 128 places is tried to its end by a long past alone, of up to 1024 places: long texts take seconds. What does
// not hold is an error of kind [errs.Unsupported] that says so.
func (t *DecoderTower) Verify(run Runner) (err error) {
	defer recoverBail(&err)
	v, err := newDecoderCheck(run, t, t)
	if err != nil {
		return err
	}
	for _, check := range []func() error{
		v.asExported, v.looksBack, v.goesOn,
		func() error { return v.prefixes(soft) }, func() error { return v.prefixes(pairs) },
	} {
		if err := check(); err != nil {
			return errs.New(errs.Of(err), "decoder: %w", err)
		}
	}
	return nil
}

// VerifyStep runs step, the graph that computes a token behind a past, on the keys and values that this decoder gives
// out for a text's front: two tokens, one after the other, come out as in the whole text. What does not hold is an
// error of kind [errs.Unsupported] that says so. It is for steps that this decoder leads to ([DecoderTower.LeadsTo]).
func (t *DecoderTower) VerifyStep(step *DecoderTower, run Runner) (err error) {
	defer recoverBail(&err)
	v, err := newDecoderCheck(run, t, step)
	if err != nil {
		return err
	}
	n := v.length
	ids := v.words(n, false)
	want, err := v.said(v.whole, v.told(t, ids, cache{}, nil), n, n)
	if err != nil {
		return err
	}
	past := v.kept(t, want, n-2)
	for at := n - 2; at < n; at++ {
		in := v.told(step, after(upTo(ids, at+1), at), past, nil)
		v.putCross(in, step, want)
		got, err := v.said(step.Graph, in, 1, at+1)
		if err != nil {
			return errs.New(errs.Of(err), "decoder: the step behind %d tokens: %w", at, err)
		}
		if err := v.compare(got, want, at, nil); err != nil {
			return errs.New(errs.Unsupported, "decoder: the step behind %d tokens does not come out as in the whole text: %w", at, err)
		}
		past = v.kept(step, got, at+1)
	}
	return nil
}

// asExported compares the decoder whose length was opened with the exported one.
func (v *decoderCheck) asExported() error {
	if v.t.original == nil {
		return nil
	}
	was, _ := v.t.original.Input(v.t.IDs.Name).Shape[1].Int()
	n := int(was)
	in := v.told(v.t, v.words(n, false), cache{}, nil)
	want, err := v.said(v.t.original, in, n, 0)
	if err != nil {
		return err
	}
	got, err := v.said(v.whole, in, n, 0)
	if err != nil {
		return err
	}
	if err := v.compare(got, want, 0, nil); err != nil {
		return errs.New(errs.Unsupported, "the logits for %d tokens are not those of the graph as exported: %w", n, err)
	}
	return nil
}

// looksBack changes the last word of texts.
func (v *decoderCheck) looksBack() error {
	n := v.length
	ids := v.words(n, false)
	a, err := v.said(v.whole, v.told(v.t, ids, cache{}, nil), n, 0)
	if err != nil {
		return err
	}
	b, err := v.said(v.whole, v.told(v.t, before(upTo(ids, n-1), v.words(1, false)), cache{}, nil), n, 0)
	if err != nil {
		return err
	}
	changed := v.differ(v.logits(b, 0, n-1), v.logits(a, 0, n-1))
	v.back = changed == nil
	if v.t.Causal && !v.back {
		return errs.New(errs.Unsupported, "the last word changes the logits before it, although a mask hides it: %w", changed)
	}
	return nil
}

// goesOn feeds keys and values that the decoder gives out for the front of texts as its past.
func (v *decoderCheck) goesOn() error {
	if !v.free || !v.back || !v.pasts {
		return nil
	}
	for _, p := range v.numbers() {
		n := p + v.length
		ids := v.words(n, false)
		want, err := v.said(v.whole, v.told(v.t, ids, cache{}, nil), n, n)
		if err != nil {
			return err
		}
		got, err := v.said(v.whole, v.told(v.t, after(ids, p), v.kept(v.t, want, p), nil), v.length, n)
		if err != nil {
			return err
		}
		if err := v.compare(got, want, p, nil); err != nil {
			return errs.New(errs.Unsupported, "a text behind a past of %d tokens does not come out as in one piece: %w", p, err)
		}
	}
	return nil
}

// prefixKind is how a prefix enters: as embeddings before the tokens, or as keys and values of each layer.
type prefixKind string

const (
	soft  prefixKind = "prefix"
	pairs prefixKind = "keys and values"
)

func (t *DecoderTower) with(k prefixKind, o PrefixOptions) (*Graph, error) {
	if k == pairs {
		return t.withKeyValues(o)
	}
	return t.withPrefix(o)
}

// prefixes puts words in as a prefix.
func (v *decoderCheck) prefixes(k prefixKind) error {
	if _, err := v.t.with(k, PrefixOptions{}); k == pairs && errs.Of(err) == errs.Unsupported {
		return nil // whoever asks for keys and values is told why
	}
	trials := map[PrefixOptions][]*trial{}
	for _, o := range v.options(k) {
		for _, s := range v.situations(k, o.Tokens) {
			tr, err := v.trial(k, o, s)
			if err != nil {
				return err
			}
			trials[o] = append(trials[o], tr)
		}
	}
	for _, o := range v.options(k) {
		g, err := v.t.with(k, o)
		if err != nil {
			return err
		}
		for _, tr := range trials[o] {
			if err := v.prefixed(g, tr); err != nil {
				return errs.New(errs.Of(err), "%s of %d tokens (of each row %v, of a bank %v), before a text of %d, behind a past of %d (padded %v): %w", k, o.Tokens, o.PerRow, o.Bank, tr.length, tr.past, tr.padded, err)
			}
		}
	}
	return nil
}

// options are the prefixes that are tried: of no tokens, for which the surgery is the same, and of two numbers of words.
func (v *decoderCheck) options(k prefixKind) []PrefixOptions {
	all := []PrefixOptions{{PerRow: true}}
	if v.most < 1 || !v.back && (k == pairs || !v.free) {
		return all
	}
	for _, p := range v.numbers() {
		all = append(all, PrefixOptions{Tokens: p, PerRow: true, KeepLogits: k == soft && p > 1})
	}
	return append(all, PrefixOptions{Tokens: v.most}, PrefixOptions{Tokens: v.most, Bank: true})
}

// situation is where a prefix stands: before a text of a length, behind a past of some places.
type situation struct {
	length, past int
	padded       bool
}

// situations are those that a prefix of p tokens is tried in.
func (v *decoderCheck) situations(k prefixKind, p int) []situation {
	all := []situation{{length: v.length}}
	if v.t.Mask != nil {
		all = append(all, situation{length: v.length, padded: true})
	}
	behind := k == soft && v.back && v.pasts
	if behind {
		all = append(all, situation{length: v.length, past: 2})
	}
	switch room := v.t.LongestText(p); {
	case v.t.Window == 0 || !v.free:
	case behind:
		all = append(all, situation{length: v.length, past: min(room, longestTried) - v.length})
	case v.t.Window <= shortWindow:
		all = append(all, situation{length: room})
	}
	return all
}

// trial is a prefix of words in some situation.
type trial struct {
	situation
	kind    prefixKind
	o       PrefixOptions
	in      given                 // the text behind the prefix
	want    *spoken               // of the text with the words in it
	padding func(row, i int) bool // which places of the text are hidden
}

// trial runs the text with the words in it.
func (v *decoderCheck) trial(k prefixKind, o PrefixOptions, s situation) (*trial, error) {
	p, shared := o.Tokens, !o.PerRow && !o.Bank
	text := v.words(s.length, false)
	ids := before(v.words(p, shared), text)
	if !v.free {
		ids = upTo(ids, s.length)
	}
	n := len(ids[0])
	past, err := v.longPast(s.past)
	if err != nil {
		return nil, err
	}
	tr := &trial{situation: s, kind: k, o: o}
	tr.padding = func(row, i int) bool { return s.padded && i == row%2*(n-p-1) } // the first, or the last that both have
	long := v.told(v.t, ids, past, func(row, i int) bool { return tr.padding(row, i-p) })
	tr.in = v.told(v.t, text, past, tr.padding)
	if shared { // keys and values are of what a row has seen
		maps.Copy(long, v.alike)
		maps.Copy(tr.in, v.alike)
	}
	if tr.want, err = v.said(v.whole, long, n, s.past+n); err != nil {
		return nil, err
	}
	return tr, v.put(tr.in, k, o, upTo(ids, p), tr.want)
}

// prefixed compares a text behind a prefix of words with the text that has the words before it.
func (v *decoderCheck) prefixed(g *Graph, tr *trial) error {
	p := tr.o.Tokens
	front, skip := 0, p
	if tr.o.KeepLogits {
		front, skip = p, 0
	}
	got, err := v.said(g, tr.in, front+tr.length, tr.past+p+tr.length)
	if err != nil {
		return err
	}
	var padding func(row, i int) bool
	if tr.padded {
		padding = func(row, i int) bool { return tr.padding(row, i-front) }
	}
	if err := v.compare(got, tr.want, skip, padding); err != nil {
		return errs.New(errs.Unsupported, "the output is not that of these words in the text: %w", err)
	}
	if p == 0 {
		return nil
	}
	return v.matters(g, tr, got)
}

// matters puts noise in the place of a prefix.
func (v *decoderCheck) matters(g *Graph, tr *trial, with *spoken) error {
	in := maps.Clone(tr.in)
	for _, x := range v.prefixInputs(tr.kind) {
		in[x] = v.noise(in[x].Dims...)
	}
	other, err := v.said(g, in, with.logits, with.places)
	if err != nil {
		return err
	}
	if name := v.t.Logits.Name; slices.Equal(other.out[name], with.out[name]) { // to the last bit: layers may start out scaled down to next to nothing
		return errs.New(errs.Unsupported, "another one does not change the logits")
	}
	return nil
}

// put feeds a prefix of o.Tokens words: their embeddings, or the keys and values that a run made of them, in which they stood first.
func (v *decoderCheck) put(in given, k prefixKind, o PrefixOptions, words [][]int64, run *spoken) error {
	p := o.Tokens
	all, err := v.contents(k, upTo(words, p), run)
	if err != nil {
		return err
	}
	for i, name := range v.prefixInputs(k) {
		switch {
		case o.PerRow:
			in[name] = all[i]
		case o.Bank:
			if in[name], err = banked(all[i]); err != nil {
				return err
			}
			in["prefix_index"] = NewTensor(falling(v.rows), int64(v.rows))
		default:
			in[name] = all[i].Rows(0, 1)
		}
	}
	return nil
}

// contents are what each of a prefix's inputs takes, each row's own.
func (v *decoderCheck) contents(k prefixKind, words [][]int64, run *spoken) ([]*Tensor, error) {
	p := len(words[0])
	if k == pairs {
		return v.made(run, p), nil
	}
	table, err := v.t.Embeddings(slices.Concat(words...))
	if err != nil {
		return nil, err
	}
	return []*Tensor{NewTensor(table, int64(v.rows), int64(p), int64(v.t.Width))}, nil
}

// prefixInputs are the names of the inputs that a prefix is fed to.
func (v *decoderCheck) prefixInputs(k prefixKind) []string {
	if k == soft {
		return []string{"prefix"}
	}
	var names []string
	for i := range v.own {
		names = append(names, keyValueName(i, 0), keyValueName(i, 1))
	}
	return names
}

// banked is a bank of a tensor's rows, last to first, behind one of ones that nobody takes.
func banked(x *Tensor) (*Tensor, error) {
	data, err := Values[float32](x)
	if err != nil {
		return nil, err
	}
	size := len(data) / int(x.Dims[0])
	out := slices.Repeat([]float32{1}, size)
	for at := len(data) - size; at >= 0; at -= size {
		out = append(out, data[at:at+size]...)
	}
	return NewTensor(out, append([]int64{x.Dims[0] + 1}, x.Dims[1:]...)...), nil
}

// falling is n, .., 1: the places in such a bank of the rows in order.
func falling(n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(n - i)
	}
	return out
}
