package graph

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// TextTower is a text encoder and where context tokens can enter it, found from the graph.
type TextTower struct {
	Graph  *Graph // computes the one output
	IDs    *Value // token ids [B,S], int64 or int32
	Mask   *Value // attention mask [B,S]; nil when the graph takes none
	Output *Value
	// Embedding is the rows of the token table, before positions are added: [B,S,D].
	Embedding *Value
	Table     *Value // [V,D]
	Width     int    // D
	Window    int    // the longest text, from the position table
	Blocks    []*Value
	// TokenAxis is the axis of Blocks that carries the tokens.
	TokenAxis int
}

// FindTextTower looks for the insertion points of the encoder that computes the output.
// An encoder where context can't enter is refused with the reason, kind [errs.Unsupported].
func FindTextTower(g *Graph, output string) (t *TextTower, err error) {
	defer recoverBail(&err)
	only, err := g.Only(output)
	if err != nil {
		return nil, err
	}
	if err := only.Fold(); err != nil {
		return nil, err
	}
	t = &TextTower{Graph: only, Output: only.Outputs[0]}
	if err := t.findTable(); err != nil {
		return nil, err
	}
	t.Blocks = blockInputs(only, t.Embedding)
	if len(t.Blocks) == 0 {
		return nil, unpromptable("no transformer block follows the token embeddings %q", t.Embedding.Name)
	}
	if err := t.findTokenAxis(); err != nil {
		return nil, err
	}
	t.Window = t.findWindow()
	return t, nil
}

// findTokenAxis reads which axis of the blocks' inputs carries the tokens off their shapes.
// Where batch and sequence are of one fixed size, every Transpose of the first two axes on
// the way swaps them.
func (t *TextTower) findTokenAxis() error {
	e, b := t.Embedding.Shape, t.Blocks[0].Shape
	if len(b) != 3 || !b[2].Equal(e[2]) {
		return unpromptable("the first block's input %q has shape %s, the tokens %s", t.Blocks[0].Name, b, e)
	}
	switch same := b[0].Equal(e[0]) && b[1].Equal(e[1]); {
	case same && !e[0].Equal(e[1]), e[0].Equal(e[1]) && !t.transposed():
		t.TokenAxis = 1
	case b[0].Equal(e[1]) && b[1].Equal(e[0]):
		t.TokenAxis = 0
	default:
		return unpromptable("the first block's input %q has shape %s, the tokens %s", t.Blocks[0].Name, b, e)
	}
	return nil
}

// transposed says whether batch and sequence change places between embedding and blocks.
func (t *TextTower) transposed() bool {
	swapped := false
	for _, s := range segments(t.Graph, t.Embedding) {
		if s.cut == t.Blocks[0] {
			break
		}
		for _, n := range s.nodes {
			if n.Op == "Transpose" && slices.Equal(permutation(n, len(n.Inputs[0].Shape)), []int64{1, 0, 2}) {
				swapped = !swapped
			}
		}
	}
	return swapped
}

// findTable finds the Gather of a 2-D float table by the ids themselves: positions are looked
// up by other integers, though these may follow from the ids. Where further inputs are looked
// up, such as segment ids, the token table is the longest.
func (t *TextTower) findTable() error {
	rows, looked := 0, map[*Value]bool{}
	for _, n := range t.Graph.Nodes {
		if n.Op != "Gather" || !isTable(n.Inputs[0]) || len(n.Outputs[0].Shape) != 3 {
			continue
		}
		ids := t.spelled(n.Inputs[1])
		looked[ids] = true
		table := n.Inputs[0].Shape
		k, ok1 := table[0].Int()
		width, ok2 := table[1].Int()
		if ids != nil && ok1 && ok2 && int(k) > rows {
			rows = int(k)
			t.IDs, t.Table, t.Embedding, t.Width = ids, n.Inputs[0], n.Outputs[0], int(width)
		}
	}
	if t.Embedding == nil {
		return unpromptable("no look-up of token ids [batch,sequence] in a table was found")
	}
	for _, in := range t.Graph.Inputs {
		if len(in.Shape) == 2 && !looked[in] {
			t.Mask = in
		}
	}
	return nil
}

