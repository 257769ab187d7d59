package decode

import (
	"math"
	"slices"
)

// processor changes the scores [V] of the token that follows ids, the opening among them.
type processor func(ids []int64, scores []float32)

var never = float32(math.Inf(-1))

// processors are the request's, in the order of transformers' generate.
func (r Request) processors(limit int) []processor {
	o, opening := r.Options, len(r.Opening)
	var all []processor
	add := func(wanted bool, p processor) {
		if wanted {
			all = append(all, p)
		}
	}
	add(len(o.Biases) > 0, bias(o.Biases))
	add(o.RepetitionPenalty != 0 && o.RepetitionPenalty != 1, penalizeRepetition(float32(o.RepetitionPenalty)))
	add(o.NoRepeatNgram > 0, noRepeats(o.NoRepeatNgram))
	add(len(o.BadWords) > 0, bias(forbidden(o.BadWords, o.Ends)))
	add(o.MinLength > 0, noEndBefore(o.MinLength-r.Before, o.Ends))
	add(o.MinNewTokens > 0, noEndBefore(opening+o.MinNewTokens, o.Ends))
	if o.ForcedFirst != nil {
		add(true, forceAt(1, []int64{*o.ForcedFirst}))
	}
	add(len(o.ForcedEnds) > 0, forceAt(limit-1, o.ForcedEnds))
	add(o.RemoveInvalid, removeInvalid)
	if o.Decay != nil {
		add(true, decayed(*o.Decay, opening, o.Ends))
	}
	add(len(o.Suppressed) > 0, func(_ []int64, scores []float32) { setAll(scores, o.Suppressed, never) })
	if len(o.SuppressedAtFirst) > 0 {
		first := opening
		if opening <= 1 && o.ForcedFirst != nil {
			first++
		}
		add(true, func(ids []int64, scores []float32) {
			if len(ids) == first {
				setAll(scores, o.SuppressedAtFirst, never)
			}
		})
	}
	if o.Sample {
		all = append(all, o.warpers()...)
	}
	add(o.Renormalize, func(_ []int64, scores []float32) { logSoftmax(scores) })
	return all
}

// setAll sets the scores of tokens; those beyond the vocabulary are none of its.
func setAll(scores []float32, tokens []int64, to float32) {
	for _, t := range tokens {
		if t >= 0 && t < int64(len(scores)) {
			scores[t] = to
		}
	}
}

// bias adds to the last token of each sequence whose others end the text.
func bias(all []Bias) processor {
	return func(ids []int64, scores []float32) {
		for _, b := range all {
			n := len(b.Tokens) - 1
			last := b.Tokens[n]
			if last >= 0 && last < int64(len(scores)) && n <= len(ids) && slices.Equal(ids[len(ids)-n:], b.Tokens[:n]) {
				scores[last] += b.By
			}
		}
	}
}

// forbidden are biases that rule words out; a word that is an end alone stays.
func forbidden(words [][]int64, ends []int64) []Bias {
	var all []Bias
	for _, w := range words {
		if len(w) > 1 || !slices.Contains(ends, w[0]) {
			all = append(all, Bias{w, never})
		}
	}
	return all
}

// penalizeRepetition makes each token of the text less likely, once (Keskar et al. 2019, CTRL).
func penalizeRepetition(by float32) processor {
	return func(ids []int64, scores []float32) {
		seen := map[int64]bool{}
		for _, id := range ids {
			if seen[id] || id < 0 || id >= int64(len(scores)) {
				continue
			}
			seen[id] = true
			if scores[id] < 0 {
				scores[id] *= by
			} else {
				scores[id] /= by
			}
		}
	}
}

// noRepeats rules out what would make a sequence of n tokens occur again.
func noRepeats(n int) processor {
	return func(ids []int64, scores []float32) {
		if len(ids) < n {
			return
		}
		tail := ids[len(ids)+1-n:]
		for i := 0; i+n <= len(ids); i++ {
			if slices.Equal(ids[i:i+n-1], tail) {
				setAll(scores, ids[i+n-1:i+n], never)
			}
		}
	}
}

func noEndBefore(length int, ends []int64) processor {
	return func(ids []int64, scores []float32) {
		if len(ids) < length {
			setAll(scores, ends, never)
		}
	}
}

// forceAt leaves but the given tokens behind a text of the given length.
func forceAt(length int, tokens []int64) processor {
	return func(ids []int64, scores []float32) {
		if len(ids) != length {
			return
		}
		for i := range scores {
			scores[i] = never
		}
		setAll(scores, tokens, 0)
	}
}

func removeInvalid(_ []int64, scores []float32) {
	for i, s := range scores {
		switch {
		case s != s:
			scores[i] = 0
		case math.IsInf(float64(s), 1):
			scores[i] = math.MaxFloat32
		case math.IsInf(float64(s), -1):
			scores[i] = -math.MaxFloat32
		}
	}
}

func decayed(d Decay, opening int, ends []int64) processor {
	return func(ids []int64, scores []float32) {
		n := len(ids) - d.From - opening
		if n <= 0 {
			return
		}
		by := float32(math.Pow(d.Factor, float64(n)) - 1)
		for _, e := range ends {
			if e >= 0 && e < int64(len(scores)) && !math.IsInf(float64(scores[e]), 0) {
				scores[e] += float32(math.Abs(float64(scores[e]))) * by
			}
		}
	}
}

// logSoftmax makes scores log-probabilities.
func logSoftmax(scores []float32) {
	whole := logSum(scores)
	for i, s := range scores {
		scores[i] = float32(float64(s) - whole)
	}
}

// logSum is the logarithm of the sum of the scores' exponentials.
func logSum(scores []float32) float64 {
	top := float64(slices.Max(scores))
	sum := 0.0
	for _, s := range scores {
		sum += math.Exp(float64(s) - top)
	}
	return top + math.Log(sum)
}

// softmax are the scores' probabilities.
func softmax(scores []float32) []float64 {
	top := float64(slices.Max(scores))
	p, sum := make([]float64, len(scores)), 0.0
	for i, s := range scores {
		p[i] = math.Exp(float64(s) - top)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}
