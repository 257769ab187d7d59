// Package score says how good generated captions, answers and pictures are: BLEU, ROUGE-L, CIDEr-D,
// exact match, VQA accuracy, CLIP score. On the same tokens each equals the scorer that papers
// use, to 1e-6: pycocoevalcap's, and the VQA challenge's. It knows neither models nor images.
package score

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// Pair is one generated text and the texts that people wrote, as tokens ([Tokenize]). There is at
// least one reference.
type Pair struct {
	Hypothesis []string
	References [][]string
}

// Mean is the mean of scores, 0 of none.
func Mean(scores []float64) float64 {
	sum := 0.0
	for _, s := range scores {
		sum += s
	}
	return sum / float64(max(1, len(scores)))
}

// Captions scores captions, each against the references of the same index, as they are written.
// The keys are "bleu4", "rouge_l", "cider_d" and "exact_match"; CIDEr-D lies in 0..10, the others
// in 0..1.
func Captions(captions []string, references [][]string) (map[string]float64, error) {
	if len(captions) == 0 || len(captions) != len(references) {
		return nil, errs.New(errs.Invalid, "%d captions to score against references of %d images: must be as many, and one at least", len(captions), len(references))
	}
	pairs := make([]Pair, len(captions))
	for i, c := range captions {
		if len(references[i]) == 0 {
			return nil, errs.New(errs.Invalid, "caption %d, %.80q, has no reference to be scored against", i, c)
		}
		pairs[i].Hypothesis = Tokenize(c)
		for _, r := range references[i] {
			pairs[i].References = append(pairs[i].References, Tokenize(r))
		}
	}
	return map[string]float64{
		"bleu4": BLEU(pairs)[3], "rouge_l": Mean(ROUGEL(pairs)), "cider_d": Mean(CIDErD(pairs)), "exact_match": Mean(ExactMatch(pairs)),
	}, nil
}

// Answers scores answers to questions, each against the answers of people of the same index. The
// keys are "vqa_accuracy" and "exact_match", in 0..1.
func Answers(answers []string, references [][]string) (map[string]float64, error) {
	if len(answers) == 0 || len(answers) != len(references) {
		return nil, errs.New(errs.Invalid, "%d answers to score against those to %d questions: must be as many, and one at least", len(answers), len(references))
	}
	vqa, exact := make([]float64, len(answers)), make([]float64, len(answers))
	for i, a := range answers {
		if len(references[i]) == 0 {
			return nil, errs.New(errs.Invalid, "answer %d, %.80q, has no reference to be scored against", i, a)
		}
		vqa[i] = VQAAccuracy(a, references[i])
		exact[i] = ExactAnswer(a, references[i])
	}
	return map[string]float64{"vqa_accuracy": Mean(vqa), "exact_match": Mean(exact)}, nil
}

// maxOrder is the length of the longest n-grams that count, in BLEU and in CIDEr-D.
const maxOrder = 4

// gram is an n-gram: its words, with a character between that no token has, and how many they are.
type gram struct {
	words string
	n     int
}

// grams counts the n-grams of 1 to 4 tokens, in the order in which they come.
func grams(tokens []string) (order []gram, counts map[gram]int) {
	counts = map[gram]int{}
	for n := 1; n <= maxOrder; n++ {
		for i := 0; i+n <= len(tokens); i++ {
			g := gram{strings.Join(tokens[i:i+n], "\x00"), n}
			if counts[g] == 0 {
				order = append(order, g)
			}
			counts[g]++
		}
	}
	return order, counts
}

// BLEU is corpus BLEU-1 to BLEU-4 (Papineni et al. 2002), in 0..1: the geometric mean of the
// clipped precisions over all pairs, times the brevity penalty. The length that a text is
// penalised by is that of the reference whose length is closest, the shorter of two.
func BLEU(pairs []Pair) [maxOrder]float64 {
	var correct, guessed [maxOrder]int
	length, wanted := 0, 0
	for _, p := range pairs {
		most := map[gram]int{}
		for _, r := range p.References {
			_, counts := grams(r)
			for g, n := range counts {
				most[g] = max(most[g], n)
			}
		}
		_, counts := grams(p.Hypothesis)
		for g, n := range counts {
			correct[g.n-1] += min(n, most[g])
		}
		for n := range maxOrder {
			guessed[n] += max(0, len(p.Hypothesis)-n)
		}
		length += len(p.Hypothesis)
		wanted += closest(len(p.Hypothesis), p.References)
	}
	return bleu(correct, guessed, length, wanted)
}

// bleu adds what keeps pycocoevalcap's quotients from 0/0.
func bleu(correct, guessed [maxOrder]int, length, wanted int) (scores [maxOrder]float64) {
	const small, tiny = 1e-9, 1e-15
	product, penalty := 1.0, 1.0
	if ratio := (float64(length) + tiny) / (float64(wanted) + small); ratio < 1 {
		penalty = math.Exp(1 - 1/ratio)
	}
	for n := range maxOrder {
		product *= (float64(correct[n]) + tiny) / (float64(guessed[n]) + small)
		scores[n] = math.Pow(product, 1/float64(n+1)) * penalty
	}
	return scores
}

// closest is the length of the reference that is nearest to a length, the shorter of two.
func closest(length int, references [][]string) int {
	distance := func(r []string) int { return max(len(r)-length, length-len(r)) }
	return len(slices.MinFunc(references, func(a, b []string) int {
		return cmp.Or(cmp.Compare(distance(a), distance(b)), cmp.Compare(len(a), len(b)))
	}))
}

