package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"mime/multipart"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/vision"
)

// imagesRequest asks for pictures, by JSON or by a form. What would change the pictures and can't be
// done here is refused by name.
type imagesRequest struct {
	Model         string `json:"model"`
	Prompt        string `json:"prompt"`
	N             int    `json:"n"`
	Size          string `json:"size"`            // WIDTHxHEIGHT; "" or auto is the bundle's
	Format        string `json:"response_format"` // url or b64_json
	Stream        bool   `json:"stream"`
	PartialImages int    `json:"partial_images"` // previews of each picture in a stream
	OutputFormat  string `json:"output_format"`
	Background    string `json:"background"`
	FrameCount    int    `json:"frame_count"`

	// What OpenAI's models do not have.
	Negative  string   `json:"negative_prompt"`
	Prompts   []string `json:"prompts"` // tuned prompts beside the model's
	Seed      *uint64  `json:"seed"`    // of the first picture; the next have the numbers after it
	Steps     int      `json:"steps"`
	Guidance  float64  `json:"guidance"` // 1 is none; 0 is the bundle's default
	Scheduler string   `json:"scheduler"`
	Eta       float64  `json:"eta"`      // of ddim
	Strength  float64  `json:"strength"` // of edits and variations: 1 keeps nothing of the image
	Progress  bool     `json:"progress"` // an event for each step in a stream

	// Of edits and variations as JSON.
	Images []imageReference `json:"images"`
	Mask   *imageReference  `json:"mask"`

	image, mask []byte // files
}

// imageReference names an image by its address.
type imageReference struct {
	URL    string `json:"image_url"`
	FileID string `json:"file_id"`
}

const (
	maxN        = 10
	maxSteps    = 1000
	maxPartials = 3 // OpenAI's own limit
)

// variationStrength is how much of an image a variation draws anew where the request does not say.
const variationStrength = 0.7

func (s *server) generateImages(c *gin.Context) error {
	in := &imagesRequest{N: 1}
	if err := readJSON(c, in, false); err != nil {
		return err
	}
	if strings.TrimSpace(in.Prompt) == "" {
		return errs.New(errs.Invalid, "prompt is empty")
	}
	return s.paint(c, in, "image_generation", diffusion.Request{})
}

// editImages draws an image anew: where the mask is transparent, else all of it.
func (s *server) editImages(c *gin.Context) error {
	in, r, err := s.readImages(c)
	if err != nil {
		return err
	}
	if strings.TrimSpace(in.Prompt) == "" {
		return errs.New(errs.Invalid, "prompt is empty")
	}
	return s.paint(c, in, "image_edit", r)
}

// varyImages draws pictures that are like an image.
func (s *server) varyImages(c *gin.Context) error {
	in, r, err := s.readImages(c)
	if err != nil {
		return err
	}
	if in.mask != nil {
		return errs.New(errs.Invalid, "a variation takes no mask: POST /v1/images/edits does")
	}
	if in.Strength == 0 {
		in.Strength = variationStrength
	}
	return s.paint(c, in, "image_variation", r)
}

// readImages reads a request with an image and, perhaps, a mask: a form with files, or JSON with addresses.
func (s *server) readImages(c *gin.Context) (*imagesRequest, diffusion.Request, error) {
	var r diffusion.Request
	in := &imagesRequest{N: 1}
	read := s.readReferences
	if c.ContentType() == "multipart/form-data" {
		read = readImagesForm
	}
	if err := read(c, in); err != nil {
		return nil, r, err
	}
	img, err := vision.Decode(bytes.NewReader(in.image), vision.Limits{})
	if err != nil {
		return nil, r, err
	}
	r.Image = img
	if in.mask != nil {
		mask, err := vision.DecodeMask(bytes.NewReader(in.mask), vision.Limits{})
		if err != nil {
			return nil, r, err
		}
		if mask.Bounds().Size() != img.Bounds().Size() {
			return nil, r, errs.New(errs.Invalid, "the mask has %v pixels, the image %v: they must be as large as each other", mask.Bounds().Size(), img.Bounds().Size())
		}
		r.Mask = mask
	}
	return in, r, nil
}

func readImagesForm(c *gin.Context, in *imagesRequest) error {
	if err := readParts(c, in.field); err != nil {
		return err
	}
	if in.image == nil {
		return errs.New(errs.Invalid, `the form has no part "image"`)
	}
	return nil
}

// readReferences reads JSON, and the images that it names.
func (s *server) readReferences(c *gin.Context, in *imagesRequest) (err error) {
	if err := readJSON(c, in, false); err != nil {
		return err
	}
	if len(in.Images) != 1 {
		return errs.New(errs.Invalid, "images: %d, must be 1: one image can be drawn anew at a time", len(in.Images))
	}
	if in.image, err = s.referred(c, "images[0]", in.Images[0]); err != nil || in.Mask == nil {
		return err
	}
	in.mask, err = s.referred(c, "mask", *in.Mask)
	return err
}

func (s *server) referred(c *gin.Context, key string, r imageReference) ([]byte, error) {
	if r.FileID != "" {
		return nil, errs.New(errs.Invalid, "%s.file_id is not supported: no files are kept here; give image_url", key)
	}
	return s.imageOf(c.Request.Context(), key+".image_url", r.URL)
}

