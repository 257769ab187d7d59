package graph_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"google.golang.org/protobuf/encoding/protowire"
)

func (m message) float(field protowire.Number, v float32) message {
	return protowire.AppendFixed32(protowire.AppendTag(m, field, protowire.Fixed32Type), math.Float32bits(v))
}

func (m message) packed(field protowire.Number, values ...int64) message {
	var b []byte
	for _, v := range values {
		b = protowire.AppendVarint(b, uint64(v))
	}
	return m.text(field, string(b))
}

// TestEveryWayToWriteAConstantIsRead goes through the attributes of Constant and the fields of
// TensorProto.
func TestEveryWayToWriteAConstantIsRead(t *testing.T) {
	float32s := func(v ...float32) string {
		var b []byte
		for _, x := range v {
			b = protowire.AppendFixed32(b, math.Float32bits(x))
		}
		return string(b)
	}
	tensor := func(m message) message { return message{}.text(1, "value").inner(5, m).number(20, 4) }
	tests := []struct {
		name string
		attr message
		want string // type, dims and elements
	}{
		{"an integer", message{}.text(1, "value_int").number(3, 7).number(20, 2), "int64[] [7]"},
		{"a negative integer", message{}.text(1, "value_int").number(3, math.MaxUint64).number(20, 2), "int64[] [-1]"},
		{"zero, of which nothing is written", message{}.text(1, "value_int").number(20, 2), "int64[] [0]"},
		{"integers", message{}.text(1, "value_ints").number(8, 3).number(8, 4).number(20, 7), "int64[2] [3 4]"},
		{"packed integers", message{}.text(1, "value_ints").packed(8, 3, -4).number(20, 7), "int64[2] [3 -4]"},
		{"no integers", message{}.text(1, "value_ints").number(20, 7), "int64[0] []"},
		{"a float", message{}.text(1, "value_float").float(2, 1.5).number(20, 1), "float[] [1.5]"},
		{"floats", message{}.text(1, "value_floats").float(7, 1.5).float(7, -2).number(20, 6), "float[2] [1.5 -2]"},
		{"packed floats", message{}.text(1, "value_floats").text(7, float32s(1.5, -2)).number(20, 6), "float[2] [1.5 -2]"},
		{"a tensor of raw floats", tensor(message{}.number(1, 2).number(2, 1).text(9, float32s(1, 2))), "float[2] [1 2]"},
		{"a tensor of typed floats", tensor(message{}.number(1, 2).number(2, 1).text(4, float32s(1, 2))), "float[2] [1 2]"},
		{"a tensor of typed integers", tensor(message{}.packed(1, 1, 2).number(2, 7).packed(7, 5, -6)), "int64[1 2] [5 -6]"},
		{"a tensor of 32-bit integers", tensor(message{}.number(1, 2).number(2, 6).packed(5, 5, -6)), "int32[2] [5 -6]"},
		{"a tensor of bytes", tensor(message{}.number(1, 2).number(2, 2).packed(5, 5, 255)), "uint8[2] [5 255]"},
		{"a tensor of truths", tensor(message{}.number(1, 2).number(2, 9).packed(5, 1, 0)), "bool[2] [true false]"},
		{"a tensor of typed doubles", tensor(message{}.number(1, 1).number(2, 11).text(10, string(protowire.AppendFixed64(nil, math.Float64bits(2.5))))), "double[1] [2.5]"},
		{"a tensor of half floats", tensor(message{}.number(1, 2).number(2, 10).packed(5, 0x3e00, 0xc000)), "float16[2] [1.5 -2]"},
		{"a tensor of 4 bits each, in pairs, the last filled up", tensor(message{}.number(1, 3).number(2, 22).packed(5, 0x7f, 0x08)), "int4[3] [-1 7 -8]"},
		{"a tensor of raw 4 bits", tensor(message{}.number(1, 3).number(2, 21).text(9, "\x7f\x08")), "uint4[3] [15 7 8]"},
		{"a scalar tensor", tensor(message{}.number(2, 1).text(9, float32s(4))), "float[] [4]"},
		{"an empty tensor", tensor(message{}.number(1, 0).number(2, 1)), "float[0] []"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			constant := message{}.text(2, "c").text(4, "Constant").inner(5, tt.attr)
			g, err := graph.Parse(model(message{}.inner(1, constant).inner(12, message{}.text(1, "c"))), "")
			if err != nil {
				t.Fatal(err)
			}
			c := g.Outputs[0].Const
			if got := fmt.Sprintf("%s%v %s", c.Type, c.Dims, elements(t, c)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func elements(t *testing.T, c *graph.Tensor) string {
	t.Helper()
	var v any
	var err error
	switch c.Type {
	case graph.Float, graph.Float16:
		v, err = graph.Float32s(c)
	case graph.Double:
		v, err = graph.Values[float64](c)
	case graph.Int64:
		v, err = graph.Values[int64](c)
	case graph.Int32:
		v, err = graph.Values[int32](c)
	case graph.Uint8, graph.Uint4, graph.Int4:
		v, err = graph.Codes(c)
	case graph.Bool:
		v, err = graph.Values[bool](c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(v)
}

// TestModelsThatAreNoneAreRefused gives the kind and the words of the errors.
func TestModelsThatAreNoneAreRefused(t *testing.T) {
	tensor := func(m message) []byte {
		return model(message{}.inner(5, m.text(8, "w")).inner(1, node("Identity", "w", "y")).inner(12, value("y")))
	}
	calls := node("Gelu", "x", "y").text(7, "my.functions")
	function := message{}.number(1, 8).inner(7, message{}.inner(1, calls).inner(11, value("x")).inner(12, value("y"))).
		inner(8, message{}.number(2, 18)).inner(25, message{}.text(1, "Gelu").text(10, "my.functions"))
	tests := []struct {
		name string
		file []byte
		kind errs.Kind
		want string
	}{
		{"nothing", nil, errs.Invalid, "no graph"},
		{"text", []byte("<html><body>not found</body></html>"), errs.Invalid, "byte"},
		{"a file cut short", model(message{}.inner(1, node("Identity", "x", "y")))[:20], errs.Invalid, "byte"},
		{"an opset of long ago", message{}.inner(7, message{}.text(2, "g")).inner(8, message{}.number(2, 6)), errs.Unsupported, "opset 6"},
		{"an opset to come", message{}.inner(7, message{}.text(2, "g")).inner(8, message{}.number(2, 999)), errs.Unsupported, "opset 999"},
		{"a value from nowhere", model(message{}.inner(1, node("Identity", "x", "y"))), errs.Invalid, `input "x" is defined nowhere`},
		{"an output from nowhere", model(message{}.inner(12, value("y"))), errs.Invalid, `output "y" is defined nowhere`},
		{"a value defined twice", model(message{}.inner(1, node("Identity", "x", "y")).inner(1, node("Exp", "x", "y")).inner(11, value("x"))), errs.Invalid, `"y" is defined twice`},
		{"two inputs of one name", model(message{}.inner(11, value("x")).inner(11, value("x"))), errs.Invalid, `"x" is defined twice`},
		{"a circle", model(message{}.inner(1, node("Exp", "b", "a")).inner(1, node("Exp", "a", "b"))), errs.Invalid, "depends on itself"},
		{"a function called with more inputs than it has", function, errs.Invalid, `calls function "Gelu" with 1 inputs`},
		{"a sparse initializer", model(message{}.inner(15, nil)), errs.Invalid, "sparse"},
		{"too little data", tensor(message{}.number(1, 3).number(2, 1).text(9, "1234")), errs.Invalid, "needs 12 bytes"},
		{"too much data", tensor(message{}.number(1, 1).number(2, 1).text(9, "12345678")), errs.Invalid, "needs 4 bytes"},
		{"no data", tensor(message{}.number(1, 3).number(2, 1)), errs.Invalid, "0 elements"},
		{"negative dims", tensor(message{}.packed(1, -3).number(2, 1)), errs.Invalid, "dims [-3]"},
		{"dims beyond all bounds", tensor(message{}.packed(1, 1<<40, 1<<40).number(2, 1)), errs.Invalid, "too large"},
		{"a type that does not exist", tensor(message{}.number(1, 1).number(2, 99)), errs.Unsupported, "DataType(99)"},
		{"data in a field of another type", tensor(message{}.number(1, 1).number(2, 1).packed(7, 1)), errs.Invalid, "another type"},
		{"more axes than any tensor has", tensor(message{}.packed(1, slices.Repeat([]int64{1}, 65)...).number(2, 1)), errs.Invalid, "65 axes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := graph.Parse(tt.file, "")
			if err == nil || errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v (%s), which should be of kind %s and say %q", err, errs.Of(err), tt.kind, tt.want)
			}
		})
	}
	if _, err := graph.Load("no such file.onnx"); errs.Of(err) != errs.NotFound || !strings.Contains(err.Error(), "no such file.onnx") {
		t.Errorf("a file that is not there: %v", err)
	}
}
