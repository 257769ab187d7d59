package graph_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
)

// exports are ways in which one small vision transformer of 6 tokens, width 8 and 2 heads of
// width 4 may have been written. Batches are made equal to other extents on purpose.
var exports = map[string]tiny{
	"open batch":                                  {},
	"open batch, extents named":                   {named: true},
	"a batch equal to the tokens":                 {batch: 6, named: true},
	"a batch equal to a head's width":             {batch: 4, named: true},
	"a batch equal to the heads and prompts":      {batch: 2, named: true},
	"a batch equal to the width":                  {batch: 8, named: true},
	"a batch of one":                              {batch: 1, named: true},
	"a fixed batch, extents left open":            {batch: 3},
	"sequence first":                              {sequenceFirst: true},
	"sequence first, extents named":               {sequenceFirst: true, named: true},
	"sequence first, a batch equal to the tokens": {sequenceFirst: true, batch: 6, named: true},
	"sequence first, a batch equal to the heads":  {sequenceFirst: true, batch: 2, named: true},
	"sequence first, a batch of one":              {sequenceFirst: true, batch: 1, named: true},
	"images with their channels last":             {channelsLast: true},
}

// spellings are ways in which parts of the same transformer may be written down, most of them with
// the number of tokens baked in.
var spellings = map[string]tiny{
	"queries, keys and values in one product":    {named: true, attention: "packed"},
	"picked out of one product":                  {attention: "gathered"},
	"picked out, a batch equal to the heads":     {batch: 2, attention: "gathered"},
	"picked out, a batch equal to the tokens":    {batch: 6, attention: "gathered"},
	"scores by Einsum":                           {named: true, attention: "einsum"},
	"rows of all images in one":                  {named: true, attention: "flat"},
	"rows of all images, a batch of the width":   {named: true, batch: 8, attention: "flat"},
	"queries are repeated once":                  {attention: "expanded"},
	"a mask as large as the batch":               {mask: "batch"},
	"a mask of zeros":                            {mask: "zeros"},
	"an expanded mask":                           {mask: "expanded"},
	"a mask that lets all through":               {mask: "where"},
	"a mask that is looked up":                   {mask: "gathered"},
	"a mask of zeros, a batch as the tokens":     {mask: "zeros", batch: 6, named: true},
	"the class token is cut out":                 {pool: "slice"},
	"class token and patches are split":          {pool: "split"},
	"all tokens are averaged":                    {pool: "mean"},
	"the patches are cut out to their last":      {pool: "patches"},
	"tokens are flattened and put together":      {pool: "flatten"},
	"flattened, a batch as the tokens":           {pool: "flatten", batch: 6, named: true},
	"all tokens are added up and divided":        {pool: "sum"},
	"a sum times a reciprocal":                   {pool: "reciprocal"},
	"a bias for each pair of places":             {mask: "relative"},
	"a bias, sequence first":                     {mask: "relative", sequenceFirst: true, named: true},
	"a bias, and rows that none is hidden in":    {mask: "guarded", named: true},
	"rotary positions, halves":                   {rotary: "halves"},
	"rotary positions, halves, extents named":    {rotary: "halves", named: true, batch: 6},
	"rotary positions, pairs":                    {rotary: "pairs", named: true},
	"rotary positions of all tokens":             {rotary: "class"},
	"rotary positions, sequence first, averaged": {rotary: "pairs", sequenceFirst: true, pool: "mean"},
	"tokens come out":                            {pool: "tokens"},
	"tokens come out, extents named":             {pool: "tokens", named: true, batch: 6},
	"tokens come out but for the class token":    {pool: "rest"},
	"but for it, extents named":                  {pool: "rest", named: true, batch: 6},
	"a layer over all tokens":                    {pool: "all", named: true},
	"sequence first, averaged, a mask of zeros":  {sequenceFirst: true, named: true, pool: "mean", mask: "zeros"},
	"sequence first, split, one product, masked": {sequenceFirst: true, pool: "split", attention: "packed", mask: "where"},
}

