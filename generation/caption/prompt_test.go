package caption

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/generation/decode"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
)

func tuned(m *Model, tensors map[string]*graph.Tensor) *prompt.Prompt {
	return &prompt.Prompt{Card: prompt.Card{Bundle: prompt.BundleRef{Name: m.Bundle.Name, Digest: m.Bundle.Digest}, Kind: prompt.Caption}, Tensors: tensors}
}

// noise is a tensor that follows from its name.
func noise(name string, scale float32, dims ...int64) *graph.Tensor {
	r := rng.New(1, name)
	values := make([]float32, graph.Count(dims))
	for i := range values {
		values[i] = scale * float32(r.NormFloat64())
	}
	return graph.NewTensor(values, dims...)
}

// said runs the decoder on words behind an image, and gives the keys and values that it makes of them.
func said(t *testing.T, m *Model, states *graph.Tensor, words []int64) (keys, values *graph.Tensor) {
	t.Helper()
	s, err := ort.NewSession(m.Decoder.Graph, m.Sessions())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in := &feed{session: s, in: map[string]*graph.Tensor{}}
	in.tokens(m.Decoder, [][]int64{words}, 0)
	if m.Decoder.Encoder != nil {
		in.in[m.Decoder.Encoder.Name] = states
	}
	for _, l := range m.Decoder.Layers {
		if l.PastKey != nil {
			in.in[l.PastKey.Name] = graph.NewTensor([]float32{}, 1, int64(l.Heads), 0, int64(l.HeadWidth))
			in.in[l.PastValue.Name] = in.in[l.PastKey.Name]
		}
	}
	out, err := s.Run(t.Context(), in.in)
	if err != nil {
		t.Fatal(err)
	}
	var k, v []float32
	var dims []int64
	for _, l := range m.selfLayers(m.Decoder) {
		dims = out[l.PresentKey.Name].Dims
		a, err1 := graph.Values[float32](out[l.PresentKey.Name])
		b, err2 := graph.Values[float32](out[l.PresentValue.Name])
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		k, v = append(k, a...), append(v, b...)
	}
	dims = append([]int64{int64(len(m.selfLayers(m.Decoder)))}, dims[1:]...)
	return graph.NewTensor(k, dims...), graph.NewTensor(v, dims...)
}

// TestWordsBeforeATextAsAPrefix puts the embeddings of words before the start token, and the keys and values that the
// decoder makes of them: the text has to be that behind the words themselves.
func TestWordsBeforeATextAsAPrefix(t *testing.T) {
	words := []int64{20, 21, 22}
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			m := open(t, filepath.Join("testdata", layout))
			embeddings, err := m.Decoder.Embeddings(words)
			if err != nil {
				t.Fatal(err)
			}
			prefix := tuned(m, map[string]*graph.Tensor{"prefix": graph.NewTensor(embeddings, 3, int64(m.Decoder.Width))})
			plain := open(t, filepath.Join("testdata", layout))
			plain.config.Start, plain.config.BOS = nil, nil
			for i, img := range testImages(6) {
				for _, uncached := range []bool{false, true} {
					o := m.Options()
					o.NoCache = uncached
					behind := generate(t, m, Request{Image: img, Prompt: prefix, Options: &o})
					if behind.PrefixTokens != 3+m.mapped(&steering{}) {
						t.Errorf("%d places before the text", behind.PrefixTokens)
					}
					if !m.Mapped() { // else the image's own prefix comes between
						spoken := generate(t, plain, Request{Image: img, Text: "w20 w21 w22 <s>", Options: &o})
						same(t, fmt.Sprintf("image %d, words", i), behind, spoken)
					}
					states, err := m.Features(t.Context(), m.Images.Pixels(m.Images.Apply(img)), nil)
					if err != nil {
						t.Fatal(err)
					}
					keys, values := said(t, m, states, words)
					over := generate(t, m, Request{Image: img, Prompt: tuned(m, map[string]*graph.Tensor{"keys": keys, "values": values}), Options: &o})
					same(t, fmt.Sprintf("image %d, keys and values", i), over, behind)
				}
			}
		})
	}
}

