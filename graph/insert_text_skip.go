package graph

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// WithoutBlocks returns the tower without its last n blocks: what follows them, such as the last norm,
// reads the tokens as they enter the first that is left out ("CLIP skip"; Stable Diffusion 2 and many
// fine-tuned models look one or two blocks back).
func (t *TextTower) WithoutBlocks(n int) (_ *TextTower, err error) {
	defer recoverBail(&err)
	if n < 0 || n >= len(t.Blocks) {
		return nil, errs.New(errs.Invalid, "%d blocks left out of a text tower of %d: one has to be left", n, len(t.Blocks))
	}
	if n == 0 {
		return t, nil
	}
	end := t.lastTokens()
	if end == nil {
		return nil, errs.New(errs.Unsupported, "the text tower's tokens are not told apart behind its last block: none can be left out")
	}
	g, to := t.Graph.CloneMap()
	g.replaceUses(to[end], to[t.Blocks[len(t.Blocks)-n]], g.position(to[end])+1)
	g.Prune()
	if err := finish(g); err != nil {
		return nil, err
	}
	return FindTextTower(g, t.Output.Name)
}

// lastTokens are the tokens as they leave the last block, its feed-forward half too; nil where nothing
// follows them that is told apart.
func (t *TextTower) lastTokens() *Value {
	last := t.Blocks[len(t.Blocks)-1]
	all := segments(t.Graph, t.Embedding)
	for _, s := range slices.Backward(all) {
		if s.cut == last {
			return nil
		}
		if s.cut != t.Output && s.cut.Shape.Equal(last.Shape) {
			return s.cut
		}
	}
	return nil
}
