package graph

import (
	"math"
	"slices"
	"strconv"

	"github.com/foretoken/foretoken/internal/errs"
)

// DecoderTower is a text decoder and where a prefix can enter it, found from the graph.
type DecoderTower struct {
	Graph  *Graph // computes the logits, and the layers' keys and values where the file gives them out
	IDs    *Value // token ids [B,S], int64 or int32
	Logits *Value // [B,S,V]
	// Mask is the attention mask over past and tokens [B,past+S]; nil when the graph takes none.
	Mask *Value
	// Positions is the input of the tokens' places [B,S]; nil when the graph counts them itself.
	Positions *Value
	// Encoder is the input that cross attention looks at, such as [B,N,E]; nil where there is none.
	Encoder     *Value
	EncoderMask *Value // [B,N]; nil when the graph takes none
	// Embedding is the rows of the token table, before positions are added: [B,S,D].
	Embedding *Value
	Table     *Value // [V,D]
	Width     int    // D
	// Window is how many places, past and prefix among them, the table of positions has, or that of rotary
	// positions' cosines; 0 where there is no table.
	Window int
	// Blocks are the inputs of the attention halves: those of cross attention are blocks too.
	Blocks []*Value
	// Layers are the attentions in order, self and cross.
	Layers []DecoderLayer
	Causal bool // no token looks ahead

	original *Graph          // as exported, where the length of texts was opened, else nil
	active   map[*Value]bool // on a float path from Embedding to Logits
	others   []*Value        // inputs [B,S] of no known use
	table    bool            // positions are rows that are added to the embeddings
	lookups  []*Value        // those rows, where they are looked up by the tokens' places
}

// DecoderLayer is one attention of a decoder.
type DecoderLayer struct {
	Cross bool // its keys come from the encoder, not from the tokens
	// Heads is the number of heads of the keys and values, and HeadWidth the width of each. Grouped
	// queries share them. Both are 0 where keys never stand as [B,H,T,d].
	Heads, HeadWidth int
	// PastKey and PastValue are the inputs [B,H,past,d], PresentKey and PresentValue the outputs
	// [B,H,past+S,d]; nil where the graph has none.
	PastKey, PastValue, PresentKey, PresentValue *Value

	key, value place // where keys and values are made, and the axis of their tokens
}

// FindDecoder looks for the insertion points of the decoder that computes the output, logits
// [B,S,V]. A graph where a prefix can't enter is refused with the reason, kind [errs.Unsupported].
// The branch of a decoder with and without cache is chosen beforehand, by [Graph.Pin].
func FindDecoder(g *Graph, output string) (*DecoderTower, error) {
	t, err := findDecoder(g.Clone(), output)
	if err == nil {
		return t, nil
	}
	if opened := t.opened(g.Clone()); opened != nil {
		opened.original, err = g.Only(output)
		return opened, err
	}
	return nil, err
}

// opened is the decoder with the length of its texts opened, where the export fixed it and baked in what it holds
// for each place: prefix and text then share the places that there are. It is nil where that can't be done.
func (t *DecoderTower) opened(g *Graph) *DecoderTower {
	if t.IDs == nil {
		return nil
	}
	was, fixed := t.IDs.Shape[1].Int()
	if !fixed {
		return nil
	}
	inputs := []string{t.IDs.Name}
	for _, in := range g.Inputs {
		if in.Name != t.IDs.Name && len(in.Shape) == 2 && in.Shape[1].Is(was) && !in.Type.IsFloat() {
			inputs = append(inputs, in.Name)
		}
	}
	open, limit, err := openText(g, was, inputs)
	if err != nil {
		return nil
	}
	o, err := findDecoder(open, t.Logits.Name)
	if err != nil {
		return nil
	}
	if limit > 0 && (o.Window == 0 || int64(o.Window) > limit) {
		o.Window = int(limit)
	}
	return o
}