// unplaced are keys and values that take no places, where the model's images take none either.
func unplaced(m *Model, keys, values *graph.Tensor) *prompt.Prompt {
	p := tuned(m, map[string]*graph.Tensor{"keys": keys, "values": values})
	p.Card.Unplaced = !m.Mapped()
	return p
}

// TestUnplacedKeysAndValuesAreThoseOfStepsToo makes texts with a cache and without: in each step the text stands at the places
// that it has when all of it is read at once.
func TestUnplacedKeysAndValuesAreThoseOfStepsToo(t *testing.T) {
	for _, layout := range layouts {
		m := open(t, filepath.Join("testdata", layout))
		if m.Mapped() {
			continue
		}
		t.Run(layout, func(t *testing.T) {
			l, differ := m.selfLayers(m.Decoder), false
			dims := []int64{int64(len(l)), int64(l[0].Heads), 3, int64(l[0].HeadWidth)}
			p := unplaced(m, noise("k", 1, dims...), noise("v", 1, dims...))
			placed := tuned(m, p.Tensors)
			for i, img := range testImages(6) {
				o := m.Options()
				o.NoCache = true
				whole := generate(t, m, Request{Image: img, Prompt: p, Options: &o})
				same(t, fmt.Sprintf("image %d", i), generate(t, m, Request{Image: img, Prompt: p}), whole)
				differ = differ || generate(t, m, Request{Image: img, Prompt: placed}).LogProb != whole.LogProb
			}
			if !differ {
				t.Error("with places the texts are the same")
			}
		})
	}
}

func generate(t *testing.T, m *Model, r Request) Answer {
	t.Helper()
	got, err := m.Generate(t.Context(), []Request{r})
	if err != nil {
		t.Fatal(err)
	}
	return got[0]
}

func same(t *testing.T, what string, got, want Answer) {
	t.Helper()
	if d := got.LogProb - want.LogProb; !slices.Equal(got.Tokens, want.Tokens) || d > 1e-3 || d < -1e-3 {
		t.Errorf("%s: got %v at %g, want %v at %g", what, got.Tokens, got.LogProb, want.Tokens, want.LogProb)
	}
}

// TestATunedMapTakesTheMappersPlace gives a prompt the very layers of the bundle's mapper.
func TestATunedMapTakesTheMappersPlace(t *testing.T) {
	m := open(t, "testdata/clipcap")
	layers := map[string]*graph.Tensor{}
	for v := range m.Mapper.Constants() {
		d := v.Const.Dims
		if !v.Type.IsFloat() || len(d) == 0 {
			continue
		}
		values, err := graph.Float32s(v.Const)
		if err != nil {
			t.Fatal(err)
		}
		name := map[string]string{"[48 24]": "map.0.weight", "[48]": "map.0.bias", "[128 48]": "map.1.weight", "[128]": "map.1.bias"}[fmt.Sprint(d)]
		if name == "" {
			t.Fatalf("the mapper has a constant %v", d)
		}
		layers[name] = graph.NewTensor(values, d...)
	}
	frozen := 0
	for _, img := range testImages(8) {
		want := generate(t, m, Request{Image: img})
		same(t, "the same layers", generate(t, m, Request{Image: img, Prompt: tuned(m, layers)}), want)
		other := tuned(m, map[string]*graph.Tensor{"map.0.weight": noise("w", 0.3, 64, 24)})
		if slices.Equal(generate(t, m, Request{Image: img, Prompt: other}).Tokens, want.Tokens) {
			frozen++
		}
	}
	if frozen == 8 {
		t.Error("other layers change nothing")
	}
}

