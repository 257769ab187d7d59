package graph_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
)

// TestDecodersAreVerified checks the tiny ones as a user's own decoder is checked; graph/fixtures checks the exported ones.
func TestDecodersAreVerified(t *testing.T) {
	for name, d := range decoders(t) {
		if !strings.HasPrefix(name, "tiny") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if err := d.Verify(interp.Run); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAWrongPrefixIsFoundOut: a runner under which a prefix seems to have gone in wrongly fails the check.
func TestAWrongPrefixIsFoundOut(t *testing.T) {
	all := decoders(t)
	const plain, past, opened = "tiny", "prefix_gpt2_past_left_dy_op18", "prefix_gpt2_fixed_short_dy_op18"
	turned := func(x *graph.Tensor) *graph.Tensor { // the first row comes last
		data, err := graph.Values[float32](x)
		if err != nil {
			t.Fatal(err)
		}
		by := len(data) / int(x.Dims[0])
		return graph.NewTensor(slices.Concat(data[by:], data[:by]), x.Dims...)
	}
	type inputs = map[string]*graph.Tensor
	for name, tt := range map[string]struct {
		decoder string
		spoil   func(g *graph.Graph, in inputs)
		want    string
	}{
		"a prefix is lost": {plain, func(_ *graph.Graph, in inputs) {
			if p := in["prefix"]; p != nil {
				in["prefix"] = graph.NewTensor(make([]float32, p.Len()), p.Dims...)
			}
		}, "prefix of 1 tokens (of each row true, of a bank false), before a text of 5, behind a past of 0 (padded false): the output is not that of these words"},
		"rows change places": {plain, func(_ *graph.Graph, in inputs) {
			if p := in["prefix_key.1"]; p != nil && p.Dims[0] > 1 && p.Len() > 0 {
				in["prefix_key.1"] = turned(p)
			}
		}, "keys and values of 1 tokens (of each row true"},
		"a bank's rows change places": {plain, func(_ *graph.Graph, in inputs) {
			if x := in["prefix_index"]; x != nil {
				in["prefix_index"] = graph.NewTensor([]int64{1, 2}, 2)
			}
		}, "prefix of 3 tokens (of each row false, of a bank true)"},
		"keys are those of another layer": {plain, func(_ *graph.Graph, in inputs) {
			if p := in["prefix_key.0"]; p != nil {
				in["prefix_key.0"], in["prefix_key.1"] = in["prefix_key.1"], p
			}
		}, "keys and values of 1 tokens"},
		"a past is lost": {past, func(g *graph.Graph, in inputs) {
			for _, v := range g.Inputs {
				if x := in[v.Name]; strings.HasPrefix(v.Name, "past") && x.Len() > 0 {
					in[v.Name] = graph.NewTensor(make([]float32, x.Len()), x.Dims...)
				}
			}
		}, "a text behind a past of 1 tokens does not come out as in one piece"},
		"padding is seen behind a prefix": {past, func(g *graph.Graph, in inputs) {
			if in["prefix"] != nil && in["prefix"].Len() > 0 {
				m := in["attention_mask"]
				in["attention_mask"] = graph.NewTensor(slices.Repeat([]int64{1}, int(m.Len())), m.Dims...)
			}
		}, "behind a past of 0 (padded true)"},
		"the opened decoder reads other tokens": {opened, func(g *graph.Graph, in inputs) {
			ids := in["input_ids"]
			if _, fixed := g.Input("input_ids").Shape[1].Int(); !fixed {
				in["input_ids"] = graph.NewTensor(slices.Repeat([]int64{1}, int(ids.Len())), ids.Dims...)
			}
		}, "are not those of the graph as exported"},
	} {
		err := all[tt.decoder].Verify(func(g *graph.Graph, in inputs) (inputs, error) {
			in = maps.Clone(in)
			tt.spoil(g, in)
			return interp.Run(g, in)
		})
		if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	seeing := *all[plain]
	seeing.Causal = true
	err := seeing.Verify(func(g *graph.Graph, in inputs) (inputs, error) { // all places say what the last one says
		out, err := interp.Run(g, in)
		if err != nil {
			return nil, err
		}
		data, err := graph.Values[float32](out["logits"])
		n, width := int(out["logits"].Dims[1]), int(out["logits"].Dims[2])
		for at := 0; at < len(data); at += width {
			copy(data[at:at+width], data[at/(n*width)*n*width+(n-1)*width:])
		}
		return out, err
	})
	if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), "the last word changes the logits before it") {
		t.Errorf("a token that looks ahead: %v", err)
	}
}

// TestEveryMistakeInADecodersSurgeryIsFoundOut moves each bound, axis and extent that a prefix's insertion puts into one of
// the graphs that are checked by one, every sixth of them: running it, or the check, has to fail. The decoders are one whose
// keys and values are overwritten, and one that takes a past, a mask and positions.
func TestEveryMistakeInADecodersSurgeryIsFoundOut(t *testing.T) {
	s := tiny{sequenceFirst: true}.sized()
	s.blocks = 2
	g, err := s.decoder(false, false)
	if err != nil {
		t.Fatal(err)
	}
	small, err := graph.FindDecoder(g, "logits")
	if err != nil {
		t.Fatal(err)
	}
	moves := 0
	for name, d := range map[string]*graph.DecoderTower{"keys and values are overwritten": small, "a past is taken": decoders(t)["prefix_gpt2_past_left_dy_op18"]} {
		moves += noticed(t, name, 6, 1, d.Graph, d.Verify, prefixed)
	}
	if moves < 20 {
		t.Errorf("%d mistakes were made, at least 20 were meant", moves)
	}
}

// prefixed says whether a prefix of one token or more enters a graph.
func prefixed(g *graph.Graph) bool {
	for _, name := range []string{"prefix", "prefix_key.0"} {
		if x := g.Input(name); x != nil && !x.Shape[len(x.Shape)-2].Is(0) {
			return true
		}
	}
	return false
}
