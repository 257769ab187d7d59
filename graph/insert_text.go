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
	Blocks    []*Value
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
}

// FindTextTower looks for the insertion points of the encoder that computes the output.
// An encoder where context can't enter is refused with the reason, kind [errs.Unsupported].
func FindTextTower(g *Graph, output string) (t *TextTower, err error) {
	defer recoverBail(&err)
	only, err := g.Only(output)
	if err != nil {
		return nil, err
	}
	unfolded := only.Clone()
	if err := only.Fold(); err != nil {
		return nil, err
	}
	t = &TextTower{Graph: only, Output: only.Outputs[0]}
	if err := t.findTable(); err != nil {
		return nil, err
	}
	t.open(unfolded)
	if err := t.findBlocks(); err != nil {
		return nil, err
	}
	if err := t.findTokenAxis(); err != nil {
		return nil, err
	}
	if t.Window = t.findWindow(); t.limit > 0 && (t.Window == 0 || t.limit < t.Window) {
		t.Window = t.limit
	}
	t.findSegments()
	t.Trims = t.findTrims()
	t.original = unfolded
	return t, nil
}

// findBlocks finds where blocks begin and where the last one's attention ends.
func (t *TextTower) findBlocks() error {
	all := segments(t.Graph, t.Embedding)
	last := -1
	for i, s := range all {
		if s.isBlock() {
			t.Blocks, last = append(t.Blocks, s.cut), i
		}
	}
	if last < 0 {
		return unpromptable("no transformer block follows the token embeddings %q", t.Embedding.Name)
	}
	t.end = t.Output
	if last+1 < len(all) {
		t.end = all[last+1].cut
	}
	if !t.end.Shape.Equal(all[last].cut.Shape) {
		t.end = nil
	}
	return nil
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

// lookUp is a table's Gather by a graph input's integers.
type lookUp struct {
	node  *Node
	input *Value // [B,S]
	rows  int
}

// lookUps finds the Gathers of 2-D float tables by graph inputs themselves: positions are
// looked up by other integers, though these may follow from the ids.
func (t *TextTower) lookUps() []lookUp {
	var out []lookUp
	for _, n := range t.Graph.Nodes {
		if n.Op != "Gather" || !isTable(n.Inputs[0]) || len(n.Outputs[0].Shape) != 3 {
			continue
		}
		input := t.spelled(n.Inputs[1])
		if rows, ok := n.Inputs[0].Shape[0].Int(); ok && input != nil {
			out = append(out, lookUp{n, input, int(rows)})
		}
	}
	return out
}

// findTable finds the token table: where further inputs are looked up, such as segment ids, it
// is the longest.
func (t *TextTower) findTable() error {
	longest, looked := lookUp{}, map[*Value]bool{}
	for _, l := range t.lookUps() {
		looked[l.input] = true
		if l.rows > longest.rows {
			longest = l
		}
	}
	if longest.node == nil {
		return unpromptable("no look-up of token ids [batch,sequence] in a table was found")
	}
	t.IDs, t.Table, t.Embedding = longest.input, longest.node.Inputs[0], longest.node.Outputs[0]
	width, ok := t.Table.Shape[1].Int()
	if !ok {
		return unpromptable("the token table %q has shape %s", t.Table.Name, t.Table.Shape)
	}
	t.Width = int(width)
	for _, in := range t.Graph.Inputs {
		if len(in.Shape) == 2 && !looked[in] {
			t.Mask = in
		}
	}
	return nil
}

// mostSegments is how many token types a table may have that is not taken for one of positions.
const mostSegments = 16

// findSegments tells token types from positions, among the other inputs that are looked up.
func (t *TextTower) findSegments() {
	for _, l := range t.lookUps() {
		switch {
		case l.input == t.IDs:
		case l.rows > mostSegments:
			t.Positions = l.input
		default:
			t.Segments = l.input
		}
	}
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
	return longestText(t.Graph, t.Embedding, t.Blocks[0], t.Table, t.Width)
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
