package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/foretoken/foretoken/internal/errs"
)

func gunzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read[T any](t testing.TB, path string) (v T) {
	t.Helper()
	if err := json.Unmarshal(gunzip(t, path), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// open reads a tokenizer of testdata, or the starter's.
func open(t testing.TB, name string) *Tokenizer {
	t.Helper()
	if name == "starter" {
		tok, err := Load("../../starter/bundle/tokenizer.json")
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	tok, err := Parse(gunzip(t, "testdata/"+name+".json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// golden is what Python's tokenizers makes of the strings.
type golden struct {
	IDs      [][]int64   `json:"ids"`
	Offsets  [][]int     `json:"offsets"` // start and end of each token
	Decoded  []string    `json:"decoded"`
	Streamed [][]*string `json:"streamed"` // of every 20th; nil where Python's refuses
}

func TestIDsOffsetsAndTextEqualPythons(t *testing.T) {
	texts := append(read[[]string](t, "testdata/strings.json.gz"), read[[]string](t, "testdata/more.json.gz")...)
	if len(texts) < 2000 {
		t.Fatalf("%d strings", len(texts))
	}
	files, err := filepath.Glob("testdata/*.golden.json.gz")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".golden.json.gz")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compare(t, open(t, name), texts, read[golden](t, file))
		})
	}
}

func compare(t *testing.T, tok *Tokenizer, texts []string, golden golden) {
	if len(golden.IDs) != len(texts) || len(golden.Offsets) != len(texts) || len(golden.Decoded) != len(texts) {
		t.Fatalf("the golden file is of %d strings, not of %d", len(golden.IDs), len(texts))
	}
	wrong := 0
	differs := func(text string, got, want any) {
		if wrong++; wrong <= 5 {
			t.Errorf("%+q: got %+q, want %+q", text, got, want)
		}
	}
	for i, text := range texts {
		e, err := tok.Encode(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got := e.IDs(); !slices.Equal(got, golden.IDs[i]) {
			differs(text, got, golden.IDs[i])
			continue
		}
		if got := offsets(e.Tokens); !slices.Equal(got, golden.Offsets[i]) {
			differs(text, got, golden.Offsets[i])
		}
		if got := tok.Decode(golden.IDs[i], false); got != golden.Decoded[i] {
			differs(text, got, golden.Decoded[i])
		}
	}
	for i, want := range golden.Streamed {
		if want == nil {
			continue
		}
		ids := golden.IDs[i*20]
		stream := tok.Stream(false)
		for k, id := range ids {
			if got := stream.Next(id); got != deref(want[k]) {
				differs(texts[i*20], got, deref(want[k]))
			}
		}
	}
	t.Logf("%d strings, %d differences", len(texts), wrong)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func offsets(tokens []Token) []int {
	flat := make([]int, 0, 2*len(tokens))
	for _, t := range tokens {
		flat = append(flat, t.Start, t.End)
	}
	return flat
}

// goldenCase is what Python's makes of a small tokenizer that shows one component.
type goldenCase struct {
	Name      string          `json:"name"`
	Tokenizer json.RawMessage `json:"tokenizer"`
	Texts     []string        `json:"texts"` // null: the first of more.json.gz
	Pairs     bool            `json:"pairs"` // each text with the next
	IDs       [][]int64       `json:"ids"`
	Offsets   [][]int         `json:"offsets"`
	Words     [][]int         `json:"words"`
	Segments  [][]int64       `json:"segments"`
	Mask      [][]int64       `json:"mask"`
	Special   [][]int64       `json:"special"`
	Overflow  [][][]int64     `json:"overflow"`
	Decoded   []string        `json:"decoded"`
}

func TestEachComponentDoesAsPythons(t *testing.T) {
	hard := read[[]string](t, "testdata/more.json.gz")
	cases := read[[]goldenCase](t, "testdata/cases.json.gz")
	if len(cases) < 90 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			tok, err := Parse(c.Tokenizer)
			if err != nil {
				t.Fatal(err)
			}
			if c.Texts == nil {
				c.Texts = hard
			}
			if len(c.IDs) == 0 || len(c.IDs) > len(c.Texts) {
				t.Fatalf("%d results", len(c.IDs))
			}
			for i := range c.IDs {
				c.check(t, tok, i)
			}
		})
	}
}

func (c *goldenCase) check(t *testing.T, tok *Tokenizer, i int) {
	e, err := tok.Encode(c.Texts[i])
	if c.Pairs {
		e, err = tok.EncodePair(c.Texts[i], c.Texts[i+1])
	}
	if err != nil {
		t.Fatal(err)
	}
	same := func(what string, got, want any) {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+q: %s: got %v, want %v", c.Texts[i], what, got, want)
		}
	}
	var words []int
	var segments, special []int64
	for _, token := range e.Tokens {
		words, segments = append(words, token.Word), append(segments, token.Segment)
		special = append(special, 0)
		if token.Special {
			special[len(special)-1] = 1
		}
	}
	var overflow [][]int64
	for _, tokens := range e.Overflow {
		overflow = append(overflow, (&Encoding{Tokens: tokens}).IDs())
	}
	same("ids", e.IDs(), c.IDs[i])
	same("offsets", offsets(e.Tokens), c.Offsets[i])
	same("words", append([]int{}, words...), c.Words[i])
	same("segments", append([]int64{}, segments...), c.Segments[i])
	same("mask", e.Mask(), c.Mask[i])
	same("special", append([]int64{}, special...), c.Special[i])
	same("overflow", append([][]int64{}, overflow...), c.Overflow[i])
	same("decoded", tok.Decode(c.IDs[i], false), c.Decoded[i])
}

