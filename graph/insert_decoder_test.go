package graph_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
)

// decoder is a causal text transformer with an output for each token; with baked, its positions
// are a constant for as many tokens as it takes, else cut from a table of 12; with types, it takes
// another input to be looked up.
func (s tiny) decoder(baked, types bool) (*graph.Graph, error) {
	return s.build(func(b *builder) {
		length := graph.Sym("sequence")
		if b.named {
			length = graph.Known(b.tokens)
		}
		ids := b.Input("input_ids", graph.Int64, graph.Shape{b.dim(), length})
		x := b.Op("Gather", nil, b.weight(11, b.width), ids)
		if types {
			x = b.Add(x, b.Op("Gather", nil, b.weight(2, b.width), b.Input("token_types", graph.Int64, graph.Shape{b.dim(), length})))
		}
		n := b.Op("Shape", graph.Attrs{"start": int64(1), "end": int64(2)}, ids)
		positions := b.weight(b.tokens, b.width)
		if !baked {
			positions = b.Op("Slice", nil, b.weight(12, b.width), b.Ints(0), n, b.Ints(0))
		}
		x = b.blocksOf(b.Add(x, positions), b.causal(n))
		b.Output("logits", b.MatMul(b.norm(x), b.weight(b.width, 11)))
	})
}

// decoders are what prefixes are put into: exported ones, and tiny ones in several layouts.
func decoders(t *testing.T) map[string]*graph.DecoderTower {
	t.Helper()
	graphs := map[string]*graph.Graph{}
	for name, s := range map[string]tiny{"tiny": {}, "tiny, sequence first": {sequenceFirst: true}, "tiny, packed": {attention: "packed"}, "tiny, Einsum": {attention: "einsum"}} {
		g, err := s.sized().decoder(false, false)
		if err != nil {
			t.Fatal(err)
		}
		graphs[name] = g
	}
	files, _ := filepath.Glob("testdata/fixtures/prefix_*/model.onnx")
	for _, file := range files {
		g, err := graph.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		if g.Input("use_cache_branch") != nil {
			if err := g.Pin("use_cache_branch", graph.NewTensor([]bool{true}, 1)); err != nil {
				t.Fatal(err)
			}
			if err := g.Fold(); err != nil {
				t.Fatal(err)
			}
			g.PruneInputs()
		}
		graphs[filepath.Base(filepath.Dir(file))] = g
	}
	towers := map[string]*graph.DecoderTower{}
	for name, g := range graphs {
		tower, err := graph.FindDecoder(g, "logits")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		towers[name] = tower
	}
	return towers
}

// free leaves out the decoders that were made for one length of text.
func free(towers map[string]*graph.DecoderTower) map[string]*graph.DecoderTower {
	maps.DeleteFunc(towers, func(_ string, t *graph.DecoderTower) bool {
		_, fixed := t.IDs.Shape[1].Int()
		return fixed
	})
	return towers
}

// spoken are the inputs of a decoder for ids, with a mask of ones, states of an encoder, and the
// past if there is one, else an empty one; positions count on from it.
func spoken(d *graph.DecoderTower, ids *graph.Tensor, past map[string]*graph.Tensor) map[string]*graph.Tensor {
	rows := ids.Dims[0]
	in, behind := map[string]*graph.Tensor{d.IDs.Name: ids}, int64(0)
	for _, l := range d.Layers {
		for _, v := range []*graph.Value{l.PastKey, l.PastValue} {
			if v == nil {
				continue
			}
			in[v.Name] = graph.NewTensor([]float32{}, rows, int64(l.Heads), 0, int64(l.HeadWidth))
			if x := past[v.Name]; x != nil {
				in[v.Name], behind = x, x.Dims[2]
			}
		}
	}
	if d.Mask != nil {
		in[d.Mask.Name] = graph.NewTensor(slices.Repeat([]int64{1}, int(rows*(behind+ids.Dims[1]))), rows, behind+ids.Dims[1])
	}
	if d.Positions != nil {
		var places []int64
		for range rows {
			for i := range ids.Dims[1] {
				places = append(places, behind+i)
			}
		}
		in[d.Positions.Name] = graph.NewTensor(places, ids.Dims...)
	}
	if d.Encoder != nil {
		width, _ := d.Encoder.Shape[2].Int()
		in[d.Encoder.Name] = floats(rng.New(1, "encoder"), rows, 9, width)
	}
	return in
}

