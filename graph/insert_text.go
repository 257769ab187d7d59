package graph

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// TextTower is a text encoder and where context tokens can enter it, found from the graph.
type TextTower struct {
	Graph *Graph // computes the one output
	IDs   *Value // token ids [B,S], int64 or int32
	Mask  *Value // attention mask [B,S]; nil when the graph takes none
	// Segments are token types [B,S] and Positions position ids [B,S]; nil when the graph takes none.
	Segments, Positions *Value
	Output              *Value
	// Embedding is the rows of the token table, before positions are added: [B,S,D].
	Embedding *Value
	Table     *Value // [V,D]
	Width     int    // D
	Window    int    // the longest text, from the position table; 0 where there is no limit
	// Blocks are what context can enter: the blocks' inputs, or the first one's alone where blocks are of another width than D.
	Blocks []*Value
	// Exported is the length of text that the export was fixed to, 0 where it was open. It is
	// opened here where that can be done; [TextTower.Lengths] tells.
	Exported int
	Fixed    error // why the length could not be opened
	// Trims says that what follows a text's end changes nothing, so that a batch may be cut to its
	// longest text. Otherwise texts have to be padded as the tower was trained, to Exported where
	// that is set.
	Trims bool
	limit int // the longest text by what an opened graph holds for each place, 0 for none
	// end is where the tokens leave the last block: shaped as its input; nil when they are not
	// the only thing that does.
	end *Value
	// original is the graph as exported; nil where the tower has learned rows.
	original *Graph
	// TokenAxis is the axis of Blocks that carries the tokens.
	TokenAxis int
	// Pooling is what follows the last block; "" where that can't be told.
	Pooling Pooling
	// Start is the place of a text where context begins, where a hint says so: nil leaves it to the
	// tokenizer.
	Start *int
}

// FindTextTower looks for the insertion points of the encoder that computes the output, save for
// those that a hint names. An encoder where context can't enter is refused with the reason, kind
// [errs.Unsupported].
func FindTextTower(g *Graph, output string, hints ...TextHints) (t *TextTower, err error) {
	defer recoverBail(&err)
	var h TextHints
	if len(hints) > 0 {
		h = hints[0]
	}
	only, err := g.Only(output)
	if err != nil {
		return nil, err
	}
	unfolded := only.Clone()
	if t, err = textTowerOf(only, h); err != nil {
		return nil, err
	}
	if unfolded.shapeAlike(t.IDs.Name) {
		if t, err = textTowerOf(unfolded.Clone(), h); err != nil {
			return nil, err
		}
	}
	t.open(unfolded, h)
	for _, find := range []func(TextHints) error{t.findBlocks, t.findTokenAxis, t.findWindow, t.findInputs, t.findPooling} {
		if err := find(h); err != nil {
			return nil, err
		}
	}
	t.original = unfolded
	return t, nil
}

// textTowerOf folds the graph and finds its token table.
func textTowerOf(g *Graph, h TextHints) (*TextTower, error) {
	if err := g.Fold(); err != nil {
		return nil, err
	}
	t := &TextTower{Graph: g, Output: g.Outputs[0]}
	return t, t.findTable(h)
}

// shapeAlike gives the other inputs that hold a number for each token the symbols of the ids' axes, where they have symbols of
// their own, as tf2onnx's files do. It says whether one had.
func (g *Graph) shapeAlike(ids string) bool {
	want, changed := g.Input(ids).Shape, false
	for _, in := range g.Inputs {
		if len(in.Shape) != 2 || len(want) != 2 {
			continue
		}
		for axis, d := range in.Shape {
			if symbolic(d) && symbolic(want[axis]) && !d.Equal(want[axis]) {
				in.Shape, changed = in.Shape.with(axis, want[axis]), true
			}
		}
	}
	return changed
}

