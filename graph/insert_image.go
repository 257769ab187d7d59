package graph

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

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
	// Batch is the number of rows that the export is fixed to, 0 where any number will do.
	Batch int
	// Pooling is what follows the last block.
	Pooling Pooling

	last *Value // the tokens behind the last block; nil where they are nowhere the one value
	// Where the output is tokens: their axis, and where along it prompts stand.
	outAxis int
	outAt   int64
}

// Pooling says how a tower makes its output of the last block's tokens.
type Pooling string

const (
	// PoolToken picks tokens, a class token as a rule: prompts are not among them.
	PoolToken Pooling = "token"
	// PoolMean averages tokens, or reduces them in another way that weighs all alike.
	PoolMean Pooling = "mean"
	// PoolAttention attends to tokens, prompts among them.
	PoolAttention Pooling = "attention"
	// PoolFixed is made for one number of tokens, as a linear layer over all of them is.
	PoolFixed Pooling = "fixed"
	// PoolNone is an output of tokens [B,N,D], prompts among them.
	PoolNone Pooling = "none"
)

// FindImageTower looks for the insertion points of the encoder that computes the output, save
// for those that a hint names. An encoder where prompts can't enter is refused with the reason, kind
// [errs.Unsupported].
func FindImageTower(g *Graph, output string, hints ...ImageHints) (t *ImageTower, err error) {
	defer recoverBail(&err)
	var h ImageHints
	if len(hints) > 0 {
		h = hints[0]
	}
	only, err := g.Only(output)
	if err != nil {
		return nil, err
	}
	t = &ImageTower{Graph: only, Output: only.Outputs[0]}
	if t.Pixels, err = imageInput(only, h.Pixels); err != nil {
		return nil, err
	}
	t.Pixels = only.channelsFirst(t.Pixels)
	if err := fixImageSize(only, t.Pixels); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(only.Nodes, isIf) { // whose condition may follow from the size
		if err := only.Fold(); err != nil {
			return nil, err
		}
	}
	if err := t.findInsert(h); err != nil {
		return nil, err
	}
	if n, fixed := t.Pixels.Shape[0].Int(); fixed {
		t.Batch = int(n)
	}
	if err := t.try(); err != nil {
		return nil, err
	}
	return t, agree("token_axis", h.TokenAxis, t.TokenAxis)
}

// channelsFirst makes the graph take images [B,3,H,W] where it takes them [B,H,W,3], as models of TensorFlow and Keras do.
func (g *Graph) channelsFirst(pixels *Value) *Value {
	s := pixels.Shape
	if !s[3].Is(3) || s[1].Is(3) {
		return pixels
	}
	in := &Value{Name: pixels.Name, Type: pixels.Type, Shape: Shape{s[0], s[3], s[1], s[2]}}
	replaceIn(g.Inputs, pixels, in)
	turn := newNode("Transpose", map[string]Attr{"perm": {[]int64{0, 2, 3, 1}}}, []*Value{in})
	pixels.Name, pixels.Def, turn.Outputs = g.freshName("pixels"), turn, []*Value{pixels}
	g.Nodes = slices.Insert(g.Nodes, 0, turn)
	return in
}

// maxInferred bounds how many nodes are looked at, in all, while image sizes are tried.
const maxInferred = 2 << 20

// fixImageSize infers the graph's shapes. Where the file leaves the image's height and
// width open although a position table allows but one, they are set to it; square images
// are tried. Where any size will do, they stay open.
func fixImageSize(g *Graph, pixels *Value) error {
	if _, fixed := pixels.Shape[1:].Ints(); fixed {
		return g.Infer()
	}
	step := int64(0)
	for _, n := range g.Nodes {
		if n.Op == "Conv" && len(n.Inputs) > 1 && n.Inputs[1].IsConst() && len(n.Inputs[1].Const.Dims) == 4 {
			pixels.Shape[1] = Known(n.Inputs[1].Const.Dims[1] * n.Int("group", 1))
			step = max(1, slices.Max(append(n.Ints("strides"), 1)))
			break
		}
	}
	open := slices.Clone(pixels.Shape)
	try := func(size int64) bool {
		pixels.Shape[2], pixels.Shape[3] = Known(size), Known(size)
		return g.Infer() == nil
	}
	const largest = 2048
	tries := max(4, maxInferred/(1+len(g.Nodes)))
	for size := 2 * step; step > 0 && size <= largest && tries > 0; size, tries = size+step, tries-1 {
		if try(size) && !try(size+step) {
			try(size)
			return nil
		}
		if size == 2*step && g.Infer() == nil {
			break // two sizes in a row: nothing depends on it
		}
	}
	copy(pixels.Shape, open)
	return g.Infer()
}

