package graph

import (
	"math"
	"slices"
)

// scores are what an attention operator does between query and value.
type scores struct {
	scale   float64 // 0 is one over the root of the head's width
	softcap float64
	allowed *Value // bool, true where a query may look at a key; nil for everywhere
	bias    *Value // added to the scores; nil for none
	// Whether allowed or bias may hide all keys from a query; such a query gets zeros.
	guarded bool
}

// attend is softmax(q k' scale + bias) v over heads: q [B,H,S,d], k and v [B,H,T,d]. It also returns the scores
// raw, capped, with bias, and as probabilities.
func (b *Builder) attend(n *Node, q, k, v *Value, o scores) (y *Value, stages []*Value) {
	if o.scale == 0 {
		o.scale = 1 / math.Sqrt(float64(b.extent(n, q, 1)))
	}
	s := b.MatMul(b.Mul(q, b.Scalar(o.scale, q)), b.SwapLast(k))
	stages = append(stages, s)
	if o.softcap != 0 {
		limit := b.Scalar(o.softcap, s)
		s = b.Mul(b.Op("Tanh", nil, b.Div(s, limit)), limit)
	}
	stages = append(stages, s)
	var none *Value // true for queries that all keys are hidden from
	if o.bias != nil && o.guarded {
		// Rows of -inf would make NaN of the softmax; the lowest number hides as well.
		top := b.Op("ReduceMax", Attrs{"keepdims": int64(1)}, o.bias, b.Ints(-1))
		none = b.Op("LessOrEqual", nil, top, b.lowest(s))
		o.bias = b.Op("Max", nil, o.bias, b.lowest(s))
	}
	if o.bias != nil {
		s = b.Add(s, o.bias)
	}
	if o.allowed != nil {
		s = b.hide(s, o.allowed)
	}
	stages = append(stages, s)
	p := b.Op("Softmax", Attrs{"axis": int64(-1)}, s)
	if o.allowed != nil && o.guarded {
		p = b.Op("Where", nil, o.allowed, p, b.Scalar(0, p))
	}
	if none != nil {
		p = b.Op("Where", nil, none, b.Scalar(0, p), p)
	}
	return b.MatMul(p, v), append(stages, p)
}

// hide puts the lowest number where mask is false.
func (b *Builder) hide(s, mask *Value) *Value { return b.Op("Where", nil, mask, s, b.lowest(s)) }

// lowest is the lowest finite number of v's type.
func (b *Builder) lowest(v *Value) *Value {
	if v.Type == Float16 {
		return b.Scalar(-65504, v)
	}
	return b.Scalar(-math.MaxFloat32, v)
}

// reach says which keys a query may look at by where they stand: query i stands at place i + offset, and
// may look so far to the left and to the right; -1 is any distance.
func (b *Builder) reach(q, k, offset *Value, left, right int64) *Value {
	at, keys := b.Op("Unsqueeze", nil, b.countAlong(q, len(q.Shape)-2), b.Ints(1)), b.countAlong(k, len(k.Shape)-2)
	if offset != nil {
		at = b.Add(at, offset)
	}
	var allowed *Value
	if right >= 0 {
		allowed = b.Op("LessOrEqual", nil, keys, b.shift(at, right))
	}
	if left >= 0 {
		allowed = b.both(allowed, b.Op("GreaterOrEqual", nil, keys, b.shift(at, -left)))
	}
	return allowed
}

func (b *Builder) shift(x *Value, by int64) *Value {
	if by == 0 {
		return x
	}
	return b.Add(x, b.Ints(by))
}

// both is true where both masks are; nil is true everywhere.
func (b *Builder) both(x, y *Value) *Value {
	switch {
	case x == nil:
		return y
	case y == nil:
		return x
	}
	return b.Op("And", nil, x, y)
}

// within is true for the keys before each row's length: lengths [B], [B,1,1,T] comes out.
func (b *Builder) within(k, lengths *Value) *Value {
	keys := b.countAlong(k, len(k.Shape)-2)
	if lengths.Type != Int64 {
		lengths = b.Op("Cast", Attrs{"to": int64(Int64)}, lengths)
	}
	return b.Op("Less", nil, keys, b.Op("Unsqueeze", nil, lengths, b.Ints(1, 2, 3)))
}

// splitHeads gives [B,S,H*d] the form [B,H,S,d].
func (b *Builder) splitHeads(x *Value, heads int64) *Value {
	return b.Transpose(b.Op("Reshape", nil, x, b.Ints(0, 0, heads, -1)), 0, 2, 1, 3)
}

