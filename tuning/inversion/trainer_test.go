package inversion

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/tuning/tuningtest"
)

// small is a recipe with two pictures a step and a rate at which a few steps get somewhere.
func small(t testing.TB, name string) *tuning.Recipe {
	r := recipe(t, name)
	r.Batch, r.Inversion.MicroBatch, r.Optimizer.LearningRate = 2, 0, 0.02
	return r
}

// TestARunThatIsResumedGoesOnBitForBit, class pictures that the model drew among what it learns from.
func TestARunThatIsResumedGoesOnBitForBit(t *testing.T) {
	p := pipeline(t, "sd")
	open := func() *Trainer {
		r := small(t, "textual-inversion")
		r.Inversion.KeepNorm = true
		r.Inversion.Prior = tuning.Prior{Text: "a photo of a cat", Images: 2, Weight: 1}
		return trainer(t, p, r, data(3, 0, "mug"))
	}
	whole, first, second := open(), open(), open()
	want := steps(t, whole, 6)
	got := steps(t, first, 3)
	state, err := first.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Restore(state); err != nil {
		t.Fatal(err)
	}
	if second.Step() != 3 || second.Done() || second.Steps() != 20 {
		t.Errorf("restored at step %d of %d", second.Step(), second.Steps())
	}
	got = append(got, steps(t, second, 3)...)
	if !slices.Equal(got, want) {
		t.Errorf("losses %v, undisturbed %v", got, want)
	}
	if !slices.Equal(second.params[0].Values(), whole.params[0].Values()) {
		t.Error("the embeddings differ from those of an undisturbed run")
	}
	for i, l := range lengths(whole.params[0]) {
		if math.Abs(l-whole.norms[0][i]) > 1e-5*l {
			t.Errorf("row %d is %g long, it started at %g", i, l, whole.norms[0][i])
		}
	}
	other := open()
	other.Recipe.Seed++
	if err := other.Restore(state); errs.Of(err) != errs.Conflict {
		t.Errorf("a checkpoint of another recipe: %v", err)
	}
	if err := other.Restore(state[:len(state)/2]); errs.Of(err) != errs.Invalid {
		t.Errorf("half a checkpoint: %v", err)
	}
}

