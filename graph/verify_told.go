package graph

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

const (
	wordsTried  = 5   // tokens of most texts that a decoder is checked with
	seenTried   = 5   // tokens of an encoder, where the file leaves open how many
	shortWindow = 128 // places of a table of positions that texts are tried to the end of
)

// decoderCheck is a decoder under test.
type decoderCheck struct {
	*checker
	t      *DecoderTower
	rows   int
	length int     // of most texts
	most   int     // tokens of a prefix, of the two numbers the larger; 0 where there are places for none
	usable []int64 // ids of ordinary words
	// seen is what goes into inputs that hold nothing of the text, such as states of an encoder; alike has the first row's in all rows.
	seen, alike given
	// whole is the decoder, which gives out as "made.i", [B,H,S,d], keys and values in turn of each self attention too, as it
	// makes them of its tokens.
	whole *Graph
	own   []DecoderLayer // self attention
	free  bool           // texts may be of any length
	back  bool           // no token was seen to look ahead
	pasts bool           // each self attention takes a past
}

// newDecoderCheck checks t, whose steps are computed by step.
func newDecoderCheck(run Runner, t, step *DecoderTower) (*decoderCheck, error) {
	v := &decoderCheck{checker: newChecker(run, t.Graph, t.Embedding.Type), t: t, rows: 2, free: true, pasts: t.past() != nil}
	if n, fixed := t.IDs.Shape[0].Int(); fixed {
		v.rows = int(n)
	}
	v.measure()
	rows, _ := t.Table.Shape[0].Int()
	special := (&TextTower{Graph: t.Graph, IDs: t.IDs}).comparedIDs()
	for id := range rows {
		if !special[id] {
			v.usable = append(v.usable, id)
		}
	}
	if len(v.usable) < 2 {
		return nil, unpromptable("the decoder can't be checked: its token table %q has %d rows", t.Table.Name, rows)
	}
	for _, l := range t.Layers {
		if !l.Cross {
			v.own = append(v.own, l)
			v.pasts = v.pasts && l.PastKey != nil && l.PastValue != nil && l.Heads > 0
		}
	}
	v.see(step)
	return v, v.giveMade()
}

// measure decides how long texts and prefixes are.
func (v *decoderCheck) measure() {
	v.length, v.most = wordsTried, 3
	window := v.t.Window
	if n, fixed := v.t.IDs.Shape[1].Int(); fixed {
		v.free, v.length, v.most = false, int(n), min(v.most, int(n)-1)
		if window > 0 {
			v.most = min(v.most, window-v.length)
		}
	} else if window > 0 {
		v.most = min(v.most, window/2)
		v.length = min(v.length, window-v.most)
	}
}

// numbers are the two numbers of tokens in a prefix, as far as there are places.
func (v *decoderCheck) numbers() []int {
	if v.most < 1 {
		return nil
	}
	return slices.Compact([]int{1, v.most})
}

// see makes up what cross attention looks at.
func (v *decoderCheck) see(step *DecoderTower) {
	n := int64(seenTried)
	for _, t := range []*DecoderTower{v.t, step} {
		for _, in := range t.Graph.Inputs {
			if axis := t.seenAxis(in); axis >= 0 {
				if fixed, known := in.Shape[axis].Int(); known {
					n = fixed
				}
			}
		}
	}
	v.seen, v.alike = given{}, given{}
	for _, in := range v.t.Graph.Inputs {
		axis := v.t.seenAxis(in)
		if axis < 0 {
			continue
		}
		x := v.filler(&Value{Type: in.Type, Shape: in.Shape.with(axis, Known(n))}, v.rows)
		v.seen[in.Name], v.alike[in.Name] = x, x
		if data, err := Values[float32](x); err == nil {
			v.alike[in.Name] = NewTensor(slices.Repeat(data[:len(data)/v.rows], v.rows), x.Dims...)
		}
	}
}

// seenAxis is the axis of an input along which the encoder's tokens lie, -1 for none.
func (t *DecoderTower) seenAxis(in *Value) int {
	switch {
	case in == t.Encoder || in == t.EncoderMask:
		return 1
	case slices.ContainsFunc(t.Layers, func(l DecoderLayer) bool { return l.Cross && (l.PastKey == in || l.PastValue == in) }):
		return 2
	}
	return -1
}

