package bundle

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// Kind is what a bundle's model does, as its files tell.
type Kind int

// The kinds of bundle. What is neither of the last two is a DualEncoder.
const (
	DualEncoder Kind = iota // images and texts to embeddings: an image tower, a text tower, or both
	Captioner               // an image, and words perhaps, to text: an image encoder and a text decoder
	Diffusion               // a text, and an image perhaps, to images: a denoiser, a text encoder and an autoencoder
)

// String is the kind's name: dual-encoder, captioner or diffusion.
func (k Kind) String() string {
	return []string{"dual-encoder", "captioner", "diffusion"}[k]
}

// indexFile tells a diffusers folder; it takes the place of config.json.
const indexFile = "model_index.json"

// Decoder says where a captioner's decoder lies.
type Decoder struct {
	// Merged is the file whose input use_cache_branch chooses between the first step and those with a
	// past; "" where there is none.
	Merged string
	// First is the decoder that takes no past; "" where there is none.
	First string
	// WithPast is the decoder that takes the past's keys and values; "" where there is none.
	WithPast string
}

// Kind tells by its files what the bundle is.
func (b *Bundle) Kind() Kind {
	switch {
	case b.has(indexFile):
		return Diffusion
	case b.Decoder() != Decoder{} && b.EncoderFile() != "":
		return Captioner
	}
	return DualEncoder
}

// EncoderFile is the file of a captioner's image encoder: optimum's encoder_model.onnx, else
// vision_model.onnx; "" where there is none.
func (b *Bundle) EncoderFile() string {
	return b.first(append(inOnnx("encoder_model.onnx"), visionFiles...)...)
}

// Decoder is where the captioner's decoder lies; the zero value where there is none.
func (b *Bundle) Decoder() Decoder {
	return Decoder{
		Merged:   b.first(inOnnx("decoder_model_merged.onnx")...),
		First:    b.first(inOnnx("decoder_model.onnx")...),
		WithPast: b.first(inOnnx("decoder_with_past_model.onnx")...),
	}
}

// MapperFile is the file that maps a captioner's image features to the embeddings before its decoder's
// tokens, "" where there is none.
func (b *Bundle) MapperFile() string { return b.first(inOnnx("mapper.onnx")...) }

// inOnnx are the places of a file: in the folder onnx, or beside it.
func inOnnx(name string) []string { return []string{"onnx/" + name, name} }

// checkLayout refuses folders whose models nothing here can run.
func (b *Bundle) checkLayout() error {
	if b.has(indexFile) && slices.ContainsFunc(b.Files, func(f File) bool { return strings.HasPrefix(f.Path, "transformer/") }) {
		return errs.New(errs.Unsupported, "bundle %s: its denoiser is a transformer (folder transformer/, as of Stable Diffusion 3 or Flux), which can't be run yet: use a bundle with a folder unet/", b.Name)
	}
	return nil
}

// configless says whether a folder may lack config.json: one of diffusers has a model_index.json.
func (b *Bundle) configless(err error) bool {
	return errors.Is(err, fs.ErrNotExist) && b.has(indexFile)
}
