package serving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/process"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/vision"
)

// TestOneCopyOfTheWeights compares the peak memory of processes that train on a bundle, and that
// evaluate and serve on it as well. All three take at most a fifth more than training alone; with
// a copy of the weights each, as a process has that opens the bundle three times, they take more
// than the weights beside it. FORETOKEN_MEMORY=large takes a tower of ViT-B's width and depth.
func TestOneCopyOfTheWeights(t *testing.T) {
	if dir := os.Getenv("FORETOKEN_MEMORY_BUNDLE"); dir != "" {
		fmt.Printf("peak %d\n", use(t, dir, os.Getenv("FORETOKEN_MEMORY_USE")))
		return
	}
	if _, err := process.PeakMemory(); errors.Is(err, fs.ErrNotExist) {
		t.Skip("this system does not tell a process's peak memory")
	}
	tower := vit{width: 512, layers: 4}
	if os.Getenv("FORETOKEN_MEMORY") == "large" {
		tower = vit{width: 768, layers: 12}
	}
	dir, weights := tower.bundle(t)
	training, together, apart := peakOf(t, dir, "training"), peakOf(t, dir, "together"), peakOf(t, dir, "apart")
	t.Logf("weights of %d MB: training alone %d MB; with evaluation and serving %d MB, %.2f times as much; with a copy each %d MB",
		weights>>20, training>>20, together>>20, float64(together)/float64(training), apart>>20)
	if float64(together) > 1.2*float64(training) {
		t.Errorf("training, evaluation and serving take %d MB, more than 1.2 times the %d MB of training alone", together>>20, training>>20)
	}
	if apart-training < weights {
		t.Errorf("a copy of the weights each takes %d MB more, less than the weights: this test can't tell whether they are shared", (apart-training)>>20)
	}
}

// peakOf is the peak memory in bytes of a process that uses the bundle.
func peakOf(t *testing.T, dir, what string) (peak int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOneCopyOfTheWeights$")
	cmd.Env = append(os.Environ(), "FORETOKEN_MEMORY_BUNDLE="+dir, "FORETOKEN_MEMORY_USE="+what, "GOGC=25") // what Go has not yet freed is no weight
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", what, err, out)
	}
	if _, err := fmt.Sscanf(string(out), "peak %d", &peak); err != nil {
		t.Fatalf("%s: %s: %v", what, out, err)
	}
	return peak
}

