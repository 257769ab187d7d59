package graph

import "math"

// scores are what an attention operator does between query and value.
type scores struct {
	scale   float64 // 0 is one over the root of the head's width
	causal  bool
	softcap float64
	mask    *Value // bool, true where attention may go; or float, added; nil for none
}

// attend is softmax(q k' scale + mask) v over heads: q [B,H,S,d], k and v [B,H,T,d].
func (b *Builder) attend(n *Node, q, k, v *Value, o scores) *Value {
	if o.scale == 0 {
		o.scale = 1 / math.Sqrt(float64(b.extent(n, q, 1)))
	}
	s := b.MatMul(b.Mul(q, b.Scalar(o.scale, q)), b.SwapLast(k))
	if o.softcap != 0 {
		cap := b.Scalar(o.softcap, s)
		s = b.Mul(b.Op("Tanh", nil, b.Div(s, cap)), cap)
	}
	if o.causal {
		s = b.hide(s, b.lowerTriangle(q, k))
	}
	switch {
	case o.mask == nil:
	case o.mask.Type == Bool:
		s = b.hide(s, o.mask)
	default:
		s = b.Add(s, o.mask)
	}
	return b.MatMul(b.Op("Softmax", Attrs{"axis": int64(-1)}, s), v)
}

// hide puts the lowest number where mask is false.
func (b *Builder) hide(s, mask *Value) *Value {
	lowest := -math.MaxFloat32
	if s.Type == Float16 {
		lowest = -65504
	}
	return b.Op("Where", nil, mask, s, b.Scalar(lowest, s))
}

// lowerTriangle is true where a query may look at a key that is not behind it: [S,T].
func (b *Builder) lowerTriangle(q, k *Value) *Value {
	rows := b.Op("Shape", Attrs{"start": int64(-2), "end": int64(-1)}, q)
	columns := b.Op("Shape", Attrs{"start": int64(-2), "end": int64(-1)}, k)
	ones := b.Op("ConstantOfShape", Attrs{"value": NewTensor([]float32{1}, 1)}, b.Op("Concat", Attrs{"axis": int64(0)}, rows, columns))
	return b.Op("Cast", Attrs{"to": int64(Bool)}, b.Op("Trilu", Attrs{"upper": int64(0)}, ones))
}

// splitHeads gives [B,S,H*d] the form [B,H,S,d].
func (b *Builder) splitHeads(x *Value, heads int64) *Value {
	return b.Transpose(b.Op("Reshape", nil, x, b.Ints(0, 0, heads, -1)), 0, 2, 1, 3)
}

// joinHeads undoes splitHeads.
func (b *Builder) joinHeads(x *Value) *Value {
	return b.Op("Reshape", nil, b.Transpose(x, 0, 2, 1, 3), b.Ints(0, 0, -1))
}

var attentionAttrs = set("is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap", "softmax_precision")

// attention is ai.onnx Attention of opset 23 and above.
func attention(b *Builder, n *Node) []*Value {
	q, k, v := n.Inputs[0], n.Inputs[1], n.Inputs[2]
	if n.Input(6) != nil || n.Output(3) != nil {
		fail(n, "its nonpad_kv_seqlen input or qk_matmul_output is used")
	}
	for name := range n.Attrs {
		if !attentionAttrs[name] {
			fail(n, "its attribute %s", name) // such as the windows of later opsets
		}
	}
	flat := len(q.Shape) == 3
	if flat {
		q = b.splitHeads(q, n.Int("q_num_heads", 1))
		k, v = b.splitHeads(k, n.Int("kv_num_heads", 1)), b.splitHeads(v, n.Int("kv_num_heads", 1))
	}
	o := scores{scale: float64(n.Float("scale", 0)), causal: n.Int("is_causal", 0) != 0, softcap: float64(n.Float("softcap", 0)), mask: n.Input(3)}
	if past := n.Input(4); past != nil {
		if o.causal {
			fail(n, "it is causal and has a past")
		}
		k = b.Op("Concat", Attrs{"axis": int64(2)}, past, k)
		v = b.Op("Concat", Attrs{"axis": int64(2)}, n.Inputs[5], v)
	}
	shared := b.extent(n, q, 3) / max(1, b.extent(n, k, 3))
	y := b.attend(n, q, b.repeatHeads(k, shared), b.repeatHeads(v, shared), o)
	if flat {
		y = b.joinHeads(y)
	}
	return []*Value{y, k, v}
}

