package diffusion

import (
	"cmp"
	"image"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/generation/diffusion/schedule"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
)

// Request is one picture to draw. Fields that are zero take what the bundle's foretoken.yaml says of
// drawing, else the defaults told here.
type Request struct {
	// Prompt is what to draw, Negative what not to. A text that is longer than the encoder's window is cut.
	Prompt, Negative string
	// Concepts are learned prompts: the placeholder of a concept stands in Prompt or Negative; a style
	// stands ahead of Prompt's words; a negative prompt ahead of Negative's, or at its placeholder there.
	Concepts []*prompt.Prompt
	// Width and Height in pixels: multiples of the bundle's Multiple, up to [MaxSide]. By default those
	// of Image, rounded down, else those that the bundle was trained for.
	Width, Height int
	// Steps is how many steps noise is taken away in; by default 30, and 4 with LCM.
	Steps int
	// Guidance is how far the network is pushed from the negative prompt to the prompt (classifier-free
	// guidance; Ho and Salimans 2022); 1 is not at all. By default 7.5, SDXL 5; with LCM 1, and 8.5 where
	// guidance was distilled into the network. Up to 100.
	Guidance float64
	// GuidanceRescale, 0 to 1, brings the contrast back that guidance exaggerates (Lin et al. 2023).
	GuidanceRescale float64
	Seed            uint64
	// Scheduler is one of [schedule.Names]; by default the bundle's own.
	Scheduler string
	// Eta, 0 to 1, is how much noise the scheduler ddim puts back at each step: none by default, and 1 is as
	// much as training has (Song et al. 2021). The others take 0 alone.
	Eta float64
	// Image is where drawing begins instead of from noise alone: image-to-image, a variation where Prompt is
	// empty. Strength, above 0 up to 1, is how much of it is drawn anew: by default 0.8, and 1 with a Mask.
	Image    image.Image
	Strength float64
	// Mask, with Image, says where: white is drawn anew, black and transparent stays.
	Mask image.Image
	// OnStep, where set, hears of each step, one after the other. With PreviewEvery k, each k-th step
	// shows what the network sees so far.
	OnStep       func(Step)
	PreviewEvery int
}

// Step is how far a picture is.
type Step struct {
	Done, Of int
	Preview  *image.NRGBA // nil where none was asked for
}

// Result is a picture.
type Result struct {
	Image *image.NRGBA
	Seed  uint64
	// Unsafe says that the bundle's own checker found the picture unsafe: Image is black then.
	Unsafe bool
	// Truncated says that Prompt or Negative was longer than the encoder's window and was cut.
	Truncated bool
	// TextTokens is how many tokens of Prompt and Negative were read, learned words' among them; those that open, close and
	// pad a text don't count. Latents is how many latents the picture has: what the network sees of it.
	TextTokens, Latents int

	// What was left to defaults, as it was done.
	Steps     int
	Guidance  float64
	Scheduler string
}

// shared is what the requests of one batch have in common.
type shared struct {
	width, height, steps int
	scheduler            string
	strength             float64
}

// maxGuidance is where pictures are long burnt out.
const maxGuidance = 100

// Resolve fills in the defaults and refuses what can't be done, as [Pipeline.Generate] does first.
func (p *Pipeline) Resolve(r Request) (Request, error) {
	r.fillIn(p.Bundle.Overrides.Drawing)
	s, err := p.sampling(&r)
	if err != nil {
		return r, err
	}
	r.Scheduler = schedule.ShortName(s.Config.Class)
	if err := p.resolveSize(&r); err != nil {
		return r, err
	}
	lcm := s.Config.Class == schedule.LCM
	r.Steps = cmp.Or(r.Steps, pick(lcm, 4, 30))
	r.Guidance = cmp.Or(r.Guidance, p.defaultGuidance(lcm))
	if !(r.Guidance >= 1 && r.Guidance <= maxGuidance) {
		return r, errs.New(errs.Invalid, "guidance %g: it is 1, for none, to %d", r.Guidance, maxGuidance)
	}
	if !(r.GuidanceRescale >= 0 && r.GuidanceRescale <= 1) {
		return r, errs.New(errs.Invalid, "guidance_rescale %g: it is 0 to 1", r.GuidanceRescale)
	}
	if err := p.resolveImage(&r); err != nil {
		return r, err
	}
	if _, err := s.Sampler(r.Steps, r.Strength); err != nil {
		return r, err
	}
	return r, checkMentioned(&r)
}

// fillIn takes what foretoken.yaml says of drawing.
func (r *Request) fillIn(d bundle.Drawing) {
	r.Steps = cmp.Or(r.Steps, d.Steps)
	r.Guidance = cmp.Or(r.Guidance, d.Guidance)
	r.Scheduler = cmp.Or(r.Scheduler, d.Scheduler)
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

func (p *Pipeline) defaultGuidance(lcm bool) float64 {
	switch {
	case p.inputs.guidance > 0:
		return 8.5
	case lcm:
		return 1
	case p.xl:
		return 5
	}
	return 7.5
}

func (p *Pipeline) resolveSize(r *Request) error {
	if r.Image != nil && r.Image.Bounds().Empty() || r.Mask != nil && r.Mask.Bounds().Empty() {
		return errs.New(errs.Invalid, "an image or mask without pixels")
	}
	width, height := p.Width, p.Height
	if r.Image != nil {
		b := r.Image.Bounds()
		fit := func(n int) int { return min(max(n/p.Multiple, 1)*p.Multiple, MaxSide/p.Multiple*p.Multiple) }
		width, height = fit(b.Dx()), fit(b.Dy())
	}
	if r.Width == 0 {
		r.Width = width
	}
	if r.Height == 0 {
		r.Height = height
	}
	for _, side := range []int{r.Width, r.Height} {
		if err := p.checkSide(side); err != nil {
			return errs.New(errs.Invalid, "bundle %s, a picture of %dx%d: %w", p.Bundle.Name, r.Width, r.Height, err)
		}
	}
	return nil
}

func (p *Pipeline) resolveImage(r *Request) error {
	switch {
	case r.Image == nil && r.Mask != nil:
		return errs.New(errs.Invalid, "a mask without an image")
	case r.Image == nil && (r.Strength != 0 && r.Strength != 1):
		return errs.New(errs.Invalid, "strength %g without an image to begin with", r.Strength)
	case r.Mask == nil && p.inputs.inpaints():
		return errs.New(errs.Unsupported, "bundle %s was made for inpainting: it needs an image and a mask", p.Bundle.Name)
	case r.Image != nil && r.Strength == 0:
		r.Strength = pick(r.Mask != nil, 1, 0.8)
	case r.Image == nil:
		r.Strength = 1
	}
	return nil
}

// batches groups requests that can share one: by their places.
func batches(rs []Request) [][]int {
	var keys []shared
	var out [][]int
	for i, r := range rs {
		k := shared{r.Width, r.Height, r.Steps, r.Scheduler, r.Strength}
		at := slices.Index(keys, k)
		if at < 0 {
			keys, out = append(keys, k), append(out, nil)
			at = len(out) - 1
		}
		out[at] = append(out[at], i)
	}
	return out
}

// usesNegative says whether anything stands against the prompt.
func (r *Request) usesNegative() bool {
	return strings.TrimSpace(r.Negative) != "" || slices.ContainsFunc(r.Concepts, func(q *prompt.Prompt) bool { return q.Card.Kind == prompt.Negative })
}
