package tuning

import (
	"slices"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// The methods that learn new words of a text-to-image model: a concept's, those of a style that stands before the user's
// words, those of a negative prompt.
const (
	TextualInversion = "textual-inversion"
	Style            = "style"
	Negative         = "negative"
)

var inversionMethods = []string{TextualInversion, Style, Negative}

// Inverts says whether the method learns new words of a text-to-image model.
func (r *Recipe) Inverts() bool { return slices.Contains(inversionMethods, r.Method) }

// Inversion is what is learned of a text-to-image model, and how. Pictures are Recipe.Batch a step.
type Inversion struct {
	// Token is the placeholder that stands for a concept in Templates, at {}, and in users' texts: such as "<mug>".
	Token string `yaml:"token" json:"token,omitempty"`
	// Vectors is how many embeddings are learned for each text encoder.
	Vectors int `yaml:"vectors" json:"vectors"`
	// Init is words whose embeddings they start from, in turn; where it is empty they are drawn from a normal distribution
	// with the mean and deviation of the token table's numbers.
	Init string `yaml:"init" json:"init"`
	// Steps is how many steps there are.
	Steps int `yaml:"steps" json:"steps"`
	// ScaleRate multiplies the learning rate by the pictures a step, as the paper's code does.
	ScaleRate bool `yaml:"scale_rate" json:"scale_rate"`
	// KeepNorm brings each embedding back to the length that it started with, after each step.
	KeepNorm bool `yaml:"keep_norm" json:"keep_norm"`
	// Width and Height are the pictures' in pixels; 0 is what the bundle was trained for. The middle of an image is taken.
	Width  int `yaml:"width" json:"width"`
	Height int `yaml:"height" json:"height"`
	// Flip mirrors half of the pictures.
	Flip bool `yaml:"flip" json:"flip"`
	// SampleLatents draws latents from the distribution that the autoencoder gives for an image; otherwise its mean is taken.
	SampleLatents bool `yaml:"sample_latents" json:"sample_latents"`
	// MicroBatch is how many pictures go through the network at once; 0 is all of a step's.
	MicroBatch int `yaml:"micro_batch" json:"micro_batch"`
	// MemoryMB is how many megabytes of a pass may be kept for its gradient; beyond, they are computed a second time.
	MemoryMB int `yaml:"memory_mb" json:"memory_mb"`
	// HeldOut is how many draws of noise the losses before and after are means over.
	HeldOut int `yaml:"held_out" json:"held_out"`
	// Prior keeps to pictures of the concept's class.
	Prior Prior `yaml:"prior" json:"prior,omitzero"`
	// Scenes are texts that pictures are drawn for when a dual encoder scores them; {} is the concept. Pictures is how many for each.
	Scenes   []string `yaml:"scenes" json:"scenes,omitempty"`
	Pictures int      `yaml:"pictures" json:"pictures,omitempty"`
	// Judge is the dual encoder's bundle, by name; "" for none.
	Judge string `yaml:"judge" json:"judge,omitempty"`
}

// Prior is prior preservation (Ruiz et al. 2023, DreamBooth): each step's loss has, times Weight, that of as many pictures of the
// class. Here the network is frozen, and a text without the learned words would have no gradient: class pictures stand
// under the same texts as the others.
type Prior struct {
	// Text is what class pictures are drawn for by the frozen model, Images how many. Empty where they are given.
	Text   string `yaml:"text" json:"text,omitempty"`
	Images int    `yaml:"images" json:"images,omitempty"`
	// Class is the dataset's class whose images are class pictures; "" for none.
	Class  string  `yaml:"class" json:"class,omitempty"`
	Weight float64 `yaml:"weight" json:"weight,omitempty"`
}

// On says whether there are class pictures.
func (p Prior) On() bool { return p.Weight > 0 && (p.Text != "" || p.Class != "") }

// InversionRate is the learning rate of every step.
func (r *Recipe) InversionRate() float64 {
	if r.Inversion.ScaleRate {
		return r.Optimizer.LearningRate * float64(r.Batch)
	}
	return r.Optimizer.LearningRate
}

func (r *Recipe) checkInversion() error {
	v := r.Inversion
	if r.Method == TextualInversion {
		if v.Token == "" || strings.ContainsAny(v.Token, " \t\n") {
			return errs.New(errs.Invalid, "recipe %q: inversion.token is %q: give a placeholder without spaces, such as \"<mug>\"", r.Name, v.Token)
		}
		for _, t := range r.Templates {
			if !strings.Contains(t, "{}") {
				return errs.New(errs.Invalid, "recipe %q: the template %q has no {} for %s", r.Name, t, v.Token)
			}
		}
	}
	if len(r.Templates) == 0 && r.Method != Negative {
		return errs.New(errs.Invalid, "recipe %q: templates is empty: give at least one, such as \"a photo of a {}\"", r.Name)
	}
	if v.Prior.Text != "" && v.Prior.Class != "" {
		return errs.New(errs.Invalid, "recipe %q: inversion.prior has a text, for which pictures are drawn, and a class, whose pictures are given: set one of them", r.Name)
	}
	if err := r.within(r.inversionBounds()); err != nil {
		return err
	}
	return r.checkDescent(true)
}

// ResolveInversion returns the recipe of a method that learns words of a text-to-image model, with what the method does not use
// left out. Sizes and micro-batches that depend on the bundle are the trainer's to write out.
func (r *Recipe) ResolveInversion() (*Recipe, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if !r.Inverts() {
		return nil, errs.New(errs.Invalid, "recipe %q: %s does not learn words of a text-to-image model, which the bundle is: use one of %q", r.Name, r.Method, inversionMethods)
	}
	c := *r
	c.Context, c.Visual, c.Prefix, c.Caption, c.Schedule = Context{}, Visual{}, Prefix{}, Caption{}, Schedule{}
	return &c, nil
}

func (r *Recipe) inversionBounds() []bound {
	v := r.Inversion
	bs := []bound{
		{"batch", float64(r.Batch), 1, 256},
		{"views", float64(r.Views), 1, 1},
		{"inversion.vectors", float64(v.Vectors), 1, 64},
		{"inversion.steps", float64(v.Steps), 1, 1_000_000},
		{"inversion.micro_batch", float64(v.MicroBatch), 0, 256},
		{"inversion.memory_mb", float64(v.MemoryMB), 0, 1 << 20},
		{"inversion.held_out", float64(v.HeldOut), 1, 10_000},
		{"inversion.width", float64(v.Width), 0, 2048},
		{"inversion.height", float64(v.Height), 0, 2048},
		{"inversion.pictures", float64(v.Pictures), 0, 1000},
		{"inversion.prior.weight", v.Prior.Weight, 0, 1000},
		{"optimizer.learning_rate", r.Optimizer.LearningRate, 0, 1e4},
		{"optimizer.momentum", r.Optimizer.Momentum, 0, 1},
		{"optimizer.weight_decay", r.Optimizer.WeightDecay, 0, 10},
	}
	if v.Prior.Text != "" {
		bs = append(bs, bound{"inversion.prior.images", float64(v.Prior.Images), 1, 10_000})
	}
	return bs
}
