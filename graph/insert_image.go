package graph

import (
	"math"
	"slices"
	"strconv"

	"github.com/foretoken/foretoken/internal/errs"
)

// ImageTower is an image encoder and where prompts can enter it, found from the graph.
type ImageTower struct {
	Graph  *Graph // computes the one output
	Pixels *Value // [B,3,H,W]
	Output *Value
	// Insert is the tokens after position embeddings are added and class tokens joined,
	// ahead of any norm: [B,N,D].
	Insert      *Value
	ClassTokens int
	Tokens      int // N, class tokens included
	Width       int // D
	// Blocks are the inputs of the transformer blocks, the first one's first.
	Blocks []*Value
	// TokenAxis is the axis of Blocks that carries the tokens: 1 in [B,N,D], 0 in [N,B,D].
	TokenAxis int
}

// FindImageTower looks for the insertion points of the encoder that computes the output.
// An encoder where prompts can't enter is refused with the reason, kind [errs.Unsupported].
func FindImageTower(g *Graph, output string) (t *ImageTower, err error) {
	only, err := g.Only(output)
	if err != nil {
		return nil, err
	}
	if err := only.Fold(); err != nil {
		return nil, err
	}
	t = &ImageTower{Graph: only, Output: only.Outputs[0]}
	for _, v := range only.Inputs {
		if v.Type.IsFloat() && len(v.Shape) == 4 {
			t.Pixels = v
		}
	}
	if t.Pixels == nil {
		return nil, unpromptable("no input [batch,channels,height,width] leads to %q", output)
	}
	if err := t.findInsert(); err != nil {
		return nil, err
	}
	t.Blocks = blockInputs(only, t.Insert)
	if len(t.Blocks) == 0 {
		return nil, unpromptable("no transformer block (a softmax with a residual around it) follows %q", t.Insert.Name)
	}
	t.TokenAxis, err = tokenAxis(t.Blocks[0], t.Insert)
	return t, err
}

func unpromptable(format string, args ...any) error {
	return errs.New(errs.Unsupported, "prompts can't enter: "+format, args...)
}

// findInsert finds the position Add: tokens that depend on the pixels, plus a table that
// does not, with the same token axis; the last such before tokens are first mixed.
func (t *ImageTower) findInsert() error {
	on := dependents(t.Graph, t.Pixels)
	for _, n := range t.Graph.Nodes {
		if n.Op == "Softmax" || n.Op == "Attention" {
			break
		}
		if v := n.Outputs[0]; n.Op == "Add" && len(v.Shape) == 3 && isPositionAdd(n, on) {
			t.Insert = v
		}
	}
	if t.Insert == nil {
		return unpromptable("no Add of a position table to the image's tokens was found")
	}
	before := t.joinBefore(t.Insert.Def, on)
	if after := t.joinAfter(on); after > 0 {
		before = after
	}
	t.ClassTokens = before
	tokens, ok1 := t.Insert.Shape[1].Int()
	width, ok2 := t.Insert.Shape[2].Int()
	if !ok1 || !ok2 {
		return unpromptable("the tokens' shape %s at %q depends on the run", t.Insert.Shape, t.Insert.Name)
	}
	t.Tokens, t.Width = int(tokens), int(width)
	return nil
}

// isPositionAdd: one operand depends on the input, the other does not and is as long
// along the token axis.
func isPositionAdd(n *Node, on map[*Value]bool) bool {
	for i := range 2 {
		x, table := n.Inputs[i], n.Inputs[1-i]
		k := len(table.Shape)
		if on[x] && !on[table] && k >= 2 && len(x.Shape) == 3 && table.Shape[k-2].Equal(x.Shape[1]) && !x.Shape[1].Is(1) {
			return true
		}
	}
	return false
}

