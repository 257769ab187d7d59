package graph

import "math"

// Heads is the number of attention heads of the first block, 0 where it can't be told.
func (t *ImageTower) Heads() int { return heads(t.Graph, t.Pixels, t.Blocks[0], t.TokenAxis) }

// Heads is the number of attention heads of the first block, 0 where it can't be told.
func (t *TextTower) Heads() int { return heads(t.Graph, t.Embedding, t.Blocks[0], t.TokenAxis) }

// heads counts the rows of scores that each of the batch's rows has for each token, in the softmax that follows
// the block's input: scores are [B,H,N,N], or their first axes are one.
func heads(g *Graph, start, block *Value, tokenAxis int) int {
	active := activeValues(g, g.Outputs, []*Value{start})
	for _, n := range g.Nodes[g.position(block)+1:] {
		if n.Op != "Softmax" || !active[n.Inputs[0]] {
			continue
		}
		scores := n.Inputs[0].Shape
		if len(scores) < 2 || len(block.Shape) != 3 {
			return 0
		}
		count, exact := scores[:len(scores)-1].Count().exact(block.Shape[1-tokenAxis].Mul(block.Shape[tokenAxis]))
		if n, known := count.Int(); exact && known {
			return int(n)
		}
		return 0
	}
	return 0
}

// Grid is how many rows and columns of patches the tokens behind the class tokens stand for, 0 and 0 where
// they can't be told: the extents of the convolution that cuts the image, else a square.
func (t *ImageTower) Grid() (rows, columns int) {
	patches := int64(t.Tokens - t.ClassTokens)
	for _, n := range t.Graph.Nodes {
		if n.Op != "Conv" || len(n.Outputs[0].Shape) != 4 {
			continue
		}
		h, ok1 := n.Outputs[0].Shape[2].Int()
		w, ok2 := n.Outputs[0].Shape[3].Int()
		if ok1 && ok2 && h*w == patches {
			return int(h), int(w)
		}
	}
	if side := int64(math.Sqrt(float64(patches))); side*side == patches {
		return int(side), int(side)
	}
	return 0, 0
}
