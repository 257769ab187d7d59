package vision

import (
	"encoding/json"
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/disintegration/imaging"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Preprocessor turns images into the tower's input as the bundle's preprocessor_config.json
// says: resize, centre crop, rescale, normalise.
type Preprocessor struct {
	shortest      int // resize the shorter side to this; 0: to exactly resizeW x resizeH
	resizeW       int
	resizeH       int
	cropW, cropH  int // 0: no crop
	code          int // of the filter, Pillow's
	filter        imaging.ResampleFilter
	scale         float64
	mean, std     [3]float64
	width, height int
}

// processorConfig is preprocessor_config.json as transformers writes it.
type processorConfig struct {
	Type          string          `json:"image_processor_type"`
	DoResize      *bool           `json:"do_resize"`
	DoCenterCrop  *bool           `json:"do_center_crop"`
	DoRescale     *bool           `json:"do_rescale"`
	DoNormalize   *bool           `json:"do_normalize"`
	Size          json.RawMessage `json:"size"`
	CropSize      json.RawMessage `json:"crop_size"`
	Resample      *int            `json:"resample"`
	RescaleFactor *float64        `json:"rescale_factor"`
	Mean          []float64       `json:"image_mean"`
	Std           []float64       `json:"image_std"`
}

// filters are Pillow's resampling codes.
var filters = map[int]imaging.ResampleFilter{0: imaging.NearestNeighbor, 1: imaging.Lanczos, 2: imaging.Linear, 3: imaging.CatmullRom}

// filterNames are Pillow's names of them.
var filterNames = map[int]string{0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic"}

// processors are the kinds whose steps are these; centre crop is on by default in CLIP's.
var processors = map[string]struct{ crop bool }{
	"": {true}, "CLIPImageProcessor": {true}, "CLIPFeatureExtractor": {true}, "CLIPImageProcessorFast": {true},
	"SiglipImageProcessor": {false}, "ViTImageProcessor": {false}, "ViTFeatureExtractor": {false}, "BitImageProcessor": {true},
	"SiglipImageProcessorFast": {false}, "ViTImageProcessorFast": {false}, "BlipImageProcessor": {false}, "BlipImageProcessorFast": {false},
}

// NewPreprocessor reads preprocessor_config.json. A processor that is not known is refused by name.
func NewPreprocessor(config []byte) (*Preprocessor, error) {
	var c processorConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, errs.New(errs.Invalid, "preprocessor_config.json: %w", err)
	}
	kind, ok := processors[c.Type]
	if !ok {
		return nil, errs.New(errs.Unsupported, "preprocessor_config.json: image_processor_type %q is not supported", c.Type)
	}
	p := &Preprocessor{scale: 1, std: [3]float64{1, 1, 1}}
	if err := p.readGeometry(c, kind.crop); err != nil {
		return nil, err
	}
	return p, p.readValues(c)
}

func (p *Preprocessor) readGeometry(c processorConfig, cropDefault bool) error {
	code := 3
	if c.Resample != nil {
		code = *c.Resample
	}
	filter, ok := filters[code]
	if !ok {
		return errs.New(errs.Unsupported, "preprocessor_config.json: resample %d", code)
	}
	p.code, p.filter = code, filter
	var err error
	if on(c.DoResize, true) {
		if p.shortest, p.resizeW, p.resizeH, err = readSize("size", c.Size, true); err != nil {
			return err
		}
		p.width, p.height = p.resizeW, p.resizeH
	}
	if on(c.DoCenterCrop, cropDefault) {
		if _, p.cropW, p.cropH, err = readSize("crop_size", c.CropSize, false); err != nil {
			return err
		}
		p.width, p.height = p.cropW, p.cropH
	}
	if p.width <= 0 || p.height <= 0 {
		return errs.New(errs.Unsupported, "preprocessor_config.json leaves the input's size open: a crop_size, or a size with height and width, is needed")
	}
	return nil
}

func (p *Preprocessor) readValues(c processorConfig) error {
	if on(c.DoRescale, true) {
		p.scale = 1.0 / 255
		if c.RescaleFactor != nil {
			p.scale = *c.RescaleFactor
		}
	}
	if !on(c.DoNormalize, true) {
		return nil
	}
	if len(c.Mean) != 3 || len(c.Std) != 3 || slices.Contains(c.Std, 0) {
		return errs.New(errs.Invalid, "preprocessor_config.json: image_mean %v and image_std %v must have three numbers each, none of std 0", c.Mean, c.Std)
	}
	p.mean, p.std = [3]float64(c.Mean), [3]float64(c.Std)
	return nil
}

func on(b *bool, def bool) bool {
	if b == nil {
		return def
	}
	return *b
}

// readSize reads 224, {"shortest_edge":224} or {"height":224,"width":224}. A plain number is the
// shorter side for a resize and a square for a crop.
func readSize(key string, raw json.RawMessage, resize bool) (shortest, w, h int, err error) {
	var n int
	if json.Unmarshal(raw, &n) == nil && n > 0 {
		if resize {
			return n, 0, 0, nil
		}
		return 0, n, n, nil
	}
	var s struct {
		Shortest int `json:"shortest_edge"`
		Height   int `json:"height"`
		Width    int `json:"width"`
	}
	if json.Unmarshal(raw, &s) != nil || s.Shortest <= 0 && (s.Height <= 0 || s.Width <= 0) {
		return 0, 0, 0, errs.New(errs.Invalid, "preprocessor_config.json: %s is %s", key, raw)
	}
	return s.Shortest, s.Width, s.Height, nil
}

// String says in words what is done to an image.
func (p *Preprocessor) String() string {
	var steps []string
	filter := filterNames[p.code]
	switch {
	case p.shortest > 0:
		steps = append(steps, fmt.Sprintf("shorter side to %d (%s)", p.shortest, filter))
	case p.resizeW > 0:
		steps = append(steps, fmt.Sprintf("resize to %d x %d (%s)", p.resizeW, p.resizeH, filter))
	}
	if p.cropW > 0 {
		steps = append(steps, fmt.Sprintf("centre %d x %d", p.cropW, p.cropH))
	}
	steps = append(steps, fmt.Sprintf("times %.4g", p.scale), fmt.Sprintf("less %.4g, over %.4g", p.mean, p.std))
	return strings.Join(steps, ", ")
}

// Size is the input's height and width.
func (p *Preprocessor) Size() (height, width int) { return p.height, p.width }

// Pixels stacks preprocessed images [3,H,W] into a model's input [B,3,H,W].
func (p *Preprocessor) Pixels(images ...[]float32) *graph.Tensor {
	data := make([]float32, 0, len(images)*3*p.height*p.width)
	for _, img := range images {
		data = append(data, img...)
	}
	return graph.NewTensor(data, int64(len(images)), 3, int64(p.height), int64(p.width))
}

// Apply returns the tower's input [3,H,W].
func (p *Preprocessor) Apply(img image.Image) []float32 {
	return p.values(p.geometry(img))
}

// geometry resizes and crops.
func (p *Preprocessor) geometry(img image.Image) *image.NRGBA {
	b := img.Bounds()
	w, h := p.resizeW, p.resizeH
	if p.shortest > 0 {
		w, h = shortestEdge(b.Dx(), b.Dy(), p.shortest)
	}
	out := imaging.Clone(img)
	if w > 0 && (w != b.Dx() || h != b.Dy()) {
		out = imaging.Resize(img, w, h, p.filter)
	}
	if p.cropW > 0 {
		out = centreCrop(out, p.cropW, p.cropH)
	}
	return out
}

// shortestEdge is transformers' rule: the shorter side becomes n, the longer int(n*long/short).
func shortestEdge(w, h, n int) (int, int) {
	if w <= h {
		return n, max(1, int(float64(n)*float64(h)/float64(w)))
	}
	return max(1, int(float64(n)*float64(w)/float64(h))), n
}

// centreCrop cuts or, where the image is smaller, pads with zeros.
func centreCrop(img *image.NRGBA, w, h int) *image.NRGBA {
	b := img.Bounds()
	out := image.NewNRGBA(image.Rect(0, 0, w, h))
	left, top := floorHalf(b.Dx()-w), floorHalf(b.Dy()-h)
	for y := range h {
		sy := y + top
		if sy < 0 || sy >= b.Dy() {
			continue
		}
		for x := range w {
			if sx := x + left; sx >= 0 && sx < b.Dx() {
				out.SetNRGBA(x, y, img.NRGBAAt(sx, sy))
			}
		}
	}
	return out
}

func floorHalf(n int) int { return int(math.Floor(float64(n) / 2)) }

// values rescales and normalises: (x*scale - mean) / std per channel.
func (p *Preprocessor) values(img *image.NRGBA) []float32 {
	b := img.Bounds()
	plane := b.Dx() * b.Dy()
	out := make([]float32, 3*plane)
	var table [3][256]float32
	for c := range 3 {
		for v := range 256 {
			table[c][v] = float32((float64(v)*p.scale - p.mean[c]) / p.std[c])
		}
	}
	for y := range b.Dy() {
		row := img.Pix[y*img.Stride:]
		for x := range b.Dx() {
			for c := range 3 {
				out[c*plane+y*b.Dx()+x] = table[c][row[4*x+c]]
			}
		}
	}
	return out
}

// Augment is the training view of CoOp and its family: a random crop of 8 % to 100 % of
// the area with an aspect ratio of 3/4 to 4/3, resized to the input, flipped half of the time.
func (p *Preprocessor) Augment(img image.Image, r *rand.Rand) []float32 {
	b := img.Bounds()
	crop := randomCrop(b.Dx(), b.Dy(), r).Add(b.Min)
	out := imaging.Resize(imaging.Crop(img, crop), p.width, p.height, p.filter)
	if r.IntN(2) == 1 {
		out = imaging.FlipH(out)
	}
	return p.values(out)
}

// randomCrop draws as torchvision's RandomResizedCrop does: ten tries, then the centre.
func randomCrop(w, h int, r *rand.Rand) image.Rectangle {
	for range 10 {
		area := float64(w*h) * (0.08 + 0.92*r.Float64())
		ratio := math.Exp(math.Log(0.75) + r.Float64()*(math.Log(4.0/3)-math.Log(0.75)))
		cw, ch := int(math.Round(math.Sqrt(area*ratio))), int(math.Round(math.Sqrt(area/ratio)))
		if cw > 0 && ch > 0 && cw <= w && ch <= h {
			x, y := r.IntN(w-cw+1), r.IntN(h-ch+1)
			return image.Rect(x, y, x+cw, y+ch)
		}
	}
	side := min(w, h)
	return image.Rect((w-side)/2, (h-side)/2, (w+side)/2, (h+side)/2)
}

// Resize scales an image to exactly width by height with Pillow's Lanczos filter. One of that size is
// copied.
func Resize(img image.Image, width, height int) *image.NRGBA {
	if b := img.Bounds(); b.Dx() == width && b.Dy() == height {
		return imaging.Clone(img)
	}
	return imaging.Resize(img, width, height, imaging.Lanczos)
}
