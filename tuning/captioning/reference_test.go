package captioning

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/tuning/tuningtest"
)

// The reference's settings, bench/reference/captioning.py's.
const (
	referencePrefix  = 4
	referenceSteps   = 20
	referenceBatches = 4
	referenceHidden  = 10
)

var referenceOptimizer = tuning.Optimizer{Name: "adamw", LearningRate: 0.01, WeightDecay: 0.01}

// reference is a case of the reference, as the engine sees it.
type reference struct {
	name     string
	method   string
	parts    func(t *testing.T) parts
	hidden   int
	unplaced bool
	visual   tuning.Visual
	renamed  map[string]string // our names for the reference's parameters, where they differ
}

var referenceCases = []reference{
	{name: "prefix", method: tuning.CaptionPrefix, parts: attending, renamed: map[string]string{"embedding.weight": "prefix"}},
	{name: "keys", method: tuning.CaptionKeyValues, parts: attending},
	{name: "network", method: tuning.CaptionKeyValues, parts: attending, hidden: referenceHidden, renamed: map[string]string{
		"embedding.weight": "reparam.embedding", "transform.0.weight": "reparam.0.weight", "transform.0.bias": "reparam.0.bias",
		"transform.2.weight": "reparam.1.weight", "transform.2.bias": "reparam.1.bias",
	}},
	{name: "map", method: tuning.CaptionMap, parts: mappedParts(false), hidden: referenceHidden, renamed: mapNames},
	{name: "opened", method: tuning.CaptionMap, parts: mappedParts(true), hidden: referenceHidden, renamed: mapNames},
	{name: "unplaced", method: tuning.CaptionKeyValues, parts: attending, unplaced: true},
	{name: "visual", method: tuning.CaptionVisual, parts: attending, visual: tuning.Visual{Tokens: referencePrefix, Depth: 2}},
}

var mapNames = map[string]string{"0.weight": "map.0.weight", "0.bias": "map.0.bias", "2.weight": "map.1.weight", "2.bias": "map.1.bias"}

func attending(t *testing.T) parts {
	images, err := graph.FindImageTower(load(t, "vision"), "last_hidden_state")
	if err != nil {
		t.Fatal(err)
	}
	return parts{Decoder: decoder(t, "cross"), Images: images, Patch: 4}
}

func mappedParts(open bool) func(t *testing.T) parts {
	return func(t *testing.T) parts {
		return parts{Decoder: decoder(t, "plain"), Mapped: true, Features: 12, Open: open}
	}
}

