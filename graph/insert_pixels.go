package graph

import (
	"math"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// PixelPromptName is the input that [WithPixelPrompt] adds.
const PixelPromptName = "pixel_prompt"

// PixelPromptOptions says which pixel prompt [WithPixelPrompt] adds.
type PixelPromptOptions struct {
	// Pixels is the input that it is added to; "" is the one input [B,C,H,W].
	Pixels string
	// Mask is 1 where the prompt shows and 0 elsewhere, [H,W] row by row; nil is a border of
	// [BorderWidth]. See [BorderMask] and [PatchMask].
	Mask []float32
	// PerRow makes the prompt [batch,C,H,W]; otherwise it is [1,C,H,W], for all rows.
	PerRow bool
	// Bank makes it [prompts,C,H,W]; the input "pixel_index", int64 [batch], says which of them
	// each row gets.
	Bank bool
}

// WithPixelPrompt returns a copy of the graph with the input "pixel_prompt" [1,C,H,W], which is
// masked and added to the preprocessed image (visual prompting, arXiv:2203.17274). The graph can be
// of any kind, convolutional or with other prompts in it, as long as its image has a fixed size.
func WithPixelPrompt(g *Graph, o PixelPromptOptions) (_ *Graph, err error) {
	defer recoverBail(&err)
	of, err := ownerOf(o.PerRow, o.Bank)
	if err != nil {
		return nil, err
	}
	pixels, err := imageInput(g, o.Pixels)
	if err != nil {
		return nil, err
	}
	size, ok := pixels.Shape[1:].Ints()
	if !ok {
		return nil, unpromptable("the image %q has shape %s: a pixel prompt needs a fixed size", pixels.Name, pixels.Shape)
	}
	height, width := int(size[1]), int(size[2])
	if o.Mask == nil {
		o.Mask = BorderMask(height, width, BorderWidth(min(height, width)))
	}
	if len(o.Mask) != height*width {
		return nil, errs.New(errs.Invalid, "the mask has %d pixels, the image %q %d x %d", len(o.Mask), pixels.Name, height, width)
	}
	c, to := g.CloneMap()
	s := newSurgery(c, to[pixels])
	s.addPixels(size, o.Mask, of)
	return c, finish(c)
}

// addPixels adds the masked prompt to the image for all that read it, except for its size.
func (s *surgery) addPixels(size []int64, mask []float32, of owner) {
	rows := map[owner]Dim{shared: Known(1), perRow: s.like.Shape[0], bank: Sym("prompts")}[of]
	prompt := s.input(PixelPromptName, Float, append(Shape{rows}, known(size)...))
	if of == bank {
		prompt = s.op("Gather", map[string]Attr{"axis": {int64(0)}}, prompt, s.index("pixel"))
		prompt.Type = Float
	}
	prompt = s.op("Mul", nil, prompt, s.g.constant("mask", NewTensor(slices.Clone(mask), 1, 1, size[1], size[2])))
	prompt.Type = Float
	image := s.op("Add", nil, s.like, s.cast(prompt, s.like.Type))
	image.Type = s.like.Type
	s.reroute(s.like, image, 0)
}

// imageInput is the named input, or the one that could be an image.
func imageInput(g *Graph, name string) (*Value, error) {
	var found *Value
	for _, v := range g.Inputs {
		isImage := v.Type.IsFloat() && len(v.Shape) == 4
		switch {
		case name != "" && v.Name == name && !isImage:
			return nil, errs.New(errs.Invalid, "input %q is %s%s and no image [batch,channels,height,width]", name, v.Type, v.Shape)
		case name != "" && v.Name == name:
			return v, nil
		case name != "" || !isImage || v.Name == PixelPromptName:
		case found != nil:
			return nil, unpromptable("two inputs could be the image: %q and %q", found.Name, v.Name)
		default:
			found = v
		}
	}
	if name != "" {
		return nil, errs.New(errs.Invalid, "there is no input %q (there are %s)", name, names(g.Inputs))
	}
	if found == nil {
		return nil, unpromptable("no input [batch,channels,height,width] was found among %s", names(g.Inputs))
	}
	return found, nil
}

// BorderWidth is the width of a border in pixels that is to an image of the side what 30 is to 224.
func BorderWidth(side int) int { return int(math.Round(30 * float64(side) / 224)) }

// BorderMask is a border of the width, in pixels, around an image: [height,width].
func BorderMask(height, width, border int) []float32 {
	mask := make([]float32, height*width)
	for i := range mask {
		y, x := i/width, i%width
		if min(y, x, height-1-y, width-1-x) < border {
			mask[i] = 1
		}
	}
	return mask
}

// PatchMask is a square in an image [height,width], by its upper left corner and its side in pixels.
func PatchMask(height, width, top, left, side int) []float32 {
	mask := make([]float32, height*width)
	for i := range mask {
		y, x := i/width-top, i%width-left
		if min(y, x) >= 0 && max(y, x) < side {
			mask[i] = 1
		}
	}
	return mask
}
