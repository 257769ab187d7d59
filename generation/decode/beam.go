package decode

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/foretoken/foretoken/internal/rng"
)

// farOff stands for a score that nothing reaches, as in transformers.
const farOff = float32(-1e9)

// beam is a text under way or complete; tokens are those behind the opening.
type beam struct {
	tokens   []int64
	score    float32 // sum of log-probabilities as options change them; of complete ones, over length^penalty
	likely   float64 // sum of log-probabilities as they are
	complete bool
}

// beams is a beam search: of all continuations of K open texts the K best go on, and the K best complete ones are kept.
// It is _beam_search of transformers 5.23, for one row of a batch.
type beams struct {
	chooser
	draw     *rand.Rand // nil: the best
	open     []beam
	complete []beam // K, from the best on
	improves bool   // an open beam may still beat a complete one
}

func newBeams(c chooser) *beams {
	k := c.Options.Beams
	b := &beams{chooser: c, open: make([]beam, k), complete: make([]beam, k), improves: true}
	for i := range k {
		b.complete[i].score = farOff
		if i > 0 { // so that not all take the same tokens
			b.open[i].score = farOff
		}
	}
	if c.Options.Sample {
		b.draw = rng.New(c.Options.Seed, "tokens")
	}
	return b
}

// candidate is a beam's continuation.
type candidate struct {
	beam
	from int  // the open beam that it continues
	ends bool // it is complete
}

func (b *beams) advance(logits []float32, vocabulary int) ([]int, []int64, error) {
	scores, likely, err := b.continuations(logits, vocabulary)
	if err != nil {
		return nil, nil, err
	}
	candidates := b.best(scores, likely, vocabulary)
	b.keepComplete(candidates)
	from := b.keepOpen(candidates)
	if len(logits) == vocabulary { // the model had one row, the same for all
		clear(from)
	}
	if b.done(candidates) {
		return nil, nil, nil
	}
	tokens := make([]int64, len(b.open))
	for i, o := range b.open {
		tokens[i] = o.tokens[len(o.tokens)-1]
	}
	return from, tokens, nil
}

// continuations are the scores of each beam with each token behind it, [K*V], and the tokens' log-probabilities as they
// were before options changed them.
func (b *beams) continuations(logits []float32, vocabulary int) (scores, likely []float32, err error) {
	scores = make([]float32, 0, len(b.open)*vocabulary)
	for i, o := range b.open {
		row := logits[:vocabulary]
		if len(logits) > vocabulary {
			row = logits[i*vocabulary:][:vocabulary]
		}
		scores = append(scores, row...)
		own := scores[i*vocabulary:]
		if slices.ContainsFunc(own, func(s float32) bool { return s != s }) && !b.Options.RemoveInvalid {
			return nil, nil, notNumbers
		}
		logSoftmax(own)
		likely = append(likely, own...)
		b.scored(slices.Concat(b.Opening, o.tokens), own)
		for j := range own {
			own[j] += o.score
		}
	}
	return scores, likely, nil
}

// best are as many continuations that K of them go on even if all ends of each beam are among them.
func (b *beams) best(scores, likely []float32, vocabulary int) []candidate {
	n := min(len(scores), max(2, 1+len(b.Options.Ends))*len(b.open))
	kept := b.pick(scores, n)
	all := make([]candidate, len(kept))
	for i, at := range kept {
		from, token := at/vocabulary, int64(at%vocabulary)
		tokens := append(slices.Clone(b.open[from].tokens), token)
		all[i] = candidate{beam: beam{tokens: tokens, score: scores[at], likely: b.open[from].likely + float64(likely[at])}, from: from, ends: b.ends(tokens) || b.stops(tokens)}
	}
	return all
}

// pick are the places of the n best scores; or n drawn without putting back, by probability: the best once each
// is given Gumbel noise (Kool et al. 2019).
func (b *beams) pick(scores []float32, n int) []int {
	if b.draw == nil {
		return topK(scores, n)
	}
	noisy := make([]float32, len(scores))
	for i, s := range scores {
		noisy[i] = s - float32(math.Log(-math.Log(1-b.draw.Float64())))
	}
	return topK(noisy, n)
}

// stops says whether a stop string is in the text.
func (b *beams) stops(tokens []int64) bool {
	if len(b.Options.Stop) == 0 {
		return false
	}
	w := newWriter(b.quiet())
	for _, t := range tokens {
		w.add(t)
	}
	w.end()
	return w.stopped
}

// quiet is the chooser without its listener.
func (b *beams) quiet() chooser {
	c := b.chooser
	c.OnText = nil
	return c
}

// keepComplete takes what ends among the K best candidates into the complete texts.
func (b *beams) keepComplete(candidates []candidate) {
	k := len(b.complete)
	full := b.full() && b.Options.Early == EarlyFull
	merged := slices.Clone(b.complete)
	scores := make([]float32, 0, k+len(candidates))
	for _, c := range b.complete {
		scores = append(scores, c.score)
	}
	for i, c := range candidates {
		ended := c.ends && i < k
		score := c.score / b.penalty(len(c.tokens))
		if full {
			score += farOff
		}
		if !b.improves {
			score += farOff
		}
		if !ended {
			score += farOff
		}
		merged, scores = append(merged, beam{c.tokens, score, c.likely, ended}), append(scores, score)
	}
	for i, at := range topK(scores, k) {
		b.complete[i] = merged[at]
	}
}

// keepOpen lets the K best go on that don't end, and returns which beams they continue.
func (b *beams) keepOpen(candidates []candidate) []int {
	scores := make([]float32, len(candidates))
	for i, c := range candidates {
		scores[i] = c.score
		if c.ends {
			scores[i] += farOff
		}
	}
	from := make([]int, 0, len(b.open))
	for i, at := range topK(scores, len(b.open)) {
		b.open[i] = beam{tokens: candidates[at].tokens, score: scores[at], likely: candidates[at].likely}
		from = append(from, candidates[at].from)
	}
	return from
}

// done says whether the search is over, after a step.
func (b *beams) done(candidates []candidate) bool {
	length := len(b.open[0].tokens)
	if b.Options.Early == EarlyNever && b.Options.LengthPenalty > 0 {
		length = b.limit - len(b.Opening)
	}
	reach, worst := b.open[0].score/b.penalty(length), b.complete[0].score
	for _, c := range b.complete {
		worst = min(worst, c.score)
	}
	b.improves = b.improves && slices.ContainsFunc(b.complete, func(c beam) bool { return c.complete && reach > worst || !c.complete && reach > farOff })
	goesOn := slices.ContainsFunc(candidates, func(c candidate) bool { return !c.ends })
	return !b.improves || b.full() && b.Options.Early == EarlyFull || !goesOn
}

// full says whether there are as many complete texts as beams.
func (b *beams) full() bool {
	return !slices.ContainsFunc(b.complete, func(c beam) bool { return !c.complete })
}

func (b *beams) penalty(length int) float32 {
	return float32(math.Pow(float64(length), b.Options.LengthPenalty))
}

func (b *beams) result() Result {
	best := b.complete[0]
	w := newWriter(b.chooser)
	for _, t := range best.tokens {
		if w.add(t); w.stopped {
			break
		}
	}
	w.end()
	return b.finished(best.tokens, best.likely, w)
}
