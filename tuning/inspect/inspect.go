package inspect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/text"
	"github.com/foretoken/foretoken/vision"
)

// Open inspects the bundle in a folder, or a single ONNX file. An error says that there is nothing to
// inspect; what can't be tuned is no error but among the report's refusals.
func Open(ctx context.Context, path string, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	info, err := bundle.StatModel(path)
	if err != nil {
		return nil, err
	}
	in := &inspector{ctx: ctx, options: o, kinds: map[graph.Kind]bool{}, contextStart: 1}
	in.Name, in.Path, in.Refusals, in.Models = filepath.Base(path), path, []string{}, []Model{}
	if info.IsDir() {
		err = in.folder(path)
	} else {
		in.Files, in.Bytes = 1, info.Size()
		err = in.file(filepath.Dir(path), path)
	}
	if err != nil {
		return nil, err
	}
	if in.Kind = in.kind(); in.Kind == "captioner" && in.Image == nil && in.Decoder != nil {
		in.note("the image encoder is used as it is: it takes no visual prompts; captions, prefixes, keys and values are made as with others")
	}
	return &in.Report, nil
}

// inspector fills a report.
type inspector struct {
	Report
	ctx          context.Context
	options      Options
	kinds        map[graph.Kind]bool // of the outputs found
	contextStart int                 // the place of context in a text's tokens
}

func (in *inspector) kind() string {
	images, texts, words := in.kinds[graph.KindImage], in.kinds[graph.KindText], in.kinds[graph.KindDecoder]
	switch {
	case images && words:
		return "captioner"
	case words:
		return "decoder"
	case images && texts:
		return "dual encoder"
	case images:
		return "image encoder"
	case texts:
		return "text encoder"
	}
	return "unknown"
}

// refuse notes why a part can't be tuned; nil is no reason.
func (in *inspector) refuse(part string, err error) {
	if err != nil {
		in.Refusals = append(in.Refusals, part+": "+err.Error())
	}
}

// refuseTower notes why a tower can't be tuned, and the operators that no gradient passes, which may be why.
func (in *inspector) refuseTower(part string, g *graph.Graph, output string, reason error) {
	if reason == nil {
		return
	}
	in.refuse(part, reason)
	if missing := impassable(g, output); missing != "" && !strings.Contains(reason.Error(), missing) {
		in.refuse(part, errs.New(errs.Unsupported, "no gradient passes these operators: %s", missing))
	}
}

// impassable lists the operators without a gradient that lie between what an output is computed from, images or rows of
// tables, and the output.
func impassable(g *graph.Graph, output string) string {
	only, err := g.Only(output)
	if err != nil || only.Infer() != nil {
		return ""
	}
	var from []*graph.Value
	for _, v := range only.Inputs {
		if v.Type.IsFloat() {
			from = append(from, v)
		}
	}
	for _, n := range only.Nodes {
		if n.Op == "Gather" && n.Inputs[0].IsConst() && n.Inputs[0].Type.IsFloat() && len(n.Inputs[0].Shape) == 2 {
			from = append(from, n.Outputs[0])
		}
	}
	var parts []string
	for _, u := range only.Coverage(from...) {
		if u.Refused() {
			parts = append(parts, fmt.Sprintf("%s (%d, first %q)", u.Op, u.OnPath, u.First))
		}
	}
	return strings.Join(parts, ", ")
}

// note notes how something was inspected, once.
func (in *inspector) note(text string) {
	if !slices.Contains(in.Notes, text) {
		in.Notes = append(in.Notes, text)
	}
}

// folder inspects a bundle of two towers; where the folder is none, each ONNX file in it.
func (in *inspector) folder(dir string) error {
	b, err := bundle.Open(dir)
	if err == nil && b.Kind() == bundle.DualEncoder && b.ImageFile() == "" && b.TextFile() == "" {
		err = errs.New(errs.Unsupported, "no file of an image or a text tower")
	}
	if err != nil || b.Kind() != bundle.DualEncoder {
		return in.loose(dir, err)
	}
	in.Name, in.Type, in.Digest, in.Files = b.Name, b.Config.ModelType, b.Digest, len(b.Files)
	for _, f := range b.Files {
		in.Bytes += f.Size
		if strings.HasSuffix(f.Path, ".onnx") && f.Path != b.ImageFile() && f.Path != b.TextFile() {
			in.note(f.Path + " is not used: inspect it by its own path")
		}
	}
	in.LogitScale, in.ScaleFrom, err = b.LogitScale()
	in.refuse("logit scale", err)
	in.readPreprocessing(b)
	in.readTokenizer(b)
	in.bundleTower(b.ImageFile(), b.VisionModel, func(file string, g *graph.Graph, output string) error {
		return in.addImage(file, g, output, graph.ImageHints(b.Overrides.Image))
	}, "image tower", graph.KindImage)
	in.bundleTower(b.TextFile(), b.TextModel, func(file string, g *graph.Graph, output string) error {
		return in.addText(file, g, output, graph.TextHints(b.Overrides.Text))
	}, "text tower", graph.KindText)
	return nil
}