// words are random ids [rows,n]; those of row 0 are one's alone where rows is 1.
func words(what string, rows, n int64) *graph.Tensor {
	r, ids := rng.New(3, what), make([]int64, rows*n)
	for i := range ids {
		ids[i] = 1 + r.Int64N(10)
	}
	return graph.NewTensor(ids, rows, n)
}

// behind puts the same words before each row of ids.
func behind(t *testing.T, first, ids *graph.Tensor) *graph.Tensor {
	t.Helper()
	f, err1 := graph.Values[int64](first)
	x, err2 := graph.Values[int64](ids)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	var out []int64
	for row := range ids.Dims[0] {
		out = append(append(out, f...), x[row*ids.Dims[1]:(row+1)*ids.Dims[1]]...)
	}
	return graph.NewTensor(out, ids.Dims[0], first.Dims[1]+ids.Dims[1])
}

// tail leaves the last n places of [B,S,V].
func tail(a graph.Array, n int) graph.Array {
	out := graph.Array{Type: a.Type, Dims: []int{a.Dims[0], n, a.Dims[2]}}
	for row := range a.Dims[0] {
		end := (row + 1) * a.Dims[1] * a.Dims[2]
		out.Data = append(out.Data, a.Data[end-n*a.Dims[2]:end]...)
	}
	return out
}

func wordPrefix(t *testing.T, d *graph.DecoderTower, first *graph.Tensor) *graph.Tensor {
	t.Helper()
	ids, err := graph.Values[int64](first)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := d.Embeddings(ids)
	if err != nil {
		t.Fatal(err)
	}
	return graph.NewTensor(rows, first.Dims[0], first.Dims[1], int64(d.Width))
}

func feed(in map[string]*graph.Tensor, more map[string]*graph.Tensor) map[string]*graph.Tensor {
	out := maps.Clone(in)
	maps.Copy(out, more)
	return out
}

// only leaves out what the graph doesn't take.
func only(g *graph.Graph, in map[string]*graph.Tensor) map[string]*graph.Tensor {
	maps.DeleteFunc(in, func(name string, _ *graph.Tensor) bool { return g.Input(name) == nil })
	return in
}

// TestAPrefixOfWordsIsTheWords puts the embeddings of words before a text; that must be the text with
// the words before it, for two lengths of prefix, whether one for all rows, each row's own, or in a bank.
func TestAPrefixOfWordsIsTheWords(t *testing.T) {
	for name, d := range free(decoders(t)) {
		for _, p := range []int64{1, 4} {
			t.Run(fmt.Sprintf("%s, %d tokens", name, p), func(t *testing.T) {
				n := 5
				if room := d.LongestText(int(p)); room >= 0 {
					n = min(n, room)
				}
				first, text := words("first", 1, p), words("text", 2, int64(n))
				want := run(t, d.Graph, spoken(d, behind(t, first, text), nil))["logits"]
				prefix := wordPrefix(t, d, first)
				for owner, o := range map[string]graph.PrefixOptions{"shared": {}, "own": {PerRow: true}, "bank": {Bank: true}, "kept": {KeepLogits: true}} {
					o.Tokens = int(p)
					g, err := d.WithPrefix(o)
					if err != nil {
						t.Fatal(err)
					}
					in := feed(spoken(d, text, nil), map[string]*graph.Tensor{"prefix": prefix})
					switch owner {
					case "own":
						in["prefix"] = picked(t, prefix, []int64{0, 0})
					case "bank":
						in["prefix"] = picked(t, wordPrefix(t, d, words("others", 3, p)), []int64{0, 1, 2})
						in["prefix_index"] = graph.NewTensor([]int64{2, 2}, 2)
						want := run(t, d.Graph, spoken(d, behind(t, third(t, words("others", 3, p)), text), nil))["logits"]
						equalArrays(t, owner, run(t, g, in)["logits"], tail(want, n))
						continue
					case "kept":
						equalArrays(t, owner, run(t, g, in)["logits"], want)
						continue
					}
					equalArrays(t, owner, run(t, g, in)["logits"], tail(want, n))
				}
			})
		}
	}
}

