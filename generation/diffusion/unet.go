package diffusion

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// unetInputs is what the network's file takes.
type unetInputs struct {
	channels  int // of the input
	latents   int // of these, the noisy latents': the output's
	textWidth int // of encoder_hidden_states; 0 where the file leaves it open
	guidance  int // width of timestep_cond, 0 where there is none
}

// inpaints says whether the network was trained to see a mask and the image around it.
func (u unetInputs) inpaints() bool { return u.channels == 2*u.latents+1 }

// Inpaints says whether the network sees a mask and the image around it beside the noisy latents.
func (p *Pipeline) Inpaints() bool { return p.inputs.inpaints() }

// WholeMasked is what a network that inpaints sees beside the noisy latents where the whole picture is to be
// drawn: a mask of ones and the latents of grey, [1+C,h,w]; nil for others.
func (p *Pipeline) WholeMasked(ctx context.Context, height, width int) ([]float32, error) {
	if !p.Inpaints() {
		return nil, nil
	}
	latents, err := p.Encode(ctx, make([]float32, 3*height*width), height, width)
	if err != nil {
		return nil, err
	}
	mask := slices.Repeat([]float32{1}, height/p.Factor*(width/p.Factor))
	return append(mask, p.Scaled(slices.Clone(latents.Mean))...), nil
}

// GuidanceEmbedding is how a network with distilled guidance is told the guidance that it draws with where a
// request says none; nil for others.
func (p *Pipeline) GuidanceEmbedding() []float32 {
	if p.inputs.guidance == 0 {
		return nil
	}
	return guidanceEmbedding(cmp.Or(p.Bundle.Overrides.Drawing.Guidance, p.defaultGuidance(false)), p.inputs.guidance)
}

// extent is a known extent of a value's axis, else 0.
func extent(v *graph.Value, axis int) int {
	if v == nil || axis >= len(v.Shape) {
		return 0
	}
	n, _ := v.Shape[axis].Int()
	return int(n)
}

// readUNetInputs looks at the network's file.
func (p *Pipeline) readUNetInputs() error {
	g, err := p.UNet()
	if err != nil {
		return err
	}
	for _, name := range []string{"sample", "timestep", "encoder_hidden_states"} {
		if g.Input(name) == nil {
			return errs.New(errs.Unsupported, "bundle %s: unet/model.onnx has no input %q; it has %s", p.Bundle.Name, name, inputNames(g))
		}
	}
	for _, v := range g.Inputs {
		switch v.Name {
		case "sample", "timestep", "encoder_hidden_states", "text_embeds", "time_ids", "timestep_cond":
		default:
			return errs.New(errs.Unsupported, "bundle %s: unet/model.onnx has an input %q that nothing here can fill", p.Bundle.Name, v.Name)
		}
	}
	p.xl = g.Input("text_embeds") != nil
	u := unetInputs{
		channels: extent(g.Input("sample"), 1), latents: extent(g.Outputs[0], 1),
		textWidth: extent(g.Input("encoder_hidden_states"), 2), guidance: extent(g.Input("timestep_cond"), 1),
	}
	if u.channels == 0 {
		u.channels = 4
	}
	if u.latents == 0 {
		u.latents = 4
	}
	if u.channels != u.latents && !u.inpaints() {
		return errs.New(errs.Unsupported, "bundle %s: its network takes %d channels for latents of %d; %d or, for inpainting, %d can be fed", p.Bundle.Name, u.channels, u.latents, u.latents, 2*u.latents+1)
	}
	if g.Input("timestep_cond") != nil && u.guidance < 4 {
		return errs.New(errs.Unsupported, "bundle %s: unet/model.onnx leaves the width of timestep_cond open", p.Bundle.Name)
	}
	p.inputs = u
	return nil
}

// denoiser is the network with its session.
type denoiser struct {
	*network
	perRow bool // the timestep's axis is the batch's
	output string
}

func (p *Pipeline) openUNet() (*denoiser, error) {
	g, err := p.UNet()
	if err != nil {
		return nil, err
	}
	n, err := p.openNetwork(g)
	if err != nil {
		return nil, err
	}
	t, sample := g.Input("timestep"), g.Input("sample")
	perRow := len(t.Shape) == 1 && len(sample.Shape) == 4 && t.Shape[0].Equal(sample.Shape[0])
	return &denoiser{n, perRow, g.Outputs[0].Name}, nil
}

