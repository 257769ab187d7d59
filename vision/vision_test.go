package vision

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"image"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/rng"
)

// readGolden reads what testdata/golden.py wrote.
func readGolden(t testing.TB, name string, into any) {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(into); err != nil {
		t.Fatal(err)
	}
}

type decodedFile struct {
	File          string
	Width, Height int
	RGB           string
}

func unpack(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDecodingEqualsPillow compares pixels: exactly where the format is lossless, within some
// levels where decoders round, and widen chroma, in ways of their own. Taking WebP's limited range
// for the full one would be off by 16.
func TestDecodingEqualsPillow(t *testing.T) {
	tolerances := map[string]float64{"webp, lossy": 8, "jpeg, 4:2:0": 6, "jpeg, grey": 2}
	var files map[string]decodedFile
	readGolden(t, "decoded.json.gz", &files)
	for name, want := range files {
		t.Run(name, func(t *testing.T) {
			img, err := Decode(bytes.NewReader(unpack(t, want.File)), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if got := img.Bounds().Size(); got != image.Pt(want.Width, want.Height) {
				t.Fatalf("it is %v, want %d x %d", got, want.Width, want.Height)
			}
			tolerance := tolerances[name]
			if strings.HasPrefix(name, "orientation") {
				tolerance = 3
			}
			worst, mean := compare(img, unpack(t, want.RGB))
			t.Logf("worst %g, mean %.2g", worst, mean)
			if worst > tolerance {
				t.Errorf("pixels differ by up to %g levels, at most %g", worst, tolerance)
			}
		})
	}
}

func compare(img *image.NRGBA, rgb []byte) (worst, mean float64) {
	for i := range len(rgb) / 3 {
		x, y := i%img.Rect.Dx(), i/img.Rect.Dx()
		p := img.Pix[img.PixOffset(x, y):]
		for c := range 3 {
			d := math.Abs(float64(p[c]) - float64(rgb[3*i+c]))
			worst, mean = max(worst, d), mean+d/float64(len(rgb))
		}
	}
	return worst, mean
}

// TestPreprocessingEqualsTransformers compares with CLIPImageProcessor on the same pixels: within
// one level of 255.
func TestPreprocessingEqualsTransformers(t *testing.T) {
	var cases []struct {
		Name          string
		Config        json.RawMessage
		Width, Height int
		File          string
		Shape         []int
		Levels        []float64
	}
	readGolden(t, "golden.json.gz", &cases)
	for _, c := range cases {
		p, err := NewPreprocessor(c.Config)
		if err != nil {
			t.Fatal(err)
		}
		img, err := Decode(bytes.NewReader(unpack(t, c.File)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		x := p.Apply(img)
		if h, w := p.Size(); len(x) != c.Shape[0]*c.Shape[1]*c.Shape[2] || h != c.Shape[1] || w != c.Shape[2] {
			t.Fatalf("%s: %d numbers of %d x %d, want %v", c.Name, len(x), h, w, c.Shape)
		}
		worst := 0.0
		plane := c.Shape[1] * c.Shape[2]
		for i, want := range c.Levels {
			at := 29 * i
			channel := at / plane
			worst = max(worst, math.Abs((float64(x[at])*p.std[channel]+p.mean[channel])/p.scale-want))
		}
		if worst > 1.01 {
			t.Errorf("%s, %d x %d: off by up to %.2f levels", c.Name, c.Width, c.Height, worst)
		}
	}
}

func TestImagesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		data   []byte
		limits Limits
		want   errs.Kind
		says   string
	}{
		"nothing":            {nil, Limits{}, errs.Invalid, "not an image"},
		"text":               {[]byte("hello"), Limits{}, errs.Invalid, "not an image"},
		"a bomb":             {hugePNG(60_000, 60_000), Limits{}, errs.TooLarge, "3600 megapixels, limit 40"},
		"over a lower limit": {hugePNG(2000, 2000), Limits{MaxPixels: 1_000_000}, errs.TooLarge, "4 megapixels, limit 1"},
		"too many bytes":     {make([]byte, 2<<20), Limits{MaxBytes: 1 << 20}, errs.TooLarge, "more than 1 MiB"},
		"a header alone":     {hugePNG(10, 10), Limits{}, errs.Invalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(bytes.NewReader(c.data), c.limits)
			if errs.Of(err) != c.want || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v (%s), want %s that says %q", err, errs.Of(err), c.want, c.says)
			}
		})
	}
}

// hugePNG is a PNG's header that claims a size, without pixels.
func hugePNG(w, h uint32) []byte {
	chunk := binary.BigEndian.AppendUint32(append([]byte("IHDR"), binary.BigEndian.AppendUint32(nil, w)...), h)
	chunk = append(chunk, 8, 2, 0, 0, 0)
	out := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	return binary.BigEndian.AppendUint32(append(out, chunk...), crc32.ChecksumIEEE(chunk))
}

