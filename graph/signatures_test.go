package graph_test

import (
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

func wordAttr(name, word string) message {
	return message{}.text(1, name).text(4, word).number(20, 3)
}

// TestMeaningsThatAreNotKnownAreRefused: an attribute, an input or a mode that this package knows
// nothing of may change what a node computes.
func TestMeaningsThatAreNotKnownAreRefused(t *testing.T) {
	yes := message{}.text(2, "yes").text(4, "Constant").inner(5, message{}.text(1, "value").inner(5, message{}.number(2, uint64(graph.Bool)).packed(5, 1)).number(20, 4))
	no := message{}.text(2, "no").text(4, "Constant").inner(5, message{}.text(1, "value").inner(5, message{}.number(2, uint64(graph.Bool)).packed(5, 0)).number(20, 4))
	tests := []struct {
		name  string
		node  message
		words []string // of the error; none where the node is read
	}{
		{"an attribute of another operator", calls("", "Relu", "x", "y", floatAttr("alpha", 1)), []string{"the Relu", `"alpha" is not known`}},
		{"an attribute of an opset to come", calls("", "Softmax", "x", "y", intAttr("axis", 1), floatAttr("temperature", 2)), []string{"the Softmax", `"temperature"`}},
		{"an attribute that became an input", calls("", "ReduceSum", "x", "y", message{}.text(1, "axes").packed(8, 1).number(20, 7)), []string{"the ReduceSum", `"axes"`}},
		{"a mode", calls("", "Pad", "x,pads", "y", wordAttr("mode", "mirror")), []string{"the Pad", `mode is "mirror"`, "wrap"}},
		{"a mode that is known", calls("", "Pad", "x,pads", "y", wordAttr("mode", "reflect")), nil},
		{"an approximation", calls("", "Gelu", "x", "y", wordAttr("approximate", "sigmoid")), []string{"the Gelu", `"sigmoid"`}},
		{"a reduction", calls("", "ScatterND", "x,pads,x", "y", wordAttr("reduction", "xor")), []string{"the ScatterND", `"xor"`}},
		{"a way to resize", calls("", "Resize", "x,,pads", "y", wordAttr("coordinate_transformation_mode", "corner")), []string{"the Resize", `"corner"`}},
		{"one input more", calls("", "Relu", "x,x", "y"), []string{"the Relu", "2 inputs, of which 1 are known"}},
		{"inputs more, all left out", calls("", "Relu", "x,,", "y"), nil},
		{"an attribute of a fused operator", calls("com.microsoft", "QuickGelu", "x", "y", floatAttr("beta", 1)), []string{"the QuickGelu", `"beta"`}},
		{"in a branch", conditional("c", "y", message{}.inner(1, calls("", "Relu", "x", "r", floatAttr("alpha", 1))).inner(12, value("r")), message{}.inner(1, node("Exp", "x", "r")).inner(12, value("r"))), []string{"the Relu"}},
		{"dropping at random", calls("", "Dropout", "x,,yes", "y"), []string{"the Dropout", "evaluation mode"}},
		{"dropping nothing", calls("", "Dropout", "x,,no", "y"), nil},
		{"an operator that is not known", calls("other", "Relu", "x", "y", floatAttr("alpha", 1)), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := message{}.inner(1, yes).inner(1, no).inner(1, tt.node).inner(5, intsConstant("pads", 0, 0)).inner(11, typed("x", graph.Float, 2)).inner(11, typed("c", graph.Bool)).inner(12, value("y"))
			_, err := graph.Parse(model(g), "")
			if len(tt.words) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if errs.Of(err) != errs.Unsupported {
				t.Fatalf("got %v", err)
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("got %q, which should say %q", err, w)
				}
			}
		})
	}
}
