package graph_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
)

// textSpellings are ways in which the parts of a text tower may be written down that its length is baked into, batches equal
// to other extents among them.
var textSpellings = map[string]tiny{
	"queries, keys and values in one product":       {named: true, attention: "packed"},
	"picked out of one product, a batch as tokens":  {named: true, attention: "gathered", batch: 6},
	"picked out, a batch as the heads":              {named: true, attention: "gathered", batch: 2},
	"scores by Einsum":                              {named: true, attention: "einsum"},
	"rows of all texts in one":                      {named: true, attention: "flat"},
	"rows of all texts, a batch as a head's width":  {named: true, attention: "flat", batch: 4},
	"rows of all texts, a batch as the width":       {named: true, attention: "flat", batch: 8},
	"queries are repeated once":                     {named: true, attention: "expanded"},
	"a mask of zeros":                               {named: true, mask: "zeros"},
	"an expanded mask, a batch as tokens":           {named: true, mask: "expanded", batch: 6},
	"a mask that lets all through":                  {named: true, mask: "where"},
	"tokens see each other":                         {sees: true},
	"tokens see each other, sequence first":         {sees: true, named: true, sequenceFirst: true, mask: "where"},
	"tokens first, one product, a batch as a width": {sequenceFirst: true, named: true, attention: "packed", batch: 4},
}

