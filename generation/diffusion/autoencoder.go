package diffusion

import (
	"context"
	"image"
	"math"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/vision"
)

// imageEncoder is the half of the autoencoder that turns images into latents.
type imageEncoder struct {
	*network
	// random are inputs that stand where the file drew its own noise.
	random []*graph.Value
}

func (p *Pipeline) openEncoder() (*imageEncoder, error) {
	if !has(p.Bundle, "vae_encoder/model.onnx") {
		return nil, errs.New(errs.Unsupported, "bundle %s: vae_encoder/model.onnx is missing: images can't be taken, texts alone can", p.Bundle.Name)
	}
	g, err := p.load("vae_encoder")
	if err != nil {
		return nil, err
	}
	random := takeNoise(g)
	n, err := p.openNetwork(g)
	if err != nil {
		return nil, err
	}
	return &imageEncoder{n, random}, nil
}

// takeNoise makes the noise that a file draws an input, so that the same seed gives the same latents.
func takeNoise(g *graph.Graph) []*graph.Value {
	var inputs []*graph.Value
	g.Nodes = slices.DeleteFunc(g.Nodes, func(n *graph.Node) bool {
		if !strings.HasPrefix(n.Op, "RandomNormal") {
			return false
		}
		v := n.Outputs[0]
		v.Def, v.Type = nil, graph.Float
		if len(n.Inputs) > 0 && n.Inputs[0].Type != graph.Undefined {
			v.Type = n.Inputs[0].Type
		}
		inputs = append(inputs, v)
		return true
	})
	g.Inputs = append(g.Inputs, inputs...)
	g.Prune()
	return inputs
}

// Latents are the latents of an image, as the autoencoder gives them: unscaled, of dims [C,h,w].
type Latents struct {
	Mean []float32
	Std  []float32 // 0 where the file gives no spread
}

// Sample is mean + std * noise.
func (l Latents) Sample(noise []float32) []float32 {
	out := slices.Clone(l.Mean)
	for i, s := range l.Std {
		out[i] += s * noise[i]
	}
	return out
}

// Encode gives the latents of pixels [3,H,W] in -1..1, height and width multiples of Factor.
func (p *Pipeline) Encode(ctx context.Context, pixels []float32, height, width int) (Latents, error) {
	e, err := p.encoder.get()
	if err != nil {
		return Latents{}, err
	}
	in := graph.NewTensor(pixels, 1, 3, int64(height), int64(width))
	size := p.Channels * (height / p.Factor) * (width / p.Factor)
	out, err := e.encode(ctx, in, make([]float32, size), []int64{1, int64(p.Channels), int64(height / p.Factor), int64(width / p.Factor)})
	if err != nil {
		return Latents{}, err
	}
	if len(out) == 2*size { // means and log-variances
		l := Latents{Mean: out[:size], Std: make([]float32, size)}
		for i, v := range out[size:] { // diffusers keeps log-variances between -30 and 20
			l.Std[i] = float32(math.Exp(0.5 * min(max(float64(v), -30), 20)))
		}
		return l, nil
	}
	if len(out) != size {
		return Latents{}, errs.New(errs.Unsupported, "bundle %s: vae_encoder gives %d numbers for %dx%d pixels, want %d or twice that", p.Bundle.Name, len(out), width, height, size)
	}
	l := Latents{Mean: out, Std: make([]float32, size)}
	if len(e.random) == 0 {
		return l, nil
	}
	spread, err := e.encode(ctx, in, slices.Repeat([]float32{1}, size), []int64{1, int64(p.Channels), int64(height / p.Factor), int64(width / p.Factor)})
	for i := range spread {
		l.Std[i] = spread[i] - l.Mean[i]
	}
	return l, err
}