// bundleTower inspects one of a bundle's towers.
func (in *inspector) bundleTower(file string, load func() (*graph.Graph, string, error), add adder, what string, kind graph.Kind) {
	g, output, err := load()
	if err != nil {
		in.refuse(what, err)
		return
	}
	in.kinds[kind] = true
	in.addModel(file, g)
	in.refuseTower(what, g, output, add(file, g, output))
}

// adder adds what an output of a file's graph is to the report, or says why it can't be tuned.
type adder func(file string, g *graph.Graph, output string) error

// loose inspects the ONNX files of a folder that is no bundle, for the reason given, or no bundle of
// two towers.
func (in *inspector) loose(dir string, reason error) error {
	files, err := bundle.ModelFiles(dir)
	if err != nil {
		return err
	}
	in.refuse("bundle", reason)
	for _, path := range files {
		info, err := os.Stat(path)
		if err == nil {
			in.Files, in.Bytes = in.Files+1, in.Bytes+info.Size()
			err = in.file(dir, path)
		}
		in.refuse(filepath.Base(path), err)
	}
	return nil
}

func (in *inspector) readPreprocessing(b *bundle.Bundle) {
	config, err := os.ReadFile(b.Path("preprocessor_config.json"))
	if err != nil {
		in.refuse("images", err)
		return
	}
	p, err := vision.NewPreprocessor(config)
	if err != nil {
		in.refuse("images", err)
		return
	}
	in.Preprocessing = p.String()
}

func (in *inspector) readTokenizer(b *bundle.Bundle) {
	t, err := text.LoadTokenizer(b.Path("tokenizer.json"))
	if err != nil {
		in.refuse("texts", err)
		return
	}
	in.Tokenizer, in.contextStart = t.String(), t.ContextStart()
}

// file inspects one ONNX file: of the outputs of each kind, the one that looks most like an embedding.
// An error says that it can't be read.
func (in *inspector) file(dir, path string) error {
	g, err := graph.Load(path)
	if err != nil {
		return err
	}
	file, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	if err := in.pinBranches(g); err != nil {
		return err
	}
	m := in.addModel(file, g)
	best := map[graph.Kind]*graph.Value{}
	for i, v := range shaped(g).Outputs {
		kind, err := graph.KindOf(g, v.Name)
		if err != nil {
			return err
		}
		m.Outputs[i].Kind, in.kinds[kind] = string(kind), true
		if best[kind] == nil || likeEmbeddings(v) < likeEmbeddings(best[kind]) {
			best[kind] = v
		}
	}
	in.addBest(file, g, best)
	return nil
}

// addBest adds the towers that compute the outputs.
func (in *inspector) addBest(file string, g *graph.Graph, best map[graph.Kind]*graph.Value) {
	image := func(file string, g *graph.Graph, output string) error {
		return in.addImage(file, g, output, graph.ImageHints{})
	}
	words := func(file string, g *graph.Graph, output string) error {
		return in.addText(file, g, output, graph.TextHints{})
	}
	towers := 0
	for _, a := range []struct {
		kind graph.Kind
		add  adder
	}{{graph.KindImage, image}, {graph.KindText, words}, {graph.KindDecoder, in.addDecoder}} {
		if v := best[a.kind]; v != nil {
			towers++
			in.refuseTower(file+": "+v.Name, g, v.Name, a.add(file, g, v.Name))
		}
	}
	switch joint := best[graph.KindJoint]; {
	case towers == 0 && joint != nil:
		in.refuse(file, errs.New(errs.Unsupported, "%q is computed from images and texts together, and no output from one of them alone", joint.Name))
	case towers == 0:
		in.refuse(file, errs.New(errs.Unsupported, "no output is computed from images [B,C,H,W] or token ids [B,S]: it takes %s", list(tensors(g.Inputs))))
	}
}

// embeddings are names that exporters give to embeddings.
var embeddings = []string{"image_embeds", "text_embeds", "pooler_output", "embeds", "sentence_embedding", "last_hidden_state"}

// likeEmbeddings is small for an output that looks like embeddings [B,P].
func likeEmbeddings(v *graph.Value) int {
	i := slices.Index(embeddings, v.Name)
	if i < 0 {
		i = len(embeddings)
	}
	if len(v.Shape) != 2 {
		i += 100
	}
	return i
}

// shaped is the graph with what is known of shapes.
func shaped(g *graph.Graph) *graph.Graph {
	c := g.Clone()
	if c.Infer() != nil { // a size that the file leaves open and the graph does not
		return g
	}
	return c
}

// pinBranches takes the branch without past of a merged decoder.
func (in *inspector) pinBranches(g *graph.Graph) error {
	pinned := false
	for _, v := range slices.Clone(g.Inputs) {
		if v.Type != graph.Bool || len(v.Shape) > 1 {
			continue
		}
		dims := make([]int64, len(v.Shape))
		for i := range dims {
			dims[i] = 1
		}
		if err := g.Pin(v.Name, graph.NewTensor([]bool{false}, dims...)); err != nil {
			return err
		}
		pinned = true
		in.note("inspected with the input " + v.Name + " false")
	}
	if !pinned {
		return nil
	}
	if err := g.Fold(); err != nil {
		return err
	}
	g.PruneInputs()
	return nil
}
