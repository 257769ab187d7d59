package captioning

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/generation/caption"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
)

// open opens one of the small random captioners that generation is tested with.
func open(t *testing.T, name string) *caption.Model {
	t.Helper()
	return captioner(t, "../../generation/caption/testdata/"+name)
}

func captioner(t *testing.T, dir string) *caption.Model {
	t.Helper()
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := caption.Open(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// captioned are images of noise, each with two captions of the model's own words.
func captioned(m *caption.Model, train, test int) *tuning.Data {
	d := &tuning.Data{Dataset: "noise", Version: "v", Split: "s"}
	word := func(g interface{ IntN(int) int }) string {
		text := ""
		for range 2 + g.IntN(4) {
			text += " " + strings.TrimSpace(m.Tokenizer.Decode([]int64{int64(20 + g.IntN(60))}, false))
		}
		return strings.TrimSpace(text)
	}
	for i := range train + test {
		g := rng.New(3, "noise", i)
		s := tuning.Sample{ID: fmt.Sprint(i), Class: -1, Item: dataset.Item{Path: fmt.Sprint(i), Captions: []string{word(g), word(g)}}}
		s.Image = func(context.Context) (image.Image, error) {
			img, g := image.NewNRGBA(image.Rect(0, 0, 16, 16)), rng.New(4, "pixels", i)
			for at := range 16 * 16 {
				img.Set(at%16, at/16, color.NRGBA{uint8(g.IntN(256)), uint8(g.IntN(256)), uint8(g.IntN(256)), 255})
			}
			return img, nil
		}
		if i < train {
			d.Train = append(d.Train, s)
		} else {
			d.Test = append(d.Test, s)
		}
	}
	return d
}

// small is a recipe with few tokens and a batch that does not divide the images.
func small(t *testing.T, name string) *tuning.Recipe {
	t.Helper()
	r, err := tuning.BuiltIn(name)
	if err != nil {
		t.Fatal(err)
	}
	if r.Prefix.Tokens > 0 {
		r.Prefix.Tokens = 3
	}
	if r.Prefix.Hidden > 0 {
		r.Prefix.Hidden = 8
	}
	if r.Visual.Tokens > 0 {
		r.Visual.Tokens = 3
	}
	r.Optimizer.LearningRate, r.Batch, r.Views, r.Schedule = 0.02, 3, 2, tuning.Schedule{Epochs: 2}
	return r
}

// layouts are the captioners and what can be learned on each.
var layouts = map[string][]string{
	"vitgpt2":        {"caption-prefix", "caption-kv", "caption-kv-starter", "caption-visual"},
	"vitgpt2_merged": {"caption-prefix", "caption-kv", "caption-kv-starter"},
	"donut":          {"caption-prefix", "caption-kv", "caption-kv-starter"},
	"blip":           {"caption-prefix", "caption-kv", "caption-kv-starter", "caption-visual"},
	"clipcap":        {"caption-prefix", "caption-map", "caption-visual"},
}

func trainer(t *testing.T, m *caption.Model, r *tuning.Recipe, d *tuning.Data) *Trainer {
	t.Helper()
	tr, err := New(t.Context(), m, r, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func run(t *testing.T, tr *Trainer, steps int) (last tuning.Progress) {
	t.Helper()
	for range steps {
		p, err := tr.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last = p
	}
	return last
}

// every runs a test on each method of each layout.
func every(t *testing.T, layouts map[string][]string, f func(t *testing.T, m *caption.Model, r *tuning.Recipe, d *tuning.Data)) {
	for layout, recipes := range layouts {
		m := open(t, layout)
		d := captioned(m, 7, 3)
		for _, name := range recipes {
			t.Run(layout+", "+name, func(t *testing.T) { f(t, m, small(t, name), d) })
		}
	}
}

// TestARestoredRunGoesOnAsItWould stops a run in the middle of an epoch; another one goes on from its checkpoint.
func TestARestoredRunGoesOnAsItWould(t *testing.T) {
	every(t, map[string][]string{"vitgpt2": layouts["vitgpt2"], "clipcap": {"caption-map"}}, func(t *testing.T, m *caption.Model, r *tuning.Recipe, d *tuning.Data) {
		whole := trainer(t, m, r, d)
		run(t, whole, whole.Steps()-1)
		want := run(t, whole, 1)
		first := trainer(t, m, r, d)
		run(t, first, 4)
		b, err := first.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		second := trainer(t, m, r, d)
		if err := second.Restore(b); err != nil {
			t.Fatal(err)
		}
		var got tuning.Progress
		for !second.Done() {
			got = run(t, second, 1)
		}
		if got != want {
			t.Errorf("the last step came to %+v, undisturbed to %+v", got, want)
		}
		a, _ := whole.Checkpoint()
		if b, _ := second.Checkpoint(); !bytes.Equal(a, b) {
			t.Error("the checkpoints at the end differ")
		}
	})
}

// TestWhatIsServedIsWhatWasTrained has the serving path tell what it finds likely, token by token with its cache, and asks the
// training graph the same of those tokens at once.
func TestWhatIsServedIsWhatWasTrained(t *testing.T) {
	every(t, layouts, func(t *testing.T, m *caption.Model, r *tuning.Recipe, d *tuning.Data) {
		tr := trainer(t, m, r, d)
		start, err := tr.Prompt(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		run(t, tr, tr.Steps())
		p, err := tr.Prompt(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p = written(t, p)
		for name, x := range p.Tensors {
			if slices.Equal(values(x), values(start.Tensors[name])) {
				t.Errorf("%q has learned nothing", name)
			}
		}
		img, err := d.Train[0].Image(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o := m.Options()
		o.Beams, o.Sample, o.MaxNewTokens, o.MaxLength = 1, false, 8, 0
		answers, err := m.Generate(t.Context(), []caption.Request{{Image: img, Prompt: p, Options: &o}})
		if err != nil {
			t.Fatal(err)
		}
		opening, err := m.Opening("")
		if err != nil {
			t.Fatal(err)
		}
		said := spoken{opening, answers[0].Tokens}
		ids, targets := said.lesson(tr.parts.Open)
		plain := &tuning.Features{Images: m.Images.Preprocessor, Samples: d.Train, Views: 1, Compute: tr.frozen()}
		source, err := plain.Rows(t.Context(), []int{0}, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := batch{source: source, ids: [][]int64{ids}, targets: [][]int64{targets}}
		y, err := tr.objective.run(t.Context(), b, b.learned(), tr.learned(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if y.right != len(answers[0].Tokens) {
			t.Errorf("served: %v; the training graph finds %d of them likeliest", answers[0].Tokens, y.right)
		}
	})
}

// written is a prompt that was written and read again.
func written(t *testing.T, p *prompt.Prompt) *prompt.Prompt {
	t.Helper()
	var b bytes.Buffer
	if err := prompt.Write(&b, p); err != nil {
		t.Fatal(err)
	}
	p, err := prompt.ReadBytes(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestMicroBatchesLearnTheSame sums a step's gradient over parts.
func TestMicroBatchesLearnTheSame(t *testing.T) {
	m := open(t, "vitgpt2")
	d := captioned(m, 7, 0)
	r := small(t, "caption-prefix")
	whole := trainer(t, m, r, d)
	parted := *r
	parted.Caption.MicroBatch = 2
	parts := trainer(t, m, &parted, d)
	for range 3 {
		a, b := run(t, whole, 1), run(t, parts, 1)
		if math.Abs(a.Loss-b.Loss) > 1e-4 || a.Accuracy != b.Accuracy {
			t.Errorf("step %d: %+v in parts, %+v whole", a.Step, b, a)
		}
	}
}

// TestCaptionsAreDrawnBySeed takes each image's two captions over many epochs.
func TestCaptionsAreDrawnBySeed(t *testing.T) {
	m := open(t, "vitgpt2")
	d := captioned(m, 7, 0)
	r := small(t, "caption-prefix")
	drawn := func(seed uint64) (all [][]int64) {
		again := *r
		again.Seed = seed
		tr := trainer(t, m, &again, d)
		for epoch := range 12 {
			b, err := tr.batch(t.Context(), []int{2}, epoch)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b.targets[0])
		}
		return all
	}
	a, b, other := drawn(1), drawn(1), drawn(2)
	same := func(a, b [][]int64) bool {
		return slices.EqualFunc(a, b, func(x, y []int64) bool { return slices.Equal(x, y) })
	}
	if !same(a, b) || same(a, other) {
		t.Error("the captions drawn do not follow from the seed")
	}
	if !slices.ContainsFunc(a, func(x []int64) bool { return !slices.Equal(x, a[0]) }) {
		t.Error("one caption of two was drawn 12 times")
	}
}

// TestOnlyAnswersAreLearned looks at what is to be told of a question.
func TestOnlyAnswersAreLearned(t *testing.T) {
	s := spoken{opening: []int64{1, 7, 8}, words: []int64{4, 5, 2}}
	ids, targets := s.lesson(false)
	if !slices.Equal(ids, []int64{1, 7, 8, 4, 5}) || !slices.Equal(targets, []int64{ignored, ignored, 4, 5, 2}) {
		t.Errorf("read %v, told %v", ids, targets)
	}
	ids, targets = spoken{words: []int64{4, 5, 2}}.lesson(true)
	if !slices.Equal(ids, []int64{4, 5}) || !slices.Equal(targets, []int64{4, 5, 2}) {
		t.Errorf("open: read %v, told %v", ids, targets)
	}
	ids, targets = s.lesson(true)
	if !slices.Equal(ids, []int64{1, 7, 8, 4, 5}) || !slices.Equal(targets, []int64{ignored, ignored, ignored, 4, 5, 2}) {
		t.Errorf("open, with a question: read %v, told %v", ids, targets)
	}
}

// TestFinishScoresBothModels writes a card with the scores of the frozen model and the tuned one.
func TestFinishScoresBothModels(t *testing.T) {
	m := open(t, "vitgpt2")
	d := captioned(m, 7, 3)
	asked := *d
	asked.Train, asked.Test = asking(d.Train), asking(d.Test)
	for name, c := range map[string]struct {
		data *tuning.Data
		want string
	}{"captions": {d, "cider_d"}, "questions": {&asked, "vqa_accuracy"}} {
		t.Run(name, func(t *testing.T) {
			tr := trainer(t, m, small(t, "caption-prefix"), c.data)
			run(t, tr, tr.Steps())
			p, metrics, err := tr.Finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			scores := metrics.(*Metrics)
			if _, scored := scores.Tuned.Others[c.want]; !scored || scores.Tuned.Images != 3 || len(scores.ZeroShot.Examples) != 3 {
				t.Errorf("scores %+v", scores)
			}
			if p.Card.Kind != prompt.Caption || p.Card.Metrics.Tuned == nil || p.Card.Metrics.ZeroShot == nil || p.Card.Parameters != 3*int64(m.Decoder.Width) {
				t.Errorf("the card says %+v", p.Card)
			}
			written(t, p)
		})
	}
}

// asking turns captions into questions with answers.
func asking(samples []tuning.Sample) []tuning.Sample {
	out := slices.Clone(samples)
	for i, s := range out {
		out[i].Item.Question, out[i].Item.Answers, out[i].Item.Captions = s.Item.Captions[0], s.Item.Captions[1:], nil
	}
	return out
}

func TestCheckpointsOfOtherRunsAreRefused(t *testing.T) {
	m := open(t, "vitgpt2")
	d := captioned(m, 7, 0)
	tr := trainer(t, m, small(t, "caption-prefix"), d)
	b, err := trainer(t, m, small(t, "caption-kv"), d).Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Restore(b); errs.Of(err) != errs.Conflict {
		t.Errorf("another recipe's: %v", err)
	}
	if err := tr.Restore([]byte("no checkpoint")); errs.Of(err) != errs.Invalid {
		t.Errorf("none at all: %v", err)
	}
	if err := (tuning.State{Params: []*tuning.Parameter{tuning.NewParameter("prefix", make([]float32, 2), 2)}}).Learns(tr.params); errs.Of(err) != errs.Invalid {
		t.Errorf("another shape: %v", err)
	}
}

func TestDataWithoutTextsIsRefused(t *testing.T) {
	m := open(t, "vitgpt2")
	d := captioned(m, 2, 0)
	d.Train[1].Item.Captions = nil
	for name, d := range map[string]*tuning.Data{"an image without captions": d, "no images": {Dataset: "none"}} {
		if _, err := New(t.Context(), m, small(t, "caption-prefix"), d); errs.Of(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAnEncoderThatPromptsCannotEnterLearnsNone: visual prompts are refused for the encoder's reason, with any method.
func TestAnEncoderThatPromptsCannotEnterLearnsNone(t *testing.T) {
	m := open(t, "donut")
	both := small(t, "caption-prefix")
	both.Visual = tuning.Visual{Tokens: 2, Depth: 1}
	for _, r := range []*tuning.Recipe{small(t, "caption-visual"), both} {
		if _, err := New(t.Context(), m, r, captioned(m, 2, 0)); errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), "prompts have no place") {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
}