// use trains on the bundle, and, where it is together or apart, evaluates and serves as well. It returns the process's peak
// memory.
func use(t *testing.T, dir, what string) int64 {
	model := open(t, dir)
	tuner := train(t, model)
	if what != "training" {
		evaluated, served := model, model
		if what == "apart" {
			evaluated, served = open(t, dir), open(t, dir)
		}
		p, err := tuner.Prompt()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []*prompt.Prompt{nil, p} {
			if _, err := evaluated.NewEvaluator(pictures(t)).Score(t.Context(), p, []string{"a photo of a {}."}); err != nil {
				t.Fatal(err)
			}
		}
		serve(t, served, p)
		if _, err := tuner.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	peak, err := process.PeakMemory()
	if err != nil {
		t.Fatal(err)
	}
	return peak
}

func open(t *testing.T, dir string) *tuning.Model {
	t.Helper()
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := tuning.Open(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// train takes two steps of a run whose prompts go through both towers.
func train(t *testing.T, m *tuning.Model) *tuning.Tuner {
	t.Helper()
	r, err := tuning.BuiltIn("maple")
	if err != nil {
		t.Fatal(err)
	}
	tuner, err := tuning.NewTuner(t.Context(), m, r, pictures(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tuner.Close)
	for range 2 {
		if _, err := tuner.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return tuner
}

// serve embeds a picture under the prompt and one without.
func serve(t *testing.T, m *tuning.Model, p *prompt.Prompt) {
	t.Helper()
	e := New(nil, nil, nil, prometheus.NewRegistry())
	defer e.Close()
	for _, target := range []*Target{{Model: m, Prompt: p}, {Model: m}} {
		if _, err := e.EmbedImage(t.Context(), target, picture(t, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// pictures are two classes of plain colours.
func pictures(t *testing.T) *tuning.Data {
	d := &tuning.Data{Classes: []string{"red", "blue"}, Dataset: "plain", Version: "v", Split: "s", Shots: 4}
	for i := range 8 {
		file := picture(t, uint8(i))
		d.Train = append(d.Train, tuning.Sample{ID: fmt.Sprint(i), Class: i % 2, Image: func(context.Context) (image.Image, error) {
			return vision.Decode(bytes.NewReader(file), vision.Limits{})
		}})
	}
	d.Test = d.Train
	return d
}

func picture(t *testing.T, shade uint8) []byte {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, 8, 8))
	for i := range 64 {
		img.Set(i%8, i/8, color.NRGBA{30 * shade, 20, 255 - 30*shade, 255})
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// vit is a vision transformer with random weights for pictures of 160 x 160 in patches of 32.
type vit struct{ width, layers int64 }

// bundle writes the starter bundle with the tower in place of its own, and tells its weights' bytes.
func (v vit) bundle(t *testing.T) (dir string, weights int64) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "bundle")
	if err := os.CopyFS(dir, os.DirFS("../starter/bundle")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "onnx", "vision_model.onnx")
	if err := v.graph(t).Save(file, graph.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return dir, info.Size()
}

const (
	heads  = 8
	tokens = 26 // a class token and 5 x 5 patches
)

func (v vit) graph(t *testing.T) *graph.Graph {
	t.Helper()
	g := graph.New()
	err := g.Build(func(b *graph.Builder) {
		l := layers{b, rng.New(1, "vit")}
		pixels := b.Input("pixel_values", graph.Float, graph.Shape{graph.Sym("batch"), graph.Known(3), graph.Known(160), graph.Known(160)})
		x := b.Op("Conv", graph.Attrs{"kernel_shape": []int64{32, 32}, "strides": []int64{32, 32}}, pixels, l.weight(v.width, 3, 32, 32))
		x = b.Transpose(b.Op("Reshape", nil, x, b.Ints(0, v.width, tokens-1)), 0, 2, 1)
		class := b.Op("Expand", nil, l.weight(1, 1, v.width), b.Op("Concat", graph.Attrs{"axis": int64(0)}, b.Op("Shape", graph.Attrs{"start": int64(0), "end": int64(1)}, x), b.Ints(1, v.width)))
		x = l.norm(b.Add(b.Op("Concat", graph.Attrs{"axis": int64(1)}, class, x), l.weight(1, tokens, v.width)), v.width)
		for range v.layers {
			x = b.Add(x, l.attention(l.norm(x, v.width), v.width))
			hidden := l.linear(l.norm(x, v.width), v.width, 4*v.width)
			x = b.Add(x, l.linear(b.Mul(hidden, b.Op("Sigmoid", nil, hidden)), 4*v.width, v.width))
		}
		first := b.Op("Gather", graph.Attrs{"axis": int64(1)}, x, b.Const(graph.NewTensor([]int64{0})))
		b.Output("image_embeds", b.MatMul(l.norm(first, v.width), l.weight(v.width, 128)))
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// layers adds layers with random weights.
type layers struct {
	*graph.Builder
	random interface{ NormFloat64() float64 }
}

func (l layers) weight(dims ...int64) *graph.Value {
	w := make([]float32, graph.Count(dims))
	for i := range w {
		w[i] = float32(l.random.NormFloat64()) * 0.02
	}
	return l.Const(graph.NewTensor(w, dims...))
}

func (l layers) linear(x *graph.Value, from, to int64) *graph.Value {
	return l.Add(l.MatMul(x, l.weight(from, to)), l.weight(to))
}

func (l layers) norm(x *graph.Value, width int64) *graph.Value {
	ones := make([]float32, width)
	for i := range ones {
		ones[i] = 1
	}
	return l.Op("LayerNormalization", graph.Attrs{"axis": int64(-1)}, x, l.Const(graph.NewTensor(ones, width)), l.weight(width))
}

func (l layers) attention(x *graph.Value, width int64) *graph.Value {
	split := func(y *graph.Value) *graph.Value {
		return l.Transpose(l.Op("Reshape", nil, y, l.Ints(0, -1, heads, width/heads)), 0, 2, 1, 3)
	}
	q, k, v := split(l.linear(x, width, width)), split(l.linear(x, width, width)), split(l.linear(x, width, width))
	scores := l.Op("Softmax", graph.Attrs{"axis": int64(-1)}, l.MatMul(l.Mul(q, l.Scalar(0.125, q)), l.Transpose(k, 0, 1, 3, 2)))
	return l.linear(l.Op("Reshape", nil, l.Transpose(l.MatMul(scores, v), 0, 2, 1, 3), l.Ints(0, -1, width)), width, width)
}