func TestAStreamHoldsBackBytesOfIncompleteCharacters(t *testing.T) {
	for _, name := range []string{"clip", "gpt2", "llama3", "gemma", "llama2", "t5", "wordpiece"} {
		t.Run(name, func(t *testing.T) {
			tok := open(t, name)
			const text = "a 👩‍👩‍👧‍👦 naïve 東京􏿽 end"
			e, err := tok.Encode(text)
			if err != nil {
				t.Fatal(err)
			}
			stream := tok.Stream(false)
			var out strings.Builder
			for _, id := range e.IDs() {
				piece := stream.Next(id)
				if strings.Contains(piece, "\uFFFD") {
					t.Errorf("the piece %q", piece)
				}
				out.WriteString(piece)
			}
			out.WriteString(stream.Flush())
			if want := tok.Decode(e.IDs(), false); out.String() != want {
				t.Errorf("got %q, want %q", out.String(), want)
			}
		})
	}
}

func TestAStreamsEndShowsWhatWasHeldBack(t *testing.T) {
	tok := open(t, "gpt2")
	e, err := tok.Encode("ok 👍")
	if err != nil {
		t.Fatal(err)
	}
	stream := tok.Stream(false)
	got := ""
	for _, id := range e.IDs()[:len(e.Tokens)-1] {
		got += stream.Next(id)
	}
	if end := stream.Flush(); got != "ok " && got != "ok" || !strings.Contains(end, "\uFFFD") {
		t.Errorf("got %q and then %q", got, end)
	}
}

