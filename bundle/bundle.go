// Package bundle reads a frozen model's folder as its exporter left it: ONNX files,
// config.json, preprocessor_config.json, tokenizer.json, and an optional foretoken.yaml that
// overrides what detection finds. It changes nothing in the folder.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// overridesFile is the one file that is not part of a bundle's digest.
const overridesFile = "foretoken.yaml"

// Bundle is one frozen model.
type Bundle struct {
	Name   string
	Dir    string // absolute
	Digest string // SHA-256 over the files' names and digests, hexadecimal
	Files  []File // sorted by path
	Config Config
	// Overrides is what foretoken.yaml says.
	Overrides Overrides
}

// File is one file of a bundle.
type File struct {
	Path   string // relative, with slashes
	Size   int64
	SHA256 string
}

// Config is what is read of config.json.
type Config struct {
	ModelType     string `json:"model_type"`
	ProjectionDim int    `json:"projection_dim"`
	VisionConfig  struct {
		ImageSize int `json:"image_size"`
		PatchSize int `json:"patch_size"`
	} `json:"vision_config"`
}

// Overrides are the keys of foretoken.yaml.
type Overrides struct {
	// LogitScale multiplies cosines: the trained value itself, not its logarithm.
	LogitScale *float32 `yaml:"logit_scale"`
	// LogitBias is added to scaled cosines (SigLIP).
	LogitBias *float32 `yaml:"logit_bias"`
	// ImageOutput and TextOutput name the outputs that hold the embeddings.
	ImageOutput string `yaml:"image_output"`
	TextOutput  string `yaml:"text_output"`
	// Image says by tensor names where prompts enter the image tower.
	Image ImagePlaces `yaml:"image"`
	// Text says so of context and the text tower.
	Text TextPlaces `yaml:"text"`
	// Drawing says how a text-to-image model draws where a request doesn't.
	Drawing Drawing `yaml:"drawing"`
}

// Drawing are the keys under drawing in foretoken.yaml.
type Drawing struct {
	Steps     int     `yaml:"steps"`
	Guidance  float64 `yaml:"guidance"`
	Scheduler string  `yaml:"scheduler"`
}

// NamePlaces says whether foretoken.yaml names places where prompts enter.
func (o Overrides) NamePlaces() bool {
	return !reflect.ValueOf(o.Image).IsZero() || !reflect.ValueOf(o.Text).IsZero()
}

// ImagePlaces are the keys under image in foretoken.yaml: see [graph.ImageHints].
type ImagePlaces struct {
	Pixels      string   `yaml:"pixels"`
	Insert      string   `yaml:"insert"`
	ClassTokens *int     `yaml:"class_tokens"`
	Blocks      []string `yaml:"blocks"`
	TokenAxis   *int     `yaml:"token_axis"`
}

// TextPlaces are the keys under text in foretoken.yaml: see [graph.TextHints].
type TextPlaces struct {
	IDs        string   `yaml:"ids"`
	Mask       string   `yaml:"mask"`
	TokenTypes string   `yaml:"token_types"`
	Positions  string   `yaml:"position_ids"`
	Embedding  string   `yaml:"embedding"`
	Positioned string   `yaml:"positioned"`
	Blocks     []string `yaml:"blocks"`
	TokenAxis  *int     `yaml:"token_axis"`
	End        string   `yaml:"end"`
	Pooling    string   `yaml:"pooling"`
	Start      *int     `yaml:"start"`
	Trims      *bool    `yaml:"trims"`
}

// Open reads the bundle in dir; its name is the folder's. A layout that nothing here can run is refused,
// kind [errs.Unsupported].
func Open(dir string) (*Bundle, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	b := &Bundle{Name: filepath.Base(abs), Dir: abs}
	if err := b.readFiles(); err != nil {
		return nil, err
	}
	if err := b.checkLayout(); err != nil {
		return nil, err
	}
	if err := b.readConfig(); err != nil {
		return nil, err
	}
	return b, b.readOverrides()
}

