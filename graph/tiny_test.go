package graph_test

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/rng"
)

// tiny says how a small transformer is exported.
type tiny struct {
	width, heads, blocks int64
	tokens               int64 // with the class token, or the text's window
	batch                int64 // 0 leaves it open
	sequenceFirst        bool  // blocks work on [N,B,D]
	channelsLast         bool  // images are [B,H,W,3]
	named                bool  // Reshape targets name every extent, as tracing writes them
	seed                 uint64
	learned              learned
	doublings            int           // sums of the tokens with themselves, ahead of the first block
	weights              *graph.Source // where weights come to lie one after the other; nil makes random ones
	// how some parts are written; "" is the plainest
	attention string // "packed", "gathered", "einsum", "flat", "expanded"
	mask      string // "zeros", "expanded", "where", "gathered", "batch", "relative", "guarded", "causal"
	pool      string // "slice", "split", "mean", "sum", "reciprocal", "patches", "flatten", "all", "tokens", "rest"
	sees      bool   // all tokens of a text see each other
	rotary    string // "halves", "pairs", "class": how positions turn queries and keys
	types     string // "expanded", "filled", "multiplied", "buffered", "input": a text has the row of its token types in place of positions
}

// learned are prompts or context that the model is built with from the start, with the same
// weights: what insertion into the model without them has to come to.
type learned struct {
	kind         string // "visual" or "context"
	count, depth int64
	start        int64
	perRow       bool
	addsToTokens bool  // visual prompts are more tokens, context takes their place
	first        int64 // the block that they first join
	drop         bool  // they end behind the last block that has its own
	averaged     bool  // they are part of a mean
}

// ends is the block behind which the prompts are no more, -1 where they stay.
func (s tiny) ends() int64 {
	l := s.learned
	switch {
	case l.drop:
		return l.first + l.depth - 1
	case l.addsToTokens && !l.averaged && slices.Contains([]string{"split", "mean", "sum", "reciprocal", "patches", "flatten", "all"}, s.pool):
		return s.blocks - 1
	}
	return -1
}

// builder adds random weights to a graph.Builder.
type builder struct {
	*graph.Builder
	tiny
	r    *rand.Rand
	rows *graph.Value // the batch's size [1], read off the image
}

func (b *builder) weight(dims ...int64) *graph.Value {
	if at := b.weights; at != nil {
		at.Offset, at.Length = at.Offset+at.Length, 4*graph.Count(dims)
		source := *at
		return b.Const(&graph.Tensor{Type: graph.Float, Dims: dims, Source: &source})
	}
	data := make([]float32, graph.Count(dims))
	for i := range data {
		data[i] = float32(b.r.NormFloat64() / math.Sqrt(float64(dims[0])))
	}
	return b.Const(graph.NewTensor(data, dims...))
}

func (b *builder) norm(x *graph.Value) *graph.Value {
	return b.Op("LayerNormalization", graph.Attrs{"axis": int64(-1)}, x, b.weight(b.width), b.weight(b.width))
}

func (b *builder) linear(x *graph.Value, from, to int64) *graph.Value {
	return b.Add(b.MatMul(x, b.weight(from, to)), b.weight(to))
}

// target is Reshape's: extents as a tracing exporter bakes them in, the batch excepted, or with
// as much left open as can be.
func (b *builder) target(dims ...int64) *graph.Value { return b.Ints(dims...) }

// put replaces (or, for the first visual prompts, adds) the learned tokens of a layer in x.
func (b *builder) put(x *graph.Value, layer int64) *graph.Value {
	l := b.learned
	if layer < l.first || layer >= l.first+l.depth {
		return x
	}
	rows := graph.Known(1)
	if l.perRow {
		rows = b.dim()
	}
	p := b.Input(graph.PromptName(l.kind, int(layer)), graph.Float, graph.Shape{rows, graph.Known(l.count), graph.Known(b.width)})
	axis := int64(1)
	if b.sequenceFirst && layer > 0 {
		axis, p = 0, b.Transpose(p, 1, 0, 2)
	}
	if !l.perRow {
		at := b.Op("Shape", nil, b.cut(x, axis, 0, 1))
		if axis == 1 {
			at = b.Op("Mul", nil, at, b.Ints(1, l.count, 1))
		} else {
			at = b.Op("Mul", nil, at, b.Ints(l.count, 1, 1))
		}
		p = b.Op("Expand", nil, p, at)
	}
	after := l.start + l.count
	if layer == l.first && l.addsToTokens {
		after = l.start
		b.tokens += l.count
	}
	return b.Op("Concat", graph.Attrs{"axis": axis}, b.cut(x, axis, 0, l.start), p, b.cut(x, axis, after, math.MaxInt64))
}

