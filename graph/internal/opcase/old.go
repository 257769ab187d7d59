package opcase

// Old lists uses of operators in the forms that opsets before 18 had, which loading a graph brings
// up to those of 18. All lists the present forms.
var Old = join(
	aged(9, of("axes as an attribute", []Operand{F("b=2 1 4 1")}, attrs{"axes": []int64{1, 3}}, "Squeeze")),
	aged(11, of("axes as an attribute", []Operand{F("b=2 4")}, attrs{"axes": []int64{0, -1}}, "Unsqueeze")),
	aged(12, of("axes as an attribute", []Operand{reduced("b=2 3 4")}, attrs{"axes": []int64{1}, "keepdims": no}, "ReduceSum")),
	aged(13, of("axes as an attribute", []Operand{reduced("b=2 3 4")}, attrs{"axes": []int64{0, -1}, "keepdims": no},
		"ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd")),
	aged(9, []Case{{Op: "TopK", Name: "the count as an attribute", In: []Operand{Apart("b=2 3 6", 0)}, Out: 2, Attrs: attrs{"k": int64(2), "axis": int64(-1)}}}),
	aged(17, of("no axes", []Operand{reduced("b=2 3 4")}, nil, "ReduceMean", "ReduceMax")),
	aged(9, of("bounds as attributes", []Operand{F("b=2 5 6")}, attrs{"starts": []int64{1, -4}, "ends": []int64{4, toEnd}, "axes": []int64{1, 2}}, "Slice")),
	aged(9, of("bounds as attributes, no axes", []Operand{F("4 5")}, attrs{"starts": []int64{1}, "ends": []int64{-1}}, "Slice")),
	aged(10, of("amounts as an attribute", []Operand{F("b=2 3")}, attrs{"pads": []int64{0, 1, 0, 2}, "value": float32(3)}, "Pad")),
	aged(10, of("limits as attributes", []Operand{Apart("b=3 7", 0)}, attrs{"min": float32(-0.4), "max": float32(0.5)}, "Clip")),
	aged(10, of("one limit as an attribute", []Operand{Apart("b=3 7", 0)}, attrs{"max": float32(0.5)}, "Clip")),
	aged(12, []Case{{Op: "Split", Name: "sizes as an attribute", In: []Operand{F("b=2 6")}, Out: 3, Attrs: attrs{"axis": yes, "split": []int64{1, 2, 3}}}}),
	aged(12, []Case{{Op: "Split", Name: "equal parts, not counted", In: []Operand{F("b=2 6")}, Out: 3, Attrs: attrs{"axis": yes}}}),
	aged(17, []Case{{Op: "Split", Name: "equal parts, not counted, of an inner axis", In: []Operand{F("b=2 6 2")}, Out: 2, Attrs: attrs{"axis": yes}}}),
	aged(11, of("the axes from one on are one", []Operand{F("b=2 3 4")}, attrs{"axis": yes}, "Softmax", "LogSoftmax")),
	aged(11, of("no axis is named", []Operand{F("b=2 3 4")}, nil, "Softmax", "LogSoftmax")),
	aged(11, of("all axes are one", []Operand{F("3 4")}, attrs{"axis": no}, "Softmax", "LogSoftmax")),
	aged(11, of("the last axis", []Operand{F("b=2 3 4")}, attrs{"axis": int64(2)}, "Softmax", "LogSoftmax")),
	aged(11, of("the last axis, counted from the end", []Operand{F("b=2 3 4")}, attrs{"axis": int64(-1)}, "Softmax", "LogSoftmax")),
	aged(11, of("an inner axis, counted from the end", []Operand{F("b=2 3 4")}, attrs{"axis": int64(-2)}, "Softmax", "LogSoftmax")),
	aged(9, of("at inference", []Operand{F("b=2 3")}, attrs{"ratio": float32(0.5)}, "Dropout")),
	aged(12, of("at inference, the ratio as an input", []Operand{F("b=2 3"), Values("", 0.5).Single()}, nil, "Dropout")),
	aged(9, of("doubled", []Operand{F("1 2 2 3"), Values("4", 1, 1, 2, 2).Single()}, attrs{"mode": "nearest"}, "Upsample")),
	aged(10, of("doubled, scales as the second input", []Operand{F("1 2 2 3"), Values("4", 1, 1, 2, 2).Single()}, attrs{"mode": "nearest"}, "Resize")),
	aged(10, of("overwritten", []Operand{F("2 4"), I("2 2", 0, 3, 1, 2), F("2 2")}, attrs{"axis": yes}, "Scatter")),
	aged(9, of("running statistics", []Operand{F("b=2 3 2 2"), F("3"), F("3"), F("3").Const(), Positive("3").Const()}, attrs{"momentum": float32(0.8)}, "BatchNormalization")),
)

// aged sets the opset of cases.
func aged(opset int64, cases []Case) []Case {
	for i := range cases {
		cases[i].Opset = opset
	}
	return cases
}
