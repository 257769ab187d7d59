package tokenizer

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/foretoken/foretoken/internal/errs"
)

// decoder turns tokens towards text; what it returns is joined.
type decoder func(tokens []string) []string

var decoders = map[string]constructor[decoder]{
	"BPEDecoder":   newBPEDecoder,
	"ByteFallback": as[decoder](joinBytes),
	"ByteLevel":    as[decoder](decodeBytes),
	"Fuse":         as[decoder](fuse),
	"Metaspace":    newMetaspaceDecoder,
	"Replace":      newReplaceDecoder,
	"Strip":        newStripDecoder,
	"WordPiece":    newWordPieceDecoder,
}

func init() { decoders["Sequence"] = newDecoderSequence } // apart, as it refers to the table

func newDecoderSequence(c config) (decoder, error) {
	var s struct {
		Decoders []json.RawMessage `json:"decoders"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	all, err := buildAll(decoders, "decoder", c, s.Decoders)
	return func(tokens []string) []string {
		for _, decode := range all {
			if decode != nil {
				tokens = decode(tokens)
			}
		}
		return tokens
	}, err
}

// mapped makes a decoder that changes each token on its own.
func mapped(f func(i int, token string) string) decoder {
	return func(tokens []string) []string {
		out := make([]string, len(tokens))
		for i, t := range tokens {
			out[i] = f(i, t)
		}
		return out
	}
}

func fuse(tokens []string) []string { return []string{strings.Join(tokens, "")} }

// newBPEDecoder ends words where a token has the suffix.
func newBPEDecoder(c config) (decoder, error) {
	s := struct {
		Suffix string `json:"suffix"`
	}{"</w>"}
	err := c.into(&s)
	return func(tokens []string) []string {
		return mapped(func(i int, token string) string {
			space := " "
			if i == len(tokens)-1 {
				space = ""
			}
			return strings.ReplaceAll(token, s.Suffix, space)
		})(tokens)
	}, err
}

// joinBytes reads runs of tokens like "<0x61>" as UTF-8; if a run isn't, each of its bytes is
// U+FFFD.
func joinBytes(tokens []string) []string {
	var out []string
	var run []byte
	flush := func() {
		if len(run) == 0 {
			return
		}
		if utf8.Valid(run) {
			out = append(out, string(run))
		} else {
			out = append(out, strings.Repeat("\uFFFD", len(run)))
		}
		run = run[:0]
	}
	for _, t := range tokens {
		if b, ok := byteToken(t); ok {
			run = append(run, b)
			continue
		}
		flush()
		out = append(out, t)
	}
	flush()
	return out
}

func byteToken(t string) (byte, bool) {
	if len(t) != len("<0x61>") || !strings.HasPrefix(t, "<0x") || t[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(t[3:5], 16, 8)
	return byte(b), err == nil
}

func newMetaspaceDecoder(c config) (decoder, error) {
	m, err := readMetaspace(c)
	return mapped(func(i int, token string) string {
		if i == 0 && m.scheme != "never" {
			return strings.ReplaceAll(token, m.sign, "")
		}
		return strings.ReplaceAll(token, m.sign, " ")
	}), err
}

func newReplaceDecoder(c config) (decoder, error) {
	find, content, err := readReplace(c)
	return mapped(func(_ int, token string) string {
		if token == "" {
			return ""
		}
		var out strings.Builder
		last := 0
		for _, p := range find(token) {
			out.WriteString(token[last:p.start] + content)
			last = p.end
		}
		out.WriteString(token[last:])
		return out.String()
	}), err
}

// newStripDecoder takes up to so many of a character off each token's ends.
func newStripDecoder(c config) (decoder, error) {
	var s struct {
		Content string `json:"content"`
		Start   int    `json:"start"`
		Stop    int    `json:"stop"`
	}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	if utf8.RuneCountInString(s.Content) != 1 {
		return nil, errs.New(errs.Invalid, "its content %q is not one character", s.Content)
	}
	return mapped(func(_ int, token string) string {
		for i := 0; i < s.Start && strings.HasPrefix(token, s.Content); i++ {
			token = token[len(s.Content):]
		}
		for i := 0; i < s.Stop && strings.HasSuffix(token, s.Content); i++ {
			token = token[:len(token)-len(s.Content)]
		}
		return token
	}), nil
}

func newWordPieceDecoder(c config) (decoder, error) {
	s := struct {
		Prefix  string `json:"prefix"`
		Cleanup bool   `json:"cleanup"`
	}{"##", true}
	err := c.into(&s)
	return mapped(func(i int, token string) string {
		if i > 0 {
			var continues bool
			if token, continues = strings.CutPrefix(token, s.Prefix); !continues {
				token = " " + token
			}
		}
		if s.Cleanup {
			token = cleanUp(token)
		}
		return token
	}), err
}

// artefacts are what splitting leaves in English text, and what stood there, in the order in
// which they are looked for.
var artefacts = [][2]string{
	{" .", "."},
	{" ?", "?"},
	{" !", "!"},
	{" ,", ","},
	{" ' ", "'"},
	{" n't", "n't"},
	{" 'm", "'m"},
	{" do not", " don't"},
	{" 's", "'s"},
	{" 've", "'ve"},
	{" 're", "'re"},
}

func cleanUp(s string) string {
	for _, a := range artefacts {
		s = strings.ReplaceAll(s, a[0], a[1])
	}
	return s
}
