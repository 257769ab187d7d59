package score

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/internal/errs"
)

// reference is what bench/reference/scores.py wrote.
type reference struct {
	Captions []struct {
		Pairs []struct {
			Hypothesis string
			References []string
		}
		BLEU   []float64
		ROUGEL []float64 `json:"rouge_l"`
		CIDErD []float64 `json:"cider_d"`
	}
	VQA []struct {
		Answer   string
		People   []string
		Accuracy float64
	}
	Normalized []struct{ Answer, Normalized string }
	CLIP       []struct {
		Image, Text []float32
		Score       float64
	}
	Tokens []struct {
		Text   string
		Tokens []string
	}
}

func readReference(t *testing.T) (r reference) {
	t.Helper()
	b, err := os.ReadFile("testdata/scores.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func near(got, want float64) bool { return math.Abs(got-want) <= 1e-6 }

func TestCaptionsScoreAsPycocoevalcapHasThem(t *testing.T) {
	for i, c := range readReference(t).Captions {
		var pairs []Pair
		for _, p := range c.Pairs {
			pair := Pair{Hypothesis: strings.Fields(p.Hypothesis)}
			for _, r := range p.References {
				pair.References = append(pair.References, strings.Fields(r))
			}
			pairs = append(pairs, pair)
		}
		bleu, rouge, cider := BLEU(pairs), ROUGEL(pairs), CIDErD(pairs)
		for n, want := range c.BLEU {
			if !near(bleu[n], want) {
				t.Errorf("corpus %d: BLEU-%d is %.9f, want %.9f", i, n+1, bleu[n], want)
			}
		}
		for j := range pairs {
			if !near(rouge[j], c.ROUGEL[j]) || !near(cider[j], c.CIDErD[j]) {
				t.Errorf("corpus %d, pair %d %q: ROUGE-L %.9f, want %.9f; CIDEr-D %.9f, want %.9f",
					i, j, c.Pairs[j].Hypothesis, rouge[j], c.ROUGEL[j], cider[j], c.CIDErD[j])
			}
		}
		if i == 0 && (len(pairs) < 50 || bleu[3] < 0.1 || Mean(cider) < 0.5) {
			t.Errorf("%d pairs with BLEU-4 %g and CIDEr-D %g compare little", len(pairs), bleu[3], Mean(cider))
		}
	}
}

func TestAnswersScoreAsTheChallengeHasThem(t *testing.T) {
	r := readReference(t)
	partly := 0
	for _, v := range r.VQA {
		if got := VQAAccuracy(v.Answer, v.People); !near(got, v.Accuracy) {
			t.Errorf("%q among %q: %.9f, want %.9f", v.Answer, v.People, got, v.Accuracy)
		}
		if v.Accuracy > 0 && v.Accuracy < 1 {
			partly++
		}
	}
	if len(r.VQA) < 500 || partly < 50 {
		t.Errorf("%d answers, %d of them partly right, compare little", len(r.VQA), partly)
	}
	for _, n := range r.Normalized {
		if got := NormalizeAnswer(strings.TrimSpace(n.Answer)); got != n.Normalized {
			t.Errorf("%q is normalised to %q, want %q", n.Answer, got, n.Normalized)
		}
	}
}

func TestCLIPScore(t *testing.T) {
	for _, c := range readReference(t).CLIP {
		if got, err := CLIPScore(c.Image, c.Text); err != nil || !near(got, c.Score) {
			t.Errorf("%.9f, %v, want %.9f", got, err, c.Score)
		}
	}
	for name, pair := range map[string][2][]float32{
		"other lengths": {{1, 2}, {1}}, "zeros": {{0, 0}, {1, 0}}, "infinity": {{float32(math.Inf(1)), 0}, {1, 0}}, "nothing": {nil, nil},
	} {
		if got, err := CLIPScore(pair[0], pair[1]); errs.Of(err) != errs.Invalid {
			t.Errorf("%s: %g, %v", name, got, err)
		}
	}
}

// different are the captions of the reference whose tokens are known not to be PTBTokenizer's.
var different = map[string]string{
	"Look... a bird! What?! Yes.":         "look a bird what yes",
	"the rock'n'roll o'clock ma'am y'all": "the rock'n'roll o'clock ma'am y' all",
	"No. 5 and no. 6 vs. 7":               "no 5 and no 6 vs. 7",
}

func TestTokensArePTBTokenizers(t *testing.T) {
	for _, c := range readReference(t).Tokens {
		want := strings.Join(c.Tokens, " ")
		if ours, known := different[c.Text]; known {
			if want == ours {
				t.Errorf("%q is no different", c.Text)
			}
			want = ours
		}
		if got := strings.Join(Tokenize(c.Text), " "); got != want {
			t.Errorf("%q\n got %q\nwant %q", c.Text, got, want)
		}
	}
}

func TestScoresOfTextsAsTheyAreWritten(t *testing.T) {
	got, err := Captions([]string{"A red bag.", "a dog runs"}, [][]string{{"a red bag", "The bag"}, {"A cat sleeps!"}})
	if err != nil || got["exact_match"] != 0.5 || got["cider_d"] <= 0 || got["bleu4"] <= 0 || got["rouge_l"] <= 0.5 {
		t.Errorf("captions: %v, %v", got, err)
	}
	got, err = Answers([]string{"Two", "the dog", "red"}, [][]string{{"2"}, {"dog", "dog", "dog", "dog", "a cat"}, {"blue"}})
	if err != nil || !near(got["exact_match"], 2.0/3) || !near(got["vqa_accuracy"], 2.0/3) {
		t.Errorf("answers: %v, %v", got, err)
	}
	for name, err := range map[string]error{
		"no captions":                      second(Captions(nil, nil)),
		"captions of more images":          second(Captions([]string{"a"}, nil)),
		"a caption without references":     second(Captions([]string{"a"}, [][]string{nil})),
		"no answers":                       second(Answers(nil, nil)),
		"answers to more questions":        second(Answers([]string{"a"}, nil)),
		"an answer that nobody else gives": second(Answers([]string{"a"}, [][]string{nil})),
	} {
		if errs.Of(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzScores(f *testing.F) {
	f.Add("A man's dog, isn't it?", "two dogs (1,000)")
	f.Add("\xff 5'10\" ..", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		scores, err := Captions([]string{a, b}, [][]string{{b, a}, {a}})
		if err != nil {
			t.Fatal(err)
		}
		answers, err := Answers([]string{a}, [][]string{{b, a, a, b}})
		if err != nil {
			t.Fatal(err)
		}
		limits := map[string]float64{"cider_d": 10}
		for _, m := range []map[string]float64{scores, answers} {
			for name, s := range m {
				if limit := max(1, limits[name]); !(s >= 0 && s <= limit+1e-6) {
					t.Fatalf("%s is %g", name, s)
				}
			}
		}
	})
}