func unpromptable(format string, args ...any) error {
	return errs.New(errs.Unsupported, "prompts can't enter: "+format, args...)
}

// unshaped names the first node whose output's shape is not known, behind which nothing is told apart: the rest of a sentence.
func (g *Graph) unshaped() string {
	for _, n := range g.Nodes {
		if out := n.Outputs[0]; out != nil && out.Shape == nil {
			return fmt.Sprintf(": the shape of what node %q (%s) makes is not known", n.Name, n.Op)
		}
	}
	return ""
}

// findInsert looks at what lies before the first block: tokens are complete at the last
// Add of a position table or Concat of class tokens there; where neither is found, where they
// first are a sequence as wide as the block's.
func (t *ImageTower) findInsert(h ImageHints) error {
	all := segments(t.Graph, t.Pixels)
	if err := t.findBlocks(all, h); err != nil {
		return err
	}
	block := t.Blocks[0]
	if len(block.Shape) != 3 {
		return unpromptable("the first block's input %q has shape %s, not [batch,tokens,width]", block.Name, block.Shape)
	}
	like := func(v *Value) bool { return len(v.Shape) == 3 && v.Shape[2].Equal(block.Shape[2]) }
	on := all[0].active
	if h.Insert != "" {
		v, err := tokensNamed(t.Graph, "insert", h.Insert, t.Pixels, on)
		if err != nil {
			return err
		}
		t.Insert = v
	}
	first := cutAt(all, block)
	if t.Insert == nil && first < 0 {
		return errs.New(errs.Invalid, "blocks: %q is not the only way from %q to the blocks: name the tokens that prompts join as well (insert)", block.Name, t.Pixels.Name)
	}
	if t.Insert == nil {
		t.Insert = tokensBefore(all, first, like, on)
	}
	if at := cutAt(all, t.Insert); at < 0 {
		return unpromptable("the tokens %q are not the only way from %q to the blocks", t.Insert.Name, t.Pixels.Name)
	}
	if t.Insert != block && !activeValues(t.Graph, []*Value{block}, []*Value{t.Insert})[t.Insert] {
		return errs.New(errs.Invalid, "insert: %q does not lead to the first block's input %q", t.Insert.Name, block.Name)
	}
	t.findLast(all, like)
	return t.measure(on, h.ClassTokens)
}

// tokensBefore finds the tokens in the segments ahead of the first block.
func tokensBefore(all []segment, first int, like func(*Value) bool, on map[*Value]bool) (found *Value) {
	for _, s := range all[:first] {
		for _, n := range s.nodes {
			if v := n.Outputs[0]; like(v) && (isPositionAdd(n, on) || isTokenJoin(n, on)) {
				found = v
			}
		}
	}
	if found == nil {
		i := first
		for i > 0 && like(all[i-1].cut) {
			i--
		}
		found = all[i].cut
	}
	return found
}

// findBlocks finds the inputs of the transformer blocks, or those that are named.
func (t *ImageTower) findBlocks(all []segment, h ImageHints) (err error) {
	if h.Blocks != nil {
		t.Blocks, err = blocksNamed(t.Graph, h.Blocks, t.Pixels)
	} else {
		for _, s := range all {
			if s.isBlock() {
				t.Blocks = append(t.Blocks, s.cut)
			}
		}
	}
	if err != nil || len(t.Blocks) > 0 {
		return err
	}
	for _, s := range all {
		if i := slices.IndexFunc(s.nodes, func(n *Node) bool { return n.Op == "Softmax" }); i >= 0 {
			return unpromptable("no transformer block (a softmax with a residual around it) is the only way from %q to %q, and node %q (Softmax) is in none", t.Pixels.Name, t.Output.Name, s.nodes[i].Name)
		}
	}
	return unpromptable("no transformer block (a softmax with a residual around it) lies between %q and %q%s", t.Pixels.Name, t.Output.Name, t.Graph.unshaped())
}

