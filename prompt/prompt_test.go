package prompt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

var update = flag.Bool("update", false, "write the golden files")

var digest = strings.Repeat("ab", 32)

// sample is a prompt with every field of the card in use.
func sample() *Prompt {
	half := func(v float64) *float64 { return &v }
	return &Prompt{
		Card: Card{
			Bundle:        BundleRef{"starter", digest},
			Method:        "maple",
			Recipe:        json.RawMessage(`{"epochs": 5, "learning_rate": 0.0035}`),
			Classes:       []string{"ankle boot", "T-shirt <top> & more"},
			Templates:     []string{"a photo of a {}."},
			Dataset:       DatasetRef{"fashion", strings.Repeat("1", 64), strings.Repeat("2", 64)},
			Preprocessing: json.RawMessage(`{"size":160}`),
			LogitScale:    LogitScale{14.2857, "foretoken.yaml"},
			Seeds:         Seeds{Split: 1, Shots: 2, Train: math.MaxUint64},
			Metrics: Metrics{
				ZeroShot: &Score{Split: "test", Images: 200, Accuracy: 0.5, Interval: [2]float64{0.43, 0.57}},
				Tuned: &Score{
					Split: "test", Images: 200, Accuracy: 0.75, Interval: [2]float64{0.68, 0.8},
					PerClass: []ClassScore{{"ankle boot", 100, 0.8}, {"T-shirt <top> & more", 100, 0.7}},
					Base:     half(0.8), Novel: half(0.6), HarmonicMean: half(0.6857),
					Others: map[string]float64{"loss": 0.7, "ece": 0.04},
				},
			},
			Parameters: 18,
			Parent:     strings.Repeat("c", 64),
			Tool:       "v0.1.0",
			Created:    time.Date(2026, 11, 24, 12, 0, 0, 0, time.FixedZone("CET", 3600)),
		},
		Tensors: map[string]*graph.Tensor{
			"context":         floats(1, 2, 4),
			"visual":          floats(1, 2, 3),
			"couple.0.weight": floats(3, 4),
			"couple.0.bias":   floats(3),
			"head.bias":       graph.NewTensor([]float64{-1, math.MaxFloat64}, 2),
			"order":           graph.NewTensor([]uint8{3, 1, 2}, 3),
			"scalar":          graph.NewTensor([]float32{7}),
		},
	}
}

func floats(dims ...int64) *graph.Tensor {
	data := make([]float32, graph.Count(dims))
	for i := range data {
		data[i] = float32(i)/16 - 0.25
	}
	return graph.NewTensor(data, dims...)
}

func encode(t *testing.T, p *Prompt) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAPromptComesBackAsItWasWritten(t *testing.T) {
	want := sample()
	got, err := ReadBytes(encode(t, want))
	if err != nil {
		t.Fatal(err)
	}
	want.Card.Format = Format
	want.Card.Created = want.Card.Created.UTC()
	want.Card.Recipe = json.RawMessage(`{"epochs":5,"learning_rate":0.0035}`)
	if !reflect.DeepEqual(got.Card, want.Card) {
		t.Errorf("card\n got %+v\nwant %+v", got.Card, want.Card)
	}
	if len(got.Tensors) != len(want.Tensors) {
		t.Errorf("%d tensors, want %d", len(got.Tensors), len(want.Tensors))
	}
	for name, w := range want.Tensors {
		g := got.Tensors[name]
		if g == nil {
			t.Errorf("no tensor %q", name)
			continue
		}
		gb, _ := g.Bytes()
		wb, _ := w.Bytes()
		if g.Type != w.Type || fmt.Sprint(g.Dims) != fmt.Sprint(w.Dims) || !bytes.Equal(gb, wb) {
			t.Errorf("tensor %q: %s%v %x, want %s%v %x", name, g.Type, g.Dims, gb, w.Type, w.Dims, wb)
		}
	}
}

