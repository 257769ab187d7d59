package caption

import (
	"context"
	"maps"
	"slices"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
)

// rows are the texts of a group as the decoder has them: a [decode.Model].
type rows struct {
	*group
	states *graph.Tensor   // what cross attention looks at, [B,N,E], by request; nil where there is none
	prefix *graph.Tensor   // [B,P,D], by request; nil for none
	pairs  []*graph.Tensor // keys and values in turn, [B,H,P,d], by request

	ids    [][]int64                // of each row, its opening among them
	owners []int                    // which request each row belongs to
	past   []cached                 // by layer of the decoder, of each row; nil where none is kept
	length int                      // places in the past
	ahead  map[string]*graph.Tensor // what steps take of the encoder's output, by request
	seen   map[string]*graph.Tensor // all that steps take of it, of each row
	of     []int                    // whose rows seen has
}

// cached are the keys and values of one attention, [R,H,T,d].
type cached struct{ key, value *graph.Tensor }

// Start runs the decoder on the openings, and keeps their keys and values where that can be gone on from.
func (r *rows) Start(ctx context.Context) ([]float32, error) {
	return r.whole(ctx)
}

// Next runs it on one more token a row.
func (r *rows) Next(ctx context.Context, from []int, tokens []int64) ([]float32, error) {
	ids, owners := make([][]int64, len(from)), make([]int, len(from))
	for i, f := range from {
		ids[i], owners[i] = append(slices.Clone(r.ids[f]), tokens[i]), r.owners[f]
	}
	r.ids, r.owners = ids, owners
	if r.past == nil {
		return r.whole(ctx)
	}
	var err error
	for i := range r.past {
		if r.past[i].key, err = pick(r.past[i].key, from); err != nil {
			return nil, err
		}
		if r.past[i].value, err = pick(r.past[i].value, from); err != nil {
			return nil, err
		}
	}
	return r.one(ctx, tokens)
}

// whole runs the decoder on all there is of each text.
func (r *rows) whole(ctx context.Context) ([]float32, error) {
	v := variant{part: firstPart, prefix: r.shape.prefix, pairs: r.shape.pairs, unplaced: r.unplaced()}
	filled := takesPast(r.Decoder)
	if filled {
		v.pairs = 0 // they are its past
	}
	ids := r.ids
	if len(ids[0]) == 0 { // the logits are those at the prefix's last place; a token behind it changes nothing before
		v.kept = true
		ids = slices.Repeat([][]int64{{r.Pad()}}, len(ids))
	}
	s, err := r.session(v)
	if err != nil {
		return nil, err
	}
	in := &feed{session: s, in: map[string]*graph.Tensor{}}
	behind := 0
	if filled {
		behind = r.shape.pairs
	}
	in.tokens(r.Decoder, ids, behind)
	if err := r.condition(in, filled); err != nil {
		return nil, err
	}
	out, err := s.Run(ctx, in.in)
	if err != nil {
		return nil, err
	}
	if r.past == nil && r.continues() {
		if err := r.keep(out, len(ids[0])); err != nil {
			return nil, err
		}
	}
	if v.kept {
		return place(out[logitsOutput], r.shape.prefix-1)
	}
	return place(out[logitsOutput], -1)
}

// unplaced is how many keys and values stand before the texts at no place.
func (r *rows) unplaced() int {
	if r.shape.unplaced {
		return r.shape.pairs
	}
	return 0
}

// condition feeds what rows are steered by.
func (r *rows) condition(in *feed, filled bool) (err error) {
	if err := r.look(in, r.Decoder); err != nil {
		return err
	}
	if r.prefix != nil {
		if in.in["prefix"], err = pick(r.prefix, r.owners); err != nil {
			return err
		}
	}
	n := 0
	for _, l := range r.Decoder.Layers {
		if l.Cross {
			continue
		}
		names := []string{keyName(n), valueName(n)}
		if filled {
			names = []string{l.PastKey.Name, l.PastValue.Name}
		}
		for j, name := range names {
			switch {
			case r.pairs != nil:
				if in.in[name], err = pick(r.pairs[2*n+j], r.owners); err != nil {
					return err
				}
			case filled:
				in.in[name] = graph.NewTensor([]float32{}, int64(len(r.ids)), int64(l.Heads), 0, int64(l.HeadWidth))
			}
		}
		n++
	}
	return nil
}

// look feeds what cross attention looks at.
func (r *rows) look(in *feed, t *graph.DecoderTower) (err error) {
	if r.states == nil {
		return nil
	}
	if t.Encoder != nil && in.takes(t.Encoder) {
		if in.in[t.Encoder.Name], err = pick(r.states, r.owners); err != nil {
			return err
		}
	}
	if t.EncoderMask != nil {
		n := r.states.Dims[1]
		in.put(t.EncoderMask, slices.Repeat([]int64{1}, len(r.ids)*int(n)), int64(len(r.ids)), n)
	}
	return nil
}

// lookAgain feeds a step what it takes of the encoder's output, picked anew only where rows have changed hands.
func (r *rows) lookAgain(ctx context.Context, in *feed) (err error) {
	if r.ahead == nil && r.group.ahead != nil {
		s, err := r.session(variant{part: aheadPart, unplaced: r.unplaced()})
		if err != nil {
			return err
		}
		if r.ahead, err = s.Run(ctx, map[string]*graph.Tensor{r.step.Encoder.Name: r.states}); err != nil {
			return err
		}
	}
	if r.seen == nil || !slices.Equal(r.of, r.owners) {
		now := &feed{session: in.session, in: map[string]*graph.Tensor{}}
		if err := r.look(now, r.step); err != nil {
			return err
		}
		for name, t := range r.ahead {
			if now.in[name], err = pick(t, r.owners); err != nil {
				return err
			}
		}
		r.seen, r.of = now.in, r.owners
	}
	maps.Copy(in.in, r.seen)
	return nil
}

