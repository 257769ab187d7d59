package graph_test

import (
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// path is a graph from x to loss by the operators given, one after the other, "OP NODE" each. Each
// takes the one before, and x again where it is followed by "+": x then reaches the loss by two ways.
func path(t *testing.T, steps ...string) *graph.Graph {
	t.Helper()
	m, last := message{}, "x"
	for i, step := range steps {
		f := strings.Fields(step)
		next := string(rune('a' + i))
		in := last
		if len(f) > 2 {
			in += " x"
		}
		m = m.inner(1, node(f[0], in, next).text(3, f[1]))
		last = next
	}
	g, err := graph.Parse(model(m.inner(11, value("x", "n", "d")).inner(12, value(last))), "")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestAnOperatorWithoutAGradientIsNamed(t *testing.T) {
	tests := []struct {
		name  string
		steps []string
		kind  errs.Kind
		want  []string // parts of the error; none where there is a gradient
	}{
		{"all have gradients", []string{"Exp first", "Add second +", "ReduceSum third"}, 0, nil},
		{"one has none", []string{"Exp first", "Hardmax the-best"}, errs.Unsupported, []string{`Hardmax (1, first "the-best")`}},
		{
			"one has none, twice",
			[]string{"Hardmax hard-1", "Exp first", "Hardmax hard-2", "ReduceSum last"},
			errs.Unsupported,
			[]string{`Hardmax (2, first "hard-1")`},
		},
		{"one that is not known at all", []string{"Exp first", "NoSuchOperator odd", "ReduceSum last"}, errs.Unsupported, []string{"NoSuchOperator", `"odd"`}},
		{"one that is not known, beside a way that is", []string{"NoSuchOperator odd", "Add joined +", "ReduceSum last"}, errs.Unsupported, []string{"NoSuchOperator", `"odd"`}},
		{"integers on the way", []string{"Exp first", "ArgMax best"}, errs.Unsupported, []string{"ArgMax", `"best"`}},
		{"a rule that gives up half-way", []string{"Exp first", "Softmax second", "Resize third"}, errs.Unsupported, []string{"Resize", "third"}},
		{"a derivative of zero", []string{"Floor step", "ReduceSum last"}, errs.Unsupported, []string{"Floor", `"step"`, "only through operators that have none"}},
		{"a derivative of zero, beside a way with another", []string{"Floor step", "Add joined +", "ReduceSum last"}, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := path(t, tt.steps...)
			y := g.Outputs[0]
			before := len(g.Nodes)
			grads, err := graph.Gradient(g, []*graph.Value{y}, []*graph.Value{y}, g.Inputs)
			if tt.want == nil {
				if err != nil || len(grads) != 1 {
					t.Fatalf("%v, %v", grads, err)
				}
				return
			}
			if err == nil || errs.Of(err) != tt.kind {
				t.Fatalf("got %v, which should be of kind %s", err, tt.kind)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, which should say %q", err, want)
				}
			}
			if len(g.Nodes) != before {
				t.Errorf("a refusal left %d nodes in the graph", len(g.Nodes)-before)
			}
		})
	}
}

// TestAnInnerGraphIsNoWayForGradients: what an If reads from around it is not overlooked.
func TestAnInnerGraphIsNoWayForGradients(t *testing.T) {
	branch := message{}.inner(1, node("Exp", "x", "e")).inner(12, value("e", "n"))
	choice := node("If", "c", "y").text(3, "the-choice").
		inner(5, message{}.text(1, "then_branch").inner(6, branch).number(20, 5)).
		inner(5, message{}.text(1, "else_branch").inner(6, branch).number(20, 5))
	g, err := graph.Parse(model(message{}.inner(1, choice).inner(11, value("x", "n")).inner(11, value("c")).inner(12, value("y", "n"))), "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = graph.Gradient(g, g.Outputs, g.Outputs, g.Inputs[:1])
	if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), "the-choice") {
		t.Errorf("got %v", err)
	}
}

func TestAnInputThatTheLossDoesNotDependOnIsAnError(t *testing.T) {
	g := path(t, "Exp first", "ReduceSum last")
	other := &graph.Value{Name: "other", Type: graph.Float, Shape: graph.Shape{graph.Known(1)}}
	g.Inputs = append(g.Inputs, other)
	_, err := graph.Gradient(g, g.Outputs, g.Outputs, g.Inputs)
	if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("got %v", err)
	}
}

// TestACotangentOfAFixedBatchIsTheOutputs: a gradient given for two rows finds its way back through rows that were laid in one.
func TestACotangentOfAFixedBatchIsTheOutputs(t *testing.T) {
	g := &graph.Graph{Opset: map[string]int64{"": 20}}
	err := g.Build(func(b *graph.Builder) {
		x := b.Input("x", graph.Float, graph.Shape{graph.Sym("batch"), graph.Sym("sequence"), graph.Known(4)})
		rows := b.Op("Exp", nil, b.Op("Reshape", nil, x, b.Ints(-1, 4)))
		last := b.Op("Gather", graph.Attrs{"axis": int64(1)}, b.Op("Reshape", nil, rows, b.Op("Shape", nil, x)), b.Const(graph.NewTensor([]int64{-1})))
		y := b.Output("y", last)
		dy := b.Const(graph.NewTensor(make([]float32, 8), 2, 4))
		b.Output("dx", b.Gradient([]*graph.Value{y}, []*graph.Value{dy}, []*graph.Value{x})[0])
	})
	if err != nil {
		t.Fatal(err)
	}
	if x, dx := g.Inputs[0].Shape, g.Output("dx").Shape; !dx.Equal(x) {
		t.Errorf("the gradient has shape %s, its input %s", dx, x)
	}
}
