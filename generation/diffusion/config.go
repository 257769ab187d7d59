package diffusion

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/internal/errs"
)

// index is what is read of model_index.json.
type index struct {
	Class           string `json:"_class_name"`
	ForceZeros      bool   `json:"force_zeros_for_empty_prompt"`
	AestheticsScore bool   `json:"requires_aesthetics_score"`
	// ClipSkip is how many blocks of the text encoder are left out at its end.
	ClipSkip int `json:"clip_skip"`
}

// unetConfig is what is read of unet/config.json, which diffusers' own exporter leaves out.
type unetConfig struct {
	SampleSize    size  `json:"sample_size"`
	BlockChannels []int `json:"block_out_channels"`
}

// size is a side, or a height and a width.
type size struct{ height, width int }

func (s *size) UnmarshalJSON(data []byte) error {
	if string(data) == "null" { // what it is by default
		return nil
	}
	var side int
	if json.Unmarshal(data, &side) == nil {
		s.height, s.width = side, side
		return nil
	}
	var pair [2]int
	err := json.Unmarshal(data, &pair)
	s.height, s.width = pair[0], pair[1]
	return err
}

// vaeConfig is what is read of the autoencoder's config.json, in vae_decoder, vae_encoder or vae.
type vaeConfig struct {
	ScalingFactor float64   `json:"scaling_factor"`
	ShiftFactor   float64   `json:"shift_factor"`
	BlockChannels []int     `json:"block_out_channels"`
	LatentsMean   []float64 `json:"latents_mean"`
	LatentsStd    []float64 `json:"latents_std"`
}

// readJSON reads the first of the files that the bundle has into v, and says whether there is one.
func readJSON(b *bundle.Bundle, v any, files ...string) (bool, error) {
	for _, file := range files {
		data, err := os.ReadFile(b.Path(file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if err := json.Unmarshal(data, v); err != nil {
			return false, errs.New(errs.Invalid, "bundle %s: %s: %w", b.Name, file, err)
		}
		return true, nil
	}
	return false, nil
}

// has says whether the bundle holds the file.
func has(b *bundle.Bundle, file string) bool {
	_, err := os.Stat(b.Path(file))
	return err == nil
}

// Geometry is how a bundle's pictures are laid out.
type Geometry struct {
	// Width and Height are the size that it was trained for, in pixels.
	Width, Height int
	// Factor is how many pixels wide and high a latent is. Multiple is what width and height are
	// multiples of: the network halves latents, and exports expect it to come out even.
	Factor, Multiple int
	// Channels is how many numbers a latent has.
	Channels int
	// Scaling and Shift turn the autoencoder's latents into those that noise is added to:
	// (latent - Shift) * Scaling.
	Scaling, Shift float64
}

// readGeometry reads the configurations; what they leave out is as in Stable Diffusion 1 or SDXL.
func readGeometry(b *bundle.Bundle, xl bool) (Geometry, error) {
	u := unetConfig{BlockChannels: make([]int, 4), SampleSize: size{64, 64}}
	v := vaeConfig{BlockChannels: make([]int, 4), ScalingFactor: 0.18215}
	if xl {
		u = unetConfig{BlockChannels: make([]int, 3), SampleSize: size{128, 128}}
		v.ScalingFactor = 0.13025
	}
	if _, err := readJSON(b, &u, "unet/config.json"); err != nil {
		return Geometry{}, err
	}
	if _, err := readJSON(b, &v, "vae_decoder/config.json", "vae_encoder/config.json", "vae/config.json"); err != nil {
		return Geometry{}, err
	}
	if len(v.LatentsMean) > 0 || len(v.LatentsStd) > 0 {
		return Geometry{}, errs.New(errs.Unsupported, "bundle %s: its autoencoder has latents_mean and latents_std, which are not done here", b.Name)
	}
	for _, n := range []int{len(u.BlockChannels), len(v.BlockChannels)} {
		if n < 1 || n > 8 {
			return Geometry{}, errs.New(errs.Invalid, "bundle %s: block_out_channels has %d entries; 1 to 8 are possible", b.Name, n)
		}
	}
	g := Geometry{Factor: 1 << (len(v.BlockChannels) - 1), Scaling: v.ScalingFactor, Shift: v.ShiftFactor}
	g.Multiple = g.Factor << (len(u.BlockChannels) - 1)
	g.Width, g.Height = u.SampleSize.width*g.Factor, u.SampleSize.height*g.Factor
	if !(g.Scaling > 0) || g.checkSide(g.Width) != nil || g.checkSide(g.Height) != nil {
		return g, errs.New(errs.Invalid, "bundle %s: scaling_factor %g and a size of %dx%d pixels make no sense: sides are multiples of %d up to %d", b.Name, g.Scaling, g.Width, g.Height, g.Multiple, MaxSide)
	}
	return g, nil
}

// MaxSide is the longest side of a picture, in pixels.
const MaxSide = 2048

func (g *Geometry) checkSide(n int) error {
	if n < g.Multiple || n > MaxSide || n%g.Multiple != 0 {
		return errs.New(errs.Invalid, "a side of %d pixels: it is a multiple of %d, up to %d", n, g.Multiple, MaxSide)
	}
	return nil
}

// refuseIndex refuses pipelines that are something else than text to image.
func refuseIndex(b *bundle.Bundle, x index) error {
	for _, other := range []string{"InstructPix2Pix", "ControlNet", "Upscale", "Depth2Img", "ImageVariation", "Gligen", "Kandinsky", "IFPipeline", "Cascade"} {
		if strings.Contains(x.Class, other) {
			return errs.New(errs.Unsupported, "bundle %s: a %s can't be run: only Stable Diffusion and SDXL, text to image and inpainting", b.Name, x.Class)
		}
	}
	if x.AestheticsScore {
		return errs.New(errs.Unsupported, "bundle %s: an SDXL refiner (requires_aesthetics_score) can't be run alone: use a base model", b.Name)
	}
	return nil
}