// findLast finds the first cut of tokens behind the last block's attention.
func (t *ImageTower) findLast(all []segment, like func(*Value) bool) {
	i := cutAt(all, t.Blocks[len(t.Blocks)-1])
	for i >= 0 && i+1 < len(all) && !all[i].attends() {
		i++
	}
	if i >= 0 && i+1 < len(all) && like(all[i+1].cut) {
		t.last = all[i+1].cut
	}
}

// measure reads the sizes off the insertion tensor.
func (t *ImageTower) measure(on map[*Value]bool, classTokens *int) error {
	tokens, ok1 := t.Insert.Shape[1].Int()
	width, ok2 := t.Insert.Shape[2].Int()
	if !ok1 || !ok2 {
		return unpromptable("the tokens' shape %s at %q depends on the run", t.Insert.Shape, t.Insert.Name)
	}
	t.Tokens, t.Width = int(tokens), int(width)
	if classTokens != nil {
		if *classTokens < 0 || *classTokens > t.Tokens {
			return errs.New(errs.Invalid, "class_tokens: %d of the %d tokens at %q", *classTokens, t.Tokens, t.Insert.Name)
		}
		t.ClassTokens = *classTokens
		return nil
	}
	in, err := t.Graph.infer()
	if err != nil {
		return err
	}
	l := &leaders{in, on, map[*Value]int64{}}
	t.ClassTokens = int(l.count(t.Insert, 0))
	return nil
}

// isPositionAdd: one operand is the image's, the other is not and has an extent along the
// token axis: a position table and not a bias.
func isPositionAdd(n *Node, on map[*Value]bool) bool {
	if n.Op != "Add" {
		return false
	}
	for i := range 2 {
		x, table := n.Inputs[i], n.Inputs[1-i]
		extent, ok := fromRight(table, 2)
		if on[x] && !on[table] && len(x.Shape) == 3 && ok && !extent.Is(1) && n.Outputs[0].Shape[1].Equal(extent) {
			return true
		}
	}
	return false
}

// isTokenJoin: tokens that are the same for all images are put to the image's.
func isTokenJoin(n *Node, on map[*Value]bool) bool {
	same := func(v *Value) bool { return !on[v] }
	return n.Op == "Concat" && axisOf(n, "axis", 0) == 1 && slices.ContainsFunc(n.Inputs, same)
}

// leaders counts tokens at the front of values that are the same for all images.
type leaders struct {
	in    *inference
	on    map[*Value]bool // values that depend on the image
	known map[*Value]int64
}

func (l *leaders) count(v *Value, depth int) int64 {
	if len(v.Shape) != 3 || depth > 32 {
		return 0
	}
	extent, _ := v.Shape[1].Int()
	if !l.on[v] {
		return extent
	}
	if v.Def == nil {
		return 0
	}
	k, seen := l.known[v]
	if !seen {
		k = l.of(v.Def, extent, depth)
		l.known[v] = k
	}
	return k
}

// of counts for the output, of the given number of tokens, of a node.
func (l *leaders) of(n *Node, extent int64, depth int) int64 {
	switch {
	case n.Op == "Concat" && axisOf(n, "axis", 0) == 1:
		count := int64(0)
		for _, x := range n.Inputs {
			k := l.count(x, depth+1)
			count += k
			if !x.Shape[1].Is(k) {
				break
			}
		}
		return count
	case n.Op == "Slice":
		x := n.Inputs[0]
		whole, ok := x.Shape[1].Int()
		if !ok || whole == extent {
			return min(extent, l.count(x, depth+1))
		}
		if start, ok := l.sliceStart(n); ok {
			return max(0, min(extent, l.count(x, depth+1)-start))
		}
	case broadcasts[n.Op] || elementwise[n.Op] || n.Op == "LayerNormalization":
		count := extent
		for _, x := range n.Inputs {
			if l.on[x] {
				count = min(count, l.count(x, depth+1))
			}
		}
		return count
	}
	return 0
}

