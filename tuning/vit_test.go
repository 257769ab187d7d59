package tuning

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/process"
	"github.com/foretoken/foretoken/vision"
)

// TestViTSteps is one of the rivals of bench/reference/vit.py: it takes a step of VPT on
// ViT-B/16 for each line of standard input. Without FORETOKEN_BENCH_VIT there is nothing to do.
func TestViTSteps(t *testing.T) {
	dir := os.Getenv("FORETOKEN_BENCH_VIT")
	if dir == "" {
		t.Skip("run by `make bench`")
	}
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	weights, err := ort.NewWeights()
	if err != nil {
		t.Fatal(err)
	}
	options := ort.Options{Weights: weights, Deterministic: true}
	tower, err := vision.OpenTower(b, options)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := readTensors(t, filepath.Join(dir, "batch.safetensors"))
	o := vitObjective(t, tower, options, data)
	images := int64(len(data["pixels"]) / (3 * 224 * 224))
	pixels := graph.NewTensor(data["pixels"], images, 3, 224, 224)
	prompts := map[string]*graph.Tensor{"visual.0": graph.NewTensor(data["prompts"], 1, int64(len(data["prompts"])/tower.Width()), int64(tower.Width()))}
	labels := make([]int, images)
	for i := range labels {
		labels[i] = argmax(data["onehot"][i*o.classes : (i+1)*o.classes])
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		start := time.Now()
		tokens, err := tower.Tokens(t.Context(), pixels)
		if err != nil {
			t.Fatal(err)
		}
		loss, _, gradients, err := o.run(t.Context(), batch{"tokens", tokens, labels}, prompts)
		if err != nil {
			t.Fatal(err)
		}
		seconds := time.Since(start).Seconds()
		writeTensors(t, filepath.Join(dir, "gradient-foretoken.safetensors"), "", []named{{"gradient", graph.NewTensor(gradients["visual.0"], prompts["visual.0"].Dims...)}})
		peak, err := process.PeakMemory()
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(map[string]any{"seconds": seconds, "loss": loss, "peak": peak})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(string(line))
	}
}

// vitObjective is newObjective for an image tower alone, with class features that are given.
func vitObjective(t *testing.T, tower *vision.Tower, options ort.Options, data map[string][]float32) *objective {
	t.Helper()
	const classes, tokens = 20, 10
	r := &Recipe{Method: VPT, Visual: Visual{Tokens: tokens, Depth: 1}}
	o := &objective{classes: classes, fixed: map[string]*graph.Tensor{"classes": graph.NewTensor(data["classes"], classes, int64(len(data["classes"])/classes))}}
	g, err := tower.Graph(graph.ImagePromptOptions{Tokens: tokens, Depth: 1, FromTokens: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.differentiate(g, r, int64(len(data["classes"])/classes), 100); err != nil {
		t.Fatal(err)
	}
	if o.session, err = ort.NewSession(g, options); err != nil {
		t.Fatal(err)
	}
	return o
}
