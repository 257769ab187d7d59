package graph_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/process"
)

// local is a FunctionProto. Inputs and outputs are words; of opset 0 it states none.
func local(domain, name, inputs, outputs string, opset int, nodes ...message) message {
	m := message{}.text(1, name).text(10, domain)
	for _, in := range strings.Fields(inputs) {
		m = m.text(4, in)
	}
	for _, out := range strings.Fields(outputs) {
		m = m.text(5, out)
	}
	for _, n := range nodes {
		m = m.inner(7, n)
	}
	if opset > 0 {
		m = m.inner(9, message{}.number(2, uint64(opset)))
	}
	return m
}

// calls is a node of a domain; inputs are separated by commas, so that one may be left out.
func calls(domain, op, inputs, outputs string, attrs ...message) message {
	m := message{}
	for _, in := range strings.Split(inputs, ",") {
		m = m.text(1, in)
	}
	for _, out := range strings.Fields(outputs) {
		m = m.text(2, out)
	}
	m = m.text(4, op).text(7, domain).text(3, "the "+op)
	for _, a := range attrs {
		m = m.inner(5, a)
	}
	return m
}

func floatAttr(name string, v float32) message {
	return message{}.text(1, name).float(2, v).number(20, 1)
}

func intAttr(name string, v int64) message {
	return message{}.text(1, name).number(3, uint64(v)).number(20, 2)
}

// refers is an attribute that takes its value from one of the function's.
func refers(name, of string, kind uint64) message {
	return message{}.text(1, name).text(21, of).number(20, kind)
}

// withFunctions is a model of opset 18 with inputs x and y of [2,3], one output, and functions.
func withFunctions(out string, nodes []message, functions ...message) []byte {
	g := message{}
	for _, n := range nodes {
		g = g.inner(1, n)
	}
	g = g.inner(11, typed("x", graph.Float, 2, 3)).inner(11, typed("y", graph.Float, 2, 3)).inner(11, typed("c", graph.Bool)).inner(12, value(out))
	m := message{}.number(1, 8).inner(7, g).inner(8, message{}.number(2, 18)).inner(8, message{}.text(1, "my").number(2, 1))
	for _, f := range functions {
		m = m.inner(25, f)
	}
	return m
}