// sliceStart is where a Slice along axis 1 alone starts in every run.
func (l *leaders) sliceStart(n *Node) (int64, bool) {
	starts, ok1 := l.in.ints(n.Inputs[1])
	axes, ok2 := l.in.ints(n.Input(3))
	if !ok1 || !ok2 || len(starts) != 1 || len(axes) != 1 || !axes[0].Is(1) && !axes[0].Is(-2) {
		return 0, false
	}
	start, ok := starts[0].Int()
	return start, ok && start >= 0
}

// try puts one prompt in on trial, which shows whether the graph can take prompts at all, which
// axis of the blocks carries the tokens, and what becomes of them behind the last block.
func (t *ImageTower) try() error {
	p, failed := t.plant(planting{k: 1, until: forever})
	if err := t.findTokenAxis(p.to); err != nil {
		if failed != nil {
			return failed
		}
		return err
	}
	if failed == nil {
		if t.Pooling = p.pooling(t.last); t.Pooling != PoolNone {
			return nil
		}
		var ok bool
		if t.outAxis, t.outAt, ok = p.growth.soleAxis(p.g.Outputs[0]); !ok {
			return unpromptable("the output %q of shape %s is made of tokens, and it can't be told where prompts stand among them", t.Output.Name, t.Output.Shape)
		}
		return nil
	}
	if t.last == nil {
		return failed
	}
	if _, err := t.plant(planting{k: 1, until: len(t.Blocks)}); err != nil {
		return failed
	}
	t.Pooling = PoolFixed
	return nil
}

// findTokenAxis reads the axis off the blocks' inputs in a graph with prompts.
func (t *ImageTower) findTokenAxis(to map[*Value]*Value) error {
	for i, b := range t.Blocks {
		s := to[b].Shape
		if b == t.Insert {
			s = Shape{s[0], Sym(tokenSymbol), s[2]}
		}
		axis := slices.IndexFunc(s, Sym(tokenSymbol).Equal)
		if len(s) != 3 || axis < 0 || axis > 1 || i > 0 && axis != t.TokenAxis {
			return unpromptable("input %q of block %d has shape %s, the tokens %s", b.Name, i, b.Shape, t.Insert.Shape)
		}
		t.TokenAxis = axis
	}
	return nil
}

// planting says where prompts enter and leave.
type planting struct {
	k     int64
	of    owner
	start int // the block at whose input they first join; 0 is Insert
	until int // the block at whose input they are taken out; len(Blocks) is behind the last
}

// forever is the until of prompts that flow on to the output.
const forever = -1

// planted is a copy of a tower's graph with the first prompts in it. Its shapes are left in terms
// of [tokenSymbol].
type planted struct {
	*surgery
	to     map[*Value]*Value // from the tower's values to the copy's
	growth *growth
}

// plant puts k prompts behind the class tokens of a copy of the graph and repairs what follows.
func (t *ImageTower) plant(w planting) (planted, error) {
	p, err := t.plantPast(w, nil)
	if err != nil || len(p.growth.tables) == 0 {
		return p, err
	}
	ds, err := t.detours(p)
	if err != nil {
		return p, err
	}
	if p, err = t.plantPast(w, ds); err == nil && len(p.growth.tables) > 0 {
		err = unpromptable("node %q multiplies each of %d tokens by something else", p.growth.tables[0].Name, t.Tokens)
	}
	return p, err
}

func (t *ImageTower) detours(p planted) (ds []*detour, err error) {
	defer recoverBail(&err)
	return findDetours(t.Graph, p.to, p.growth, activeValues(t.Graph, t.Graph.Outputs, []*Value{t.Pixels})), nil
}