func (b *Bundle) readFiles() error {
	err := filepath.WalkDir(b.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") && path != b.Dir {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			if d.IsDir() {
				return nil
			}
			return errs.New(errs.Invalid, "bundle %s: %s is no regular file", b.Name, path)
		}
		f, err := digestFile(b.Dir, path)
		if f.Path != overridesFile {
			b.Files = append(b.Files, f)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.NotFound, "bundle: %w", err)
	}
	if err != nil {
		return err
	}
	slices.SortFunc(b.Files, func(x, y File) int { return strings.Compare(x.Path, y.Path) })
	h := sha256.New()
	for _, f := range b.Files {
		fmt.Fprintf(h, "%s  %s\n", f.SHA256, f.Path)
	}
	b.Digest = hex.EncodeToString(h.Sum(nil))
	return nil
}

func digestFile(dir, path string) (File, error) {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return File{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return File{filepath.ToSlash(rel), n, hex.EncodeToString(h.Sum(nil))}, err
}

func (b *Bundle) readConfig() error {
	data, err := os.ReadFile(b.Path("config.json"))
	if b.configless(err) {
		return nil
	}
	if err != nil {
		return errs.New(errs.Invalid, "bundle %s: config.json is missing (looked in %s)", b.Name, b.Dir)
	}
	if err := json.Unmarshal(data, &b.Config); err != nil {
		return errs.New(errs.Invalid, "bundle %s: config.json: %w", b.Name, err)
	}
	return nil
}

func (b *Bundle) readOverrides() error {
	data, err := os.ReadFile(b.Path(overridesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&b.Overrides); err != nil && !errors.Is(err, io.EOF) {
		return errs.New(errs.Invalid, "bundle %s: %s: %w", b.Name, overridesFile, err)
	}
	if s := b.Overrides.LogitScale; s != nil && !(*s > 0) {
		return errs.New(errs.Invalid, "bundle %s: %s: logit_scale is %g; it is a factor above 0", b.Name, overridesFile, *s)
	}
	return nil
}

// Path is the path of a file of the bundle.
func (b *Bundle) Path(name string) string { return filepath.Join(b.Dir, filepath.FromSlash(name)) }

// has says whether the bundle holds the file.
func (b *Bundle) has(name string) bool {
	return slices.ContainsFunc(b.Files, func(f File) bool { return f.Path == name })
}

// first returns the first of the names that the bundle holds, "" when it holds none.
func (b *Bundle) first(names ...string) string {
	for _, n := range names {
		if b.has(n) {
			return n
		}
	}
	return ""
}

// The places where exporters put the towers, each alone or both in one file.
var (
	visionFiles = inOnnx("vision_model.onnx")
	textFiles   = inOnnx("text_model.onnx")
	dualFiles   = inOnnx("model.onnx")
)

// The outputs that hold embeddings, by exporters' habit; the better name first.
var (
	imageOutputs = []string{"image_embeds", "pooler_output", "embeds"}
	textOutputs  = []string{"text_embeds", "pooler_output", "embeds"}
)

// ImageFile is the file that holds the image tower, "" where there is none.
func (b *Bundle) ImageFile() string { return b.first(append(visionFiles, dualFiles...)...) }

// TextFile is the file that holds the text tower, "" where there is none.
func (b *Bundle) TextFile() string { return b.first(append(textFiles, dualFiles...)...) }

// VisionModel loads the graph that holds the image tower, and names its output.
func (b *Bundle) VisionModel() (*graph.Graph, string, error) {
	return b.model("image tower", b.ImageFile(), append(visionFiles, dualFiles...), b.Overrides.ImageOutput, imageOutputs)
}

// TextModel loads the graph that holds the text tower, and names its output.
func (b *Bundle) TextModel() (*graph.Graph, string, error) {
	return b.model("text tower", b.TextFile(), append(textFiles, dualFiles...), b.Overrides.TextOutput, textOutputs)
}

func (b *Bundle) model(what, file string, files []string, override string, outputs []string) (*graph.Graph, string, error) {
	if file == "" {
		return nil, "", errs.New(errs.Invalid, "bundle %s: no %s: looked for %s", b.Name, what, strings.Join(files, ", "))
	}
	g, err := graph.Load(b.Path(file))
	if err != nil {
		return nil, "", err
	}
	if override != "" {
		outputs = []string{override}
	}
	for _, name := range outputs {
		if g.Output(name) != nil {
			return g, name, nil
		}
	}
	return nil, "", errs.New(errs.Invalid, "bundle %s: %s has none of the outputs %s; name one in %s", b.Name, file, strings.Join(outputs, ", "), overridesFile)
}

// ImageTower finds the image tower in the bundle's graph, with what foretoken.yaml says of it.
func (b *Bundle) ImageTower() (*graph.ImageTower, error) {
	return b.imageTower(b.VisionModel())
}

// Encoder finds a captioner's image encoder, with what foretoken.yaml says of it; it computes the first of the outputs that
// there are, where foretoken.yaml names none.
func (b *Bundle) Encoder(outputs ...string) (*graph.ImageTower, error) {
	return b.imageTower(b.EncoderModel(outputs...))
}

// EncoderModel loads the graph that holds a captioner's image encoder, and names its output.
func (b *Bundle) EncoderModel(outputs ...string) (*graph.Graph, string, error) {
	return b.model("image encoder", b.EncoderFile(), append(inOnnx("encoder_model.onnx"), visionFiles...), b.Overrides.ImageOutput, outputs)
}

func (b *Bundle) imageTower(g *graph.Graph, output string, err error) (*graph.ImageTower, error) {
	if err != nil {
		return nil, err
	}
	t, err := graph.FindImageTower(g, output, graph.ImageHints(b.Overrides.Image))
	if err != nil {
		return nil, errs.New(errs.Of(err), "bundle %s: image tower: %w", b.Name, err)
	}
	return t, nil
}

// TextTower finds the text tower in the bundle's graph, with what foretoken.yaml says of it.
func (b *Bundle) TextTower() (*graph.TextTower, error) {
	g, output, err := b.TextModel()
	if err != nil {
		return nil, err
	}
	t, err := graph.FindTextTower(g, output, graph.TextHints(b.Overrides.Text))
	if err != nil {
		return nil, errs.New(errs.Of(err), "bundle %s: text tower: %w", b.Name, err)
	}
	return t, nil
}

// LogitScale is the factor that turns cosines into logits, and where it was found: in
// foretoken.yaml, else in the constants of a dual graph, else 100 for a split CLIP, whose
// files do not hold it. A split SigLIP without scale and bias is refused.
func (b *Bundle) LogitScale() (scale float32, source string, err error) {
	if s := b.Overrides.LogitScale; s != nil {
		return *s, overridesFile, nil
	}
	if file := b.first(dualFiles...); file != "" && b.first(visionFiles...) == "" {
		if s, ok := b.dualScale(file); ok {
			return s, file, nil
		}
	}
	if strings.HasPrefix(b.Config.ModelType, "siglip") {
		return 0, "", errs.New(errs.Invalid, "bundle %s: its files hold no logit scale and bias: add logit_scale: and logit_bias: to %s", b.Name, overridesFile)
	}
	return 100, "CLIP's usual 100, a guess: the files do not hold it; set logit_scale in " + overridesFile, nil
}

// dualScale finds the factor between the cosines and logits_per_image of a dual graph.
func (b *Bundle) dualScale(file string) (float32, bool) {
	g, err := graph.Load(b.Path(file))
	if err != nil {
		return 0, false
	}
	return graph.OutputFactor(g, "logits_per_image")
}