// joinBefore counts the class tokens that a Concat upstream of n put in front.
func (t *ImageTower) joinBefore(n *Node, on map[*Value]bool) int {
	for n != nil {
		if n.Op == "Concat" {
			return leading(n, on)
		}
		var next *Node
		for _, v := range n.Inputs {
			if on[v] {
				next = v.Def
			}
		}
		if n.Op == "Conv" || n.Op == "MatMul" {
			return 0
		}
		n = next
	}
	return 0
}

// leading counts the tokens that don't depend on the input and come before those that do.
func leading(n *Node, on map[*Value]bool) int {
	if axisOf(n, "axis", 0) != 1 || len(n.Outputs[0].Shape) != 3 {
		return 0
	}
	count := int64(0)
	for _, v := range n.Inputs {
		if on[v] {
			break
		}
		size, _ := v.Shape[1].Int()
		count += size
	}
	return int(count)
}

// joinAfter moves the insertion behind a Concat of class tokens that follows the Add.
func (t *ImageTower) joinAfter(on map[*Value]bool) int {
	for _, n := range t.Graph.Nodes {
		if n.Op == "Concat" && slices.Contains(n.Inputs, t.Insert) {
			if c := leading(n, on); c > 0 {
				t.Insert = n.Outputs[0]
				return c
			}
		}
	}
	return 0
}

// tokenAxis reads which axis of a block's input carries the tokens of insert.
func tokenAxis(block, insert *Value) (int, error) {
	s := block.Shape
	if len(s) == 3 {
		switch {
		case s[1].Equal(insert.Shape[1]) && s[0].Equal(insert.Shape[0]):
			return 1, nil
		case s[0].Equal(insert.Shape[1]) && s[1].Equal(insert.Shape[0]):
			return 0, nil
		}
	}
	return 0, unpromptable("the first block's input %q has shape %s, the tokens %s", block.Name, s, insert.Shape)
}

// ImagePromptOptions says which prompts [ImageTower.WithPrompts] adds.
type ImagePromptOptions struct {
	Tokens int // K >= 1
	// Depth is the number of blocks that get prompts of their own; 1 is shallow.
	Depth int
	// PerRow makes the prompts [batch,K,D]; otherwise they are [1,K,D], for all rows.
	PerRow bool
	// FromTokens makes the graph start at an input "tokens" [batch,N,D], which
	// [ImageTower.Upstream] computes, in place of the pixels.
	FromTokens bool
}

// WithPrompts returns a graph with the inputs "visual.0" .. "visual.{Depth-1}". The first is
// put behind the class tokens at Insert; each other one overwrites the K slots at its block.
// Whatever the export baked in about the number of tokens is repaired.
func (t *ImageTower) WithPrompts(o ImagePromptOptions) (*Graph, error) {
	if o.Tokens < 1 || o.Depth < 1 || o.Depth > len(t.Blocks) {
		return nil, errs.New(errs.Invalid, "%d visual prompts to depth %d: 1 or more, and depth 1 to %d, are possible", o.Tokens, o.Depth, len(t.Blocks))
	}
	g, to := t.Graph.CloneMap()
	old := map[*Value]Shape{}
	for v, c := range to {
		old[c] = v.Shape
	}
	insert, c, k := to[t.Insert], int64(t.ClassTokens), int64(o.Tokens)
	s := newSurgery(g, insert)
	prompt := s.prompt("visual.0", k, int64(t.Width), o.PerRow)
	s.splice(insert, 1, c, 0, prompt)
	if _, err := g.infer(func(in *inference, n *Node) { repair(in, n, old) }); err != nil {
		return nil, err
	}
	for i := 1; i < o.Depth; i++ {
		p := s.prompt(promptName("visual", i), k, int64(t.Width), o.PerRow)
		if t.TokenAxis == 0 {
			p = s.op("Transpose", map[string]Attr{"perm": {[]int64{1, 0, 2}}}, p)
		}
		s.splice(to[t.Blocks[i]], t.TokenAxis, c, k, p)
	}
	if o.FromTokens {
		if err := s.startAt(insert, "tokens"); err != nil {
			return nil, err
		}
	}
	return g, finish(g)
}

