package inversion

import (
	"context"
	"image"
	"math"
	"slices"

	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/tuning"
)

// pictures are what the latents that are learned from are made of: samples of the data or, for prior preservation,
// pictures that the frozen model draws.
type pictures struct {
	pipeline *diffusion.Pipeline
	recipe   *tuning.Recipe
	samples  []tuning.Sample
	cache    map[view]diffusion.Latents
	drawn    []diffusion.Latents // plain and mirrored by turns; nil until they are wanted
}

// view is a sample as it is or mirrored.
type view struct {
	sample   int
	mirrored bool
}

func newPictures(p *diffusion.Pipeline, r *tuning.Recipe, samples []tuning.Sample) *pictures {
	return &pictures{pipeline: p, recipe: r, samples: samples, cache: map[view]diffusion.Latents{}}
}

// divide parts the samples that are learned from, the class pictures aside.
func divide(r *tuning.Recipe, d *tuning.Data) (concept, class []tuning.Sample) {
	of := slices.Index(d.Classes, r.Inversion.Prior.Class)
	for _, s := range d.Train {
		if r.Inversion.Prior.Class != "" && s.Class == of {
			class = append(class, s)
		} else {
			concept = append(concept, s)
		}
	}
	return concept, class
}

// draws says whether the frozen model draws them.
func (s *pictures) draws() bool { return len(s.samples) == 0 }

// count is how many there are.
func (s *pictures) count() int {
	if s.draws() {
		return s.recipe.Inversion.Prior.Images
	}
	return len(s.samples)
}

// at is which picture comes n-th: each epoch has an order of its own.
func (s *pictures) at(n int) int {
	epoch := n / s.count()
	return rng.New(s.recipe.Seed, "order", epoch, s.draws()).Perm(s.count())[n%s.count()]
}

// sample is the i-th picture's, nil where it is drawn.
func (s *pictures) sample(i int) *tuning.Sample {
	if s.draws() {
		return nil
	}
	return &s.samples[i]
}

// latents of the i-th picture, unscaled. They are computed once.
func (s *pictures) latents(ctx context.Context, i int, mirrored bool) (diffusion.Latents, error) {
	if s.draws() {
		if err := s.draw(ctx); err != nil {
			return diffusion.Latents{}, err
		}
		if mirrored {
			return s.drawn[2*i+1], nil
		}
		return s.drawn[2*i], nil
	}
	key := view{i, mirrored}
	if l, ok := s.cache[key]; ok {
		return l, nil
	}
	img, err := s.samples[i].Image(ctx)
	if err != nil {
		return diffusion.Latents{}, err
	}
	l, err := s.encode(ctx, img, mirrored)
	if err == nil {
		s.cache[key] = l
	}
	return l, err
}

// encode has the autoencoder look at the middle of an image.
func (s *pictures) encode(ctx context.Context, img image.Image, mirrored bool) (diffusion.Latents, error) {
	w, h := s.recipe.Inversion.Width, s.recipe.Inversion.Height
	pixels := diffusion.Pixels(middle(img, w, h), w, h)
	if mirrored {
		mirror(pixels, w)
	}
	return s.pipeline.Encode(ctx, pixels, h, w)
}

// draw has the frozen model draw the class pictures, a few at a time.
func (s *pictures) draw(ctx context.Context) error {
	const together = 4
	v := s.recipe.Inversion
	for len(s.drawn) < 2*s.count() {
		var rs []diffusion.Request
		for i := len(s.drawn) / 2; i < s.count() && len(rs) < together; i++ {
			rs = append(rs, whole(s.pipeline, diffusion.Request{
				Prompt: v.Prior.Text, Width: v.Width, Height: v.Height, Seed: rng.New(s.recipe.Seed, "class picture", i).Uint64(),
			}))
		}
		drawn, err := s.pipeline.Generate(ctx, rs)
		if err != nil {
			return err
		}
		for _, p := range drawn {
			for _, mirrored := range []bool{false, true} {
				l, err := s.encode(ctx, p.Image, mirrored)
				if err != nil {
					return err
				}
				s.drawn = append(s.drawn, l)
			}
		}
	}
	return nil
}

// whole has a network for inpainting draw all of a picture: of grey, under a white mask.
func whole(p *diffusion.Pipeline, r diffusion.Request) diffusion.Request {
	if p.Inpaints() {
		all := image.Rect(0, 0, r.Width, r.Height)
		grey, white := image.NewGray(all), image.NewGray(all)
		for i := range grey.Pix {
			grey.Pix[i], white.Pix[i] = 128, 255
		}
		r.Image, r.Mask = grey, white
	}
	return r
}

// middle cuts an image to the proportions of w by h around its centre.
func middle(img image.Image, w, h int) image.Image {
	b := img.Bounds()
	cut, ok := img.(interface {
		SubImage(image.Rectangle) image.Image
	})
	if !ok {
		return img
	}
	scale := math.Min(float64(b.Dx())/float64(w), float64(b.Dy())/float64(h))
	cw, ch := max(1, int(math.Round(scale*float64(w)))), max(1, int(math.Round(scale*float64(h))))
	x, y := b.Min.X+(b.Dx()-cw)/2, b.Min.Y+(b.Dy()-ch)/2
	return cut.SubImage(image.Rect(x, y, x+cw, y+ch))
}

// mirror reverses each row of pixels [3,H,W].
func mirror(pixels []float32, width int) {
	for row := range slices.Chunk(pixels, width) {
		slices.Reverse(row)
	}
}

// resolve returns the recipe with sizes and micro-batches written out for the pipeline, and refuses data that it has nothing to
// learn from.
func resolve(p *diffusion.Pipeline, r *tuning.Recipe, d *tuning.Data) (*tuning.Recipe, error) {
	c, err := r.ResolveInversion()
	if err != nil {
		return nil, err
	}
	v := &c.Inversion
	if v.Width == 0 && v.Height == 0 {
		v.Width, v.Height = p.Width, p.Height
	}
	for _, side := range []int{v.Width, v.Height} {
		if side < p.Multiple || side%p.Multiple != 0 {
			return nil, errs.New(errs.Invalid, "recipe %q: pictures of %d x %d pixels: both are multiples of %d for bundle %s", r.Name, v.Width, v.Height, p.Multiple, p.Bundle.Name)
		}
	}
	most := c.Batch
	if v.Prior.On() {
		most *= 2
	}
	if v.MicroBatch == 0 {
		v.MicroBatch = most
	}
	v.MicroBatch = min(v.MicroBatch, most)
	concept, class := divide(c, d)
	switch {
	case len(concept) == 0:
		return nil, errs.New(errs.Invalid, "dataset %s has no training images to learn from", d.Dataset)
	case v.Prior.On() && v.Prior.Class != "" && len(class) == 0:
		return nil, errs.New(errs.Invalid, "recipe %q: dataset %s has no training images of the class %q that inversion.prior names (it has %q)", r.Name, d.Dataset, v.Prior.Class, d.Classes)
	}
	return c, nil
}
