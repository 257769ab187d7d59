package graph

import (
	"math"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// ContextOptions says which context [TextTower.WithContext] adds, and where.
type ContextOptions struct {
	Tokens int // M >= 1
	// Start is the position of the first context token; 1, after the start token, is usual.
	Start int
	// Placed makes every token's position an input, "context_at", int64 [batch,M], in place of
	// Start: before, in the middle of or behind a class name, elsewhere in each row.
	Placed bool
	// Insert makes the context more tokens, in front of the one at Start. Otherwise it takes
	// the place of M placeholders that the ids hold.
	Insert bool
	// Pooled lets the context take part in what follows the last block. By default a tower that
	// averages its tokens averages those of the text alone, and the output of a tower that gives
	// out all tokens has no inserted ones.
	Pooled bool
	// Depth is the number of blocks that get context of their own; 1 is shallow.
	Depth int
	// PerRow makes the context [batch,M,D]; otherwise it is [1,M,D], for all rows.
	PerRow bool
	// Bank makes the context [prompts,M,D]; the input "context_index", int64 [batch], says which
	// of them each row gets.
	Bank bool
}

// WithContext returns a graph with the inputs "context.0" .. "context.{Depth-1}". The first
// replaces the embeddings of M tokens, to which positions are still added (CoOp); each other one
// overwrites the same slots at its block (MaPLe). The ids at those places are placeholders, so
// that the text keeps its length and its end.
//
// With Insert the graph takes the text alone. Ids, mask and token types are made longer inside it,
// by repeating those of the token in front of Start (of the first one where Start is 0), so that
// the context is attended to where that token is; the tokens behind move to later positions.
func (t *TextTower) WithContext(o ContextOptions) (*Graph, error) {
	if o.Tokens < 1 {
		return nil, errs.New(errs.Invalid, "%d context tokens: 1 or more are possible", o.Tokens)
	}
	return t.withContext(o)
}

// withContext takes 0 tokens as well, which change nothing.
func (t *TextTower) withContext(o ContextOptions) (_ *Graph, err error) {
	defer recoverBail(&err)
	c, err := t.addContext(o)
	if err != nil {
		return nil, err
	}
	return c.g, finish(c.g)
}

// addContext does the surgery.
func (t *TextTower) addContext(o ContextOptions) (*contextInsertion, error) {
	of, err := t.checkContext(o)
	if err != nil {
		return nil, err
	}
	c := t.insertion(o)
	leaveOut := !o.Pooled && (o.Insert || t.averages())
	switch {
	case leaveOut && t.end == nil:
		return nil, unpromptable("the tokens leave the last block by several ways, so that the context can't be left out behind it: let it be pooled")
	case o.Insert:
		err = c.lengthen(leaveOut)
	case leaveOut:
		err = c.shorten()
	}
	if err != nil {
		return nil, err
	}
	var layers []*Value
	for i := range o.Depth {
		layers = append(layers, c.prompt(PromptName("context", i), c.count, int64(t.Width), of))
	}
	c.put(c.like, 1, layers[0])
	for i, p := range layers[1:] {
		c.put(c.to[t.Blocks[i+1]], t.TokenAxis, p)
	}
	if leaveOut {
		c.take(c.to[t.end], t.TokenAxis)
	}
	return c, nil
}

func (t *TextTower) checkContext(o ContextOptions) (owner, error) {
	switch end := o.Start + o.Tokens; {
	case o.Tokens < 0 || o.Start < 0 || o.Depth < 1 || o.Depth > len(t.Blocks):
		return shared, errs.New(errs.Invalid, "%d context tokens from position %d to depth %d: a position of 0 or later and a depth of 1 to %d are possible", o.Tokens, o.Start, o.Depth, len(t.Blocks))
	case o.Placed && o.Insert:
		return shared, errs.New(errs.Invalid, "context tokens at places of their own in each row take the places of tokens: they are not inserted")
	case t.Window > 0 && !o.Placed && end+1 > t.Window:
		return shared, errs.New(errs.Invalid, "%d context tokens from position %d do not fit the text window of %d", o.Tokens, o.Start, t.Window)
	}
	return ownerOf(o.PerRow, o.Bank)
}

// contextInsertion is the surgery that puts context into a copy of a text tower.
type contextInsertion struct {
	*surgery
	tower        *TextTower
	to           map[*Value]*Value // the tower's values in the copy
	ids          *Value
	start, count int64
	places       *Value          // [B,M]; nil where all rows have them from start on
	carried      map[*Value]bool // what is computed from the tokens
	front        int             // where the next node goes that needs inputs alone
}

func (t *TextTower) insertion(o ContextOptions) *contextInsertion {
	g, to := t.Graph.CloneMap()
	c := &contextInsertion{
		surgery: newSurgery(g, to[t.Embedding]), tower: t, to: to, ids: to[t.IDs], start: int64(o.Start), count: int64(o.Tokens),
		carried: carried(g, to[t.Embedding]),
	}
	if o.Placed {
		c.places = c.input("context_at", Int64, Shape{c.ids.Shape[0], Known(c.count)})
	}
	return c
}

// ahead calls f to insert nodes in front of all others but those of earlier calls.
func (c *contextInsertion) ahead(f func() *Value) *Value {
	c.at = c.front
	v := f()
	c.front = c.at
	return v
}

// put overwrites the context's slots in x, whose tokens lie along the axis, with p [B,M,D].
func (c *contextInsertion) put(x *Value, axis int, p *Value) {
	if c.places == nil {
		if axis == 0 {
			c.at = c.g.position(p) + 1
			p = c.op("Transpose", map[string]Attr{"perm": {[]int64{1, 0, 2}}}, p)
		}
		c.splice(x, axis, c.start, c.count, p)
		return
	}
	where := c.pairs(c.places, axis)
	c.at = max(c.g.position(x), c.g.position(p)) + 1
	from := c.at
	out := c.op("ScatterND", nil, x, where, p)
	out.Type = x.Type
	c.reroute(x, out, from)
}

// take takes the context's slots out of x, whose tokens lie along the axis.
func (c *contextInsertion) take(x *Value, axis int) {
	var where *Value
	if c.places != nil {
		where = c.pairs(c.kept(), axis)
	}
	c.at = c.g.position(x) + 1
	from := c.at
	var out *Value
	switch {
	case where == nil:
		out = c.without(x, axis)
	case axis == 1:
		out = c.op("GatherND", nil, x, where)
	default:
		out = c.op("Transpose", map[string]Attr{"perm": {[]int64{1, 0, 2}}}, c.op("GatherND", nil, x, where))
	}
	out.Type = x.Type
	c.reroute(x, out, from)
}

// without is x but for the slots that all rows have at the same place.
func (c *contextInsertion) without(x *Value, axis int) *Value {
	rest := c.slice(x, axis, c.start+c.count, math.MaxInt64)
	if c.start == 0 {
		return rest
	}
	return c.op("Concat", map[string]Attr{"axis": {int64(axis)}}, c.slice(x, axis, 0, c.start), rest)
}

func (c *contextInsertion) slice(x *Value, axis int, from, to int64) *Value {
	return c.op("Slice", nil, x, c.ints(from), c.ints(to), c.ints(int64(axis)))
}

// kept are each row's places without the context's, in order: [B,S-M].
func (c *contextInsertion) kept() *Value {
	return c.ahead(func() *Value {
		length := c.op("Shape", map[string]Attr{"start": {int64(1)}, "end": {int64(2)}}, c.ids)
		all := c.op("Expand", nil, c.upTo(length), c.op("Shape", nil, c.ids))
		behind := c.op("Expand", nil, length, c.op("Shape", nil, c.places))
		marked := c.op("ScatterElements", map[string]Attr{"axis": {int64(1)}}, all, c.places, behind)
		least := c.op("TopK", map[string]Attr{"axis": {int64(1)}, "largest": {int64(0)}, "sorted": {int64(1)}}, marked, c.op("Sub", nil, length, c.ints(c.count)))
		least.Def.Outputs = append(least.Def.Outputs, &Value{Name: c.g.freshName("TopK"), Def: least.Def})
		return least
	})
}

// upTo is 0, 1, ... below the length [1].
func (s *surgery) upTo(length *Value) *Value {
	zero, one := s.g.constant("const", NewTensor([]int64{0})), s.g.constant("const", NewTensor([]int64{1}))
	return s.op("Range", nil, zero, s.op("Squeeze", nil, length, s.ints(0)), one)
}

// pairs says for ScatterND and GatherND which tokens the places [B,K] name: [B,K,2], a row and a
// place, the other way round where the tokens lie along axis 0.
func (c *contextInsertion) pairs(places *Value, axis int) *Value {
	return c.ahead(func() *Value {
		rows := c.upTo(c.op("Shape", map[string]Attr{"start": {int64(0)}, "end": {int64(1)}}, c.ids))
		rows = c.op("Expand", nil, c.op("Unsqueeze", nil, rows, c.ints(1)), c.op("Shape", nil, places))
		parts := []*Value{c.op("Unsqueeze", nil, rows, c.ints(2)), c.op("Unsqueeze", nil, places, c.ints(2))}
		if axis == 0 {
			slices.Reverse(parts)
		}
		return c.op("Concat", map[string]Attr{"axis": {int64(2)}}, parts...)
	})
}

// lengthen makes what leads to the tokens' end read texts that have slots for the context; what
// follows goes on reading the text alone where the context is left out.
func (c *contextInsertion) lengthen(leaveOut bool) error {
	if _, fixed := c.ids.Shape[1].Int(); fixed {
		return unpromptable("the length of the text in %s is fixed, so that no context can be inserted: put it in the place of tokens", c.ids.Shape)
	}
	after := map[*Node]bool{}
	if leaveOut {
		after = c.afterEnd()
	}
	return c.fork(c.longer, func(n *Node) bool { return !after[n] })
}

// shorten makes what follows the tokens' end read the text without the context's slots.
func (c *contextInsertion) shorten() error {
	after := c.afterEnd()
	return c.fork(c.shorter, func(n *Node) bool { return after[n] })
}

// longer makes room for the context in an input [B,S], which becomes [B,S+M].
func (c *contextInsertion) longer(v *Value) *Value {
	before := max(c.start-1, 0)
	room := c.op("Expand", nil, c.slice(v, 1, before, before+min(1, c.count)), c.ints(1, c.count)) // runtimes disagree about 1 expanded to 0
	rest := c.slice(v, 1, c.start, math.MaxInt64)
	if c.tower.Positions != nil && v == c.to[c.tower.Positions] {
		steps := make([]int64, c.count)
		for i := range steps {
			steps[i] = int64(i) + min(c.start, 1)
		}
		room = c.op("Add", nil, room, c.g.integers("const", v.Type, steps, int64(len(steps))))
		rest = c.op("Add", nil, rest, c.g.integers("const", v.Type, []int64{c.count}, 1))
	}
	parts := []*Value{room, rest}
	if c.start > 0 {
		parts = append([]*Value{c.slice(v, 1, 0, c.start)}, parts...)
	}
	return c.op("Concat", map[string]Attr{"axis": {int64(1)}}, parts...)
}

// shorter takes the context's slots out of an input [B,S].
func (c *contextInsertion) shorter(v *Value) *Value {
	if c.places == nil {
		return c.without(v, 1)
	}
	return c.op("GatherElements", map[string]Attr{"axis": {int64(1)}}, v, c.kept())
}
