package text

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/text/tokenizer"
)

// LoadTokenizerFolder reads a folder as diffusers lays it out: a tokenizer.json or, where there is
// none, CLIP's vocab.json and merges.txt; and a tokenizer_config.json, whose padding token and
// model_max_length count.
func LoadTokenizerFolder(dir string) (*Tokenizer, error) {
	config, err := readTokenizerConfig(filepath.Join(dir, "tokenizer_config.json"))
	if err != nil {
		return nil, err
	}
	t, err := LoadTokenizer(filepath.Join(dir, "tokenizer.json"))
	if errors.Is(err, fs.ErrNotExist) {
		t, err = loadCLIPVocabulary(dir, config)
	}
	if err != nil {
		return nil, err
	}
	if t.pad, err = t.idOf(config.Pad.Content); err != nil {
		return nil, errs.New(errs.Of(err), "tokenizer %s: pad_token: %w", dir, err)
	}
	if config.MaxLength > 0 && config.MaxLength < 1<<20 { // transformers writes 1e30 for no limit
		t.window = int(config.MaxLength)
	}
	return t, nil
}

// specialToken is a token of a tokenizer_config.json: a string, or an object that holds one.
type specialToken struct{ Content string }

func (s *specialToken) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &s.Content) == nil {
		return nil
	}
	var o struct {
		Content string `json:"content"`
	}
	err := json.Unmarshal(data, &o)
	s.Content = o.Content
	return err
}

// tokenizerConfig is what is read of tokenizer_config.json.
type tokenizerConfig struct {
	Class     string                  `json:"tokenizer_class"`
	MaxLength float64                 `json:"model_max_length"`
	Start     specialToken            `json:"bos_token"`
	End       specialToken            `json:"eos_token"`
	Pad       specialToken            `json:"pad_token"`
	Added     map[string]specialToken `json:"added_tokens_decoder"`
}

func readTokenizerConfig(path string) (tokenizerConfig, error) {
	c := tokenizerConfig{Start: specialToken{"<|startoftext|>"}, End: specialToken{"<|endoftext|>"}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, errs.New(errs.Invalid, "%s: %w", path, err)
	}
	return c, nil
}

// loadCLIPVocabulary reads CLIP's first form, a vocabulary and its merges, as the tokenizer.json that
// transformers makes of it.
func loadCLIPVocabulary(dir string, c tokenizerConfig) (*Tokenizer, error) {
	var vocabulary map[string]int64
	data, err := os.ReadFile(filepath.Join(dir, "vocab.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.Invalid, "tokenizer %s: neither tokenizer.json nor vocab.json is there", dir)
	}
	if err != nil {
		return nil, err
	}
	if c.Class != "" && !strings.HasPrefix(c.Class, "CLIPTokenizer") {
		return nil, errs.New(errs.Unsupported, "tokenizer %s: a %s without tokenizer.json; of its kind only CLIPTokenizer is read from vocab.json: save it with transformers' fast tokenizer", dir, c.Class)
	}
	if err := json.Unmarshal(data, &vocabulary); err != nil {
		return nil, errs.New(errs.Invalid, "tokenizer %s: vocab.json: %w", dir, err)
	}
	merges, err := os.ReadFile(filepath.Join(dir, "merges.txt"))
	if err != nil {
		return nil, errs.New(errs.Invalid, "tokenizer %s: %w", dir, err)
	}
	file, err := clipTokenizerJSON(vocabulary, mergeLines(string(merges)), c)
	if err != nil {
		return nil, errs.New(errs.Or(err, errs.Invalid), "tokenizer %s: %w", dir, err)
	}
	t, err := tokenizer.Parse(file)
	if err != nil {
		return nil, errs.New(errs.Of(err), "tokenizer %s: %w", dir, err)
	}
	return wrap(t, dir)
}

// mergeLines are the pairs of a merges.txt, without its line of the version.
func mergeLines(file string) []string {
	lines := strings.Split(strings.ReplaceAll(file, "\r\n", "\n"), "\n")
	return slices.DeleteFunc(lines, func(l string) bool { return l == "" || strings.HasPrefix(l, "#version") })
}

// clipTokenizerJSON writes a tokenizer.json for CLIP's vocabulary.
func clipTokenizerJSON(vocabulary map[string]int64, merges []string, c tokenizerConfig) ([]byte, error) {
	added := map[string]bool{c.Start.Content: true, c.End.Content: true}
	if c.Pad.Content != "" { // in SDXL "!", which so is another token than that of the text "!"
		added[c.Pad.Content] = true
	}
	for id, token := range c.Added {
		if n, err := strconv.ParseInt(id, 10, 64); err != nil || vocabulary[token.Content] != n {
			return nil, errs.New(errs.Unsupported, "tokenizer_config.json: added token %q is number %s, vocab.json has another", token.Content, id)
		}
		added[token.Content] = true
	}
	type object = map[string]any
	var tokens []object
	for token := range added {
		id, ok := vocabulary[token]
		if !ok {
			return nil, errs.New(errs.Invalid, "vocab.json lacks %q", token)
		}
		tokens = append(tokens, object{"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
	}
	slices.SortFunc(tokens, func(a, b object) int { return int(a["id"].(int64) - b["id"].(int64)) })
	return json.Marshal(object{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": tokens,
		"normalizer": object{"type": "Sequence", "normalizers": []object{
			{"type": "NFC"}, {"type": "Replace", "pattern": object{"Regex": `\s+`}, "content": " "}, {"type": "Lowercase"},
		}},
		"pre_tokenizer": object{"type": "Sequence", "pretokenizers": []object{
			{"type": "Split", "pattern": object{"Regex": `'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`}, "behavior": "Removed", "invert": true},
			{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		}},
		"post_processor": object{
			"type": "RobertaProcessing", "trim_offsets": false, "add_prefix_space": false,
			"sep": []any{c.End.Content, vocabulary[c.End.Content]}, "cls": []any{c.Start.Content, vocabulary[c.Start.Content]},
		},
		"decoder": object{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model": object{
			"type": "BPE", "dropout": nil, "unk_token": c.End.Content, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges,
		},
	})
}