// TestTextTowersAreVerified checks every spelling as a user's own model is checked.
func TestTextTowersAreVerified(t *testing.T) {
	all := maps.Clone(exports)
	maps.Copy(all, textSpellings)
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			if err := textTower(t, s.sized()).Verify(interp.Run); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAWrongContextIsFoundOut: a runner under which context seems to have gone in wrongly fails the
// check.
func TestAWrongContextIsFoundOut(t *testing.T) {
	tower := textTower(t, tiny{named: true}.sized())
	turned := func(x *graph.Tensor, by int64) *graph.Tensor { // rows of [B,K,D] moved along
		if by = by % max(1, x.Len()); x.Len() == 0 {
			return x
		}
		data, err := graph.Values[float32](x)
		if err != nil {
			t.Fatal(err)
		}
		return graph.NewTensor(slices.Concat(data[by:], data[:by]), x.Dims...)
	}
	zero := func(x *graph.Tensor) *graph.Tensor {
		return graph.NewTensor(make([]float32, x.Len()), x.Dims...)
	}
	for name, tt := range map[string]struct {
		spoil func(g *graph.Graph, in map[string]*graph.Tensor) *graph.Graph
		want  string
	}{
		"context is lost": {func(g *graph.Graph, in map[string]*graph.Tensor) *graph.Graph {
			if p := in["context.0"]; p != nil && p.Len() > 0 && in["input_ids"].Dims[1] == 6 {
				return tower.Graph
			}
			return g
		}, "token 0 of 3 of the context at block 0 does not change the output"},
		"the second block's context is lost": {func(g *graph.Graph, in map[string]*graph.Tensor) *graph.Graph {
			if p := in["context.1"]; p != nil {
				in["context.1"] = zero(p)
			}
			return g
		}, "3 tokens' own embeddings as context, to depth 3"},
		"tokens of the context change places": {func(g *graph.Graph, in map[string]*graph.Tensor) *graph.Graph {
			if p := in["context.0"]; p != nil && p.Dims[1] > 1 {
				in["context.0"] = turned(p, 8)
			}
			return g
		}, "own embeddings as context"},
		"rows change places": {func(g *graph.Graph, in map[string]*graph.Tensor) *graph.Graph {
			if p := in["context.0"]; p != nil && p.Dims[0] > 1 {
				in["context.0"] = turned(p, 8*p.Dims[1])
			}
			return g
		}, "1 tokens' own embeddings as context, to depth 1"},
		"a bank's rows change places": {func(g *graph.Graph, in map[string]*graph.Tensor) *graph.Graph {
			if in["context_index"] != nil {
				in["context_index"] = graph.NewTensor([]int64{0, 1}, 2)
			}
			return g
		}, "from a bank true"},
		"the opened graph takes other positions": {func(g *graph.Graph, in map[string]*graph.Tensor) *graph.Graph {
			if g.Input("context.0") == nil && strings.Contains(g.Inputs[0].Shape.String(), "sequence") {
				g = g.Clone()
				for v := range g.Constants() {
					if slices.Equal(v.Const.Dims, []int64{6, 8}) {
						v.Const = graph.NewTensor(make([]float32, 48), 6, 8)
					}
				}
			}
			return g
		}, "is not that of the graph as exported"},
		"learned rows are lost": {func(g *graph.Graph, in map[string]*graph.Tensor) *graph.Graph {
			if p := in["token_rows"]; p != nil {
				in["token_rows"] = zero(p)
			}
			return g
		}, "learned rows of the token table"},
	} {
		err := tower.Verify(func(g *graph.Graph, in map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
			in = maps.Clone(in)
			return interp.Run(tt.spoil(g, in), in)
		})
		if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryMistakeInTheSurgeryIsFoundOut moves each bound, axis and extent that insertion puts
// into one of the graphs that are checked by one, every third of them: running it, or the check, has to fail.
func TestEveryMistakeInTheSurgeryIsFoundOut(t *testing.T) {
	s := tiny{sequenceFirst: true, named: true}.sized()
	s.blocks = 2
	tower := textTower(t, s)
	moves := noticed(t, "context", 3, 3, tower.Graph, tower.Verify, func(g *graph.Graph) bool {
		return g.Input("context.0") != nil && !g.Input("context.0").Shape[1].Is(0)
	})
	if moves < 100 {
		t.Errorf("%d mistakes were made, at least 100 were meant", moves)
	}
}

// noticed moves every step-th number that insertion into a tower's own graph put into each graph that verify checks and that is prompted.
// Running it, or the check, has to fail before ahead more such graphs were run. It returns how many numbers it moved.
func noticed(t *testing.T, name string, step, ahead int, own *graph.Graph, verify func(graph.Runner) error, prompted func(*graph.Graph) bool) (moves int) {
	t.Helper()
	known := map[string]bool{}
	for _, n := range own.Nodes {
		known[n.Outputs[0].Name] = true
	}
	past := errors.New("no more of this graph is checked")
	for which, graphs := 0, 1; which < graphs; which++ {
		for at := which % step; ; at += step {
			what := ""
			seen, order := map[*graph.Graph]int{}, []*graph.Graph{}
			err := verify(func(g *graph.Graph, in map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
				if _, again := seen[g]; !again && prompted(g) {
					seen[g], order = len(order), append(order, g)
				}
				graphs = max(graphs, len(order))
				if len(order) > which+ahead {
					return nil, past
				}
				if k, with := seen[g]; with && k == which {
					g, what = moved(g, known, at)
				}
				return interp.Run(g, in)
			})
			if what == "" {
				break
			}
			moves++
			if err == nil || errors.Is(err, past) {
				t.Errorf("%s, graph %d: nothing was noticed of %s: %v", name, which, what, err)
			}
		}
	}
	return moves
}

// moved adds one to the at-th number that insertion put into a graph, and says which. Targets of Expand
// may be larger where they broadcast anyway, and a vector has but one axis to squeeze.
func moved(g *graph.Graph, known map[string]bool, at int) (*graph.Graph, string) {
	c := g.Clone()
	seen, targets := 0, map[*graph.Value]bool{}
	for _, n := range c.Nodes {
		if n.Op == "Expand" {
			targets[n.Inputs[1]] = true
		}
	}
	for _, n := range c.Nodes {
		if known[n.Outputs[0].Name] || n.Op == "Expand" || n.Op == "Squeeze" || targets[n.Outputs[0]] {
			continue
		}
		for i, v := range n.Inputs {
			if v == nil || v.Const == nil || v.Const.Type != graph.Int64 {
				continue
			}
			data, err := graph.Values[int64](v.Const)
			if err != nil {
				return g, ""
			}
			for j := range data {
				if data[j] == math.MaxInt64 || seen < at {
					seen++
					continue
				}
				data = slices.Clone(data)
				data[j]++
				m := *v
				m.Const = graph.NewTensor(data, v.Const.Dims...)
				n.Inputs[i] = &m
				return c, fmt.Sprintf("element %d of input %d of %s %s", j, i, n.Op, n.Outputs[0].Name)
			}
		}
	}
	return g, ""
}

// TestTextHintsTakeTheirPlaceAndContradictionsAreNamed overrides each finding by its name in the graph.
func TestTextHintsTakeTheirPlaceAndContradictionsAreNamed(t *testing.T) {
	s := tiny{named: true}.sized()
	g, err := s.text()
	if err != nil {
		t.Fatal(err)
	}
	found := textTower(t, s)
	var blocks []string
	for _, b := range found.Blocks {
		blocks = append(blocks, b.Name)
	}
	embedding := found.Embedding.Name
	number := func(n int) *int { return &n }
	yes := true
	for name, h := range map[string]graph.TextHints{
		"all as found": {
			IDs: "input_ids", Embedding: embedding, Positioned: blocks[0], Blocks: blocks, TokenAxis: number(1),
			Pooling: string(found.Pooling), Start: number(1), Trims: &found.Trims,
		},
		"the last blocks alone": {Blocks: blocks[1:]},
		"another start":         {Start: number(2)},
	} {
		tower, err := graph.FindTextTower(g, "text_embeds", h)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if h.Blocks != nil && (tower.Blocks[0].Name != h.Blocks[0] || len(tower.Blocks) != len(h.Blocks)) || h.Start != nil && *tower.Start != *h.Start {
			t.Errorf("%s: found %d blocks from %q", name, len(tower.Blocks), tower.Blocks[0].Name)
		}
		if err := tower.Verify(interp.Run); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tt := range map[string]struct {
		h    graph.TextHints
		want string
	}{
		"no such input of ids":         {graph.TextHints{IDs: "ids"}, `no input "ids" (it has ["input_ids"])`},
		"no such mask":                 {graph.TextHints{Mask: "attention_mask"}, `mask: the graph that computes ["text_embeds"] has no input "attention_mask"`},
		"ids for a mask":               {graph.TextHints{Mask: "input_ids"}, `mask is said to be "input_ids", in the graph that is the ids`},
		"no such tensor":               {graph.TextHints{Embedding: "tokens"}, `no tensor "tokens"`},
		"embeddings behind positions":  {graph.TextHints{Embedding: blocks[0]}, `embedding is said to be "` + blocks[0] + `", in the graph that is no look-up in a table but made by node`},
		"no positions are added there": {graph.TextHints{Positioned: blocks[1]}, `positioned is said to be "` + blocks[1] + `", in the graph no table of positions is added there`},
		"blocks out of order":          {graph.TextHints{Blocks: []string{blocks[1], blocks[0]}}, "does not come after"},
		"no such block":                {graph.TextHints{Blocks: []string{"block"}}, `no tensor "block"`},
		"another token axis":           {graph.TextHints{TokenAxis: number(0)}, "token_axis is said to be 0, in the graph it is 1"},
		"an end ahead of the blocks":   {graph.TextHints{End: blocks[0]}, `end: "` + blocks[0] + `" does not come after the last block's input`},
		"an end of another shape":      {graph.TextHints{End: found.Output.Name}, "it has to be [batch,tokens,width]"},
		"no pooling":                   {graph.TextHints{Pooling: "max"}, `pooling is said to be "max": it is one of`},
		"another pooling":              {graph.TextHints{Pooling: "last"}, `pooling is said to be "last", in the graph it is "mean"`},
		"a start behind the end":       {graph.TextHints{Start: number(5)}, "start is said to be 5, in the graph texts have 6 places"},
	} {
		if _, err := graph.FindTextTower(g, "text_embeds", tt.h); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}

	seeing, err := tiny{sees: true}.sized().text()
	if err != nil {
		t.Fatal(err)
	}
	tower, err := graph.FindTextTower(seeing, "text_embeds", graph.TextHints{Trims: &yes})
	if err != nil {
		t.Fatal(err)
	}
	if err := tower.Verify(interp.Run); errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), "cut behind their end") {
		t.Errorf("texts whose padding is attended to are said to be trimmed: %v", err)
	}
}