// findBlocks finds where blocks begin, and where the tokens leave the last one, or takes what is
// named.
func (t *TextTower) findBlocks(h TextHints) (err error) {
	all := segments(t.Graph, t.Embedding)
	last := -1
	for i, s := range all {
		if s.isBlock() {
			t.Blocks, last = append(t.Blocks, s.cut), i
		}
	}
	if h.Blocks != nil {
		if t.Blocks, err = blocksNamed(t.Graph, h.Blocks, t.Embedding); err != nil {
			return err
		}
		if last < 0 {
			last = cutAt(all, t.Blocks[len(t.Blocks)-1])
		}
	}
	if len(t.Blocks) == 0 {
		return unpromptable("no transformer block follows the token embeddings %q%s", t.Embedding.Name, t.Graph.unshaped())
	}
	if h.End != "" {
		t.end, err = t.endNamed(h.End, all)
		return err
	}
	t.end = t.Output
	if last+1 < len(all) {
		t.end = all[last+1].cut
	}
	if last < 0 || !t.end.Shape.Equal(t.Blocks[len(t.Blocks)-1].Shape) {
		t.end = nil
	}
	return nil
}

// findTokenAxis reads which axis of the blocks' inputs carries the tokens off their shapes.
// Where batch and sequence are of one fixed size, every Transpose of the first two axes on
// the way swaps them.
func (t *TextTower) findTokenAxis(h TextHints) error {
	e, b := t.Embedding.Shape, t.Blocks[0].Shape
	if len(b) != 3 {
		return unpromptable("the first block's input %q has shape %s, the tokens %s", t.Blocks[0].Name, b, e)
	}
	if !b[2].Equal(e[2]) { // as in ALBERT: blocks of another width take no context of their own
		t.Blocks = t.Blocks[:1]
	}
	switch same := b[0].Equal(e[0]) && b[1].Equal(e[1]); {
	case same && !e[0].Equal(e[1]), e[0].Equal(e[1]) && !t.transposed():
		t.TokenAxis = 1
	case b[0].Equal(e[1]) && b[1].Equal(e[0]):
		t.TokenAxis = 0
	default:
		return unpromptable("the first block's input %q has shape %s, the tokens %s", t.Blocks[0].Name, b, e)
	}
	return agree("token_axis", h.TokenAxis, t.TokenAxis)
}

