package tuning

import (
	"maps"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// The methods that learn what a captioner says.
const (
	CaptionPrefix    = "caption-prefix" // tokens before the decoder's
	CaptionKeyValues = "caption-kv"     // keys and values in every layer of the decoder
	CaptionMap       = "caption-map"    // a map from the image's feature to tokens before the decoder's
	CaptionVisual    = "caption-visual" // image tokens in the encoder
)

var captionMethods = []string{CaptionPrefix, CaptionKeyValues, CaptionMap, CaptionVisual}

// Where a soft prefix starts.
const (
	StartNormal     = "normal"     // N(0, std)
	StartWords      = "words"      // the embeddings of words; what they don't fill starts from N(0, std)
	StartVocabulary = "vocabulary" // the embeddings of words drawn from the vocabulary
)

// Prefix is what a text decoder reads before its own tokens.
type Prefix struct {
	Tokens int `yaml:"tokens" json:"tokens"` // P
	// Start is where a soft prefix starts: normal, words or vocabulary; "" is normal. Words are those of Init.
	Start string  `yaml:"start" json:"start,omitempty"`
	Init  string  `yaml:"init" json:"init,omitempty"`
	Std   float64 `yaml:"std" json:"std,omitempty"`
	// Hidden is the units between the two layers of a map, or of the network that makes keys and values while they are
	// learned; 0 is one layer, or none. -1 is half as many as a map has outputs, as in ClipCap.
	Hidden int `yaml:"hidden" json:"hidden,omitempty"`
	// Unplaced keys and values take none of the decoder's places: the text stands where it stands without a prefix.
	Unplaced bool `yaml:"unplaced" json:"unplaced,omitempty"`
}

// Caption is how texts are learned and how what is learned is scored.
type Caption struct {
	LabelSmoothing float64 `yaml:"label_smoothing" json:"label_smoothing,omitempty"` // 0 up to, not including, 1
	// Longest is the most tokens of a text that are learned, its end included; longer ones are cut. 0 is 64.
	Longest int `yaml:"longest" json:"longest,omitempty"`
	// MicroBatch is how many images are differentiated at once; a step's gradient is their sum. 0 is all.
	MicroBatch int `yaml:"micro_batch" json:"micro_batch,omitempty"`
}

// Captions says whether the method learns what a captioner says.
func (r *Recipe) Captions() bool { return slices.Contains(captionMethods, r.Method) }

// checkCaptions is check for the methods that learn what a captioner says.
func (r *Recipe) checkCaptions() error {
	bounds := append(r.descentBounds(),
		bound{"caption.label_smoothing", r.Caption.LabelSmoothing, 0, 0.99}, bound{"caption.longest", float64(r.Caption.Longest), 0, 4096},
		bound{"caption.micro_batch", float64(r.Caption.MicroBatch), 0, 4096})
	if r.Method == CaptionVisual {
		bounds = append(bounds, bound{"visual.tokens", float64(r.Visual.Tokens), 1, 1024}, bound{"prefix.tokens", float64(r.Prefix.Tokens), 0, 0})
	} else {
		bounds = append(bounds, bound{"visual.tokens", float64(r.Visual.Tokens), 0, 1024}, bound{"prefix.tokens", float64(r.Prefix.Tokens), 1, 1024},
			bound{"prefix.std", r.Prefix.Std, 0, 100}, bound{"prefix.hidden", float64(r.Prefix.Hidden), leastHidden(r.Method), 1 << 16})
	}
	bounds = append(bounds, bound{"visual.depth", float64(r.Visual.Depth), 1, 1000})
	if err := r.within(bounds); err != nil {
		return err
	}
	starts := []string{"", StartNormal}
	if r.Method == CaptionPrefix {
		starts = append(starts, StartWords, StartVocabulary)
	}
	if !slices.Contains(starts, r.Prefix.Start) {
		return errs.New(errs.Invalid, "recipe %q: prefix.start %q is not one of %q", r.Name, r.Prefix.Start, starts[1:])
	}
	if (r.Prefix.Start == StartWords) != (r.Prefix.Init != "") {
		return errs.New(errs.Invalid, "recipe %q: prefix.start %q with prefix.init %q: words go with start \"words\"", r.Name, r.Prefix.Start, r.Prefix.Init)
	}
	if r.Prefix.Unplaced && r.Method != CaptionKeyValues {
		return errs.New(errs.Invalid, "recipe %q: prefix.unplaced goes with %s alone: the tokens of a prefix need places", r.Name, CaptionKeyValues)
	}
	return r.checkDescent(true)
}

// leastHidden is -1 for maps, whose hidden units may be counted by their outputs.
func leastHidden(method string) float64 {
	if method == CaptionMap {
		return -1
	}
	return 0
}

// ResolveCaptions returns the recipe of a method that learns what a captioner says, with the depth of image tokens cut to
// the encoder's blocks, a map's hidden units counted for a decoder of the given width, the epochs for the number of training
// images, and what the method does not use left out.
func (r *Recipe) ResolveCaptions(blocks, width, images int) (*Recipe, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if !r.Captions() {
		return nil, errs.New(errs.Invalid, "recipe %q: %s learns classes, the bundle is a captioner: use one of %q", r.Name, r.Method, captionMethods)
	}
	c := *r
	c.Context, c.Templates = Context{}, nil
	c.Visual.Depth = min(c.Visual.Depth, blocks)
	if c.Visual.Tokens == 0 {
		c.Visual = Visual{}
	}
	if c.Method == CaptionVisual {
		c.Prefix = Prefix{}
	}
	if c.Prefix.Hidden < 0 {
		c.Prefix.Hidden = c.Prefix.Tokens * width / 2
	}
	if c.Caption.Longest == 0 {
		c.Caption.Longest = 64
	}
	c.Schedule = c.Schedule.forShots(images)
	return &c, nil
}

// forShots is the schedule with the epochs for so many training images a class, or in all where there are no classes.
func (s Schedule) forShots(shots int) Schedule {
	for _, most := range slices.Sorted(maps.Keys(s.EpochsByShots)) {
		if shots <= most {
			s.Epochs = s.EpochsByShots[most]
			break
		}
	}
	s.EpochsByShots = nil
	return s
}
