package graph

import (
	"maps"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// longestTried bounds the length of texts that a tower is checked with, and usual is the length of most.
const (
	longestTried = 1024
	usual        = 12
)

// texts makes batches of random texts for a tower.
type texts struct {
	t      *TextTower
	rows   int
	length int     // of most texts
	end    int64   // the id that ends them
	ends   []int64 // all ids that may
	usable []int64 // ids of ordinary words, falling
	others given   // what goes into inputs that hold nothing of the text
}

// textIDs are texts of one length: each row's ids, and the place of its end.
type textIDs struct {
	ids  [][]int64
	ends []int
}

func newTexts(t *TextTower, c *checker) (*texts, error) {
	w := &texts{t: t, rows: 2, length: usual, others: given{}}
	if n, fixed := t.IDs.Shape[0].Int(); fixed {
		w.rows = int(n)
	}
	for _, v := range t.Graph.Inputs {
		w.others[v.Name] = c.filler(v, w.rows)
	}
	shortest, longest := t.Lengths()
	if longest > 0 {
		w.length = min(max(usual, shortest), longest)
	}
	if w.length < 5 {
		return nil, unpromptable("the text tower can't be checked: it takes texts of %d tokens, and 5 are needed", w.length)
	}
	rows, _ := t.Table.Shape[0].Int()
	special := t.comparedIDs()
	for id := rows - 2; id >= 0; id-- {
		if !special[id] {
			w.usable = append(w.usable, id)
		}
	}
	if len(w.usable) < 2 {
		return nil, unpromptable("the text tower can't be checked: its token table %q has %d rows", t.Table.Name, rows)
	}
	w.ends = []int64{rows - 1}
	for id := range rows - 1 {
		if special[id] {
			w.ends = append(w.ends, id)
		}
	}
	return w, nil
}

// words are texts of falling ids, so that none but an end is the largest behind a text's start; every other row is
// one token shorter and padded by the end's id.
func (w *texts) words(length int, end int64) textIDs {
	var out textIDs
	for row := range w.rows {
		ids := make([]int64, length)
		at := length - 1 - row%2
		for i := range ids {
			if ids[i] = end; i < at {
				ids[i] = w.usable[(i*max(1, min(len(w.usable)/length, 97))+row)%len(w.usable)]
			}
		}
		out.ids, out.ends = append(out.ids, ids), append(out.ends, at)
	}
	return out
}

// padded is the texts made longer by one id.
func (x textIDs) padded(length int, by int64) textIDs {
	var out textIDs
	for _, row := range x.ids {
		out.ids = append(out.ids, append(slices.Clone(row), slices.Repeat([]int64{by}, max(0, length-len(row)))...))
	}
	out.ends = x.ends
	return out
}

// without is the texts without k tokens from a place on.
func (x textIDs) without(from, k int) textIDs {
	var out textIDs
	for i, row := range x.ids {
		out.ids = append(out.ids, slices.Delete(slices.Clone(row), from, from+k))
		out.ends = append(out.ends, x.ends[i]-k)
	}
	return out
}

// batch are a graph's inputs for the texts: masks are 1 up to each one's end, token types 0.
func (w *texts) batch(x textIDs) given {
	length := len(x.ids[0])
	dims := []int64{int64(w.rows), int64(length)}
	in := given{}
	put := func(v *Value, of func(row, i int) int64) {
		if v == nil {
			return
		}
		var all []int64
		for row := range w.rows {
			for i := range length {
				all = append(all, of(row, i))
			}
		}
		in[v.Name] = Integers(all, v.Type, dims...)
	}
	maps.Copy(in, w.others)
	put(w.t.IDs, func(row, i int) int64 { return x.ids[row][i] })
	put(w.t.Mask, func(row, i int) int64 {
		if i <= x.ends[row] {
			return 1
		}
		return 0
	})
	put(w.t.Segments, func(int, int) int64 { return 0 })
	put(w.t.Positions, func(_, i int) int64 { return int64(i) })
	return in
}

// findEnds finds ids that end texts: the output depends on the first and the last word in front of them. Of a tower that
// picks its output at the end of the text, another id makes some other token the output.
func (v *textCheck) findEnds() error {
	var found []int64
	for _, end := range v.ends {
		depends, err := v.endsText(end)
		if err != nil {
			return err
		}
		if depends {
			found = append(found, end)
		}
	}
	if len(found) == 0 {
		return errs.New(errs.Unsupported, "text tower: no text was found whose words all change the output %q; ids that may end one: %d", v.t.Output.Name, v.ends)
	}
	v.ends, v.end = found, found[0]
	return nil
}

// endsText says whether both the first and the last word in front of an id change the output.
func (v *textCheck) endsText(end int64) (bool, error) {
	text := v.words(v.length, end)
	want, err := v.first(v.t.Graph, v.batch(text))
	if err != nil {
		return false, err
	}
	for _, last := range []bool{false, true} {
		changed := textIDs{ends: text.ends}
		for row, ids := range text.ids {
			ids, at, k := slices.Clone(ids), start, len(v.usable)-1
			if last {
				at = text.ends[row] - 1
			}
			if v.usable[k] == ids[at] {
				k--
			}
			ids[at] = v.usable[k]
			changed.ids = append(changed.ids, ids)
		}
		y, err := v.first(v.t.Graph, v.batch(changed))
		if err != nil || slices.Equal(y, want) {
			return false, err
		}
	}
	return true, nil
}