func (s tiny) sized() tiny {
	s.width, s.heads, s.blocks, s.tokens, s.seed = 8, 2, 3, 6, 1
	return s
}

// rows is a batch to run the export with.
func (s tiny) rows() int64 {
	if s.batch > 0 {
		return s.batch
	}
	return 2
}

// TestPromptsPutInEqualPromptsBuiltIn inserts visual prompts into every export, at every depth, and
// compares outputs and the prompts' gradients with the model that was built with them.
func TestPromptsPutInEqualPromptsBuiltIn(t *testing.T) {
	all := maps.Clone(exports)
	maps.Copy(all, spellings)
	for name, s := range all {
		s = s.sized()
		tower := imageTower(t, s)
		counts := []int64{1, 2, 4, 6, 8} // the heads, a head's width, the tokens, the width
		if _, spelled := spellings[name]; spelled {
			counts = []int64{2, 6}
		}
		for _, k := range counts {
			for depth := int64(1); depth <= s.blocks; depth++ {
				for _, perRow := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, %d prompts, depth %d, per row %v", name, k, depth, perRow), func(t *testing.T) {
						built := s
						built.learned = learned{kind: "visual", count: k, depth: depth, start: 1, perRow: perRow, addsToTokens: true}
						built.equalsInsertion(t, tower)
					})
				}
			}
		}
	}
}

// equalsInsertion compares the model, built with its prompts, with what insertion makes of the tower.
func (s tiny) equalsInsertion(t *testing.T, tower *graph.ImageTower) {
	t.Helper()
	s.channelsLast = false // the tower takes images as others do
	want, err := s.image()
	if err != nil {
		t.Fatal(err)
	}
	l := s.learned
	got, err := tower.WithPrompts(graph.ImagePromptOptions{
		Tokens: int(l.count), Start: int(l.first), Depth: int(l.depth), PerRow: l.perRow, Drop: l.drop, Averaged: l.averaged,
	})
	if err != nil {
		t.Fatal(err)
	}
	in := s.prompts(l)
	in["pixel_values"] = floats(rng.New(2, "pixels"), s.rows(), 3, 2, 2*(plain.tokens-1))
	equalGradients(t, got, want, in, l)
}

// TestPromptsJoinAndLeaveAnywhere puts prompts in from any block on, for any number of blocks, lets
// them flow on or drops them, and averages them or not.
func TestPromptsJoinAndLeaveAnywhere(t *testing.T) {
	for name, s := range map[string]tiny{
		"plain": {}, "extents named": {named: true}, "sequence first": {sequenceFirst: true, named: true}, "one mask for all blocks": {mask: "zeros"},
		"averaged": {pool: "mean", named: true}, "averaged as a sum": {pool: "sum"}, "as a product": {pool: "reciprocal"}, "patches averaged": {pool: "patches"},
		"flattened first": {pool: "flatten"}, "a bias": {mask: "relative"}, "rotary": {rotary: "halves", named: true}, "rotary, sequence first": {rotary: "class", sequenceFirst: true},
	} {
		s = s.sized()
		tower := imageTower(t, s)
		for first := range s.blocks {
			for depth := int64(1); first+depth <= s.blocks; depth++ {
				for _, l := range []learned{{}, {drop: true, perRow: true}, {averaged: true}} {
					l.kind, l.count, l.start, l.addsToTokens, l.first, l.depth = "visual", 2, 1, true, first, depth
					t.Run(fmt.Sprintf("%s, from block %d, depth %d, dropped %v, averaged %v", name, first, depth, l.drop, l.averaged), func(t *testing.T) {
						built := s
						built.learned = l
						built.equalsInsertion(t, tower)
					})
				}
			}
		}
	}
}