// findDecoder looks at a graph that it may change. With an error it returns what it has found.
func findDecoder(c *Graph, output string) (t *DecoderTower, err error) {
	t = &DecoderTower{Graph: c, Logits: c.Output(output)}
	defer recoverBail(&err)
	if t.Logits == nil {
		return t, errs.New(errs.Invalid, "the graph has no output %q (it has %s)", output, names(c.Outputs))
	}
	if err := c.Infer(); err != nil {
		return t, err
	}
	c.unflattenSoftmax()
	if len(t.Logits.Shape) != 3 {
		return t, unpromptable("%q has shape %s, not [batch,sequence,vocabulary]%s", output, t.Logits.Shape, c.unshaped())
	}
	view := t.view()
	if err := t.findTable(view); err != nil {
		return t, err
	}
	t.active = activeValues(view, view.Outputs, []*Value{t.Embedding})
	t.Blocks = blockInputs(view, t.Embedding)
	if len(t.Blocks) == 0 {
		return t, unpromptable("no transformer block follows the token embeddings %q%s", t.Embedding.Name, t.Graph.unshaped())
	}
	found := attentions(view, t.active)
	t.findWindow(view)
	t.findInputs(view, found)
	t.keepOutputs(found)
	t.unify(found)
	if err := c.Infer(); err != nil {
		return t, err
	}
	return t, t.measure(found)
}

// view is the graph of the logits alone; its values and nodes are the graph's own.
func (t *DecoderTower) view() *Graph {
	v := *t.Graph
	v.Outputs, v.Nodes, v.Inputs = []*Value{t.Logits}, slices.Clone(t.Graph.Nodes), slices.Clone(t.Graph.Inputs)
	v.Prune()
	v.PruneInputs()
	return &v
}

// findTable finds the look-up of token ids in the longest table. Where an encoder's ids are
// looked up in the same one, the decoder's are as many as the logits, or come last.
func (t *DecoderTower) findTable(view *Graph) error {
	rows, matched := int64(0), false
	for _, n := range view.Nodes {
		if n.Op != "Gather" || !isTable(n.Inputs[0]) || len(n.Outputs[0].Shape) != 3 {
			continue
		}
		ids := spelled(n.Inputs[1])
		if ids == nil {
			continue
		}
		k, _ := n.Inputs[0].Shape[0].Int()
		fits := ids.Shape[1].Equal(t.Logits.Shape[1])
		if k > rows || k == rows && (fits || !matched) {
			width, _ := n.Inputs[0].Shape[1].Int()
			t.IDs, t.Table, t.Embedding, t.Width = ids, n.Inputs[0], n.Outputs[0], int(width)
			rows, matched = k, fits
		}
	}
	if t.Embedding == nil {
		return unpromptable("no look-up of token ids [batch,sequence] in a table leads to %q", t.Logits.Name)
	}
	return nil
}

// findWindow reads the position table's length: of the tables that are added to the
// embeddings before the first block, the longest. It notes where that table is looked up.
func (t *DecoderTower) findWindow(view *Graph) {
	t.Window = longestText(view, t.Embedding, t.Blocks[0], t.Table, t.Width)
	if t.table = t.Window > 0; !t.table {
		t.Window = t.angles(view)
		return
	}
	for _, n := range view.Nodes {
		if n.Op == "Gather" && isTable(n.Inputs[0]) && places(n.Outputs[0], t.Table, t.Width, 0) == t.Window {
			t.lookups = append(t.lookups, n.Outputs[0])
		}
	}
}

// angles is how many places a table of the cosines of rotary positions has, 0 where they are worked
// out. It is known by its first row, the cosines of 0.
func (t *DecoderTower) angles(view *Graph) int {
	for _, n := range view.Nodes {
		if n.Op != "Gather" || n.Inputs[0] == t.Table || n.Inputs[0].Const == nil || !isTable(n.Inputs[0]) {
			continue
		}
		row, err := Float32s(n.Inputs[0].Const.row(0))
		if err == nil && !slices.ContainsFunc(row, func(x float32) bool { return x != 1 }) {
			return int(n.Inputs[0].Const.Dims[0])
		}
	}
	return 0
}

// longestText is the length of the longest of the tables that are added between the embeddings and the
// first block.
func longestText(g *Graph, embedding, block, table *Value, width int) int {
	longest := 0
	for _, s := range segments(g, embedding) {
		if s.cut == block {
			break
		}
		for _, n := range s.nodes {
			for i := range n.Inputs {
				if n.Op == "Add" && s.active[n.Inputs[1-i]] && !s.active[n.Inputs[i]] {
					longest = max(longest, places(n.Inputs[i], table, width, 0))
				}
			}
		}
	}
	return longest
}

