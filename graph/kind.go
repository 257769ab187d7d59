package graph

import "slices"

// Kind says what an output is computed from.
type Kind string

const (
	// KindImage is computed from images [B,C,H,W] alone.
	KindImage Kind = "image"
	// KindText is computed from token ids [B,S] and what goes with them.
	KindText Kind = "text"
	// KindDecoder is scores of each token of a vocabulary [B,S,V], computed from token ids.
	KindDecoder Kind = "decoder"
	// KindJoint is computed from images and token ids, as similarities are.
	KindJoint Kind = "joint"
	// KindOther is none of these.
	KindOther Kind = "other"
)

// KindOf says what the named output is computed from: by the ranks and types of the inputs that lead to
// it, and, for a decoder, by an extent that is a token table's.
func KindOf(g *Graph, output string) (Kind, error) {
	only, err := g.Only(output)
	if err != nil {
		return KindOther, err
	}
	images, ids := 0, 0
	for _, v := range only.Inputs {
		switch {
		case v.Type.IsFloat() && len(v.Shape) == 4 && !isCache(v):
			images++
		case !v.Type.IsFloat() && len(v.Shape) == 2:
			ids++
		}
	}
	y := only.Outputs[0]
	if only.Infer() != nil { // a size that the file leaves open and the graph does not
		y.Shape = nil
	}
	switch {
	case len(y.Shape) > 3:
		return KindOther, nil
	case ids > 0 && only.scoresTokens():
		return KindDecoder, nil
	case ids > 0 && images > 0:
		return KindJoint, nil
	case ids > 0:
		return KindText, nil
	case images > 0 && images == len(only.Inputs):
		return KindImage, nil
	}
	return KindOther, nil
}

// isCache says whether an input [B,H,past,d] is a layer's past keys or values: of its inner extents, the
// number of heads and the width are fixed and the length is not.
func isCache(v *Value) bool {
	return !symbolic(v.Shape[1]) && symbolic(v.Shape[2]) && !symbolic(v.Shape[3])
}

// scoresTokens says whether the graph's output is [B,S,V], V the rows of a table that is looked up in.
func (g *Graph) scoresTokens() bool {
	if len(g.Outputs[0].Shape) != 3 {
		return false
	}
	words := g.Outputs[0].Shape[2]
	return slices.ContainsFunc(g.Nodes, func(n *Node) bool {
		return n.Op == "Gather" && isTable(n.Inputs[0]) && n.Inputs[0].Shape[0].Equal(words) && !n.Inputs[0].Shape[1].Equal(words)
	})
}