// TestPoolingIsRead says of each head what it does with tokens.
func TestPoolingIsRead(t *testing.T) {
	for pool, want := range map[string]graph.Pooling{
		"": graph.PoolToken, "slice": graph.PoolToken, "split": graph.PoolMean, "mean": graph.PoolMean, "sum": graph.PoolMean,
		"patches": graph.PoolMean, "flatten": graph.PoolMean, "all": graph.PoolFixed, "tokens": graph.PoolNone, "rest": graph.PoolNone,
	} {
		if got := imageTower(t, tiny{pool: pool}.sized()).Pooling; got != want {
			t.Errorf("%q: found %q, want %q", pool, got, want)
		}
	}
}

// TestTokenTypesAreNoPositions: the row of a token type is added to all tokens, which says nothing of how long a text may be.
func TestTokenTypesAreNoPositions(t *testing.T) {
	for _, types := range []string{"expanded", "filled", "multiplied", "buffered", "input"} {
		s := plain
		s.types = types
		g, err := s.text()
		if err != nil {
			t.Fatal(err)
		}
		tower, err := graph.FindTextTower(g, "text_embeds")
		if err != nil {
			t.Fatalf("%s: %v", types, err)
		}
		if tower.Window != 0 {
			t.Errorf("%s: a text may have %d tokens at most", types, tower.Window)
		}
	}
}

// TestNeighboursSeeEachOtherPastMasks: where tokens are mixed with those next to them, padding behind a text changes it, so that
// it may not be trimmed; and a mask says nothing of an output that is always the last token's.
func TestNeighboursSeeEachOtherPastMasks(t *testing.T) {
	for how, trims := range map[string]bool{"": true, "convolved": false, "moved": false, "last": false} {
		g, err := plain.build(func(b *builder) {
			ids := b.Input("input_ids", graph.Int64, graph.Shape{b.dim(), graph.Sym("sequence")})
			x := b.Op("Gather", nil, b.weight(11, b.width), ids)
			switch how {
			case "convolved":
				x = b.Op("Conv", graph.Attrs{"pads": []int64{1, 1}}, b.Op("Transpose", graph.Attrs{"perm": []int64{0, 2, 1}}, x), b.weight(b.width, b.width, 3))
				x = b.Op("Transpose", graph.Attrs{"perm": []int64{0, 2, 1}}, x)
			case "moved":
				next := b.Op("Slice", nil, x, b.Ints(1), b.Ints(1<<40), b.Ints(1))
				x = b.Add(x, b.Op("Pad", nil, next, b.Ints(0, 0, 0, 0, 1, 0)))
			}
			mask := b.Op("Unsqueeze", nil, b.Op("Cast", graph.Attrs{"to": int64(graph.Float)}, b.Input("attention_mask", graph.Int64, ids.Shape)), b.Ints(2))
			x = b.Mul(b.blocksOf(x, nil), mask)
			if how == "last" {
				b.Output("text_embeds", b.Op("Gather", graph.Attrs{"axis": int64(1)}, x, b.Const(graph.NewTensor([]int64{-1}))))
				return
			}
			b.Output("text_embeds", b.Sum(x, false, 1))
		})
		if err != nil {
			t.Fatal(err)
		}
		tower, err := graph.FindTextTower(g, "text_embeds")
		switch {
		case how == "last":
			if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), `hides it as padding`) {
				t.Errorf("a tower whose output is the last token's, hidden or not: %v", err)
			}
		case err != nil:
			t.Fatalf("%q: %v", how, err)
		case tower.Trims != trims:
			t.Errorf("%q: texts may be trimmed: %v", how, tower.Trims)
		}
	}
}

