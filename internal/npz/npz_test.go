package npz

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

func half(t *testing.T, data ...byte) *graph.Tensor {
	t.Helper()
	x, err := graph.NewTensorBytes(graph.Float16, data, int64(len(data)/2))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// numpyArrays is what testdata/make.py has NumPy write.
func numpyArrays(t *testing.T) map[string]*graph.Tensor {
	t.Helper()
	fortran := make([]float64, 24)
	for i := range fortran {
		fortran[i] = float64(i)
	}
	return map[string]*graph.Tensor{
		"floats":  graph.NewTensor([]float32{0, 1, 2, 3, 4, 5}, 2, 3),
		"fortran": graph.NewTensor(fortran, 2, 3, 4),
		"half":    half(t, 0x00, 0x38, 0x00, 0xc0),
		"ids":     graph.NewTensor([]int64{1, 2}, 1, 2),
		"scalar":  graph.NewTensor([]int32{7}),
		"mask":    graph.NewTensor([]bool{true, false}, 2),
		"empty":   graph.NewTensor([]uint8{}, 0, 3),
	}
}

func same(t *testing.T, got, want map[string]*graph.Tensor) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d arrays, want %d", len(got), len(want))
	}
	for name, w := range want {
		g := got[name]
		if g == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		a, err1 := g.Bytes()
		b, err2 := w.Bytes()
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if g.Type != w.Type || !reflect.DeepEqual(append([]int64{}, g.Dims...), append([]int64{}, w.Dims...)) || !bytes.Equal(a, b) {
			t.Errorf("%s is %s%v %v, want %s%v %v", name, g.Type, g.Dims, a, w.Type, w.Dims, b)
		}
	}
}

func TestReadsWhatNumPyWrote(t *testing.T) {
	got, err := Read("testdata/numpy.npz")
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, numpyArrays(t))
}

func TestReadsBackWhatItWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npz")
	want := numpyArrays(t)
	if err := Write(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, want)
	once, _ := os.ReadFile(path)
	if err := Write(path, want); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(path); !bytes.Equal(once, again) {
		t.Error("equal tensors gave different bytes")
	}
}

func TestRefusesWhatIsNoArray(t *testing.T) {
	valid := func(dict, data string) string { return string(encodeHeaderOf(dict)) + data }
	tests := []struct {
		name, entry string
		kind        errs.Kind
		saying      string
	}{
		{"other bytes", "hello, this is text", errs.Invalid, "no NumPy array"},
		{"a header cut off", magic + "\x01\x00\x50\x00{", errs.Invalid, "EOF"},
		{"a huge header", magic + "\x02\x00\xff\xff\xff\x7f", errs.Invalid, "header of"},
		{"complex numbers", valid("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "12345678"), errs.Unsupported, "<c8"},
		{"too little data", valid("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "1234"), errs.Invalid, "needs 12 bytes"},
		{"more data than the shape says", valid("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "12345678"), errs.Invalid, "needs 4 bytes"},
		{"a shape that no memory holds", valid("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999), }", ""), errs.TooLarge, "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.npz")
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			w, err := z.Create("x.npy")
			if err != nil {
				t.Fatal(err)
			}
			w.Write([]byte(tt.entry))
			z.Close()
			if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = Read(path)
			if errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.saying) {
				t.Errorf("error %v (%s), want one of kind %s saying %q", err, errs.Of(err), tt.kind, tt.saying)
			}
		})
	}
	if _, err := Read("testdata/none.npz"); errs.Of(err) != errs.NotFound {
		t.Errorf("a missing file gives %v", err)
	}
}

// encodeHeaderOf is a version 1 header around any dictionary.
func encodeHeaderOf(dict string) []byte {
	return append([]byte(magic+"\x01\x00"), append([]byte{byte(len(dict)), 0}, dict...)...)
}