// giveMade makes the graph of the whole text.
func (v *decoderCheck) giveMade() error {
	g, to := v.t.Graph.CloneMap()
	s := newSurgery(g, to[v.t.Embedding])
	s.at = len(g.Nodes)
	for i, l := range v.own {
		for j, at := range []place{l.key, l.value} {
			if l.Heads == 0 {
				continue
			}
			perm := make([]int64, 4)
			for axis, holds := range slices.Insert([]int64{0, 1, 3}, at.axis, 2) { // of [B,H,S,d]
				perm[holds] = int64(axis)
			}
			out := s.op("Transpose", map[string]Attr{"perm": {perm}}, to[at.v])
			out.Type, out.Name = at.v.Type, madeName(i, j)
			g.Outputs = append(g.Outputs, out)
		}
	}
	v.whole = g
	return finish(g)
}

func madeName(layer, which int) string { return PromptName("made", 2*layer+which) }

// words are random ids, a text a row; where alike, all rows have the same.
func (v *decoderCheck) words(n int, alike bool) [][]int64 {
	out := make([][]int64, v.rows)
	for row := range out {
		for range n {
			out[row] = append(out[row], v.usable[v.r.IntN(len(v.usable))])
		}
		if alike {
			out[row] = out[0]
		}
	}
	return out
}

// before puts each row's ids before others.
func before(first, then [][]int64) [][]int64 {
	out := make([][]int64, len(first))
	for row := range first {
		out[row] = slices.Concat(first[row], then[row])
	}
	return out
}

// upTo are the first n ids of each text.
func upTo(ids [][]int64, n int) [][]int64 {
	out := make([][]int64, len(ids))
	for row := range ids {
		out[row] = ids[row][:n]
	}
	return out
}

// after are the ids of each text behind the first n.
func after(ids [][]int64, n int) [][]int64 {
	out := make([][]int64, len(ids))
	for row := range ids {
		out[row] = ids[row][n:]
	}
	return out
}

// cache is the past of each self attention, keys and values in turn, [B,H,places,d]; of no places where empty.
type cache struct {
	places int
	pairs  []*Tensor
}

// told are a decoder's inputs for ids behind a past. padding says which places of the ids are hidden; nil for none.
func (v *decoderCheck) told(t *DecoderTower, ids [][]int64, past cache, padding func(row, i int) bool) given {
	in, n := given{}, int64(len(ids[0]))
	for _, x := range t.Graph.Inputs {
		switch {
		case v.seen[x.Name] != nil:
			in[x.Name] = v.seen[x.Name]
		case x == t.Encoder:
			in[x.Name] = v.seen[v.t.Encoder.Name]
		}
	}
	var places, mask []int64
	for row := range ids {
		mask = append(mask, slices.Repeat([]int64{1}, past.places)...)
		for i := range ids[row] {
			places, mask = append(places, int64(past.places+i)), append(mask, 1)
			if padding != nil && padding(row, i) {
				mask[len(mask)-1] = 0
			}
		}
	}
	put := func(x *Value, values []int64, length int64) {
		if x != nil {
			in[x.Name] = Integers(values, x.Type, int64(v.rows), length)
		}
	}
	put(t.IDs, slices.Concat(ids...), n)
	put(t.Positions, places, n)
	put(t.Mask, mask, int64(past.places)+n)
	i := 0
	for _, l := range t.Layers {
		if l.Cross {
			continue
		}
		for j, x := range []*Value{l.PastKey, l.PastValue} {
			switch {
			case x == nil:
			case past.pairs != nil:
				in[x.Name] = past.pairs[2*i+j]
			default:
				in[x.Name] = NewTensor([]float32{}, int64(v.rows), int64(l.Heads), 0, int64(l.HeadWidth))
			}
		}
		i++
	}
	return in
}

// putCross feeds a step the keys and values of cross attention that the first run gave out.
func (v *decoderCheck) putCross(in given, step *DecoderTower, first *spoken) {
	for i, l := range step.Layers {
		given := []*Value{v.t.Layers[i].PresentKey, v.t.Layers[i].PresentValue}
		for j, x := range []*Value{l.PastKey, l.PastValue} {
			if l.Cross && x != nil {
				data := first.out[given[j].Name]
				heads, _ := x.Shape[1].Int()
				width, _ := x.Shape[3].Int()
				in[x.Name] = NewTensor(data, int64(v.rows), heads, int64(len(data))/(int64(v.rows)*heads*width), width)
			}
		}
	}
}

// spoken is what a run gave out: logits of some places, and keys and values of some, past ones among them.
type spoken struct {
	out            map[string][]float32
	logits, places int
}