func TestEqualPromptsAreEqualBytes(t *testing.T) {
	golden := filepath.Join("testdata", "golden.safetensors")
	first := encode(t, sample())
	for range 20 { // maps are walked in another order each time
		if !bytes.Equal(encode(t, sample()), first) {
			t.Fatal("two writes of one prompt differ")
		}
	}
	if *update {
		if err := os.WriteFile(golden, first, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, want) {
		t.Errorf("the format changed: bytes differ from %s; raise Format, or run with -update", golden)
	}
}

func TestTensorsAreAligned(t *testing.T) {
	for n := range 8 {
		p := sample()
		p.Card.Tool = strings.Repeat("x", n)
		if header := binary.LittleEndian.Uint64(encode(t, p)); header%8 != 0 {
			t.Errorf("a header of %d bytes", header)
		}
	}
}

func TestADigestFollowsTheContent(t *testing.T) {
	a, err := sample().Digest()
	if err != nil {
		t.Fatal(err)
	}
	read, err := ReadBytes(encode(t, sample()))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := read.Digest(); err != nil || a != b {
		t.Errorf("digest after reading %s, %v; want %s", b, err, a)
	}
	read.Tensors["scalar"] = graph.NewTensor([]float32{8})
	if b, err := read.Digest(); err != nil || a == b {
		t.Errorf("another value has the same digest %s, %v", b, err)
	}
}

func TestAFileOfPythonsSafetensorsIsRead(t *testing.T) {
	b, err := os.ReadFile("testdata/python.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ReadBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	context, err := graph.Float32s(p.Tensors["context"])
	if err != nil || context[11] != 11.0/8 {
		t.Errorf("context %v, %v", context, err)
	}
	weight, err := graph.Float32s(p.Tensors["head.weight"])
	if err != nil || weight[4] != 65504 {
		t.Errorf("head.weight %v, %v", weight, err)
	}
	if p.Card.Bundle.Digest != digest || len(p.Card.Classes) != 2 || p.Card.Seeds.Train != 3 {
		t.Errorf("card %+v", p.Card)
	}
}

func TestAPromptLoadsOntoNoOtherBundle(t *testing.T) {
	p := sample()
	if err := p.CheckBundle(digest); err != nil {
		t.Errorf("its own bundle: %v", err)
	}
	other := strings.Repeat("cd", 32)
	err := p.CheckBundle(other)
	if errs.Of(err) != errs.Conflict {
		t.Fatalf("another bundle: %v", err)
	}
	for _, part := range []string{digest, other, `"starter"`, "tune"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

// file puts a header before data.
func file(header string, data string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func withEntries(entries string, data string) []byte {
	card := fmt.Sprintf(`{"format":1,"bundle":{"name":"x","digest":%q},"classes":["a","b"]}`, digest)
	return file(fmt.Sprintf(`{"__metadata__":{"foretoken":%q},%s}`, card, entries), data)
}

func withCard(card string) []byte {
	return file(fmt.Sprintf(`{"__metadata__":{"foretoken":%q}}`, card), "")
}

func TestAHostileFileIsRefused(t *testing.T) {
	const zero4 = "\x00\x00\x00\x00"
	inf := string(binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(math.Inf(-1)))))
	goodBundle := fmt.Sprintf(`"bundle":{"digest":%q}`, digest)
	tests := []struct {
		name string
		file []byte
		kind errs.Kind
		says string
	}{
		{"an empty file", nil, errs.Invalid, "too short"},
		{"a header longer than the file", file("{}", "")[:9], errs.Invalid, "header of 2 bytes in a file of 9"},
		{"a header length near 2^64", bytes.Repeat([]byte{0xff}, 100), errs.Invalid, "header of 18446744073709551615 bytes"},
		{"a pickle", []byte("PK\x03\x04 this is a zip of torch.save"), errs.Invalid, "not safetensors"},
		{"a header that is no object", file("[1]", ""), errs.Invalid, "no JSON object"},
		{"a header that is not UTF-8", file("{\"\xff\":1}", ""), errs.Invalid, "UTF-8"},
		{"text after the header's brace", file(`{} {}`, ""), errs.Invalid, "after the closing brace"},
		{"an object that is not closed", file(`{"a":1`, ""), errs.Invalid, "header"},
		{"no metadata", file("{}", ""), errs.Invalid, "no metadata"},
		{"metadata without a card", file(`{"__metadata__":{"format":"pt"}}`, ""), errs.Invalid, "no card"},
		{"a card that is no string", file(`{"__metadata__":{"foretoken":{}}}`, ""), errs.Invalid, "no card"},
		{"a card twice", file(`{"__metadata__":{"foretoken":"{}","foretoken":"{}"}}`, ""), errs.Invalid, "twice"},
		{"a field of the card twice", withCard(`{"format":1,"format":1,` + goodBundle + `}`), errs.Invalid, `"format" is there twice`},
		{"a card from the future", withCard(`{"format":2,` + goodBundle + `}`), errs.Unsupported, "update foretoken"},
		{"a card without a format", withCard(`{` + goodBundle + `}`), errs.Invalid, "format"},
		{"a card without a bundle", withCard(`{"format":1}`), errs.Invalid, "bundle digest"},
		{"a card with a wrong field", withCard(`{"format":1,"classes":3,` + goodBundle + `}`), errs.Invalid, "classes"},
		{"a tensor twice", withEntries(`"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`, zero4), errs.Invalid, `"a" is there twice`},
		{"an unknown element type", withEntries(`"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}`, "x"), errs.Unsupported, "F8_E4M3"},
		{"no element type", withEntries(`"a":{"shape":[1],"data_offsets":[0,1]}`, "x"), errs.Invalid, "dtype"},
		{"a shape that is a word", withEntries(`"a":{"dtype":"F32","shape":"big","data_offsets":[0,4]}`, zero4), errs.Invalid, "shape"},
		{"one offset", withEntries(`"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}`, zero4), errs.Invalid, "data_offsets"},
		{"offsets backwards", withEntries(`"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}`, zero4), errs.Invalid, "data_offsets"},
		{"a negative offset", withEntries(`"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}`, zero4), errs.Invalid, "data_offsets"},
		{"a shape that overflows", withEntries(`"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}`, zero4), errs.Invalid, "does not fit"},
		{"a dimension of 2^63-1", withEntries(`"a":{"dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,4]}`, zero4), errs.Invalid, "does not fit"},
		{"a dimension over int64", withEntries(`"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}`, zero4), errs.Invalid, "shape"},
		{"a negative dimension", withEntries(`"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}`, zero4), errs.Invalid, "does not fit"},
		{"a dimension of zero", withEntries(`"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`, ""), errs.Invalid, "does not fit"},
		{"too small a shape", withEntries(`"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}`, zero4+zero4), errs.Invalid, "needs 4 bytes, has 8"},
		{"rank 9", withEntries(`"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}`, zero4), errs.Invalid, "rank 9, limit 8"},
		{"data past the end", withEntries(`"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`, zero4), errs.Invalid, "8 bytes, but 4"},
		{"data past 2^62", withEntries(`"a":{"dtype":"U8","shape":[4611686018427387904],"data_offsets":[0,4611686018427387904]}`, zero4), errs.Invalid, "but 4"},
		{"data that nobody names", withEntries(`"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`, zero4+"evil"), errs.Invalid, "4 bytes, but 8"},
		{"a gap", withEntries(`"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}`, zero4+zero4), errs.Invalid, "a gap or an overlap"},
		{"an overlap", withEntries(`"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}`, zero4+zero4+zero4), errs.Invalid, "a gap or an overlap"},
		{"infinity", withEntries(`"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`, zero4+inf), errs.Invalid, `"a": element 1 is not finite`},
		{"a half NaN", withEntries(`"h":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}`, "\x01\xfc"), errs.Invalid, `"h": element 0 is not finite`},
		{"a bfloat16 infinity", withEntries(`"b":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}`, "\x80\x7f"), errs.Invalid, `"b": element 0 is not finite`},
		{"a double NaN", withEntries(`"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}`, "\x00\x00\x00\x00\x00\x00\xf8\x7f"), errs.Invalid, `"d": element 0 is not finite`},
		{"a flat context", withEntries(`"context":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`, zero4), errs.Invalid, "rank [2 3]"},
		{"a whole-numbered head", withEntries(`"head.bias":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}`, zero4), errs.Invalid, "float tensor"},
		{"a couple of the wrong rank", withEntries(`"couple.11.bias":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}`, zero4), errs.Invalid, "rank [1]"},
		{"a head of other classes", withEntries(`"head.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`, zero4), errs.Invalid, "1 rows for the card's 2 classes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ReadBytes(tt.file)
			if err == nil {
				t.Fatalf("read as %+v", p)
			}
			if errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v error %q, want %v saying %q", errs.Of(err), err, tt.kind, tt.says)
			}
		})
	}
}

func TestTooManyTensorsAreRefused(t *testing.T) {
	var entries []string
	for i := range maxTensors + 1 {
		entries = append(entries, fmt.Sprintf(`"t%d":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}`, i, i, i+1))
	}
	_, err := ReadBytes(withEntries(strings.Join(entries, ","), strings.Repeat("x", maxTensors+1)))
	if errs.Of(err) != errs.TooLarge {
		t.Errorf("error %v", err)
	}
}

// endless is a file that claims any size and holds zeros after its first bytes.
type endless struct{ first []byte }

func (e endless) ReadAt(b []byte, offset int64) (int, error) {
	clear(b)
	if offset < int64(len(e.first)) {
		copy(b, e.first[offset:])
	}
	return len(b), nil
}

func TestAHeaderOverTheLimitIsNotRead(t *testing.T) {
	prefix := binary.LittleEndian.AppendUint64(nil, 1<<40)
	if _, err := Read(endless{prefix}, 1<<41); errs.Of(err) != errs.TooLarge {
		t.Errorf("error %v", err)
	}
}

func TestAFileThatShrankIsRefused(t *testing.T) {
	b := encode(t, sample())
	_, err := Read(bytes.NewReader(b[:len(b)-1]), int64(len(b)))
	if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), io.EOF.Error()) {
		t.Errorf("error %v", err)
	}
}