// plantPast is plant, with detours for the prompts.
func (t *ImageTower) plantPast(w planting, ds []*detour) (planted, error) {
	g, to := t.Graph.CloneMap()
	old := map[*Value]Shape{}
	for v, c := range to {
		old[c] = v.Shape
	}
	s := newSurgery(g, to[t.Insert])
	at, axis := t.Insert, 1
	if w.start > 0 {
		at, axis = t.Blocks[w.start], t.TokenAxis
	}
	c := int64(t.ClassTokens)
	tokens := s.splice(to[at], axis, c, 0, t.layer(s, w, w.start))
	r := &growth{in: newInference(g), ours: s.ours, tokens: tokens, axis: axis, at: c, was: int64(t.Tokens), now: int64(t.Tokens) + w.k, old: old}
	switch {
	case w.until == len(t.Blocks):
		r.bare = s.take(to[t.last], t.TokenAxis, c, w.k)
	case w.until != forever:
		r.bare = s.take(to[t.Blocks[w.until]], t.TokenAxis, c, w.k)
	}
	r.bareAxis = t.TokenAxis
	r.spared = s.lay(ds, to, w.k)
	return planted{s, to, r}, r.run()
}

// layer makes the prompts of a block, laid out as its tokens are.
func (t *ImageTower) layer(s *surgery, w planting, block int) *Value {
	p := s.prompt(PromptName("visual", block), w.k, int64(t.Width), w.of)
	if block > 0 && t.TokenAxis == 0 {
		p = s.op("Transpose", map[string]Attr{"perm": {[]int64{1, 0, 2}}}, p)
	}
	return p
}

// pooling says what becomes of the tokens behind last.
func (p planted) pooling(last *Value) Pooling {
	if p.growth.grown(p.g.Outputs[0]) {
		return PoolNone
	}
	found := PoolToken
	if last == nil {
		return found
	}
	for _, n := range p.g.Nodes[p.g.position(p.to[last])+1:] {
		switch {
		case n.Op == "Softmax" && p.growth.grown(n.Inputs[0]):
			return PoolAttention
		case (strings.HasPrefix(n.Op, "Reduce") || strings.HasPrefix(n.Op, "Global")) && p.growth.grown(n.Inputs[0]) && !p.growth.grown(n.Outputs[0]):
			found = PoolMean
		}
	}
	return found
}

// ImagePromptOptions says which prompts [ImageTower.WithPrompts] adds.
type ImagePromptOptions struct {
	Tokens int // K >= 1
	// Start is the block, counted from 0, at whose input the prompts first join the tokens.
	Start int
	// Depth is the number of blocks from Start on that get prompts of their own; 1 is shallow.
	// Behind the last of them the prompts flow on like other tokens (VPT, MaPLe), unless Drop
	// is set.
	Depth int
	// Drop takes the prompts' slots out again behind the last block that has prompts of its own.
	Drop bool
	// Averaged leaves prompts among the tokens where the tower averages them in the end;
	// otherwise they are taken out behind the last block.
	Averaged bool
	// PerRow makes the prompts [batch,K,D]; otherwise they are [1,K,D], for all rows.
	PerRow bool
	// Bank makes the prompts [prompts,K,D]; the input "visual_index", int64 [batch], says which
	// of them each row gets.
	Bank bool
	// FromTokens makes the graph start at an input "tokens" [batch,N,D], which
	// [ImageTower.Upstream] computes, in place of the pixels.
	FromTokens bool
}

// WithPrompts returns a graph with the inputs "visual.{Start}" .. "visual.{Start+Depth-1}", named
// after their blocks. The first is put behind the class tokens, at Insert for block 0 and else at
// the block's input; each other one overwrites the K slots at its block. Whatever the export baked
// in about the number of tokens is repaired.
func (t *ImageTower) WithPrompts(o ImagePromptOptions) (_ *Graph, err error) {
	if o.Tokens < 1 {
		return nil, errs.New(errs.Invalid, "%d visual prompts: 1 or more are possible", o.Tokens)
	}
	return t.withPrompts(o)
}

