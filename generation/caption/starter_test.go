package caption

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/vision"
)

// starterTexts is what bench/reference/starter_captions.py wrote.
type starterTexts struct {
	Digest   string
	Pictures []string
	IDs      map[string][][]int64 // "case, question"
}

// starterPictures are the demo's, each on a white ground of the encoder's size, so that nothing is resized.
func starterPictures(t *testing.T, m *Model, names []string) []image.Image {
	t.Helper()
	archive, err := zip.OpenReader("../../starter/demo/captions.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	height, width := m.Images.Size()
	var all []image.Image
	for _, name := range names {
		f, err := archive.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		img, err := vision.Decode(f, vision.Limits{})
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ground := image.NewNRGBA(image.Rect(0, 0, width, height))
		draw.Draw(ground, ground.Rect, image.NewUniform(color.White), image.Point{}, draw.Src)
		b := img.Bounds()
		at := image.Pt((width-b.Dx())/2, (height-b.Dy())/2)
		draw.Draw(ground, b.Sub(b.Min).Add(at), img, b.Min, draw.Src)
		all = append(all, ground)
	}
	return all
}

// TestTheStartersTextsAreThoseOfTransformers captions and asks about 50 pictures, greedily and with four beams, with and
// without a cache.
func TestTheStartersTextsAreThoseOfTransformers(t *testing.T) {
	data, err := os.ReadFile("testdata/starter.json")
	if err != nil {
		t.Fatal(err)
	}
	var want starterTexts
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	m := open(t, "../../starter/captioner")
	if m.Bundle.Digest != want.Digest {
		t.Fatalf("starter/captioner is %s, testdata/starter.json was made with %s: run bench/reference/starter_captions.py", m.Bundle.Digest, want.Digest)
	}
	pictures := starterPictures(t, m, want.Pictures)
	for name, ids := range want.IDs {
		how, question, _ := strings.Cut(name, ", ")
		for _, uncached := range []bool{false, true} {
			o := m.Options()
			if how == "beam" {
				o.Beams = 4
			}
			o.NoCache = uncached
			rs := make([]Request, len(pictures))
			for i := range rs {
				rs[i] = Request{Image: pictures[i], Text: question, Options: &o}
			}
			got, err := m.Generate(t.Context(), rs)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				if !slices.Equal(got[i].Tokens, ids[i]) {
					t.Errorf("%s, uncached %v, %s: got %q %v, want %v", name, uncached, want.Pictures[i], got[i].Text, got[i].Tokens, ids[i])
				}
			}
		}
	}
}

// BenchmarkTokens makes 39 tokens of each of a batch with the starter, whatever they are.
func BenchmarkTokens(b *testing.B) {
	m := open(b, "../../starter/captioner")
	for _, rows := range []int{1, 8} {
		b.Run(fmt.Sprintf("batch=%d", rows), func(b *testing.B) {
			rs := starterBatch(m, rows, 1)
			for b.Loop() {
				if _, err := m.Generate(b.Context(), rs); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(39*rows*b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// starterBatch are requests for 39 tokens each, with no end before.
func starterBatch(m *Model, rows, beams int) []Request {
	height, width := m.Images.Size()
	o := m.Options()
	o.Ends, o.MaxNewTokens, o.Beams = nil, 39, beams
	rs := make([]Request, rows)
	for i := range rs {
		img := image.NewNRGBA(image.Rect(0, 0, width, height))
		draw.Draw(img, img.Rect, image.NewUniform(color.Gray{Y: byte(20 * i)}), image.Point{}, draw.Src)
		rs[i] = Request{Image: img, Options: &o}
	}
	return rs
}