func TestAStreamGoesOnAfterBrokenBytes(t *testing.T) {
	tok := open(t, "gemma")
	stream := tok.Stream(false)
	got := ""
	for _, token := range []string{"<0xC3>", "<0xA9>", "<0xC3>", "a", "b"} { // é, half of one, and what follows
		id, ok := tok.ID(token)
		if !ok {
			t.Fatalf("no token %q", token)
		}
		got += stream.Next(id)
	}
	if got += stream.Flush(); got != "é\uFFFDab" {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsNotKnownIsRefusedByName(t *testing.T) {
	tests := map[string]string{
		`{}`:                          `it has no model`,
		`{"model":{"type":"RNN"}}`:    `its model "RNN" is not supported`,
		`{"normalizer":{"type":"X"}}`: `its normalizer "X" is not supported`,
		`{"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Y"}]}}`:                                                                                     `normalizer Sequence: its normalizer "Y" is not supported`,
		`{"pre_tokenizer":{"type":"UnicodeScripts"}}`:                                                                                                                        `its pre-tokenizer "UnicodeScripts" is not supported`,
		`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"a"},"behavior":"Sideways"}}`:                                                                                   `pre-tokenizer Split: its split behavior "Sideways" is not supported`,
		`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"[a[b]]"},"behavior":"Removed"}}`:                                                                               `pre-tokenizer Split: its pattern "[a[b]]": a set within a set`,
		`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"` + strings.Repeat("a", 3000) + `"},"behavior":"Removed"}}`:                                                    `pre-tokenizer Split: its pattern "` + strings.Repeat("a", 40) + `…": 3000 bytes, limit 2048`,
		`{"normalizer":{"type":"Sequence","normalizers":[` + strings.TrimSuffix(strings.Repeat(`{"type":"Replace","pattern":{"Regex":"a"},"content":""},`, 33), ",") + `]}}`: `normalizer Sequence: normalizer Replace: it has more than 32 regular expressions`,
		`{"post_processor":{"type":"Z"}}`:                            `its post-processor "Z" is not supported`,
		`{"post_processor":{"type":"BertProcessing"}}`:               `post-processor BertProcessing: it lacks sep or cls`,
		`{"decoder":{"type":"CTC"}}`:                                 `its decoder "CTC" is not supported`,
		`{"truncation":{"max_length":3,"stride":5}}`:                 `truncation to 3 tokens with a stride of 5: at most 131072, and the stride below it`,
		`{"padding":{"strategy":{"Fixed":1000000000000}}}`:           `padding to 1000000000000 tokens, limit 131072`,
		`{"model":{"type":"BPE","dropout":0.1}}`:                     `model BPE: its dropout of 0.1 is not supported: ids would be random`,
		`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}`:  `model BPE: its merge 0 of "a" and "b" is of tokens that the vocabulary lacks`,
		`{"model":{"type":"WordLevel","vocab":{"a":-1}}}`:            `model WordLevel: the token "a" has the id -1, which is out of range`,
		`{"model":{"type":"Unigram","vocab":[["a",-1]],"unk_id":7}}`: `model Unigram: its unk_id 7 is not in the vocabulary of 1`,
		`{"normalizer":` + strings.Repeat(`{"type":"Sequence","normalizers":[`, 10) + `null` + strings.Repeat(`]}`, 10) + `}`: strings.Repeat("normalizer Sequence: ", 9) + "its normalizer lies within more than 8 sequences",
	}
	for file, want := range tests {
		if !strings.Contains(file, `"model"`) && file != `{}` {
			file = `{"model":{"type":"WordLevel"},` + file[1:]
		}
		if _, err := Parse([]byte(file)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", file, err, want)
		}
	}
}

func TestCharactersWithoutATokenAreAnErrorWhereTheFileHasNoneForThem(t *testing.T) {
	for name, model := range map[string]string{
		"WordLevel": `{"type":"WordLevel","vocab":{"a":0}}`,
		"WordPiece": `{"type":"WordPiece","vocab":{"a":0}}`,
		"Unigram":   `{"type":"Unigram","vocab":[["a",0]]}`,
		"BPE":       `{"type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"?"}`,
	} {
		tok, err := Parse([]byte(`{"model":` + model + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if e, err := tok.Encode("a"); err != nil || len(e.Tokens) != 1 {
			t.Errorf("%s: got %v, %v", name, e, err)
		}
		if e, err := tok.Encode("b"); errs.Of(err) != errs.Invalid {
			t.Errorf("%s: got %v, %v", name, e, err)
		}
	}
}

func TestAnExpressionThatTakesForeverIsAnError(t *testing.T) {
	tok, err := Parse([]byte(`{"model":{"type":"WordLevel","vocab":{"a":0}},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(?=a)(a+)+b"},"behavior":"Isolated"}}`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = tok.Encode(strings.Repeat("a", 60))
	if err == nil || !strings.Contains(err.Error(), "takes more than 1s on this text") {
		t.Errorf("got %v", err)
	}
}

// The fuzz targets hold that nothing panics, and that ids lead back to tokens.
func FuzzEncode(f *testing.F) {
	var toks []*Tokenizer
	for _, name := range []string{"siglip", "llama3", "gemma", "wordpiece", "roberta"} {
		toks = append(toks, open(f, name))
	}
	for _, s := range []string{"", "a photo", "<|endoftext|>", "\xff\xfe", "👩‍👩‍👧", "e\u0301  \n\n<mask>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, tok := range toks {
			e, err := tok.Encode(s)
			if err != nil {
				t.Fatal(err)
			}
			n := utf8.RuneCountInString(s)
			stream := tok.Stream(true)
			for _, token := range e.Tokens {
				if text, ok := tok.Token(token.ID); !ok || token.Start > token.End || token.End > n {
					t.Errorf("%q: token %+v is %q", s, token, text)
				}
				stream.Next(token.ID)
			}
			stream.Flush()
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},"post_processor":{"type":"RobertaProcessing","cls":["s",1],"sep":["e",2]}}`))
	f.Add([]byte(`{"model":{"type":"Unigram","unk_id":0,"vocab":[["?",0],["▁a",-1],["b",-2]]},"pre_tokenizer":{"type":"Metaspace","replacement":"▁"},"decoder":{"type":"Metaspace","replacement":"▁"}}`))
	f.Add([]byte(`{"model":{"type":"WordPiece","unk_token":"?","vocab":{"?":0,"a":1,"##b":2}},"normalizer":{"type":"Replace","pattern":{"Regex":"(?<!c)[^\\s]++"},"content":"x"},"pre_tokenizer":{"type":"Split","pattern":{"String":"b"},"behavior":"MergedWithNext","invert":true},"decoder":{"type":"Strip","content":"a","start":1,"stop":2}}`))
	f.Add([]byte(`{"added_tokens":[{"id":7,"content":"b c","lstrip":true,"rstrip":true,"single_word":true}],"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":3}},"truncation":{"max_length":3,"stride":1,"strategy":"LongestFirst","direction":"Left"},"padding":{"strategy":{"Fixed":8},"direction":"Left","pad_id":0,"pad_token":"p"},"normalizer":{"type":"Precompiled","precompiled_charsmap":"BAAAAAAAAABhAA=="}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, err := Parse(b)
		if err != nil {
			return
		}
		e, err := tok.Encode(" a b, cab é\u0301 ab\n")
		if err == nil {
			tok.Decode(e.IDs(), true)
		}
		if e, err = tok.EncodePair("a b c", "b"); err == nil {
			tok.Decode(e.IDs(), false)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, name := range []string{"clip", "siglip", "gemma", "wordpiece"} {
		tok := open(b, name)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tok.Encode("a photo of a person riding a bicycle."); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
