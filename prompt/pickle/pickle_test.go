package pickle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// plain turns a value into what bench/reference/pickles.py writes of it.
func plain(t *testing.T, v any) any {
	t.Helper()
	list := func(items []any) []any {
		out := []any{}
		for _, v := range items {
			out = append(out, plain(t, v))
		}
		return out
	}
	switch v := v.(type) {
	case int64:
		return float64(v)
	case *List:
		return list(v.Items)
	case Tuple:
		return list(v)
	case *Dict:
		pairs := []any{}
		for _, k := range v.Keys() {
			pairs = append(pairs, []any{plain(t, k), plain(t, v.Get(k))})
		}
		return map[string]any{"keys": pairs}
	case *graph.Tensor:
		dims := []any{}
		for _, d := range v.Dims {
			dims = append(dims, float64(d))
		}
		return map[string]any{"shape": dims, "values": numbers(t, v)}
	}
	return v
}

// numbers are a tensor's elements, decoded here so that the test depends on nothing but bytes.
func numbers(t *testing.T, v *graph.Tensor) []any {
	t.Helper()
	b, err := v.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	out := []any{}
	size := v.Type.Size()
	for i := 0; i+size <= len(b); i += size {
		var bits uint64
		for j := range size {
			bits |= uint64(b[i+j]) << (8 * j)
		}
		out = append(out, number(v.Type, bits))
	}
	return out
}

func number(dtype graph.DataType, bits uint64) float64 {
	switch dtype {
	case graph.Double:
		return math.Float64frombits(bits)
	case graph.Float:
		return float64(math.Float32frombits(uint32(bits)))
	case graph.BFloat16:
		return float64(math.Float32frombits(uint32(bits) << 16))
	case graph.Float16:
		sign, exponent, fraction := bits>>15, int(bits>>10&31), float64(bits&1023)
		value := math.Ldexp(1+fraction/1024, exponent-15)
		if exponent == 0 {
			value = math.Ldexp(fraction/1024, -14)
		}
		return value * (1 - 2*float64(sign))
	case graph.Int64:
		return float64(int64(bits))
	case graph.Int32:
		return float64(int32(bits))
	case graph.Int16:
		return float64(int16(bits))
	case graph.Int8:
		return float64(int8(bits))
	}
	return float64(bits)
}

func TestPyTorchsFilesAreRead(t *testing.T) {
	b, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var expected map[string]any
	if err := json.Unmarshal(b, &expected); err != nil {
		t.Fatal(err)
	}
	if len(expected) != 11 {
		t.Errorf("%d files", len(expected))
	}
	for name, want := range expected {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			v, err := Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if got := plain(t, v); !reflect.DeepEqual(got, want) {
				t.Errorf("read as %v\nwant %v", got, want)
			}
		})
	}
}

func TestHostileFilesOfPythonAreRefusedByName(t *testing.T) {
	for name, says := range map[string]string{
		"system": `"posix.system"`, "eval": `"__builtin__.eval"`, "nested": `"__builtin__.getattr"`, "bare": `"posix.system"`, "zip": `"builtins.__import__"`,
	} {
		b, err := os.ReadFile("testdata/hostile_" + name + ".pt")
		if err != nil {
			t.Fatal(err)
		}
		v, err := Read(b)
		if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: read as %v, error %v, want one naming %s", name, v, err, says)
		}
	}
}

// zipOf is a file of torch.save with the given program and storages.
func zipOf(t testing.TB, program string, storages ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name, content string) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("data.pkl", program)
	for i, s := range storages {
		add("data/"+string(rune('0'+i)), s)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func text(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func num(v int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(v)))
}