// places is how many positions the table upstream of v has: its rows, less those that the
// index starts behind. The token table, where token types are looked up as well, has none, and neither has
// one that every place looks up the same row of, or as few rows as token types have by an input's elements.
func places(v, tokens *Value, width, depth int) int {
	if v == nil || v == tokens || depth > 16 {
		return 0
	}
	n := v.Def
	switch {
	case n != nil && n.Op == "Gather" && n.Inputs[0] == tokens:
		return 0
	case n != nil && n.Op == "Gather" && isTable(n.Inputs[0]):
		rows := tableRows(n.Inputs[0], width, depth)
		if !variesByPlace(n.Inputs[1], map[*Value]bool{}) || rows <= mostSegments && spelled(n.Inputs[1]) != nil {
			return 0
		}
		return max(0, rows-int(firstPlace(n.Inputs[1], 0)))
	case n == nil:
		return tableRows(v, width, depth)
	}
	return places(n.Input(0), tokens, width, depth+1)
}

// variesByPlace says whether the integers of an index may differ from place to place, as those do that count
// them. Token types that are no input are one row for all.
func variesByPlace(index *Value, known map[*Value]bool) bool {
	if index == nil {
		return false
	}
	varies, seen := known[index]
	if seen {
		return varies
	}
	n := index.Def
	switch {
	case index.Const != nil:
		at, err := integersOf(index.Const)
		varies = err != nil || len(at) > 0 && slices.Min(at) != slices.Max(at)
	case n == nil:
		varies = true
	case n.Op == "ConstantOfShape" || n.Op == "Shape" || n.Op == "Mul" && slices.ContainsFunc(n.Inputs, isZero):
	case onlyCopies[n.Op] || slices.Contains([]string{"Expand", "Slice", "Gather", "Unsqueeze", "Squeeze"}, n.Op):
		varies = variesByPlace(n.Inputs[0], known)
	case broadcasts[n.Op]:
		varies = slices.ContainsFunc(n.Inputs, func(v *Value) bool { return variesByPlace(v, known) })
	default:
		varies = true
	}
	known[index] = varies
	return varies
}

// isZero says whether v is a constant of integers that are all 0.
func isZero(v *Value) bool {
	if v.Const == nil || v.Type.IsFloat() {
		return false
	}
	at, err := integersOf(v.Const)
	return err == nil && len(at) > 0 && slices.Min(at) == 0 && slices.Max(at) == 0
}

// firstPlace is the row that the first token's position is looked up in, 0 where nothing
// is added to the count.
func firstPlace(v *Value, depth int) int64 {
	if v == nil || v.Def == nil || depth > 16 {
		return 0
	}
	n := v.Def
	if n.Op == "CumSum" {
		return 1
	}
	in := newInference(nil)
	for i := range n.Inputs {
		ds, ok := in.ints(n.Inputs[i])
		if !ok || len(ds) != 1 || n.Op != "Add" && n.Op != "Sub" {
			continue
		}
		by, _ := ds[0].Int()
		if n.Op == "Sub" {
			by = -by
		}
		return by + firstPlace(n.Inputs[1-i], depth+1)
	}
	if n.Op == "Where" {
		return max(firstPlace(n.Inputs[1], depth+1), firstPlace(n.Inputs[2], depth+1))
	}
	return firstPlace(n.Input(0), depth+1)
}

// findInputs tells masks, positions and the encoder's output by what the inputs lead to.
func (t *DecoderTower) findInputs(view *Graph, found []attentionLayer) {
	ignore := func(*Node) {}
	self, cross, seen := map[*Value]bool{}, map[*Value]bool{}, map[*Value]bool{}
	for _, a := range found {
		t.Causal = t.Causal || a.self && a.causal(t.active)
		into := cross
		if a.self {
			into = self
		}
		for _, m := range a.masks {
			for v := range sources(m, t.active, ignore) {
				into[v] = true
			}
		}
		if !a.self {
			for v := range sources(a.key.forms[len(a.key.forms)-1], t.active, ignore) {
				seen[v] = true
			}
		}
	}
	for _, v := range view.Inputs {
		switch {
		case v == t.IDs || slices.ContainsFunc(found, func(a attentionLayer) bool { return a.key.past == v || a.value.past == v }):
		case v.Type.IsFloat() && len(v.Shape) >= 3 && seen[v] && t.Encoder == nil:
			t.Encoder = v
		case len(v.Shape) != 2:
		case t.countsPlaces(view, v) && t.Positions == nil:
			t.Positions = v
		case self[v] && t.Mask == nil:
			t.Mask = v
		case cross[v] && !self[v] && t.EncoderMask == nil:
			t.EncoderMask = v
		case !seen[v]:
			t.others = append(t.others, v)
		}
	}
}