// withPrompts takes 0 prompts as well, which change nothing.
func (t *ImageTower) withPrompts(o ImagePromptOptions) (_ *Graph, err error) {
	defer recoverBail(&err)
	w, err := t.planting(o)
	if err != nil {
		return nil, err
	}
	p, err := t.plant(w)
	if err != nil {
		return nil, err
	}
	for i := o.Start + 1; i < o.Start+o.Depth; i++ {
		p.splice(p.to[t.Blocks[i]], t.TokenAxis, int64(t.ClassTokens), w.k, t.layer(p.surgery, w, i))
	}
	if o.FromTokens {
		if err := p.startAt(p.to[t.Insert], p.to[t.Pixels], "tokens"); err != nil {
			return nil, err
		}
	}
	return p.g, finish(p.g)
}

// planting checks the options.
func (t *ImageTower) planting(o ImagePromptOptions) (planting, error) {
	if o.Start < 0 || o.Depth < 1 || o.Start+o.Depth > len(t.Blocks) {
		return planting{}, errs.New(errs.Invalid, "visual prompts from block %d on to a depth of %d: the tower has blocks 0 to %d, and a depth of 1 or more is possible", o.Start, o.Depth, len(t.Blocks)-1)
	}
	of, err := ownerOf(o.PerRow, o.Bank)
	if err != nil {
		return planting{}, err
	}
	w := planting{k: int64(o.Tokens), of: of, start: o.Start, until: forever}
	switch {
	case o.Drop:
		w.until = o.Start + o.Depth
	case t.Pooling == PoolMean && !o.Averaged || t.Pooling == PoolFixed:
		w.until = len(t.Blocks)
	}
	switch {
	case o.Averaged && t.Pooling == PoolFixed:
		return w, unpromptable("what follows the last block of the tower was made for %d tokens: Averaged is not possible", t.Tokens)
	case w.until == len(t.Blocks) && t.last == nil && o.Drop:
		return w, unpromptable("the tokens behind the last block are not one value of shape %s, so that the prompts can't be dropped there", t.Insert.Shape)
	}
	return w, nil
}

// Upstream is the part of the tower that lies before every prompt: pixels to "tokens" [B,N,D].
func (t *ImageTower) Upstream() (_ *Graph, err error) {
	defer recoverBail(&err)
	g, to := t.Graph.CloneMap()
	g.freeName("tokens")
	s := newSurgery(g, nil)
	s.at = len(g.Nodes)
	out := s.op("Cast", map[string]Attr{"to": {int64(Float)}}, to[t.Insert])
	out.Name, out.Type = "tokens", Float
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
	ours    map[*Node]bool // all nodes inserted
	// indexes are the inputs that pick each row's prompt from a bank, by the prompts' kind.
	indexes map[string]*Value
}

// owner says whose a prompt is.
type owner int

const (
	shared owner = iota // one for all rows of a batch
	perRow              // each row has its own
	bank                // each row names one of a bank's
)

func ownerOf(row, banked bool) (owner, error) {
	switch {
	case row && banked:
		return shared, errs.New(errs.Invalid, "prompts are for each row, or in a bank that rows choose from: not both")
	case row:
		return perRow, nil
	case banked:
		return bank, nil
	}
	return shared, nil
}

func newSurgery(g *Graph, like *Value) *surgery {
	return &surgery{g: g, like: like, lookups: map[*Node]bool{}, ours: map[*Node]bool{}, indexes: map[string]*Value{}}
}

// op inserts a node at the present place.
func (s *surgery) op(op string, attrs map[string]Attr, inputs ...*Value) *Value {
	n := newNode(op, attrs, inputs)
	out := &Value{Name: s.g.freshName(op), Def: n}
	n.Outputs = []*Value{out}
	s.g.Nodes = slices.Insert(s.g.Nodes, s.at, n)
	s.at++
	s.ours[n] = true
	return out
}

func (s *surgery) ints(n ...int64) *Value { return s.g.constant("const", NewTensor(n, int64(len(n)))) }

