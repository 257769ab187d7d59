package inversion

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/tuning"
)

// pipeline opens a tiny bundle of testdata, its schedule changed where a replacement is given.
func pipeline(t testing.TB, name string, changes ...string) *diffusion.Pipeline {
	t.Helper()
	dir := filepath.Join("testdata", name)
	if len(changes) > 0 {
		dir = changed(t, dir, strings.NewReplacer(changes...))
	}
	return opened(t, dir)
}

// inpainting opens the bundle sd with a network that inpaints and is told its guidance.
func inpainting(t testing.TB) *diffusion.Pipeline {
	t.Helper()
	dir := changed(t, filepath.Join("testdata", "sd"), strings.NewReplacer())
	b, err := os.ReadFile("testdata/inpaint/unet/model.onnx")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "unet", "model.onnx"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, dir)
}

// opened opens the bundle in a folder.
func opened(t testing.TB, dir string) *diffusion.Pipeline {
	t.Helper()
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := diffusion.Open(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// starterJudge is the starter's dual encoder.
func starterJudge(t *testing.T) *tuning.Model {
	t.Helper()
	b, err := bundle.Open("../../starter/bundle")
	if err != nil {
		t.Fatal(err)
	}
	judge, err := tuning.Open(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(judge.Close)
	return judge
}

// changed copies a bundle with its scheduler_config.json rewritten.
func changed(t testing.TB, from string, r *strings.Replacer) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if filepath.Base(path) == "scheduler_config.json" {
			b = []byte(r.Replace(string(b)))
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			return err
		}
		return os.WriteFile(at, b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// data are pictures with a stripe each, in classes by turns.
func data(train, test int, classes ...string) *tuning.Data {
	d := &tuning.Data{Classes: classes, Dataset: "stripes"}
	sample := func(i int) tuning.Sample {
		return tuning.Sample{ID: fmt.Sprint("picture ", i), Class: i % len(classes), Image: func(context.Context) (image.Image, error) { return stripe(i), nil }}
	}
	for i := range train {
		d.Train = append(d.Train, sample(i))
	}
	for i := range test {
		d.Test = append(d.Test, sample(train+i))
	}
	return d
}

func stripe(i int) image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, 40, 32))
	for y := range 32 {
		for x := range 40 {
			c := color.NRGBA{uint8(6 * x), uint8(7 * y), uint8(40 * i), 255}
			if x/5 == i%8 {
				c = color.NRGBA{250, 20, uint8(30 * i), 255}
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}

// recipe is a built-in one, made small.
func recipe(t testing.TB, name string) *tuning.Recipe {
	t.Helper()
	r, err := tuning.BuiltIn(name)
	if err != nil {
		t.Fatal(err)
	}
	r.Templates = r.Templates[:min(3, len(r.Templates))]
	r.Inversion.Steps, r.Inversion.HeldOut = 20, 8
	r.Seed = 5
	return r
}

func trainer(t testing.TB, p *diffusion.Pipeline, r *tuning.Recipe, d *tuning.Data) *Trainer {
	t.Helper()
	tr, err := New(t.Context(), p, r, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func steps(t testing.TB, tr *Trainer, n int) (losses []float64) {
	t.Helper()
	for range n {
		p, err := tr.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, p.Loss)
	}
	return losses
}