func (b *builder) cut(x *graph.Value, axis, from, to int64) *graph.Value {
	return b.Op("Slice", nil, x, b.Ints(from), b.Ints(to), b.Ints(axis))
}

// split splits tokens [B,N,D] (or [N,B,D]) into [B,H,N,d].
func (b *builder) split(x *graph.Value) *graph.Value {
	each := b.width / b.heads
	batch, tokens := int64(-1), b.tokens
	if b.batch > 0 {
		batch = b.batch
	}
	if !b.named {
		batch, tokens = 0, -1
	}
	if b.sequenceFirst {
		if !b.named {
			batch, tokens = -1, 0
		}
		return b.Transpose(b.Op("Reshape", nil, x, b.target(tokens, batch, b.heads, each)), 1, 2, 0, 3)
	}
	return b.Transpose(b.Op("Reshape", nil, x, b.target(batch, tokens, b.heads, each)), 0, 2, 1, 3)
}

func (b *builder) join(x *graph.Value) *graph.Value {
	batch, tokens := int64(-1), b.tokens
	if b.batch > 0 {
		batch = b.batch
	}
	if b.sequenceFirst {
		if !b.named {
			batch, tokens = -1, 0
		}
		return b.Op("Reshape", nil, b.Transpose(x, 2, 0, 1, 3), b.target(tokens, batch, b.width))
	}
	if !b.named {
		batch, tokens = 0, -1
	}
	return b.Op("Reshape", nil, b.Transpose(x, 0, 2, 1, 3), b.target(batch, tokens, b.width))
}

// block is a pre-norm transformer block; mask is added to the scores, nil for none.
func (b *builder) block(x, mask *graph.Value) *graph.Value {
	q, k, v := b.queries(b.norm(x))
	q, k = b.turned(q), b.turned(k)
	scores := b.Mul(b.scores(q, k), b.Scalar(1/math.Sqrt(float64(b.width/b.heads)), q))
	if mask != nil {
		scores = b.Add(scores, mask)
	}
	attended := b.join(b.MatMul(b.probabilities(scores), v))
	x = b.Add(x, b.linear(attended, b.width, b.width))
	if b.attention != "flat" {
		return b.Add(x, b.mlp(b.norm(x)))
	}
	// The rows of all images one after the other, as some exporters write linear layers.
	rows := b.Op("Reshape", nil, b.norm(x), b.target(-1, b.width))
	batch := int64(-1)
	if b.batch > 0 {
		batch = b.batch
	}
	return b.Add(x, b.Op("Reshape", nil, b.mlp(rows), b.target(batch, b.tokens, b.width)))
}

func (b *builder) mlp(x *graph.Value) *graph.Value {
	return b.linear(b.Op("Relu", nil, b.linear(x, b.width, 2*b.width)), 2*b.width, b.width)
}

