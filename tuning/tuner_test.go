package tuning

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
)

// small makes a recipe that a test can afford.
func small(r *Recipe) *Recipe {
	r.Schedule.Epochs, r.Schedule.EpochsByShots, r.Schedule.Warmup, r.Schedule.WarmupEpochs = 3, nil, "", 0
	r.Batch, r.Views = 8, 1
	return r
}

var learners = []string{"coop", "vpt-shallow", "vpt-deep", "maple"}

// TestTheGradientIsTheSlopeOfTheLoss compares, for each method and learned tensor, the gradient
// along a random direction with the difference quotient of the loss.
func TestTheGradientIsTheSlopeOfTheLoss(t *testing.T) {
	recipes := map[string]*Recipe{}
	for _, name := range learners {
		recipes[name] = small(recipe(t, name))
	}
	specific := small(recipe(t, "coop"))
	specific.Context.ClassSpecific, specific.Context.Tokens, specific.Context.Init = true, 4, "a photo"
	recipes["coop, class-specific"] = specific
	for name, r := range recipes {
		t.Run(name, func(t *testing.T) {
			tuner := newTuner(t, r, demoData(t, "fashion", 1, 0))
			indexes, _ := tuner.nextBatch()
			rows, err := tuner.features.Rows(t.Context(), indexes, 0)
			if err != nil {
				t.Fatal(err)
			}
			b := batch{input: "images", features: rows}
			if r.learnsVisual() {
				b.input = "tokens"
			}
			for _, i := range indexes {
				b.labels = append(b.labels, tuner.data.Train[i].Class)
			}
			loss := func() (float64, map[string][]float32) {
				l, _, g, err := tuner.objective.run(t.Context(), b, tuner.inputs())
				if err != nil {
					t.Fatal(err)
				}
				tuner.coupleGradients(g)
				return l, g
			}
			_, gradients := loss()
			for _, p := range tuner.params {
				checkSlope(t, p, gradients[p.Name], func() float64 { l, _ := loss(); return l })
			}
		})
	}
}

// checkSlope moves a parameter both ways along its gradient, made a little random.
func checkSlope(t *testing.T, p *Parameter, gradient []float32, loss func() float64) {
	t.Helper()
	g := rng.New(1, "direction", p.Name)
	norm, direction := 0.0, make([]float64, len(gradient))
	for _, x := range gradient {
		norm += float64(x) * float64(x)
	}
	norm = math.Sqrt(norm)
	slope := 0.0
	for i, x := range gradient {
		direction[i] = float64(x)/norm + 0.3*g.NormFloat64()/math.Sqrt(float64(len(gradient)))
		slope += direction[i] * float64(x)
	}
	start := slices.Clone(p.values)
	at := func(h float64) float64 {
		for i := range start {
			p.values[i] = start[i] + float32(h*direction[i])
		}
		return loss()
	}
	h := 2e-3 / math.Max(slope, 0.02) // moves the loss by some thousandths
	measured := (at(h) - at(-h)) / (2 * h)
	at(0)
	if d := math.Abs(measured-slope) / slope; d > 0.02 {
		t.Errorf("%s: the slope is %g, the gradient says %g (off by %.1f %%)", p.Name, measured, slope, 100*d)
	}
}

func TestTuningLowersTheLoss(t *testing.T) {
	for _, name := range []string{"coop-starter", "vpt-deep-starter", "maple-starter"} {
		t.Run(name, func(t *testing.T) {
			r := recipe(t, name)
			r.Views = 1
			tuner := newTuner(t, r, demoData(t, "fashion", 2, 0))
			first := steps(t, tuner, 1)
			for range 15 {
				steps(t, tuner, 1)
			}
			last := steps(t, tuner, 1)
			if last.Loss > 0.8*first.Loss {
				t.Errorf("the loss went from %.3f to %.3f in %d steps", first.Loss, last.Loss, last.Step)
			}
		})
	}
}