// spelled returns the integer input [batch,sequence] whose elements v holds, only
// rearranged; nil when there is none.
func (t *TextTower) spelled(v *Value) *Value {
	for v.Def != nil && slices.Contains([]string{"Cast", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Clip"}, v.Def.Op) {
		v = v.Def.Inputs[0]
	}
	if v.Def != nil || v.IsConst() || v.Type.IsFloat() || len(v.Shape) != 2 {
		return nil
	}
	return v
}

// isTable says whether v is a constant of two axes, perhaps cast to another type.
func isTable(v *Value) bool {
	for v.Const == nil && v.Def != nil && (v.Def.Op == "Cast" || v.Def.Op == "Identity") {
		v = v.Def.Inputs[0]
	}
	return v.Const != nil && v.Type.IsFloat() && len(v.Const.Dims) == 2
}

// findWindow reads the position table's length: of the tables that are added to the
// embeddings before the first block, the longest.
func (t *TextTower) findWindow() int {
	if s, ok := t.IDs.Shape[1].Int(); ok {
		return int(s)
	}
	window := 0
	for _, s := range segments(t.Graph, t.Embedding) {
		if s.cut == t.Blocks[0] {
			break
		}
		for _, n := range s.nodes {
			for i := range n.Inputs {
				if n.Op == "Add" && s.active[n.Inputs[1-i]] && !s.active[n.Inputs[i]] {
					window = max(window, tableRows(n.Inputs[i], t.Width, 0))
				}
			}
		}
	}
	return window
}

// tableRows looks upstream of v for a constant [rows,width] or [1,rows,width].
func tableRows(v *Value, width, depth int) int {
	if v == nil || depth > 16 {
		return 0
	}
	if v.Const != nil {
		d := v.Const.Dims
		if k := len(d); k >= 2 && v.Type.IsFloat() && d[k-1] == int64(width) {
			return int(d[k-2])
		}
		return 0
	}
	if v.Def == nil {
		return 0
	}
	return tableRows(v.Def.Input(0), width, depth+1)
}

// ContextOptions says which context [TextTower.WithContext] adds.
type ContextOptions struct {
	Tokens int // M >= 1
	// Start is the position of the first context token; 1, after the start token, is usual.
	Start int
	// Depth is the number of blocks that get context of their own; 1 is shallow.
	Depth int
	// PerRow makes the context [batch,M,D]; otherwise it is [1,M,D], for all rows.
	PerRow bool
	// Bank makes the context [prompts,M,D]; the input "context_index", int64 [batch], says which
	// of them each row gets.
	Bank bool
}

// WithContext returns a graph with the inputs "context.0" .. "context.{Depth-1}". The first
// replaces the embeddings of the tokens at Start..Start+M-1, to which positions are
// still added (CoOp); each other one overwrites the same slots at its block (MaPLe). The ids
// at those places are placeholders, so that the text keeps its length and its end.
func (t *TextTower) WithContext(o ContextOptions) (_ *Graph, err error) {
	defer recoverBail(&err)
	if o.Tokens < 1 || o.Start < 0 || o.Depth < 1 || o.Depth > len(t.Blocks) {
		return nil, errs.New(errs.Invalid, "%d context tokens to depth %d: 1 or more, and depth 1 to %d, are possible", o.Tokens, o.Depth, len(t.Blocks))
	}
	if t.Window > 0 && o.Start+o.Tokens+1 > t.Window {
		return nil, errs.New(errs.Invalid, "%d context tokens from position %d do not fit the text window of %d", o.Tokens, o.Start, t.Window)
	}
	of, err := ownerOf(o.PerRow, o.Bank)
	if err != nil {
		return nil, err
	}
	g, to := t.Graph.CloneMap()
	embedding, start, m := to[t.Embedding], int64(o.Start), int64(o.Tokens)
	s := newSurgery(g, embedding)
	s.splice(embedding, 1, start, m, s.prompt("context.0", m, int64(t.Width), of))
	for i := 1; i < o.Depth; i++ {
		p := s.prompt(PromptName("context", i), m, int64(t.Width), of)
		if t.TokenAxis == 0 {
			p = s.op("Transpose", map[string]Attr{"perm": {[]int64{1, 0, 2}}}, p)
		}
		s.splice(to[t.Blocks[i]], t.TokenAxis, start, m, p)
	}
	return g, finish(g)
}

// Embeddings returns the token table's rows for ids, one after the other: [len(ids),D].
func (t *TextTower) Embeddings(ids []int64) ([]float32, error) {
	table := t.Table
	for table.Const == nil {
		table = table.Def.Inputs[0]
	}
	rows := table.Const.Dims[0]
	out := make([]float32, 0, len(ids)*t.Width)
	for _, id := range ids {
		if id < 0 || id >= rows {
			return nil, errs.New(errs.Invalid, "token id %d: the table has %d rows", id, rows)
		}
		row, err := Float32s(table.Const.row(id))
		if err != nil {
			return nil, err
		}
		out = append(out, row...)
	}
	return out, nil
}