// countsPlaces says whether an input of integers is looked up in the position table as it is, or
// turned into angles: it holds positions.
func (t *DecoderTower) countsPlaces(g *Graph, input *Value) bool {
	if input.Type.IsFloat() {
		return false
	}
	held := map[*Value]bool{input: true}
	for _, n := range g.Nodes {
		i := slices.IndexFunc(n.Inputs, func(v *Value) bool { return held[v] })
		if i < 0 {
			continue
		}
		other := n.Input(1 - min(i, 1))
		switch {
		case n.Op == "Gather" && i == 1 && isTable(n.Inputs[0]):
			return t.Window == 0 || places(n.Outputs[0], t.Table, t.Width, 0) == t.Window
		case (n.Op == "MatMul" || n.Op == "Mul" || n.Op == "Einsum") && n.Outputs[0].Type.IsFloat() && other != nil && len(other.Shape) > 0 && !other.Shape.Count().Is(1):
			return true
		case i == 0 && (onlyCopies[n.Op] || n.Op == "Expand" || n.Op == "Unsqueeze" || n.Op == "Squeeze" || n.Op == "Slice"),
			(n.Op == "Add" || n.Op == "Sub") && other.IsConst():
			held[n.Outputs[0]] = true
		}
	}
	return false
}

// keepOutputs keeps the logits and what layers give out of their keys and values.
func (t *DecoderTower) keepOutputs(found []attentionLayer) {
	given := func(o weighed) *Value {
		for _, out := range t.Graph.Outputs {
			for v := out; v != nil; v = copied(v.Def) {
				if slices.Contains(o.forms, v) {
					return out
				}
				if v.Def == nil {
					break
				}
			}
		}
		return nil
	}
	keep := []*Value{t.Logits}
	for _, a := range found {
		l := DecoderLayer{Cross: !a.self, PastKey: a.key.past, PastValue: a.value.past, PresentKey: given(a.key), PresentValue: given(a.value)}
		t.Layers = append(t.Layers, l)
		for _, v := range []*Value{l.PresentKey, l.PresentValue} {
			if v != nil {
				keep = append(keep, v)
			}
		}
	}
	t.Graph.Outputs = keep
	t.Graph.Prune()
	t.Graph.PruneInputs()
}

// unify gives the extents that must be equal one symbol each: a file may name the batch or the
// sequence anew for every input.
func (t *DecoderTower) unify(found []attentionLayer) {
	batch, tokens := t.IDs.Shape[0], t.IDs.Shape[1]
	past := Dim{}
	for _, a := range found {
		for _, v := range []*Value{a.key.past, a.value.past} {
			if v != nil && a.self {
				if past.Is(0) {
					past = v.Shape[2]
				}
				adopt(v, 2, past)
				adopt(v, 0, batch)
			}
		}
	}
	adopt(t.Mask, 1, past.Add(tokens))
	adopt(t.Positions, 1, tokens)
	for _, v := range []*Value{t.Mask, t.Positions, t.Encoder, t.EncoderMask} {
		adopt(v, 0, batch)
	}
}

// adopt sets an extent that the file leaves open.
func adopt(v *Value, axis int, d Dim) {
	if v != nil && symbolic(v.Shape[axis]) {
		v.Shape = slices.Clone(v.Shape)
		v.Shape[axis] = d
	}
}

// measure puts one token before the others on trial, which shows whether the graph can take a
// prefix at all, and which axis of keys and values carries the tokens.
func (t *DecoderTower) measure(found []attentionLayer) error {
	_, to, err := t.extended(1)
	if err != nil {
		return err
	}
	for i, a := range found {
		l := &t.Layers[i]
		var ok bool
		l.key, l.Heads, l.HeadWidth, ok = cachePlace(a, a.key, to)
		if ok {
			l.value, _, _, ok = cachePlace(a, a.value, to)
		}
		if !ok {
			l.key, l.value, l.Heads, l.HeadWidth = place{}, place{}, 0, 0
		}
	}
	return nil
}