// field reads a part of the form.
func (in *imagesRequest) field(part *multipart.Part) (err error) {
	b, err := io.ReadAll(part)
	if err != nil {
		return err
	}
	value, name := string(b), strings.TrimSuffix(part.FormName(), "[]")
	texts := map[string]*string{
		"model": &in.Model, "prompt": &in.Prompt, "size": &in.Size, "response_format": &in.Format, "output_format": &in.OutputFormat,
		"background": &in.Background, "negative_prompt": &in.Negative, "scheduler": &in.Scheduler,
	}
	numbers := map[string]*int{"n": &in.N, "partial_images": &in.PartialImages, "steps": &in.Steps, "frame_count": &in.FrameCount}
	others := map[string]any{"stream": &in.Stream, "progress": &in.Progress, "seed": &in.Seed, "guidance": &in.Guidance, "strength": &in.Strength, "eta": &in.Eta}
	if into := texts[name]; into != nil {
		*into = value
		return nil
	}
	if into := numbers[name]; into != nil {
		if *into, err = strconv.Atoi(value); err != nil {
			return errs.New(errs.Invalid, "part %q is %.20q, must be a whole number", name, value)
		}
		return nil
	}
	if into := others[name]; into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			return errs.New(errs.Invalid, "part %q is %.20q: %w", name, value, err)
		}
		return nil
	}
	return in.filePart(name, b)
}

// filePart reads a picture's part, or one of a list; other parts mean nothing here.
func (in *imagesRequest) filePart(name string, b []byte) error {
	switch name {
	case "image":
		if in.image != nil {
			return errs.New(errs.Invalid, `more than one part "image": one image can be drawn anew at a time`)
		}
		in.image = b
	case "mask":
		in.mask = b
	case "prompts":
		var names []string
		if json.Unmarshal(b, &names) != nil {
			names = []string{string(b)}
		}
		in.Prompts = append(in.Prompts, names...)
	case "markup":
		return errs.New(errs.Invalid, "markup is not supported: mark what is to be drawn anew by a mask")
	}
	return nil
}

// request is one picture's, from what is the same for all of them.
func (in *imagesRequest) request(r diffusion.Request) (diffusion.Request, error) {
	if err := in.check(); err != nil {
		return r, err
	}
	var err error
	if r.Width, r.Height, err = in.dimensions(); err != nil {
		return r, err
	}
	r.Prompt, r.Negative, r.Steps, r.Guidance, r.Scheduler, r.Eta, r.Strength = in.Prompt, in.Negative, in.Steps, in.Guidance, in.Scheduler, in.Eta, in.Strength
	return r, nil
}

func (in *imagesRequest) check() error {
	for _, b := range []struct {
		key                string
		value, least, most float64
	}{
		{"n", float64(in.N), 1, maxN},
		{"steps", float64(in.Steps), 0, maxSteps},
		{"guidance", in.Guidance, 0, 100},
		{"strength", in.Strength, 0, 1},
		{"eta", in.Eta, 0, 1},
		{"partial_images", float64(in.PartialImages), 0, maxPartials},
		{"frame_count", float64(in.FrameCount), 0, 1},
	} {
		if !(b.value >= b.least && b.value <= b.most) {
			return errs.New(errs.Invalid, "%s is %g, must be %g to %g", b.key, b.value, b.least, b.most)
		}
	}
	for _, o := range []struct {
		key, value string
		known      []string
	}{
		{"response_format", in.Format, []string{"", "url", "b64_json"}},
		{"output_format", in.OutputFormat, []string{"", "png"}},
		{"background", in.Background, []string{"", "auto", "opaque"}},
	} {
		if !slices.Contains(o.known, o.value) {
			return errs.New(errs.Invalid, "%s is %.20q, must be one of %q", o.key, o.value, o.known)
		}
	}
	if in.PartialImages > 0 && !in.Stream {
		return errs.New(errs.Invalid, "partial_images is %d: previews come in a stream alone; set stream", in.PartialImages)
	}
	return nil
}

// dimensions are 0 where the bundle's own are wanted.
func (in *imagesRequest) dimensions() (width, height int, err error) {
	if in.Size == "" || in.Size == "auto" {
		return 0, 0, nil
	}
	w, h, found := strings.Cut(in.Size, "x")
	if found {
		width, err = strconv.Atoi(w)
		if err == nil {
			height, err = strconv.Atoi(h)
		}
	}
	if !found || err != nil || min(width, height) < 1 || max(width, height) > diffusion.MaxSide {
		return 0, 0, errs.New(errs.Invalid, "size is %.20q, must be auto or WIDTHxHEIGHT, each from 1 to %d", in.Size, diffusion.MaxSide)
	}
	return width, height, nil
}

// errUnsafe is answered where the bundle's own checker finds all pictures unsafe.
var errUnsafe = errors.New("the bundle's safety checker finds what was drawn unsafe: nothing is shown; change the prompt or the seed")

// sizeOf writes a picture's size as requests do.
func sizeOf(img *image.NRGBA) string {
	return fmt.Sprintf("%dx%d", img.Bounds().Dx(), img.Bounds().Dy())
}