func TestAWrongPromptIsNotWritten(t *testing.T) {
	tests := []struct {
		name   string
		spoil  func(p *Prompt)
		saying string
	}{
		{"a NaN", func(p *Prompt) { p.Tensors["scalar"] = graph.NewTensor([]float32{float32(math.NaN())}) }, `"scalar": element 0`},
		{"no bundle", func(p *Prompt) { p.Card.Bundle.Digest = "" }, "bundle digest"},
		{"an upper-case digest", func(p *Prompt) { p.Card.Bundle.Digest = strings.Repeat("AB", 32) }, "bundle digest"},
		{"a metric that is NaN", func(p *Prompt) { p.Card.Metrics.Tuned.Accuracy = math.NaN() }, "NaN"},
		{"a recipe that is no JSON", func(p *Prompt) { p.Card.Recipe = json.RawMessage("{") }, "card"},
		{"metadata as a tensor", func(p *Prompt) { p.Tensors["__metadata__"] = floats(1) }, "__metadata__"},
		{"a name that is not UTF-8", func(p *Prompt) { p.Tensors["\xff"] = floats(1) }, "safetensors"},
		{"strings", func(p *Prompt) { p.Tensors["s"] = &graph.Tensor{Type: graph.String, Dims: []int64{1}} }, "safetensors"},
		{"a tensor without elements", func(p *Prompt) { p.Tensors["e"] = floats(0, 3) }, `"e"`},
		{"fewer bytes than the shape", func(p *Prompt) { p.Tensors["scalar"].Dims = []int64{2} }, "needs 8 bytes, has 4"},
		{"a class-specific context of other classes", func(p *Prompt) { p.Card.ClassSpecific = true }, "1 rows for the card's 2 classes"},
		{"a flat class-specific context", func(p *Prompt) { p.Card.ClassSpecific = true; p.Tensors["context"] = floats(2, 4) }, "[C,M,D]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := sample()
			tt.spoil(p)
			var b bytes.Buffer
			err := Write(&b, p)
			if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), tt.saying) {
				t.Errorf("error %v, want one saying %q", err, tt.saying)
			}
			if b.Len() > 0 {
				t.Errorf("%d bytes were written", b.Len())
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := Write(&b, sample()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	python, err := os.ReadFile("testdata/python.safetensors")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(python)
	f.Add(withEntries(`"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[],"data_offsets":[4,6]}`, "\x00\x00\x80\x3f\x00\x3c"))
	f.Add(withCard(`{"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ReadBytes(data)
		if err != nil {
			if errs.Of(err) == errs.Internal {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		var again bytes.Buffer
		if err := Write(&again, p); err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		q, err := ReadBytes(again.Bytes())
		if err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		a, _ := p.Digest()
		if b, err := q.Digest(); err != nil || a != b {
			t.Fatalf("digest %s became %s, %v", a, b, err)
		}
	})
}