// cachePlace reads the form of keys or values: the tokens' axis and, of the others in order,
// batch, heads and their width.
func cachePlace(a attentionLayer, o weighed, to map[*Value]*Value) (at place, heads, width int, ok bool) {
	if o.made == nil {
		return place{}, 0, 0, false
	}
	shape := to[o.made].Shape
	axis := slices.IndexFunc(shape, func(d Dim) bool { return d.mentions(tokenSymbol) })
	if !a.self && axis < 0 && len(shape) == 4 { // the encoder's tokens: they stand before the width
		axis = 2
	}
	if axis < 0 || len(shape) != 4 {
		return place{}, 0, 0, false
	}
	rest := slices.Delete(slices.Clone(shape), axis, axis+1)
	h, ok1 := rest[1].Int()
	d, ok2 := rest[2].Int()
	return place{o.made, axis}, int(h), int(d), ok1 && ok2
}

// extended puts p tokens before the others of a copy of the graph, with an attention mask of
// ones and places counted from the start. What they hold is of no account: the caller overwrites it. The
// copy's shapes are left in terms of [tokenSymbol].
func (t *DecoderTower) extended(p int64) (*surgery, map[*Value]*Value, error) {
	if len(t.others) > 0 {
		return nil, nil, unpromptable("input %q of shape %s: it can't be told what a prefix has there", t.others[0].Name, t.others[0].Shape)
	}
	g, to := t.Graph.CloneMap()
	old := map[*Value]Shape{}
	for v, c := range to {
		old[c] = v.Shape
	}
	s := newSurgery(g, to[t.Embedding])
	ids, past := to[t.IDs], to[t.past()]
	longer := map[*Value]Dim{s.splice(ids, 1, 0, 0, s.firsts(ids, p)): Sym(tokenSymbol)}
	if mask := to[t.Mask]; mask != nil {
		extent := mask.Shape[1].Sub(ids.Shape[1]).Add(Sym(tokenSymbol))
		longer[s.longerMask(mask, p, past)] = extent
	}
	if positions := to[t.Positions]; positions != nil {
		longer[s.longerPositions(positions, p, past)] = Sym(tokenSymbol)
	}
	was, fixed := ids.Shape[1].Int()
	if !fixed {
		return s, to, inferLonger(g, longer)
	}
	r := &growth{in: newInference(g), ours: s.ours, places: true, longer: longer, was: was, now: was + p, old: old}
	return s, to, r.run()
}

// inferLonger infers a graph whose shapes follow from its inputs', in the token symbol.
func inferLonger(g *Graph, longer map[*Value]Dim) (err error) {
	defer recoverBail(&err)
	in := newInference(g)
	for _, n := range g.Nodes {
		in.node(n)
		for _, v := range n.Outputs {
			if d, is := longer[v]; is {
				v.Shape = v.Shape.with(1, d)
			}
		}
	}
	return nil
}

// LeadsTo says whether step, another graph of the same decoder, can go on from what this one gives out: it has the keys
// and values of each attention that the step wants, and the step gives out its own.
func (t *DecoderTower) LeadsTo(step *DecoderTower) bool {
	if len(step.Layers) != len(t.Layers) {
		return false
	}
	for i, l := range step.Layers {
		first := t.Layers[i]
		if l.Cross != first.Cross || l.PastKey != nil && (first.PresentKey == nil || first.PresentValue == nil) || !l.Cross && (l.PastKey == nil || l.PresentKey == nil || l.PresentValue == nil) {
			return false
		}
	}
	return true
}

// past is an input of keys that come before the tokens, nil for none.
func (t *DecoderTower) past() *Value {
	for _, l := range t.Layers {
		if !l.Cross && l.PastKey != nil {
			return l.PastKey
		}
	}
	return nil
}

// extent reads an extent of an input, as it comes from outside: [1].
func (s *surgery) extent(input *Value, axis int64) *Value {
	s.at = 0
	d := s.op("Shape", map[string]Attr{"start": {axis}, "end": {axis + 1}}, input)
	s.lookups[d.Def] = true
	return d
}