// TestContextPutInEqualsContextBuiltIn does the same for a causal text transformer, with context
// at several places.
func TestContextPutInEqualsContextBuiltIn(t *testing.T) {
	for name, s := range exports {
		s = s.sized()
		g, err := s.text()
		if err != nil {
			t.Fatal(err)
		}
		tower, err := graph.FindTextTower(g, "text_embeds")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if tower.Window != int(s.tokens) || tower.Width != int(s.width) || len(tower.Blocks) != int(s.blocks) {
			t.Errorf("%s: window %d, width %d, %d blocks", name, tower.Window, tower.Width, len(tower.Blocks))
		}
		for _, l := range []learned{
			{count: 1, start: 1, depth: 1},
			{count: 2, start: 1, depth: 3},
			{count: 2, start: 2, depth: 2, perRow: true},
			{count: 3, start: 1, depth: 1, perRow: true},
			{count: 2, start: 3, depth: 3},
			{count: 1, start: 4, depth: 3, perRow: true},
		} {
			l.kind = "context"
			t.Run(fmt.Sprintf("%s, %d from %d, depth %d, per row %v", name, l.count, l.start, l.depth, l.perRow), func(t *testing.T) {
				built := s
				built.learned = l
				want, err := built.text()
				if err != nil {
					t.Fatal(err)
				}
				got, err := tower.WithContext(graph.ContextOptions{Tokens: int(l.count), Start: int(l.start), Depth: int(l.depth), PerRow: l.perRow})
				if err != nil {
					t.Fatal(err)
				}
				in := s.prompts(l)
				in["input_ids"] = s.ids()
				equalGradients(t, got, want, in, l)
			})
		}
	}
}

// ids are texts that end, by their largest id, at the window's last place, which no context takes.
func (s tiny) ids() *graph.Tensor {
	r := rng.New(3, "ids")
	data := make([]int64, s.rows()*s.tokens)
	for i := range data {
		if data[i] = int64(r.IntN(10)); int64(i)%s.tokens == s.tokens-1 {
			data[i] = 10
		}
	}
	return graph.NewTensor(data, s.rows(), s.tokens)
}

// prompts are random values for the learned inputs.
func (s tiny) prompts(l learned) map[string]*graph.Tensor {
	in, r := map[string]*graph.Tensor{}, rng.New(4, "prompts")
	rows := int64(1)
	if l.perRow {
		rows = s.rows()
	}
	for i := range l.depth {
		in[graph.PromptName(l.kind, int(l.first+i))] = floats(r, rows, l.count, s.width)
	}
	return in
}

func imageTower(t *testing.T, s tiny) *graph.ImageTower {
	t.Helper()
	g, err := s.image()
	if err != nil {
		t.Fatal(err)
	}
	tower, err := graph.FindImageTower(g, "image_embeds")
	if err != nil {
		t.Fatal(err)
	}
	axis := 1
	if s.sequenceFirst {
		axis = 0
	}
	if tower.ClassTokens != 1 || tower.Tokens != int(s.tokens) || tower.Width != int(s.width) || len(tower.Blocks) != int(s.blocks) || tower.TokenAxis != axis {
		t.Fatalf("found %d class tokens, %d tokens of width %d, %d blocks with tokens along axis %d", tower.ClassTokens, tower.Tokens, tower.Width, len(tower.Blocks), tower.TokenAxis)
	}
	return tower
}

// equalGradients compares two graphs' outputs, and the gradients of their learned inputs.
func equalGradients(t *testing.T, got, want *graph.Graph, in map[string]*graph.Tensor, l learned) {
	t.Helper()
	a, b := runBoth(t, got, in, l), runBoth(t, want, in, l)
	for name, w := range b {
		equalArrays(t, name, a[name], w)
	}
}