// ROUGEL is ROUGE-L of each pair (Lin 2004), in 0..1: the F measure of precision and recall of the
// longest common subsequence, each the best over the references, with beta 1.2.
func ROUGEL(pairs []Pair) []float64 {
	const beta = 1.2
	scores := make([]float64, len(pairs))
	for i, p := range pairs {
		hypothesis := orEmpty(p.Hypothesis)
		precision, recall := 0.0, 0.0
		for _, r := range p.References {
			r = orEmpty(r)
			common := float64(commonSubsequence(hypothesis, r))
			precision = max(precision, common/float64(len(hypothesis)))
			recall = max(recall, common/float64(len(r)))
		}
		if precision > 0 {
			scores[i] = (1 + beta*beta) * precision * recall / (recall + beta*beta*precision)
		}
	}
	return scores
}

// orEmpty is one empty token for no tokens, as pycocoevalcap reads an empty text.
func orEmpty(tokens []string) []string {
	if len(tokens) == 0 {
		return []string{""}
	}
	return tokens
}

// commonSubsequence is the length of the longest common subsequence.
func commonSubsequence(a, b []string) int {
	above, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for _, x := range a {
		for j, y := range b {
			if x == y {
				row[j+1] = above[j] + 1
			} else {
				row[j+1] = max(row[j], above[j+1])
			}
		}
		above, row = row, above
	}
	return above[len(b)]
}

// weighted is a text as CIDEr sees it: for each n-gram its frequency times how rare it is.
type weighted struct {
	order   []gram
	weights map[gram]float64
	norms   [maxOrder]float64
	bigrams int // pycocoevalcap takes these for the length
}

// CIDErD is CIDEr-D of each pair (Vedantam et al. 2015), in 0..10: the mean over n = 1 to 4 and over
// the references of the clipped cosine of the n-grams' weights, with a penalty for other lengths
// of sigma 6, times 10. How rare an n-gram is comes from the references of all pairs, so the
// score of a pair depends on the others, and of one pair alone it is 0.
func CIDErD(pairs []Pair) []float64 {
	documents := map[gram]int{}
	for _, p := range pairs {
		seen := map[gram]bool{}
		for _, r := range p.References {
			order, _ := grams(r)
			for _, g := range order {
				if !seen[g] {
					seen[g] = true
					documents[g]++
				}
			}
		}
	}
	scores := make([]float64, len(pairs))
	for i, p := range pairs {
		hypothesis := weigh(p.Hypothesis, documents, len(pairs))
		for _, r := range p.References {
			scores[i] += similarity(hypothesis, weigh(r, documents, len(pairs)))
		}
		scores[i] *= 10 / float64(len(p.References))
	}
	return scores
}

func weigh(tokens []string, documents map[gram]int, images int) *weighted {
	order, counts := grams(tokens)
	w := &weighted{order: order, weights: map[gram]float64{}, bigrams: max(0, len(tokens)-1)}
	for _, g := range order {
		rarity := math.Log(float64(images)) - math.Log(max(1, float64(documents[g])))
		w.weights[g] = float64(counts[g]) * rarity
		w.norms[g.n-1] += w.weights[g] * w.weights[g]
	}
	for n := range w.norms {
		w.norms[n] = math.Sqrt(w.norms[n])
	}
	return w
}

// similarity is the mean over n of the clipped cosines, with the penalty for the length.
func similarity(hypothesis, reference *weighted) float64 {
	const sigma = 6
	var cosines [maxOrder]float64
	for _, g := range hypothesis.order {
		w := reference.weights[g]
		cosines[g.n-1] += min(hypothesis.weights[g], w) * w
	}
	delta := float64(hypothesis.bigrams - reference.bigrams)
	sum := 0.0
	for n, c := range cosines {
		if scale := hypothesis.norms[n] * reference.norms[n]; scale != 0 {
			c /= scale
		}
		sum += c
	}
	return sum / maxOrder * math.Exp(-delta*delta/(2*sigma*sigma))
}

// ExactMatch is 1 for each pair whose tokens are those of a reference, else 0.
func ExactMatch(pairs []Pair) []float64 {
	scores := make([]float64, len(pairs))
	for i, p := range pairs {
		if slices.ContainsFunc(p.References, func(r []string) bool { return slices.Equal(r, p.Hypothesis) }) {
			scores[i] = 1
		}
	}
	return scores
}

// CLIPScore is how well an image fits a text by their embeddings in a dual encoder, of any length
// and not 0: 2.5 max(cos, 0), in 0..2.5 (Hessel et al. 2021, who put "A photo depicts " before each
// text).
func CLIPScore(image, text []float32) (float64, error) {
	if len(image) != len(text) {
		return 0, errs.New(errs.Invalid, "embeddings of %d and %d numbers: image and text must come from one dual encoder", len(image), len(text))
	}
	var product, images, texts float64
	for i := range image {
		x, y := float64(image[i]), float64(text[i])
		product += x * y
		images += x * x
		texts += y * y
	}
	cosine := product / math.Sqrt(images*texts)
	if math.IsNaN(cosine) || math.IsInf(cosine, 0) {
		return 0, errs.New(errs.Invalid, "an embedding is 0 or not finite: it has no direction")
	}
	return 2.5 * max(cosine, 0), nil
}