// firsts repeats each row's first id p times: what a graph works out from ids themselves,
// such as a padding mask, takes a prefix for text.
func (s *surgery) firsts(ids *Value, p int64) *Value {
	s.at = 0
	first := s.op("Slice", nil, ids, s.ints(0), s.ints(1), s.ints(1))
	s.lookups[first.Def] = true
	return s.op("Tile", nil, first, s.ints(1, p)) // Expand to 0 places leaves one, in ONNX Runtime
}

// longerMask puts p ones into the mask [B,past+S], between past and tokens.
func (s *surgery) longerMask(mask *Value, p int64, past *Value) *Value {
	rows := s.extent(mask, 0)
	ones := s.ones(mask.Type, s.op("Concat", map[string]Attr{"axis": {int64(0)}}, rows, s.ints(p)))
	if past == nil {
		return s.splice(mask, 1, 0, 0, ones)
	}
	before := s.extent(past, 2)
	s.at = max(s.g.position(ones), s.g.position(before)) + 1
	from := s.at
	head := s.op("Slice", nil, mask, s.ints(0), before, s.ints(1))
	tail := s.op("Slice", nil, mask, before, s.ints(math.MaxInt64), s.ints(1))
	out := s.op("Concat", map[string]Attr{"axis": {int64(1)}}, head, ones, tail)
	out.Type = mask.Type
	s.reroute(mask, out, from)
	return out
}

func (s *surgery) ones(t DataType, shape *Value) *Value {
	ones := s.op("ConstantOfShape", map[string]Attr{"value": {NewTensor([]int64{1}, 1)}}, shape)
	ones.Type = Int64
	return s.cast(ones, t)
}

// longerPositions counts the prefix from the past's end and the tokens behind it.
func (s *surgery) longerPositions(positions *Value, p int64, past *Value) *Value {
	places := make([]int64, p)
	for i := range places {
		places[i] = int64(i)
	}
	rows := s.extent(positions, 0)
	start := s.ints(0)
	if past != nil {
		start = s.extent(past, 2)
	}
	s.at = max(s.g.position(rows), s.g.position(start)) + 1
	from := s.at
	at := s.op("Add", nil, s.g.constant("places", NewTensor(places, 1, p)), start)
	at.Type = Int64
	at = s.op("Expand", nil, s.cast(at, positions.Type), s.op("Concat", map[string]Attr{"axis": {int64(0)}}, rows, s.ints(p)))
	behind := s.op("Add", nil, positions, s.cast(s.ints(p), positions.Type))
	out := s.op("Concat", map[string]Attr{"axis": {int64(1)}}, at, behind)
	out.Type = positions.Type
	s.reroute(positions, out, from)
	return out
}

// PrefixOptions says which prefix [DecoderTower.WithPrefix] or [DecoderTower.WithKeyValues] adds.
type PrefixOptions struct {
	Tokens int // P >= 1
	// PerRow makes the prefix [batch,..]; otherwise it is [1,..], for all rows.
	PerRow bool
	// Bank makes the prefix [prefixes,..]; the input "prefix_index", int64 [batch], says which of
	// them each row gets.
	Bank bool
	// KeepLogits leaves the logits at the prefix's own places in the output, [B,P+S,V]. It has no
	// meaning for keys and values.
	KeepLogits bool
	// Unplaced has the text begin at place 0, as it does without a prefix: keys and values then stand at no place. It has no
	// meaning for a soft prefix, whose tokens need places.
	Unplaced bool
}

// WithPrefix returns a graph with the input "prefix" [1,P,D]: embeddings that come before those of
// the tokens, where positions are still to be added (prompt tuning; Lester et al. 2021). They take places 0 to
// P-1, or those behind the past, and the tokens the ones that follow; the attention mask lets all
// see them that are not before them. The logits are the tokens' alone, [B,S,V]; present keys and
// values hold the prefix's too, so that decoding goes on with the original graph, with a
// mask and positions that count P more.
func (t *DecoderTower) WithPrefix(o PrefixOptions) (*Graph, error) {
	if o.Tokens < 1 {
		return nil, errs.New(errs.Invalid, "a prefix of %d tokens: 1 or more are possible", o.Tokens)
	}
	return t.withPrefix(o)
}