func (e *imageEncoder) encode(ctx context.Context, pixels *graph.Tensor, noise []float32, dims []int64) ([]float32, error) {
	feeds := map[string]*graph.Tensor{e.graph.Inputs[0].Name: pixels}
	for _, v := range e.random {
		feeds[v.Name] = graph.NewTensor(noise, dims...)
	}
	got, err := e.session.Run(ctx, feeds)
	if err != nil {
		return nil, err
	}
	return graph.Values[float32](got[e.graph.Outputs[0].Name])
}

func (p *Pipeline) openDecoder() (*network, error) {
	g, err := p.load("vae_decoder")
	if err != nil {
		return nil, err
	}
	return p.openNetwork(g)
}

// Scaled turns the autoencoder's latents into those that noise is added to, in place.
func (g *Geometry) Scaled(latents []float32) []float32 {
	for i, x := range latents {
		latents[i] = float32((float64(x) - g.Shift) * g.Scaling)
	}
	return latents
}

// decode draws the image of one row of latents [C,h,w].
func (p *Pipeline) decode(ctx context.Context, latents []float32, height, width int) ([]float32, error) {
	d, err := p.decoder.get()
	if err != nil {
		return nil, err
	}
	raw := make([]float32, len(latents))
	for i, x := range latents {
		raw[i] = float32(float64(x)/p.Scaling + p.Shift)
	}
	in := graph.NewTensor(raw, 1, int64(p.Channels), int64(height/p.Factor), int64(width/p.Factor))
	got, err := d.session.Run(ctx, map[string]*graph.Tensor{d.graph.Inputs[0].Name: in})
	if err != nil {
		return nil, err
	}
	pixels, err := graph.Values[float32](got[d.graph.Outputs[0].Name])
	if err == nil && len(pixels) != 3*height*width {
		err = errs.New(errs.Unsupported, "bundle %s: vae_decoder gives %d numbers for %dx%d pixels, want %d", p.Bundle.Name, len(pixels), width, height, 3*height*width)
	}
	return pixels, err
}

// picture makes an image of pixels [3,H,W] in -1..1.
func picture(pixels []float32, height, width int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	plane := height * width
	for i := range plane {
		for c := range 3 {
			v := min(max(float64(pixels[c*plane+i])/2+0.5, 0), 1)
			img.Pix[4*i+c] = uint8(math.RoundToEven(v * 255))
		}
		img.Pix[4*i+3] = 255
	}
	return img
}

// Pixels are an image's [3,H,W] in -1..1, scaled to the size with Pillow's Lanczos filter.
func Pixels(img image.Image, width, height int) []float32 {
	fit := vision.Resize(img, width, height)
	plane := width * height
	out := make([]float32, 3*plane)
	for i := range plane {
		for c := range 3 {
			out[c*plane+i] = float32(fit.Pix[4*i+c])/255*2 - 1
		}
	}
	return out
}

// maskPixels are 1 where the mask is white, the side of grey at and above one half, and 0 elsewhere:
// [H,W]. What is transparent is black.
func maskPixels(img image.Image, width, height int) []float32 {
	b := img.Bounds()
	grey := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	for y := range b.Dy() {
		for x := range b.Dx() {
			r, g, bl, _ := img.At(b.Min.X+x, b.Min.Y+y).RGBA() // alpha is multiplied in
			// ITU-R 601, as Pillow's conversion to L.
			l := uint8((19595*(r>>8) + 38470*(g>>8) + 7471*(bl>>8) + 1<<15) >> 16)
			copy(grey.Pix[grey.PixOffset(x, y):], []uint8{l, l, l, 255})
		}
	}
	fit := vision.Resize(grey, width, height)
	out := make([]float32, width*height)
	for i := range out {
		if fit.Pix[4*i] >= 128 {
			out[i] = 1
		}
	}
	return out
}

// shrink picks every Factor-th pixel, as PyTorch's nearest interpolation does: [h,w].
func shrink(mask []float32, width, height, factor int) []float32 {
	out := make([]float32, 0, len(mask)/(factor*factor))
	for y := 0; y < height; y += factor {
		for x := 0; x < width; x += factor {
			out = append(out, mask[y*width+x])
		}
	}
	return out
}
