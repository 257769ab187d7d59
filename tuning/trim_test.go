package tuning

import (
	"math"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
)

// TestClassTextsAreTrimmed: a training step takes texts as long as the longest class, and comes to what it
// would with texts padded to the tower's window.
func TestClassTextsAreTrimmed(t *testing.T) {
	m := starterModel(t)
	r, err := recipe(t, "coop").Resolve(m, 1)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"cat", "a small dog", "house"}
	trimmed, err := m.newObjective(t.Context(), r, names)
	if err != nil {
		t.Fatal(err)
	}
	defer trimmed.close()
	ids, err := m.Texts.ContextIDs(names, r.Context.Tokens)
	if err != nil {
		t.Fatal(err)
	}
	input, window := m.Texts.Info.IDs.Name, int64(m.Texts.Info.Window)
	if got := trimmed.fixed[input].Dims[1]; got != ids.Dims[1] || got >= window || !m.Texts.Info.Trims {
		t.Errorf("a step takes texts of %d tokens, the longest has %d, the window %d; trims %v", got, ids.Dims[1], window, m.Texts.Info.Trims)
	}

	feeds, err := m.Texts.Feeds(padded(t, ids, window, m.Texts.End()))
	if err != nil {
		t.Fatal(err)
	}
	whole := &objective{classes: len(names), fixed: feeds}
	g, err := m.contextTower(r, feeds)
	if err != nil {
		t.Fatal(err)
	}
	if err := whole.differentiate(g, r, m.Texts.Dims(), m.Scale.Value); err != nil {
		t.Fatal(err)
	}
	if whole.session, err = ort.NewSession(g, ort.Options{}); err != nil {
		t.Fatal(err)
	}
	defer whole.close()
	params, err := m.newParameters(r, len(names))
	if err != nil {
		t.Fatal(err)
	}
	tuner := &Tuner{Recipe: r, model: m, params: params}
	b := randomBatch(m, r)
	b.labels = []int{0, 1, 2, 1}
	lossA, _, a, err1 := trimmed.run(t.Context(), b, tuner.inputs())
	lossB, _, c, err2 := whole.run(t.Context(), b, tuner.inputs())
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if math.Abs(lossA-lossB) > 1e-5*lossB {
		t.Errorf("the loss is %g, %g with padded texts", lossA, lossB)
	}
	for name, want := range c {
		sameGradient(t, name, a[name], want)
	}
}

func padded(t *testing.T, ids *graph.Tensor, length, with int64) *graph.Tensor {
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
