package captioning

import (
	"math"
	"slices"
	"testing"

	"github.com/foretoken/foretoken/tuning"
)

func TestWhereLearningStarts(t *testing.T) {
	p := attending(t)
	start := func(r *tuning.Recipe, words ...int64) []*tuning.Parameter {
		t.Helper()
		params, err := newParameters(p, r, words)
		if err != nil {
			t.Fatal(err)
		}
		return params
	}
	r := &tuning.Recipe{Method: tuning.CaptionPrefix, Prefix: tuning.Prefix{Tokens: 4, Std: 0.5, Start: tuning.StartNormal}, Seed: 1}
	random := start(r)[0].Values()
	if again := start(r)[0].Values(); !slices.Equal(random, again) {
		t.Error("one seed gave two starts")
	}
	sum := 0.0
	for _, x := range random {
		sum += float64(x) * float64(x)
	}
	if std := math.Sqrt(sum / float64(len(random))); std < 0.35 || std > 0.65 {
		t.Errorf("the standard deviation is %g, want 0.5", std)
	}

	words := *r
	words.Prefix.Start = tuning.StartWords
	rows, err := p.Decoder.Embeddings([]int64{7, 9})
	if err != nil {
		t.Fatal(err)
	}
	if got := start(&words, 7, 9)[0].Values(); !slices.Equal(got[:len(rows)], rows) || !slices.Equal(got[len(rows):], random[len(rows):]) {
		t.Error("two words are not the first two tokens, or more than they has changed")
	}
	if got := start(&words, 7, 9, 7, 9, 7, 9)[0].Values(); len(got) != len(random) || !slices.Equal(got[2*p.Decoder.Width:], rows) {
		t.Error("words beyond the prefix are not left out")
	}

	sampled := *r
	sampled.Prefix.Start = tuning.StartVocabulary
	table, err := p.Decoder.Embeddings(upTo(60))
	if err != nil {
		t.Fatal(err)
	}
	got := start(&sampled)[0].Values()
	for i := range 4 {
		row := got[i*p.Decoder.Width : (i+1)*p.Decoder.Width]
		if !slices.ContainsFunc(upTo(60), func(w int64) bool {
			return slices.Equal(row, table[int(w)*p.Decoder.Width:(int(w)+1)*p.Decoder.Width])
		}) {
			t.Errorf("token %d is no word's embedding", i)
		}
	}

	visual := start(&tuning.Recipe{Method: tuning.CaptionVisual, Visual: tuning.Visual{Tokens: 3, Depth: 2}})
	limit := float32(math.Sqrt(6 / float64(3*4*4+p.Images.Width)))
	if len(visual) != 2 || slices.Max(visual[0].Values()) > limit || slices.Max(visual[0].Values()) < limit/2 {
		t.Errorf("%d image tokens, up to %g, want 2 up to %g", len(visual), slices.Max(visual[0].Values()), limit)
	}
}

func upTo(n int64) []int64 {
	var out []int64
	for i := range n {
		out = append(out, i)
	}
	return out
}