// TestPromptsOfOneBatch has requests with prompts of all kinds and shapes together; each text has to be what it is alone, and
// the pieces that are streamed have to make it up.
func TestPromptsOfOneBatch(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			m := open(t, filepath.Join("testdata", layout))
			l, width := m.selfLayers(m.Decoder), int64(m.Decoder.Width)
			pairs := func(name string, p int64) (*graph.Tensor, *graph.Tensor) {
				d := []int64{int64(len(l)), int64(l[0].Heads), p, int64(l[0].HeadWidth)}
				return noise("k"+name, 1, d...), noise("v"+name, 1, d...)
			}
			k1, v1 := pairs("a", 3)
			k2, v2 := pairs("b", 3)
			prompts := []*prompt.Prompt{
				nil,
				tuned(m, map[string]*graph.Tensor{"prefix": noise("p1", 1, 2, width)}),
				tuned(m, map[string]*graph.Tensor{"prefix": noise("p2", 1, 2, width)}),
				tuned(m, map[string]*graph.Tensor{"prefix": noise("p3", 1, 5, width)}),
				tuned(m, map[string]*graph.Tensor{"keys": k1, "values": v1}),
				tuned(m, map[string]*graph.Tensor{"keys": k2, "values": v2}),
				unplaced(m, k1, v1),
			}
			if m.Images.Refused == nil {
				inner := int64(m.Images.Width())
				prompts = append(prompts,
					tuned(m, map[string]*graph.Tensor{"visual": noise("s1", 1, 1, 3, inner)}),
					tuned(m, map[string]*graph.Tensor{"visual": noise("s2", 1, 1, 3, inner)}),
					tuned(m, map[string]*graph.Tensor{"visual": noise("d", 1, 2, 2, inner), "prefix": noise("p4", 1, 2, width)}))
			}
			var rs []Request
			said := make([]string, 2*len(prompts))
			for i := range said {
				r := Request{Image: testImages(5)[i%5], Prompt: prompts[i%len(prompts)], OnText: func(piece string) { said[i] += piece }}
				o := m.Options()
				if o.MaxNewTokens = 8; i%3 == 1 {
					o.Beams = 3
				}
				if i%4 == 2 {
					o.Sample, o.Seed = true, uint64(i)
				}
				if r.Options = &o; i >= len(prompts) {
					r.Text = "w30"
				}
				rs = append(rs, r)
			}
			got, err := m.Generate(t.Context(), rs)
			if err != nil {
				t.Fatal(err)
			}
			texts := map[string]bool{}
			for i, r := range rs {
				if said[i] != got[i].Text {
					t.Errorf("request %d was streamed %q, its text is %q", i, said[i], got[i].Text)
				}
				r.OnText = nil
				same(t, fmt.Sprintf("request %d", i), got[i], generate(t, m, r))
				texts[fmt.Sprint(got[i].Tokens)] = true
			}
			if len(texts) < len(rs)/2 {
				t.Errorf("%d requests have %d different texts", len(rs), len(texts))
			}
		})
	}
}

