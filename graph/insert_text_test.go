package graph_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

func withContext(t *testing.T, tower *graph.TextTower, o graph.ContextOptions) *graph.Graph {
	t.Helper()
	g, err := tower.WithContext(o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// places are the same positions in every row.
func (s tiny) places(at ...int64) *graph.Tensor {
	var all []int64
	for range s.rows() {
		all = append(all, at...)
	}
	return graph.NewTensor(all, s.rows(), int64(len(at)))
}

// TestContextAtPlacesOfEachRow: places given as numbers come to the same as a start, and a row of a
// mixed batch comes out as it does when all rows have its places.
func TestContextAtPlacesOfEachRow(t *testing.T) {
	for name, s := range exports {
		t.Run(name, func(t *testing.T) {
			s = s.sized()
			tower := textTower(t, s)
			l := learned{kind: "context", count: 2, depth: 3}
			placed := withContext(t, tower, graph.ContextOptions{Tokens: 2, Placed: true, Depth: 3})
			in := s.prompts(l)
			in["input_ids"] = s.ids()
			in["context_at"] = s.places(2, 3)
			equalGradients(t, placed, withContext(t, tower, graph.ContextOptions{Tokens: 2, Start: 2, Depth: 3}), in, l)

			mixed := []int64{}
			for row := range s.rows() {
				mixed = append(mixed, row%4, 4)
			}
			in["context_at"] = graph.NewTensor(mixed, s.rows(), 2)
			together := run(t, placed, in)["text_embeds"]
			for row := range s.rows() {
				in["context_at"] = s.places(row%4, 4)
				equalRow(t, together, run(t, placed, in)["text_embeds"], int(row))
			}
		})
	}
}

// TestInsertedContextIsContextInALongerText: room is made in the text as if the token in front of
// the context had been written again.
func TestInsertedContextIsContextInALongerText(t *testing.T) {
	for name, s := range exports {
		for start := range 3 {
			t.Run(fmt.Sprintf("%s, at %d", name, start), func(t *testing.T) {
				s = s.sized()
				tower := textTower(t, s)
				l := learned{kind: "context", count: 2, depth: 3, perRow: true}
				in := s.prompts(l)
				var short, long []int64
				for row := range s.rows() {
					text := []int64{1 + row%3, 5, 2, 10}
					before := text[max(0, start-1)]
					short = append(short, text...)
					long = append(append(append(long, text[:start]...), before, before), text[start:]...)
				}
				o := graph.ContextOptions{Tokens: 2, Start: start, Depth: 3, PerRow: true}
				in["input_ids"] = graph.NewTensor(long, s.rows(), 6)
				want := runBoth(t, withContext(t, tower, o), in, l)
				in["input_ids"] = graph.NewTensor(short, s.rows(), 4)
				for _, pooled := range []bool{false, true} {
					o.Insert, o.Pooled = true, pooled
					got := runBoth(t, withContext(t, tower, o), in, l)
					for name, w := range want {
						equalArrays(t, name, got[name], w)
					}
				}
			})
		}
	}
}

// TestTextsOfAFixedLengthAreOpened: a tower that was exported for texts of 6 tokens takes shorter
// ones, and what comes out is what the same tower gives that was exported for any length.
func TestTextsOfAFixedLengthAreOpened(t *testing.T) {
	for name, s := range exports {
		if !s.named {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s = s.sized()
			fixed, s2 := textTower(t, s), s
			s2.named = false
			open := textTower(t, s2)
			if shortest, longest := fixed.Lengths(); shortest != 1 || longest != 6 || fixed.Exported != 6 || fixed.Fixed != nil {
				t.Fatalf("texts of %d to %d tokens, exported with %d: %v", shortest, longest, fixed.Exported, fixed.Fixed)
			}
			l := learned{kind: "context", count: 2, depth: 2}
			in := s.prompts(l)
			var ids []int64
			for row := range s.rows() {
				ids = append(ids, 1, 2+row%3, 5, 10)
			}
			in["input_ids"] = graph.NewTensor(ids, s.rows(), 4)
			o := graph.ContextOptions{Tokens: 2, Start: 1, Depth: 2}
			equalGradients(t, withContext(t, fixed, o), withContext(t, open, o), in, l)
			in["input_ids"] = s.ids()
			equalGradients(t, withContext(t, fixed, o), withContext(t, open, o), in, l)
		})
	}
}

// TestLearnedRowsOfTheTokenTable: rows that are the table's own change nothing, and a new word is
// the word whose row it has.
func TestLearnedRowsOfTheTokenTable(t *testing.T) {
	for name, s := range exports {
		t.Run(name, func(t *testing.T) {
			s = s.sized()
			tower := textTower(t, s)
			ids := []int64{4, 7}
			rows, err := tower.Embeddings(ids)
			if err != nil {
				t.Fatal(err)
			}
			var plain, renamed []int64
			for row := range s.rows() {
				plain = append(plain, 1, 4, 7, 2+row%3, 4, 10)
				renamed = append(renamed, 1, 11, 12, 2+row%3, 11, 10)
			}
			in := map[string]*graph.Tensor{"input_ids": graph.NewTensor(plain, s.rows(), 6)}
			want := run(t, tower.Graph, in)["text_embeds"]
			in["token_rows"] = graph.NewTensor(rows, 2, s.width)
			for text, words := range map[string][]int64{"own": ids, "new": {11, 12}} {
				with, err := tower.WithTokenRows(words)
				if err != nil {
					t.Fatal(err)
				}
				in["input_ids"] = graph.NewTensor(map[string][]int64{"own": plain, "new": renamed}[text], s.rows(), 6)
				equalArrays(t, text, run(t, with.Graph, in)["text_embeds"], want)
				// Context beside them: gradients by it are those without learned rows.
				l := learned{kind: "context", count: 1, depth: 2}
				o := graph.ContextOptions{Tokens: 1, Start: 3, Depth: 2}
				both := s.prompts(l)
				maps.Copy(both, in)
				got := runBoth(t, withContext(t, with, o), both, l)
				both["input_ids"] = graph.NewTensor(plain, s.rows(), 6)
				for name, w := range runBoth(t, withContext(t, tower, o), both, l) {
					equalArrays(t, name, got[name], w)
				}
			}
		})
	}
}

// equalRow compares one row of two outputs [B,P].
func equalRow(t *testing.T, got, want graph.Array, row int) {
	t.Helper()
	pick := func(a graph.Array) graph.Array {
		return graph.Array{Type: a.Type, Dims: a.Dims[1:], Data: a.Data[row*a.Dims[1] : (row+1)*a.Dims[1]]}
	}
	equalArrays(t, fmt.Sprintf("row %d", row), pick(got), pick(want))
}

// TestPlaceholdersAreOrdinaryWords: no start, end or padding, which lie at the table's ends.
func TestPlaceholdersAreOrdinaryWords(t *testing.T) {
	if id := textTower(t, tiny{}.sized()).Placeholder(); id != 5 {
		t.Errorf("the placeholder among 11 ids is %d", id)
	}
}

func TestContextThatCannotBeIsRefused(t *testing.T) {
	tower := textTower(t, tiny{}.sized())
	for name, o := range map[string]graph.ContextOptions{
		"inserted at places of the rows": {Tokens: 1, Depth: 1, Placed: true, Insert: true},
		"inserted beyond the window":     {Tokens: 6, Depth: 1, Insert: true},
		"at places, deeper than blocks":  {Tokens: 1, Depth: 4, Placed: true},
	} {
		if _, err := tower.WithContext(o); errs.Of(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, ids := range map[string][]int64{"none": nil, "a negative id": {-1}, "one twice": {4, 4}} {
		if _, err := tower.WithTokenRows(ids); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), "token ids") {
			t.Errorf("learned rows, %s: %v", name, err)
		}
	}
}
