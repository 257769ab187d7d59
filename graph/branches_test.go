package graph_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
)

// conditional is an If of the given condition; all its branches read the values around them.
func conditional(condition, out string, then, otherwise message) message {
	return node("If", condition, out).text(3, "if "+out).
		inner(5, message{}.text(1, "then_branch").inner(6, then).number(20, 5)).
		inner(5, message{}.text(1, "else_branch").inner(6, otherwise).number(20, 5))
}

// typed is a value of any element type; extents that are numbers are fixed.
func typed(name string, t graph.DataType, dims ...any) message {
	var shape message
	for _, d := range dims {
		switch d := d.(type) {
		case int:
			shape = shape.inner(1, message{}.number(1, uint64(d)))
		case string:
			shape = shape.inner(1, message{}.text(2, d))
		}
	}
	return message{}.text(1, name).inner(2, message{}.inner(1, message{}.number(1, uint64(t)).inner(2, shape)))
}

func intsConstant(name string, values ...int64) message {
	return message{}.packed(1, int64(len(values))).number(2, uint64(graph.Int64)).packed(7, values...).text(8, name)
}

// merged is a decoder of two branches as optimum merges them: weights lie around the If, inner
// names are the same in both branches, and one branch reads a cache that the other leaves alone.
func merged() []byte {
	weight := message{}.packed(1, 2, 2).number(2, uint64(graph.Float)).text(9, floatBytes(1, 2, 3, 4)).text(8, "w")
	local := message{}.packed(1, 2).number(2, uint64(graph.Float)).text(9, floatBytes(10, 20)).text(8, "bias")
	cached := message{}.inner(5, local).
		inner(1, concat("past x", "both")).inner(1, node("MatMul", "both w", "h")).inner(1, node("Add", "h bias", "y")).
		inner(12, value("y")).inner(12, value("both"))
	plain := message{}.inner(5, local).
		inner(1, node("MatMul", "x w", "h")).inner(1, node("Mul", "h bias", "y")).inner(1, node("Identity", "x", "both")).
		inner(12, value("y")).inner(12, value("both"))
	return model(message{}.inner(5, weight).
		inner(1, conditional("use_cache_branch", "y", cached, plain).text(2, "present")).
		inner(1, node("Exp", "y", "last")).
		inner(11, typed("x", graph.Float, "batch", 2)).inner(11, typed("past", graph.Float, "before", 2)).
		inner(11, typed("use_cache_branch", graph.Bool, 1)).
		inner(12, value("last")).inner(12, value("present")))
}

func concat(in, out string) message {
	return node("Concat", in, out).inner(5, message{}.text(1, "axis").number(3, 0).number(20, 2))
}

func floatBytes(v ...float32) string {
	b, _ := graph.NewTensor(v, int64(len(v))).Bytes()
	return string(b)
}