// Upstream is the part of the tower that lies before every prompt: pixels to "tokens" [B,N,D].
func (t *ImageTower) Upstream() (*Graph, error) {
	g, to := t.Graph.CloneMap()
	tokens := &Node{Op: "Identity", Inputs: []*Value{to[t.Insert]}, Attrs: map[string]Attr{}}
	out := &Value{Name: "tokens", Def: tokens}
	tokens.Outputs = []*Value{out}
	g.Nodes = append(g.Nodes, tokens)
	g.Outputs = []*Value{out}
	g.Prune()
	g.PruneInputs()
	return g, finish(g)
}

// finish folds, infers and checks a graph after surgery.
func finish(g *Graph) error {
	if err := g.Fold(); err != nil {
		return err
	}
	return g.Check()
}

// surgery inserts nodes in the middle of a graph.
type surgery struct {
	g    *Graph
	like *Value // the tokens, whose first axis is the batch
	at   int    // where the next node goes
	// lookups are the nodes that read the batch's size off like; they keep reading it.
	lookups map[*Node]bool
}

func newSurgery(g *Graph, like *Value) *surgery {
	return &surgery{g: g, like: like, lookups: map[*Node]bool{}}
}

// op inserts a node at the present place.
func (s *surgery) op(op string, attrs map[string]Attr, inputs ...*Value) *Value {
	n := newNode(op, attrs, inputs)
	out := &Value{Name: s.g.freshName(op), Def: n}
	n.Outputs = []*Value{out}
	s.g.Nodes = slices.Insert(s.g.Nodes, s.at, n)
	s.at++
	return out
}

func (s *surgery) ints(n ...int64) *Value { return s.g.constant("const", NewTensor(n, int64(len(n)))) }

// prompt adds a prompt input [1,K,D], repeated over the batch, or [batch,K,D].
func (s *surgery) prompt(name string, k, width int64, perRow bool) *Value {
	batch := Known(1)
	if perRow {
		batch = s.like.Shape[0]
	}
	in := &Value{Name: name, Type: s.like.Type, Shape: Shape{batch, Known(k), Known(width)}}
	s.g.Inputs = append(s.g.Inputs, in)
	if perRow {
		return in
	}
	s.at = s.g.position(s.like) + 1
	rows := s.op("Shape", map[string]Attr{"start": {int64(0)}, "end": {int64(1)}}, s.like)
	s.lookups[rows.Def] = true
	target := s.op("Concat", map[string]Attr{"axis": {int64(0)}}, rows, s.ints(1, 1))
	return s.op("Expand", nil, in, target)
}

// splice puts p into x along the axis, at position at and over the next skip slots, and
// makes all that read x read the result.
func (s *surgery) splice(x *Value, axis int, at, skip int64, p *Value) {
	s.at = max(s.g.position(x), s.g.position(p)) + 1
	var parts []*Value
	cut := func(start, end int64) *Value {
		return s.op("Slice", nil, x, s.ints(start), s.ints(end), s.ints(int64(axis)))
	}
	from := s.at
	if at > 0 {
		parts = append(parts, cut(0, at))
	}
	parts = append(parts, p)
	if at+skip > 0 {
		parts = append(parts, cut(at+skip, math.MaxInt64))
	} else {
		parts = append(parts, x)
	}
	out := s.op("Concat", map[string]Attr{"axis": {int64(axis)}}, parts...)
	out.Type = x.Type
	s.reroute(x, out, from)
}

// reroute makes every reader of x outside the spliced nodes and the prompt's own batch
// look-up read out.
func (s *surgery) reroute(x, out *Value, from int) {
	for i, n := range s.g.Nodes {
		if i >= from && i < s.at || s.lookups[n] {
			continue
		}
		replaceIn(n.Inputs, x, out)
	}
	replaceIn(s.g.Outputs, x, out)
}

// promptName is the name of a layer's prompt input.
func promptName(kind string, layer int) string { return kind + "." + strconv.Itoa(layer) }
