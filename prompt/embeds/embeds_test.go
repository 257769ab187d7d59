package embeds

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/prompt/pickle"
)

var update = flag.Bool("update", false, "write the exported files")

var bundle = prompt.BundleRef{Name: "painter", Digest: strings.Repeat("ab", 32)}

// expected are the rows that bench/reference/embeds.py writes.
func expected(t *testing.T) (rows, rowsG *graph.Tensor) {
	t.Helper()
	b, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Rows  [][]float32 `json:"rows"`
		RowsG [][]float32 `json:"rows_g"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	flat := func(rows [][]float32) *graph.Tensor {
		return graph.NewTensor(slices.Concat(rows...), int64(len(rows)), int64(len(rows[0])))
	}
	return flat(e.Rows), flat(e.RowsG)
}

func same(a, b *graph.Tensor) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, err1 := a.Bytes()
	y, err2 := b.Bytes()
	return err1 == nil && err2 == nil && a.Type == b.Type && slices.Equal(a.Dims, b.Dims) && bytes.Equal(x, y)
}

func TestFilesOfOthersAreRead(t *testing.T) {
	rows, rowsG := expected(t)
	for _, tt := range []struct {
		file, token   string
		first, second *graph.Tensor
	}{
		{"learned_embeds.safetensors", "<mug>", rows, nil},
		{"learned_embeds.bin", "<mug>", rows, nil},
		{"one_half.bin", "<mug>", rows.Rows(0, 1), nil},
		{"a1111.pt", "mug", rows, nil},
		{"nameless.pt", "nameless", rows, nil},
		{"a1111.safetensors", "a1111", rows, nil},
		{"sdxl.safetensors", "sdxl", rows, rowsG},
		{"bare.pt", "bare", rows, nil},
	} {
		t.Run(tt.file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", tt.file))
			if err != nil {
				t.Fatal(err)
			}
			e, err := Read(b, `C:\embeddings/`+tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if e.Token != tt.token || !same(e.First, tt.first) || !same(e.Second, tt.second) {
				t.Errorf("token %q with %v and %v, want %q", e.Token, e.First, e.Second, tt.token)
			}
			p, err := e.Prompt(prompt.Concept, bundle, "")
			if err != nil || p.Card.Token != tt.token || p.Card.Parameters < 8 {
				t.Errorf("prompt %+v, %v", p, err)
			}
		})
	}
}

// TestWhatOthersWroteIsRead reads what the programs themselves saved (bench/reference/concepts.py) and compares
// with what PyTorch, safetensors and Pillow read there.
func TestWhatOthersWroteIsRead(t *testing.T) {
	const folder = "testdata/written/"
	b, err := os.ReadFile(folder + "expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var files map[string]struct {
		Token string        `json:"token"`
		Rows  [][][]float32 `json:"rows"`
	}
	if err := json.Unmarshal(b, &files); err != nil || len(files) != 18 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	read := func(t *testing.T, file string) *Embedding {
		t.Helper()
		b, err := os.ReadFile(folder + file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Read(b, file)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for file, want := range files {
		t.Run(file, func(t *testing.T) {
			e := read(t, file)
			parts := []*graph.Tensor{e.First, e.Second}[:encoders(e.Second != nil)]
			if e.Token != want.Token || len(parts) != len(want.Rows) {
				t.Fatalf("token %q of %d parts, want %q of %d", e.Token, len(parts), want.Token, len(want.Rows))
			}
			for i, rows := range want.Rows {
				if !same(parts[i], graph.NewTensor(slices.Concat(rows...), int64(len(rows)), int64(len(rows[0])))) {
					t.Errorf("part %d is read as %v, want %v", i, parts[i], rows)
				}
			}
		})
	}
	first, second := read(t, "diffusers-xl/learned_embeds.safetensors"), read(t, "diffusers-xl/learned_embeds_2.safetensors")
	e, err := Join(first, second)
	if err != nil || e.Token != "<mug>" || e.First != first.First || e.Second != second.First {
		t.Errorf("SDXL's two files are joined to %+v, %v", e, err)
	}
	for name, pair := range map[string][2]*Embedding{
		"another token": {first, read(t, "kohya/mug.pt")},
		"more rows":     {first, read(t, "diffusers-bin/learned_embeds.bin")},
		"two encoders":  {read(t, "kohya/xl.pt"), read(t, "kohya/xl.pt")},
	} {
		if e, err := Join(pair[0], pair[1]); errs.Of(err) != errs.Invalid {
			t.Errorf("%s: joined to %+v, %v", name, e, err)
		}
	}
}

// picture is a PNG of a header and a text chunk, checksums left 0.
func picture(keyword, text string) []byte {
	b := slices.Clone(pngSignature)
	for _, chunk := range [][2]string{{"IHDR", "header"}, {"tEXt", keyword + "\x00" + text}} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(chunk[1])))
		b = append(b, chunk[0]+chunk[1]+"\x00\x00\x00\x00"...)
	}
	return b
}

// hidden is a PNG that carries JSON as AUTOMATIC1111 hides it.
func hidden(text string) []byte {
	return picture(pictureKeyword, base64.StdEncoding.EncodeToString([]byte(text)))
}

// exportable are a concept of one text encoder and one of two.
func exportable(t *testing.T) (one, two *prompt.Prompt) {
	t.Helper()
	rows, rowsG := expected(t)
	make := func(second *graph.Tensor) *prompt.Prompt {
		p, err := (&Embedding{Token: "<mug>", First: rows, Second: second}).Prompt(prompt.Concept, bundle, "")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	return make(nil), make(rowsG)
}

// TestWhatIsWrittenIsAsOthersLoadedIt compares with files that bench/reference/embeds.py has had PyTorch,
// safetensors and diffusers load. Where they change, run it again.
func TestWhatIsWrittenIsAsOthersLoadedIt(t *testing.T) {
	one, two := exportable(t)
	for _, f := range Formats {
		p := one
		if f == SDXL {
			p = two
		}
		var b bytes.Buffer
		if err := Write(&b, p, f, "unused"); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", "exported", string(f)+f.Suffix())
		if *update {
			if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s: bytes differ from %s: run with -update, then bench/reference/embeds.py check testdata", f, golden)
		}
		e, err := Read(b.Bytes(), "mug"+f.Suffix())
		if err != nil {
			t.Fatal(err)
		}
		name := prompt.Rows(prompt.Concept)
		if !same(e.First, p.Tensors[name]) || !same(e.Second, p.Tensors[name+"_2"]) {
			t.Errorf("%s: read as %v and %v", f, e.First, e.Second)
		}
	}
}

func TestStylesAndNegativesAreWrittenUnderAName(t *testing.T) {
	rows, _ := expected(t)
	for _, kind := range []prompt.Kind{prompt.Style, prompt.Negative} {
		p, err := (&Embedding{First: rows}).Prompt(kind, bundle, "")
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Write(&b, p, Diffusers, "bad-hands"); err != nil {
			t.Fatal(err)
		}
		if e, err := Read(b.Bytes(), "x.safetensors"); err != nil || e.Token != "bad-hands" || !same(e.First, rows) {
			t.Errorf("%s: read as %+v, %v", kind, e, err)
		}
	}
}

func TestFilesThatAreNoConceptAreRefused(t *testing.T) {
	rows, rowsG := expected(t)
	torch := func(v any) []byte {
		var b bytes.Buffer
		if err := pickle.Write(&b, v); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	hostile, err := os.ReadFile("../pickle/testdata/hostile_nested.pt")
	if err != nil {
		t.Fatal(err)
	}
	d := pickle.NewDict
	for name, tt := range map[string]struct {
		file []byte
		says string
	}{
		"nothing":                   {nil, `embedding "x.pt"`},
		"a malicious pickle":        {hostile, "getattr"},
		"a broken safetensors":      {[]byte("\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":"), "header of 16 bytes"},
		"a list":                    {torch(&pickle.List{}), "neither a dictionary nor a tensor"},
		"an empty dictionary":       {torch(d()), "no concept among the keys []"},
		"two tokens":                {torch(d("<a>", rows, "<b>", rows)), "no concept among the keys [\"<a>\" \"<b>\"]"},
		"two concepts of A1111":     {torch(d("string_to_param", d("*", rows, "+", rows), "name", "a")), "split the file"},
		"string_to_param that is 7": {torch(d("string_to_param", int64(7))), "split the file"},
		"half of SDXL":              {torch(d("clip_g", rows)), "SDXL takes both"},
		"SDXL with other rows":      {torch(d("clip_l", rows.Rows(0, 1), "clip_g", rowsG)), "must be as many"},
		"a text for rows":           {torch(d("<mug>", "rows")), "no tensor"},
		"whole numbers":             {torch(d("<mug>", graph.NewTensor([]int64{1}, 1))), "no float"},
		"three axes":                {torch(d("<mug>", graph.NewTensor([]float32{1, 2}, 2, 1, 1))), "no tensor of [rows, width]"},
		"a scalar":                  {torch(d("<mug>", graph.NewTensor([]float32{1}))), "no tensor of [rows, width]"},
		"a picture":                 {picture("Title", "mug"), "without the text sd-ti-embedding"},
		"a picture cut short":       {picture(pictureKeyword, "bXVn")[:30], "without the text sd-ti-embedding"},
		"a picture with no base64":  {picture(pictureKeyword, "{}"), "illegal base64"},
		"a picture with no JSON":    {picture(pictureKeyword, "bXVn"), "invalid character"},
		"a picture without rows":    {hidden(`{"string_to_param": {"*": {}}}`), "no rows"},
		"a picture with a ragged":   {hidden(`{"string_to_param": {"*": {"TORCHTENSOR": [[1, 2], [3]]}}}`), "row 1"},
		"a picture with two":        {hidden(`{"string_to_param": {"*": {"TORCHTENSOR": [[1]]}, "+": {"TORCHTENSOR": [[1]]}}}`), "split the file"},
		"a picture with too much":   {picture(pictureKeyword, strings.Repeat("A", maxPictureText+4)), "limit"},
		"more rows than a text has": {torch(d("<mug>", graph.NewTensor(make([]float32, 1001), 1001, 1))), "limit 1000"},
	} {
		e, err := Read(tt.file, "x.pt")
		if kind := errs.Of(err); (kind != errs.Invalid && kind != errs.TooLarge) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: read as %+v, %v, want an error saying %q", name, e, err, tt.says)
		}
	}
	e := &Embedding{Token: "two words", First: rows}
	if _, err := e.Prompt(prompt.Concept, bundle, ""); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), "placeholder") {
		t.Errorf("a token of two words: %v", err)
	}
	if p, err := e.Prompt(prompt.Concept, bundle, "<two>"); err != nil || p.Card.Token != "<two>" {
		t.Errorf("another token: %v", err)
	}
	if _, err := e.Prompt(prompt.Caption, bundle, "<two>"); errs.Of(err) != errs.Invalid {
		t.Errorf("a caption prompt: %v", err)
	}
	nan := graph.NewTensor([]float32{1, 2}, 1, 2)
	values, _ := graph.Values[float32](nan)
	values[1] /= 0 * values[0]
	if _, err := (&Embedding{Token: "a", First: nan}).Prompt(prompt.Concept, bundle, ""); errs.Of(err) != errs.Invalid {
		t.Errorf("infinity: %v", err)
	}
}

func TestWhatHasNoFormIsNotWritten(t *testing.T) {
	one, two := exportable(t)
	caption := &prompt.Prompt{Card: prompt.Card{Kind: prompt.Caption}}
	for name, err := range map[string]error{
		"a caption prompt":               Write(&bytes.Buffer{}, caption, Diffusers, "a"),
		"one encoder as SDXL":            Write(&bytes.Buffer{}, one, SDXL, "a"),
		"two encoders as one":            Write(&bytes.Buffer{}, two, A1111, "a"),
		"a format that there is not":     Write(&bytes.Buffer{}, one, "gguf", "a"),
		"a format that is spelled wrong": Write(&bytes.Buffer{}, one, "", "a"),
	} {
		if errs.Of(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzEmbeds(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	others, err2 := filepath.Glob("testdata/written/*/*")
	if err != nil || err2 != nil || len(files) == 0 || len(others) == 0 {
		f.Fatal(files, err, others, err2)
	}
	for _, name := range append(files, others...) {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Read(b, "fuzz.pt")
		if err != nil {
			if errs.Of(err) == errs.Internal {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		p, err := e.Prompt(prompt.Concept, bundle, "<fuzz>")
		if err != nil {
			return // not finite
		}
		format := Diffusers
		if e.Second != nil {
			format = SDXL
		}
		var out bytes.Buffer
		if err := Write(&out, p, format, ""); err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
	})
}
