package opcase

import (
	"math"
	"math/rand/v2"

	"github.com/foretoken/foretoken/graph"
)

// attrs shortens the tables below.
type attrs = graph.Attrs

const (
	yes     = int64(1)
	no      = int64(0)
	toEnd   = math.MaxInt64
	withB   = "b=3 4"
	without = "no gradient passes"
)

// All lists the uses of every operator that package graph has a row for.
var All = join(elementwise, extremes, comparisons, activations, norms, reductions, layouts, windows, indices, products, convolutions, shapes, contents)

func join(lists ...[]Case) []Case {
	var all []Case
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// of makes one case an operator for those that differ in nothing else.
func of(name string, in []Operand, a attrs, ops ...string) []Case {
	var out []Case
	for _, op := range ops {
		out = append(out, Case{Op: op, Name: name, In: in, Attrs: a})
	}
	return out
}

// refused marks cases whose operator has no gradient.
func refused(why string, cases []Case) []Case {
	for i := range cases {
		cases[i].Refused = why
	}
	return cases
}

var elementwise = join(
	of("operands of one shape", []Operand{F("2 3"), Positive("2 3")}, nil, "Add", "Sub", "Mul", "Div", "Sum", "Mean"),
	of("the second is repeated in front and within", []Operand{F("b=2 3 4"), Positive("3 1")}, nil, "Add", "Sub", "Mul", "Div", "Sum", "Mean"),
	of("the first is repeated", []Operand{F("4"), Positive("b=2 3 4")}, nil, "Add", "Sub", "Mul", "Div", "Sum", "Mean"),
	of("each is repeated along another axis", []Operand{F("b=2 1 4"), Positive("3 1")}, nil, "Add", "Sub", "Mul", "Div", "Sum", "Mean"),
	of("a scalar", []Operand{F("b=2 3"), Positive("")}, nil, "Add", "Sub", "Mul", "Div"),
	of("a constant", []Operand{F("b=2 3"), Positive("3").Const()}, nil, "Add", "Sub", "Mul", "Div"),
	of("a constant divided or less", []Operand{Positive("3").Const(), Positive("b=2 3")}, nil, "Sub", "Div"),
	of("of three operands", []Operand{F("b=2 3"), F("3"), F("1 1")}, nil, "Sum", "Mean"),
	of("of one operand", []Operand{F(withB)}, nil, "Sum", "Mean"),
	of("any number", []Operand{F(withB)}, nil, "Neg", "Exp", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh", "Identity", "Sigmoid", "Tanh", "Erf", "Softplus"),
	of("numbers between -1 and 1", []Operand{Values("4", -0.7, 0.1, -0.2, 0.6)}, nil, "Tan", "Asin", "Acos", "Atanh"),
	of("numbers above 1", []Operand{Values("4", 1.3, 2, 1.1, 5)}, nil, "Acosh"),
	of("positive numbers", []Operand{Positive(withB)}, nil, "Sqrt", "Log", "Reciprocal"),
	of("negative numbers", []Operand{Values("4", -0.5, -2, -1.25, -3)}, nil, "Reciprocal"),
	of("a scalar", []Operand{Positive("")}, nil, "Neg", "Exp", "Sqrt", "Log", "Reciprocal", "Sigmoid", "Tanh"),
	of("numbers of both signs", []Operand{Apart(withB, 0)}, nil, "Abs", "Relu"),
	refused("have none", of("numbers of both signs", []Operand{Apart(withB, 1)}, nil, "Sign")),
	// A rounded value depends on nothing near by, as far as gradients go.
	refused("have none", of("halves and others", []Operand{Values("7", -2.5, -1.5, -0.4, 0.5, 1.5, 2.5, 2.6)}, nil, "Floor", "Ceil", "Round")),
	[]Case{
		{Op: "Pow", Name: "squares", In: []Operand{F(withB), Values("", 2).Const()}},
		{Op: "Pow", Name: "cubes of both signs", In: []Operand{Apart(withB, 0), Values("", 3).Const()}},
		{Op: "Pow", Name: "an integer exponent", In: []Operand{F(withB), I("", 2)}},
		{Op: "Pow", Name: "roots", In: []Operand{Positive(withB), Values("1", 0.5).Const()}},
		{Op: "Pow", Name: "negative exponents", In: []Operand{Positive(withB), Values("4", -1, -0.5, -2, -1.5).Const()}},
		{Op: "Pow", Name: "the exponent wants a gradient, repeated", In: []Operand{Positive("b=2 3"), F("3")}},
		{Op: "Pow", Name: "the base is repeated", In: []Operand{Positive("3"), F("b=2 3")}},
		{Op: "Mod", Name: "positive integers", In: []Operand{I("4", 7, 8, 9, 10).Fed(), I("", 4)}},
		{Op: "Mod", Name: "integers of both signs take the divisor's sign", In: []Operand{I("4", -7, 8, -9, 10).Fed(), I("4", 4, -3, -4, 3)}},
		{Op: "Mod", Name: "the remainder of C", In: []Operand{I("4", -7, 8, -9, 10).Fed(), I("4", 4, -3, -4, 3)}, Attrs: attrs{"fmod": yes}},
		{Op: "Mod", Name: "floats", In: []Operand{Values("2 4", 7.3, 8.1, -9.4, 10.2, 1.7, -3.3, 4.4, 0.3), Values("4", 2, -3, 4, 2.5)}, Attrs: attrs{"fmod": yes}},
		{Op: "Div", Name: "integers cut off", In: []Operand{I("4", 7, -8, -9, 10).Fed(), I("", 4)}},
		{Op: "Mul", Name: "integers", In: []Operand{I("2", 7, 8).Fed(), I("2", -4, 3)}},
		{Op: "QuantizeLinear", Name: "one scale", In: []Operand{Values("4", 0.26, -9, 3.3, 400).Held(), Values("", 0.5).Const(), I("", 9).Bytes(graph.Uint8)}},
		{Op: "QuantizeLinear", Name: "a scale for each row", In: []Operand{Values("2 2", 0.26, -9, 3.3, 400).Held(), Values("2", 0.5, 2).Const(), I("2", -3, 9).Bytes(graph.Int8)}, Attrs: attrs{"axis": no}},
		{Op: "DynamicQuantizeLinear", Name: "both signs", In: []Operand{Apart("b=2 3 4", 0).Held()}, Out: 3},
		{Op: "DynamicQuantizeLinear", Name: "negative numbers", In: []Operand{Values("4", -0.5, -2, -1.25, -3).Held()}, Out: 3},
		{Op: "Cast", Name: "to float", In: []Operand{F(withB)}, Attrs: attrs{"to": int64(graph.Float)}},
		{Op: "Cast", Name: "to integers and a gradient", In: []Operand{F(withB)}, Attrs: attrs{"to": int64(graph.Int64)}, Refused: "have none"},
		{Op: "Cast", Name: "to integers cuts off fractions", In: []Operand{Values("4", -1.7, -0.2, 0.9, 2.5).Held()}, Attrs: attrs{"to": int64(graph.Int64)}},
		{Op: "Cast", Name: "integers to float", In: []Operand{I("3", -1, 0, 5).Fed()}, Attrs: attrs{"to": int64(graph.Float)}},
		{Op: "Cast", Name: "to bool", In: []Operand{Values("3", -1, 0, 0.5).Held()}, Attrs: attrs{"to": int64(graph.Bool)}},
	},
)

var extremes = join(
	of("two of one shape", []Operand{Apart("2 3", 0), Apart("2 3", 1)}, nil, "Max", "Min"),
	of("three, repeated", []Operand{Apart("b=2 3", 0), Apart("3", 1), Apart("2 1 1", 2)}, nil, "Max", "Min"),
	of("with a constant", []Operand{Apart("b=2 3", 0), Values("", 0.01).Const()}, nil, "Max", "Min"),
	of("of one operand", []Operand{Apart("b=2 3", 0)}, nil, "Max", "Min"),
	of("an infinite constant", []Operand{Apart("b=2 3", 0), Values("3", 0.01, math.Inf(1), math.Inf(-1)).Const()}, nil, "Max", "Min"),
	of("integers", []Operand{I("3", 1, 5, 3).Fed(), I("", 3)}, nil, "Max", "Min"),
	[]Case{
		{Op: "Clip", Name: "both limits", In: []Operand{Apart("b=3 7", 0), Values("", -0.4).Const(), Values("", 0.5).Const()}},
		{Op: "Clip", Name: "the lower limit", In: []Operand{Apart("b=3 7", 0), Values("", -0.4).Const()}},
		{Op: "Clip", Name: "the upper limit", In: []Operand{Apart("b=3 7", 0), None(), Values("", 0.5).Const()}},
		{Op: "Clip", Name: "a limit wants a gradient", In: []Operand{Apart("b=3 7", 0), Values("", -0.21), Values("", 0.56)}},
		{Op: "Clip", Name: "no limit", In: []Operand{Apart("b=3 7", 0)}},
		{Op: "Where", Name: "one shape", In: []Operand{B("2 3"), F("2 3"), F("2 3")}},
		{Op: "Where", Name: "all are repeated", In: []Operand{B("b=2 1 1"), F("3 1"), F("4")}},
		{Op: "Where", Name: "a constant is put in", In: []Operand{B("b=2 3"), F("b=2 3"), Values("", -1e4).Const()}},
		{Op: "Where", Name: "integers", In: []Operand{B("2"), I("2", 1, 2).Fed(), I("", 3)}},
	},
)

var comparisons = join(
	of("floats", []Operand{Values("2 2", 1, 2, 3, -1).Held(), Values("2", 1, -1).Held()}, nil, "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"),
	of("integers", []Operand{I("2 2", 1, 2, 3, -1).Fed(), I("", 2)}, nil, "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"),
	of("repeated", []Operand{B("b=2 4"), B("4")}, nil, "And", "Or", "Xor"),
	of("any", []Operand{B("b=2 4")}, nil, "Not"),
	of("numbers and others", []Operand{Values("4", 1, math.NaN(), math.Inf(1), math.Inf(-1)).Held()}, nil, "IsNaN", "IsInf"),
)

var activations = join(
	of("the last axis", []Operand{F("b=2 3 4")}, attrs{"axis": int64(-1)}, "Softmax", "LogSoftmax"),
	of("an inner axis", []Operand{F("b=2 3 4")}, attrs{"axis": int64(1)}, "Softmax", "LogSoftmax"),
	of("the first axis", []Operand{F("b=3 4")}, attrs{"axis": int64(0)}, "Softmax", "LogSoftmax"),
	of("no axis is named", []Operand{F("b=2 3 4")}, nil, "Softmax", "LogSoftmax"),
	[]Case{
		{Op: "Softmax", Name: "large scores", In: []Operand{Values("2 3", 800, 799, -800, 3, 4, 5)}},
		{Op: "Gelu", Name: "exact", In: []Operand{F(withB)}},
		{Op: "Gelu", Name: "tanh approximation", In: []Operand{F(withB)}, Attrs: attrs{"approximate": "tanh"}},
	},
)

var norms = []Case{
	{Op: "LayerNormalization", Name: "the last axis, with bias", In: []Operand{F("b=2 3 5"), F("5"), F("5")}, Attrs: attrs{"axis": int64(-1)}},
	{Op: "LayerNormalization", Name: "without bias", In: []Operand{F("b=2 3 5"), F("5")}, Attrs: attrs{"axis": int64(2), "epsilon": float32(0.1)}},
	{Op: "LayerNormalization", Name: "two axes", In: []Operand{F("b=2 3 4"), F("3 4"), F("3 4")}, Attrs: attrs{"axis": int64(-2)}},
	{Op: "LayerNormalization", Name: "constant weights", In: []Operand{F("b=2 3 5"), F("5").Const(), F("5").Const()}},
	{Op: "LayerNormalization", Name: "the first axis as well", In: []Operand{F("3 4"), F("3 4"), F("3 4")}, Attrs: attrs{"axis": int64(0)}},
	{Op: "LayerNormalization", Name: "mean and deviation are read", In: []Operand{F("b=2 3 5"), F("5"), F("5")}, Out: 3, Refused: "output 1"},
	{Op: "BatchNormalization", Name: "running statistics", In: []Operand{F("b=2 3 2 2"), F("3"), F("3"), F("3").Const(), Positive("3").Const()}},
	{Op: "BatchNormalization", Name: "without spatial axes", In: []Operand{F("b=2 3"), F("3").Const(), F("3").Const(), F("3").Const(), Positive("3").Const()}, Attrs: attrs{"epsilon": float32(0.01)}},
}

var sums = []string{"ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "ReduceLogSum"}

var reductions = join(
	of("the last axis is kept", []Operand{reduced("b=2 3 4"), I("1", -1)}, nil, sums...),
	of("the last axis is dropped", []Operand{reduced("b=2 3 4"), I("1", -1)}, attrs{"keepdims": no}, sums...),
	of("an inner axis is dropped", []Operand{reduced("b=2 3 4"), I("1", 1)}, attrs{"keepdims": no}, sums...),
	of("two axes are dropped", []Operand{reduced("b=2 3 4"), I("2", 0, -1)}, attrs{"keepdims": no}, sums...),
	of("all axes are kept", []Operand{reduced("b=2 3")}, nil, sums...),
	of("all axes are dropped", []Operand{reduced("b=2 3")}, attrs{"keepdims": no}, sums...),
	of("no axes, which means none", []Operand{Apart("b=2 3", 0), I("0")}, attrs{"noop_with_empty_axes": yes}, "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"),
	of("no axes, which means all", []Operand{reduced("b=2 3"), I("0")}, nil, "ReduceSum", "ReduceMean", "ReduceMax"),
	of("one axis", []Operand{reduced("b=2 3 4"), I("1", 1)}, nil, "ReduceProd"),
	of("all axes", []Operand{Positive("b=2 3")}, attrs{"keepdims": no}, "ReduceProd"),
	of("zeros among the factors", []Operand{Values("3 3", 2, 0, 3, 0, -1, 0, 2, 3, 4), I("1", -1)}, attrs{"keepdims": no}, "ReduceProd"),
	of("no axes, which means none", []Operand{F("b=2 3"), I("0")}, attrs{"noop_with_empty_axes": yes}, "ReduceProd"),
	[]Case{{Op: "ReduceMean", Name: "an axis of free extent", In: []Operand{F("b=3 n=4 2"), I("2", 0, 1)}, Attrs: attrs{"keepdims": no}}},
	[]Case{{Op: "ReduceSum", Name: "integers", In: []Operand{I("2 3", 1, 2, 3, 4, 5, 6).Fed(), I("1", 1)}}},
	of("an image", []Operand{F("b=2 3 4 5")}, nil, "GlobalAveragePool"),
	of("an image of free size", []Operand{F("b=2 3 h=4 w=5")}, nil, "GlobalAveragePool"),
)

// reduced is an operand that every reduction is smooth at: distinct positive numbers.
func reduced(extents string) Operand {
	o := Apart(extents, 0)
	apart := o.fill
	o.fill = func(r *rand.Rand, n int) []float64 {
		v := apart(r, n)
		for i := range v {
			v[i] += float64(n/2)*0.1 + 0.3
		}
		return v
	}
	return o
}

var layouts = []Case{
	{Op: "Reshape", Name: "to fewer axes", In: []Operand{F("b=2 3 4"), I("2", 0, 12)}},
	{Op: "Reshape", Name: "with a hole", In: []Operand{F("b=2 3 4"), I("3", 0, -1, 2)}},
	{Op: "Reshape", Name: "two extents are free", In: []Operand{F("b=2 n=3 4"), I("4", 0, 0, 2, 2)}},
	{Op: "Reshape", Name: "to a scalar", In: []Operand{F("1 1"), I("0")}},
	{Op: "Reshape", Name: "the target is fed", In: []Operand{F("2 6"), I("2", 3, 4).Fed()}},
	{Op: "Flatten", Name: "axis 1", In: []Operand{F("b=2 3 4")}},
	{Op: "Flatten", Name: "a negative axis", In: []Operand{F("b=2 3 4")}, Attrs: attrs{"axis": int64(-1)}},
	{Op: "Flatten", Name: "axis 0", In: []Operand{F("b=2 3 4")}, Attrs: attrs{"axis": no}},
	{Op: "Squeeze", Name: "named axes", In: []Operand{F("b=2 1 4 1"), I("2", 1, -1)}},
	{Op: "Squeeze", Name: "all of extent 1", In: []Operand{F("2 1 4 1")}},
	{Op: "Unsqueeze", Name: "outer and inner axes", In: []Operand{F("b=2 4"), I("3", 0, -1, 2)}},
	{Op: "Transpose", Name: "named", In: []Operand{F("b=2 3 4")}, Attrs: attrs{"perm": []int64{1, 2, 0}}},
	{Op: "Transpose", Name: "reversed by default", In: []Operand{F("b=2 3 4")}},
	{Op: "Concat", Name: "inner axis", In: []Operand{F("b=2 3 4"), F("b=2 1 4"), F("b=2 2 4")}, Attrs: attrs{"axis": yes}},
	{Op: "Concat", Name: "negative axis, constants between", In: []Operand{F("b=2 3"), F("b=2 2").Held(), F("b=2 1")}, Attrs: attrs{"axis": int64(-1)}},
	{Op: "Concat", Name: "the last operand is of free extent", In: []Operand{F("2 3"), F("n=4 3")}, Attrs: attrs{"axis": no}},
	{Op: "Concat", Name: "the first operand is of free extent", In: []Operand{F("n=4 3"), F("2 3")}, Attrs: attrs{"axis": no}},
	{Op: "Concat", Name: "two operands are of free extent", In: []Operand{F("n=4 3"), F("2 3"), F("m=5 3"), F("1 3")}, Attrs: attrs{"axis": no}},
	{Op: "Concat", Name: "of one operand", In: []Operand{F("b=2 3")}, Attrs: attrs{"axis": no}},
	{Op: "Split", Name: "named sizes", In: []Operand{F("b=2 6"), I("3", 1, 2, 3)}, Out: 3, Attrs: attrs{"axis": int64(-1)}},
	{Op: "Split", Name: "equal parts", In: []Operand{F("b=2 6")}, Out: 3, Attrs: attrs{"axis": yes, "num_outputs": int64(3)}},
	{Op: "Split", Name: "parts as equal as can be", In: []Operand{F("b=2 7")}, Out: 3, Attrs: attrs{"axis": yes, "num_outputs": int64(3)}},
	{Op: "Pad", Name: "zeros", In: []Operand{F("b=2 3"), I("4", 0, 1, 0, 2)}},
	{Op: "Pad", Name: "a value around all", In: []Operand{F("2 3"), I("4", 1, 1, 2, 0), Values("", 7).Const()}},
	{Op: "Pad", Name: "negative pads cut off", In: []Operand{F("b=4 5"), I("4", 0, -1, 0, -2)}},
	{Op: "Pad", Name: "both", In: []Operand{F("4 5"), I("4", 2, -1, -1, 1)}},
	{Op: "Pad", Name: "named axes", In: []Operand{F("b=2 3 4"), I("2", 1, 2), None(), I("1", -1)}},
	{Op: "Pad", Name: "amounts that the run decides", In: []Operand{F("2 3"), I("4", 0, 1, 0, 2).Fed()}},
	{Op: "Pad", Name: "the value around wants a gradient", In: []Operand{F("2 3"), I("4", 1, 1, 2, 0), F("")}, Refused: "gradient of its input 2"},
	{Op: "Pad", Name: "mirrored", In: []Operand{F("2 3"), I("4", 0, 1, 0, 2)}, Attrs: attrs{"mode": "reflect"}},
	{Op: "Pad", Name: "mirrored around all, an extent free", In: []Operand{F("b=3 4"), I("4", 2, 1, 1, 3)}, Attrs: attrs{"mode": "reflect"}},
	{Op: "Pad", Name: "with the edge", In: []Operand{F("b=2 3 2"), I("4", 2, 1, 0, 1), None(), I("2", 1, -1)}, Attrs: attrs{"mode": "edge"}},
	{Op: "Pad", Name: "wrapped around", In: []Operand{F("3 4"), I("4", 1, 2, 2, 3)}, Attrs: attrs{"mode": "wrap"}},
	{Op: "Pad", Name: "mirrored, amounts that the run decides", In: []Operand{F("2 3"), I("4", 0, 1, 0, 2).Fed()}, Attrs: attrs{"mode": "reflect"}, Refused: "depend on the run"},
	{Op: "Expand", Name: "in front and within", In: []Operand{F("3 1"), I("3", 2, 3, 4)}},
	{Op: "Expand", Name: "ones leave an axis alone", In: []Operand{F("b=2 3 1"), I("3", 1, 1, 4)}},
	{Op: "Expand", Name: "to a fed shape", In: []Operand{F("1 3"), I("2", 4, 3).Fed()}},
	{Op: "Tile", Name: "two axes", In: []Operand{F("b=2 3"), I("2", 2, 3)}},
	{Op: "Tile", Name: "once", In: []Operand{F("b=2 3"), I("2", 1, 1)}},
	{Op: "Trilu", Name: "upper", In: []Operand{F("b=2 3 4")}},
	{Op: "Trilu", Name: "lower, below the diagonal", In: []Operand{F("b=2 4 4"), I("", -1)}, Attrs: attrs{"upper": no}},
	{Op: "Trilu", Name: "upper, above the diagonal", In: []Operand{F("4 3"), I("", 1)}, Attrs: attrs{"upper": yes}},
	{Op: "Resize", Name: "doubled to the nearest", In: []Operand{F("b=2 3 2 3"), None(), Values("4", 1, 1, 2, 2).Single()}, Attrs: attrs{"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}},
	{Op: "Resize", Name: "to sizes, each axis by another factor", In: []Operand{F("2 3 2 3"), None(), None(), I("4", 2, 3, 6, 6)}, Attrs: attrs{"mode": "nearest"}},
	{Op: "Resize", Name: "left as it is", In: []Operand{F("b=2 3 2 3"), None(), Values("4", 1, 1, 1, 1).Single()}, Attrs: attrs{"mode": "nearest"}},
	{Op: "Resize", Name: "linear", In: []Operand{F("2 3 2 3"), None(), Values("4", 1, 1, 2, 2).Single()}, Attrs: attrs{"mode": "linear"}},
	{Op: "Resize", Name: "cubic, corners aligned", In: []Operand{F("2 1 4 4"), None(), None(), I("4", 2, 1, 6, 7)}, Attrs: attrs{"mode": "cubic", "coordinate_transformation_mode": "align_corners"}},
	{Op: "Resize", Name: "cubic, half pixels", In: []Operand{F("1 1 5 5"), None(), None(), I("4", 1, 1, 3, 7)}, Attrs: attrs{"mode": "cubic", "coordinate_transformation_mode": "half_pixel"}},
	{Op: "Resize", Name: "shrunk to the nearest", In: []Operand{F("1 1 6 6"), None(), None(), I("4", 1, 1, 3, 4)}, Attrs: attrs{"mode": "nearest"}},
	{Op: "Resize", Name: "doubled, rounding up", In: []Operand{F("1 1 2 3"), None(), Values("4", 1, 1, 2, 2).Single()}, Attrs: attrs{"mode": "nearest", "nearest_mode": "ceil", "coordinate_transformation_mode": "asymmetric"}},
	{Op: "Resize", Name: "linear, scales that leave a rest", In: []Operand{F("2 3 4 5"), None(), Values("4", 1, 1, 1.3, 0.7).Single()}, Attrs: attrs{"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}},
	{Op: "Resize", Name: "linear, corners aligned, scales that leave a rest", In: []Operand{F("1 1 4 5"), None(), Values("4", 1, 1, 0.6, 0.7).Single()}, Attrs: attrs{"mode": "linear", "coordinate_transformation_mode": "align_corners"}},
	{Op: "Resize", Name: "cubic, corners aligned, scales that leave a rest", In: []Operand{F("1 1 5 6"), None(), Values("4", 1, 1, 0.8, 0.7).Single()}, Attrs: attrs{"mode": "cubic", "coordinate_transformation_mode": "align_corners"}},
	{Op: "Resize", Name: "an image of free size", In: []Operand{F("b=1 1 h=3 w=4"), None(), Values("4", 1, 1, 2, 2).Single()}, Attrs: attrs{"mode": "linear"}, Refused: "depends on the run"},
}

var windows = []Case{
	{Op: "Slice", Name: "a window", In: []Operand{F("b=2 6"), I("1", 1), I("1", 4), I("1", 1)}},
	{Op: "Slice", Name: "negative bounds", In: []Operand{F("b=2 6"), I("1", -4), I("1", -1), I("1", -1)}},
	{Op: "Slice", Name: "to the end", In: []Operand{F("b=2 6"), I("1", 2), I("1", toEnd), I("1", 1)}},
	{Op: "Slice", Name: "to the end of a free extent", In: []Operand{F("n=5 3"), I("1", 2), I("1", toEnd), I("1", 0)}},
	{Op: "Slice", Name: "from the end of a free extent", In: []Operand{F("n=5 3"), I("1", -2), I("1", toEnd), I("1", 0)}},
	{Op: "Slice", Name: "but the last of a free extent", In: []Operand{F("n=5 3"), I("1", 0), I("1", -1), I("1", 0)}},
	{Op: "Slice", Name: "the first of a free extent", In: []Operand{F("n=5 3"), I("1", 0), I("1", 2), I("1", 0)}},
	{Op: "Slice", Name: "two axes, none named", In: []Operand{F("4 6"), I("2", 1, 2), I("2", 3, 6)}},
	{Op: "Slice", Name: "two axes in turn", In: []Operand{F("b=2 4 6"), I("2", 1, 2), I("2", 3, toEnd), I("2", -1, 1)}},
	{Op: "Slice", Name: "every second", In: []Operand{F("b=2 6"), I("1", 0), I("1", toEnd), I("1", 1), I("1", 2)}},
	{Op: "Slice", Name: "every second from the second", In: []Operand{F("b=2 6"), I("1", 1), I("1", toEnd), I("1", -1), I("1", 2)}},
	{Op: "Slice", Name: "every third within bounds", In: []Operand{F("b=2 9"), I("1", 1), I("1", 7), I("1", -1), I("1", 3)}},
	{Op: "Slice", Name: "every third, one over", In: []Operand{F("b=2 8"), I("1", 1), I("1", toEnd), I("1", -1), I("1", 3)}},
	{Op: "Slice", Name: "backward", In: []Operand{F("b=2 6"), I("1", -1), I("1", math.MinInt64), I("1", 1), I("1", -1)}},
	{Op: "Slice", Name: "every second backward, of two axes", In: []Operand{F("b=3 6"), I("2", 4, -1), I("2", 0, math.MinInt64), I("2", 1, 0), I("2", -2, -1)}},
	{Op: "Slice", Name: "bounds that the run decides", In: []Operand{F("5 6"), I("2", 1, 2).Fed(), I("2", 4, -1).Fed(), I("2", 0, 1)}},
	{Op: "Slice", Name: "an empty window", In: []Operand{F("2 6").Held(), I("1", 4), I("1", 2), I("1", 1)}},
}

var indices = []Case{
	{Op: "Gather", Name: "one constant", In: []Operand{F("b=2 5 3"), I("", 2)}, Attrs: attrs{"axis": yes}},
	{Op: "Gather", Name: "one constant from the end of a free extent", In: []Operand{F("2 n=5 3"), I("", -1)}, Attrs: attrs{"axis": yes}},
	{Op: "Gather", Name: "a list of one", In: []Operand{F("b=2 5 3"), I("1", 0)}, Attrs: attrs{"axis": int64(-1)}},
	{Op: "Gather", Name: "rows, some twice", In: []Operand{F("5 3"), I("2 2", 1, 4, 1, -1)}},
	{Op: "Gather", Name: "rows that the run decides", In: []Operand{F("5 3"), I("b=4", 1, 0, 1, 3).Fed()}},
	{Op: "Gather", Name: "rows by 32-bit numbers", In: []Operand{F("5 3"), I("4", 1, 0, 1, 3).Int32().Fed()}},
	{Op: "Gather", Name: "along an inner axis", In: []Operand{F("b=2 5 3"), I("2 2", 1, 4, 1, 0)}, Attrs: attrs{"axis": yes}},
	{Op: "Gather", Name: "along the last axis by fed numbers", In: []Operand{F("b=2 5 3"), I("", 1).Fed()}, Attrs: attrs{"axis": int64(-1)}},
	{Op: "GatherND", Name: "points", In: []Operand{F("3 4"), I("3 2", 0, 1, 2, 3, 0, 1)}},
	{Op: "GatherND", Name: "rows", In: []Operand{F("3 4 2"), I("2 2", 2, 0, 1, 3).Fed()}},
	{Op: "GatherND", Name: "of each row of a batch", In: []Operand{F("2 3 4"), I("2 1", 2, 0).Fed()}, Attrs: attrs{"batch_dims": yes}},
	{Op: "GatherND", Name: "of two batch axes", In: []Operand{F("2 2 4 3"), I("2 2 1", 2, 0, 1, 1)}, Attrs: attrs{"batch_dims": int64(2)}},
	{Op: "GatherElements", Name: "inner axis", In: []Operand{F("2 4"), I("2 3", 0, 3, 0, -1, 2, 2)}, Attrs: attrs{"axis": yes}},
	{Op: "GatherElements", Name: "by 32-bit numbers", In: []Operand{F("3 2"), I("2 2", 0, 2, 2, 1).Int32().Fed()}},
	{Op: "ScatterND", Name: "rows are overwritten", In: []Operand{F("4 3"), I("2 1", 0, 2), F("2 3")}},
	{Op: "ScatterND", Name: "points are overwritten", In: []Operand{F("4 3"), I("2 2", 0, 2, 3, 1).Fed(), F("2")}},
	{Op: "ScatterND", Name: "sums", In: []Operand{F("4 3"), I("2 1", 0, 2), F("2 3")}, Attrs: attrs{"reduction": "add"}},
	{Op: "ScatterND", Name: "products", In: []Operand{F("4 3"), I("2 1", 0, 2), F("2 3")}, Attrs: attrs{"reduction": "mul"}},
	{Op: "ScatterND", Name: "products at one place, with zeros", In: []Operand{F("4 3"), I("3 1", 0, 2, 2), Values("3 3", 0, 2, 3, 0, 5, 0, 7, 0, 0)}, Attrs: attrs{"reduction": "mul"}},
	{Op: "ScatterND", Name: "the largest", In: []Operand{Apart("4 3", 0), I("2 1", 0, 0), Apart("2 3", 1)}, Attrs: attrs{"reduction": "max"}},
	{Op: "ScatterElements", Name: "products", In: []Operand{F("2 4"), I("2 3", 0, 0, 3, 1, 2, 1), Values("2 3", 0, 2, 0, 3, 4, 5)}, Attrs: attrs{"axis": yes, "reduction": "mul"}},
	{Op: "ScatterElements", Name: "the smallest", In: []Operand{Apart("2 4", 0), I("2 2", 0, 3, 1, 1), Apart("2 2", 2)}, Attrs: attrs{"axis": yes, "reduction": "min"}},
	{Op: "ScatterElements", Name: "overwritten", In: []Operand{F("2 4"), I("2 2", 0, 3, 1, -2), F("2 2")}, Attrs: attrs{"axis": yes}},
	{Op: "ScatterElements", Name: "sums", In: []Operand{F("2 4"), I("2 2", 0, 0, 1, 2), F("2 2")}, Attrs: attrs{"axis": yes, "reduction": "add"}},
	{Op: "ArgMax", Name: "kept", In: []Operand{Apart("b=2 5", 0).Held()}, Attrs: attrs{"axis": int64(-1)}},
	{Op: "ArgMax", Name: "dropped, the last of equals", In: []Operand{Values("2 3", 1, 1, 0, 2, 3, 3).Held()}, Attrs: attrs{"axis": yes, "keepdims": no, "select_last_index": yes}},
	{Op: "ArgMin", Name: "kept", In: []Operand{Apart("b=2 5", 0).Held()}, Attrs: attrs{"axis": int64(-1)}},
	{Op: "ArgMin", Name: "dropped, the first of equals", In: []Operand{Values("2 3", 1, 0, 0, 2, 3, 3).Held()}, Attrs: attrs{"axis": yes, "keepdims": no}},
	{Op: "OneHot", Name: "the last axis", In: []Operand{I("3", 0, 2, -1).Fed(), I("", 4), Values("2", -1, 2).Const()}},
	{Op: "OneHot", Name: "the first axis", In: []Operand{I("2 2", 0, 2, 1, 7).Fed(), I("", 4), Values("2", 0, 1).Const()}, Attrs: attrs{"axis": no}},
	{Op: "TopK", Name: "the largest", In: []Operand{Apart("b=2 3 6", 0), I("1", 2)}, Out: 2},
	{Op: "TopK", Name: "the smallest along another axis", In: []Operand{Apart("b=2 5 3", 0), I("1", 3)}, Attrs: attrs{"axis": yes, "largest": no}, Out: 2},
	{Op: "CumSum", Name: "forward", In: []Operand{F("b=2 4"), I("", 1)}},
	{Op: "CumSum", Name: "exclusive", In: []Operand{F("b=2 4"), I("", -1)}, Attrs: attrs{"exclusive": yes}},
	{Op: "CumSum", Name: "backward", In: []Operand{F("b=2 4"), I("", 0)}, Attrs: attrs{"reverse": yes}},
	{Op: "CumSum", Name: "backward and exclusive", In: []Operand{F("b=2 4"), I("", 1)}, Attrs: attrs{"reverse": yes, "exclusive": yes}},
	{Op: "NonZero", Name: "two axes", In: []Operand{Values("2 3", 0, 1, 0, -1, 0, 2).Held()}},
}

var products = join(
	of("matrices", []Operand{F("b=2 3"), F("3 4")}, nil, "MatMul"),
	of("one weight for all rows", []Operand{F("b=2 3 4"), F("4 5")}, nil, "MatMul"),
	of("batches", []Operand{F("b=2 3 4 5"), F("b=2 3 5 2")}, nil, "MatMul"),
	of("the second is repeated over the batch", []Operand{F("b=2 3 4 5"), F("3 5 2")}, nil, "MatMul"),
	of("the first is repeated over the batch", []Operand{F("4 5"), F("b=2 5 2")}, nil, "MatMul"),
	of("both are repeated", []Operand{F("b=2 1 4 5"), F("3 5 2")}, nil, "MatMul"),
	of("the first is a vector", []Operand{F("5"), F("b=2 5 3")}, nil, "MatMul"),
	of("the second is a vector", []Operand{F("b=2 3 5"), F("5")}, nil, "MatMul"),
	of("two vectors", []Operand{F("5"), F("5")}, nil, "MatMul"),
	[]Case{
		{Op: "Gemm", Name: "plain", In: []Operand{F("b=2 3"), F("3 4"), F("4")}},
		{Op: "Gemm", Name: "without bias", In: []Operand{F("b=2 3"), F("3 4")}, Attrs: attrs{"alpha": float32(0.5)}},
		{Op: "Gemm", Name: "second transposed", In: []Operand{F("b=2 3"), F("4 3"), F("1 4")}, Attrs: attrs{"transB": yes, "alpha": float32(2), "beta": float32(0.5)}},
		{Op: "Gemm", Name: "first transposed", In: []Operand{F("3 2"), F("3 4"), F("2 1")}, Attrs: attrs{"transA": yes, "alpha": float32(2)}},
		{Op: "Gemm", Name: "both transposed", In: []Operand{F("3 2"), F("4 3"), F("")}, Attrs: attrs{"transA": yes, "transB": yes, "beta": float32(3)}},
		{Op: "Einsum", Name: "product of matrices", In: []Operand{F("b=2 3"), F("3 4")}, Attrs: attrs{"equation": "ij,jk->ik"}},
		{Op: "Einsum", Name: "scores of heads", In: []Operand{F("b=2 3 2 4"), F("b=2 5 2 4")}, Attrs: attrs{"equation": "bihd,bjhd->bhij"}},
		{Op: "Einsum", Name: "an implied output", In: []Operand{F("2 3"), F("3 4")}, Attrs: attrs{"equation": "ab,bc"}},
		{Op: "Einsum", Name: "a transposition", In: []Operand{F("b=2 3")}, Attrs: attrs{"equation": "ij->ji"}},
		{Op: "Einsum", Name: "three operands", In: []Operand{F("2 3"), F("3 4"), F("4 2")}, Attrs: attrs{"equation": "ij,jk,kl->il"}},
		{Op: "Einsum", Name: "a sum over one operand's own axis", In: []Operand{F("2 3")}, Attrs: attrs{"equation": "ij->i"}},
		{Op: "Einsum", Name: "both operands summed over their own axes", In: []Operand{F("b=2 3"), F("3 4 5")}, Attrs: attrs{"equation": "ab,bcd->b"}},
		{Op: "Einsum", Name: "an ellipsis", In: []Operand{F("b=2 3 2 4"), F("b=2 3 4 5")}, Attrs: attrs{"equation": "...ij,...jk->...ik"}},
		{Op: "Einsum", Name: "an ellipsis that one operand lacks", In: []Operand{F("b=2 3 4"), F("4 5")}, Attrs: attrs{"equation": "...j,jk->...k"}},
		{Op: "Einsum", Name: "a batch of diagonals, no gradient wanted", In: []Operand{F("2 3 3").Held()}, Attrs: attrs{"equation": "...ii->...i"}},
		{Op: "Einsum", Name: "a diagonal", In: []Operand{F("3 3")}, Attrs: attrs{"equation": "ii->i"}, Refused: "twice"},
	},
)

var convolutions = []Case{
	{Op: "Conv", Name: "patches", In: []Operand{F("b=2 3 4 4"), F("5 3 2 2").Const(), F("5")}, Attrs: attrs{"strides": []int64{2, 2}}},
	{Op: "Conv", Name: "padded, rows left over", In: []Operand{F("b=2 3 6 5"), F("4 3 3 3").Const()}, Attrs: attrs{"strides": []int64{2, 2}, "pads": []int64{1, 0, 1, 1}}},
	{Op: "Conv", Name: "an image of free size", In: []Operand{F("b=1 2 h=6 w=7"), F("3 2 2 2").Const(), F("3").Const()}, Attrs: attrs{"strides": []int64{2, 2}}},
	{Op: "Conv", Name: "dilated", In: []Operand{F("b=2 2 7"), F("3 2 3").Const()}, Attrs: attrs{"dilations": []int64{2}}},
	{Op: "Conv", Name: "groups", In: []Operand{F("b=2 4 5"), F("6 2 3").Const(), F("6")}, Attrs: attrs{"group": int64(2), "pads": []int64{1, 1}}},
	{Op: "Conv", Name: "padding to the same size, an odd row at the end", In: []Operand{F("2 2 6 5"), F("3 2 2 3").Const()}, Attrs: attrs{"auto_pad": "SAME_UPPER"}},
	{Op: "Conv", Name: "padding to the same size, an odd row in front", In: []Operand{F("2 2 6 5"), F("3 2 2 3").Const()}, Attrs: attrs{"auto_pad": "SAME_LOWER", "strides": []int64{2, 1}}},
	{Op: "Conv", Name: "its weights want a gradient", In: []Operand{F("b=2 3 5 4"), F("5 3 2 2"), F("5")}, Attrs: attrs{"strides": []int64{2, 1}, "pads": []int64{0, 1, 1, 0}}},
	{Op: "Conv", Name: "the weights of groups, dilated", In: []Operand{F("b=2 4 7"), F("6 2 3")}, Attrs: attrs{"group": int64(2), "dilations": []int64{2}, "pads": []int64{1, 1}}},
	{Op: "Conv", Name: "the weights of single channels", In: []Operand{F("b=2 4 5 5"), F("4 1 3 3")}, Attrs: attrs{"group": int64(4), "strides": []int64{2, 2}, "pads": []int64{1, 1, 1, 1}}},
	{Op: "ConvTranspose", Name: "strides and padding of the output", In: []Operand{F("b=2 3 3 3"), F("3 2 2 2"), F("2")}, Attrs: attrs{"strides": []int64{2, 2}, "pads": []int64{1, 0, 0, 0}, "output_padding": []int64{1, 1}}},
	{Op: "ConvTranspose", Name: "groups, dilated", In: []Operand{F("b=2 4 5"), F("4 3 2")}, Attrs: attrs{"group": int64(2), "dilations": []int64{2}}},
	{Op: "ConvTranspose", Name: "padded to a given extent", In: []Operand{F("2 2 4"), F("2 3 3")}, Attrs: attrs{"strides": []int64{2}, "output_shape": []int64{8}}},
	{Op: "ConvTranspose", Name: "padded to strides times the extent, an odd row at the end", In: []Operand{F("2 2 4 3"), F("2 3 3 2")}, Attrs: attrs{"strides": []int64{2, 1}, "auto_pad": "SAME_UPPER"}},
	{Op: "ConvTranspose", Name: "padded to strides times the extent, an odd row in front", In: []Operand{F("2 2 4"), F("2 3 3")}, Attrs: attrs{"strides": []int64{2}, "auto_pad": "SAME_LOWER"}},
	{Op: "ConvTranspose", Name: "padded to a given extent, an input of free size", In: []Operand{F("2 2 n=4"), F("2 3 3")}, Attrs: attrs{"strides": []int64{2}, "output_shape": []int64{8}}, Refused: "depends on the run"},
	{Op: "MaxPool", Name: "strides and padding", In: []Operand{Apart("b=2 3 5 5", 0)}, Attrs: attrs{"kernel_shape": []int64{2, 3}, "strides": []int64{2, 2}, "pads": []int64{0, 1, 1, 1}}},
	{Op: "MaxPool", Name: "rounded up", In: []Operand{Apart("2 1 6", 0)}, Attrs: attrs{"kernel_shape": []int64{3}, "strides": []int64{2}, "ceil_mode": yes}},
	{Op: "AveragePool", Name: "without the padding", In: []Operand{F("b=2 3 5 5")}, Attrs: attrs{"kernel_shape": []int64{2, 3}, "strides": []int64{2, 2}, "pads": []int64{0, 1, 1, 1}}},
	{Op: "AveragePool", Name: "with the padding", In: []Operand{F("2 1 6")}, Attrs: attrs{"kernel_shape": []int64{3}, "strides": []int64{3}, "pads": []int64{1, 1}, "count_include_pad": yes}},
	{Op: "AveragePool", Name: "rounded up", In: []Operand{F("2 1 6")}, Attrs: attrs{"kernel_shape": []int64{3}, "strides": []int64{2}, "ceil_mode": yes}},
	{Op: "AveragePool", Name: "rounded up, with the padding", In: []Operand{F("2 1 6 5")}, Attrs: attrs{"kernel_shape": []int64{3, 2}, "strides": []int64{3, 2}, "pads": []int64{1, 0, 0, 0}, "ceil_mode": yes, "count_include_pad": yes}},
}

var shapes = []Case{
	{Op: "Shape", Name: "all axes", In: []Operand{F("b=2 3 4").Held()}},
	{Op: "Shape", Name: "some axes", In: []Operand{F("b=2 3 4").Held()}, Attrs: attrs{"start": int64(-2), "end": int64(2)}},
	{Op: "Size", Name: "of a tensor", In: []Operand{F("b=2 3 4").Held()}},
	{Op: "ConstantOfShape", Name: "zeros by default", In: []Operand{I("2", 2, 3).Fed()}},
	{Op: "ConstantOfShape", Name: "of a value", In: []Operand{I("2", 2, 3).Fed()}, Attrs: attrs{"value": graph.NewTensor([]int64{7}, 1)}},
	{Op: "Range", Name: "integers", In: []Operand{I("", 2).Fed(), I("", 9).Fed(), I("", 3).Fed()}},
	{Op: "Range", Name: "backward", In: []Operand{I("", 9).Fed(), I("", 2), I("", -2)}},
}

// contents are uses on small vectors of integers, whose elements shape arithmetic follows.
var contents = []Case{
	{Op: "Add", Name: "shape arithmetic", In: []Operand{I("3", 1, -2, 3).Fed(), I("", 4)}},
	{Op: "Sub", Name: "shape arithmetic", In: []Operand{I("3", 1, -2, 3).Fed(), I("1", 4)}},
	{Op: "Mul", Name: "shape arithmetic", In: []Operand{I("3", 1, -2, 3).Fed(), I("3", 4, 5, 6)}},
	{Op: "Gather", Name: "shape arithmetic", In: []Operand{I("4", 3, 5, 7, 9).Fed(), I("2", 1, -1)}},
	{Op: "Gather", Name: "one extent", In: []Operand{I("4", 3, 5, 7, 9).Fed(), I("", -2)}},
	{Op: "Concat", Name: "shape arithmetic", In: []Operand{I("2", 3, 5).Fed(), I("1", -1), I("0")}, Attrs: attrs{"axis": no}},
	{Op: "Slice", Name: "shape arithmetic", In: []Operand{I("5", 1, 2, 3, 4, 5).Fed(), I("1", 1), I("1", -1)}},
	{Op: "Slice", Name: "every second of a vector", In: []Operand{I("5", 1, 2, 3, 4, 5).Fed(), I("1", 0), I("1", toEnd), I("1", 0), I("1", 2)}},
	{Op: "Slice", Name: "a vector backward", In: []Operand{I("5", 1, 2, 3, 4, 5).Fed(), I("1", -1), I("1", math.MinInt64), I("1", 0), I("1", -1)}},
	{Op: "Slice", Name: "pairs, as pads are reversed", In: []Operand{I("4 2", 1, 2, 3, 4, 5, 6, 7, 8).Fed(), I("1", -1), I("1", math.MinInt64), I("1", 0), I("1", -1)}},
	{Op: "Split", Name: "shape arithmetic", In: []Operand{I("5", 1, 2, 3, 4, 5).Fed(), I("2", 2, 3)}, Out: 2},
	{Op: "Squeeze", Name: "one extent", In: []Operand{I("1", 7).Fed(), I("1", 0)}},
	{Op: "Unsqueeze", Name: "one extent", In: []Operand{I("", 7).Fed(), I("1", 0)}},
	{Op: "Reshape", Name: "one extent", In: []Operand{I("1", 7).Fed(), I("1", -1)}},
	{Op: "Reshape", Name: "a vector to its own length", In: []Operand{I("2", 7, 8).Fed(), I("1", 2)}},
	{Op: "Transpose", Name: "a vector", In: []Operand{I("2", 7, 8).Fed()}},
	{Op: "Expand", Name: "one extent", In: []Operand{I("1", 7).Fed(), I("1", 3)}},
	{Op: "Where", Name: "a target's holes", In: []Operand{Mask("3"), I("3", 2, 3, 4).Fed(), I("", -1)}},
	{Op: "Cast", Name: "an extent to 32 bits", In: []Operand{I("2", 7, -8).Fed()}, Attrs: attrs{"to": int64(graph.Int32)}},
	{Op: "ReduceProd", Name: "the count of a shape", In: []Operand{I("3", 2, 3, 4).Fed(), I("1", 0)}, Attrs: attrs{"keepdims": no}},
	{Op: "ConstantOfShape", Name: "ones", In: []Operand{I("1", 3).Fed()}, Attrs: attrs{"value": graph.NewTensor([]int64{1}, 1)}},
	{Op: "Range", Name: "nothing", In: []Operand{I("", 5).Fed(), I("", 2).Fed(), I("", 1).Fed()}},
	{Op: "Range", Name: "by one", In: []Operand{I("", -2).Fed(), I("", 2).Fed(), I("", 1).Fed()}},
	{Op: "Identity", Name: "a shape", In: []Operand{I("3", 2, 3, 4).Fed()}},
	{Op: "Shape", Name: "fixed extents", In: []Operand{F("2 3 4").Held()}},
	{Op: "Shape", Name: "from behind the last axis", In: []Operand{F("2 3 4").Held()}, Attrs: attrs{"start": int64(5)}},
	{Op: "Shape", Name: "from before the first axis", In: []Operand{F("2 3 4").Held()}, Attrs: attrs{"start": int64(-7), "end": int64(-1)}},
	{Op: "Shape", Name: "an end ahead of the start", In: []Operand{F("2 3 4").Held()}, Attrs: attrs{"start": int64(2), "end": yes}},
	{Op: "Size", Name: "fixed extents", In: []Operand{F("2 3 4").Held()}},
}