// TestMicroBatchesAddUp compares the gradient of a step that goes through the network at once with one that goes in parts, the last of
// which is filled up, and with one that computes its forward pass a second time.
func TestMicroBatchesAddUp(t *testing.T) {
	p := pipeline(t, "sd")
	of := func(micro int, recompute int64) (float64, []float32) {
		r := small(t, "textual-inversion")
		r.Batch, r.Inversion.MicroBatch = 5, micro
		tr := trainer(t, p, r, data(5, 0, "mug"))
		tr.network.Recompute = recompute
		examples, err := tr.examples(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		loss, g, err := tr.gradients(t.Context(), examples)
		if err != nil {
			t.Fatal(err)
		}
		return loss, g[rowsName(0)]
	}
	loss, want := of(5, 0)
	for _, tt := range []struct {
		micro     int
		recompute int64
	}{{1, 0}, {2, 0}, {5, 1}} {
		l, g := of(tt.micro, tt.recompute)
		if e := tuningtest.Distance(g, want, make([]float32, len(want))); !(e < 1e-5) || math.Abs(l-loss) > 1e-5*loss {
			t.Errorf("%d at once, recompute %d: the gradient is off by %.1e, loss %g, want %g", tt.micro, tt.recompute, e, l, loss)
		}
	}
}

// TestWhatIsServedIsWhatWasLearned draws with a learned prompt of each kind, read back from its file: the text encoder gets the
// ids and rows that the last step got.
func TestWhatIsServedIsWhatWasLearned(t *testing.T) {
	tests := map[string]struct {
		pipeline string
		kind     prompt.Kind
		request  diffusion.Request
		tensors  []string
	}{
		"textual-inversion": {"sd", prompt.Concept, diffusion.Request{Prompt: "a photo of <concept>"}, []string{"embedding"}},
		"style":             {"xl", prompt.Style, diffusion.Request{Prompt: "a cat"}, []string{"context", "context_2"}},
		"negative":          {"sd", prompt.Negative, diffusion.Request{Prompt: "a cat"}, []string{"negative"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := pipeline(t, tt.pipeline)
			r := small(t, name)
			r.Inversion.Steps, r.Inversion.HeldOut, r.Inversion.Vectors = 3, 6, 2
			tr := trainer(t, p, r, data(3, 2, "mug"))
			steps(t, tr, 3)
			learned, metrics, err := tr.Finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var file bytes.Buffer
			if err := prompt.Write(&file, learned); err != nil {
				t.Fatal(err)
			}
			back, err := prompt.Read(bytes.NewReader(file.Bytes()), int64(file.Len()))
			if err != nil {
				t.Fatal(err)
			}
			if back.Card.Kind != tt.kind || back.Card.Method != name || len(back.Tensors) != len(tt.tensors) {
				t.Errorf("kind %s, method %s, %d tensors", back.Card.Kind, back.Card.Method, len(back.Tensors))
			}
			for i, tensor := range tt.tensors {
				got, err := graph.Float32s(back.Tensors[tensor])
				if err != nil || !slices.Equal(got, tr.params[i].Values()) {
					t.Errorf("%s is not what was learned: %v", tensor, err)
				}
			}
			m := metrics.(*Metrics)
			before, after := m.ZeroShot.Others[DenoisingLoss], m.Tuned.Others[DenoisingLoss]
			if m.Tuned.Split != "test" || m.Tuned.Images != 2 || !(before > 0 && after > 0) || before == after {
				t.Errorf("losses %g and %g on %d images of %s", before, after, m.Tuned.Images, m.Tuned.Split)
			}
			tt.request.Concepts, tt.request.Steps, tt.request.Seed = []*prompt.Prompt{back}, 2, 1
			with, err := p.Generate(t.Context(), []diffusion.Request{tt.request})
			if err != nil {
				t.Fatal(err)
			}
			tt.request.Concepts, tt.request.Prompt = nil, strings.ReplaceAll(tt.request.Prompt, "<concept>", "object")
			without, err := p.Generate(t.Context(), []diffusion.Request{tt.request})
			if err != nil || bytes.Equal(with[0].Image.Pix, without[0].Image.Pix) {
				t.Errorf("the prompt changes nothing: %v", err)
			}
		})
	}
}

// TestClassPicturesAreLearnedFromToo gives them as a class of the dataset: they are no pictures of the concept, and weigh as said.
func TestClassPicturesAreLearnedFromToo(t *testing.T) {
	r := small(t, "textual-inversion")
	r.Inversion.Prior = tuning.Prior{Class: "others", Weight: 0.5}
	tr := trainer(t, pipeline(t, "sd"), r, data(6, 0, "mug", "others"))
	examples, err := tr.examples(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(examples) != 4 || tr.pictures.count() != 3 || tr.prior.count() != 3 || tr.micro() != 4 {
		t.Fatalf("%d examples of %d and %d pictures, %d at once", len(examples), tr.pictures.count(), tr.prior.count(), tr.micro())
	}
	for i, want := range []float32{0.5, 0.5, 0.25, 0.25} {
		if examples[i].weight != want {
			t.Errorf("example %d weighs %g, want %g", i, examples[i].weight, want)
		}
	}
	loss, gradients, err := tr.gradients(t.Context(), examples)
	if err != nil {
		t.Fatal(err)
	}
	alone, own, err := tr.gradients(t.Context(), examples[:2])
	if err != nil || !(loss > alone) {
		t.Fatalf("loss %g, without class pictures %g: %v", loss, alone, err)
	}
	if e := tuningtest.Distance(gradients[rowsName(0)], own[rowsName(0)], make([]float32, len(own[rowsName(0)]))); !(e > 1e-3) {
		t.Error("class pictures have no gradient")
	}
}

// TestCaptionsAreTheTextsOfAStyle, and the names of classes where there are none.
func TestCaptionsAreTheTextsOfAStyle(t *testing.T) {
	d := data(2, 0, "red mug", "cup")
	d.Train[0].Item = dataset.Item{Captions: []string{"a cat", "a dog"}}
	tr := trainer(t, pipeline(t, "sd"), small(t, "style"), d)
	if got := tr.wordings(tr.pictures, 0); !slices.Equal(got, []string{"a cat", "a dog"}) {
		t.Errorf("got %q", got)
	}
	if got := tr.wordings(tr.pictures, 1); !slices.Equal(got, []string{"cup"}) {
		t.Errorf("got %q", got)
	}
	ids, err := tr.ids("cup")
	if err != nil {
		t.Fatal(err)
	}
	words, plain := tr.network.Words(0, 8), ids[0][9:]
	if !slices.Equal(ids[0][1:9], words) || plain[0] >= words[0] {
		t.Errorf("a style's words are not between the start and the text: %v", ids[0])
	}
}

// TestADualEncoderJudgesWhatIsDrawn has the starter's towers look at pictures of a network that has learned nothing: the measures
// are there, and the same seed gives the same.
func TestADualEncoderJudgesWhatIsDrawn(t *testing.T) {
	judge := starterJudge(t)
	r := small(t, "textual-inversion")
	r.Inversion.Steps, r.Inversion.HeldOut = 1, 2
	r.Inversion.Scenes, r.Inversion.Pictures = []string{"a photo of {}", "{} on a table"}, 2
	tr := trainer(t, pipeline(t, "sd"), r, data(2, 0, "mug"))
	tr.Judge = judge
	steps(t, tr, 1)
	var runs []map[string]float64
	for range 2 {
		learned, _, err := tr.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := learned.Card.Metrics
		for _, s := range []*prompt.Score{m.ZeroShot, m.Tuned} {
			if c, i := s.Others[CLIPScore], s.Others[Identity]; !(c >= 0 && c <= 2.5) || !(i > -1 && i <= 1) || i == 0 {
				t.Errorf("CLIP score %g, identity %g", c, i)
			}
		}
		runs = append(runs, m.Tuned.Others)
	}
	for name, v := range runs[0] {
		if runs[1][name] != v {
			t.Errorf("%s is %g, then %g", name, v, runs[1][name])
		}
	}
}

// TestInpaintingNetworksDrawWholePictures has one draw class pictures and learn from them too.
func TestInpaintingNetworksDrawWholePictures(t *testing.T) {
	r := small(t, "textual-inversion")
	r.Inversion.MicroBatch = 1
	r.Inversion.Prior = tuning.Prior{Text: "a cup", Images: 2, Weight: 1}
	tr := trainer(t, inpainting(t), r, data(2, 0, "mug"))
	losses := steps(t, tr, 2)
	if len(tr.prior.drawn) != 4 || !(losses[0] > 0 && losses[1] > 0) {
		t.Errorf("%d latents of class pictures, losses %v", len(tr.prior.drawn), losses)
	}
	if _, _, err := tr.Finish(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeLearnedIsRefused(t *testing.T) {
	tests := map[string]struct {
		change func(r *tuning.Recipe, d *tuning.Data)
		want   string
	}{
		"no pictures":               {func(r *tuning.Recipe, d *tuning.Data) { d.Train = nil }, "no training images"},
		"a size between two":        {func(r *tuning.Recipe, _ *tuning.Data) { r.Inversion.Width, r.Inversion.Height = 33, 32 }, "multiples of 4"},
		"a class that is not there": {func(r *tuning.Recipe, _ *tuning.Data) { r.Inversion.Prior = tuning.Prior{Class: "cups", Weight: 1} }, `"cups"`},
		"two sources of pictures": {func(r *tuning.Recipe, _ *tuning.Data) {
			r.Inversion.Prior = tuning.Prior{Class: "cups", Text: "a cup", Images: 1, Weight: 1}
		}, "set one of them"},
		"words without tokens":       {func(r *tuning.Recipe, _ *tuning.Data) { r.Inversion.Init = " " }, "no tokens"},
		"more words than there fit":  {func(r *tuning.Recipe, _ *tuning.Data) { r.Inversion.Vectors = 40 }, "make it shorter"},
		"a template without a place": {func(r *tuning.Recipe, _ *tuning.Data) { r.Templates = []string{"a photo"} }, "no {}"},
		"a placeholder of two words": {func(r *tuning.Recipe, _ *tuning.Data) { r.Inversion.Token = "my mug" }, "without spaces"},
		"a method of towers":         {func(r *tuning.Recipe, _ *tuning.Data) { r.Method = tuning.VPT }, "must be"},
	}
	p := pipeline(t, "sd")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, d := small(t, "textual-inversion"), data(2, 0, "mug")
			tt.change(r, d)
			if _, err := New(t.Context(), p, r, d); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
