package graph

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// ImageHints say what [FindImageTower] would otherwise find, by the names that values have in the
// file. What is left out is found; what contradicts the graph is an error of kind [errs.Invalid].
type ImageHints struct {
	Pixels      string   // the input [B,C,H,W]
	Insert      string   // the tokens that prompts join: [B,N,D]
	ClassTokens *int     // how many of them, at the front, stand before the prompts
	Blocks      []string // the blocks' inputs, the first one's first
	TokenAxis   *int     // of the blocks' inputs: 1 in [B,N,D], 0 in [N,B,D]
}

// tokensNamed finds a value by a name that a hint gives, and makes sure that it lies on a path from
// the given value to the output and has three axes.
func tokensNamed(g *Graph, key, name string, from *Value, on map[*Value]bool) (*Value, error) {
	for v := range g.values() {
		if v.Name != name {
			continue
		}
		if len(v.Shape) != 3 {
			return nil, errs.New(errs.Invalid, "%s: %q has shape %s; it has to be [batch,tokens,width] or [tokens,batch,width]", key, name, v.Shape)
		}
		if !on[v] {
			return nil, errs.New(errs.Invalid, "%s: %q is on no way from %q to %s", key, name, from.Name, names(g.Outputs))
		}
		return v, nil
	}
	return nil, errs.New(errs.Invalid, "%s: the graph that computes %s has no tensor %q", key, names(g.Outputs), name)
}

// blocksNamed finds block inputs by name: in order, each on a path from the given value.
func blocksNamed(g *Graph, hints []string, from *Value) ([]*Value, error) {
	on := activeValues(g, g.Outputs, []*Value{from})
	var blocks []*Value
	for i, name := range hints {
		v, err := tokensNamed(g, "blocks", name, from, on)
		if err != nil {
			return nil, err
		}
		if i > 0 && g.position(v) <= g.position(blocks[i-1]) {
			return nil, errs.New(errs.Invalid, "blocks: %q does not come after %q", name, blocks[i-1].Name)
		}
		blocks = append(blocks, v)
	}
	return blocks, nil
}

// agree compares the finding with the hint, where there is one.
func agree(key string, hint *int, found int) error {
	if hint != nil && *hint != found {
		return errs.New(errs.Invalid, "%s is said to be %d, in the graph it is %d", key, *hint, found)
	}
	return nil
}

// cutAt is the segment that begins at v, -1 when none does.
func cutAt(segments []segment, v *Value) int {
	return slices.IndexFunc(segments, func(s segment) bool { return s.cut == v })
}
