package graph

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// WithTokenRows returns a tower whose graph has the input "token_rows" [R,D]: rows of the token
// table that are learned, as in textual inversion (Gal et al. 2022), one for each of the given
// ids. Ids at or above the table's length V are new words, others are overwritten. All else that
// the graph reads off the ids, such as where the text ends, takes a learned word for an ordinary one.
func (t *TextTower) WithTokenRows(ids []int64) (_ *TextTower, err error) {
	defer recoverBail(&err)
	if len(ids) == 0 || slices.Min(ids) < 0 || len(slices.Compact(slices.Sorted(slices.Values(ids)))) < len(ids) {
		return nil, errs.New(errs.Invalid, "learned token ids %v: one or more, none negative and none twice, are possible", ids)
	}
	g, to := t.Graph.CloneMap()
	in, word := to[t.IDs], t.ordinaryID(ids)
	s := newSurgery(g, in)
	s.at = 0
	one := s.op("Equal", nil, s.op("Unsqueeze", nil, in, s.ints(-1)), s.g.integers("const", in.Type, ids, int64(len(ids))))
	one = s.op("Cast", map[string]Attr{"to": {int64(t.Embedding.Type)}}, one)
	learned := s.op("Cast", map[string]Attr{"to": {int64(Bool)}}, s.op("ReduceSum", map[string]Attr{"keepdims": {int64(1)}}, one, s.ints(-1)))
	ordinary := s.op("Where", nil, s.op("Squeeze", nil, learned, s.ints(-1)), s.g.integers("const", in.Type, []int64{word}, 1), in)
	g.replaceUses(in, ordinary, s.at)

	rows := s.input("token_rows", Float, Shape{Known(int64(len(ids))), Known(int64(t.Width))})
	embedding := to[t.Embedding]
	s.at = g.position(embedding) + 1
	rows = s.cast(rows, t.Embedding.Type)
	chosen := s.op("Where", nil, learned, s.op("MatMul", nil, one, rows), embedding)
	chosen.Type = t.Embedding.Type
	g.replaceUses(embedding, chosen, s.at)

	n := *t
	n.Graph, n.Output, n.Embedding, n.original = g, g.Outputs[0], chosen, nil
	for _, v := range []**Value{&n.IDs, &n.Mask, &n.Segments, &n.Positions, &n.Table, &n.end} {
		*v = to[*v]
	}
	n.Blocks = make([]*Value, len(t.Blocks))
	for i, b := range t.Blocks {
		if n.Blocks[i] = to[b]; b == t.Embedding {
			n.Blocks[i] = chosen
		}
	}
	return &n, finish(g)
}

// Placeholder is an id that may stand where context is put: that of an ordinary word, which the graph
// takes neither for a text's end nor for padding.
func (t *TextTower) Placeholder() int64 { return t.ordinaryID(nil) }

// ordinaryID is a row of the token table that the graph compares no id with and that is not to
// be learned: the first such from the middle on, since what marks a text's start, end or padding
// lies at either end.
func (t *TextTower) ordinaryID(learned []int64) int64 {
	taken := t.comparedIDs()
	for _, id := range learned {
		taken[id] = true
	}
	rows, _ := t.Table.Shape[0].Int()
	id := rows / 2
	for taken[id] && id < rows-1 {
		id++
	}
	return id
}

// comparedIDs are the numbers that the graph compares the ids, or what follows from them but for
// their embeddings, with; among them those that mark a text's end or padding.
func (t *TextTower) comparedIDs() map[int64]bool {
	taken, on := map[int64]bool{}, map[*Value]bool{t.IDs: true}
	for _, n := range t.Graph.Nodes {
		if n.Op == "Shape" || n.Op == "Size" || !slices.ContainsFunc(n.Inputs, func(v *Value) bool { return on[v] }) {
			continue
		}
		for _, v := range n.Inputs {
			if v != nil && v.Const != nil && !v.Type.IsFloat() && v.Const.Len() == 1 {
				if x, err := integersOf(v.Const); err == nil {
					taken[x[0]] = true
				}
			}
		}
		for _, v := range n.Outputs {
			on[v] = v != nil && !(n.Op == "Gather" && isTable(n.Inputs[0]))
		}
	}
	return taken
}

// integersOf are the elements of an int64 or int32 tensor.
func integersOf(t *Tensor) ([]int64, error) {
	if t.Type != Int32 {
		return Values[int64](t)
	}
	small, err := Values[int32](t)
	out := make([]int64, len(small))
	for i, x := range small {
		out[i] = int64(x)
	}
	return out, err
}