func TestAPinnedInputDecidesWhichBranchStays(t *testing.T) {
	for _, cached := range []bool{false, true} {
		in := map[string]*graph.Tensor{
			"x":                graph.NewTensor([]float32{.1, .2, .3, .4}, 2, 2),
			"past":             graph.NewTensor([]float32{.5, .6}, 1, 2),
			"use_cache_branch": graph.NewTensor([]bool{cached}, 1),
		}
		g := parse(t, merged())
		want, err := interp.Run(g, in)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Pin("use_cache_branch", in["use_cache_branch"]); err != nil {
			t.Fatal(err)
		}
		fold(t, g)
		g.PruneInputs()
		if ops := operators(g); slices.Contains(ops, "If") || slices.Contains(ops, "Identity") && cached {
			t.Errorf("cached %v: %v is left", cached, ops)
		}
		if g.Input("use_cache_branch") != nil || (g.Input("past") != nil) != cached {
			t.Errorf("cached %v: the inputs left are %d", cached, len(g.Inputs))
		}
		written, err := g.Marshal(graph.MarshalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []*graph.Graph{g, parse(t, written)} {
			got, err := interp.Run(g, in)
			if err != nil {
				t.Fatal(err)
			}
			for name := range want {
				if a, b := elements(t, got[name]), elements(t, want[name]); a != b {
					t.Errorf("cached %v: %s is %s, with the If it was %s", cached, name, a, b)
				}
			}
		}
		if _, err := graph.Gradient(g, g.Outputs[:1], g.Outputs[:1], []*graph.Value{g.Input("x")}); err != nil {
			t.Errorf("cached %v: %v", cached, err)
		}
	}
}

func TestAWeightOfTwoBranchesIsWrittenOnce(t *testing.T) {
	written, err := parse(t, merged()).Marshal(graph.MarshalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(written), floatBytes(1, 2, 3, 4)); n != 1 {
		t.Errorf("the weight around the branches is written %d times", n)
	}
	if n := strings.Count(string(written), floatBytes(10, 20)); n != 2 {
		t.Errorf("the branches' own weights are written %d times, there are 2", n)
	}
}

func TestBranchesAreTakenWhereTheConditionFollows(t *testing.T) {
	squeeze := message{}.inner(5, intsConstant("axes", 1)).inner(1, node("Squeeze", "x axes", "s")).inner(12, value("s"))
	leave := message{}.inner(1, node("Exp", "x", "s")).inner(12, value("s"))
	one := func(in, cond string) []message { // cond: is the second extent of in 1?
		return []message{node("Shape", in, cond+"shape"), node("Gather", cond+"shape at", cond+"n"), node("Equal", cond+"n one", cond)}
	}
	build := func(extent any, nodes ...message) message {
		g := message{}.inner(5, intsConstant("at", 1)).inner(5, intsConstant("one", 1)).inner(11, typed("x", graph.Float, "batch", extent)).
			inner(11, typed("c", graph.Bool))
		for _, n := range nodes {
			g = g.inner(1, n)
		}
		return g.inner(12, value("y"))
	}
	nested := message{}.inner(1, conditional("c1", "inner", leave, squeeze)).inner(12, value("inner"))
	loop := node("Loop", " c x", "y").inner(5, message{}.text(1, "body").number(20, 5).inner(6, message{}.
		inner(1, conditional("c1", "next", leave, leave)).inner(11, typed("i", graph.Int64)).inner(11, typed("go", graph.Bool)).
		inner(11, typed("carried", graph.Float)).inner(12, value("go")).inner(12, value("next"))))
	tests := []struct {
		name  string
		graph message
		want  string // operators, and the output's shape
	}{
		{"an extent that is 1", build(1, append(one("x", "c1"), conditional("c1", "y", squeeze, leave))...), "Squeeze [batch]"},
		{"an extent that is not", build(5, append(one("x", "c1"), conditional("c1", "y", squeeze, leave))...), "Exp [batch,5]"},
		{"an extent that the run decides", build("n", append(one("x", "c1"), conditional("c1", "y", squeeze, leave))...), "Shape Gather Equal If ?"},
		{"an input", build(5, conditional("c", "y", leave, leave)), "If [batch,5]"},
		{"a branch in a branch", build(1, append(one("x", "c1"), conditional("c1", "y", nested, leave))...), "Exp [batch,1]"},
		{"a branch in one that the run decides", build(5, append(one("x", "c1"), conditional("c", "y", nested, leave))...), "If ?"},
		{"a shape that follows from another branch", build(1, append(append(one("x", "c1"), conditional("c1", "x2", leave, squeeze)),
			append(one("x2", "c2"), conditional("c2", "y", squeeze, leave))...)...), "Squeeze [batch]"},
		{"a loop", build(1, append(one("x", "c1"), loop)...), "Loop ?"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := parse(t, model(tt.graph))
			fold(t, g)
			got := append(operators(g), g.Outputs[0].Shape.String())
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, want %s\n%s", got, tt.want, g)
			}
			if _, err := g.Marshal(graph.MarshalOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestInputsAreNotPinnedToWhatTheyCantHold(t *testing.T) {
	tests := []struct {
		name, input string
		to          *graph.Tensor
		want        string
	}{
		{"an input that is not there", "use_cache", graph.NewTensor([]bool{true}, 1), `no input "use_cache"`},
		{"an output", "last", graph.NewTensor([]bool{true}, 1), `no input "last"`},
		{"another type", "use_cache_branch", graph.NewTensor([]float32{1}, 1), "holds bool"},
		{"another rank", "use_cache_branch", graph.NewTensor([]bool{true}), "shape [1]"},
		{"another extent", "x", graph.NewTensor([]float32{1, 2, 3}, 1, 3), "shape [batch,2]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := parse(t, merged())
			err := g.Pin(tt.input, tt.to)
			if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, which should say %q", err, tt.want)
			}
			if len(g.Inputs) != 3 {
				t.Errorf("%d inputs are left", len(g.Inputs))
			}
		})
	}
}

func TestCopiesAreReadFromWhereTheyCome(t *testing.T) {
	tests := []struct {
		name, nodes, outputs string // nodes "Op in out", one after the other
		want                 string
	}{
		{"between nodes", "Exp x a, Identity a b, Exp b y", "y", "a=Exp(x) y=Exp(a)"},
		{"one of the other", "Exp x a, Identity a b, Identity b c, Exp c y", "y", "a=Exp(x) y=Exp(a)"},
		{"into an output", "Exp x a, Identity a y, Exp a z", "y z", "y=Exp(x) z=Exp(y)"},
		{"into two outputs", "Exp x a, Identity a y, Identity a z", "y z", "y=Exp(x) z=Identity(y)"},
		{"of an output", "Exp x y, Identity y z", "y z", "y=Exp(x) z=Identity(y)"},
		{"of an input", "Identity x y", "y", "y=Identity(x)"},
		{"of an input, inside", "Identity x a, Exp a y", "y", "y=Exp(x)"},
		{"of a copy that is an output", "Identity x y, Exp y z", "y z", "y=Identity(x) z=Exp(y)"},
		{"dropped activations", "Dropout x a, Exp a y", "y", "y=Exp(x)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := message{}.inner(11, value("x", "n"))
			for _, n := range strings.Split(tt.nodes, ", ") {
				f := strings.Fields(n)
				m = m.inner(1, node(f[0], f[1], f[2]))
			}
			for _, out := range strings.Fields(tt.outputs) {
				m = m.inner(12, value(out))
			}
			var got []string
			for _, n := range parse(t, model(m)).Nodes {
				got = append(got, n.Outputs[0].Name+"="+n.Op+"("+n.Inputs[0].Name+")")
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func parse(t *testing.T, file []byte) *graph.Graph {
	t.Helper()
	g, err := graph.Parse(file, "")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// fold folds and checks.
func fold(t *testing.T, g *graph.Graph) {
	t.Helper()
	if err := g.Fold(); err != nil {
		t.Fatal(err)
	}
	if err := g.Check(); err != nil {
		t.Fatal(err)
	}
}

func operators(g *graph.Graph) []string {
	var ops []string
	for _, n := range g.Nodes {
		ops = append(ops, n.Op)
	}
	return ops
}

// TestPartsOfASplitSequenceAreSlices where sizes and number are constants; others are picked as the file says.
func TestPartsOfASplitSequenceAreSlices(t *testing.T) {
	scalar := func(name string, x int64) message {
		return message{}.number(2, uint64(graph.Int64)).packed(7, x).text(8, name)
	}
	axis, dropped := message{}.text(1, "axis").number(20, 2).number(3, 1), message{}.text(1, "keepdims").number(20, 2).number(3, 0)
	for _, tt := range []struct {
		name          string
		sizes, number message
		want          string
	}{
		{"single ones", scalar("sizes", 1), scalar("number", 5), "Gather [batch]"},
		{"parts of one size", scalar("sizes", 4), scalar("number", 0), "Slice [batch,4]"},
		{"the last is smaller", scalar("sizes", 4), scalar("number", 1), "Slice [batch,2]"},
		{"a list of sizes", intsConstant("sizes", 1, 3, 2), scalar("number", 1), "Slice [batch,3]"},
		{"counted from the end", scalar("sizes", 4), scalar("number", -1), "SplitToSequence SequenceAt ?"},
		{"beyond the list", intsConstant("sizes", 1, 5), scalar("number", 2), "SplitToSequence SequenceAt ?"},
		{"no size", scalar("sizes", 0), scalar("number", 0), "SplitToSequence SequenceAt ?"},
		{"a number that the run decides", scalar("sizes", 4), nil, "SplitToSequence SequenceAt ?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := message{}.inner(5, tt.sizes).inner(11, typed("x", graph.Float, "batch", 6))
			if tt.number != nil {
				g = g.inner(5, tt.number)
			} else {
				g = g.inner(11, typed("number", graph.Int64))
			}
			g = g.inner(1, node("SplitToSequence", "x sizes", "parts").inner(5, axis).inner(5, dropped)).inner(1, node("SequenceAt", "parts number", "y")).inner(12, value("y"))
			parsed := parse(t, model(g))
			fold(t, parsed)
			if got := strings.Join(append(operators(parsed), parsed.Outputs[0].Shape.String()), " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
