package graph_test

import (
	"fmt"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
)

// TestABankOfPromptsEqualsTheRowsOwn: rows that choose from a bank come out as rows that bring the
// same prompts, and a prompt's gradient is the sum of those of the rows that chose it.
func TestABankOfPromptsEqualsTheRowsOwn(t *testing.T) {
	for name, s := range exports {
		t.Run(name, func(t *testing.T) {
			s = s.sized()
			image := imageTower(t, s)
			own, err1 := image.WithPrompts(graph.ImagePromptOptions{Tokens: 2, Depth: 2, PerRow: true})
			banked, err2 := image.WithPrompts(graph.ImagePromptOptions{Tokens: 2, Depth: 2, Bank: true})
			pixels := floats(rng.New(2, "pixels"), s.rows(), 3, 2, 2*(s.tokens-1))
			equalBank(t, s, own, banked, "visual", map[string]*graph.Tensor{"pixel_values": pixels}, err1, err2)

			text := textTower(t, s)
			own, err1 = text.WithContext(graph.ContextOptions{Tokens: 2, Start: 1, Depth: 2, PerRow: true})
			banked, err2 = text.WithContext(graph.ContextOptions{Tokens: 2, Start: 1, Depth: 2, Bank: true})
			equalBank(t, s, own, banked, "context", map[string]*graph.Tensor{"input_ids": s.ids()}, err1, err2)
		})
	}
}

func equalBank(t *testing.T, s tiny, own, banked *graph.Graph, kind string, in map[string]*graph.Tensor, faults ...error) {
	t.Helper()
	for _, err := range faults {
		if err != nil {
			t.Fatal(err)
		}
	}
	const prompts = 3
	l := learned{kind: kind, count: 2, depth: 2}
	rowwise, chosen := map[string]*graph.Tensor{}, map[string]*graph.Tensor{}
	for name, x := range in {
		rowwise[name], chosen[name] = x, x
	}
	index := make([]int64, s.rows())
	for i := range index {
		index[i] = int64(2 * i % prompts)
	}
	chosen[kind+"_index"] = graph.NewTensor(index, s.rows())
	r := rng.New(9, "bank")
	for i := range 2 {
		all := floats(r, prompts, 2, s.width)
		name := graph.PromptName(kind, i)
		chosen[name], rowwise[name] = all, picked(t, all, index)
	}
	a, b := runBoth(t, banked, chosen, l), runBoth(t, own, rowwise, l)
	for name, w := range b {
		if name[:2] == "d." {
			sums := make([]float64, prompts*2*s.width)
			for row, p := range index {
				for i := range 2 * int(s.width) {
					sums[int(p)*2*int(s.width)+i] += w.Data[row*2*int(s.width)+i]
				}
			}
			w.Dims, w.Data = []int{prompts, 2, int(s.width)}, sums
		}
		equalArrays(t, name, a[name], w)
	}
}

// picked are the rows of x that index names.
func picked(t *testing.T, x *graph.Tensor, index []int64) *graph.Tensor {
	t.Helper()
	data, err := graph.Values[float32](x)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(data)) / x.Dims[0]
	var out []float32
	for _, i := range index {
		out = append(out, data[i*size:(i+1)*size]...)
	}
	return graph.NewTensor(out, append([]int64{int64(len(index))}, x.Dims[1:]...)...)
}

func textTower(t *testing.T, s tiny) *graph.TextTower {
	t.Helper()
	g, err := s.text()
	if err != nil {
		t.Fatal(err)
	}
	tower, err := graph.FindTextTower(g, "text_embeds")
	if err != nil {
		t.Fatal(err)
	}
	return tower
}

func TestPromptsAreTheRowsOwnOrABanks(t *testing.T) {
	s := tiny{}.sized()
	_, err1 := imageTower(t, s).WithPrompts(graph.ImagePromptOptions{Tokens: 1, Depth: 1, PerRow: true, Bank: true})
	_, err2 := textTower(t, s).WithContext(graph.ContextOptions{Tokens: 1, Start: 1, Depth: 1, PerRow: true, Bank: true})
	for _, err := range []error{err1, err2} {
		if errs.Of(err) != errs.Invalid {
			t.Error(fmt.Sprint("per row and in a bank: ", err))
		}
	}
}