func TestRequestsThatCannotBe(t *testing.T) {
	m := open(t, "testdata/blip")
	mapped := open(t, "testdata/clipcap")
	img := testImages(1)[0]
	o := func(change func(o *decode.Options)) *decode.Options {
		o := m.Options()
		change(&o)
		return &o
	}
	other := tuned(m, map[string]*graph.Tensor{"prefix": noise("p", 1, 2, 32)})
	other.Card.Bundle.Digest = strings.Repeat("ab", 32)
	classes := tuned(m, map[string]*graph.Tensor{"context": noise("p", 1, 2, 32)})
	classes.Card.Kind = prompt.Classifier
	with := func(name string, t *graph.Tensor) *prompt.Prompt {
		return tuned(m, map[string]*graph.Tensor{name: t})
	}
	l := mapped.selfLayers(mapped.Decoder)
	pairs := []int64{int64(len(l)), int64(l[0].Heads), 2, int64(l[0].HeadWidth)}
	nowhere := tuned(mapped, map[string]*graph.Tensor{"keys": noise("k", 1, pairs...), "values": noise("v", 1, pairs...)})
	nowhere.Card.Unplaced = true
	long := strings.TrimSpace(strings.Repeat("w30 ", 31))
	for name, c := range map[string]struct {
		m    *Model
		r    Request
		kind errs.Kind
		says string
	}{
		"no image":                                                  {m, Request{}, errs.Invalid, "the request has none"},
		"a prompt of another bundle":                                {m, Request{Image: img, Prompt: other}, errs.Conflict, "tuned on bundle"},
		"a prompt of classes":                                       {m, Request{Image: img, Prompt: classes}, errs.Invalid, "kind classifier"},
		"a prefix of another width":                                 {m, Request{Image: img, Prompt: with("prefix", noise("p", 1, 2, 31))}, errs.Invalid, "takes [P,32]"},
		"more visual layers than blocks":                            {m, Request{Image: img, Prompt: with("visual", noise("p", 1, 3, 2, 32))}, errs.Invalid, "takes [1 to 2,K,32]"},
		"keys of another depth":                                     {m, Request{Image: img, Prompt: tuned(m, map[string]*graph.Tensor{"keys": noise("k", 1, 3, 2, 4, 16), "values": noise("v", 1, 3, 2, 4, 16)})}, errs.Invalid, "takes [2,2,P,16]"},
		"a map where images are seen":                               {m, Request{Image: img, Prompt: with("map.0.weight", noise("p", 1, 64, 32))}, errs.Invalid, "cross attention"},
		"a map of another width":                                    {mapped, Request{Image: img, Prompt: tuned(mapped, map[string]*graph.Tensor{"map.0.weight": noise("p", 1, 64, 23)})}, errs.Invalid, "takes [out,24]"},
		"a map to parts of tokens":                                  {mapped, Request{Image: img, Prompt: tuned(mapped, map[string]*graph.Tensor{"map.0.weight": noise("p", 1, 65, 24)})}, errs.Invalid, "no multiple of the decoder's width 32"},
		"a prefix over all places":                                  {m, Request{Image: img, Prompt: with("prefix", noise("p", 1, 32, 32))}, errs.Invalid, "leaves none of the decoder's 32"},
		"a text over all places":                                    {m, Request{Image: img, Text: long}, errs.Invalid, "leaves none of the decoder's 32 places"},
		"more tokens than places":                                   {m, Request{Image: img, Options: o(func(o *decode.Options) { o.MaxNewTokens = 32 })}, errs.Invalid, "set max_new_tokens to 31 or less"},
		"a prefix and keys without past":                            {m, Request{Image: img, Prompt: tuned(m, map[string]*graph.Tensor{"prefix": noise("p", 1, 2, 32), "keys": noise("k", 1, 2, 2, 4, 16), "values": noise("v", 1, 2, 2, 4, 16)})}, errs.Unsupported, "only where the decoder takes a past"},
		"keys and values at no place before an image that has some": {mapped, Request{Image: img, Prompt: nowhere}, errs.Unsupported, "images stand at places"},
		"an option out of range":                                    {m, Request{Image: img, Options: o(func(o *decode.Options) { o.TopP = 2 })}, errs.Invalid, "top_p is 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.m.Generate(t.Context(), []Request{{Image: img}, c.r})
			if errs.Of(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("got %v (%v), want %q (%v)", err, errs.Of(err), c.says, c.kind)
			}
		})
	}
}

// TestWorkEndsWithItsContext cancels once the first piece of text is there.
func TestWorkEndsWithItsContext(t *testing.T) {
	m := open(t, "testdata/vitgpt2")
	ctx, cancel := context.WithCancel(t.Context())
	o := m.Options()
	o.Ends, o.MaxNewTokens = nil, 25
	pieces := 0
	_, err := m.Generate(ctx, []Request{{Image: testImages(1)[0], Options: &o, OnText: func(string) {
		pieces++
		cancel()
	}}})
	if !errors.Is(err, context.Canceled) || pieces != 1 {
		t.Errorf("got %v after %d pieces", err, pieces)
	}
}

func TestTextsAreMadeAtTheSameTime(t *testing.T) {
	m := open(t, "testdata/vitgpt2_merged")
	images := testImages(4)
	want := generate(t, m, Request{Image: images[1]})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			got, err := m.Generate(t.Context(), []Request{{Image: images[0]}, {Image: images[1]}})
			if err != nil || !slices.Equal(got[1].Tokens, want.Tokens) {
				t.Errorf("got %v (%v), want %v", got, err, want.Tokens)
			}
		})
	}
	all.Wait()
}

func TestBundlesOfOtherKindsAreRefused(t *testing.T) {
	b := open(t, "testdata/blip").Bundle
	b.Files = slices.DeleteFunc(slices.Clone(b.Files), func(f bundle.File) bool { return strings.Contains(f.Path, "decoder") })
	if _, err := Open(b, ort.Options{}); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), "dual-encoder") {
		t.Errorf("got %v", err)
	}
}