// joinHeads undoes splitHeads.
func (b *Builder) joinHeads(x *Value) *Value {
	return b.Op("Reshape", nil, b.Transpose(x, 0, 2, 1, 3), b.Ints(0, 0, -1))
}

var attentionAttrs = set("is_causal", "kv_num_heads", "left_window_size", "q_num_heads", "qk_matmul_output_mode", "right_window_size", "scale", "softcap", "softmax_precision")

// attention is ai.onnx Attention of opset 23 and above.
func attention(b *Builder, n *Node) []*Value {
	q, k, v := n.Inputs[0], n.Inputs[1], n.Inputs[2]
	for name := range n.Attrs {
		if !attentionAttrs[name] {
			fail(n, "its attribute %s", name)
		}
	}
	flat := len(q.Shape) == 3
	if flat {
		q = b.splitHeads(q, n.Int("q_num_heads", 1))
		k, v = b.splitHeads(k, n.Int("kv_num_heads", 1)), b.splitHeads(v, n.Int("kv_num_heads", 1))
	}
	var offset *Value // how many keys come before those of the first query
	if past := n.Input(4); past != nil {
		k = b.Op("Concat", Attrs{"axis": int64(2)}, past, k)
		v = b.Op("Concat", Attrs{"axis": int64(2)}, n.Inputs[5], v)
		offset = b.part(past, 2)
	}
	o := scores{scale: float64(n.Float("scale", 0)), softcap: float64(n.Float("softcap", 0))}
	left, right := n.Int("left_window_size", -1), n.Int("right_window_size", -1)
	if n.Int("is_causal", 0) != 0 {
		right = 0
	}
	if lengths := n.Input(6); lengths != nil {
		o.allowed, o.guarded = b.within(k, lengths), true
		last := b.Op("Unsqueeze", nil, lengths, b.Ints(1, 2, 3))
		offset = b.Sub(last, b.part(q, 2))
	}
	if left >= 0 || right >= 0 {
		o.allowed = b.both(o.allowed, b.reach(q, k, offset, left, right))
	}
	if mask := n.Input(3); mask != nil {
		o.guarded = true
		if mask = b.longMask(mask, k); mask.Type == Bool {
			o.allowed = b.both(o.allowed, mask)
		} else {
			o.bias = mask
		}
	}
	shared := b.extent(n, q, 3) / max(1, b.extent(n, k, 3))
	y, stages := b.attend(n, q, b.repeatHeads(k, shared), b.repeatHeads(v, shared), o)
	if flat {
		y = b.joinHeads(y)
	}
	return []*Value{y, k, v, stages[min(3, max(0, n.Int("qk_matmul_output_mode", 0)))]}
}

// longMask is a mask over all keys: those beyond a shorter one's end are hidden.
func (b *Builder) longMask(mask, k *Value) *Value {
	rank := len(mask.Shape)
	have, ok1 := mask.Shape[rank-1].Int()
	want, ok2 := k.Shape[2].Int()
	if !ok1 || !ok2 || have >= want || have == 1 {
		return mask
	}
	none := b.Const(NewTensor([]bool{false}))
	if mask.Type != Bool {
		none = b.Scalar(math.Inf(-1), mask)
	}
	pads := make([]int64, 2*rank)
	pads[2*rank-1] = want - have
	return b.Op("Pad", nil, mask, b.Ints(pads...), none)
}