// TestLocalFunctionsAreWhatTheyStandFor compares models with functions with models written out,
// both of x = 1..6 and y = 2.
func TestLocalFunctionsAreWhatTheyStandFor(t *testing.T) {
	linear := local("my", "Linear", "a b bias", "out", 18, node("Mul", "a b", "product"), node("Add", "product bias", "out"))
	square := local("my", "Square", "a", "out", 18, calls("", "Mul", "a,a", "out"))
	fourth := local("my", "Fourth", "a", "out", 18, calls("my", "Square", "a", "half"), calls("my", "Square", "half", "out"))
	slope := local("my", "Slope", "a", "out", 18, calls("", "LeakyRelu", "a", "out", refers("alpha", "slope", 1)))
	withDefault := slope.inner(11, floatAttr("slope", 0.25))
	inner := local("my", "Outer", "a", "out", 18, calls("my", "Slope", "a", "out", refers("slope", "given", 1)))
	clipped := local("my", "Clipped", "a low high", "out", 18, calls("", "Clip", "a,low,high", "out"))
	half := calls("", "Constant", "", "half", message{}.text(1, "value_float").text(21, "by").number(20, 1))
	scaled := local("my", "Scaled", "a", "out", 18, half, node("Mul", "a half", "out"))
	old := local("my", "OldMean", "a", "out", 13, calls("", "ReduceMean", "a", "out", message{}.text(1, "axes").packed(8, 1).number(20, 7), intAttr("keepdims", 0)))
	negative := node("Neg", "x", "nx")
	branch := func(n message) message { return message{}.inner(1, n).inner(12, value("r")) }
	choice := func(then, otherwise message) message {
		return conditional("c", "out", branch(then), branch(otherwise))
	}
	plain := func(nodes ...message) []message { return nodes }
	low := message{}.number(2, uint64(graph.Float)).text(9, floatBytes(3)).text(8, "low")
	tests := []struct {
		name      string
		nodes     []message
		functions []message
		same      []message // written out
	}{
		{"one call", plain(calls("my", "Square", "x", "out")), plain(square), plain(node("Mul", "x x", "out"))},
		{"two calls", plain(calls("my", "Square", "x", "s"), calls("my", "Square", "s", "out")), plain(square), plain(node("Mul", "x x", "s"), node("Mul", "s s", "out"))},
		{"a call in a function", plain(calls("my", "Fourth", "x", "out")), plain(square, fourth), plain(node("Mul", "x x", "s"), node("Mul", "s s", "out"))},
		{"functions in the other order", plain(calls("my", "Fourth", "x", "out")), plain(fourth, square), plain(node("Mul", "x x", "s"), node("Mul", "s s", "out"))},
		{
			"names that the graph has too", plain(node("Exp", "x", "product"), calls("my", "Linear", "product,y,x", "bias"), node("Add", "bias product", "out")), plain(linear),
			plain(node("Exp", "x", "e"), node("Mul", "e y", "p"), node("Add", "p x", "l"), node("Add", "l e", "out")),
		},
		{"inputs swapped", plain(calls("my", "Linear", "y,x,y", "out")), plain(linear), plain(node("Mul", "y x", "p"), node("Add", "p y", "out"))},
		{"an attribute", plain(negative, calls("my", "Slope", "nx", "out", floatAttr("slope", 0.5))), plain(slope), plain(negative, calls("", "LeakyRelu", "nx", "out", floatAttr("alpha", 0.5)))},
		{"an attribute left out", plain(negative, calls("my", "Slope", "nx", "out")), plain(slope), plain(negative, calls("", "LeakyRelu", "nx", "out"))},
		{"a default", plain(negative, calls("my", "Slope", "nx", "out")), plain(withDefault), plain(negative, calls("", "LeakyRelu", "nx", "out", floatAttr("alpha", 0.25)))},
		{"a default that the call overrides", plain(negative, calls("my", "Slope", "nx", "out", floatAttr("slope", 0.5))), plain(withDefault), plain(negative, calls("", "LeakyRelu", "nx", "out", floatAttr("alpha", 0.5)))},
		{"an attribute passed on", plain(negative, calls("my", "Outer", "nx", "out", floatAttr("given", 0.5))), plain(withDefault, inner), plain(negative, calls("", "LeakyRelu", "nx", "out", floatAttr("alpha", 0.5)))},
		{"an attribute not passed on, with a default", plain(negative, calls("my", "Outer", "nx", "out")), plain(withDefault, inner), plain(negative, calls("", "LeakyRelu", "nx", "out", floatAttr("alpha", 0.25)))},
		{"an attribute that is a constant", plain(calls("my", "Scaled", "x", "out", floatAttr("by", 2))), plain(scaled), plain(node("Add", "x x", "out"))},
		{"a last input left out", plain(calls("my", "Clipped", "x,low", "out")), plain(clipped), plain(calls("", "Clip", "x,low", "out"))},
		{"an input in the middle left out", plain(calls("my", "Clipped", "x,,low", "out")), plain(clipped), plain(calls("", "Clip", "x,,low", "out"))},
		{"an output that is an input", plain(calls("my", "Same", "x", "out")), plain(local("my", "Same", "a", "a", 18)), plain(node("Identity", "x", "out"))},
		{"an output that is not asked for", plain(calls("my", "Two", "x", "out")), plain(local("my", "Two", "a", "e n", 18, node("Exp", "a", "e"), node("Neg", "a", "n"))), plain(node("Exp", "x", "out"))},
		{"an older opset", plain(calls("my", "OldMean", "x", "out")), plain(old), plain(calls("", "ReduceMean", "x,one", "out", intAttr("keepdims", 0)))},
		{"an operator's name in a domain of its own", plain(calls("my", "Exp", "x", "out")), plain(local("my", "Exp", "a", "out", 18, node("Neg", "a", "out"))), plain(node("Neg", "x", "out"))},
		{"an operator's name in the operators' domain", plain(calls("", "Exp", "x", "out")), plain(local("", "Exp", "a", "out", 18, node("Neg", "a", "out"))), plain(node("Neg", "x", "out"))},
		{
			"overloads", plain(calls("my", "F", "x", "s").text(8, "two"), calls("my", "F", "s", "out").text(8, "one")),
			plain(local("my", "F", "a", "out", 18, node("Exp", "a", "out")).text(13, "one"), local("my", "F", "a", "out", 18, node("Neg", "a", "out")).text(13, "two")),
			plain(node("Neg", "x", "s"), node("Exp", "s", "out")),
		},
		{
			"nodes that are not sorted", plain(calls("my", "Linear", "x,y,y", "out")), plain(local("my", "Linear", "a b bias", "out", 18, node("Add", "product bias", "out"), node("Mul", "a b", "product"))),
			plain(node("Mul", "x y", "p"), node("Add", "p y", "out")),
		},
		{
			"calls in branches", plain(choice(calls("my", "Square", "x", "r"), calls("my", "Fourth", "x", "r"))), plain(square, fourth),
			plain(node("Mul", "x x", "s"), choice(node("Identity", "s", "r"), calls("", "Mul", "s,s", "r"))),
		},
		{
			"a branch in a function, called twice", plain(calls("my", "Choose", "c,x,y", "one"), calls("my", "Choose", "c,y,x", "two"), node("Sub", "one two", "out")),
			plain(local("my", "Choose", "c a b", "out", 18, choice(node("Neg", "a", "r"), node("Exp", "b", "r")))),
			plain(conditional("c", "one", branch(node("Neg", "x", "r")), branch(node("Exp", "y", "r"))), conditional("c", "two", branch(node("Neg", "y", "r")), branch(node("Exp", "x", "r"))), node("Sub", "one two", "out")),
		},
		{
			"a branch that reads an input left out", plain(calls("my", "Limit", "c,x,", "out")),
			plain(local("my", "Limit", "c a low", "out", 18, choice(calls("", "Clip", "a,low", "r"), node("Exp", "a", "r")))), plain(choice(node("Identity", "x", "r"), node("Exp", "x", "r"))),
		},
	}
	shared := func(nodes []message, functions ...message) []byte {
		low := node("Constant", "", "low").inner(5, message{}.text(1, "value").inner(5, low).number(20, 4))
		one := node("Constant", "", "one").inner(5, message{}.text(1, "value_ints").packed(8, 1).number(20, 7))
		return withFunctions("out", append([]message{low, one}, nodes...), functions...)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, want := parse(t, shared(tt.nodes, tt.functions...)), parse(t, shared(tt.same))
			for _, c := range []bool{false, true} {
				in := map[string]*graph.Tensor{
					"x": graph.NewTensor([]float32{1, 2, 3, 4, 5, 6}, 2, 3),
					"y": graph.NewTensor(slices.Repeat([]float32{2}, 6), 2, 3),
					"c": graph.NewTensor([]bool{c}),
				}
				a, err := interp.Run(got, in)
				if err != nil {
					t.Fatal(err)
				}
				b, err := interp.Run(want, in)
				if err != nil {
					t.Fatal(err)
				}
				if g, w := elements(t, a["out"]), elements(t, b["out"]); g != w {
					t.Errorf("with c %v: got %s, want %s\n%s", c, g, w, got)
				}
				if err := got.Pin("c", in["c"]); err != nil {
					t.Fatal(err)
				}
				fold(t, got)
				if _, err := got.Marshal(graph.MarshalOptions{}); err != nil {
					t.Fatal(err)
				}
				got = parse(t, shared(tt.nodes, tt.functions...))
			}
		})
	}
}