func runBoth(t *testing.T, g *graph.Graph, in map[string]*graph.Tensor, l learned) map[string]graph.Array {
	t.Helper()
	g = g.Clone()
	err := g.Build(func(b *graph.Builder) {
		var wrt []*graph.Value
		for i := range l.depth {
			wrt = append(wrt, g.Input(graph.PromptName(l.kind, int(l.first+i))))
		}
		y := g.Outputs[0]
		for i, d := range b.Gradient([]*graph.Value{y}, []*graph.Value{y}, wrt) {
			b.Output("d."+wrt[i].Name, d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return run(t, g, in)
}

func run(t *testing.T, g *graph.Graph, in map[string]*graph.Tensor) map[string]graph.Array {
	t.Helper()
	out, err := interp.RunExact(g, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func equalArrays(t *testing.T, name string, got, want graph.Array) {
	t.Helper()
	if fmt.Sprint(got.Dims) != fmt.Sprint(want.Dims) {
		t.Fatalf("%s has dims %v, want %v", name, got.Dims, want.Dims)
	}
	largest := 0.0
	for _, y := range want.Data {
		largest = math.Max(largest, math.Abs(y))
	}
	if largest == 0 {
		t.Errorf("%s is zero everywhere, which says nothing", name)
	}
	for i, y := range want.Data {
		if !(math.Abs(got.Data[i]-y) <= 1e-9*largest) {
			t.Fatalf("element %d of %s is %g, want %g", i, name, got.Data[i], y)
		}
	}
}

// TestTheTowerCutInTwoIsTheTower runs pixels to tokens, and tokens to the output, with and without
// prompts.
func TestTheTowerCutInTwoIsTheTower(t *testing.T) {
	all := maps.Clone(exports)
	maps.Copy(all, spellings)
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			s = s.sized()
			tower := imageTower(t, s)
			pixels := map[string]*graph.Tensor{"pixel_values": floats(rng.New(2, "pixels"), s.rows(), 3, 2, 2*(s.tokens-1))}
			upstream, err1 := tower.Upstream()
			downstream, err2 := tower.Downstream()
			l := learned{kind: "visual", count: 4, depth: 2}
			whole, err3 := tower.WithPrompts(graph.ImagePromptOptions{Tokens: 4, Depth: 2})
			half, err4 := tower.WithPrompts(graph.ImagePromptOptions{Tokens: 4, Depth: 2, FromTokens: true})
			for _, err := range []error{err1, err2, err3, err4} {
				if err != nil {
					t.Fatal(err)
				}
			}
			tokens, err := interp.Run(upstream, pixels)
			if err != nil {
				t.Fatal(err)
			}
			exact := run(t, upstream, pixels)["tokens"]
			tokens["tokens"] = graph.NewTensor(exact.Data, tokens["tokens"].Dims...)
			equalArrays(t, "the output without prompts", run(t, downstream, tokens)["image_embeds"], run(t, tower.Graph, pixels)["image_embeds"])
			prompts := s.prompts(l)
			maps.Copy(tokens, prompts)
			maps.Copy(pixels, prompts)
			equalArrays(t, "the output with prompts", run(t, half, tokens)["image_embeds"], run(t, whole, pixels)["image_embeds"])
		})
	}
}

// TestAMaskBetweenTokensIsRefused: which tokens prompts may see is not said.
func TestAMaskBetweenTokensIsRefused(t *testing.T) {
	g, err := tiny{mask: "causal"}.sized().image()
	if err != nil {
		t.Fatal(err)
	}
	_, err = graph.FindImageTower(g, "image_embeds")
	if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), "was made for 6 tokens") {
		t.Errorf("got %v", err)
	}
}

// TestEachRowHasItsOwnPrompts: a row of a mixed batch comes out as it does when the whole batch
// has its prompts.
func TestEachRowHasItsOwnPrompts(t *testing.T) {
	s := tiny{}.sized()
	tower := imageTower(t, s)
	mixed, err := tower.WithPrompts(graph.ImagePromptOptions{Tokens: 2, Depth: 3, PerRow: true})
	if err != nil {
		t.Fatal(err)
	}
	shared, err := tower.WithPrompts(graph.ImagePromptOptions{Tokens: 2, Depth: 3})
	if err != nil {
		t.Fatal(err)
	}
	pixels := floats(rng.New(2, "pixels"), s.rows(), 3, 2, 2*(s.tokens-1))
	in := s.prompts(learned{kind: "visual", count: 2, depth: 3, perRow: true})
	in["pixel_values"] = pixels
	together := run(t, mixed, in)["image_embeds"]
	for row := range int(s.rows()) {
		own := map[string]*graph.Tensor{"pixel_values": pixels}
		for name, p := range in {
			if name != "pixel_values" {
				data, err := graph.Values[float32](p)
				if err != nil {
					t.Fatal(err)
				}
				size := 2 * int(s.width)
				own[name] = graph.NewTensor(data[row*size:(row+1)*size], 1, 2, s.width)
			}
		}
		alone := run(t, shared, own)["image_embeds"]
		equalRow(t, together, alone, row)
	}
}

// TestATowerIsLeftAsItIs: graphs with other numbers of prompts, made in between, change nothing.
func TestATowerIsLeftAsItIs(t *testing.T) {
	s := tiny{named: true}.sized()
	tower := imageTower(t, s)
	before := tower.Graph.String()
	with := func(k, depth int) string {
		g, err := tower.WithPrompts(graph.ImagePromptOptions{Tokens: k, Depth: depth})
		if err != nil {
			t.Fatal(err)
		}
		return g.String()
	}
	first := with(2, 1)
	if other := with(5, 3); other == first {
		t.Error("5 deep prompts give the graph of 2 shallow ones")
	}
	if again := with(2, 1); again != first {
		t.Error("the second graph with 2 prompts is not the first")
	}
	if tower.Graph.String() != before {
		t.Error("the tower's own graph has changed")
	}
}

// TestTextsMayBeTrimmed: a causal text comes out the same whether or not it is padded to the window.
func TestTextsMayBeTrimmed(t *testing.T) {
	s := tiny{}.sized()
	g, err := s.text()
	if err != nil {
		t.Fatal(err)
	}
	tower, err := graph.FindTextTower(g, "text_embeds")
	if err != nil {
		t.Fatal(err)
	}
	with, err := tower.WithContext(graph.ContextOptions{Tokens: 2, Start: 1, Depth: 2})
	if err != nil {
		t.Fatal(err)
	}
	in := s.prompts(learned{kind: "context", count: 2, depth: 2})
	in["input_ids"] = graph.NewTensor([]int64{1, 2, 3, 10, 0, 0, 4, 5, 10, 0, 0, 0}, 2, 6)
	padded := run(t, with, in)["text_embeds"]
	in["input_ids"] = graph.NewTensor([]int64{1, 2, 3, 10, 4, 5, 10, 0}, 2, 4)
	equalArrays(t, "the output", run(t, with, in)["text_embeds"], padded)
}

func TestPromptsThatCannotBeAreRefused(t *testing.T) {
	image := imageTower(t, tiny{}.sized())
	g, err := tiny{}.sized().text()
	if err != nil {
		t.Fatal(err)
	}
	text, err := graph.FindTextTower(g, "text_embeds")
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]graph.ImagePromptOptions{
		"no prompts": {Depth: 1}, "no depth": {Tokens: 1}, "deeper than the tower": {Tokens: 1, Depth: 4}, "a negative number": {Tokens: -1, Depth: 1},
	} {
		if _, err := image.WithPrompts(o); errs.Of(err) != errs.Invalid {
			t.Errorf("visual prompts, %s: %v", name, err)
		}
	}
	for name, o := range map[string]graph.ContextOptions{
		"no context": {Depth: 1, Start: 1}, "no depth": {Tokens: 1, Start: 1}, "deeper than the tower": {Tokens: 1, Start: 1, Depth: 4},
		"before the text": {Tokens: 1, Start: -1, Depth: 1}, "longer than the window": {Tokens: 5, Start: 1, Depth: 1},
	} {
		if _, err := text.WithContext(o); errs.Of(err) != errs.Invalid {
			t.Errorf("context, %s: %v", name, err)
		}
	}
	for name, ids := range map[string][]int64{"a negative id": {-1}, "an id beyond the table": {11}} {
		if _, err := text.Embeddings(ids); errs.Of(err) != errs.Invalid {
			t.Errorf("embeddings of %s: %v", name, err)
		}
	}
	if rows, err := text.Embeddings([]int64{10, 0}); err != nil || len(rows) != 16 {
		t.Errorf("two embeddings hold %d numbers: %v", len(rows), err)
	}
}

