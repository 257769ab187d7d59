package graph

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// TextHints say what [FindTextTower] would otherwise find, by the names that values have in the file.
// What is left out is found; what contradicts the graph is an error of kind [errs.Invalid].
type TextHints struct {
	IDs        string   // the input of token ids [B,S]
	Mask       string   // the input of the attention mask [B,S]
	TokenTypes string   // the input of token types [B,S]
	Positions  string   // the input of position ids [B,S]
	Embedding  string   // the rows of the token table, ahead of positions: [B,S,D]
	Positioned string   // the tokens once positions are added, which tells how long a text may be
	Blocks     []string // the blocks' inputs, the first one's first
	TokenAxis  *int     // of the blocks' inputs: 1 in [B,S,D], 0 in [S,B,D]
	End        string   // the tokens as they leave the last block
	Pooling    string   // what follows: first, last, end, mean or none
	Start      *int     // the place of a text where context begins
	Trims      *bool    // whether what follows a text's end changes nothing
}

// input finds a graph input [B,S] of integers that a hint names.
func (t *TextTower) input(key, name string) (*Value, error) {
	v := t.Graph.Input(name)
	switch {
	case v == nil:
		return nil, errs.New(errs.Invalid, "%s: the graph that computes %s has no input %q (it has %s)", key, names(t.Graph.Outputs), name, names(t.Graph.Inputs))
	case len(v.Shape) != 2:
		return nil, errs.New(errs.Invalid, "%s: %q has shape %s; it has to be [batch,sequence]", key, name, v.Shape)
	}
	return v, nil
}

// tokensLookedUp is the look-up that makes the embeddings: the one that a hint names, else the one in the longest table,
// of the ids where a hint names them.
func (t *TextTower) tokensLookedUp(h TextHints) (found lookUp, err error) {
	var ids *Value
	if h.IDs != "" {
		if ids, err = t.input("ids", h.IDs); err != nil {
			return found, err
		}
	}
	all := t.lookUps()
	if h.Embedding != "" {
		found, err = t.embeddingNamed(h.Embedding, ids)
		if err != nil {
			return found, err
		}
	} else {
		for _, l := range all {
			if l.rows > found.rows && (ids == nil || l.input == ids) {
				found = l
			}
		}
	}
	switch {
	case found.node == nil && ids != nil:
		return found, errs.New(errs.Invalid, "ids: %q is looked up in no table; looked up are %s", h.IDs, lookedUp(all))
	case found.node == nil:
		return found, unpromptable("no look-up of token ids [batch,sequence] in a table was found")
	case ids != nil && found.input != ids:
		return found, errs.New(errs.Invalid, "ids are said to be %q, in the graph the embeddings %q are of %q", h.IDs, found.embedding.Name, found.input.Name)
	}
	return found, nil
}

func lookedUp(all []lookUp) string {
	var inputs []*Value
	for _, l := range all {
		if !slices.Contains(inputs, l.input) {
			inputs = append(inputs, l.input)
		}
	}
	return names(inputs)
}

// embeddingNamed is the look-up that makes a named value, perhaps in another form.
func (t *TextTower) embeddingNamed(name string, ids *Value) (lookUp, error) {
	v := find(slices.Collect(t.Graph.values()), name)
	if v == nil {
		return lookUp{}, errs.New(errs.Invalid, "embedding: the graph that computes %s has no tensor %q", names(t.Graph.Outputs), name)
	}
	if len(v.Shape) != 3 {
		return lookUp{}, errs.New(errs.Invalid, "embedding: %q has shape %s; it has to be [batch,sequence,width]", name, v.Shape)
	}
	from := v
	for from.Def != nil && onlyCopies[from.Def.Op] {
		from = from.Def.Inputs[0]
	}
	n := from.Def
	if n == nil || n.Op != "Gather" || !isTable(n.Inputs[0]) {
		return lookUp{}, errs.New(errs.Invalid, "embedding is said to be %q, in the graph that is no look-up in a table but made by %s", name, made(from))
	}
	input := spelled(n.Inputs[1])
	if input == nil && ids != nil && reached(t.Graph, ids)[n.Inputs[1]] {
		input = ids
	}
	if input == nil {
		return lookUp{}, errs.New(errs.Invalid, "embedding: %q looks up %q, which is no input of the graph: name the ids as well", name, n.Inputs[1].Name)
	}
	rows, _ := n.Inputs[0].Shape[0].Int()
	return lookUp{n, v, input, int(rows)}, nil
}

// made says what makes a value.
func made(v *Value) string {
	if v.Def == nil {
		return "no node"
	}
	return "node \"" + v.Def.Name + "\" (" + v.Def.Op + ")"
}

