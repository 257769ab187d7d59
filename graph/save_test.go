package graph

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/foretoken/foretoken/internal/errs"
)

// TestASavedFileIsTheSameGraph saves every fixture with weights inline and in a file of their own,
// and takes the original away before it looks at what was saved.
func TestASavedFileIsTheSameGraph(t *testing.T) {
	models, _ := filepath.Glob("testdata/fixtures/*/model.onnx")
	if len(models) == 0 {
		t.Fatal("no fixtures")
	}
	for _, path := range models {
		for _, external := range []bool{false, true} {
			t.Run(filepath.Base(filepath.Dir(path))+map[bool]string{false: "/inline", true: "/external"}[external], func(t *testing.T) {
				source := filepath.Join(t.TempDir(), "source")
				if err := os.CopyFS(source, os.DirFS(filepath.Dir(path))); err != nil {
					t.Fatal(err)
				}
				g, err := Load(filepath.Join(source, "model.onnx"))
				if err != nil {
					t.Fatal(err)
				}
				if err := g.Infer(); err != nil {
					t.Fatal(err)
				}
				weights := contents(t, g)
				to := filepath.Join(t.TempDir(), "saved.onnx")
				if err := g.Save(to, SaveOptions{External: external, Metadata: map[string]string{"b": "2", "a": "1"}}); err != nil {
					t.Fatal(err)
				}
				if err := os.RemoveAll(source); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(to + ".data"); (err == nil) != external {
					t.Errorf("a data file beside it: %v, want %v", err == nil, external)
				}
				again, err := Load(to)
				if err != nil {
					t.Fatal(err)
				}
				if err := again.Infer(); err != nil {
					t.Fatal(err)
				}
				if again.String() != g.String() {
					t.Error("the graph changed on its way through a file")
				}
				if again.Metadata["a"] != "1" || again.Metadata["b"] != "2" || len(again.Metadata) != 2 {
					t.Errorf("metadata %v", again.Metadata)
				}
				for name, b := range contents(t, again) {
					if !bytes.Equal(b, weights[name]) {
						t.Errorf("weight %q changed", name)
					}
				}
			})
		}
	}
}

func contents(t *testing.T, g *Graph) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for v := range g.Constants() {
		b, err := v.Const.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := out[v.Name]; twice {
			t.Errorf("two constants bear the name %q", v.Name)
		}
		out[v.Name] = b
	}
	return out
}

func TestSaveDoesNotDestroyTheModelItReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.onnx")
	model, err := os.ReadFile("testdata/fixtures/vit_ts_op14/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, model, 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Save(path, SaveOptions{}); errs.Of(err) != errs.Conflict {
		t.Errorf("error %v, want a conflict", err)
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, model) {
		t.Error("the file changed")
	}
}

func TestAFileThatCouldNotBeWrittenIsNotThere(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "source.onnx")
	model, err := os.ReadFile("testdata/fixtures/vit_ts_op14/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(source, model, 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := Load(source)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(source, int64(len(model)/2)); err != nil {
		t.Fatal(err)
	}
	for _, external := range []bool{false, true} {
		if err := g.Save(filepath.Join(dir, "out.onnx"), SaveOptions{External: external}); err == nil {
			t.Error("weights that are gone were written")
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || slices.ContainsFunc(left, func(e os.DirEntry) bool { return e.Name() != "source.onnx" }) {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
