package decode

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/text/tokenizer"
)

// golden is what bench/reference/decoding.py wrote.
type golden struct {
	Table     [][][]float32 // by the text's length, modulo its own, and the last token
	Openings  [][]int64
	Generated []struct {
		Config json.RawMessage
		IDs    [][]int64
	}
	Scored []struct {
		Config  json.RawMessage
		Opening []int64
		Scores  []*float32
	}
}

func readGolden(t *testing.T) golden {
	t.Helper()
	f, err := os.Open("testdata/golden.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.NewDecoder(z).Decode(&g); err != nil {
		t.Fatal(err)
	}
	return g
}

// tableModel looks logits up by the last token.
type tableModel struct {
	table [][][]float32
	rows  [][]int64
	steps int
	at    func(step int)
}

func (m *tableModel) logits() []float32 {
	var all []float32
	for _, r := range m.rows {
		all = append(all, m.table[(len(r)-1)%len(m.table)][r[len(r)-1]]...)
	}
	m.steps++
	if m.at != nil {
		m.at(m.steps)
	}
	return all
}

func (m *tableModel) Start(context.Context) ([]float32, error) { return m.logits(), nil }

func (m *tableModel) Next(_ context.Context, from []int, tokens []int64) ([]float32, error) {
	rows := make([][]int64, len(from))
	for i, f := range from {
		rows[i] = append(slices.Clone(m.rows[f]), tokens[i])
	}
	m.rows = rows
	return m.logits(), nil
}

