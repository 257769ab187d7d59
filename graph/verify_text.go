package graph

import (
	"maps"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// Verify runs the tower on texts of random words to see that context enters as it should. At each
// of two numbers of tokens, one at the first block and up to three at every block:
//
//   - no context leaves the output as it was, and that is the output of the graph as exported;
//   - embeddings that the tower itself makes of a text's tokens change nothing where they are put in
//     these tokens' place, or inserted beside one of their kind;
//   - other context changes the output, each of its tokens at each block, to something finite;
//   - a row with context of its own comes out as if all rows had it, also from a bank;
//   - what follows the last block reads the text without inserted tokens, and, where tokens are
//     averaged, without those that took the place of others;
//   - texts may be as long as [TextTower.Lengths] says and, where [TextTower.Trims], be cut behind
//     their end;
//   - learned rows of the token table that are its own change nothing.
//
// What does not hold is an error of kind [errs.Unsupported] that says so.
func (t *TextTower) Verify(run Runner) (err error) {
	defer recoverBail(&err)
	v, err := newTextCheck(t, run)
	if err != nil {
		return err
	}
	few, many := contextCount{1, 1}, contextCount{v.most, len(t.Blocks)}
	for _, check := range []func() error{
		v.asExported,
		func() error { return v.nothing(few) }, func() error { return v.nothing(many) },
		func() error { return v.own(few) }, func() error { return v.own(many) },
		v.others, v.rowsAlone,
		func() error { return v.inserted(few) }, func() error { return v.inserted(many) },
		func() error { return v.leftOut(few) }, func() error { return v.leftOut(many) },
		v.trimmed, v.tokenRows,
	} {
		if err := check(); err != nil {
			return errs.New(errs.Of(err), "text tower: %w", err)
		}
	}
	return nil
}

// textCheck is a text tower under test.
type textCheck struct {
	*checker
	*texts
	t      *TextTower
	most   int                  // context tokens, of the two numbers the larger
	text   textIDs              // a batch of texts
	plain  given                // the inputs for it
	output []float32            // the tower's, of these
	inner  map[*Value][]float32 // what the blocks read, of these, and what leaves the last one
}

// given are a graph's inputs by name.
type given = map[string]*Tensor

// contextCount is one number of context tokens and the blocks that they enter.
type contextCount struct{ tokens, depth int }

// start is where context stands: behind a text's first token.
const start = 1

func newTextCheck(t *TextTower, run Runner) (*textCheck, error) {
	c := newChecker(run, t.Graph, t.Embedding.Type)
	w, err := newTexts(t, c)
	if err != nil {
		return nil, err
	}
	v := &textCheck{checker: c, texts: w, t: t, most: min(3, w.length-3)}
	if err := v.findEnds(); err != nil {
		return nil, err
	}
	v.text = w.words(w.length, w.end)
	v.plain = w.batch(v.text)
	g, to := t.Graph.CloneMap()
	at, err := alsoGiven(g, append(throughMap(t.Blocks, to), to[t.end]))
	if err != nil {
		return nil, err
	}
	out, err := v.outputs(g, v.plain)
	if err != nil {
		return nil, err
	}
	v.output, v.inner = out[g.Outputs[0].Name], map[*Value][]float32{}
	for _, b := range append(slices.Clone(t.Blocks), t.end) {
		if b != nil {
			v.inner[b] = out[at[to[b]].Name]
		}
	}
	return v, nil
}

func throughMap(vs []*Value, to map[*Value]*Value) []*Value {
	var out []*Value
	for _, v := range vs {
		out = append(out, to[v])
	}
	return out
}

// alsoGiven makes values of a graph outputs of it, behind its own, and says which output each is.
func alsoGiven(g *Graph, values []*Value) (map[*Value]*Value, error) {
	place := map[*Value]int{}
	for i, y := range g.Outputs {
		place[y] = i
	}
	for _, v := range values {
		if _, is := place[v]; v != nil && !is {
			place[v] = len(g.Outputs)
			g.Outputs = append(g.Outputs, v)
		}
	}
	if err := finish(g); err != nil {
		return nil, err
	}
	at := map[*Value]*Value{}
	for v, i := range place {
		at[v] = g.Outputs[i]
	}
	return at, nil
}

// first runs a graph and gives its first output.
func (v *textCheck) first(g *Graph, in given) ([]float32, error) {
	out, err := v.outputs(g, in)
	if err != nil {
		return nil, err
	}
	return out[g.Outputs[0].Name], nil
}

// same says that a graph's first output has to be want; what says of which.
func (v *textCheck) same(g *Graph, in given, want []float32, what string, args ...any) error {
	got, err := v.first(g, in)
	if err != nil {
		return err
	}
	if err := v.differ(got, want); err != nil {
		return errs.New(errs.Unsupported, what+": %w", append(args, err)...)
	}
	return nil
}

// asExported compares the tower's graph, folded and with its length opened, with the exported one.
func (v *textCheck) asExported() error {
	if v.t.original == nil {
		return nil
	}
	length := v.length
	if v.t.Exported > 0 {
		length = v.t.Exported
	}
	in := v.batch(v.words(length, v.end))
	want, err := v.first(v.t.original, in)
	if err != nil {
		return err
	}
	return v.same(v.t.Graph, in, want, "the output for %d tokens is not that of the graph as exported", length)
}

// nothing puts no tokens in, for which the surgery is the same.
func (v *textCheck) nothing(n contextCount) error {
	for _, o := range []ContextOptions{{Start: start, Depth: n.depth}, {Start: start, Depth: n.depth, Insert: true, Pooled: v.t.end == nil}} {
		if o.Insert && v.t.Fixed != nil {
			continue
		}
		g, err := v.t.withContext(o)
		if err != nil {
			return err
		}
		in := maps.Clone(v.plain)
		for i := range n.depth {
			in[PromptName("context", i)] = v.noise(1, 0, int64(v.t.Width))
		}
		if err := v.same(g, in, v.output, "no context, to depth %d (inserted %v), changes the output", n.depth, o.Insert); err != nil {
			return err
		}
	}
	return nil
}

// own puts what the tower has at some places in there once more: the same places in all rows, and
// others in each.
func (v *textCheck) own(n contextCount) error {
	for _, placed := range []bool{false, true} {
		g, err := v.t.withContext(ContextOptions{Tokens: n.tokens, Start: start, Depth: n.depth, PerRow: true, Placed: placed, Pooled: true})
		if err != nil {
			return err
		}
		places := make([][]int, v.rows)
		for row := range places {
			for i := range n.tokens {
				at := start + i
				if placed {
					at = (row + 2*i) % v.length
				}
				places[row] = append(places[row], at)
			}
		}
		in, err := v.ownAt(places, n.depth)
		if err != nil {
			return err
		}
		if placed {
			in["context_at"] = placesOf(places)
		}
		if err := v.same(g, in, v.output, "%d tokens' own embeddings as context, to depth %d (at places of each row %v), change the output", n.tokens, n.depth, placed); err != nil {
			return err
		}
	}
	return nil
}

// ownAt are the texts with what the tower itself has at places of each row as context.
func (v *textCheck) ownAt(places [][]int, depth int) (given, error) {
	in, k := maps.Clone(v.plain), len(places[0])
	var ids []int64
	for row, at := range places {
		for _, i := range at {
			ids = append(ids, v.text.ids[row][i])
		}
	}
	table, err := v.t.Embeddings(ids)
	if err != nil {
		return nil, err
	}
	in[PromptName("context", 0)] = NewTensor(table, int64(v.rows), int64(k), int64(v.t.Width))
	for layer := 1; layer < depth; layer++ {
		var own []float32
		for row, at := range places {
			for _, i := range at {
				own = append(own, v.token(v.inner[v.t.Blocks[layer]], v.length, row, i)...)
			}
		}
		in[PromptName("context", layer)] = NewTensor(own, int64(v.rows), int64(k), int64(v.t.Width))
	}
	return in, nil
}

// token is one of tokens that lie as the blocks' inputs do.
func (v *textCheck) token(x []float32, length, row, i int) []float32 {
	at := row*length + i
	if v.t.TokenAxis == 0 {
		at = i*v.rows + row
	}
	width := v.t.blockWidth()
	return x[at*width : (at+1)*width]
}

func placesOf(places [][]int) *Tensor {
	var all []int64
	for _, row := range places {
		for _, i := range row {
			all = append(all, int64(i))
		}
	}
	return NewTensor(all, int64(len(places)), int64(len(places[0])))
}

// layers is context of random numbers for each block.
func (v *textCheck) layers(in given, rows, tokens, depth int) given {
	in = maps.Clone(in)
	for i := range depth {
		in[PromptName("context", i)] = v.noise(int64(rows), int64(tokens), int64(v.t.Width))
	}
	return in
}

// others changes each token of each block's context in turn: each time the output has to change.
func (v *textCheck) others() error {
	depth := len(v.t.Blocks)
	g, err := v.t.withContext(ContextOptions{Tokens: v.most, Start: start, Depth: depth})
	if err != nil {
		return err
	}
	in := v.layers(v.plain, 1, v.most, depth)
	base, err := v.first(g, in)
	if err != nil {
		return err
	}
	if len(base) != len(v.output) {
		return errs.New(errs.Unsupported, "with context the output has %d elements and not %d", len(base), len(v.output))
	}
	for layer := range depth {
		name := PromptName("context", layer)
		for i := range v.most {
			changed := maps.Clone(in)
			if changed[name], err = withRow(in[name], i, v.noise(int64(v.t.Width))); err != nil {
				return err
			}
			y, err := v.first(g, changed)
			if err != nil {
				return err
			}
			if slices.Equal(y, base) { // to the last bit: layers may start out scaled down to next to nothing
				return errs.New(errs.Unsupported, "token %d of %d of the context at block %d does not change the output", i, v.most, layer)
			}
		}
	}
	return nil
}

// withRow is x [1,K,D] with another row.
func withRow(x *Tensor, i int, row *Tensor) (*Tensor, error) {
	data, err := Values[float32](x)
	if err != nil {
		return nil, err
	}
	other, err := Values[float32](row)
	if err != nil {
		return nil, err
	}
	data = slices.Clone(data)
	copy(data[i*len(other):], other)
	return NewTensor(data, x.Dims...), nil
}

// rowsAlone compares rows that have context of their own, or choose it, with those of batches in
// which all have it.
func (v *textCheck) rowsAlone() error {
	o := ContextOptions{Tokens: v.most, Start: start, Depth: len(v.t.Blocks)}
	shared, err := v.t.withContext(o)
	if err != nil {
		return err
	}
	in := v.layers(v.plain, v.rows, v.most, o.Depth)
	index := make([]int64, v.rows)
	for i := range index {
		index[i] = int64((i + 1) % v.rows)
	}
	for _, banked := range []bool{false, true} {
		o.PerRow, o.Bank = !banked, banked
		g, err := v.t.withContext(o)
		if err != nil {
			return err
		}
		own := maps.Clone(in)
		if banked {
			own["context_index"] = NewTensor(index, int64(v.rows))
		}
		together, err := v.first(g, own)
		if err != nil {
			return err
		}
		for row := range min(v.rows, 2) {
			whose := int64(row)
			if banked {
				whose = index[row]
			}
			all := maps.Clone(v.plain)
			for i := range o.Depth {
				all[PromptName("context", i)] = in[PromptName("context", i)].Rows(whose, whose+1)
			}
			alone, err := v.first(shared, all)
			if err != nil {
				return err
			}
			if err := v.differ(v.row(together, row), v.row(alone, row)); err != nil {
				return errs.New(errs.Unsupported, "row %d with context of its own (from a bank %v) does not come out as in a batch where all rows have it: %w", row, banked, err)
			}
		}
	}
	return nil
}

// row is one row of the tower's output.
func (v *textCheck) row(y []float32, row int) []float32 {
	s := v.t.Output.Shape
	if len(s) > 1 && s[1].Equal(v.t.IDs.Shape[0]) && !s[0].Equal(v.t.IDs.Shape[0]) { // [S,B,..]
		var out []float32
		inner := len(y) / v.rows / v.length
		for i := range v.length {
			at := (i*v.rows + row) * inner
			out = append(out, y[at:at+inner]...)
		}
		return out
	}
	size := len(y) / v.rows
	return y[row*size : (row+1)*size]
}

// inserted: room is made as if the token in front of the context had been written again.
func (v *textCheck) inserted(n contextCount) error {
	if v.t.Fixed != nil {
		return nil
	}
	short := v.words(v.length-n.tokens, v.end)
	long := textIDs{}
	for _, row := range short.ids {
		long.ids = append(long.ids, slices.Insert(slices.Clone(row), start, slices.Repeat(row[start-1:start], n.tokens)...))
	}
	for _, end := range short.ends {
		long.ends = append(long.ends, end+n.tokens)
	}
	want, err := v.first(v.t.Graph, v.batch(long))
	if err != nil {
		return err
	}
	g, err := v.t.withContext(ContextOptions{Tokens: n.tokens, Start: start, Depth: 1, PerRow: true, Insert: true, Pooled: true})
	if err != nil {
		return err
	}
	in := v.batch(short)
	var ids []int64
	for _, row := range short.ids {
		ids = append(ids, slices.Repeat(row[start-1:start], n.tokens)...)
	}
	table, err := v.t.Embeddings(ids)
	if err != nil {
		return err
	}
	in[PromptName("context", 0)] = NewTensor(table, int64(v.rows), int64(n.tokens), int64(v.t.Width))
	return v.same(g, in, want, "%d tokens inserted do not come out as those tokens in the text", n.tokens)
}

// leftOut takes the context out behind the last block by hand, and compares.
func (v *textCheck) leftOut(n contextCount) error {
	if v.t.end == nil || v.t.Fixed != nil {
		return nil
	}
	head, err := v.t.head()
	if err != nil {
		return err
	}
	for _, insert := range []bool{true, false} {
		if !insert && !v.t.averages() {
			continue
		}
		long, short := v.plain, v.words(v.length, v.end)
		if insert {
			short = v.words(v.length-n.tokens, v.end)
			long = v.batch(short)
		} else {
			short = short.without(start, n.tokens)
		}
		in := v.layers(long, 1, n.tokens, n.depth)
		o := ContextOptions{Tokens: n.tokens, Start: start, Depth: n.depth, Insert: insert}
		left, err := v.t.withContext(o)
		if err != nil {
			return err
		}
		o.Pooled = true
		c, err := v.t.addContext(o)
		if err != nil {
			return err
		}
		at, err := alsoGiven(c.g, []*Value{c.to[v.t.end]})
		if err != nil {
			return err
		}
		out, err := v.outputs(c.g, in)
		if err != nil {
			return err
		}
		feeds := v.batch(short)
		feeds["tokens"] = v.cut(out[at[c.to[v.t.end]].Name], n.tokens)
		want, err := v.first(head, feeds)
		if err != nil {
			return err
		}
		if err := v.same(left, in, want, "what follows the last block does not read the text without its %d context tokens (inserted %v)", n.tokens, insert); err != nil {
			return err
		}
	}
	return nil
}

// cut takes the context's slots out of tokens that lie as the blocks' inputs do.
func (v *textCheck) cut(x []float32, k int) *Tensor {
	length := len(x) / v.rows / v.t.blockWidth()
	outer, inner := v.rows, length
	if v.t.TokenAxis == 0 {
		outer, inner = length, v.rows
	}
	var out []float32
	for i := range outer {
		for j := range inner {
			place, row := j, i
			if v.t.TokenAxis == 0 {
				place, row = i, j
			}
			if place < start || place >= start+k {
				out = append(out, v.token(x, length, row, place)...)
			}
		}
	}
	dims := []int64{int64(v.rows), int64(length - k), int64(v.t.blockWidth())}
	if v.t.TokenAxis == 0 {
		dims[0], dims[1] = dims[1], dims[0]
	}
	return NewTensor(out, dims...)
}

// head is what follows the last block: "tokens", shaped as a block's input, to the output.
func (t *TextTower) head() (*Graph, error) {
	g, to := t.Graph.CloneMap()
	end := to[t.end]
	s := newSurgery(g, end)
	tokens := s.input("tokens", Float, Shape{Sym("tokens.0"), Sym("tokens.1"), Known(int64(t.blockWidth()))})
	s.at = g.position(end) + 1
	from := s.at
	x := s.op("Cast", map[string]Attr{"to": {int64(end.Type)}}, tokens)
	x.Type = end.Type
	s.reroute(end, x, from)
	g.Prune()
	g.PruneInputs()
	return g, finish(g)
}

// trimmed runs the longest texts, with and without context, and the same ones cut behind their ends:
// of the ids that may end a text, one has to.
func (v *textCheck) trimmed() (err error) {
	if v.t.Fixed != nil {
		return nil
	}
	with, err := v.t.withContext(ContextOptions{Tokens: 1, Start: start, Depth: len(v.t.Blocks)})
	if err != nil {
		return err
	}
	for _, end := range v.ends {
		if err = v.trimmedBy(with, end); err == nil {
			return nil
		}
	}
	return err
}

// trimmedBy does so for texts that an id ends.
func (v *textCheck) trimmedBy(with *Graph, end int64) error {
	longest := v.length + 2
	if _, most := v.t.Lengths(); most > 0 {
		longest = min(most, longestTried)
	}
	short := v.words(max(4, v.length-2), end)
	padded := v.layers(v.batch(short.padded(longest, end)), 1, 1, len(v.t.Blocks))
	cut := v.batch(short)
	for i := range v.t.Blocks {
		cut[PromptName("context", i)] = padded[PromptName("context", i)]
	}
	for _, g := range []*Graph{v.t.Graph, with} {
		want, err := v.first(g, padded)
		if err != nil {
			return errs.New(errs.Unsupported, "texts of %d tokens: %w", longest, err)
		}
		if !v.t.Trims {
			continue
		}
		if err := v.same(g, cut, want, "texts that end by token %d, cut behind their end, come out otherwise than padded to %d", end, longest); err != nil {
			return err
		}
	}
	return nil
}

// tokenRows learns a word and a new one, both with the row that the first has.
func (v *textCheck) tokenRows() error {
	if v.t.original == nil {
		return nil // it has learned rows already
	}
	rows, _ := v.t.Table.Shape[0].Int()
	text := v.words(v.length, v.end)
	word := text.ids[0][start]
	with, err := v.t.WithTokenRows([]int64{word, rows})
	if err != nil {
		return err
	}
	own, err := v.t.Embeddings([]int64{word, word})
	if err != nil {
		return err
	}
	for row := range text.ids {
		text.ids[row][start], text.ids[row][start+1] = word, word
	}
	want, err := v.first(v.t.Graph, v.batch(text))
	if err != nil {
		return err
	}
	for row := range text.ids {
		text.ids[row][start+1] = rows
	}
	in := v.batch(text)
	in["token_rows"] = NewTensor(own, 2, int64(v.t.Width))
	return v.same(with.Graph, in, want, "learned rows of the token table that are its own change the output")
}
