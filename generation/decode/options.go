package decode

import (
	"math"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// defaultTokens is how long a text may be where nothing says so: transformers' max_length of 20.
const defaultTokens = 20

// Early says when a beam search ends.
type Early int

// The kinds, with early_stopping's values.
const (
	EarlyHeuristic Early = iota // false: when no open beam looks able to beat the worst complete one, as it stands
	EarlyFull                   // true: as soon as there are as many complete texts as beams
	EarlyNever                  // "never": when no open beam can beat the worst complete one, at any length
)

// Bias is added to the score of a sequence's last token, where the others are there.
type Bias struct {
	Tokens []int64
	By     float32
}

// Decay is transformers' exponential_decay_length_penalty: behind From tokens, the ends' scores grow by |score| *
// (Factor^n - 1), n counted from there.
type Decay struct {
	From   int
	Factor float64
}

// Options say how tokens are chosen. Start from [Defaults] or a bundle's. The zero value is greedy search of up to 20
// tokens that nothing ends before.
type Options struct {
	Ends []int64  // the tokens that end a text
	Stop []string // texts that end it, where they begin; they may lie across tokens

	MaxNewTokens int // 0: MaxLength says
	MaxLength    int // the opening's tokens counted; 0: 20 new ones, or fewer where there is less room
	MinNewTokens int // no end before
	MinLength    int // likewise, the opening's tokens counted

	Sample      bool // draw tokens by their probability; otherwise take the likeliest
	Seed        uint64
	Temperature float64 // above 0; 1 changes nothing
	TopK        int     // draw among the K likeliest; 0: among all
	TopP        float64 // among the likeliest that make up this much; 0 or 1: among all
	MinP        float64 // among those at least so likely, times the likeliest; 0: among all
	TypicalP    float64 // locally typical sampling (Meister et al. 2022); 0 or 1: off
	EpsilonCut  float64 // among those at least so likely; 0: off
	EtaCut      float64 // eta sampling (Hewitt et al. 2022); 0: off

	Beams         int // above 1: beam search
	LengthPenalty float64
	Early         Early

	RepetitionPenalty float64 // 0 or 1: none (Keskar et al. 2019)
	NoRepeatNgram     int     // sequences so long occur but once; 0: off
	Biases            []Bias
	BadWords          [][]int64
	ForcedFirst       *int64  // the token behind an opening of one token (forced_bos_token_id)
	ForcedEnds        []int64 // the last token at the length's limit is one of these (forced_eos_token_id)
	Suppressed        []int64 // never chosen
	SuppressedAtFirst []int64 // never chosen as the first
	Decay             *Decay
	RemoveInvalid     bool // NaN scores count as 0, infinite ones as the largest number
	Renormalize       bool // scores are made log-probabilities again at the end
	NoCache           bool // the model is run on the whole text for each token
}

// Defaults are transformers' own.
func Defaults() Options {
	return Options{Temperature: 1, TopK: 50, TopP: 1, TypicalP: 1, Beams: 1, LengthPenalty: 1, RepetitionPenalty: 1}
}

// Clone is a copy that shares nothing.
func (o Options) Clone() Options {
	o.Ends, o.Stop = slices.Clone(o.Ends), slices.Clone(o.Stop)
	o.ForcedEnds, o.Suppressed, o.SuppressedAtFirst = slices.Clone(o.ForcedEnds), slices.Clone(o.Suppressed), slices.Clone(o.SuppressedAtFirst)
	o.Biases, o.BadWords = slices.Clone(o.Biases), slices.Clone(o.BadWords)
	return o
}

// maxBeams bounds the rows that one text takes.
const maxBeams = 64

// Check refuses values out of range, by transformers' names of them; kind [errs.Invalid].
func (o Options) Check() error {
	for _, c := range []struct {
		name     string
		value    float64
		from, to float64
	}{
		{"max_new_tokens", float64(o.MaxNewTokens), 0, math.MaxInt32},
		{"max_length", float64(o.MaxLength), 0, math.MaxInt32},
		{"min_new_tokens", float64(o.MinNewTokens), 0, math.MaxInt32},
		{"min_length", float64(o.MinLength), 0, math.MaxInt32},
		{"top_k", float64(o.TopK), 0, math.MaxInt32},
		{"top_p", o.TopP, 0, 1},
		{"min_p", o.MinP, 0, 1},
		{"typical_p", o.TypicalP, 0, 1},
		{"epsilon_cutoff", o.EpsilonCut, 0, 1},
		{"eta_cutoff", o.EtaCut, 0, 1},
		{"num_beams", float64(o.Beams), 0, maxBeams},
		{"length_penalty", o.LengthPenalty, -100, 100},
		{"repetition_penalty", o.RepetitionPenalty, 0, math.MaxFloat32},
		{"no_repeat_ngram_size", float64(o.NoRepeatNgram), 0, math.MaxInt32},
	} {
		if !(c.value >= c.from && c.value <= c.to) {
			return errs.New(errs.Invalid, "%s is %g; it lies from %g to %g", c.name, c.value, c.from, c.to)
		}
	}
	if o.Sample && !(o.Temperature > 0 && o.Temperature <= math.MaxFloat32) {
		return errs.New(errs.Invalid, "temperature is %g; where tokens are drawn it is above 0: to always take the likeliest one, don't draw", o.Temperature)
	}
	if slices.Contains(o.Stop, "") {
		return errs.New(errs.Invalid, "a stop string is empty: give at least one character")
	}
	for _, b := range o.Biases {
		if len(b.Tokens) == 0 {
			return errs.New(errs.Invalid, "sequence_bias: a sequence of no tokens")
		}
	}
	for _, w := range o.BadWords {
		if len(w) == 0 {
			return errs.New(errs.Invalid, "bad_words_ids: a word of no tokens")
		}
	}
	return nil
}