// vocabulary is a tokenizer of the words, w0 and on unless they are named; the first two are special.
func vocabulary(t testing.TB, n int, named map[int]string) *tokenizer.Tokenizer {
	t.Helper()
	vocab, added := map[string]int{}, []string{}
	for i := range n {
		word := fmt.Sprintf("w%d", i)
		if named[i] != "" {
			word = named[i]
		}
		vocab[word] = i
		if i < 2 {
			added = append(added, fmt.Sprintf(`{"id":%d,"content":%q,"special":true}`, i, word))
		}
	}
	words, err := json.Marshal(vocab)
	if err != nil {
		t.Fatal(err)
	}
	decoder := "null"
	if named != nil {
		decoder = `{"type":"Fuse"}`
	}
	tok, err := tokenizer.Parse(fmt.Appendf(nil, `{"added_tokens":[%s],"decoder":%s,"model":{"type":"WordLevel","vocab":%s,"unk_token":"w0"}}`, strings.Join(added, ","), decoder, words))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// goldenConfig lays a case over what all have.
func goldenConfig(t *testing.T, given json.RawMessage) Options {
	t.Helper()
	all := map[string]json.RawMessage{"eos_token_id": json.RawMessage("[2,3]"), "pad_token_id": json.RawMessage("0")}
	if err := json.Unmarshal(given, &all); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ReadConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	return c.Options
}

// TestTextsAreThoseOfTransformers makes the texts of each configuration, all in one batch, of which each has to be what
// it is alone.
func TestTextsAreThoseOfTransformers(t *testing.T) {
	g := readGolden(t)
	tok := vocabulary(t, 40, nil)
	m := &tableModel{table: g.Table}
	var rs []Request
	for _, c := range g.Generated {
		o := goldenConfig(t, c.Config)
		for _, opening := range g.Openings {
			m.rows = append(m.rows, opening)
			rs = append(rs, Request{Opening: opening, Options: o})
		}
	}
	got, err := Generate(t.Context(), m, tok, rs)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range g.Generated {
		for j, want := range c.IDs {
			r := got[i*len(g.Openings)+j]
			if !slices.Equal(r.Tokens, want) {
				t.Errorf("%s behind %v: got %v, want %v", c.Config, g.Openings[j], r.Tokens, want)
			}
			if ended := slices.Contains(rs[i*len(g.Openings)+j].Options.Ends, want[len(want)-1]); ended != (r.Finish == Stopped) {
				t.Errorf("%s: %v finished by %q", c.Config, want, r.Finish)
			}
		}
	}
}

// TestScoresAreThoseOfTransformers compares what tokens are drawn by.
func TestScoresAreThoseOfTransformers(t *testing.T) {
	g := readGolden(t)
	for _, c := range g.Scored {
		o := goldenConfig(t, c.Config)
		o.Sample = true
		r := Request{Opening: c.Opening, Options: o}
		scores := slices.Clone(g.Table[0][c.Opening[len(c.Opening)-1]])
		for _, p := range r.processors(len(c.Opening) + defaultTokens) {
			p(c.Opening, scores)
		}
		for i, want := range c.Scores {
			if (want == nil) != math.IsInf(float64(scores[i]), -1) || want != nil && math.Abs(float64(scores[i]-*want)) > 1e-5 {
				t.Errorf("%s behind %v: token %d scores %g, want %v", c.Config, c.Opening, i, scores[i], want)
				break
			}
		}
	}
}

// TestTokensAreDrawnByTheirProbability draws one token often, and the first two of beams.
func TestTokensAreDrawnByTheirProbability(t *testing.T) {
	g := readGolden(t)
	tok := vocabulary(t, 40, nil)
	o := Options{Sample: true, Temperature: 2, TopK: 6, MaxNewTokens: 1}
	want := slices.Clone(g.Table[0][1])
	for _, p := range (Request{Opening: []int64{1}, Options: o}).processors(2) {
		p([]int64{1}, want)
	}
	const n = 4000
	m := &tableModel{table: g.Table}
	rs := make([]Request, n)
	for i := range rs {
		o.Seed = uint64(i)
		rs[i] = Request{Opening: []int64{1}, Options: o}
		m.rows = append(m.rows, []int64{1})
	}
	got, err := Generate(t.Context(), m, tok, rs)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[int64]float64{}
	for _, r := range got {
		counts[r.Tokens[0]]++
	}
	for i, p := range softmax(want) {
		if sd := math.Sqrt(p * (1 - p) / n); math.Abs(counts[int64(i)]/n-p) > 4*sd {
			t.Errorf("token %d came in %g of the draws, its probability is %g", i, counts[int64(i)]/n, p)
		}
	}
	m.rows = m.rows[:n]
	again, err := Generate(t.Context(), &tableModel{table: g.Table, rows: slices.Repeat([][]int64{{1}}, n)}, tok, rs)
	if err != nil || !slices.EqualFunc(got, again, func(a, b Result) bool { return slices.Equal(a.Tokens, b.Tokens) }) {
		t.Errorf("the same seeds drew otherwise (%v)", err)
	}
}

// TestDrawingBeams draws continuations without putting back: the likeliest is among two of them as often as it
// should be.
func TestDrawingBeams(t *testing.T) {
	b := &beams{chooser: chooser{Request: Request{Options: Options{Beams: 2, Sample: true}}}}
	scores := []float32{float32(math.Log(0.5)), float32(math.Log(0.3)), float32(math.Log(0.2))}
	const n = 20000
	first, second := 0.0, 0.0
	for seed := range n {
		b.Options.Seed = uint64(seed)
		b.draw = newBeams(b.chooser).draw
		got := b.pick(scores, 2)
		if got[0] == 0 {
			first++
		}
		if got[1] == 0 {
			second++
		}
	}
	want := 0.3*0.5/0.7 + 0.2*0.5/0.8 // the first of another kind, then it
	if math.Abs(first/n-0.5) > 0.015 || math.Abs(second/n-want) > 0.015 {
		t.Errorf("it came first in %g and second in %g of the draws, want 0.5 and %g", first/n, second/n, want)
	}
}

// script is a model that says the given tokens, whatever it is told.
func script(n int, tokens ...int64) *tableModel {
	table := make([][][]float32, len(tokens)+1)
	for i := range table {
		row := make([]float32, n)
		if i < len(tokens) {
			row[tokens[i]] = 10
		}
		table[i] = slices.Repeat([][]float32{row}, n)
	}
	return &tableModel{table: table, rows: [][]int64{{1}}}
}

// TestStopStrings has them within a token, across several, and begun but not ended.
func TestStopStrings(t *testing.T) {
	words := map[int]string{2: "</s>", 3: "a cat", 4: " on", 5: " a", 6: " mat", 7: ".", 8: "\n", 9: "é", 10: " o"}
	tok := vocabulary(t, 12, words)
	for _, c := range []struct {
		name   string
		tokens []int64
		stop   []string
		text   string
		pieces []string
		finish Finish
	}{
		{"none", []int64{3, 4, 5, 6, 2}, nil, "a cat on a mat", []string{"a cat", " on", " a", " mat"}, Stopped},
		{"within a token", []int64{3, 4, 5, 6, 2}, []string{"n"}, "a cat o", []string{"a cat", " o"}, Stopped},
		{"across tokens", []int64{3, 4, 5, 6, 2}, []string{"on a m"}, "a cat ", []string{"a cat", " "}, Stopped},
		{"the first of several", []int64{3, 4, 5, 6, 2}, []string{"mat", "at on"}, "a c", []string{"a c"}, Stopped},
		{"begun, then not", []int64{3, 4, 4, 6, 2}, []string{"on a"}, "a cat on on mat", []string{"a cat", " ", "on ", "on mat"}, Stopped},
		{"begun at the end", []int64{3, 4, 5, 2}, []string{"on a mat"}, "a cat on a", []string{"a cat", " ", "on a"}, Stopped},
		{"at the front", []int64{8, 3, 2}, []string{"\n"}, "", nil, Stopped},
		{"white space at the front", []int64{8, 5, 6, 2}, nil, "a mat", []string{"a", " mat"}, Stopped},
		{"no end", []int64{3, 4, 5, 6, 7}, []string{"dog"}, "a cat on a mat.", []string{"a cat", " on", " a", " mat", "."}, Cut},
		{"a character of two bytes", []int64{9, 9, 4, 2}, []string{"é o"}, "é", []string{"é"}, Stopped},
	} {
		for _, beams := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d beams", c.name, beams), func(t *testing.T) {
				var pieces []string
				r := Request{Opening: []int64{1}, OnText: func(p string) { pieces = append(pieces, p) }}
				r.Options = Options{Ends: []int64{2}, Stop: c.stop, MaxNewTokens: 5, Beams: beams}
				got, err := Generate(t.Context(), script(12, c.tokens...), tok, []Request{r})
				if err != nil {
					t.Fatal(err)
				}
				if got[0].Text != c.text || got[0].Finish != c.finish || !slices.Equal(pieces, c.pieces) {
					t.Errorf("got %q in %q by %q, want %q in %q by %q", got[0].Text, pieces, got[0].Finish, c.text, c.pieces, c.finish)
				}
			})
		}
	}
}

