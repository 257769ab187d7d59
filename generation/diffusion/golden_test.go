package diffusion

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/npz"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/prompt"
)

// golden is a picture that bench/reference/diffusion.py had diffusers draw.
type golden struct {
	Bundle    string   `json:"bundle"`
	Scheduler string   `json:"scheduler"`
	Prompt    string   `json:"prompt"`
	Negative  string   `json:"negative"`
	Steps     int      `json:"steps"`
	Guidance  float64  `json:"guidance"`
	Rescale   float64  `json:"rescale"`
	Strength  float64  `json:"strength"`
	Seed      uint64   `json:"seed"`
	Image     bool     `json:"image"`
	Mask      bool     `json:"mask"`
	Unsafe    bool     `json:"unsafe"`
	Concepts  []string `json:"concepts"`
	ClipSkip  int      `json:"clip_skip"`
	Eta       float64  `json:"eta"`
	Picture   int      `json:"picture"` // the array's name
}

func (g golden) String() string {
	return fmt.Sprintf("%s %s %d steps, image %v, mask %v, seed %d %v", g.Bundle, g.Scheduler, g.Steps, g.Image, g.Mask, g.Seed, g.Concepts)
}

type fixtures struct {
	cases  []golden
	arrays map[string]*graph.Tensor
}