// groupQueryAttention is com.microsoft GroupQueryAttention: causal, on keys that several queries share, which may
// follow on those of the past, and turned by their places. All of the past counts.
func groupQueryAttention(b *Builder, n *Node) []*Value {
	for i := 11; i < len(n.Inputs); i++ {
		if n.Inputs[i] != nil {
			fail(n, "its input %d is used", i)
		}
	}
	for name, plain := range map[string]int64{"smooth_softmax": 0, "qk_output": 0, "kv_cache_bit_width": 0, "sliding_window_cache": 0} {
		if n.Int(name, plain) > plain {
			fail(n, "its attribute %s is %d", name, n.Int(name, 0))
		}
	}
	heads, groups := n.Int("num_heads", 1), n.Int("kv_num_heads", 1)
	q, k, v := n.Inputs[0], n.Input(1), n.Input(2)
	if k == nil {
		width := b.extent(n, q, 1) / (heads + 2*groups)
		parts := b.Ops("Split", 3, Attrs{"axis": int64(-1)}, q, b.Ints(heads*width, groups*width, groups*width))
		q, k, v = parts[0], parts[1], parts[2]
	}
	q, k, v = b.splitHeads(q, heads), b.splitHeads(k, groups), b.splitHeads(v, groups)
	past := n.Input(3)
	var offset *Value
	if past != nil {
		offset = b.part(past, 2)
	}
	if n.Int("do_rotary", 0) != 0 {
		q, k = b.rotateByPlace(n, q, offset), b.rotateByPlace(n, k, offset)
	}
	if past != nil {
		k = b.Op("Concat", Attrs{"axis": int64(2)}, past, k)
		v = b.Op("Concat", Attrs{"axis": int64(2)}, n.Inputs[4], v)
	}
	o := scores{scale: float64(n.Float("scale", 0)), softcap: float64(n.Float("softcap", 0)), bias: n.Input(10)}
	left, right := n.Int("local_window_size", -1), int64(0)
	if left > 0 {
		left-- // a window counts the key at the query's own place
	}
	if n.Int("causal", 1) == 0 {
		right = -1
	}
	o.allowed = b.within(k, b.Add(b.Op("Cast", Attrs{"to": int64(Int64)}, n.Inputs[5]), b.Ints(1)))
	if left >= 0 || right >= 0 {
		o.allowed = b.both(o.allowed, b.reach(q, k, offset, left, right))
	}
	y, _ := b.attend(n, q, b.repeatHeads(k, heads/groups), b.repeatHeads(v, heads/groups), o)
	return []*Value{b.joinHeads(y), k, v}
}