func TestLimits(t *testing.T) {
	tok := vocabulary(t, 12, nil)
	first := int64(5)
	for name, c := range map[string]struct {
		r    Request
		n    int // tokens made
		says string
	}{
		"twenty where nothing is said":   {r: Request{Opening: []int64{1}}, n: 20},
		"fewer where there is less room": {r: Request{Opening: []int64{1}, Room: 8}, n: 7},
		"max_length counts the opening":  {r: Request{Opening: []int64{1}, Options: Options{MaxLength: 6}}, n: 5},
		"and what lies before":           {r: Request{Opening: []int64{1}, Before: 3, Options: Options{MaxLength: 6}}, n: 2},
		"max_new_tokens goes before it":  {r: Request{Opening: []int64{1}, Options: Options{MaxLength: 6, MaxNewTokens: 3}}, n: 3},
		"a forced first token":           {r: Request{Opening: []int64{1}, Options: Options{MaxNewTokens: 1, ForcedFirst: &first}}, n: 1},
		"no room":                        {r: Request{Opening: []int64{1}, Room: 1}, says: "an opening of 1 tokens leaves none of the decoder's 1 places"},
		"more than there is room":        {r: Request{Opening: []int64{1}, Room: 9, Options: Options{MaxNewTokens: 9}}, says: "set max_new_tokens to 8 or less"},
		"an opening over the length":     {r: Request{Opening: []int64{1}, Options: Options{MaxLength: 1}}, says: "max_length 1 is used up"},
		"a temperature of nothing":       {r: Request{Opening: []int64{1}, Options: Options{Sample: true}}, says: "temperature is 0"},
		"a probability above 1":          {r: Request{Opening: []int64{1}, Options: Options{TopP: 1.5}}, says: "top_p is 1.5"},
		"no number":                      {r: Request{Opening: []int64{1}, Options: Options{TopP: math.NaN()}}, says: "top_p is NaN"},
		"too many beams":                 {r: Request{Opening: []int64{1}, Options: Options{Beams: 65}}, says: "num_beams is 65"},
		"an empty stop string":           {r: Request{Opening: []int64{1}, Options: Options{Stop: []string{""}}}, says: "a stop string is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Generate(t.Context(), script(12, 4), tok, []Request{c.r})
			if c.says != "" {
				if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want %q", err, c.says)
				}
				return
			}
			if err != nil || len(got[0].Tokens) != c.n || got[0].Finish != Cut {
				t.Errorf("got %v (%v), want %d tokens", got, err, c.n)
			}
		})
	}
}

func TestWorkEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := script(12, 4)
	m.at = func(step int) {
		if step == 3 {
			cancel()
		}
	}
	_, err := Generate(ctx, m, vocabulary(t, 12, nil), []Request{{Opening: []int64{1}, Options: Options{MaxNewTokens: 100}}})
	if !errors.Is(err, context.Canceled) || m.steps > 3 {
		t.Errorf("got %v after %d steps", err, m.steps)
	}
}