// TestFunctionsThatCantBeInlinedAreRefused says why, and by which name.
func TestFunctionsThatCantBeInlinedAreRefused(t *testing.T) {
	endless := local("my", "F", "a", "out", 18, calls("my", "G", "a", "out"))
	back := local("my", "G", "a", "out", 18, calls("my", "F", "a", "out"))
	square := local("my", "Square", "a", "out", 18, calls("", "Mul", "a,a", "out"))
	one := func(n message) []message { return []message{n} }
	tests := []struct {
		name      string
		nodes     []message
		functions []message
		kind      errs.Kind
		want      string
	}{
		{"one that calls itself", one(calls("my", "F", "x", "out")), []message{local("my", "F", "a", "out", 18, calls("my", "F", "a", "out"))}, errs.Invalid, `nested deeper than 16, at "F"`},
		{"two that call each other", one(calls("my", "F", "x", "out")), []message{endless, back}, errs.Invalid, "nested deeper than 16"},
		{"more inputs than it has", one(calls("my", "Square", "x,y", "out")), one(square), errs.Invalid, "2 inputs"},
		{"more outputs than it has", one(calls("my", "Square", "x", "out more")), one(square), errs.Invalid, "2 outputs"},
		{"an output that it does not define", one(calls("my", "F", "x", "out")), one(local("my", "F", "a", "out", 18, node("Exp", "a", "e"))), errs.Invalid, `does not define its output "out"`},
		{"a value of the graph around it", one(calls("my", "F", "x", "out")), one(local("my", "F", "a", "out", 18, node("Add", "a y", "out"))), errs.Invalid, `"y" is defined nowhere`},
		{"a value defined twice in it", one(calls("my", "F", "x", "out")), one(local("my", "F", "a", "out", 18, node("Exp", "a", "out"), node("Neg", "a", "out"))), errs.Invalid, "defined twice"},
		{"a circle", one(calls("my", "F", "x", "out")), one(local("my", "F", "a", "out", 18, node("Add", "a b", "out"), node("Exp", "out", "b"))), errs.Invalid, "depends on itself"},
		{"an opset of long ago", one(calls("my", "F", "x", "out")), one(local("my", "F", "a", "out", 7, node("Exp", "a", "out"))), errs.Unsupported, `"F" is written for opset 7`},
		{"an opset to come", one(calls("my", "F", "x", "out")), one(local("my", "F", "a", "out", 99, node("Exp", "a", "out"))), errs.Unsupported, "opset 99"},
		{
			"a graph as an attribute", one(calls("my", "F", "x", "out", message{}.text(1, "body").inner(6, message{}.inner(1, node("Exp", "x", "r")).inner(12, value("r"))).number(20, 5))),
			one(local("my", "F", "a", "out", 18, calls("", "If", "a", "out", refers("then_branch", "body", 5)))), errs.Unsupported, "is a graph that the function's caller gives",
		},
		{"two forms of one operator", one(calls("my", "F", "x", "out")), one(local("my", "F", "a", "out", 21, calls("", "GroupNormalization", "a,a,a", "out"))), errs.Unsupported, "in the form of opset 21"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := graph.Parse(withFunctions("out", tt.nodes, tt.functions...), "")
			if err == nil || errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, which should be of kind %s and say %q", err, tt.kind, tt.want)
			}
		})
	}
	if _, err := graph.Parse(withFunctions("x", nil, local("my", "Unused", "a", "out", 7), endless, back), ""); err != nil {
		t.Errorf("functions that nothing calls: %v", err)
	}
}