// queries makes queries, keys and values [B,H,N,d] of tokens [B,N,D].
func (b *builder) queries(x *graph.Value) (q, k, v *graph.Value) {
	if b.attention != "packed" && b.attention != "gathered" {
		q, k, v = b.split(b.linear(x, b.width, b.width)), b.split(b.linear(x, b.width, b.width)), b.split(b.linear(x, b.width, b.width))
		if b.attention == "expanded" {
			q = b.Op("Expand", nil, q, b.target(1, 1, b.tokens, 1))
		}
		return q, k, v
	}
	all := b.linear(x, b.width, 3*b.width)
	if b.attention == "packed" {
		parts := b.Ops("Split", 3, graph.Attrs{"axis": int64(-1)}, all, b.Ints(b.width, b.width, b.width))
		return b.split(parts[0]), b.split(parts[1]), b.split(parts[2])
	}
	batch := int64(-1)
	if b.batch > 0 {
		batch = b.batch
	}
	all = b.Op("Reshape", nil, all, b.target(batch, b.tokens, 3, b.heads, b.width/b.heads))
	all = b.Transpose(all, 2, 0, 3, 1, 4)
	one := func(i int64) *graph.Value {
		return b.Op("Gather", graph.Attrs{"axis": int64(0)}, all, b.Const(graph.NewTensor([]int64{i})))
	}
	return one(0), one(1), one(2)
}

func (b *builder) scores(q, k *graph.Value) *graph.Value {
	if b.attention == "einsum" {
		return b.Op("Einsum", graph.Attrs{"equation": "bhid,bhjd->bhij"}, q, k)
	}
	return b.MatMul(q, b.SwapLast(k))
}

// probabilities are those of scores. Guarded ones are as ONNX's Attention has them, with a bias for each pair of places plus an
// all-true mask cast to numbers, as BEiT is exported for opset 23: what is added is no lower than the lowest number, and rows that are hidden whole are zero.
func (b *builder) probabilities(scores *graph.Value) *graph.Value {
	softmax := func(x *graph.Value) *graph.Value { return b.Op("Softmax", graph.Attrs{"axis": int64(-1)}, x) }
	if b.mask != "guarded" {
		return softmax(b.masked(scores))
	}
	n := b.tokens
	seen := b.Op("Expand", nil, b.Const(graph.NewTensor(slices.Repeat([]bool{true}, int(n)), 1, 1, n, 1)), b.Op("Concat", graph.Attrs{"axis": int64(0)}, b.rows, b.Ints(1, n, n)))
	bias := b.Add(b.relative(0), b.Op("Cast", graph.Attrs{"to": int64(graph.Float)}, seen))
	lowest := b.Scalar(-math.MaxFloat32, bias)
	hidden := b.Op("LessOrEqual", nil, b.Op("ReduceMax", graph.Attrs{"keepdims": int64(1)}, bias, b.Ints(-1)), lowest)
	return b.Op("Where", nil, hidden, b.Scalar(0, scores), softmax(b.Add(scores, b.Op("Max", nil, bias, lowest))))
}

// masked hides nothing, in one of the ways that exporters write down.
func (b *builder) masked(scores *graph.Value) *graph.Value {
	n := b.tokens
	switch b.mask {
	case "zeros":
		return b.Add(scores, b.Const(graph.NewTensor(make([]float32, n*n), 1, 1, n, n)))
	case "relative":
		return b.Add(scores, b.relative(0))
	case "causal":
		return b.Add(scores, b.Op("Trilu", graph.Attrs{"upper": int64(1)}, b.relative(-1e9), b.Const(graph.NewTensor([]int64{1}))))
	case "expanded":
		wide := b.Op("Expand", nil, b.Const(graph.NewTensor([]float32{0}, 1, 1, 1, 1)), b.Ints(1, 1, n, n))
		return b.Add(scores, wide)
	case "batch":
		wide := b.Op("Expand", nil, b.Const(graph.NewTensor([]float32{0}, 1, 1, 1, 1)), b.Op("Concat", graph.Attrs{"axis": int64(0)}, b.rows, b.Ints(1, 1, n)))
		return b.Add(scores, wide)
	case "gathered": // of a whole of ones, as masks are built by places
		places := b.Const(graph.NewTensor(make([]int64, n*n), n, n))
		seen := b.Op("Gather", nil, b.Op("Expand", nil, b.Const(graph.NewTensor([]bool{true})), b.Ints(n)), places)
		return b.Op("Where", nil, b.Op("Unsqueeze", nil, seen, b.Ints(0, 1)), scores, b.Scalar(-1e9, scores))
	case "where":
		all := make([]bool, n)
		for i := range all {
			all[i] = true
		}
		seen := b.Op("Expand", nil, b.Const(graph.NewTensor(all, 1, 1, n, 1)), b.Ints(1, 1, n, n))
		return b.Op("Where", nil, seen, scores, b.Scalar(-1e9, scores))
	}
	return scores
}

