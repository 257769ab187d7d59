package text

import (
	"math"
	"testing"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
)

// TestBatchesAreCutToTheirLongestText: texts padded to the window come out as they do alone, and what
// goes through the tower is no longer than the longest.
func TestBatchesAreCutToTheirLongestText(t *testing.T) {
	b, err := bundle.Open("../starter/bundle")
	if err != nil {
		t.Fatal(err)
	}
	tower, err := OpenTower(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tower.Close()
	texts := []string{"a cat", "a photo of a very small dog on a chair", "a house"}
	together, err := tower.Embed(t.Context(), texts)
	if err != nil {
		t.Fatal(err)
	}
	var ids [][]int64
	for _, text := range texts {
		row, err := tower.Encode(text, tower.Info.Window)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, row)
	}
	short := tower.Batch(ids)
	padded := padTo(t, short, int64(tower.Info.Window), tower.End())
	cut, err := tower.trim(padded)
	if err != nil {
		t.Fatal(err)
	}
	if cut.Dims[1] != short.Dims[1] || cut.Dims[1] >= padded.Dims[1] {
		t.Errorf("%d tokens of %d go through the tower, want %d", cut.Dims[1], padded.Dims[1], short.Dims[1])
	}
	whole := runPadded(t, tower, padded)
	near(t, together, whole)
	for i, text := range texts {
		alone, err := tower.Embed(t.Context(), []string{text})
		if err != nil {
			t.Fatal(err)
		}
		near(t, together.Rows(int64(i), int64(i+1)), alone)
	}
}

// runPadded embeds ids without cutting them.
func runPadded(t *testing.T, tower *Tower, ids *graph.Tensor) *graph.Tensor {
	t.Helper()
	s, err := ort.NewSession(tower.Info.Graph, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in, err := tower.Feeds(ids)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	y := out[tower.Info.Output.Name]
	values, err := graph.Float32s(y)
	if err != nil {
		t.Fatal(err)
	}
	Normalize(values, int(y.Dims[1]))
	return graph.NewTensor(values, y.Dims...)
}

func padTo(t *testing.T, ids *graph.Tensor, length, with int64) *graph.Tensor {
	t.Helper()
	values, err := graph.Values[int64](ids)
	if err != nil {
		t.Fatal(err)
	}
	var out []int64
	for row := range ids.Dims[0] {
		out = append(out, values[row*ids.Dims[1]:(row+1)*ids.Dims[1]]...)
		for range length - ids.Dims[1] {
			out = append(out, with)
		}
	}
	return graph.NewTensor(out, ids.Dims[0], length)
}

func near(t *testing.T, got, want *graph.Tensor) {
	t.Helper()
	a, err1 := graph.Float32s(got)
	b, err2 := graph.Float32s(want)
	if err1 != nil || err2 != nil || len(a) != len(b) {
		t.Fatal(err1, err2, len(a), len(b))
	}
	for i := range a {
		if !(math.Abs(float64(a[i]-b[i])) < 1e-5) {
			t.Fatalf("element %d is %g, want %g", i, a[i], b[i])
		}
	}
}