// TestAResumedRunIsTheSame stops at every step of a short run, continues in a new tuner, and
// compares the prompts' files.
func TestAResumedRunIsTheSame(t *testing.T) {
	for _, name := range []string{"coop", "vpt-deep", "maple"} {
		t.Run(name, func(t *testing.T) {
			d := demoData(t, "openmoji", 1, 0)
			r := small(recipe(t, name))
			r.Views = 2
			whole := newTuner(t, r, d)
			steps(t, whole, whole.Steps())
			part := newTuner(t, r, d)
			for !part.Done() {
				steps(t, part, 1)
				state, err := part.Checkpoint()
				if err != nil {
					t.Fatal(err)
				}
				part = newTuner(t, r, d)
				if err := part.Restore(state); err != nil {
					t.Fatal(err)
				}
			}
			if a, b := digest(t, whole), digest(t, part); a != b {
				t.Errorf("digests %s and %s", a, b)
			}
		})
	}
}

func digest(t *testing.T, tuner *Tuner) string {
	t.Helper()
	p, err := tuner.Prompt()
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAnotherSeedIsAnotherPrompt(t *testing.T) {
	d := demoData(t, "openmoji", 1, 0)
	a, b := small(recipe(t, "coop")), small(recipe(t, "coop"))
	b.Seed = a.Seed + 1
	if digest(t, newTuner(t, a, d)) == digest(t, newTuner(t, b, d)) {
		t.Error("two seeds start alike")
	}
}

func TestCheckpointsThatDoNotFit(t *testing.T) {
	d := demoData(t, "openmoji", 1, 0)
	tuner := newTuner(t, small(recipe(t, "coop")), d)
	state, err := tuner.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	other := small(recipe(t, "coop"))
	other.Batch = 9
	if err := newTuner(t, other, d).Restore(state); errs.Of(err) != errs.Conflict {
		t.Errorf("another recipe: %v", err)
	}
	if err := tuner.Restore(state[:len(state)/2]); errs.Of(err) != errs.Invalid {
		t.Errorf("half a checkpoint: %v", err)
	}
}

// TestPromptsServeAsTheyWereTrained tunes, writes and reads the prompt, and finds the training
// graph's logits in what serving computes.
func TestPromptsServeAsTheyWereTrained(t *testing.T) {
	for _, name := range learners {
		t.Run(name, func(t *testing.T) {
			m, d := starterModel(t), demoData(t, "fashion", 1, 1)
			tuner := newTuner(t, small(recipe(t, name)), d)
			steps(t, tuner, 2)
			p := rewrite(t, tuner)
			rows, err := tuner.features.Rows(t.Context(), []int{0, 1, 2}, 0)
			if err != nil {
				t.Fatal(err)
			}
			in := map[string]*graph.Tensor{"images": rows}
			embeddings := rows
			if tuner.Recipe.learnsVisual() {
				in = map[string]*graph.Tensor{"tokens": rows}
				if embeddings, err = m.EmbedImages(t.Context(), rows, p); err != nil {
					t.Fatal(err)
				}
			}
			for _, more := range []map[string]*graph.Tensor{tuner.objective.fixed, tuner.inputs(), {"labels": tuner.objective.oneHot([]int{0, 0, 0})}} {
				for k, v := range more {
					in[k] = v
				}
			}
			out, err := tuner.objective.session.Run(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := graph.Values[float32](out["logits"])
			c, err := m.Classifier(t.Context(), p, d.Classes, p.Card.Templates)
			if err != nil {
				t.Fatal(err)
			}
			values, _ := graph.Values[float32](embeddings)
			width := int(embeddings.Dims[1])
			for i := range 3 {
				for j, got := range c.Logits(values[i*width : (i+1)*width]) {
					if w := want[i*len(d.Classes)+j]; math.Abs(float64(got-w)) > 2e-4*math.Max(1, math.Abs(float64(w))) {
						t.Fatalf("image %d, class %d: served %g, trained with %g", i, j, got, w)
					}
				}
			}
		})
	}
}

// rewrite is the tuner's prompt after its file was written and read.
func rewrite(t *testing.T, tuner *Tuner) *prompt.Prompt {
	t.Helper()
	p, err := tuner.Prompt()
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	if err := prompt.Write(&file, p); err != nil {
		t.Fatal(err)
	}
	p, err = prompt.ReadBytes([]byte(file.String()))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRefusals(t *testing.T) {
	d := demoData(t, "fashion", 1, 1)
	long := *d
	long.Classes = slices.Clone(d.Classes)
	long.Classes[3] = strings.Repeat("very long ", 20) + "name"
	for name, c := range map[string]struct {
		change func(*Recipe)
		data   *Data
		want   string
	}{
		"context and class name over the window": {func(r *Recipe) {}, &long, "very long"},
		"one class":                              {func(r *Recipe) {}, d.Only([]int{0}), "at least 2"},
		"no training images":                     {func(r *Recipe) {}, &Data{Classes: d.Classes}, "no training images"},
		"a method nobody knows":                  {func(r *Recipe) { r.Method = "magic" }, d, `"magic"`},
		"a batch of nothing":                     {func(r *Recipe) { r.Batch = 0 }, d, "batch is 0"},
		"a rate that is no number":               {func(r *Recipe) { r.Optimizer.LearningRate = math.NaN() }, d, "learning_rate"},
		"a deep context for each class":          {func(r *Recipe) { r.Context.ClassSpecific, r.Context.Depth = true, 3 }, d, "class_specific"},
	} {
		t.Run(name, func(t *testing.T) {
			r := small(recipe(t, "coop"))
			c.change(r)
			tuner, err := NewTuner(t.Context(), starterModel(t), r, c.data)
			if err == nil {
				tuner.Close()
				t.Fatal("it was taken")
			}
			if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v (%s), want one that says %s", err, errs.Of(err), c.want)
			}
		})
	}
}

func TestDepthsAreCutToTheModel(t *testing.T) {
	m := starterModel(t)
	r, err := recipe(t, "maple").Resolve(m, 16)
	if err != nil {
		t.Fatal(err)
	}
	if r.Context.Depth != m.Texts.Depth() || r.Visual != (Visual{Tokens: 2, Depth: m.Images.Depth()}) {
		t.Errorf("context %+v, visual %+v", r.Context, r.Visual)
	}
	for shots, epochs := range map[int]int{1: 50, 2: 100, 4: 100, 16: 200} {
		if r, err := recipe(t, "coop").Resolve(m, shots); err != nil || r.Schedule.Epochs != epochs {
			t.Errorf("%d shots: %d epochs, %v, want %d", shots, r.Schedule.Epochs, err, epochs)
		}
	}
}

func TestTheProbe(t *testing.T) {
	d := demoData(t, "fashion", 8, 8)
	tuner := newTuner(t, recipe(t, "linear-probe"), d)
	steps(t, tuner, 1)
	if !tuner.Done() {
		t.Error("it has more steps")
	}
	p := rewrite(t, tuner)
	e := starterModel(t).NewEvaluator(d)
	got, err := e.Score(t.Context(), p, p.Card.Templates)
	if err != nil {
		t.Fatal(err)
	}
	zero, err := e.Score(t.Context(), nil, p.Card.Templates)
	if err != nil {
		t.Fatal(err)
	}
	if got.Accuracy < zero.Accuracy+0.2 {
		t.Errorf("the probe scores %.2f, zero-shot %.2f", got.Accuracy, zero.Accuracy)
	}
	if _, err := starterModel(t).Classifier(t.Context(), p, []string{"cat", "dog"}, nil); errs.Of(err) != errs.Invalid {
		t.Errorf("other names: %v", err)
	}
}

// TestTheProbesGradient compares it with differences.
func TestTheProbesGradient(t *testing.T) {
	g := rng.New(1, "probe")
	p := &probe{width: 3, classes: 4, labels: []int{0, 1, 2, 3, 1}}
	for range 15 {
		p.x = append(p.x, float32(g.NormFloat64()))
	}
	w, rows := make([]float64, 16), []int{0, 1, 2, 3, 4}
	for i := range w {
		w[i] = g.NormFloat64()
	}
	grad := make([]float64, 16)
	p.loss(w, grad, rows, 0.3)
	for i := range w {
		const h = 1e-6
		moved := slices.Clone(w)
		moved[i] += h
		up := p.loss(moved, nil, rows, 0.3)
		moved[i] -= 2 * h
		if slope := (up - p.loss(moved, nil, rows, 0.3)) / (2 * h); math.Abs(slope-grad[i]) > 1e-6 {
			t.Errorf("weight %d: %g, want %g", i, grad[i], slope)
		}
	}
}

func TestScores(t *testing.T) {
	e := summarise([][]int{{8, 2}, {1, 9}}, []string{"a", "b"})
	if e.Accuracy != 0.85 || e.Images != 20 || e.PerClass[0].Accuracy != 0.8 {
		t.Errorf("got %+v", e.Score)
	}
	if e.Interval[0] >= 0.85 || e.Interval[1] <= 0.85 || e.Interval[0] < 0.6 || e.Interval[1] > 1 {
		t.Errorf("interval %v", e.Interval)
	}
	// The exact binomial's 2.5 % and 97.5 % points for 300 of 1000 are 272 and 329.
	wide := bootstrap(300, 1000)
	if math.Abs(wide[0]-0.272) > 0.006 || math.Abs(wide[1]-0.329) > 0.006 {
		t.Errorf("interval of 300 in 1000 is %v", wide)
	}
}

func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		s    Schedule
		want []float64
	}{
		{Schedule{Epochs: 4}, []float64{1, 0.853553, 0.5, 0.146447}},
		{Schedule{Epochs: 4, Warmup: "constant", WarmupEpochs: 1, WarmupRate: 0.01}, []float64{0.01, 1, 0.853553, 0.5}},
		{Schedule{Epochs: 5, Warmup: "linear", WarmupEpochs: 1}, []float64{0.5, 1, 0.853553, 0.5, 0.146447}},
	} {
		for epoch, want := range c.want {
			if got := c.s.Rate(1, epoch); math.Abs(got-want) > 1e-6 {
				t.Errorf("%+v, epoch %d: %g, want %g", c.s, epoch, got, want)
			}
		}
	}
}

