package tuning

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/foretoken/foretoken/graph"
)

// TestGain writes whole runs of the starter's recipes on the demo's sets for PyTorch to repeat, with
// what they gained here: see bench/reference/gain.py. Without FORETOKEN_GAIN_OUT there is nothing
// to do.
func TestGain(t *testing.T) {
	dir := os.Getenv("FORETOKEN_GAIN_OUT")
	if dir == "" {
		t.Skip("run by `make report`")
	}
	for _, set := range []struct {
		name  string
		shots int
	}{{"openmoji", 4}, {"fashion", 16}} {
		d := demoData(t, set.name, set.shots, 1000)
		e := starterModel(t).NewEvaluator(d)
		for _, name := range []string{"coop-starter", "vpt-deep-starter", "maple-starter"} {
			for seed := uint64(1); seed <= 3; seed++ {
				r := recipe(t, name)
				r.Seed = seed
				writeRun(t, newTuner(t, r, d), filepath.Join(dir, fmt.Sprintf("%s.%s.%d.safetensors", set.name, name, seed)))
				tuner := newTuner(t, r, d)
				steps(t, tuner, tuner.Steps())
				p := rewrite(t, tuner)
				zero, err := e.Score(t.Context(), nil, r.Templates)
				if err != nil {
					t.Fatal(err)
				}
				tuned, err := e.Score(t.Context(), p, r.Templates)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Printf("GAIN %s %s %d %.4f %.4f\n", set.name, name, seed, zero.Accuracy, tuned.Accuracy)
			}
		}
	}
}

// writeRun writes a run's start and batches, as writeTrajectory does, and its test images.
func writeRun(t *testing.T, tuner *Tuner, path string) {
	t.Helper()
	test := &Features{Images: tuner.model.Images.Preprocessor, Samples: tuner.data.Test, Views: 1, Compute: tuner.model.frozen(tuner.Recipe)}
	if tuner.Recipe.learnsVisual() {
		test.shared = tuner.model.tested
	}
	rows, err := test.Rows(t.Context(), upTo(0, len(tuner.data.Test)), 0)
	if err != nil {
		t.Fatal(err)
	}
	var labels []int64
	for _, s := range tuner.data.Test {
		labels = append(labels, int64(s.Class))
	}
	zero, err := tuner.model.templateFeatures(t.Context(), tuner.data.Classes, tuner.Recipe.Templates)
	if err != nil {
		t.Fatal(err)
	}
	writeTrajectory(t, tuner, path, tuner.Steps(), named{"test.features", rows}, named{"test.labels", graph.NewTensor(labels, int64(len(labels)))}, named{"zero", zero})
}