// takeInputs replaces the found inputs by those that hints name.
func (t *TextTower) takeInputs(h TextHints) error {
	tables := map[*Value]int{}
	for _, l := range t.lookUps() {
		tables[l.input] = l.rows
	}
	for _, hint := range []struct {
		key, name string
		to        **Value
		looked    bool // it has to be looked up in a table
	}{{"mask", h.Mask, &t.Mask, false}, {"token_types", h.TokenTypes, &t.Segments, true}, {"position_ids", h.Positions, &t.Positions, false}} {
		if hint.name == "" {
			continue
		}
		v, err := t.input(hint.key, hint.name)
		if err != nil {
			return err
		}
		rows, looked := tables[v]
		switch {
		case v == t.IDs:
			return errs.New(errs.Invalid, "%s is said to be %q, in the graph that is the ids", hint.key, v.Name)
		case looked && hint.key == "mask":
			return errs.New(errs.Invalid, "mask is said to be %q, in the graph that is looked up in a table of %d rows", v.Name, rows)
		case !looked && hint.looked:
			return errs.New(errs.Invalid, "%s is said to be %q, in the graph that is looked up in no table", hint.key, v.Name)
		}
		for _, other := range []**Value{&t.Mask, &t.Segments, &t.Positions} {
			if *other == v {
				*other = nil
			}
		}
		*hint.to = v
	}
	return nil
}

// endNamed is a named value where the tokens leave the last block.
func (t *TextTower) endNamed(name string, all []segment) (*Value, error) {
	end, err := tokensNamed(t.Graph, "end", name, t.Embedding, all[0].active)
	if err != nil {
		return nil, err
	}
	last := t.Blocks[len(t.Blocks)-1]
	switch {
	case !end.Shape.Equal(last.Shape):
		return nil, errs.New(errs.Invalid, "end: %q has shape %s, the last block's input %q %s", name, end.Shape, last.Name, last.Shape)
	case t.Graph.position(end) <= t.Graph.position(last):
		return nil, errs.New(errs.Invalid, "end: %q does not come after the last block's input %q", name, last.Name)
	case end != t.Output && cutAt(all, end) < 0:
		return nil, errs.New(errs.Invalid, "end: %q is not the only way from the last block's input %q to %q", name, last.Name, t.Output.Name)
	}
	return end, nil
}

// windowNamed reads how long a text may be off a named value, the tokens once positions are added.
func (t *TextTower) windowNamed(name string) (int, error) {
	on := activeValues(t.Graph, t.Graph.Outputs, []*Value{t.Embedding})
	v, err := tokensNamed(t.Graph, "positioned", name, t.Embedding, on)
	if err != nil {
		return 0, err
	}
	longest := 0
	if n := v.Def; n != nil && n.Op == "Add" {
		for _, x := range n.Inputs {
			if !on[x] {
				longest = max(longest, places(x, t.Table, t.Width, 0))
			}
		}
	}
	if longest == 0 {
		return 0, errs.New(errs.Invalid, "positioned is said to be %q, in the graph no table of positions is added there: it is made by %s", name, made(v))
	}
	return longest, nil
}

// findPooling finds what follows the last block, and whether texts may be trimmed, or takes what hints say
// where the graph leaves it open. Context's place is always a hint's.
func (t *TextTower) findPooling(h TextHints) error {
	t.Pooling = t.pooling()
	if said := Pooling(h.Pooling); said != "" {
		known := []Pooling{PoolFirst, PoolLast, PoolEnd, PoolMean, PoolNone}
		switch {
		case !slices.Contains(known, said):
			return errs.New(errs.Invalid, "pooling is said to be %q: it is one of %q", said, known)
		case t.Pooling != "" && t.Pooling != said:
			return errs.New(errs.Invalid, "pooling is said to be %q, in the graph it is %q", said, t.Pooling)
		}
		t.Pooling = said
	}
	if t.Pooling == PoolLast && t.Mask != nil {
		return unpromptable("the output %q is of the last token, also where the mask %q hides it as padding, which is put behind a text: export the tower with the token that the mask points at, or without a mask", t.Output.Name, t.Mask.Name)
	}
	t.Trims = t.findTrims()
	if h.Trims != nil {
		if *h.Trims && t.Pooling == PoolLast {
			return errs.New(errs.Invalid, "trims is said to be true, in the graph the output %q is of the last token, whatever that is", t.Output.Name)
		}
		t.Trims = *h.Trims
	}
	if t.Start = h.Start; t.Start != nil && (*t.Start < 0 || t.Window > 0 && *t.Start > t.Window-2) {
		return errs.New(errs.Invalid, "start is said to be %d, in the graph texts have %d places, the last for their end", *t.Start, t.Window)
	}
	return nil
}