// withPrefix takes 0 tokens as well, which change nothing.
func (t *DecoderTower) withPrefix(o PrefixOptions) (_ *Graph, err error) {
	defer recoverBail(&err)
	of, err := t.admit(o)
	if err != nil {
		return nil, err
	}
	p := int64(o.Tokens)
	s, to, err := t.extended(p)
	if err != nil {
		return nil, err
	}
	embedding := to[t.Embedding]
	prefix := s.prefix("prefix", embedding.Type, to[t.IDs], of, p, int64(t.Width))
	s.splice(embedding, 1, 0, p, prefix)
	if !o.KeepLogits {
		s.behind(to[t.Logits], p)
	}
	return s.g, finish(s.g)
}

// admit checks the options.
func (t *DecoderTower) admit(o PrefixOptions) (owner, error) {
	if room := t.LongestText(o.Tokens); t.Window > 0 {
		if s, fixed := t.IDs.Shape[1].Int(); room < 1 || fixed && int(s) > room {
			return shared, errs.New(errs.Invalid, "a prefix of %d tokens leaves %d of the position table's %d places to the text (input %q of shape %s)", o.Tokens, max(0, room), t.Window, t.IDs.Name, t.IDs.Shape)
		}
	}
	return ownerOf(o.PerRow, o.Bank)
}

// LongestText is how many tokens, past ones among them, fit the position table behind a prefix; -1
// where there is no table.
func (t *DecoderTower) LongestText(prefix int) int {
	if t.Window == 0 {
		return -1
	}
	return t.Window - prefix
}

// Embeddings returns the token table's rows for ids, one after the other: [len(ids),D].
func (t *DecoderTower) Embeddings(ids []int64) ([]float32, error) {
	return (&TextTower{Table: t.Table, Width: t.Width}).Embeddings(ids)
}

// prefix adds an input of the given extents behind the rows' and gives it a row for each of the
// batch of ids.
func (s *surgery) prefix(name string, elem DataType, ids *Value, of owner, extents ...int64) *Value {
	rows := map[owner]Dim{shared: Known(1), perRow: ids.Shape[0], bank: Sym("prefixes")}[of]
	in := s.input(name, Float, joined(Shape{rows}, known(extents)))
	batch := s.extent(ids, 0)
	x := s.cast(in, elem)
	switch of {
	case perRow:
		return x
	case bank:
		s.like = ids
		return s.op("Gather", map[string]Attr{"axis": {int64(0)}}, x, s.index("prefix"))
	}
	ones := make([]int64, len(extents))
	for i := range ones {
		ones[i] = 1
	}
	return s.op("Expand", nil, x, s.op("Concat", map[string]Attr{"axis": {int64(0)}}, batch, s.ints(ones...)))
}

// behind leaves the first p places out of an output of the graph [B,P+S,..]. The new one bears
// its name.
func (s *surgery) behind(output *Value, p int64) {
	s.at = len(s.g.Nodes)
	out := s.op("Slice", nil, output, s.ints(p), s.ints(math.MaxInt64), s.ints(1))
	out.Type = output.Type
	name := output.Name
	output.Name = s.g.freshName("all")
	out.Name = name
	replaceIn(s.g.Outputs, output, out)
}

// WithKeyValues returns a graph with the inputs "prefix_key.i" and "prefix_value.i" [1,H,P,d] for
// the i-th layer of self attention: keys and values that come before the layer's own, as past ones do (prefix
// tuning; Li and Liang 2021). Where positions are learned or rotary, the tokens' begin at P; learned ones begin at
// 0 where the prefix is Unplaced. Where the graph takes past keys and values, the prefix takes their place; elsewhere P tokens
// are put before the others and each layer's keys and values of them are overwritten. The logits
// are the tokens' alone; present keys and values hold the prefix.
func (t *DecoderTower) WithKeyValues(o PrefixOptions) (*Graph, error) {
	if o.Tokens < 1 {
		return nil, errs.New(errs.Invalid, "keys and values of %d tokens: 1 or more are possible", o.Tokens)
	}
	return t.withKeyValues(o)
}

