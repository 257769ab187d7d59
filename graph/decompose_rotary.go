package graph

// rotary turns pairs of numbers by angles: x [B,H,S,d], cos and sin [B,S,r/2] for the first r of
// them (all for 0). A pair is (i, i+r/2), or (2i, 2i+1) where it is interleaved.
func (b *Builder) rotary(n *Node, x, cos, sin *Value, r int64, interleaved bool) *Value {
	width := b.extent(n, x, 1)
	if r == 0 {
		r = width
	}
	turned, rest := x, (*Value)(nil)
	if r < width {
		parts := b.Ops("Split", 2, Attrs{"axis": int64(-1)}, x, b.Ints(r, width-r))
		turned, rest = parts[0], parts[1]
	}
	cos, sin = b.Op("Unsqueeze", nil, cos, b.Ints(1)), b.Op("Unsqueeze", nil, sin, b.Ints(1))
	join, split := int64(-1), turned
	if interleaved {
		split = b.Op("Reshape", nil, turned, b.Ints(0, 0, 0, r/2, 2))
		cos, sin = b.Op("Unsqueeze", nil, cos, b.Ints(-1)), b.Op("Unsqueeze", nil, sin, b.Ints(-1))
	}
	half := r / 2
	if interleaved {
		half = 1
	}
	pair := b.Ops("Split", 2, Attrs{"axis": int64(-1)}, split, b.Ints(half, half))
	y := b.Op("Concat", Attrs{"axis": join},
		b.Sub(b.Mul(pair[0], cos), b.Mul(pair[1], sin)),
		b.Add(b.Mul(pair[0], sin), b.Mul(pair[1], cos)))
	if interleaved {
		y = b.Op("Reshape", nil, y, b.Ints(0, 0, 0, -1))
		y.Shape = turned.Shape
	}
	if rest != nil {
		y = b.Op("Concat", Attrs{"axis": int64(-1)}, y, rest)
	}
	return y
}

// rotaryEmbedding is ai.onnx RotaryEmbedding of opset 23: x [B,H,S,d] or [B,S,H*d], caches [B,S,r/2], or
// [positions,r/2] with the positions [B,S] as input 3.
func rotaryEmbedding(b *Builder, n *Node) []*Value {
	x, cos, sin := n.Inputs[0], n.Inputs[1], n.Inputs[2]
	if at := n.Input(3); at != nil {
		cos, sin = b.Op("Gather", nil, cos, at), b.Op("Gather", nil, sin, at)
	}
	flat := len(x.Shape) == 3
	if flat {
		heads := n.Int("num_heads", 0)
		if heads == 0 {
			fail(n, "a flat operand without num_heads")
		}
		x = b.splitHeads(x, heads)
	}
	y := b.rotary(n, x, cos, sin, n.Int("rotary_embedding_dim", 0), n.Int("interleaved", 0) != 0)
	if flat {
		y = b.joinHeads(y)
	}
	return []*Value{y}
}

// packedRotaryEmbedding is com.microsoft RotaryEmbedding: positions [B,S], or [1] where each row
// counts on from one number; the caches are tables.
func packedRotaryEmbedding(b *Builder, n *Node) []*Value {
	x, at, cos, sin := n.Inputs[0], n.Inputs[1], n.Inputs[2], n.Inputs[3]
	if n.Int("is_packed_batching", 0) != 0 || n.Float("scale", 1) != 1 {
		fail(n, "packed batches or a scale")
	}
	r := n.Int("rotary_embedding_dim", 0)
	flat := len(x.Shape) == 3
	if flat {
		heads := n.Int("num_heads", 0)
		if heads == 0 {
			if r != 0 {
				fail(n, "a part of each head, of unknown heads")
			}
			heads = b.extent(n, x, 1) / (2 * b.extent(n, cos, 1))
		}
		x = b.splitHeads(x, heads)
	}
	if len(at.Shape) == 1 {
		at = b.Op("Unsqueeze", nil, b.Add(b.countAlong(x, 2), at), b.Ints(0))
	}
	y := b.rotary(n, x, b.Op("Gather", nil, cos, at), b.Op("Gather", nil, sin, at), r, n.Int("interleaved", 0) != 0)
	if flat {
		y = b.joinHeads(y)
	}
	return []*Value{y}
}
