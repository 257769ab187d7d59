package tuning

import (
	"bytes"
	"embed"
	"path"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/foretoken/foretoken/internal/errs"
)

// The methods.
const (
	ZeroShot    = "zero-shot"
	LinearProbe = "linear-probe"
	CoOp        = "coop"
	VPT         = "vpt"
	MaPLe       = "maple"
)

// Recipe is a method as data. The card of a prompt holds it with every default written out.
type Recipe struct {
	Name        string `yaml:"name" json:"name"`
	Method      string `yaml:"method" json:"method"`
	Description string `yaml:"description" json:"description"`
	Source      string `yaml:"source" json:"source"` // where its values come from
	// Templates write class names for the frozen text tower: {} is the name.
	Templates []string  `yaml:"templates" json:"templates,omitempty"`
	Context   Context   `yaml:"context" json:"context,omitzero"`
	Visual    Visual    `yaml:"visual" json:"visual,omitzero"`
	Prefix    Prefix    `yaml:"prefix" json:"prefix,omitzero"`
	Inversion Inversion `yaml:"inversion" json:"inversion,omitzero"`
	Caption   Caption   `yaml:"caption" json:"caption,omitzero"`
	Optimizer Optimizer `yaml:"optimizer" json:"optimizer,omitzero"`
	Schedule  Schedule  `yaml:"schedule" json:"schedule,omitzero"`
	Batch     int       `yaml:"batch" json:"batch,omitempty"` // images a step
	// Views is how many views of an image are drawn and cached; epoch e uses view e mod Views.
	// 1 means the plain view: no augmentation.
	Views int `yaml:"views" json:"views,omitempty"`
	// WeightDecays is the linear probe's grid of L2 penalties, chosen from by validation.
	WeightDecays []float64 `yaml:"weight_decays" json:"weight_decays,omitempty"`
	Seed         uint64    `yaml:"seed" json:"seed"`
}

// Context is learned text tokens.
type Context struct {
	Tokens int `yaml:"tokens" json:"tokens"` // M
	Depth  int `yaml:"depth" json:"depth"`   // blocks with tokens of their own
	// Init is words whose embeddings the first layer's first tokens start from; the rest, and
	// deeper layers, start from N(0, Std).
	Init          string  `yaml:"init" json:"init"`
	Std           float64 `yaml:"std" json:"std"`
	ClassSpecific bool    `yaml:"class_specific" json:"class_specific,omitempty"`
}

// Visual is learned image tokens.
type Visual struct {
	Tokens int `yaml:"tokens" json:"tokens"` // K
	Depth  int `yaml:"depth" json:"depth"`
}

// Optimizer is the rule that changes values by gradients.
type Optimizer struct {
	Name         string  `yaml:"name" json:"name"` // sgd or adamw
	LearningRate float64 `yaml:"learning_rate" json:"learning_rate"`
	Momentum     float64 `yaml:"momentum" json:"momentum,omitempty"` // sgd's
	WeightDecay  float64 `yaml:"weight_decay" json:"weight_decay"`
}

// Schedule is the learning rate over epochs: warm-up, then half a cosine.
type Schedule struct {
	Epochs int `yaml:"epochs" json:"epochs"`
	// EpochsByShots overrides Epochs where a class has at most so many training images.
	EpochsByShots map[int]int `yaml:"epochs_by_shots" json:"epochs_by_shots,omitempty"`
	Warmup        string      `yaml:"warmup" json:"warmup,omitempty"` // "", constant or linear
	WarmupEpochs  int         `yaml:"warmup_epochs" json:"warmup_epochs,omitempty"`
	WarmupRate    float64     `yaml:"warmup_rate" json:"warmup_rate,omitempty"` // constant's learning rate
}

//go:embed recipes/*.yaml
var recipeFiles embed.FS

// ParseRecipe reads a recipe from YAML or JSON and checks it. Unknown keys are errors.
func ParseRecipe(b []byte) (*Recipe, error) {
	r := &Recipe{Views: 1, Context: Context{Depth: 1, Std: 0.02}, Visual: Visual{Depth: 1}}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(r); err != nil {
		return nil, errs.New(errs.Invalid, "recipe: %w", err)
	}
	return r, r.check()
}

// BuiltIn returns the recipe of the given name.
func BuiltIn(name string) (*Recipe, error) {
	b, err := recipeFiles.ReadFile("recipes/" + name + ".yaml")
	if err != nil || path.Base(name) != name {
		return nil, errs.New(errs.NotFound, "no recipe %q: there are %q", name, RecipeNames())
	}
	return ParseRecipe(b)
}

// RecipeNames lists the recipes that come with the program.
func RecipeNames() []string {
	entries, _ := recipeFiles.ReadDir("recipes") // an embedded folder can be read
	var names []string
	for _, e := range entries {
		names = append(names, e.Name()[:len(e.Name())-len(".yaml")])
	}
	return names
}

// bound is a limit that a recipe's number has to keep.
type bound struct {
	key                string
	value, least, most float64
}

