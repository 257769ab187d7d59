package text

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/text/tokenizer"
)

// clipFolder is the starter's tokenizer in CLIP's first form, vocab.json and merges.txt.
func clipFolder(t *testing.T, config string) string {
	t.Helper()
	data, err := os.ReadFile("../starter/bundle/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Added []struct {
			ID      int64  `json:"id"`
			Content string `json:"content"`
		} `json:"added_tokens"`
		Model struct {
			Vocab  map[string]int64  `json:"vocab"`
			Merges []json.RawMessage `json:"merges"`
		} `json:"model"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	for _, a := range f.Added {
		f.Model.Vocab[a.Content] = a.ID
	}
	merges := "#version: 0.2\n"
	for _, raw := range f.Model.Merges {
		var pair []string
		var line string
		if json.Unmarshal(raw, &pair) == nil {
			line = strings.Join(pair, " ")
		} else if err := json.Unmarshal(raw, &line); err != nil {
			t.Fatal(err)
		}
		merges += line + "\n"
	}
	vocabulary, err := json.Marshal(f.Model.Vocab)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"vocab.json": string(vocabulary), "merges.txt": merges, "tokenizer_config.json": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestVocabularyAndMergesAreTheTokenizer(t *testing.T) {
	want := starterTokenizer(t)
	got, err := LoadTokenizerFolder(clipFolder(t, `{"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": {"content": "<|startoftext|>"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "a photo of a Red apple", "it's  Ünïcode — 123!", "<|endoftext|> twice", "人 и мир"} {
		a, err := got.Encode(text, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := want.Encode(text, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a, b) {
			t.Errorf("%q: %v, tokenizer.json gives %v", text, a, b)
		}
	}
	if got.Window() != 77 || got.Pad() != want.Start() {
		t.Errorf("window %d, pad %d", got.Window(), got.Pad())
	}
}

func TestTokenizerFoldersThatAreRefused(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"another class", `{"tokenizer_class": "T5Tokenizer"}`, "T5Tokenizer without tokenizer.json"},
		{"a padding that is not there", `{"pad_token": "red apple"}`, `lacks "red apple"`},
		{"an end that is not there", `{"eos_token": "</s>"}`, `lacks "</s>"`},
		{"an added token of another number", `{"added_tokens_decoder": {"3": {"content": "<|endoftext|>"}}}`, "number 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := LoadTokenizerFolder(clipFolder(t, c.config)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := LoadTokenizerFolder(t.TempDir()); err == nil || !strings.Contains(err.Error(), "neither tokenizer.json nor vocab.json") {
		t.Fatalf("%v", err)
	}
}

// FuzzCLIPVocabulary: no vocabulary, merges or configuration makes a tokenizer panic.
func FuzzCLIPVocabulary(f *testing.F) {
	f.Add(`{"a": 0, "a</w>": 1, "c": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}`, "#version: 0.2\na c", `{"pad_token": {"content": "a"}}`)
	f.Fuzz(func(t *testing.T, vocab, merges, config string) {
		var vocabulary map[string]int64
		c := tokenizerConfig{Start: specialToken{"<|startoftext|>"}, End: specialToken{"<|endoftext|>"}}
		if json.Unmarshal([]byte(vocab), &vocabulary) != nil || json.Unmarshal([]byte(config), &c) != nil {
			return
		}
		file, err := clipTokenizerJSON(vocabulary, mergeLines(merges), c)
		if err != nil {
			return
		}
		tok, err := tokenizer.Parse(file)
		if err != nil {
			return
		}
		wrapped, err := wrap(tok, "fuzz")
		if err != nil {
			return
		}
		if _, err := wrapped.Encode("a cat", 8); err != nil {
			t.Log(err)
		}
	})
}
