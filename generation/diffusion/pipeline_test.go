package diffusion

import (
	"context"
	"errors"
	"image"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/prompt"
)

func generate(t *testing.T, p *Pipeline, rs ...Request) []Result {
	t.Helper()
	out, err := p.Generate(context.Background(), rs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apart is by how many levels two pictures differ at most.
func apart(a, b *image.NRGBA) int {
	worst := 0
	for i := range a.Pix {
		worst = max(worst, int(math.Abs(float64(a.Pix[i])-float64(b.Pix[i]))))
	}
	return worst
}

func TestTheSameSeedIsTheSamePicture(t *testing.T) {
	r := Request{Prompt: "a cat", Steps: 6, Scheduler: "euler_ancestral", Seed: 5}
	first := generate(t, openFixture(t, "sd"), r)[0]
	p := openFixture(t, "sd")
	again := generate(t, p, r)[0]
	if !slices.Equal(first.Image.Pix, again.Image.Pix) {
		t.Error("another process's picture differs")
	}
	for name, other := range map[string]Request{
		"seed":     {Prompt: "a cat", Steps: 6, Scheduler: "euler_ancestral", Seed: 6},
		"prompt":   {Prompt: "the red dog", Steps: 6, Scheduler: "euler_ancestral", Seed: 5},
		"guidance": {Prompt: "a cat", Steps: 6, Scheduler: "euler_ancestral", Seed: 5, Guidance: 2},
		"negative": {Prompt: "a cat", Negative: "dog", Steps: 6, Scheduler: "euler_ancestral", Seed: 5},
	} {
		if d := apart(first.Image, generate(t, p, other)[0].Image); d < 2 {
			t.Errorf("another %s: the picture is the same within %d levels", name, d)
		}
	}
}

func TestABatchIsItsPicturesAlone(t *testing.T) {
	f, p := readFixtures(t), openFixture(t, "sd")
	mug, style, bad := f.concept(p, "concept"), f.concept(p, "style"), f.concept(p, "negative")
	rs := []Request{
		{Prompt: "a cat", Steps: 5, Seed: 1},
		{Prompt: "the red dog", Negative: "cat", Steps: 5, Guidance: 3, Seed: 2},
		{Prompt: "a <mug>", Concepts: []*prompt.Prompt{mug, bad}, Steps: 5, Seed: 3},
		{Prompt: "a dog", Concepts: []*prompt.Prompt{style}, Steps: 5, Guidance: 1, Seed: 4},
		{Prompt: "a dog", Steps: 4, Scheduler: "dpmpp_2m", Seed: 4},
		{Prompt: "a dog", Steps: 5, Width: 48, Height: 16, Seed: 4},
	}
	for i, together := range generate(t, p, rs...) {
		alone := generate(t, p, rs[i])[0]
		if d := apart(together.Image, alone.Image); d > 1 {
			t.Errorf("picture %d differs by %d levels from itself alone", i, d)
		}
	}
	if with, without := generate(t, p, rs[3])[0], generate(t, p, Request{Prompt: "a dog", Steps: 5, Guidance: 1, Seed: 4})[0]; apart(with.Image, without.Image) < 2 {
		t.Error("the style changes nothing")
	}
}

func TestPicturesCanBeDrawnAtOnce(t *testing.T) {
	p := openFixture(t, "sd")
	r := Request{Prompt: "a cat", Steps: 4, Image: readFixtures(t).picture(t, "image")}
	drawn := make([]Result, 3)
	var wait sync.WaitGroup
	for i := range drawn {
		wait.Go(func() {
			out, err := p.Generate(context.Background(), []Request{r})
			if err != nil {
				t.Error(err)
				return
			}
			drawn[i] = out[0]
		})
	}
	wait.Wait()
	for _, res := range drawn[1:] {
		if res.Image == nil || !slices.Equal(res.Image.Pix, drawn[0].Image.Pix) {
			t.Error("the same request gives another picture beside others")
		}
	}
}

func TestTheSafetyCheckerIsAsked(t *testing.T) {
	f, p := readFixtures(t), openFixture(t, "inpaint")
	verdicts := map[bool]int{}
	for _, g := range f.cases {
		if g.Bundle != "inpaint" {
			continue
		}
		p.drawNoise = f.noise(t, g)
		res := generate(t, p, f.request(t, p, g))[0]
		if res.Unsafe != g.Unsafe {
			t.Errorf("%s: unsafe is %v, diffusers' checker says %v", g, res.Unsafe, g.Unsafe)
		}
		black := apart(res.Image, picture(slices.Repeat([]float32{-1}, 3*32*32), 32, 32)) == 0
		if black != res.Unsafe {
			t.Errorf("%s: black is %v", g, black)
		}
		verdicts[res.Unsafe]++
	}
	if verdicts[true] == 0 || verdicts[false] == 0 {
		t.Errorf("verdicts %v: both should occur", verdicts)
	}
}

func TestStepsAreToldAndShown(t *testing.T) {
	p := openFixture(t, "sd")
	var steps []Step
	res := generate(t, p, Request{Prompt: "a cat", Steps: 6, Scheduler: "ddim", PreviewEvery: 2, OnStep: func(s Step) { steps = append(steps, s) }})[0]
	if len(steps) != 6 || steps[5].Done != 6 || steps[5].Of != 6 {
		t.Fatalf("steps %+v", steps)
	}
	for i, s := range steps {
		if shown := s.Preview != nil; shown != (i == 1 || i == 3) {
			t.Errorf("step %d shows a preview: %v", i+1, shown)
		}
	}
	if res.Steps != 6 || res.Guidance != 7.5 || res.Scheduler != "ddim" {
		t.Errorf("done as %+v", res)
	}
}

func TestDrawingEndsWithItsContext(t *testing.T) {
	p := openFixture(t, "sd")
	ctx, cancel := context.WithCancel(context.Background())
	seen := 0
	_, err := p.Generate(ctx, []Request{{Prompt: "a cat", Steps: 50, OnStep: func(Step) {
		if seen++; seen == 3 {
			cancel()
		}
	}}})
	if !errors.Is(err, context.Canceled) || seen != 3 {
		t.Errorf("%v after %d steps", err, seen)
	}
}

func TestVariationsStayNearTheirImage(t *testing.T) {
	p := openFixture(t, "sd")
	img := readFixtures(t).picture(t, "image")
	near := generate(t, p, Request{Image: img, Strength: 0.1, Steps: 20, Guidance: 1})[0]
	far := generate(t, p, Request{Image: img, Strength: 1, Steps: 20, Guidance: 1})[0]
	self := generate(t, p, Request{Image: img, Strength: 0.05, Steps: 20, Guidance: 1})[0]
	if a, b := apart(near.Image, self.Image), apart(far.Image, self.Image); a >= b {
		t.Errorf("a strength of 0.1 changes %d levels, of 1 %d", a, b)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	f, p := readFixtures(t), openFixture(t, "sd")
	img := f.picture(t, "image")
	mug := f.concept(p, "concept")
	other := f.concept(p, "concept")
	other.Card.Bundle.Digest = strings.Repeat("0", 64)
	narrow := f.concept(p, "concept")
	narrow.Tensors = map[string]*graph.Tensor{"embedding": graph.NewTensor(make([]float32, 8), 1, 8)}
	classifier := &prompt.Prompt{Card: prompt.Card{Bundle: mug.Card.Bundle}}
	one := func(q *prompt.Prompt) []*prompt.Prompt { return []*prompt.Prompt{q} }
	for _, c := range []struct {
		name string
		r    Request
		want string
	}{
		{"a width of 30", Request{Width: 30}, "multiple of 4, up to 2048"},
		{"a huge height", Request{Height: 4096}, "multiple of 4, up to 2048"},
		{"too many steps", Request{Steps: 2000}, "2000 steps"},
		{"negative guidance", Request{Guidance: -3}, "guidance -3"},
		{"no guidance at all", Request{Guidance: math.NaN()}, "guidance NaN"},
		{"a rescale of 2", Request{GuidanceRescale: 2}, "guidance_rescale 2"},
		{"an unknown scheduler", Request{Scheduler: "heun"}, `"heun" is not known`},
		{"a strength of 2", Request{Image: img, Strength: 2}, "strength 2"},
		{"a strength without an image", Request{Strength: 0.5}, "without an image"},
		{"an image without pixels", Request{Image: image.NewNRGBA(image.Rectangle{})}, "without pixels"},
		{"a mask without an image", Request{Mask: img}, "a mask without an image"},
		{"a concept that isn't mentioned", Request{Prompt: "a cat", Concepts: one(mug)}, "<mug>"},
		{"a concept beyond the window", Request{Prompt: strings.Repeat("a cat ", 10) + "<mug>", Concepts: one(mug)}, "make it shorter"},
		{"two of one name", Request{Prompt: "<mug>", Concepts: []*prompt.Prompt{mug, narrow}}, "two prompts"},
		{"another bundle's", Request{Prompt: "<mug>", Concepts: one(other)}, "bundle"},
		{"another width", Request{Prompt: "<mug>", Concepts: one(narrow)}, "[n,16]"},
		{"a classifier", Request{Prompt: "<mug>", Concepts: one(classifier)}, "kind classifier"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.r.Steps == 0 {
				c.r.Steps = 2
			}
			_, err := p.Generate(context.Background(), []Request{c.r})
			if err == nil || !strings.Contains(err.Error(), c.want) || errs.Of(err) == errs.Internal {
				t.Errorf("%v (%v), want %q", err, errs.Of(err), c.want)
			}
		})
	}
	if res := generate(t, p, Request{Prompt: strings.Repeat("a cat ", 10), Steps: 1})[0]; !res.Truncated {
		t.Error("a long text isn't said to be cut")
	}
	inpaint := openFixture(t, "inpaint")
	if _, err := inpaint.Generate(context.Background(), []Request{{Prompt: "a cat"}}); err == nil || !strings.Contains(err.Error(), "made for inpainting") {
		t.Errorf("a network for inpainting without a mask: %v", err)
	}
}

func TestTokensAndLatentsAreCounted(t *testing.T) {
	f, p := readFixtures(t), openFixture(t, "sd")
	mug := f.concept(p, "concept")
	count := func(r Request) int {
		r.Steps = 1
		res := generate(t, p, r)[0]
		if size := res.Image.Bounds().Size(); res.Latents*p.Factor*p.Factor != size.X*size.Y {
			t.Errorf("%d latents of %v pixels, each of %d x %d", res.Latents, size, p.Factor, p.Factor)
		}
		return res.TextTokens
	}
	cat := count(Request{Prompt: "a cat"})
	learned := int(mug.Tensors["embedding"].Dims[0])
	for name, c := range map[string]struct {
		r    Request
		want int
	}{
		"nothing":        {Request{}, 0},
		"not a cat":      {Request{Negative: "a cat"}, cat},
		"both":           {Request{Prompt: "a cat", Negative: "a cat", Width: 2 * p.Multiple, Height: p.Multiple}, 2 * cat},
		"a learned word": {Request{Prompt: "a cat <mug>", Concepts: []*prompt.Prompt{mug}}, cat + learned},
		"a long text":    {Request{Prompt: strings.Repeat("a cat ", 10)}, p.Texts[0].Window - 2},
	} {
		if got := count(c.r); got != c.want {
			t.Errorf("%s: %d tokens, want %d", name, got, c.want)
		}
	}
	if cat < 2 {
		t.Errorf("a cat has %d tokens", cat)
	}
}

func TestSizesFollowTheImage(t *testing.T) {
	p := openFixture(t, "sd")
	r, err := p.Resolve(Request{Image: image.NewNRGBA(image.Rect(0, 0, 51, 22))})
	if err != nil || r.Width != 48 || r.Height != 20 || r.Strength != 0.8 {
		t.Errorf("%dx%d, strength %g, %v", r.Width, r.Height, r.Strength, err)
	}
}

func TestDefaultsAreTheBundles(t *testing.T) {
	p := openFixture(t, "sd")
	p.Bundle.Overrides.Drawing = bundle.Drawing{Steps: 7, Guidance: 3, Scheduler: "euler"}
	r, err := p.Resolve(Request{Guidance: 2})
	if err != nil || r.Steps != 7 || r.Guidance != 2 || r.Scheduler != "euler" {
		t.Errorf("%d steps, guidance %g, %s, %v", r.Steps, r.Guidance, r.Scheduler, err)
	}
}

// Devices with half floats take the file as it is: floats are cast where they come in.
func TestHalfFloatsAreTakenAsFloats(t *testing.T) {
	p := openFixture(t, "half")
	g, err := p.UNet()
	if err != nil {
		t.Fatal(err)
	}
	if err := takeFloats(g); err != nil {
		t.Fatal(err)
	}
	s, err := ort.NewSession(g, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wide, err := p.unet.get()
	if err != nil {
		t.Fatal(err)
	}
	half := *wide
	half.network = &network{g, s}
	f := readFixtures(t)
	in := [][]float32{f.floats(t, "normals")[:1024]}
	rows := []*condition{{tokens: f.floats(t, "normals")[1024 : 1024+20*16], length: 20}}
	a, err := wide.run(context.Background(), in, 500, rows, 4, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	b, err := half.run(context.Background(), in, 500, rows, 4, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	if d := furthest(a[0], b[0]); !(d < 2e-2) || d == 0 {
		t.Errorf("half floats are %g from floats: near, and not the same", d)
	}
}

// FuzzConfigs: no configuration makes a pipeline panic.
func FuzzConfigs(f *testing.F) {
	f.Add(`{"sample_size": [8, null]}`, `{"block_out_channels": [1,2,3], "scaling_factor": 1e300}`)
	f.Fuzz(func(t *testing.T, unet, vae string) {
		dir := t.TempDir()
		for folder, text := range map[string]string{"unet": unet, "vae_decoder": vae} {
			if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, folder, "config.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if g, err := readGeometry(&bundle.Bundle{Dir: dir}, false); err == nil && (g.checkSide(g.Width) != nil || g.Scaling <= 0) {
			t.Errorf("%s, %s are taken as %+v", unet, vae, g)
		}
	})
}

func TestMasks(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 4, 2))
	for x, c := range []color.NRGBA{{255, 255, 255, 255}, {0, 0, 0, 255}, {255, 255, 255, 0}, {128, 128, 128, 255}} {
		img.Set(x, 0, c)
		img.Set(x, 1, c)
	}
	if got := maskPixels(img, 4, 2); !slices.Equal(got, []float32{1, 0, 0, 1, 1, 0, 0, 1}) {
		t.Errorf("%v", got)
	}
	if got := shrink([]float32{1, 0, 0, 1, 0, 0, 0, 0}, 4, 2, 2); !slices.Equal(got, []float32{1, 0}) {
		t.Errorf("%v", got)
	}
}

func TestPlaceholdersAreFound(t *testing.T) {
	for text, want := range map[string][]string{
		"a <mug> here":        {"a ", "<mug>", " here"},
		"<MUG><mug-2>":        {"", "<mug>", "", "<mug-2>", ""},
		"none":                {"none"},
		"ȺȺȺ <mug>":           {"ȺȺȺ ", "<mug>", ""},
		"a <mug> and a <mug>": {"a ", "<mug>", " and a ", "<mug>", ""},
	} {
		if got := pieces(text, []string{"<mug>", "<mug-2>"}); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestFoldersThatAreNoPipelineAreRefused(t *testing.T) {
	b, err := bundle.Open("../../starter/bundle")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(b, ort.Options{}); err == nil || !strings.Contains(err.Error(), "no diffusers folder") {
		t.Errorf("%v", err)
	}
}