// TestFunctionsMadeToStandForMuchAreBounded: each function calls the next several times, so that
// a few kilobytes stand for as many nodes as anybody likes.
func TestFunctionsMadeToStandForMuchAreBounded(t *testing.T) {
	tower := func(levels, each int, last message) []message {
		functions := []message{last}
		for level := range levels {
			var nodes []message
			v := "a"
			for i := range each {
				next := fmt.Sprint("v", i)
				nodes, v = append(nodes, calls("my", fmt.Sprint("F", level), v, next)), next
			}
			functions = append(functions, local("my", fmt.Sprint("F", level+1), "a", v, 18, nodes...))
		}
		return functions
	}
	many := strings.Repeat("a ", 5000)
	wide := message{}.text(1, "F0").text(4, "a").text(5, "out").text(10, "my").
		inner(7, node("Sum", many, "out")).inner(7, node("Concat", many, "unused"))
	defaults := local("my", "F0", "a", "out", 18, node("Exp", "a", "out"))
	for i := range 5000 {
		defaults = defaults.inner(11, intAttr(fmt.Sprint("d", i), 1))
	}
	outputs := message{}.text(1, "F0").text(4, "a").text(10, "my").text(5, "out").inner(7, node("Exp", "a", "out"))
	tests := []struct {
		name      string
		functions []message
		top       string
	}{
		{"two calls in each", tower(15, 2, local("my", "F0", "a", "out", 18, node("Exp", "a", "out"))), "F15"},
		{"many calls in each", tower(10, 100, local("my", "F0", "a", "out", 18, node("Exp", "a", "out"))), "F10"},
		{"a function of nothing", tower(14, 4, local("my", "F0", "a", "a", 18)), "F14"},
		{"nodes of many inputs", tower(14, 4, wide), "F14"},
		{"many defaults", tower(14, 4, defaults), "F14"},
		{"a wide function", tower(2, 1000, outputs), "F2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := withFunctions("out", []message{calls("my", tt.top, "x", "out")}, tt.functions...)
			start, before := process.Time(), allocated()
			_, err := graph.Parse(file, "")
			took, used := process.Time()-start, (allocated()-before)>>20
			t.Logf("%d bytes: %s, %d MiB allocated: %v", len(file), took, used, err)
			if tt.name != "two calls in each" && errs.Of(err) != errs.TooLarge {
				t.Errorf("got %v", err)
			}
			if took > hang || used > 512 {
				t.Errorf("%d bytes took %s and %d MiB", len(file), took, used)
			}
		})
	}
}
