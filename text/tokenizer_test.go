package text

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func starterTokenizer(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := LoadTokenizer("../starter/bundle/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func tokenizerOf(t *testing.T, file string) (*Tokenizer, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadTokenizer(path)
}

const words = `"model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"</s>":1,"a":2,"b":3,"c":4}},"pre_tokenizer":{"type":"Whitespace"}`

func TestEncodeKeepsTheEndInsideTheWindow(t *testing.T) {
	tok := starterTokenizer(t)
	ids, err := tok.Encode("one two three four five six seven", 5)
	if err != nil || len(ids) != 5 || ids[0] != tok.Start() || ids[4] != tok.End() {
		t.Errorf("got %v, %v", ids, err)
	}
}

func TestEncodeTakesTheFilesOwnLengthAndEnds(t *testing.T) {
	tok, err := tokenizerOf(t, `{`+words+`,"truncation":{"max_length":3,"stride":0,"strategy":"LongestFirst"},
		"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}}],
		"pair":[],"special_tokens":{"</s>":{"id":"</s>","ids":[1],"tokens":["</s>"]}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	for window, want := range map[int][]int64{0: {2, 3, 1}, 64: {2, 3, 1}, 2: {2, 1}} {
		if got, err := tok.Encode("a b c", window); err != nil || !slices.Equal(got, want) {
			t.Errorf("window %d: got %v, %v, want %v", window, got, err, want)
		}
	}
	if tok.ContextStart() != 0 || tok.End() != 1 || tok.Pad() != 1 {
		t.Errorf("context starts at %d, end %d, pad %d", tok.ContextStart(), tok.End(), tok.Pad())
	}
}

func TestATokenizerWithoutAnEndIsRefused(t *testing.T) {
	if _, err := tokenizerOf(t, `{`+words+`}`); err == nil || !strings.Contains(err.Error(), "puts no token behind a text") {
		t.Errorf("got %v", err)
	}
}