// TestOptimizers holds three steps against what torch 2.15's SGD and AdamW make of the same
// values (1, -2), gradients (0.5, 1), (-1, 0.2), (0.3, -0.4), rate 0.1.
func TestOptimizers(t *testing.T) {
	for name, c := range map[string]struct {
		o    Optimizer
		want [3][2]float64
	}{
		"sgd":   {Optimizer{Name: "sgd", Momentum: 0.9, WeightDecay: 0.01}, sgdWant},
		"adamw": {Optimizer{Name: "adamw", WeightDecay: 0.01}, adamWant},
	} {
		values := []float32{1, -2}
		p := NewParameter("p", values, 2)
		for i, gradient := range [][]float32{{0.5, 1}, {-1, 0.2}, {0.3, -0.4}} {
			c.o.Update(p, gradient, i+1, 0.1)
			for j, got := range values {
				if math.Abs(float64(got)-c.want[i][j]) > 1e-6 {
					t.Errorf("%s, step %d: %v, want %v", name, i+1, values, c.want[i])
				}
			}
		}
	}
}

func TestRecipes(t *testing.T) {
	for _, name := range RecipeNames() {
		r := recipe(t, name)
		if r.Name != name || r.Source == "" || r.Description == "" {
			t.Errorf("%s is called %q, description %q, source %q", name, r.Name, r.Description, r.Source)
		}
	}
	for name, want := range map[string]string{"none": "no recipe", "../recipes/coop": "no recipe"} {
		if _, err := BuiltIn(name); errs.Of(err) != errs.NotFound || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseRecipe([]byte("name: x\nmethod: coop\nlearning_rat: 3\n")); errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), "learning_rat") {
		t.Errorf("an unknown key: %v", err)
	}
}

var (
	sgdWant  = [3][2]float64{{0.949, -2.098}, {1.002151, -2.204102}, {1.0189848, -2.2573898}}
	adamWant = [3][2]float64{{0.899, -2.098}, {0.9347114, -2.1762061}, {0.9445438, -2.2084651}}
)