// third is row 2 of ids.
func third(t *testing.T, ids *graph.Tensor) *graph.Tensor {
	t.Helper()
	x, err := graph.Values[int64](ids)
	if err != nil {
		t.Fatal(err)
	}
	return graph.NewTensor(x[2*ids.Dims[1]:3*ids.Dims[1]], 1, ids.Dims[1])
}

// TestKeysAndValuesOfWordsAreTheWords takes the keys and values that a decoder gives out for words, and
// puts them before a text.
func TestKeysAndValuesOfWordsAreTheWords(t *testing.T) {
	ran := 0
	for name, d := range free(decoders(t)) {
		if d.Layers[0].PresentKey == nil {
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			first, text := words("first", 1, 3), words("text", 2, 5)
			want := tail(run(t, d.Graph, spoken(d, behind(t, first, text), nil))["logits"], 5)
			said := run(t, d.Graph, spoken(d, behind(t, first, graph.NewTensor([]int64{}, 2, 0)), nil))
			pairs := map[string]*graph.Tensor{}
			i := 0
			for _, l := range d.Layers {
				if !l.Cross {
					pairs[fmt.Sprintf("prefix_key.%d", i)] = tensorOf(said[l.PresentKey.Name])
					pairs[fmt.Sprintf("prefix_value.%d", i)] = tensorOf(said[l.PresentValue.Name])
					i++
				}
			}
			g, err := d.WithKeyValues(graph.PrefixOptions{Tokens: 3, PerRow: true})
			if err != nil {
				t.Fatal(err)
			}
			nearArrays(t, "logits", run(t, g, only(g, feed(spoken(d, text, nil), pairs)))["logits"], want)
		})
	}
	if ran < 2 {
		t.Errorf("%d decoders give out keys and values", ran)
	}
}