// TestTowersAreVerified checks every spelling as a user's own model is checked.
func TestTowersAreVerified(t *testing.T) {
	all := maps.Clone(exports)
	maps.Copy(all, spellings)
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			if err := imageTower(t, s.sized()).Verify(interp.Run); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAWrongInsertionIsFoundOut: a runner under which insertion seems to have gone wrong fails the
// check.
func TestAWrongInsertionIsFoundOut(t *testing.T) {
	tower := imageTower(t, tiny{}.sized())
	for name, tt := range map[string]struct {
		spoil func(in map[string]*graph.Tensor)
		want  string
	}{
		"prompts are lost": {func(in map[string]*graph.Tensor) {
			for name, p := range in {
				if strings.HasPrefix(name, "visual.") {
					in[name] = graph.NewTensor(make([]float32, p.Len()), p.Dims...)
				}
			}
			if in["pixel_values"] != nil && len(in) == 1 {
				in["pixel_values"] = floats(rng.New(8, "pixels"), in["pixel_values"].Dims...)
			}
		}, "no prompts change the output"},
		"the first prompt counts more": {func(in map[string]*graph.Tensor) {
			if p := in["visual.0"]; p != nil && p.Dims[1] > 0 {
				data, err := graph.Values[float32](p)
				if err != nil {
					t.Fatal(err)
				}
				data = append([]float32{5 * data[0]}, data[1:]...)
				in["visual.0"] = graph.NewTensor(data, p.Dims...)
			}
		}, "their order changes the output"},
		"the tokens are others": {func(in map[string]*graph.Tensor) {
			if p := in["tokens"]; p != nil {
				in["tokens"] = floats(rng.New(9, "tokens"), p.Dims...)
			}
		}, "from the tokens is not that from the image"},
	} {
		err := tower.Verify(func(g *graph.Graph, in map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
			tt.spoil(in)
			return interp.Run(g, in)
		})
		if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAPixelPromptIsAdded compares the output with that of an image that has the prompt in it.
func TestAPixelPromptIsAdded(t *testing.T) {
	s := tiny{}.sized()
	tower := imageTower(t, s)
	const height, width = 2, 10
	patch := graph.PatchMask(height, width, 1, 3, 4)
	pixels, prompts := floats(rng.New(2, "pixels"), 2, 3, height, width), floats(rng.New(3, "prompt"), 2, 3, height, width)
	x, err1 := graph.Values[float32](pixels)
	p, err2 := graph.Values[float32](prompts)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	const image = 3 * height * width
	for name, tt := range map[string]struct {
		o     graph.PixelPromptOptions
		given map[string]*graph.Tensor
		of    func(row int) int // which prompt a row gets
	}{
		"one for all rows": {graph.PixelPromptOptions{}, map[string]*graph.Tensor{"pixel_prompt": graph.NewTensor(p[:image], 1, 3, height, width)}, func(int) int { return 0 }},
		"one for each row": {graph.PixelPromptOptions{PerRow: true}, map[string]*graph.Tensor{"pixel_prompt": prompts}, func(row int) int { return row }},
		"a bank": {
			graph.PixelPromptOptions{Bank: true},
			map[string]*graph.Tensor{"pixel_prompt": prompts, "pixel_index": graph.NewTensor([]int64{1, 0}, 2)},
			func(row int) int { return 1 - row },
		},
	} {
		tt.o.Mask = patch
		with, err := graph.WithPixelPrompt(tower.Graph, tt.o)
		if err != nil {
			t.Fatal(err)
		}
		sum := slices.Clone(x)
		for i := range sum {
			row := i / image
			sum[i] += patch[i%(height*width)] * p[tt.of(row)*image+i%image]
		}
		tt.given["pixel_values"] = pixels
		want := run(t, tower.Graph, map[string]*graph.Tensor{"pixel_values": graph.NewTensor(sum, pixels.Dims...)})["image_embeds"]
		got := run(t, with, tt.given)["image_embeds"]
		for i := range want.Data {
			if math.Abs(got.Data[i]-want.Data[i]) > 1e-6 {
				t.Errorf("%s: element %d is %g, want %g", name, i, got.Data[i], want.Data[i])
			}
		}
	}
}

func TestMasksOfPixelPrompts(t *testing.T) {
	count := func(mask []float32) (n int) {
		for _, x := range mask {
			n += int(x)
		}
		return n
	}
	if w := graph.BorderWidth(224); w != 30 {
		t.Errorf("the border of 224 pixels is %d wide, want 30", w)
	}
	if n := count(graph.BorderMask(8, 6, 2)); n != 8*6-4*2 {
		t.Errorf("a border of 2 in 8 x 6 has %d pixels", n)
	}
	if n := count(graph.PatchMask(8, 6, 5, 1, 4)); n != 3*4 {
		t.Errorf("a patch of 4 at 5,1 in 8 x 6 has %d pixels", n)
	}
}

// TestHintsTakeTheirPlaceAndContradictionsAreNamed overrides each finding by its name in the graph.
func TestHintsTakeTheirPlaceAndContradictionsAreNamed(t *testing.T) {
	g, err := tiny{named: true}.sized().image()
	if err != nil {
		t.Fatal(err)
	}
	found, err := graph.FindImageTower(g, "image_embeds")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, b := range found.Blocks {
		blocks = append(blocks, b.Name)
	}
	number := func(n int) *int { return &n }
	for name, h := range map[string]graph.ImageHints{
		"all as found":          {Pixels: "pixel_values", Insert: found.Insert.Name, ClassTokens: number(1), Blocks: blocks, TokenAxis: number(1)},
		"behind the pre-norm":   {Insert: blocks[0]},
		"two class tokens":      {ClassTokens: number(2)},
		"the last blocks alone": {Blocks: blocks[1:]},
	} {
		tower, err := graph.FindImageTower(g, "image_embeds", h)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if h.Insert != "" && tower.Insert.Name != h.Insert || h.ClassTokens != nil && tower.ClassTokens != *h.ClassTokens || h.Blocks != nil && tower.Blocks[0].Name != h.Blocks[0] {
			t.Errorf("%s: found %q, %d class tokens, blocks from %q", name, tower.Insert.Name, tower.ClassTokens, tower.Blocks[0].Name)
		}
		if err := tower.Verify(interp.Run); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ahead, err := graph.FindImageTower(g, "image_embeds", graph.ImageHints{ClassTokens: number(0)})
	if err != nil {
		t.Fatal(err)
	}
	if err := ahead.Verify(interp.Run); err == nil || !strings.Contains(err.Error(), "their order changes the output") {
		t.Errorf("prompts where the output is picked: %v", err)
	}
	inside := g.Nodes[len(g.Nodes)-1].Inputs[0].Name // behind the pooling
	for name, tt := range map[string]struct {
		h    graph.ImageHints
		want string
	}{
		"no such input":               {graph.ImageHints{Pixels: "pixels"}, `no input "pixels"`},
		"no such tensor":              {graph.ImageHints{Insert: "tokens"}, `no tensor "tokens"`},
		"a tensor of another rank":    {graph.ImageHints{Insert: inside}, "it has to be [batch,tokens,width]"},
		"more class tokens than are":  {graph.ImageHints{ClassTokens: number(7)}, "class_tokens: 7 of the 6 tokens"},
		"another token axis":          {graph.ImageHints{TokenAxis: number(0)}, "token_axis is said to be 0, in the graph it is 1"},
		"no such block":               {graph.ImageHints{Blocks: []string{"block"}}, `no tensor "block"`},
		"blocks out of order":         {graph.ImageHints{Blocks: []string{blocks[1], blocks[0]}}, "does not come after"},
		"prompts behind the block":    {graph.ImageHints{Insert: blocks[1]}, "does not lead to the first block's input"},
		"a tensor off the way":        {graph.ImageHints{Insert: blocks[1], Blocks: blocks[:1]}, "does not lead to the first block's input"},
		"a block that no pixel meets": {graph.ImageHints{Blocks: []string{"class"}}, "blocks:"},
	} {
		if _, err := graph.FindImageTower(g, "image_embeds", tt.h); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
