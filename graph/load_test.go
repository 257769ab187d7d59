package graph

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEveryFixtureLoadsInfersAndRoundTrips(t *testing.T) {
	models, _ := filepath.Glob("testdata/fixtures/*/model.onnx")
	if len(models) == 0 {
		t.Fatal("no fixtures")
	}
	for _, path := range models {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			g, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Infer(); err != nil {
				t.Fatal(err)
			}
			for _, n := range g.Nodes {
				for _, v := range n.Outputs {
					if v != nil && v.Shape == nil {
						t.Errorf("%s %q: the shape of %q is unknown", n.Op, n.Name, v.Name)
					}
				}
			}
			model, err := g.Marshal(MarshalOptions{})
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(model, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Infer(); err != nil {
				t.Fatal(err)
			}
			if got, want := again.String(), g.String(); got != want {
				os.WriteFile(filepath.Join(t.TempDir(), "got"), []byte(got), 0o644)
				t.Errorf("the graph changed on its way through a file")
			}
		})
	}
}
