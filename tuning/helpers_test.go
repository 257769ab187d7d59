package tuning

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"image"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/starter"
	"github.com/foretoken/foretoken/vision"
)

// openStarter opens the starter bundle once for all tests. One thread computes the same bits
// whatever the machine's cores.
var openStarter = sync.OnceValues(func() (*Model, error) {
	b, err := bundle.Open("../starter/bundle")
	if err != nil {
		return nil, err
	}
	return Open(b, ort.Options{})
})

func starterModel(t testing.TB) *Model {
	t.Helper()
	m, err := openStarter()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// demoData reads a set of the demo: the first images of each class, so many for training and test.
func demoData(t testing.TB, set string, train, test int) *Data {
	t.Helper()
	file, err := starter.Demo.ReadFile("demo/" + set + ".zip")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	d := &Data{Dataset: set, Version: "v", Split: "s", Shots: train}
	classes := map[string]int{}
	taken := map[string]int{}
	for _, f := range z.File {
		parts := strings.Split(f.Name, "/")
		if len(parts) != 3 || path.Ext(f.Name) != ".png" {
			continue
		}
		limit := map[string]int{"train": train, "test": test}[parts[0]]
		key := parts[0] + parts[1]
		if taken[key]++; taken[key] > limit {
			continue
		}
		class, known := classes[parts[1]]
		if !known {
			class = len(classes)
			classes[parts[1]] = class
			d.Classes = append(d.Classes, strings.ReplaceAll(parts[1], "_", " "))
		}
		s := sample(t, f, class)
		if parts[0] == "train" {
			d.Train = append(d.Train, s)
		} else {
			d.Test = append(d.Test, s)
		}
	}
	return d
}

func sample(t testing.TB, f *zip.File, class int) Sample {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return Sample{ID: hex.EncodeToString(sum[:]), Class: class, Image: func(context.Context) (image.Image, error) {
		return vision.Decode(bytes.NewReader(b), vision.Limits{})
	}}
}

func recipe(t testing.TB, name string) *Recipe {
	t.Helper()
	r, err := BuiltIn(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newTuner(t testing.TB, r *Recipe, d *Data) *Tuner {
	t.Helper()
	tuner, err := NewTuner(t.Context(), starterModel(t), r, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tuner.Close)
	return tuner
}

func steps(t testing.TB, tuner *Tuner, n int) (last Progress) {
	t.Helper()
	for range n {
		p, err := tuner.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last = p
	}
	return last
}

// starterWith is the starter bundle with another foretoken.yaml.
func starterWith(t *testing.T, yaml string) *bundle.Bundle {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "starter")
	if err := os.CopyFS(dir, os.DirFS("../starter/bundle")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "foretoken.yaml"), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