// repeatHeads repeats each head for the queries that share it: [B,H,T,d] to [B,H*times,T,d].
func (b *Builder) repeatHeads(x *Value, times int64) *Value {
	if times == 1 {
		return x
	}
	wide := b.Op("Expand", nil, b.Op("Unsqueeze", nil, x, b.Ints(2)), b.Ints(1, 1, times, 1, 1))
	heads, _ := x.Shape[1].Int()
	width, _ := x.Shape[3].Int()
	return b.Op("Reshape", nil, wide, b.Op("Concat", Attrs{"axis": int64(0)},
		b.Op("Shape", Attrs{"start": int64(0), "end": int64(1)}, x), b.Ints(heads*times),
		b.Op("Shape", Attrs{"start": int64(2), "end": int64(3)}, x), b.Ints(width)))
}

// packedAttention is com.microsoft Attention: one product gives query, key and value.
func packedAttention(b *Builder, n *Node) []*Value {
	heads := n.Int("num_heads", 1)
	if n.Input(4) != nil || n.Input(6) != nil || n.Int("do_rotary", 0) != 0 {
		fail(n, "its past or rotary inputs are used")
	}
	x := b.MatMul(n.Inputs[0], n.Inputs[1])
	if bias := n.Input(2); bias != nil {
		x = b.Add(x, bias)
	}
	sizes := n.Ints("qkv_hidden_sizes")
	if sizes == nil {
		third := b.extent(n, x, 1) / 3
		sizes = []int64{third, third, third}
	}
	var parts []*Value
	for _, p := range b.Ops("Split", 3, Attrs{"axis": int64(-1)}, x, b.Ints(sizes...)) {
		parts = append(parts, b.splitHeads(p, heads))
	}
	o := scores{scale: float64(n.Float("scale", 0)), causal: n.Int("unidirectional", 0) != 0}
	if mask := n.Input(3); mask != nil {
		o.mask = b.attentionMask(n, mask, parts[1])
	}
	if extra := n.Input(5); extra != nil {
		o.mask = b.bothMasks(o.mask, extra)
	}
	return []*Value{b.joinHeads(b.attend(n, parts[0], parts[1], parts[2], o)), nil}
}

// attentionMask reads the integer masks of the com.microsoft domain: [B] lengths, [B,T], or [B,S,T].
func (b *Builder) attentionMask(n *Node, mask, k *Value) *Value {
	switch len(mask.Shape) {
	case 1:
		length := b.Op("Squeeze", nil, b.Op("Shape", Attrs{"start": int64(2), "end": int64(3)}, k), b.Ints(0))
		zero, one := b.Const(NewTensor([]int64{0})), b.Const(NewTensor([]int64{1}))
		at := b.Op("Cast", Attrs{"to": int64(Int32)}, b.Op("Range", nil, zero, length, one))
		return b.Op("Less", nil, at, b.Op("Unsqueeze", nil, mask, b.Ints(1, 2, 3)))
	case 2:
		mask = b.Op("Unsqueeze", nil, mask, b.Ints(1, 2))
	case 3:
		mask = b.Op("Unsqueeze", nil, mask, b.Ints(1))
	default:
		fail(n, "a mask of shape %s", mask.Shape)
	}
	return b.Op("Cast", Attrs{"to": int64(Bool)}, mask)
}

// bothMasks adds a bias to the scores beside a bool mask.
func (b *Builder) bothMasks(mask, extra *Value) *Value {
	if mask == nil {
		return extra
	}
	return b.hide(extra, mask)
}

// multiHeadAttention is com.microsoft MultiHeadAttention on separate [B,S,D] operands.
func multiHeadAttention(b *Builder, n *Node) []*Value {
	q, k, v := n.Inputs[0], n.Input(1), n.Input(2)
	if k == nil || v == nil || len(q.Shape) != 3 || len(k.Shape) != 3 || n.Input(6) != nil {
		fail(n, "packed operands or a past")
	}
	if bias := n.Input(3); bias != nil {
		parts := b.Ops("Split", 3, Attrs{"axis": int64(0)}, bias, b.Ints(b.extent(n, q, 1), b.extent(n, k, 1), b.extent(n, v, 1)))
		q, k, v = b.Add(q, parts[0]), b.Add(k, parts[1]), b.Add(v, parts[2])
	}
	heads := n.Int("num_heads", 1)
	q, k, v = b.splitHeads(q, heads), b.splitHeads(k, heads), b.splitHeads(v, heads)
	o := scores{scale: float64(n.Float("scale", 0)), causal: n.Int("unidirectional", 0) != 0}
	if mask := n.Input(4); mask != nil {
		o.mask = b.attentionMask(n, mask, k)
	}
	if extra := n.Input(5); extra != nil {
		o.mask = b.bothMasks(o.mask, extra)
	}
	return []*Value{b.joinHeads(b.attend(n, q, k, v, o)), nil, nil}
}