func readFixtures(t testing.TB) *fixtures {
	t.Helper()
	f := &fixtures{}
	data, err := os.ReadFile("testdata/cases.json")
	if err == nil {
		err = json.Unmarshal(data, &f.cases)
	}
	if err == nil {
		f.arrays, err = npz.Read("testdata/golden.npz")
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixtures) floats(t testing.TB, name string) []float32 {
	t.Helper()
	values, err := graph.Float32s(f.arrays[name])
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// noise is the script's: a row of normals for each purpose.
func (f *fixtures) noise(t testing.TB, g golden) noiseSource {
	normals := f.floats(t, "normals")
	const rows = 60
	width := len(normals) / rows
	first := map[string]int{forLatents: 0, forPosterior: 1, forMasked: 2, forStep: 3}
	if g.Strength == 1 { // then the image as it is isn't looked at
		first[forMasked] = 1
	}
	return func(seed uint64, purpose string, step, n int) []float32 {
		k := first[purpose]
		if purpose == forStep {
			k += step
		}
		at := (17*int(seed) + k) % rows * width
		return normals[at : at+n]
	}
}

// picture is the image [H,W,3] or mask [H,W] of the fixtures.
func (f *fixtures) picture(t testing.TB, name string) image.Image {
	t.Helper()
	x := f.arrays[name]
	pixels, err := graph.Values[uint8](x)
	if err != nil {
		t.Fatal(err)
	}
	h, w := int(x.Dims[0]), int(x.Dims[1])
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	depth := len(pixels) / (h * w)
	for i := range h * w {
		p := pixels[i*depth : (i+1)*depth]
		img.Set(i%w, i/w, color.NRGBA{p[0], p[len(p)/2], p[len(p)-1], 255})
	}
	return img
}

// concept is a learned prompt of the fixtures: for two encoders where the bundle has them.
func (f *fixtures) concept(p *Pipeline, name string) *prompt.Prompt {
	kinds := map[string]prompt.Kind{"concept": prompt.Concept, "style": prompt.Style, "negative": prompt.Negative}
	q := &prompt.Prompt{Card: prompt.Card{Kind: kinds[name], Bundle: prompt.BundleRef{Digest: p.Bundle.Digest}}, Tensors: map[string]*graph.Tensor{}}
	if name == "concept" {
		q.Card.Token = "<mug>"
	}
	tensor := prompt.Rows(q.Card.Kind)
	q.Tensors[tensor] = f.arrays[name]
	if len(p.Texts) == 2 {
		q.Tensors[tensor+"_2"] = f.arrays[name+"_2"]
	}
	return q
}

func (f *fixtures) request(t testing.TB, p *Pipeline, g golden) Request {
	r := Request{
		Prompt: g.Prompt, Negative: g.Negative, Steps: g.Steps, Guidance: g.Guidance, GuidanceRescale: g.Rescale,
		Seed: g.Seed, Scheduler: g.Scheduler, Eta: g.Eta, Strength: g.Strength,
	}
	if g.Image {
		r.Image = f.picture(t, "image")
	}
	if g.Mask {
		r.Mask = f.picture(t, "mask")
	}
	for _, name := range g.Concepts {
		r.Concepts = append(r.Concepts, f.concept(p, name))
	}
	return r
}

// openFixture opens a bundle of the fixtures.
func openFixture(t testing.TB, name string) *Pipeline {
	t.Helper()
	return openFolder(t, "testdata/"+name)
}

// openChanged opens a bundle of the fixtures with other files over its own.
func openChanged(t testing.TB, name string, over ...fs.FS) *Pipeline {
	t.Helper()
	dir := t.TempDir()
	err := os.CopyFS(dir, os.DirFS("testdata/"+name))
	for _, over := range over {
		if err != nil {
			break
		}
		err = fs.WalkDir(over, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(over, path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, path), data, 0o600)
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return openFolder(t, dir)
}

// open opens the bundle that a picture is drawn with.
func (g golden) open(t testing.TB) *Pipeline {
	t.Helper()
	var over []fs.FS
	base := map[string]string{"distilled": "sd", "inpaint_xl": "xl"}[g.Bundle]
	if base != "" {
		over = append(over, os.DirFS("testdata/"+g.Bundle))
	}
	if g.ClipSkip > 0 {
		index := fmt.Appendf(nil, `{"_class_name": "StableDiffusionPipeline", "clip_skip": %d}`, g.ClipSkip)
		over = append(over, fstest.MapFS{"model_index.json": &fstest.MapFile{Data: index}})
	}
	if len(over) > 0 {
		return openChanged(t, cmp.Or(base, g.Bundle), over...)
	}
	return openFixture(t, g.Bundle)
}

func openFolder(t testing.TB, dir string) *Pipeline {
	t.Helper()
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// pixels draws one request and gives its picture [3,H,W] in 0..1, unrounded.
func pixels(t *testing.T, p *Pipeline, r Request) []float32 {
	t.Helper()
	r, err := p.Resolve(r)
	if err != nil {
		t.Fatal(err)
	}
	one := &row{Request: &r}
	if err := p.draw(context.Background(), []*row{one}); err != nil {
		t.Fatal(err)
	}
	out, err := p.decode(context.Background(), one.x, r.Height, r.Width)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range out {
		out[i] = min(max(x/2+0.5, 0), 1)
	}
	return out
}

func furthest(a, b []float32) float64 {
	var worst float64
	for i := range a {
		worst = max(worst, math.Abs(float64(a[i]-b[i])))
	}
	return worst
}

func TestPicturesAreDiffusers(t *testing.T) {
	f := readFixtures(t)
	pipelines := map[string]*Pipeline{}
	for _, g := range f.cases {
		key := fmt.Sprint(g.Bundle, g.ClipSkip)
		p := pipelines[key]
		if p == nil {
			p = g.open(t)
			pipelines[key] = p
		}
		t.Run(g.String(), func(t *testing.T) {
			p.drawNoise = f.noise(t, g)
			if g.Unsafe {
				t.Skip("black: TestTheSafetyCheckerIsAsked")
			}
			got, want := pixels(t, p, f.request(t, p, g)), f.floats(t, fmt.Sprint(g.Picture))
			if len(got) != len(want) {
				t.Fatalf("%d numbers, diffusers has %d", len(got), len(want))
			}
			d := furthest(got, want)
			t.Logf("furthest from diffusers: %.2g", d)
			if !(d <= 1e-3) {
				t.Errorf("%g from diffusers, at most 1e-3", d)
			}
		})
	}
}