// blockWidth is the width of the blocks' tokens.
func (t *TextTower) blockWidth() int {
	n, _ := t.Blocks[0].Shape[2].Int()
	return int(n)
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

// lookUp is a table's Gather by a graph input's integers.
type lookUp struct {
	node      *Node
	embedding *Value // what it makes, perhaps in another form
	input     *Value // [B,S]
	rows      int
}

// lookUps finds the Gathers of 2-D float tables by graph inputs themselves: positions are
// looked up by other integers, though these may follow from the ids.
func (t *TextTower) lookUps() []lookUp {
	var out []lookUp
	for _, n := range t.Graph.Nodes {
		if n.Op != "Gather" || !isTable(n.Inputs[0]) || len(n.Outputs[0].Shape) != 3 {
			continue
		}
		input := spelled(n.Inputs[1])
		if rows, ok := n.Inputs[0].Shape[0].Int(); ok && input != nil {
			out = append(out, lookUp{n, n.Outputs[0], input, int(rows)})
		}
	}
	return out
}

// findTable finds the token table: where further inputs are looked up, such as segment ids, it
// is the longest.
func (t *TextTower) findTable(h TextHints) error {
	found, err := t.tokensLookedUp(h)
	if err != nil {
		return err
	}
	t.IDs, t.Table, t.Embedding = found.input, found.node.Inputs[0], found.embedding
	width, ok := t.Table.Shape[1].Int()
	if !ok {
		return unpromptable("the token table %q has shape %s", t.Table.Name, t.Table.Shape)
	}
	t.Width = int(width)
	return nil
}

// mostSegments is how many token types a table may have that is not taken for one of positions.
const mostSegments = 16

// findInputs tells apart the other inputs [B,S]: token types and positions are looked up in tables, positions
// may become angles as well, and a mask is neither.
func (t *TextTower) findInputs(h TextHints) error {
	looked := map[*Value]bool{}
	for _, l := range t.lookUps() {
		looked[l.input] = true
		switch {
		case l.input == t.IDs:
		case l.rows > mostSegments:
			t.Positions = l.input
		default:
			t.Segments = l.input
		}
	}
	for _, in := range t.Graph.Inputs {
		switch {
		case len(in.Shape) != 2 || looked[in] || in == t.IDs:
		case becomesAngles(t.Graph, in):
			t.Positions = in
		default:
			t.Mask = in
		}
	}
	return t.takeInputs(h)
}

// becomesAngles says whether rotary positions are worked out from the input: it is multiplied by what no
// input has part in, and sines are taken.
func becomesAngles(g *Graph, input *Value) bool {
	on, varies := map[*Value]bool{input: true}, map[*Value]bool{}
	for _, in := range g.Inputs {
		for v := range carried(g, in) {
			varies[v] = true
		}
	}
	for _, n := range g.Nodes {
		i := slices.IndexFunc(n.Inputs, func(v *Value) bool { return on[v] })
		if i < 0 {
			continue
		}
		switch n.Op {
		case "Cos", "Sin":
			return true
		case "Mul", "MatMul", "Einsum":
			on[n.Outputs[0]] = !varies[n.Inputs[1-i]]
		case "Cast", "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Slice", "Concat":
			on[n.Outputs[0]] = i == 0 || n.Op == "Concat"
		}
	}
	return false
}

// spelled returns the integer input [batch,sequence] whose elements v holds, only
// rearranged; nil when there is none.
func spelled(v *Value) *Value {
	for v.Def != nil && rearranged(v.Def) != nil {
		v = rearranged(v.Def)
	}
	if v.Def != nil || v.IsConst() || v.Type.IsFloat() || len(v.Shape) != 2 {
		return nil
	}
	return v
}

// rearranged is the operand whose integers n passes on; nil where it does more.
func rearranged(n *Node) *Value {
	switch {
	case slices.Contains([]string{"Cast", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Clip"}, n.Op), takesAll(n),
		n.Op == "Expand" && n.Outputs[0].Shape.Equal(n.Inputs[0].Shape):
		return n.Inputs[0]
	case countsFromEnd(n):
		return n.Inputs[2]
	}
	return nil
}

// countsFromEnd says whether n is Where(x < 0, x + rows, x), as JAX has indices that may count from a table's end.
func countsFromEnd(n *Node) bool {
	if n.Op != "Where" {
		return false
	}
	x, below, moved := n.Inputs[2], n.Inputs[0].Def, n.Inputs[1].Def
	return below != nil && below.Op == "Less" && below.Inputs[0] == x && isZero(below.Inputs[1]) &&
		moved != nil && moved.Op == "Add" && slices.Contains(moved.Inputs, x)
}

// takesAll says whether n is a Slice that leaves its operand as it is.
func takesAll(n *Node) bool {
	if n.Op != "Slice" || !n.Outputs[0].Shape.Equal(n.Inputs[0].Shape) {
		return false
	}
	steps, ok := newInference(nil).ints(n.Input(4))
	return n.Input(4) == nil || ok && !slices.ContainsFunc(steps, func(d Dim) bool { return !d.Is(1) })
}

// isTable says whether v is a constant of two axes, perhaps cast to another type.
func isTable(v *Value) bool {
	for v.Const == nil && v.Def != nil && (v.Def.Op == "Cast" || v.Def.Op == "Identity") {
		v = v.Def.Inputs[0]
	}
	return v.Const != nil && v.Type.IsFloat() && len(v.Const.Dims) == 2
}

// findWindow finds how long a text may be: as the export fixed it, as long as the longest of the tables that are added to the
// embeddings before the first block, and no longer than an opened graph has something for.
func (t *TextTower) findWindow(h TextHints) error {
	longest := longestText(t.Graph, t.Embedding, t.Blocks[0], t.Table, t.Width)
	if h.Positioned != "" {
		var err error
		if longest, err = t.windowNamed(h.Positioned); err != nil {
			return err
		}
	}
	if s, fixed := t.IDs.Shape[1].Int(); fixed {
		longest = int(s)
	}
	if t.limit > 0 && (longest == 0 || t.limit < longest) {
		longest = t.limit
	}
	t.Window = longest
	return nil
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