func TestLogitsThatAreNoNumbers(t *testing.T) {
	for _, beams := range []int{1, 2} {
		m := script(12, 4)
		m.table[0][1][3] = float32(math.NaN())
		rs := []Request{{Opening: []int64{1}, Options: Options{MaxNewTokens: 2, Beams: beams}}}
		if _, err := Generate(t.Context(), m, vocabulary(t, 12, nil), rs); errs.Of(err) != errs.Unsupported {
			t.Errorf("%d beams: %v", beams, err)
		}
		rs[0].Options.RemoveInvalid = true
		m.rows = [][]int64{{1}}
		if _, err := Generate(t.Context(), m, vocabulary(t, 12, nil), rs); err != nil {
			t.Errorf("%d beams: %v", beams, err)
		}
	}
}

func TestConfigurationsAreReadOrRefused(t *testing.T) {
	c, err := ReadConfig([]byte(`{"eos_token_id": 5, "decoder_start_token_id": 7, "bos_token_id": null, "max_length": 40, "num_beams": 3, "early_stopping": "never",
		"stop_strings": "x", "use_cache": false, "num_return_sequences": 1, "cache_implementation": "static", "transformers_version": "5.23.0", "guidance_scale": 1.0}`))
	if err != nil {
		t.Fatal(err)
	}
	o := c.Options
	if !slices.Equal(o.Ends, []int64{5}) || *c.Start != 7 || c.BOS != nil || o.MaxLength != 40 || o.Beams != 3 || o.Early != EarlyNever || !slices.Equal(o.Stop, []string{"x"}) || !o.NoCache || o.TopK != 50 {
		t.Errorf("read as %+v", c)
	}
	if !slices.Equal(c.Ignored, []string{"cache_implementation", "transformers_version"}) {
		t.Errorf("ignored: %v", c.Ignored)
	}
	for data, want := range map[string]struct {
		kind errs.Kind
		says string
	}{
		`{`:                                    {errs.Invalid, "generation_config.json"},
		`{"magic": 1}`:                         {errs.Unsupported, `"magic"`},
		`{"guidance_scale": 3}`:                {errs.Unsupported, "guidance_scale 3"},
		`{"num_return_sequences": 2}`:          {errs.Unsupported, "num_return_sequences 2"},
		`{"top_h": 0.3}`:                       {errs.Unsupported, "top_h"},
		`{"top_p": "high"}`:                    {errs.Invalid, "top_p"},
		`{"early_stopping": 3}`:                {errs.Invalid, "early_stopping"},
		`{"sequence_bias": [[1,2,3]]}`:         {errs.Invalid, "sequence_bias"},
		`{"sequence_bias": [[[],2.0]]}`:        {errs.Invalid, "sequence_bias"},
		`{"num_beams": 1000}`:                  {errs.Invalid, "num_beams is 1000"},
		`{"decoder_start_token_id": [1,2]}`:    {errs.Invalid, "decoder_start_token_id"},
		`{"temperature": 0, "do_sample":true}`: {errs.Invalid, "temperature is 0"},
	} {
		if _, err := ReadConfig([]byte(data)); errs.Of(err) != want.kind || !strings.Contains(err.Error(), want.says) {
			t.Errorf("%s: %v, want %v with %q", data, err, want.kind, want.says)
		}
	}
}

// TestConfigurationsOfOldModels has them in config.json, some keys in the decoder's part.
func TestConfigurationsOfOldModels(t *testing.T) {
	c, err := ReadModelConfig([]byte(`{"model_type": "vision-encoder-decoder", "decoder_start_token_id": 5, "eos_token_id": 7, "max_length": 16, "bos_token_id": null,
		"decoder": {"eos_token_id": 2, "bos_token_id": 1, "num_beams": 4, "n_layer": 2, "num_return_sequences": 1}}`))
	if err != nil || *c.Start != 5 || *c.BOS != 1 || !slices.Equal(c.Options.Ends, []int64{7}) || c.Options.MaxLength != 16 || c.Options.Beams != 4 {
		t.Errorf("read as %+v (%v)", c, err)
	}
	if _, err := ReadModelConfig([]byte(`[]`)); errs.Of(err) != errs.Invalid {
		t.Errorf("no object: %v", err)
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add([]byte(`{"eos_token_id": [5, 6], "sequence_bias": [[[1], 2.0]], "exponential_decay_length_penalty": [3, 1.5], "early_stopping": "never"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ReadConfig(data)
		if err != nil {
			if errs.Of(err) == errs.Internal {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		r := Request{Opening: []int64{1}, Options: c.Options}
		if limit, err := r.limit(); err == nil {
			for _, p := range r.processors(limit) {
				p([]int64{1}, make([]float32, 8))
			}
		}
	})
}