// relative is a bias [1,H,N,N] on scores that says nothing of prompts, plus a number.
func (b *builder) relative(plus float32) *graph.Value {
	was := plain.tokens
	table, err := graph.Values[float32](b.weight(1, b.heads, was, was).Const)
	if err != nil {
		panic(err)
	}
	n, at := b.tokens, b.learned.start
	more := n - was
	data := make([]float32, b.heads*n*n)
	for i, x := range table {
		h, row, column := int64(i)/(was*was), int64(i)/was%was, int64(i)%was
		if row >= at {
			row += more
		}
		if column >= at {
			column += more
		}
		data[(h*n+row)*n+column] = x + plus
	}
	return b.Const(graph.NewTensor(data, 1, b.heads, n, n))
}

// turned turns queries or keys [B,H,N,d] by the tokens' places; neither the class token nor
// prompts have one.
func (b *builder) turned(x *graph.Value) *graph.Value {
	if b.rotary == "" {
		return x
	}
	from, each, l := int64(1), b.width/b.heads, b.learned
	if b.rotary == "class" {
		from = 0 // whose angles are 0
	}
	before := b.cut(x, 2, 0, from)
	x = b.cut(x, 2, from, math.MaxInt64)
	var prompts []*graph.Value
	if b.tokens > plain.tokens { // they stand behind the class token
		skip := l.start - from
		prompts = append(prompts, b.cut(x, 2, skip, skip+l.count))
		after := b.cut(x, 2, skip+l.count, math.MaxInt64)
		if skip > 0 {
			after = b.Op("Concat", graph.Attrs{"axis": int64(2)}, b.cut(x, 2, 0, skip), after)
		}
		x = after
	}
	x = b.turn(x, plain.tokens-from, each)
	if prompts != nil && from == 0 {
		x = b.Op("Concat", graph.Attrs{"axis": int64(2)}, b.cut(x, 2, 0, l.start), prompts[0], b.cut(x, 2, l.start, math.MaxInt64))
		return x
	}
	if from == 0 {
		return x
	}
	return b.Op("Concat", graph.Attrs{"axis": int64(2)}, append(append([]*graph.Value{before}, prompts...), x)...)
}

// turn multiplies by cosines and sines [N,d], in one of the ways of writing that down.
func (b *builder) turn(x *graph.Value, n, each int64) *graph.Value {
	cos, sin := make([]float32, n*each), make([]float32, n*each)
	for i := range cos {
		angle := float64(int64(i)/each) / float64(1+int64(i)%each%(each/2))
		cos[i], sin[i] = float32(math.Cos(angle)), float32(math.Sin(angle))
	}
	c, s := b.Const(graph.NewTensor(cos, n, each)), b.Const(graph.NewTensor(sin, n, each))
	if b.rotary == "pairs" {
		half := each / 2
		x1, x2 := b.cut(x, 3, 0, half), b.cut(x, 3, half, each)
		c, s = b.cut(c, 1, 0, half), b.cut(s, 1, 0, half)
		return b.Op("Concat", graph.Attrs{"axis": int64(3)}, b.Sub(b.Mul(x1, c), b.Mul(x2, s)), b.Add(b.Mul(x2, c), b.Mul(x1, s)))
	}
	other := b.Op("Concat", graph.Attrs{"axis": int64(3)}, b.Op("Neg", nil, b.cut(x, 3, each/2, each)), b.cut(x, 3, 0, each/2))
	return b.Add(b.Mul(x, c), b.Mul(other, s))
}

