package text

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"slices"
	"testing"
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

func golden[T any](t testing.TB, path string) (v T) {
	t.Helper()
	if err := json.Unmarshal(gunzip(t, path), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func clipTokenizer(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := ParseTokenizer(gunzip(t, "testdata/clip.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestIDsEqualPythonsTokenizers(t *testing.T) {
	texts := golden[[]string](t, "testdata/strings.json.gz")
	if len(texts) < 2000 {
		t.Fatalf("%d strings", len(texts))
	}
	starter, err := LoadTokenizer("../starter/bundle/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, tok := range map[string]*Tokenizer{"clip": clipTokenizer(t), "starter": starter} {
		t.Run(name, func(t *testing.T) {
			want := golden[[][]int64](t, "testdata/"+name+"_ids.json.gz")
			wrong := 0
			for i, text := range texts {
				if got := tok.Encode(text, 0); !slices.Equal(got, want[i]) {
					if wrong++; wrong <= 5 {
						t.Errorf("%q: got %v, want %v", text, got, want[i])
					}
				}
			}
			t.Logf("%d of %d strings differ", wrong, len(texts))
		})
	}
}

func TestEncodeKeepsTheEndInsideTheWindow(t *testing.T) {
	tok := clipTokenizer(t)
	ids := tok.Encode("one two three four five six seven", 5)
	if len(ids) != 5 || ids[0] != tok.Start() || ids[4] != tok.End() {
		t.Errorf("got %v", ids)
	}
}

func TestDecodeReturnsTheWords(t *testing.T) {
	tok := clipTokenizer(t)
	const text = "a photo of a naïve café , 東京"
	if got := tok.Decode(tok.Encode(text, 0)); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
}

func TestUnknownComponentsAreRefusedByName(t *testing.T) {
	tests := map[string]string{
		`{"model":{"type":"Unigram"}}`:                                   `its model "Unigram" is not supported`,
		`{"model":{"type":"BPE"},"normalizer":{"type":"Precompiled"}}`:   `its normalizer "Precompiled" is not supported`,
		`{"model":{"type":"BPE"},"pre_tokenizer":{"type":"Metaspace"}}`:  `its pre-tokenizer "Metaspace" is not supported`,
		`{"model":{"type":"BPE"},"post_processor":{"type":"ByteLevel"}}`: `its post-processor "ByteLevel" is not supported`,
	}
	for file, want := range tests {
		if _, err := ParseTokenizer([]byte(file)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", file, err, want)
		}
	}
}

func FuzzTokenizer(f *testing.F) {
	tok := clipTokenizer(f)
	for _, s := range []string{"", "a photo", "<|endoftext|>", "\xff\xfe", "👩‍👩‍👧"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ids := tok.Encode(s, 77)
		if len(ids) < 2 || len(ids) > 77 || ids[0] != tok.Start() || ids[len(ids)-1] != tok.End() {
			t.Errorf("%q: %v", s, ids)
		}
		tok.Decode(ids)
	})
}

func FuzzParseTokenizer(f *testing.F) {
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]},"post_processor":{"type":"RobertaProcessing","cls":["s",1],"sep":["e",2]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tok, err := ParseTokenizer(b); err == nil {
			tok.Encode("a b c", 8)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	tok := clipTokenizer(b)
	for b.Loop() {
		tok.Encode("a photo of a person riding a bicycle.", 77)
	}
}