// condition is what the network is told about one row besides the picture.
type condition struct {
	tokens   []float32 // [length,D]
	length   int
	pooled   []float32 // SDXL's [D]
	ids      []float32 // SDXL's sizes and crop
	guidance []float32 // of distilled guidance
}

// rowsAtOnce is how many rows go through the network together: its attention takes memory with the square of
// a picture's size, and two rows of 64x64 latents are what one guided picture of Stable Diffusion takes.
func rowsAtOnce(height, width int) int { return min(max(2*64*64/(height*width), 1), 16) }

// run gives the network's output [rows, latents' numbers] for inputs [rows, C*h*w] at one timestep.
func (n *denoiser) run(ctx context.Context, in [][]float32, at float64, rows []*condition, channels, height, width int) ([][]float32, error) {
	var out [][]float32
	most := rowsAtOnce(height, width)
	for start := 0; start < len(in); start += most {
		end := min(start+most, len(in))
		feeds := n.feeds(in[start:end], at, rows[start:end], channels, height, width)
		got, err := n.session.Run(ctx, feeds)
		if err != nil {
			return nil, err
		}
		values, err := graph.Values[float32](got[n.output])
		if err != nil {
			return nil, err
		}
		size := len(values) / (end - start)
		for i := range end - start {
			out = append(out, values[i*size:(i+1)*size])
		}
	}
	return out, nil
}

func (n *denoiser) feeds(in [][]float32, at float64, rows []*condition, channels, height, width int) map[string]*graph.Tensor {
	count := int64(len(in))
	times := 1
	if n.perRow {
		times = len(in)
	}
	feeds := map[string]*graph.Tensor{
		"sample":   graph.NewTensor(slices.Concat(in...), count, int64(channels), int64(height), int64(width)),
		"timestep": timesteps(n.graph.Input("timestep"), at, times),
	}
	for name, part := range map[string]func(*condition) []float32{
		"encoder_hidden_states": func(c *condition) []float32 { return c.tokens },
		"text_embeds":           func(c *condition) []float32 { return c.pooled },
		"time_ids":              func(c *condition) []float32 { return c.ids },
		"timestep_cond":         func(c *condition) []float32 { return c.guidance },
	} {
		v := n.graph.Input(name)
		if v == nil {
			continue
		}
		values := make([][]float32, len(rows))
		for i, c := range rows {
			values[i] = part(c)
		}
		dims := []int64{count, int64(len(values[0]))}
		if name == "encoder_hidden_states" {
			dims = []int64{count, int64(rows[0].length), int64(len(values[0]) / rows[0].length)}
		}
		feeds[name] = graph.NewTensor(slices.Concat(values...), dims...)
	}
	return feeds
}

// timesteps tells the network one timestep in the type that its file declares; a whole one where that
// is an integer, as numpy casts.
func timesteps(v *graph.Value, at float64, rows int) *graph.Tensor {
	var dims []int64
	if len(v.Shape) > 0 {
		dims = []int64{int64(rows)}
	} else {
		rows = 1
	}
	switch v.Type {
	case graph.Int64, graph.Int32:
		return graph.Integers(slices.Repeat([]int64{int64(at)}, rows), v.Type, dims...)
	case graph.Double:
		return graph.NewTensor(slices.Repeat([]float64{at}, rows), dims...)
	}
	return graph.NewTensor(slices.Repeat([]float32{float32(at)}, rows), dims...)
}

// TimeIDs are what SDXL is told of a picture's size: as it was, where it was cropped, as it is wanted (Podell et al. 2023).
func TimeIDs(height, width int) []float32 {
	h, w := float32(height), float32(width)
	return []float32{h, w, 0, 0, h, w}
}

// guidanceEmbedding is how a network with distilled guidance is told its scale (Luo et al. 2023).
func guidanceEmbedding(guidance float64, width int) []float32 {
	out := make([]float32, width)
	half := width / 2
	for i := range half {
		angle := (guidance - 1) * 1000 * math.Exp(-math.Log(10000)/float64(half-1)*float64(i))
		out[i], out[half+i] = float32(math.Sin(angle)), float32(math.Cos(angle))
	}
	return out
}
