package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/npz"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
)

// exportFlags are the flags of `model export`.
type exportFlags struct{ prompt, out, as, example string }

func newModelExport() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export BUNDLE",
		Short: "Bake a tuned prompt into an ONNX file that needs nothing else",
		Long: `Bake a prompt, a file of "foretoken prompt download", into the model it was tuned on: an ordinary ONNX file for
any runtime, with the prompt among its weights, deep prompts included.

What --as says is written:

  classifier  images to "logits" and "probabilities" over the prompt's classes. Their names have gone through the
              text tower, with the prompt's context where it has some. The default for a prompt with classes.
  image       the image tower: images to embeddings
  text        the text tower: token ids to embeddings. The ids are of a text with a placeholder for each context
              token in front, as in "X X X X cat."; what stands in their place does not matter.

The file takes what the bundle's tower takes, images preprocessed as the file's metadata "preprocessing" says, and gives the
tower's own output and "embeddings", which are that, L2-normalised. "classes" is in the metadata as well. --example
writes an input and what foretoken itself makes of it: bench/reference/baked.py compares.`,
		Example: `  foretoken prompt download pets-maple-starter --out pets.safetensors
  foretoken model export ~/models/clip-vit-base-patch16 --prompt pets.safetensors --out pets.onnx --example pets.npz
  python bench/reference/baked.py pets.onnx pets.npz`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	cmd.Flags().StringVar(&f.prompt, "prompt", "", "the prompt's file")
	cmd.Flags().StringVar(&f.out, "out", "", "ONNX file to write")
	cmd.Flags().StringVar(&f.as, "as", "", "classifier, image or text (default: by what the prompt holds)")
	cmd.Flags().StringVar(&f.example, "example", "", "npz file to write an input and its outputs to")
	for _, name := range []string{"prompt", "out"} {
		cobra.CheckErr(cmd.MarkFlagRequired(name))
	}
	return cmd
}

func (f *exportFlags) run(cmd *cobra.Command, dir string) error {
	content, err := os.ReadFile(f.prompt)
	if err != nil {
		return errs.New(errs.NotFound, "prompt: %w", err)
	}
	p, err := prompt.ReadBytes(content)
	if err != nil {
		return fmt.Errorf("prompt %s: %w", f.prompt, err)
	}
	b, err := bundle.Open(dir)
	if err != nil {
		return err
	}
	m, err := tuning.Open(b, ort.Options{})
	if err != nil {
		return err
	}
	defer m.Close()
	part := f.part(p)
	g, err := m.Bake(cmd.Context(), p, part)
	if err != nil {
		return err
	}
	metadata, err := bakedMetadata(p, part)
	if err != nil {
		return err
	}
	if err := g.Save(f.out, graph.SaveOptions{Metadata: metadata}); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s of %s, takes %s, gives %s\n", f.out, part, b.Name, valueNames(g.Inputs), valueNames(g.Outputs))
	if f.example == "" {
		return nil
	}
	arrays, out, err := m.BakedExample(cmd.Context(), p, part)
	if err != nil {
		return err
	}
	maps.Copy(arrays, out)
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", f.example, strings.Join(slices.Sorted(maps.Keys(arrays)), ", "))
	return npz.Write(f.example, arrays)
}

// part is what is written where --as does not say.
func (f *exportFlags) part(p *prompt.Prompt) tuning.Part {
	switch {
	case f.as != "":
		return tuning.Part(f.as)
	case len(p.Card.Classes) > 0:
		return tuning.ImageClassifier
	case p.Tensors["visual"] != nil:
		return tuning.ImageTower
	}
	return tuning.TextTower
}

// bakedMetadata is what a baked file says of itself.
func bakedMetadata(p *prompt.Prompt, part tuning.Part) (map[string]string, error) {
	digest, err := p.Digest()
	if err != nil {
		return nil, err
	}
	classes, err := json.Marshal(p.Card.Classes)
	if err != nil {
		return nil, err
	}
	m := map[string]string{"foretoken.prompt": digest, "foretoken.bundle": p.Card.Bundle.Digest, "foretoken.method": p.Card.Method}
	if part == tuning.TextTower {
		dims := p.Tensors["context"].Dims
		m["context_tokens"] = fmt.Sprint(dims[len(dims)-2])
		return m, nil
	}
	if len(p.Card.Preprocessing) > 0 {
		m["preprocessing"] = string(p.Card.Preprocessing)
	}
	if part == tuning.ImageClassifier {
		m["classes"] = string(classes)
	}
	return m, nil
}
