package diffusion

import (
	"context"
	"math"

	"github.com/foretoken/foretoken/generation/diffusion/schedule"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
)

// Generate draws pictures, one for each request, in order. Requests of one size, scheduler, number of
// steps and strength go through the network together, each with its own texts, learned prompts,
// guidance and seed. The same request gives the same picture on the same device and number of threads;
// beside others it may differ in the last bits. When ctx ends, so does the drawing, with ctx's error.
func (p *Pipeline) Generate(ctx context.Context, rs []Request) ([]Result, error) {
	resolved := make([]Request, len(rs))
	for i, r := range rs {
		var err error
		if resolved[i], err = p.Resolve(r); err != nil {
			return nil, err
		}
	}
	results := make([]Result, len(rs))
	for _, places := range batches(resolved) {
		if err := p.batch(ctx, resolved, places, results); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// row is one picture on its way.
type row struct {
	*Request
	sampler       *schedule.Sampler
	x             []float32 // the noisy latents
	noise         []float32 // that sampling began with
	image         []float32 // latents of Image; nil without
	mask          []float32 // [h,w], 1 where it is drawn anew; nil without
	masked        []float32 // latents of Image without what the mask covers, for networks that see them
	with          *condition
	without       *condition // nil where guidance does nothing
	truncated     bool
	tokens        int // of the texts, as the last encoder read them
	height, width int // of latents
}

func (p *Pipeline) batch(ctx context.Context, rs []Request, places []int, results []Result) error {
	rows := make([]*row, len(places))
	for i, at := range places {
		rows[i] = &row{Request: &rs[at]}
	}
	if err := p.draw(ctx, rows); err != nil {
		return err
	}
	for i, at := range places {
		var err error
		if results[at], err = p.finish(ctx, rows[i]); err != nil {
			return err
		}
	}
	return nil
}

// draw leads rows to the latents of their pictures.
func (p *Pipeline) draw(ctx context.Context, rows []*row) error {
	if err := p.readTexts(ctx, rows); err != nil {
		return err
	}
	for _, r := range rows {
		if err := p.begin(ctx, r); err != nil {
			return err
		}
	}
	return p.denoise(ctx, rows)
}

// readTexts has the encoders read all prompts of a batch at once.
func (p *Pipeline) readTexts(ctx context.Context, rows []*row) error {
	var prompts []*prompt.Prompt
	for _, r := range rows {
		prompts = append(prompts, r.Concepts...)
	}
	words, err := p.Words(prompts)
	if err != nil {
		return err
	}
	with, without := make([][]encoded, len(p.Texts)), make([][]encoded, len(p.Texts))
	for i, e := range p.Texts {
		var ids [][]int64
		for _, r := range rows {
			with, err := words.IDs(i, r.Prompt, r.Concepts)
			if err != nil {
				return err
			}
			without, err := words.NegativeIDs(i, r.Negative, r.Concepts)
			if err != nil {
				return err
			}
			ids = append(ids, with.IDs, without.IDs)
			r.truncated = r.truncated || with.Cut || without.Cut
			r.tokens = with.Tokens + without.Tokens
		}
		all, err := e.encode(ctx, ids, words.Rows(i))
		if err != nil {
			return err
		}
		for j := range rows {
			with[i], without[i] = append(with[i], all[2*j]), append(without[i], all[2*j+1])
		}
	}
	for j, r := range rows {
		r.with = p.condition(with, j, r)
		if p.inputs.guidance > 0 {
			r.with.guidance = guidanceEmbedding(r.Guidance, p.inputs.guidance)
		} else if r.Guidance > 1 {
			r.without = p.condition(without, j, r)
			if p.xl && p.index.ForceZeros && !r.usesNegative() {
				clear(r.without.tokens)
				clear(r.without.pooled)
			}
		}
	}
	return nil
}

// condition puts what the encoders say of row j side by side.
func (p *Pipeline) condition(texts [][]encoded, j int, r *row) *condition {
	c := &condition{length: p.Texts[0].Window}
	for s := range c.length {
		for i, e := range p.Texts {
			width := e.Tower.Width
			c.tokens = append(c.tokens, texts[i][j].tokens[s*width:(s+1)*width]...)
		}
	}
	if p.xl {
		c.pooled = texts[len(texts)-1][j].pooled
		c.ids = TimeIDs(r.Request.Height, r.Request.Width)
	}
	return c
}

// begin lays out the steps and what they start from.
func (p *Pipeline) begin(ctx context.Context, r *row) error {
	s, err := p.sampling(r.Request)
	if err != nil {
		return err
	}
	if r.sampler, err = s.Sampler(r.Steps, r.Strength); err != nil {
		return err
	}
	r.height, r.width = r.Height/p.Factor, r.Width/p.Factor
	size := p.Channels * r.height * r.width
	r.noise = p.drawNoise(r.Seed, forLatents, 0, size)
	if err := p.readImage(ctx, r, size); err != nil {
		return err
	}
	r.x = make([]float32, size)
	// A mask that is drawn anew as a whole begins with noise alone, as in diffusers.
	if r.image != nil && !(r.mask != nil && r.Strength == 1) {
		r.sampler.AddNoise(r.x, r.image, r.noise, 0)
		return nil
	}
	for i, n := range r.noise {
		r.x[i] = float32(float64(n) * r.sampler.InitialSigma())
	}
	return nil
}

// readImage has the autoencoder look at the request's image and mask.
func (p *Pipeline) readImage(ctx context.Context, r *row, size int) error {
	if r.Image == nil {
		return nil
	}
	pixels := Pixels(r.Image, r.Width, r.Height)
	if r.Mask == nil || !p.inputs.inpaints() || r.Strength < 1 { // else only what the mask leaves is looked at
		latents, err := p.Encode(ctx, pixels, r.Height, r.Width)
		if err != nil {
			return err
		}
		r.image = p.Scaled(latents.Sample(p.drawNoise(r.Seed, forPosterior, 0, size)))
	}
	if r.Mask == nil {
		return nil
	}
	mask := maskPixels(r.Mask, r.Width, r.Height)
	r.mask = shrink(mask, r.Width, r.Height, p.Factor)
	if !p.inputs.inpaints() {
		return nil
	}
	for i := range pixels { // grey, the middle, is where it will be drawn
		pixels[i] *= 1 - mask[i%len(mask)]
	}
	latents, err := p.Encode(ctx, pixels, r.Height, r.Width)
	if err != nil {
		return err
	}
	r.masked = p.Scaled(latents.Sample(p.drawNoise(r.Seed, forMasked, 0, size)))
	return nil
}

// denoise leads all rows of a batch from their start to their pictures.
func (p *Pipeline) denoise(ctx context.Context, rows []*row) error {
	unet, err := p.unet.get()
	if err != nil {
		return err
	}
	times := rows[0].sampler.Timesteps()
	for i, at := range times {
		var in [][]float32
		var told []*condition
		for _, r := range rows {
			input := r.input(i)
			in, told = append(in, input), append(told, r.with)
			if r.without != nil {
				in, told = append(in, input), append(told, r.without)
			}
		}
		out, err := unet.run(ctx, in, at, told, p.inputs.channels, rows[0].height, rows[0].width)
		if err != nil {
			return err
		}
		for _, r := range rows {
			guided := out[0]
			out = out[1:]
			if r.without != nil {
				guided = guide(guided, out[0], r.Guidance, r.GuidanceRescale)
				out = out[1:]
			}
			if err := p.step(ctx, r, i, len(times), guided); err != nil {
				return err
			}
		}
	}
	return nil
}

// input is what the network sees of a row.
func (r *row) input(i int) []float32 {
	in := make([]float32, len(r.x))
	r.sampler.ScaleInput(in, r.x, i)
	if r.masked != nil {
		in = append(append(in, r.mask...), r.masked...)
	}
	return in
}

// guide goes from what the network says without the prompt to what it says with it, and further.
func guide(with, without []float32, guidance, rescale float64) []float32 {
	out := make([]float32, len(with))
	for i := range out {
		out[i] = float32(float64(without[i]) + guidance*float64(with[i]-without[i]))
	}
	if rescale > 0 {
		factor := rescale*deviation(with)/deviation(out) + 1 - rescale
		for i := range out {
			out[i] = float32(float64(out[i]) * factor)
		}
	}
	return out
}

// deviation is the standard deviation of numbers, of a sample.
func deviation(x []float32) float64 {
	var mean, square float64
	for _, v := range x {
		mean += float64(v) / float64(len(x))
	}
	for _, v := range x {
		square += (float64(v) - mean) * (float64(v) - mean)
	}
	return math.Sqrt(square / float64(len(x)-1))
}

// step takes a row one step on, and tells of it.
func (p *Pipeline) step(ctx context.Context, r *row, i, of int, out []float32) error {
	var preview []float32
	if r.PreviewEvery > 0 && (i+1)%r.PreviewEvery == 0 && i+1 < of {
		preview = make([]float32, len(r.x))
		r.sampler.Denoised(preview, r.x, out, i)
	}
	var noise []float32
	if r.sampler.Noisy(i) {
		noise = p.drawNoise(r.Seed, forStep, i, len(r.x))
	}
	r.sampler.Step(i, r.x, out, noise)
	if r.mask != nil && r.masked == nil {
		r.keepUnmasked(i, of)
	}
	if !finite(r.x) {
		return errs.New(errs.Unsupported, "bundle %s: step %d of %d is not finite with the scheduler %s: the network overflows, or was trained for another prediction_type", p.Bundle.Name, i+1, of, r.Scheduler)
	}
	if r.OnStep == nil {
		return nil
	}
	s := Step{Done: i + 1, Of: of}
	if preview != nil {
		pixels, err := p.decode(ctx, preview, r.Height, r.Width)
		if err != nil {
			return err
		}
		s.Preview = picture(pixels, r.Height, r.Width)
	}
	r.OnStep(s)
	return nil
}

// keepUnmasked puts the image back where the mask is black, as noisy as the rest.
func (r *row) keepUnmasked(i, of int) {
	image := r.image
	if i+1 < of {
		image = make([]float32, len(r.x))
		r.sampler.AddNoise(image, r.image, r.noise, i+1)
	}
	for j := range r.x {
		if r.mask[j%len(r.mask)] == 0 {
			r.x[j] = image[j]
		}
	}
}

func finite(x []float32) bool {
	var sum float64
	for _, v := range x {
		sum += float64(v) * 0
	}
	return sum == 0
}

// finish draws a row's picture and has the bundle's checker look at it.
func (p *Pipeline) finish(ctx context.Context, r *row) (Result, error) {
	pixels, err := p.decode(ctx, r.x, r.Height, r.Width)
	if err != nil {
		return Result{}, err
	}
	res := Result{Image: picture(pixels, r.Height, r.Width), Seed: r.Seed, Truncated: r.truncated, TextTokens: r.tokens, Latents: r.height * r.width, Steps: r.Steps, Guidance: r.Guidance, Scheduler: r.Scheduler}
	safety, err := p.safety.get()
	if err != nil {
		return Result{}, err
	}
	if res.Unsafe, err = safety.unsafe(ctx, res.Image); err != nil {
		return Result{}, err
	}
	if res.Unsafe {
		blacken(res.Image)
	}
	return res, nil
}