// tensorOf is the program of one tensor of the storage "0".
func tensorOf(elements, offset int64, dims, strides string) string {
	storage := "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + num(elements) + "tQ"
	return "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + num(offset) + "(" + dims + "t(" + strides + "t\x89ccollections\nOrderedDict\n)RtR"
}

func TestHostilePicklesAreRefused(t *testing.T) {
	var bomb strings.Builder // each list holds the one before it ten times
	bomb.WriteString("\x80\x02]q\x00")
	for i := range 200 {
		bomb.WriteString("0")
		bomb.WriteString("](" + strings.Repeat("h"+string(rune(i)), 10) + "e")
	}
	two := "\x00\x00\x80\x3f\x00\x00\x00\x40"
	tests := []struct {
		name string
		file []byte
		kind errs.Kind
		says string
	}{
		{"nothing", nil, errs.Invalid, "ends where 1 more"},
		{"no pickle", []byte("no pickle"), errs.Invalid, "operation 0x6e"},
		{"another function by a text", zipOf(t, "\x80\x04\x8c\x02os\x8c\x06system\x93."), errs.Invalid, `"os.system"`},
		{"a function that is like one of torch's", zipOf(t, "ctorch._utils\n_rebuild_wrapper_subclass\n."), errs.Invalid, "_rebuild_wrapper_subclass"},
		{"a storage of another module", zipOf(t, "cevil\nFloatStorage\n."), errs.Invalid, "evil.FloatStorage"},
		{"a name without an end", zipOf(t, "c"+strings.Repeat("x", 5000)), errs.Invalid, "without an end"},
		{"an operation that is not known", zipOf(t, "]2."), errs.Invalid, "0x32 DUP"},
		{"INST, a call by another way", zipOf(t, "(ios\nsystem\n."), errs.Invalid, "0x69 INST"},
		{"an extension", zipOf(t, "\x82\x01."), errs.Invalid, "EXT1"},
		{"protocol 9", zipOf(t, "\x80\x09]."), errs.Unsupported, "protocol 9"},
		{"a text longer than the file", zipOf(t, "X\xff\xff\xff\xffab."), errs.Invalid, "4294967295 bytes where"},
		{"a text that is not UTF-8", zipOf(t, "X\x01\x00\x00\x00\xff."), errs.Invalid, "UTF-8"},
		{"a number longer than the file", zipOf(t, "\x8a\xff."), errs.Invalid, "255 more bytes"},
		{"a frame longer than the file", zipOf(t, "\x95\xff"), errs.Invalid, "8 more bytes"},
		{"no end", zipOf(t, "]"), errs.Invalid, "1 more bytes"},
		{"nothing on the stack", zipOf(t, "."), errs.Invalid, "value is missing"},
		{"values left over", zipOf(t, "]]."), errs.Invalid, "1 values are left over"},
		{"bytes behind the end", zipOf(t, "].]."), errs.Invalid, "behind its end"},
		{"a mark alone", zipOf(t, "(."), errs.Invalid, "holds no value"},
		{"a function as the value", zipOf(t, "ccollections\nOrderedDict\n."), errs.Invalid, "holds no value"},
		{"a function in a list", zipOf(t, "]ccollections\nOrderedDict\na."), errs.Invalid, "function, storage or mark"},
		{"a mark that is missing", zipOf(t, "]e."), errs.Invalid, "mark is missing"},
		{"a memo that is not there", zipOf(t, "h\x07."), errs.Invalid, "value 7"},
		{"nested memo bombs", zipOf(t, bomb.String()), errs.Invalid, "POP"},
		{"a key without a value", zipOf(t, "}(Nu."), errs.Invalid, "key without a value"},
		{"a list as a key", zipOf(t, "}(]Nu."), errs.Invalid, "neither text nor number"},
		{"items for a number", zipOf(t, "K\x01(NNu."), errs.Invalid, "a dictionary that is none"},
		{"appends to a number", zipOf(t, "K\x01Na."), errs.Invalid, "a list that is none"},
		{"state for a list", zipOf(t, "]}b."), errs.Invalid, "state for what takes none"},
		{"a call of a list", zipOf(t, "])R."), errs.Invalid, "no function"},
		{"OrderedDict with an argument", zipOf(t, "ccollections\nOrderedDict\nN\x85R."), errs.Invalid, "1 arguments"},
		{"a parameter of no tensor", zipOf(t, "ctorch._utils\n_rebuild_parameter\nN\x85R."), errs.Invalid, "1 arguments"},
		{"a reference to a module", zipOf(t, "("+text("module")+"tQ."), errs.Invalid, "no storage"},
		{"a storage of 2^62", zipOf(t, tensorOf(1<<62, 0, num(1), num(1))+"."), errs.Invalid, "unknown type, name or size"},
		{"a storage of fewer bytes", zipOf(t, tensorOf(2, 0, num(2), num(1))+".", "\x00\x00\x80\x3f"), errs.Invalid, "4 bytes, must have 8"},
		{"a storage of more bytes", zipOf(t, tensorOf(2, 0, num(2), num(1))+".", two+two), errs.Invalid, "packed or over 8"},
		{"no storage", zipOf(t, tensorOf(2, 0, num(2), num(1))+"."), errs.Invalid, `no entry "archive/data/0"`},
		{"extents beyond the storage", zipOf(t, tensorOf(2, 0, num(3), num(1))+".", two), errs.Invalid, "reaches beyond"},
		{"an offset beyond the storage", zipOf(t, tensorOf(2, 2, num(1), num(1))+".", two), errs.Invalid, "reaches beyond"},
		{"an offset of 2^63-1", zipOf(t, tensorOf(2, math.MaxInt64, num(2), num(1))+".", two), errs.Invalid, "without a storage"},
		{"an offset of 2^30", zipOf(t, tensorOf(2, 1<<30, num(2), num(1))+".", two), errs.Invalid, "reaches beyond"},
		{"a negative offset", zipOf(t, tensorOf(2, -1, num(1), num(1))+".", two), errs.Invalid, "without a storage"},
		{"a negative stride", zipOf(t, tensorOf(2, 1, num(2), num(-1))+".", two), errs.Invalid, "without a storage"},
		{"other extents than strides", zipOf(t, tensorOf(2, 0, num(1)+num(1), num(1))+".", two), errs.Invalid, "without a storage"},
		{"strides that overflow", zipOf(t, tensorOf(2, 0, num(1<<27), num(1<<40))+".", two), errs.TooLarge, "extents"},
		{"one element a billion times", zipOf(t, tensorOf(2, 0, num(1<<30), num(0))+".", two), errs.TooLarge, "more than 4 times"},
		{"many such tensors", zipOf(t, "]("+strings.Repeat(tensorOf(2, 0, num(1<<16), num(0)), 9)+"e.", two), errs.TooLarge, "more than 4 times"},
		{"a packed zip", packed(t), errs.Invalid, "packed"},
		{"a zip of something else", zipNamed(t, "x/readme.txt"), errs.Invalid, "without a data.pkl"},
		{"two programs", zipNamed(t, "x/data.pkl", "y/data.pkl"), errs.Invalid, "both"},
		{"a zip that is cut off", zipOf(t, "].")[:40], errs.Invalid, "zip"},
		{"big-endian", zipNamed(t, "x/data.pkl", "x/byteorder"), errs.Unsupported, "byte order"},
		{"an old file of another version", []byte("\x80\x02\x8a\x0a" + string(magic) + ".\x80\x02M\x01\x00."), errs.Invalid, "more bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Read(tt.file)
			if errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("read as %v, error %v, want %v saying %q", v, err, tt.kind, tt.says)
			}
		})
	}
}