// continues says whether the keys and values of the first step can be gone on from.
func (r *rows) continues() bool {
	return r.step != nil && !r.shape.uncached && r.Decoder.LeadsTo(r.step)
}

// keep takes the keys and values of the first step. Where a token was put behind an empty opening, its are left out.
func (r *rows) keep(out map[string]*graph.Tensor, tokens int) (err error) {
	r.length = r.shape.pairs + r.shape.prefix + tokens
	if r.shape.opening == 0 {
		r.length -= tokens
	}
	r.past = make([]cached, len(r.step.Layers))
	for i, l := range r.step.Layers {
		if l.PastKey == nil {
			continue
		}
		first := r.Decoder.Layers[i]
		r.past[i] = cached{out[first.PresentKey.Name], out[first.PresentValue.Name]}
		if l.Cross {
			continue
		}
		if r.past[i].key, err = front(r.past[i].key, r.length); err != nil {
			return err
		}
		if r.past[i].value, err = front(r.past[i].value, r.length); err != nil {
			return err
		}
	}
	return nil
}

// one runs the decoder on a token a row, behind the past.
func (r *rows) one(ctx context.Context, tokens []int64) ([]float32, error) {
	s, err := r.session(variant{part: stepPart, unplaced: r.unplaced()})
	if err != nil {
		return nil, err
	}
	ids := make([][]int64, len(tokens))
	for i, t := range tokens {
		ids[i] = []int64{t}
	}
	in := &feed{session: s, in: map[string]*graph.Tensor{}}
	in.tokens(r.step, ids, r.length)
	if err := r.lookAgain(ctx, in); err != nil {
		return nil, err
	}
	for i, l := range r.step.Layers {
		if l.PastKey != nil {
			in.in[l.PastKey.Name], in.in[l.PastValue.Name] = r.past[i].key, r.past[i].value
		}
	}
	out, err := s.Run(ctx, in.in)
	if err != nil {
		return nil, err
	}
	for i, l := range r.step.Layers {
		if l.PresentKey != nil && l.PastKey != nil {
			r.past[i] = cached{out[l.PresentKey.Name], out[l.PresentValue.Name]}
		}
	}
	r.length++
	return place(out[logitsOutput], -1)
}

// feed gathers a session's inputs.
type feed struct {
	session *ort.Session
	in      map[string]*graph.Tensor
}

func (f *feed) takes(v *graph.Value) bool {
	return slices.ContainsFunc(f.session.Inputs(), func(in *graph.Value) bool { return in.Name == v.Name })
}

// tokens feeds ids [R,S] behind past places, with a mask of ones and their positions.
func (f *feed) tokens(t *graph.DecoderTower, ids [][]int64, past int) {
	rows, n := int64(len(ids)), int64(len(ids[0]))
	var places []int64
	for range ids {
		for i := range ids[0] {
			places = append(places, int64(past+i))
		}
	}
	f.put(t.IDs, slices.Concat(ids...), rows, n)
	f.put(t.Positions, places, rows, n)
	f.put(t.Mask, slices.Repeat([]int64{1}, int(rows)*(past+int(n))), rows, int64(past)+n)
}

// put feeds whole numbers in the type that the input has; nil takes none.
func (f *feed) put(v *graph.Value, values []int64, dims ...int64) {
	if v != nil && f.takes(v) {
		f.in[v.Name] = graph.Integers(values, v.Type, dims...)
	}
}

// pick returns rows of a tensor; itself, where they are all of them in order, or it is nil.
func pick(t *graph.Tensor, rows []int) (*graph.Tensor, error) {
	if t == nil {
		return nil, nil
	}
	same := int64(len(rows)) == t.Dims[0]
	for i, r := range rows {
		same = same && r == i
	}
	if same {
		return t, nil
	}
	b, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	size := len(b) / int(t.Dims[0])
	data := make([]byte, 0, size*len(rows))
	for _, r := range rows {
		data = append(data, b[r*size:(r+1)*size]...)
	}
	return graph.NewTensorBytes(t.Type, data, append([]int64{int64(len(rows))}, t.Dims[1:]...)...)
}

// front leaves the first n places of keys or values [R,H,T,d].
func front(t *graph.Tensor, n int) (*graph.Tensor, error) {
	if t.Dims[2] == int64(n) {
		return t, nil
	}
	b, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	heads, width := int(t.Dims[0]*t.Dims[1]), int(t.Dims[3])*t.Type.Size()
	whole := int(t.Dims[2]) * width
	data := make([]byte, 0, heads*n*width)
	for h := range heads {
		data = append(data, b[h*whole:][:n*width]...)
	}
	return graph.NewTensorBytes(t.Type, data, t.Dims[0], t.Dims[1], int64(n), t.Dims[3])
}

// place takes the logits at one place of [R,S,V], [R,V]; -1 is the last.
func place(logits *graph.Tensor, at int) ([]float32, error) {
	all, err := graph.Float32s(logits)
	if err != nil {
		return nil, err
	}
	rows, n, v := int(logits.Dims[0]), int(logits.Dims[1]), int(logits.Dims[2])
	if at < 0 {
		at += n
	}
	out := make([]float32, 0, rows*v)
	for r := range rows {
		out = append(out, all[(r*n+at)*v:][:v]...)
	}
	return out, nil
}