// prompt adds a prompt input and gives it a row for each of the batch: [batch,K,D] from
// [1,K,D], [batch,K,D] or a bank [prompts,K,D].
func (s *surgery) prompt(name string, k, width int64, of owner) *Value {
	rows := map[owner]Dim{shared: Known(1), perRow: s.like.Shape[0], bank: Sym("prompts")}[of]
	in := s.input(name, Float, Shape{rows, Known(k), Known(width)})
	s.at = s.g.position(s.like) + 1
	in = s.cast(in, s.like.Type)
	switch of {
	case perRow:
		return in
	case bank:
		kind, _, _ := strings.Cut(name, ".")
		return s.op("Gather", map[string]Attr{"axis": {int64(0)}}, in, s.index(kind))
	}
	target := s.op("Concat", map[string]Attr{"axis": {int64(0)}}, s.batch(), s.ints(1, 1))
	return s.op("Expand", nil, in, target)
}

// input adds a graph input.
func (s *surgery) input(name string, t DataType, shape Shape) *Value {
	s.g.freeName(name)
	in := &Value{Name: name, Type: t, Shape: shape}
	s.g.Inputs = append(s.g.Inputs, in)
	return in
}

// index is the input that says which prompt of a bank each row gets: int64 [batch].
func (s *surgery) index(kind string) *Value {
	if s.indexes[kind] == nil {
		s.indexes[kind] = s.input(kind+"_index", Int64, Shape{s.like.Shape[0]})
	}
	return s.indexes[kind]
}

// batch is the number of rows: [1].
func (s *surgery) batch() *Value {
	rows := s.op("Shape", map[string]Attr{"start": {int64(0)}, "end": {int64(1)}}, s.like)
	s.lookups[rows.Def] = true
	return rows
}

// cast brings v to an element type: prompts are floats outside, whatever a graph computes in.
func (s *surgery) cast(v *Value, t DataType) *Value {
	if v.Type == t {
		return v
	}
	out := s.op("Cast", map[string]Attr{"to": {int64(t)}}, v)
	out.Type = t
	return out
}

// splice puts p into x along the axis, at position at and over the next skip slots, and
// makes all that read x read the result, which it returns.
func (s *surgery) splice(x *Value, axis int, at, skip int64, p *Value) *Value {
	s.at = max(s.g.position(x), s.g.position(p)) + 1
	from := s.at
	out := s.between(x, axis, at, skip, p)
	s.reroute(x, out, from)
	return out
}

// between is x with p along the axis, at position at and over the next skip slots.
func (s *surgery) between(x *Value, axis int, at, skip int64, p *Value) *Value {
	var parts []*Value
	if at > 0 {
		parts = append(parts, s.slice(x, axis, 0, at))
	}
	parts = append(parts, p)
	if at+skip > 0 {
		x = s.slice(x, axis, at+skip, math.MaxInt64)
	}
	return s.joined(axis, append(parts, x)...)
}

// without is x without the k slots at position at along the axis.
func (s *surgery) without(x *Value, axis int, at, k int64) *Value {
	tail := s.slice(x, axis, at+k, math.MaxInt64)
	if at == 0 {
		return tail
	}
	return s.joined(axis, s.slice(x, axis, 0, at), tail)
}

func (s *surgery) slice(x *Value, axis int, start, end int64) *Value {
	out := s.op("Slice", nil, x, s.ints(start), s.ints(end), s.ints(int64(axis)))
	out.Type = x.Type
	return out
}

func (s *surgery) joined(axis int, parts ...*Value) *Value {
	out := s.op("Concat", map[string]Attr{"axis": {int64(axis)}}, parts...)
	out.Type = parts[len(parts)-1].Type
	return out
}

// take removes the k slots at position at along the axis from x for all that read it.
func (s *surgery) take(x *Value, axis int, at, k int64) *Value {
	s.at = s.g.position(x) + 1
	from := s.at
	out := s.without(x, axis, at, k)
	s.reroute(x, out, from)
	return out
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

// PromptName is the name of a layer's prompt input.
func PromptName(kind string, layer int) string { return kind + "." + strconv.Itoa(layer) }

// Downstream is the tower from the tokens on, without prompts: "tokens" [B,N,D] to the output.
func (t *ImageTower) Downstream() (_ *Graph, err error) {
	defer recoverBail(&err)
	g, to := t.Graph.CloneMap()
	if err := newSurgery(g, to[t.Insert]).startAt(to[t.Insert], to[t.Pixels], "tokens"); err != nil {
		return nil, err
	}
	return g, finish(g)
}
