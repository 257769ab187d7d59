package caption

import (
	"encoding/json"
	"image"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/generation/decode"
	"github.com/foretoken/foretoken/internal/ort"
)

// layouts are the bundles that bench/reference/captioners.py makes.
var layouts = []string{"vitgpt2", "vitgpt2_merged", "trocr", "donut", "blip", "clipcap"}

func open(t testing.TB, dir string) *Model {
	t.Helper()
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// testImages are the images that the script makes: bytes that follow from their number.
func testImages(n int) []image.Image {
	const side = 16
	all := make([]image.Image, n)
	for i := range all {
		img := image.NewNRGBA(image.Rect(0, 0, side, side))
		for y := range side {
			for x := range side {
				at := img.PixOffset(x, y)
				for c := range 3 {
					img.Pix[at+c] = byte((x*(3+i) + y*(5+7*i%11) + c*(40+13*i) + i*i*17 + (x*y*(1+i%5))/3) % 256)
				}
				img.Pix[at+3] = 255
			}
		}
		all[i] = img
	}
	return all
}

type goldenTexts struct {
	Cases map[string]map[string]json.RawMessage
	IDs   map[string]map[string][][]int64
}

func readGolden(t *testing.T) goldenTexts {
	t.Helper()
	data, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g goldenTexts
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// caseOptions lays a case over the bundle's generation_config.json, and takes the words that open the text out.
func caseOptions(t *testing.T, m *Model, given map[string]json.RawMessage) (decode.Options, string) {
	t.Helper()
	data, err := os.ReadFile(m.Bundle.Path("generation_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	maps.Copy(all, given)
	var opening []int64
	if raw := all["opening"]; raw != nil {
		if err := json.Unmarshal(raw, &opening); err != nil {
			t.Fatal(err)
		}
		delete(all, "opening")
	}
	if data, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	c, err := decode.ReadConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	return c.Options, m.Tokenizer.Decode(opening, true)
}

// TestTextsAreThoseOfTransformers captions 50 images with each layout, with a cache of keys and values and
// without.
func TestTextsAreThoseOfTransformers(t *testing.T) {
	g := readGolden(t)
	images := testImages(50)
	for _, layout := range layouts {
		m := open(t, filepath.Join("testdata", layout))
		for _, uncached := range []bool{false, true} {
			for name, given := range g.Cases {
				o, text := caseOptions(t, m, given)
				o.NoCache = uncached
				rs := make([]Request, len(images))
				for i, img := range images {
					rs[i] = Request{Image: img, Text: text, Options: &o}
				}
				got, err := m.Generate(t.Context(), rs)
				if err != nil {
					t.Fatalf("%s, %s: %v", layout, name, err)
				}
				wrong := 0
				for i, want := range g.IDs[layout][name] {
					if !slices.Equal(got[i].Tokens, want) {
						if wrong++; wrong < 3 {
							t.Errorf("%s, %s, uncached %v, image %d: got %v, want %v", layout, name, uncached, i, got[i].Tokens, want)
						}
					}
				}
				if wrong > 0 {
					t.Errorf("%s, %s, uncached %v: %d of %d differ", layout, name, uncached, wrong, len(images))
				}
			}
		}
	}
}