// pooled makes one vector [B,D] of the tokens.
func (b *builder) pooled(x *graph.Value) *graph.Value {
	switch b.pool {
	case "slice":
		return b.Op("Squeeze", nil, b.cut(x, 1, 0, 1), b.Ints(1))
	case "split":
		parts := b.Ops("Split", 2, graph.Attrs{"axis": int64(1)}, x, b.Ints(1, b.tokens-1))
		return b.Add(b.Op("Squeeze", nil, parts[0], b.Ints(1)), b.Mean(parts[1], false, 1))
	case "tokens":
		return x
	case "rest":
		return b.cut(x, 1, 1, b.tokens)
	case "mean":
		return b.Mean(x, false, 1)
	case "sum":
		return b.Div(b.Sum(x, false, 1), b.Scalar(float64(b.tokens), x))
	case "reciprocal":
		return b.Mul(b.Scalar(1/float64(b.tokens), x), b.Op("Squeeze", nil, b.Sum(x, true, 1), b.Ints(1)))
	case "all":
		return b.MatMul(b.Op("Reshape", nil, x, b.target(-1, b.tokens*b.width)), b.weight(b.tokens*b.width, b.width))
	case "patches":
		return b.Mean(b.cut(x, 1, 1, b.tokens), false, 1)
	case "flatten":
		rows := b.Op("Reshape", nil, b.Op("Flatten", graph.Attrs{"axis": int64(2)}, x), b.target(-1, b.tokens, b.width))
		return b.Mean(rows, false, -2)
	}
	return b.Op("Gather", graph.Attrs{"axis": int64(1)}, x, b.Const(graph.NewTensor([]int64{0})))
}

func (b *builder) blocksOf(x, mask *graph.Value) *graph.Value {
	if b.sequenceFirst {
		x = b.Transpose(x, 1, 0, 2)
	}
	for i := range b.blocks {
		if i > 0 {
			x = b.put(x, i)
		}
		x = b.block(x, mask)
		if i == b.ends() {
			x = b.bare(x)
		}
	}
	if b.sequenceFirst {
		x = b.Transpose(x, 1, 0, 2)
	}
	return x
}

// bare is the tokens [B,N,D], or [N,B,D], without prompts.
func (b *builder) bare(x *graph.Value) *graph.Value {
	l, axis := b.learned, int64(1)
	if b.sequenceFirst {
		axis = 0
	}
	b.tokens -= l.count
	return b.Op("Concat", graph.Attrs{"axis": axis}, b.cut(x, axis, 0, l.start), b.cut(x, axis, l.start+l.count, math.MaxInt64))
}

func (s tiny) build(f func(b *builder)) (*graph.Graph, error) {
	g := &graph.Graph{Opset: map[string]int64{"": 18}, Metadata: map[string]string{}}
	err := g.Build(func(gb *graph.Builder) { f(&builder{gb, s, rng.New(s.seed, "tiny"), nil}) })
	return g, err
}

func (s tiny) dim() graph.Dim {
	if s.batch > 0 {
		return graph.Known(s.batch)
	}
	return graph.Sym("batch")
}

// image is a vision transformer of patches of 2x2 in one row, a class token and positions.
func (s tiny) image() (*graph.Graph, error) {
	return s.build(func(b *builder) {
		patches := b.tokens - 1
		var pixels *graph.Value
		if b.channelsLast {
			pixels = b.Transpose(b.Input("pixel_values", graph.Float, graph.Shape{b.dim(), graph.Known(2), graph.Known(2 * patches), graph.Known(3)}), 0, 3, 1, 2)
		} else {
			pixels = b.Input("pixel_values", graph.Float, graph.Shape{b.dim(), graph.Known(3), graph.Known(2), graph.Known(2 * patches)})
		}
		x := b.Op("Conv", graph.Attrs{"strides": []int64{2, 2}, "kernel_shape": []int64{2, 2}}, pixels, b.weight(b.width, 3, 2, 2))
		batch := int64(0)
		if b.named && b.batch > 0 {
			batch = b.batch
		}
		x = b.Transpose(b.Op("Reshape", nil, x, b.Ints(batch, b.width, -1)), 0, 2, 1)
		b.rows = b.Op("Shape", graph.Attrs{"start": int64(0), "end": int64(1)}, pixels)
		class := b.Op("Expand", nil, b.weight(1, 1, b.width), b.Op("Concat", graph.Attrs{"axis": int64(0)}, b.rows, b.Ints(1, 1)))
		x = b.Add(b.Op("Concat", graph.Attrs{"axis": int64(1)}, class, x), b.weight(1, b.tokens, b.width))
		for range b.doublings {
			x = b.Add(x, x)
		}
		x = b.put(x, 0)
		x = b.blocksOf(b.norm(x), nil)
		b.Output("image_embeds", b.MatMul(b.norm(b.pooled(x)), b.weight(b.width, 5)))
	})
}