func (r *Recipe) check() error {
	methods := slices.Concat([]string{ZeroShot, LinearProbe, CoOp, VPT, MaPLe}, captionMethods, inversionMethods)
	if !slices.Contains(methods, r.Method) {
		return errs.New(errs.Invalid, "recipe %q: method %q is not one of %q", r.Name, r.Method, methods)
	}
	if r.Captions() {
		return r.checkCaptions()
	}
	if r.Inverts() {
		return r.checkInversion()
	}
	if len(r.Templates) == 0 {
		return errs.New(errs.Invalid, "recipe %q: templates is empty: give at least one, such as \"a photo of a {}.\"", r.Name)
	}
	if r.Method == LinearProbe && len(r.WeightDecays) == 0 {
		return errs.New(errs.Invalid, "recipe %q: weight_decays is empty", r.Name)
	}
	if err := r.within(r.bounds()); err != nil {
		return err
	}
	if err := r.checkDescent(r.gradient()); err != nil {
		return err
	}
	if r.Context.ClassSpecific && r.Context.Depth > 1 {
		return errs.New(errs.Invalid, "recipe %q: context.class_specific goes with context.depth 1 alone, it is %d", r.Name, r.Context.Depth)
	}
	if r.Method == MaPLe && r.Context.ClassSpecific {
		return errs.New(errs.Invalid, "recipe %q: maple's context can't be class_specific: its images would need one prompt a class", r.Name)
	}
	return nil
}

// within checks a recipe's numbers.
func (r *Recipe) within(bounds []bound) error {
	for _, b := range bounds {
		if !(b.value >= b.least && b.value <= b.most) {
			return errs.New(errs.Invalid, "recipe %q: %s is %g, must be %g to %g", r.Name, b.key, b.value, b.least, b.most)
		}
	}
	return nil
}

// checkDescent checks what steps along a gradient go by; a method without them needs no optimiser.
func (r *Recipe) checkDescent(gradient bool) error {
	if gradient && r.Optimizer.Name != "sgd" && r.Optimizer.Name != "adamw" {
		return errs.New(errs.Invalid, "recipe %q: optimizer.name %q is neither sgd nor adamw", r.Name, r.Optimizer.Name)
	}
	if !slices.Contains([]string{"", "constant", "linear"}, r.Schedule.Warmup) {
		return errs.New(errs.Invalid, "recipe %q: schedule.warmup %q is neither constant nor linear", r.Name, r.Schedule.Warmup)
	}
	return nil
}

// descentBounds are those of every method that learns by steps along a gradient.
func (r *Recipe) descentBounds() []bound {
	return []bound{
		{"batch", float64(r.Batch), 1, 4096},
		{"views", float64(r.Views), 1, 1000},
		{"schedule.epochs", float64(r.Schedule.Epochs), 1, 100_000},
		{"schedule.warmup_epochs", float64(r.Schedule.WarmupEpochs), 0, float64(r.Schedule.Epochs - 1)},
		{"optimizer.learning_rate", r.Optimizer.LearningRate, 0, 1e4},
		{"optimizer.momentum", r.Optimizer.Momentum, 0, 1},
		{"optimizer.weight_decay", r.Optimizer.WeightDecay, 0, 10},
	}
}

func (r *Recipe) bounds() []bound {
	var bs []bound
	for _, decay := range r.WeightDecays {
		bs = append(bs, bound{"weight_decays", decay, 0, 1e6})
	}
	if !r.gradient() {
		return bs
	}
	bs = append(bs, r.descentBounds()...)
	if r.learnsContext() {
		bs = append(bs, bound{"context.tokens", float64(r.Context.Tokens), 1, 256}, bound{"context.depth", float64(r.Context.Depth), 1, 1000})
	}
	if r.Method == VPT {
		bs = append(bs, bound{"visual.tokens", float64(r.Visual.Tokens), 1, 1024}, bound{"visual.depth", float64(r.Visual.Depth), 1, 1000})
	}
	return bs
}

// gradient says whether the method learns by steps along a gradient.
func (r *Recipe) gradient() bool { return r.learnsContext() || r.learnsVisual() }

func (r *Recipe) learnsContext() bool { return r.Method == CoOp || r.Method == MaPLe }

func (r *Recipe) learnsVisual() bool { return r.Method == VPT || r.Method == MaPLe }

// Resolve returns the recipe with depths cut to the model's blocks, the epochs for the number
// of training images a class, and what the method does not use left out.
func (r *Recipe) Resolve(m *Model, shots int) (*Recipe, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if r.Captions() {
		return nil, errs.New(errs.Invalid, "recipe %q: %s learns what a captioner says, bundle %s is a pair of towers: use a bundle with a decoder, or another recipe", r.Name, r.Method, m.Bundle.Name)
	}
	if r.Inverts() {
		return nil, errs.New(errs.Invalid, "recipe %q: %s learns words of a text-to-image model, bundle %s is a pair of towers: use a bundle in diffusers' layout, or another recipe", r.Name, r.Method, m.Bundle.Name)
	}
	c := *r
	c.Context.Depth = min(c.Context.Depth, m.Texts.Depth())
	c.Visual.Depth = min(c.Visual.Depth, m.Images.Depth())
	if c.Method == MaPLe { // a joint prompt is as deep as the shallower tower
		depth := min(c.Context.Depth, m.Images.Depth())
		c.Context.Depth, c.Visual = depth, Visual{Tokens: c.Context.Tokens, Depth: depth}
	}
	if !c.learnsContext() {
		c.Context = Context{}
	}
	if !c.learnsVisual() {
		c.Visual = Visual{}
	}
	c.Schedule = c.Schedule.forShots(shots)
	return &c, nil
}