// said runs a graph. Inputs that it does not have are left out.
func (v *decoderCheck) said(g *Graph, in given, logits, places int) (*spoken, error) {
	its := given{}
	for _, x := range g.Inputs {
		its[x.Name] = in[x.Name]
	}
	out, err := v.outputs(g, its)
	return &spoken{out, logits, places}, err
}

// logits are a run's at places from..to-1.
func (v *decoderCheck) logits(s *spoken, from, to int) []float32 {
	return along(s.out[v.t.Logits.Name], v.rows, s.logits, from, to)
}

// along cuts places from..to-1 out of x, whose axis of n places has outer rows before it.
func along(x []float32, outer, n, from, to int) []float32 {
	inner := len(x) / max(1, outer*n)
	out := make([]float32, 0, outer*(to-from)*inner)
	for i := range outer {
		out = append(out, x[(i*n+from)*inner:(i*n+to)*inner]...)
	}
	return out
}

// kept are the keys and values at the first p places of a run: those that a decoder gives out, else as they were made.
func (v *decoderCheck) kept(t *DecoderTower, s *spoken, p int) cache {
	c, i := cache{places: p}, 0
	for _, l := range t.Layers {
		if l.Cross {
			continue
		}
		for j, x := range []*Value{l.PresentKey, l.PresentValue} {
			name := madeName(i, j)
			if x != nil {
				name = x.Name
			}
			c.pairs = append(c.pairs, v.pair(l, s, name, p))
		}
		i++
	}
	return c
}

// made are the keys and values that self attention made of the first p tokens of a run behind no past.
func (v *decoderCheck) made(s *spoken, p int) []*Tensor {
	var all []*Tensor
	for i, l := range v.own {
		all = append(all, v.pair(l, s, madeName(i, 0), p), v.pair(l, s, madeName(i, 1), p))
	}
	return all
}

// pair cuts the first p places out of keys or values.
func (v *decoderCheck) pair(l DecoderLayer, s *spoken, name string, p int) *Tensor {
	data := along(s.out[name], v.rows*l.Heads, s.places, 0, p)
	return NewTensor(data, int64(v.rows), int64(l.Heads), int64(p), int64(l.HeadWidth))
}

// longPast is a past of so many places: a text's, again and again.
func (v *decoderCheck) longPast(places int) (cache, error) {
	if places == 0 {
		return cache{}, nil
	}
	n := v.length
	text, err := v.said(v.whole, v.told(v.t, v.words(n, false), cache{}, nil), n, n)
	if err != nil {
		return cache{}, err
	}
	c := v.kept(v.t, text, n)
	for k, x := range c.pairs {
		data, err := Values[float32](x)
		if err != nil {
			return cache{}, err
		}
		size := len(data) / v.rows / int(x.Dims[1])
		var long []float32
		for at := 0; at < len(data); at += size {
			for i := range places {
				from := at + i%n*int(x.Dims[3])
				long = append(long, data[from:from+int(x.Dims[3])]...)
			}
		}
		c.pairs[k] = NewTensor(long, x.Dims[0], x.Dims[1], int64(places), x.Dims[3])
	}
	c.places = places
	return c, nil
}

// compare compares what two runs have of one text: logits, the one's first being the other's at place skip, and keys
// and values from the first place on. What is said at places of padding, by the one's logits, is of no account, nor are keys and values then.
func (v *decoderCheck) compare(got, want *spoken, skip int, padding func(row, i int) bool) error {
	n := min(got.logits, want.logits-skip)
	a, b := v.logits(got, 0, n), v.logits(want, skip, skip+n)
	width := len(a) / max(1, v.rows*n)
	for at := range v.rows * n {
		if padding != nil && padding(at/n, at%n) {
			copy(a[at*width:(at+1)*width], b[at*width:(at+1)*width])
		}
	}
	if err := v.differ(a, b); err != nil {
		return err
	}
	if padding != nil || got.places == 0 {
		return nil
	}
	for _, l := range v.own {
		for _, x := range []*Value{l.PresentKey, l.PresentValue} {
			if x == nil || got.out[x.Name] == nil {
				continue
			}
			heads, _ := x.Shape[1].Int()
			both, outer := min(got.places, want.places), v.rows*int(heads)
			if err := v.differ(along(got.out[x.Name], outer, got.places, 0, both), along(want.out[x.Name], outer, want.places, 0, both)); err != nil {
				return errs.New(errs.Unsupported, "%q: %w", x.Name, err)
			}
		}
	}
	return nil
}