// rotateByPlace turns GroupQueryAttention's queries or keys by their positions, input 9, or as they follow on the past.
func (b *Builder) rotateByPlace(n *Node, x, offset *Value) *Value {
	cos, sin, at := n.Inputs[7], n.Inputs[8], n.Input(9)
	if at == nil {
		at = b.countAlong(x, 2)
		if offset != nil {
			at = b.Add(at, offset)
		}
		at = b.Op("Unsqueeze", nil, at, b.Ints(0))
	}
	return b.rotary(n, x, b.Op("Gather", nil, cos, at), b.Op("Gather", nil, sin, at), 2*b.extent(n, cos, 1), n.Int("rotary_interleaved", 0) != 0)
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

// packedAttention is com.microsoft Attention: one product gives query, key and value. Its past [2,B,H,P,d] holds the keys and
// values that come before, and so does its second output with those of the tokens behind.
func packedAttention(b *Builder, n *Node) []*Value {
	heads := n.Int("num_heads", 1)
	if n.Input(6) != nil || n.Int("do_rotary", 0) != 0 {
		fail(n, "a past in a buffer of fixed length, or rotary positions")
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
	q, k, v := parts[0], parts[1], parts[2]
	var pastK, pastV *Value
	if past := n.Input(4); past != nil {
		pastK, pastV = b.Op("Gather", nil, past, b.Const(NewTensor([]int64{0}))), b.Op("Gather", nil, past, b.Const(NewTensor([]int64{1})))
	}
	k, v, offset := b.behind(pastK, k), b.behind(pastV, v), b.pastLength(pastK)
	y, _ := b.attend(n, q, k, v, b.msftScores(n, q, k, offset, n.Input(3), n.Input(5)))
	outs := []*Value{b.joinHeads(y), nil}
	if n.Output(1) != nil {
		outs[1] = b.Op("Concat", Attrs{"axis": int64(0)}, b.Op("Unsqueeze", nil, k, b.Ints(0)), b.Op("Unsqueeze", nil, v, b.Ints(0)))
	}
	return outs
}

// behind is x [B,H,S,d] behind those of a past, if there is one.
func (b *Builder) behind(past, x *Value) *Value {
	if past == nil {
		return x
	}
	return b.Op("Concat", Attrs{"axis": int64(2)}, past, x)
}

// tensorScatter writes updates into a cache of fixed length, along an axis, from a place of each row's on; in circular mode
// what goes beyond the end begins at the front again.
func tensorScatter(b *Builder, n *Node) []*Value {
	cache, update, rank := n.Inputs[0], n.Inputs[1], len(n.Inputs[0].Shape)
	axis := axisOf(n, "axis", -2)
	others := func(keep ...int) *Value { // all axes but these
		return b.Ints(slices.DeleteFunc(firstN(rank), func(i int64) bool { return slices.Contains(keep, int(i)) })...)
	}
	at := b.Op("Unsqueeze", nil, b.countAlong(update, axis), others(axis))
	if from := n.Input(2); from != nil {
		at = b.Add(b.Op("Unsqueeze", nil, from, others(0)), at)
	}
	if n.Str("mode", "linear") == "circular" {
		at = b.Op("Mod", nil, at, b.part(cache, axis))
	}
	at = b.Op("Expand", nil, at, b.Op("Shape", nil, update))
	return []*Value{b.Op("ScatterElements", Attrs{"axis": int64(axis)}, cache, at, update)}
}

// pastLength is how many keys a past [B,H,P,d] holds; nil where there is none.
func (b *Builder) pastLength(past *Value) *Value {
	if past == nil {
		return nil
	}
	return b.part(past, 2)
}

// msftScores reads what the attention operators of the com.microsoft domain have in common; the first query stands at
// offset. Where all keys are masked they are all looked at alike.
func (b *Builder) msftScores(n *Node, q, k, offset, mask, bias *Value) scores {
	o := scores{scale: float64(n.Float("scale", 0)), bias: bias}
	if n.Int("unidirectional", 0) != 0 {
		o.allowed = b.reach(q, k, offset, -1, 0)
	}
	if mask != nil {
		o.allowed = b.both(o.allowed, b.attentionMask(n, mask, k))
	}
	return o
}

// attentionMask reads the integer masks of the com.microsoft domain: [B] lengths, [B,T], or [B,S,T].
func (b *Builder) attentionMask(n *Node, mask, k *Value) *Value {
	switch len(mask.Shape) {
	case 1:
		return b.within(k, mask)
	case 2:
		mask = b.Op("Unsqueeze", nil, mask, b.Ints(1, 2))
	case 3:
		mask = b.Op("Unsqueeze", nil, mask, b.Ints(1))
	default:
		fail(n, "a mask of shape %s", mask.Shape)
	}
	return b.Op("Cast", Attrs{"to": int64(Bool)}, mask)
}

// multiHeadAttention is com.microsoft MultiHeadAttention: on query, key and value [B,S,D], on all three packed as [B,S,H,3,d],
// on query and the others packed as [B,T,H,2,d], or on query and others that stand by head already, [B,H,T,d].
func multiHeadAttention(b *Builder, n *Node) []*Value {
	q, k, v, bias := n.Inputs[0], n.Input(1), n.Input(2), n.Input(3)
	if n.Input(8) != nil || n.Input(9) != nil {
		fail(n, "a past in a buffer of fixed length")
	}
	switch {
	case k == nil && len(q.Shape) == 5:
		parts := b.unpacked(q, 3)
		q, k, v = parts[0], parts[1], parts[2]
	case k != nil && v == nil && len(k.Shape) == 5:
		parts := b.unpacked(k, 2)
		k, v = parts[0], parts[1]
	case k == nil || v == nil || len(q.Shape) != 3:
		fail(n, "query of shape %s without key and value", q.Shape)
	}
	heads := n.Int("num_heads", 1)
	if bias != nil {
		if len(k.Shape) != 3 {
			fail(n, "a bias for keys of shape %s", k.Shape)
		}
		parts := b.Ops("Split", 3, Attrs{"axis": int64(0)}, bias, b.Ints(b.extent(n, q, 1), b.extent(n, k, 1), b.extent(n, v, 1)))
		q, k, v = b.Add(q, parts[0]), b.Add(k, parts[1]), b.Add(v, parts[2])
	}
	byHead := func(x *Value) *Value {
		if len(x.Shape) == 3 {
			x = b.splitHeads(x, heads)
		}
		return x
	}
	q, k, v = byHead(q), b.behind(n.Input(6), byHead(k)), b.behind(n.Input(7), byHead(v))
	y, _ := b.attend(n, q, k, v, b.msftScores(n, q, k, b.pastLength(n.Input(6)), n.Input(4), n.Input(5)))
	return []*Value{b.joinHeads(y), k, v}
}

// unpacked takes [B,S,H,count,d] apart along its fourth axis: [B,H,S,d] each.
func (b *Builder) unpacked(x *Value, count int64) []*Value {
	var parts []*Value
	for i := range count {
		one := b.Op("Gather", Attrs{"axis": int64(3)}, x, b.Const(NewTensor([]int64{i})))
		parts = append(parts, b.Transpose(one, 0, 2, 1, 3))
	}
	return parts
}
