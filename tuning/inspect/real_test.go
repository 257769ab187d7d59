//go:build unix

package inspect

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/npz"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/process"
)

// TestRealSize differentiates the tower in the folder FORETOKEN_REAL_SIZE and compares with PyTorch's gradient beside
// it, then takes the step that is estimated; of a bundle it takes steps alone. It prints a line of JSON for each tower, which
// bench/reference/real.py reads; without a folder there is nothing to do.
func TestRealSize(t *testing.T) {
	dir := os.Getenv("FORETOKEN_REAL_SIZE")
	if dir == "" {
		t.Skip("run by `make real-sizes`")
	}
	r := &realTower{Errors: map[string]float64{}}
	path, o := dir, Options{Batch: 64, Prompts: 8, Depth: 99, Measure: true}
	if _, err := os.Stat(filepath.Join(dir, "meta.json")); err == nil {
		path, o = filepath.Join(dir, "model.onnx"), Options{Batch: 2, Prompts: 8, Depth: 1, Measure: true}
		r.compareAll(t, dir, path)
	}
	if os.Getenv("FORETOKEN_THREADS") == "1" {
		clock = process.Time
	}
	report, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	steps := steps(report)
	if len(steps) == 0 {
		t.Fatalf("no step: %q", report.Refusals)
	}
	for _, r.Step = range steps {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(string(line))
	}
	for name, e := range r.Errors {
		if limit := 1e-3; !(e <= limit) {
			t.Errorf("%s differs by %.2g of its largest element, at most %g is right", name, e, limit)
		}
	}
}

// steps are those of the image and the text tower, where there are some.
func steps(r *Report) []*Step {
	var out []*Step
	if r.Image != nil && r.Image.Step != nil {
		out = append(out, r.Image.Step)
	}
	if r.Text != nil && r.Text.Step != nil {
		out = append(out, r.Text.Step)
	}
	return out
}

// compareAll compares the tower's gradients with those beside it.
func (r *realTower) compareAll(t *testing.T, dir, path string) {
	var f struct {
		Kind, Output string
		Context      []int `json:"context_positions"`
	}
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.in, r.want = arrays(t, dir, "inputs.npz"), arrays(t, dir, "gradients.npz")
	if f.Kind == "text" {
		r.differentiate(t, "context", func() (*graph.Graph, error) { return r.texts(path, f.Output, f.Context) })
		return
	}
	r.differentiate(t, "prompts_shallow", func() (*graph.Graph, error) { return r.images(path, f.Output, 1) })
	r.differentiate(t, "prompts_deep", func() (*graph.Graph, error) { return r.images(path, f.Output, int(r.in["prompts_deep"].Dims[0])) })
}

// realTower is a tower and what is measured of it.
type realTower struct {
	in, want map[string]*graph.Tensor
	Nodes    int                // of the gradient's graph
	Seconds  float64            // from the file to the gradient's graph, the longest time
	Errors   map[string]float64 // max|x-x'| / max|x'|, x' being PyTorch's
	Step     *Step
}

func (r *realTower) images(path, output string, depth int) (*graph.Graph, error) {
	g, err := graph.Load(path)
	if err != nil {
		return nil, err
	}
	tower, err := graph.FindImageTower(g, output)
	if err != nil {
		return nil, err
	}
	return tower.WithPrompts(graph.ImagePromptOptions{Tokens: int(r.in["prompts_shallow"].Dims[0]), Depth: depth})
}

func (r *realTower) texts(path, output string, places []int) (*graph.Graph, error) {
	g, err := graph.Load(path)
	if err != nil {
		return nil, err
	}
	tower, err := graph.FindTextTower(g, output)
	if err != nil {
		return nil, err
	}
	return tower.WithContext(graph.ContextOptions{Tokens: len(places), Start: places[0], Depth: 1, Pooled: true})
}

// differentiate compares outputs and gradients by the named prompts, [K,D] or [depth,K,D].
func (r *realTower) differentiate(t *testing.T, name string, build func() (*graph.Graph, error)) {
	t.Helper()
	layers := split(t, r.in[name])
	kind, suffix := "visual", name[len("prompts"):]
	if name == "context" {
		kind, suffix = "context", "_context"
	}
	start := time.Now()
	g, err := build()
	if err != nil {
		t.Fatal(err)
	}
	y := g.Outputs[0].Name
	var prompts []string
	for i := range layers {
		prompts = append(prompts, graph.PromptName(kind, i))
	}
	if err := appendGradients(g, prompts); err != nil {
		t.Fatal(err)
	}
	r.Seconds, r.Nodes = max(r.Seconds, time.Since(start).Seconds()), len(g.Nodes)
	in := map[string]*graph.Tensor{"cotangent": r.in["loss_weight"]}
	for _, v := range g.Inputs {
		if r.in[v.Name] != nil {
			in[v.Name] = r.in[v.Name]
		}
	}
	for i, layer := range layers {
		in[graph.PromptName(kind, i)] = layer
	}
	out := run(t, g, in)
	r.compare(t, "out"+suffix, out[y], r.want["out"+suffix])
	for i, want := range split(t, r.want["grad_"+name]) {
		r.compare(t, fmt.Sprintf("grad_%s.%d", name, i), out["d."+graph.PromptName(kind, i)], want)
	}
}

func run(t *testing.T, g *graph.Graph, in map[string]*graph.Tensor) map[string]*graph.Tensor {
	t.Helper()
	weights, err := ort.NewWeights()
	if err != nil {
		t.Fatal(err)
	}
	defer weights.Close()
	session, err := ort.NewSession(g, ort.Options{Weights: weights, Deterministic: true})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	out, err := session.Run(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// split gives prompts [K,D] or [depth,K,D] the shape of prompt inputs, [1,K,D] a layer.
func split(t *testing.T, p *graph.Tensor) []*graph.Tensor {
	t.Helper()
	values, err := graph.Values[float32](p)
	if err != nil {
		t.Fatal(err)
	}
	k, d := p.Dims[len(p.Dims)-2], p.Dims[len(p.Dims)-1]
	var layers []*graph.Tensor
	for at := int64(0); at < int64(len(values)); at += k * d {
		layers = append(layers, graph.NewTensor(values[at:at+k*d], 1, k, d))
	}
	return layers
}

func (r *realTower) compare(t *testing.T, name string, got, want *graph.Tensor) {
	t.Helper()
	a, err := graph.Values[float32](got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := graph.Values[float32](want)
	if err != nil || len(a) != len(b) {
		t.Fatalf("%s: %d elements, want %d, %v", name, len(a), len(b), err)
	}
	difference, largest := 0.0, 0.0
	for i := range a {
		difference = max(difference, math.Abs(float64(a[i])-float64(b[i])))
		largest = max(largest, math.Abs(float64(b[i])))
	}
	r.Errors[name] = difference / largest
}

func arrays(t *testing.T, dir, name string) map[string]*graph.Tensor {
	t.Helper()
	a, err := npz.Read(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return a
}
