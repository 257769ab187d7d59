package decode

import (
	"cmp"
	"math"
	"slices"
)

// warpers change the probabilities that tokens are drawn by, in transformers' order. They leave at least
// one token; with beams, one more than there are ends, so that a text can go on.
func (o Options) warpers() []processor {
	keep := 1
	if o.Beams > 1 {
		keep = max(2, len(o.Ends)+1)
	}
	var all []processor
	add := func(wanted bool, f func(scores []float32)) {
		if wanted {
			all = append(all, func(_ []int64, scores []float32) { f(scores) })
		}
	}
	add(o.Temperature != 1, func(s []float32) { cool(s, float32(o.Temperature)) })
	add(o.TopK > 0, func(s []float32) { keepTop(s, max(o.TopK, keep)) })
	add(o.TopP > 0 && o.TopP < 1, func(s []float32) { keepMass(s, o.TopP, keep) })
	add(o.MinP > 0, func(s []float32) { keepRelative(s, o.MinP, keep) })
	add(o.TypicalP > 0 && o.TypicalP < 1, func(s []float32) { keepTypical(s, o.TypicalP, keep) })
	add(o.EpsilonCut > 0 && o.EpsilonCut < 1, func(s []float32) { keepLikely(s, o.EpsilonCut, keep) })
	add(o.EtaCut > 0 && o.EtaCut < 1, func(s []float32) { keepEta(s, o.EtaCut, keep) })
	return all
}

func cool(scores []float32, temperature float32) {
	for i := range scores {
		scores[i] /= temperature
	}
}

// kth is the k-th largest score.
func kth(scores []float32, k int) float32 {
	top := topK(scores, min(k, len(scores)))
	return scores[top[len(top)-1]]
}

// keepTop leaves the k likeliest tokens, and those as likely as the last of them.
func keepTop(scores []float32, k int) {
	least := kth(scores, k)
	for i, s := range scores {
		if s < least {
			scores[i] = never
		}
	}
}

// byScore are the tokens from the likeliest on.
func byScore(scores []float32) []int {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	return order
}

// keepMass leaves the fewest likeliest tokens whose probabilities sum to more than p (Holtzman et al. 2020).
func keepMass(scores []float32, p float64, keep int) {
	probs, order := softmax(scores), byScore(scores)
	rest := 0.0
	for i := len(order) - 1; i >= keep; i-- {
		rest += probs[order[i]]
		if rest > 1-p {
			return
		}
		scores[order[i]] = never
	}
}

// keepRelative leaves the tokens that are at least p times as likely as the likeliest (Nguyen et al. 2024).
func keepRelative(scores []float32, p float64, keep int) {
	probs := softmax(scores)
	drop(scores, keep, func(i int) bool { return probs[i] < p*slices.Max(probs) })
}

// keepLikely leaves the tokens of at least a probability.
func keepLikely(scores []float32, p float64, keep int) {
	probs, least := softmax(scores), kth(scores, keep)
	for i, s := range scores {
		if probs[i] < p && s < least {
			scores[i] = never
		}
	}
}

// keepEta is keepLikely with a bound that falls as the entropy grows (Hewitt et al. 2022).
func keepEta(scores []float32, eta float64, keep int) {
	keepLikely(scores, min(eta, math.Sqrt(eta)*math.Exp(-entropy(softmax(scores)))), keep)
}

// keepTypical leaves the tokens whose surprise is closest to the entropy, until they make up p.
func keepTypical(scores []float32, p float64, keep int) {
	probs := softmax(scores)
	h := entropy(probs)
	far := make([]float64, len(scores))
	order := make([]int, len(scores))
	for i := range order {
		order[i], far[i] = i, math.Abs(-math.Log(probs[i])-h)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(far[a], far[b]) })
	last, sum := 0, 0.0
	for last < len(order)-1 {
		if sum += probs[order[last]]; sum >= p {
			break
		}
		last++
	}
	for at, i := range order {
		if at >= keep && far[i] > far[order[last]] {
			scores[i] = never
		}
	}
}

func entropy(probs []float64) float64 {
	h := 0.0
	for _, p := range probs {
		if p > 0 {
			h -= p * math.Log(p)
		}
	}
	return h
}

// drop rules tokens out, but for the likeliest.
func drop(scores []float32, keep int, out func(i int) bool) {
	kept := topK(scores, min(keep, len(scores)))
	for i := range scores {
		if out(i) && !slices.Contains(kept, i) {
			scores[i] = never
		}
	}
}

// topK are the places of the k largest scores, the largest first; of equal ones the first.
func topK(scores []float32, k int) []int {
	top := make([]int, 0, k+1)
	for i, s := range scores {
		if len(top) == k && !(s > scores[top[k-1]]) {
			continue
		}
		at := len(top)
		for at > 0 && s > scores[top[at-1]] {
			at--
		}
		top = slices.Insert(top, at, i)
		top = top[:min(len(top), k)]
	}
	return top
}