func zipNamed(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, n := range names {
		w, err := z.CreateHeader(&zip.FileHeader{Name: n, Method: zip.Store})
		if err == nil {
			_, err = w.Write([]byte("]."))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packed(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("x/data.pkl")
	if err == nil {
		_, err = w.Write([]byte("]" + strings.Repeat("h\x00", 1000)))
	}
	if err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSharedListsCostNoMore(t *testing.T) {
	var b strings.Builder // a list that holds one ten times, which holds one ten times, ...
	b.WriteString("]q\x00")
	for i := range 100 {
		b.WriteString("](" + strings.Repeat("h"+string(rune(i)), 10) + "eq" + string(rune(i+1)))
	}
	b.WriteString("\x8a\x00t.")
	if v, err := Read(zipOf(t, "("+b.String())); err != nil || len(v.(Tuple)) != 102 {
		t.Errorf("read as %T, %v", v, err)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	value := NewDict(
		"<mug>", graph.NewTensor([]float32{1, 2, 3, 4, 5, 6}, 2, 3), int64(7), Tuple{}, "numbers", &List{[]any{int64(-1), int64(1 << 40), int64(math.MinInt64), 2.5}},
		"plain", Tuple{nil, true, false, "ü"}, "scalar", graph.NewTensor([]int64{9}),
	)
	var first, second bytes.Buffer
	if err := Write(&first, value); err != nil {
		t.Fatal(err)
	}
	got, err := Read(first.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(plain(t, got), plain(t, value)) {
		t.Errorf("read as %v", plain(t, got))
	}
	if err := Write(&second, value); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("two writes of one value differ, %v", err)
	}
	for name, v := range map[string]any{"a Go number": 7, "a tensor of texts": &graph.Tensor{Type: graph.String}, "within a list": &List{[]any{struct{}{}}}} {
		if err := Write(&second, v); errs.Of(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzPickle(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pt")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		if a, err := openArchive(b); err == nil {
			program, err := a.read("data.pkl", maxProgram)
			if err != nil {
				continue // packed: written by Python's zipfile
			}
			f.Add(program)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, file := range [][]byte{b, zipOf(t, string(b), "\x00\x00\x80\x3f\x00\x00\x00\x40")} {
			v, err := Read(file)
			if err != nil {
				if errs.Of(err) == errs.Internal {
					t.Fatalf("an error without a kind: %v", err)
				}
				continue
			}
			if !isPlain(v) {
				t.Fatalf("read as %T", v)
			}
		}
	})
}