func decoder(t *testing.T, name string) *graph.DecoderTower {
	t.Helper()
	d, err := graph.FindDecoder(load(t, name), "logits")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func load(t *testing.T, name string) *graph.Graph {
	t.Helper()
	g, err := graph.Load(filepath.Join("testdata", name+".onnx"))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// objective is the case's training graph and where its parameters start.
func (c reference) objective(t *testing.T, tensors map[string]*graph.Tensor) (*objective, []*tuning.Parameter) {
	t.Helper()
	p := c.parts(t)
	r := &tuning.Recipe{
		Name: c.name, Method: c.method, Visual: c.visual, Prefix: tuning.Prefix{Tokens: referencePrefix, Hidden: c.hidden, Unplaced: c.unplaced},
		Caption: tuning.Caption{LabelSmoothing: 0.1},
	}
	o, err := newObjective(p, r, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.close)
	start := c.ours(t, tensors, "start")
	var params []*tuning.Parameter
	for _, s := range parameterShapes(p, r) {
		if len(start[s.name]) != int(graph.Count(s.dims)) {
			t.Fatalf("the reference has %d numbers for %q%v", len(start[s.name]), s.name, s.dims)
		}
		params = append(params, tuning.NewParameter(s.name, slices.Clone(start[s.name]), s.dims...))
	}
	return o, params
}

// ours are the reference's tensors of a kind under our names: the table of keys and values [P,L*2*H*d] is cut by layer.
func (c reference) ours(t *testing.T, tensors map[string]*graph.Tensor, kind string) map[string][]float32 {
	t.Helper()
	out := map[string][]float32{}
	for name, x := range tensors {
		rest, ok := strings.CutPrefix(name, c.name+"."+kind+".")
		if !ok {
			continue
		}
		values := floats(t, x)
		switch {
		case c.method == tuning.CaptionKeyValues && c.hidden == 0:
			for _, s := range keyValues(c.parts(t).Decoder, referencePrefix) {
				out[s.name] = make([]float32, graph.Count(s.dims))
			}
			spread(out, values)
		case c.renamed[rest] != "":
			out[c.renamed[rest]] = values
		default:
			out[rest] = values
		}
	}
	return out
}

// spread cuts PEFT's table [P, 2L, H, d] into our keys and values [1,H,P,d].
func spread(to map[string][]float32, table []float32) {
	parts, heads := len(to), 2
	width := len(table) / referencePrefix / parts / heads
	for i, x := range table {
		d, h, part, p := i%width, i/width%heads, i/width/heads%parts, i/width/heads/parts
		name := fmt.Sprintf("%s%d", []string{"prefix_key.", "prefix_value."}[part%2], part/2)
		to[name][(h*referencePrefix+p)*width+d] = x
	}
}

func (c reference) batch(t *testing.T, tensors map[string]*graph.Tensor, step int) batch {
	t.Helper()
	at := func(what string) *graph.Tensor {
		return tensors[fmt.Sprintf("%s.batch.%d.%s", c.name, step%referenceBatches, what)]
	}
	b := batch{source: at("source")}
	ids, targets, mask := integers(t, at("ids")), integers(t, at("targets")), integers(t, at("mask"))
	rows := int(at("ids").Dims[0])
	length := len(ids) / rows
	for row := range rows {
		n := 0
		for _, on := range mask[row*length : (row+1)*length] {
			n += int(on)
		}
		text := ids[row*length:][:n]
		if c.name == "opened" {
			text = text[1:]
		}
		b.ids, b.targets = append(b.ids, text), append(b.targets, targets[row*length:][:n])
	}
	return b
}

// TestGradientsArePyTorchs compares loss and gradients of the first batch.
func TestGradientsArePyTorchs(t *testing.T) {
	tensors := readTensors(t, "testdata/reference.safetensors")
	for _, c := range referenceCases {
		t.Run(c.name, func(t *testing.T) {
			o, params := c.objective(t, tensors)
			b := c.batch(t, tensors, 0)
			y, err := o.run(t.Context(), b, b.learned(), named(params), 1)
			if err != nil {
				t.Fatal(err)
			}
			want := floats(t, tensors[c.name+".losses"])[0]
			if e := math.Abs(y.loss/float64(want) - 1); !(e <= 1e-3) {
				t.Errorf("the loss is %g, PyTorch's %g", y.loss, want)
			}
			gradients := c.ours(t, tensors, "grad")
			for _, p := range params {
				e := maxRelative(y.gradients[p.Name], gradients[p.Name])
				t.Logf("%-18s %.1e", p.Name, e)
				if !(e <= 1e-3) {
					t.Errorf("%s: the gradient differs by %.2e of its largest number, at most 1e-3", p.Name, e)
				}
			}
		})
	}
}

// TestTrajectory follows 20 steps and compares where they lead with PyTorch: for each learned tensor,
// ||dp - dp'|| / ||dp'|| <= 1e-2, dp what the steps changed.
func TestTrajectory(t *testing.T) {
	tensors := readTensors(t, "testdata/reference.safetensors")
	for _, c := range referenceCases {
		t.Run(c.name, func(t *testing.T) {
			o, params := c.objective(t, tensors)
			for step := range referenceSteps {
				b := c.batch(t, tensors, step)
				y, err := o.run(t.Context(), b, b.learned(), named(params), 1)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range params {
					referenceOptimizer.Update(p, y.gradients[p.Name], step+1, referenceOptimizer.LearningRate)
				}
			}
			start, end := c.ours(t, tensors, "start"), c.ours(t, tensors, "end")
			for _, p := range params {
				e := tuningtest.Distance(p.Values(), end[p.Name], start[p.Name])
				t.Logf("%-18s %.1e", p.Name, e)
				if !(e <= 1e-2) {
					t.Errorf("%s: ||dp - dp'|| / ||dp'|| is %.2e, at most 1e-2", p.Name, e)
				}
			}
		})
	}
}

// TestAWrongGradientLeavesTheTrajectory runs TestTrajectory with one gradient rule, softmax's, made 5 % too large. It has to
// fail.
func TestAWrongGradientLeavesTheTrajectory(t *testing.T) {
	tuningtest.FailsWithAWrongGradient(t, "../../graph", "^TestTrajectory$", "at most 1e-2")
}

func named(params []*tuning.Parameter) map[string]*graph.Tensor {
	in := map[string]*graph.Tensor{}
	for _, p := range params {
		in[p.Name] = p.Tensor
	}
	return in
}

// maxRelative is the largest difference in parts of the largest number.
func maxRelative(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.NaN()
	}
	var difference, most float64
	for i := range a {
		difference, most = max(difference, math.Abs(float64(a[i]-b[i]))), max(most, math.Abs(float64(b[i])))
	}
	return difference / most
}

func floats(t *testing.T, x *graph.Tensor) []float32 {
	t.Helper()
	values, err := graph.Values[float32](x)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func integers(t *testing.T, x *graph.Tensor) []int64 {
	t.Helper()
	values, err := graph.Values[int64](x)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// readTensors reads a safetensors file of 32-bit floats and 64-bit integers.
func readTensors(t *testing.T, path string) map[string]*graph.Tensor {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tensors, err := prompt.ReadTensors(b)
	if err != nil {
		t.Fatal(err)
	}
	return tensors
}