// TestUnplacedKeysAndValuesLeaveTheTextItsPlaces puts keys and values before a text. Where positions are rows of a table, that has
// to be what stands at places behind them with the table's rows moved back by as many; elsewhere it is what they are with places.
func TestUnplacedKeysAndValuesLeaveTheTextItsPlaces(t *testing.T) {
	const p = 3
	moved, cut := 0, 0
	for name, d := range free(decoders(t)) {
		t.Run(name, func(t *testing.T) {
			g, err := d.WithKeyValues(graph.PrefixOptions{Tokens: p, Unplaced: true})
			if strings.HasPrefix(name, "tiny") || name == "prefix_gpt2_fixed_short_dy_op18" { // rows are cut from the table, not looked up
				if cut++; errs.Of(err) != errs.Unsupported {
					t.Errorf("positions that aren't looked up: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			later := d
			if of := d.Graph.Clone(); moveBack(t, of, d, p) {
				moved++
				if later, err = graph.FindDecoder(of, "logits"); err != nil {
					t.Fatal(err)
				}
			}
			placed, err := later.WithKeyValues(graph.PrefixOptions{Tokens: p})
			if err != nil {
				t.Fatal(err)
			}
			pairs, past, i := map[string]*graph.Tensor{}, map[string]*graph.Tensor{}, 0
			for _, l := range d.Layers {
				if l.Cross {
					continue
				}
				for _, name := range []string{fmt.Sprintf("prefix_key.%d", i), fmt.Sprintf("prefix_value.%d", i)} {
					pairs[name] = floats(rng.New(6, name), 1, int64(l.Heads), p, int64(l.HeadWidth))
				}
				if l.PastKey != nil {
					past[l.PastKey.Name], past[l.PastValue.Name] = pairs[fmt.Sprintf("prefix_key.%d", i)], pairs[fmt.Sprintf("prefix_value.%d", i)]
				}
				i++
			}
			n := int64(5)
			if room := d.LongestText(p); room >= 0 {
				n = min(n, int64(room))
			}
			in := spoken(d, words("text", 1, n), nil)
			equalArrays(t, "logits", run(t, g, only(g, feed(in, pairs)))["logits"], run(t, placed, only(placed, feed(in, pairs)))["logits"])
			if len(past) == 0 {
				return
			}
			step, err := d.Unplaced(p)
			if err != nil {
				t.Fatal(err)
			}
			in = spoken(d, words("text", 1, 5), past)
			equalArrays(t, "logits behind a past", run(t, step, in)["logits"], run(t, later.Graph, in)["logits"])
		})
	}
	if moved < 4 || cut != 5 {
		t.Errorf("%d decoders look their positions up, %d cut them from a table", moved, cut)
	}
}

// moveBack moves the rows of a decoder's position table, in the graph g, back by p; false where none is looked up.
func moveBack(t *testing.T, g *graph.Graph, d *graph.DecoderTower, p int) bool {
	t.Helper()
	for _, n := range g.Nodes {
		if n.Op != "Gather" || n.Inputs[0].Const == nil || n.Inputs[0].Name == d.Table.Name || !n.Inputs[0].Shape[len(n.Inputs[0].Shape)-1].Is(int64(d.Width)) {
			continue
		}
		table := n.Inputs[0].Const
		rows, err := graph.Float32s(table)
		if err != nil {
			t.Fatal(err)
		}
		back := slices.Clone(rows)
		copy(back[p*d.Width:], rows)
		n.Inputs[0].Const = graph.NewTensor(back, table.Dims...)
		return true
	}
	return false
}

func tensorOf(a graph.Array) *graph.Tensor {
	dims, data := make([]int64, len(a.Dims)), make([]float32, len(a.Data))
	for i, d := range a.Dims {
		dims[i] = int64(d)
	}
	for i, x := range a.Data {
		data[i] = float32(x)
	}
	return graph.NewTensor(data, dims...)
}

// nearArrays is equalArrays for what went through float32 on the way.
func nearArrays(t *testing.T, name string, got, want graph.Array) {
	t.Helper()
	if fmt.Sprint(got.Dims) != fmt.Sprint(want.Dims) {
		t.Fatalf("%s has dims %v, want %v", name, got.Dims, want.Dims)
	}
	for i, y := range want.Data {
		if d := got.Data[i] - y; !(d < 1e-5 && d > -1e-5) {
			t.Fatalf("element %d of %s is %g, want %g", i, name, got.Data[i], y)
		}
	}
}

// TestDecodingGoesOnBehindAPrefix runs three tokens behind a soft prefix, then two more through the
// original graph on top of the keys and values that this gave out.
func TestDecodingGoesOnBehindAPrefix(t *testing.T) {
	ran := 0
	for name, d := range free(decoders(t)) {
		if d.Layers[0].PastKey == nil {
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			g, err := d.WithPrefix(graph.PrefixOptions{Tokens: 4})
			if err != nil {
				t.Fatal(err)
			}
			prefix := map[string]*graph.Tensor{"prefix": floats(rng.New(5, "prefix"), 1, 4, int64(d.Width))}
			start, rest := words("start", 1, 3), words("rest", 1, 2)
			whole := run(t, g, feed(spoken(d, behind(t, start, rest), nil), prefix))
			first := run(t, g, feed(spoken(d, start, nil), prefix))
			past := map[string]*graph.Tensor{}
			for _, l := range d.Layers {
				if l.PastKey != nil && !l.Cross {
					past[l.PastKey.Name], past[l.PastValue.Name] = tensorOf(first[l.PresentKey.Name]), tensorOf(first[l.PresentValue.Name])
				}
			}
			nearArrays(t, "logits", run(t, d.Graph, spoken(d, rest, past))["logits"], tail(whole["logits"], 2))
		})
	}
	if ran == 0 {
		t.Error("no decoder takes a past")
	}
}

// TestNoPrefixChangesNothing puts in prefixes of no tokens.
func TestNoPrefixChangesNothing(t *testing.T) {
	for name, d := range decoders(t) {
		t.Run(name, func(t *testing.T) {
			n := int64(5)
			if s, fixed := d.IDs.Shape[1].Int(); fixed {
				n = s
			}
			in := spoken(d, words("text", 2, n), nil)
			want := run(t, d.Graph, in)["logits"]
			soft, err := d.WithPrefixOf(graph.PrefixOptions{})
			if err != nil {
				t.Fatal(err)
			}
			equalArrays(t, "logits", run(t, soft, feed(in, map[string]*graph.Tensor{"prefix": graph.NewTensor([]float32{}, 1, 0, int64(d.Width))}))["logits"], want)
			pairs, i := map[string]*graph.Tensor{}, 0
			for _, l := range d.Layers {
				if !l.Cross {
					none := graph.NewTensor([]float32{}, 1, int64(l.Heads), 0, int64(l.HeadWidth))
					pairs[fmt.Sprintf("prefix_key.%d", i)], pairs[fmt.Sprintf("prefix_value.%d", i)] = none, none
					i++
				}
			}
			kv, err := d.WithKeyValuesOf(graph.PrefixOptions{})
			if err != nil {
				t.Fatal(err)
			}
			equalArrays(t, "logits", run(t, kv, only(kv, feed(in, pairs)))["logits"], want)
		})
	}
}

// TestPrefixesThatCannotBeAreRefused asks for what a decoder can't take.
func TestPrefixesThatCannotBeAreRefused(t *testing.T) {
	s := tiny{}.sized()
	fixed := s
	fixed.named, fixed.tokens = true, 4
	for name, c := range map[string]struct {
		tiny         tiny
		baked, types bool
		o            graph.PrefixOptions
		kind         errs.Kind
		says         string
	}{
		"no tokens":                    {tiny: s, kind: errs.Invalid, says: "a prefix of 0 tokens"},
		"rows' own and a bank":         {tiny: s, o: graph.PrefixOptions{Tokens: 1, PerRow: true, Bank: true}, kind: errs.Invalid, says: "not both"},
		"as many as there are places":  {tiny: s, o: graph.PrefixOptions{Tokens: 12}, kind: errs.Invalid, says: "leaves 0 of the position table's 12 places"},
		"more than a text leaves":      {tiny: fixed, o: graph.PrefixOptions{Tokens: 9}, kind: errs.Invalid, says: "leaves 3 of the position table's 12 places"},
		"places for the text alone":    {tiny: fixed, baked: true, o: graph.PrefixOptions{Tokens: 4}, kind: errs.Invalid, says: "leaves 0 of the position table's 4 places"},
		"an input of no known meaning": {tiny: s, types: true, o: graph.PrefixOptions{Tokens: 1}, kind: errs.Unsupported, says: `"token_types"`},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := c.tiny.decoder(c.baked, c.types)
			if err != nil {
				t.Fatal(err)
			}
			d, err := graph.FindDecoder(g, "logits")
			if err == nil {
				_, err = d.WithPrefix(c.o)
			}
			if errs.Of(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%v, want %v with %q", err, c.kind, c.says)
			}
		})
	}
}