// withKeyValues takes 0 tokens as well, which change nothing.
func (t *DecoderTower) withKeyValues(o PrefixOptions) (_ *Graph, err error) {
	defer recoverBail(&err)
	of, err := t.admit(o)
	if err != nil {
		return nil, err
	}
	var layers []DecoderLayer
	for i, l := range t.Layers {
		if !l.Cross {
			layers = append(layers, l)
			if l.Heads == 0 {
				return nil, unpromptable("the keys and values of attention %d never stand as [batch,heads,tokens,width]", i)
			}
		}
	}
	if len(layers) == 0 {
		return nil, unpromptable("no self attention was found")
	}
	if t.past() != nil {
		return t.fed(layers, o, of)
	}
	p := int64(o.Tokens)
	s, to, err := t.extended(p)
	if err != nil {
		return nil, err
	}
	for i, l := range layers {
		for j, at := range []place{l.key, l.value} {
			x := to[at.v]
			prefix := s.prefix(keyValueName(i, j), x.Type, to[t.IDs], of, int64(l.Heads), p, int64(l.HeadWidth))
			s.splice(x, at.axis, 0, p, s.tokensAt(prefix, at.axis))
		}
	}
	s.behind(to[t.Logits], p)
	if o.Unplaced {
		t.unplace(s, to, p)
	}
	return s.g, finish(s.g)
}

// Unplaced returns a graph that counts p places fewer before the tokens than there are: the first p of the past are keys and
// values that stand at no place ([PrefixOptions]). Only learned positions are counted so: those that
// are rotary, or biases by distance, tell tokens' distances, which places before them all do not change.
func (t *DecoderTower) Unplaced(p int) (_ *Graph, err error) {
	defer recoverBail(&err)
	g, to := t.Graph.CloneMap()
	t.unplace(newSurgery(g, to[t.Embedding]), to, int64(p))
	return g, finish(g)
}

// unplace has each token look up the row p places before its own, the first ones row 0.
func (t *DecoderTower) unplace(s *surgery, to map[*Value]*Value, p int64) {
	if t.table && len(t.lookups) == 0 {
		panic(bail{unpromptable("its positions are not looked up by the tokens' places, so that a prefix takes places")})
	}
	for _, v := range t.lookups {
		row := to[v]
		at := row.Def.Inputs[1]
		s.at = s.g.position(row)
		before := s.op("Sub", nil, at, s.cast(s.ints(p), at.Type))
		before.Type = at.Type
		first := s.op("Max", nil, before, s.cast(s.ints(0), at.Type))
		first.Type = at.Type
		row.Def.Inputs[1] = first
	}
}

func keyValueName(layer, which int) string {
	return []string{"prefix_key.", "prefix_value."}[which] + strconv.Itoa(layer)
}

// tokensAt brings the tokens of [B,H,P,d] to an axis; the others keep their order.
func (s *surgery) tokensAt(x *Value, axis int) *Value {
	if axis == 2 {
		return x
	}
	perm := slices.Insert([]int64{0, 1, 3}, axis, 2)
	return s.op("Transpose", map[string]Attr{"perm": {perm}}, x)
}

// fed puts the prefix in the place of the past.
func (t *DecoderTower) fed(layers []DecoderLayer, o PrefixOptions, of owner) (*Graph, error) {
	p := int64(o.Tokens)
	if len(t.others) > 0 {
		return nil, unpromptable("input %q of shape %s: it can't be told what a prefix has there", t.others[0].Name, t.others[0].Shape)
	}
	g, to := t.Graph.CloneMap()
	s := newSurgery(g, to[t.Embedding])
	ids := to[t.IDs]
	var gone []*Value
	for i, l := range layers {
		for j, past := range []*Value{l.PastKey, l.PastValue} {
			if past == nil {
				return nil, unpromptable("layer %d has no past, others have", i)
			}
			prefix := s.prefix(keyValueName(i, j), past.Type, ids, of, int64(l.Heads), p, int64(l.HeadWidth))
			s.reroute(to[past], prefix, s.at)
			gone = append(gone, to[past])
		}
	}
	g.Inputs = slices.DeleteFunc(g.Inputs, func(v *Value) bool { return slices.Contains(gone, v) })
	if mask := to[t.Mask]; mask != nil {
		mask.Shape = mask.Shape.with(1, ids.Shape[1])
		s.longerMask(mask, p, nil)
	}
	if positions := to[t.Positions]; positions != nil {
		s.at = 0
		by := s.cast(s.ints(p), positions.Type)
		from := s.at
		s.reroute(positions, s.op("Add", nil, positions, by), from)
	}
	if o.Unplaced {
		t.unplace(s, to, p)
	}
	return g, finish(g)
}