func TestProcessorsThatAreRefused(t *testing.T) {
	for name, config := range map[string]string{
		"no JSON":          `{`,
		"an unknown kind":  `{"image_processor_type": "MagicProcessor"}`,
		"a strange filter": `{"image_processor_type": "CLIPImageProcessor", "resample": 77, "size": 224}`,
	} {
		if _, err := NewPreprocessor([]byte(config)); errs.Of(err) != errs.Invalid && errs.Of(err) != errs.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	var files map[string]decodedFile
	readGolden(f, "decoded.json.gz", &files)
	for _, file := range files {
		f.Add(unpack(f, file.File))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := Decode(bytes.NewReader(b), Limits{MaxPixels: 1 << 16})
		if err == nil && img.Rect.Dx()*img.Rect.Dy() > 1<<16 {
			t.Errorf("%v decoded over the limit", img.Rect)
		}
	})
}

func TestViewsFollowFromTheirSeed(t *testing.T) {
	p, img := starterPreprocessor(t), testImage(300, 200)
	a, b, c := p.Augment(img, rng.New(1, "view", 0)), p.Augment(img, rng.New(1, "view", 0)), p.Augment(img, rng.New(1, "view", 1))
	if !slices.Equal(a, b) || slices.Equal(a, c) || len(a) != len(p.Apply(img)) {
		t.Error("views do not follow from their seed")
	}
}

func starterPreprocessor(t testing.TB) *Preprocessor {
	t.Helper()
	b, err := os.ReadFile("../starter/bundle/preprocessor_config.json")
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPreprocessor(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testImage(w, h int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	g := rng.New(1, "image", w, h)
	for i := range img.Pix {
		img.Pix[i] = byte(g.Uint32())
	}
	return img
}

// TestTheStartersTower cuts the tower in two, and gives each row another prompt.
func TestTheStartersTower(t *testing.T) {
	b, err := bundle.Open("../starter/bundle")
	if err != nil {
		t.Fatal(err)
	}
	tower, err := OpenTower(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tower.Close()
	pixels := tower.Pixels(tower.Apply(testImage(200, 160)), tower.Apply(testImage(90, 120)))
	whole, err := ort.NewSession(tower.Info.Graph, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	out, err := whole.Run(t.Context(), map[string]*graph.Tensor{tower.Info.Pixels.Name: pixels})
	if err != nil {
		t.Fatal(err)
	}
	halves, err := tower.Embed(t.Context(), pixels)
	if err != nil {
		t.Fatal(err)
	}
	if d := apart(t, out[tower.Info.Output.Name], halves); d > 1e-4 {
		t.Errorf("in two halves it differs by %g", d)
	}
	tokens, err := tower.Tokens(t.Context(), pixels)
	if err != nil {
		t.Fatal(err)
	}
	prompts := random(2, 3, int64(tower.Width()))
	both, err := tower.EmbedTokens(t.Context(), tokens, []*graph.Tensor{prompts})
	if err != nil {
		t.Fatal(err)
	}
	for row := range int64(2) {
		alone, err := tower.EmbedTokens(t.Context(), tokens.Rows(row, row+1), []*graph.Tensor{prompts.Rows(row, row+1)})
		if err != nil {
			t.Fatal(err)
		}
		if d := apart(t, alone, both.Rows(row, row+1)); d > 1e-4 {
			t.Errorf("row %d differs by %g in company", row, d)
		}
	}
	if d := apart(t, both, halves); d < 1e-3 {
		t.Error("prompts change nothing")
	}
}

func random(dims ...int64) *graph.Tensor {
	g := rng.New(2, "random")
	values := make([]float32, graph.Count(dims))
	for i := range values {
		values[i] = float32(g.NormFloat64())
	}
	return graph.NewTensor(values, dims...)
}

// apart is the largest difference, relative to the largest element.
func apart(t *testing.T, a, b *graph.Tensor) float64 {
	t.Helper()
	x, err := graph.Values[float32](a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := graph.Values[float32](b)
	if err != nil || len(x) != len(y) {
		t.Fatal(len(x), len(y), err)
	}
	worst, largest := 0.0, 0.0
	for i := range x {
		worst, largest = max(worst, math.Abs(float64(x[i]-y[i]))), max(largest, math.Abs(float64(y[i])))
	}
	return worst / largest
}

func BenchmarkApply(b *testing.B) {
	p, img := starterPreprocessor(b), testImage(640, 480)
	for b.Loop() {
		p.Apply(img)
	}
}

func BenchmarkDecode(b *testing.B) {
	var files map[string]decodedFile
	readGolden(b, "decoded.json.gz", &files)
	file := unpack(b, files["jpeg, 4:2:0"].File)
	for b.Loop() {
		if _, err := Decode(bytes.NewReader(file), Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