// text is a causal text transformer over ids below 11; the largest id ends the text.
func (s tiny) text() (*graph.Graph, error) {
	return s.build(func(b *builder) {
		length := graph.Sym("sequence")
		if b.named {
			length = graph.Known(b.tokens)
		}
		ids := b.Input("input_ids", graph.Int64, graph.Shape{b.dim(), length})
		x := b.put(b.Op("Gather", nil, b.weight(11, b.width), ids), 0)
		n := b.Op("Shape", graph.Attrs{"start": int64(1), "end": int64(2)}, ids)
		positions := b.Op("Slice", nil, b.weight(b.tokens, b.width), b.Ints(0), n, b.Ints(0))
		if b.types != "" {
			positions = b.Op("Gather", nil, b.weight(2, b.width), b.typesOf(ids, n))
		}
		mask := b.causal(n)
		if b.sees {
			mask = nil
		}
		x = b.blocksOf(b.Add(x, positions), mask)
		last := b.Op("ArgMax", graph.Attrs{"axis": int64(-1), "keepdims": int64(0)}, ids)
		one := b.Op("Equal", nil, b.Op("Unsqueeze", nil, last, b.Ints(1)), b.Op("Range", nil, b.Const(graph.NewTensor([]int64{0})), b.Op("Squeeze", nil, n, b.Ints(0)), b.Const(graph.NewTensor([]int64{1}))))
		chosen := b.Op("Cast", graph.Attrs{"to": int64(graph.Float)}, b.Op("Unsqueeze", nil, one, b.Ints(2)))
		b.Output("text_embeds", b.MatMul(b.Sum(b.Mul(b.norm(x), chosen), false, 1), b.weight(b.width, 5)))
	})
}

// typesOf are the token types of a text [B,S], all 0 unless they are an input.
func (b *builder) typesOf(ids, n *graph.Value) *graph.Value {
	zero := b.Const(graph.NewTensor([]int64{0}))
	switch b.types {
	case "expanded":
		return b.Op("Expand", nil, zero, b.Op("Shape", nil, ids))
	case "filled":
		return b.Op("ConstantOfShape", graph.Attrs{"value": graph.NewTensor([]int64{0}, 1)}, b.Op("Shape", nil, ids))
	case "multiplied":
		return b.Op("Mul", nil, ids, zero)
	case "buffered":
		return b.Op("Expand", nil, b.Op("Slice", nil, b.Const(graph.NewTensor(make([]int64, 32), 1, 32)), b.Ints(0), n, b.Ints(1)), b.Op("Shape", nil, ids))
	}
	return b.Input("token_type_ids", graph.Int64, ids.Shape)
}

// causal is zero on and below the diagonal and very low above it: [n,n].
func (b *builder) causal(n *graph.Value) *graph.Value {
	square := b.Op("Concat", graph.Attrs{"axis": int64(0)}, n, n)
	low := b.Op("Expand", nil, b.Const(graph.NewTensor([]float32{-1e9}, 1, 1)), square)
	return b.Op("Trilu", graph.Attrs{"upper": int64(1)}, low, b.Const(graph.NewTensor([]int64{1})))
}

var plain = tiny{width: 8, heads: 2, blocks: 3, tokens: 6, seed: 1}

func tinyImageTower() (*graph.Graph, error) { return plain.image() }

func tinyTextTower() (*graph.Graph, error) { return plain.text() }

// floats is a float tensor of random elements.
func floats(r *rand.Rand, dims ...int64) *graph.Tensor {
	data := make([]float32, graph.Count(dims))
	for i := range data {
		data[i] = float32(r.NormFloat64())
	}
	return graph.NewTensor(data, slices.Clone(dims)...)
}
