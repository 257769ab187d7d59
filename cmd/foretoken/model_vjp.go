package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/npz"
	"github.com/foretoken/foretoken/internal/ort"
)

// vjpFlags are the flags of `model vjp`.
type vjpFlags struct {
	in, out, cotangent, emit string
	wrt, outputs             []string
	interpreter              bool
}

func newModelVJP() *cobra.Command {
	var f vjpFlags
	cmd := &cobra.Command{
		Use:   "vjp MODEL",
		Short: "Compute the gradient of a model's outputs by its inputs or weights",
		Long: `Compute the vector-Jacobian product of a model: the gradient of its outputs, weighted by cotangents, by
any of its inputs, weights or tensors between.

The inputs are arrays of an npz file by the inputs' names; the gradients are written to another, each
under the name of what it is the gradient by. --cotangent names an npz file with an array for each
output, of its shape and by its name: the gradient of the sum of output times cotangent is computed. An
output of one element needs none, its cotangent is 1.`,
		Example: `  foretoken model vjp vision_model.onnx --in batch.npz --wrt pixel_values --output image_embeds --cotangent weights.npz --out grads.npz
  foretoken model vjp model.onnx --in batch.npz --wrt text_projection.weight --output loss --out grads.npz
  foretoken model vjp model.onnx --wrt x --output y --emit gradient.onnx   # writes the graph and runs nothing`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.emit == "" && (f.in == "" || f.out == "") {
				return usageError{fmt.Errorf("give --in and --out to compute gradients, --emit to write their graph, or all three")}
			}
			if (f.in == "") != (f.out == "") {
				return usageError{fmt.Errorf("--in and --out go together")}
			}
			return f.run(cmd, args[0])
		},
	}
	cmd.Flags().StringVar(&f.in, "in", "", "npz file with the model's inputs")
	cmd.Flags().StringSliceVar(&f.wrt, "wrt", nil, "inputs, weights or tensors to differentiate by")
	cmd.Flags().StringSliceVar(&f.outputs, "output", nil, "outputs to differentiate")
	cmd.Flags().StringVar(&f.cotangent, "cotangent", "", "npz file with the outputs' weights, by their names")
	cmd.Flags().StringVar(&f.out, "out", "", "npz file to write the gradients to")
	cmd.Flags().StringVar(&f.emit, "emit", "", "ONNX file to write the graph of the gradients to")
	cmd.Flags().BoolVar(&f.interpreter, "interpreter", false, "run on the plain-Go interpreter: slow, double precision")
	for _, name := range []string{"wrt", "output"} {
		cobra.CheckErr(cmd.MarkFlagRequired(name))
	}
	return cmd
}

func (f *vjpFlags) run(cmd *cobra.Command, path string) error {
	g, err := loadModel(path)
	if err != nil {
		return err
	}
	in, err := f.arrays()
	if err != nil {
		return err
	}
	grads, err := f.differentiate(g)
	if err != nil {
		return err
	}
	if f.emit != "" {
		if err := g.Save(f.emit, graph.SaveOptions{External: usesDataFiles(g)}); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %d nodes, takes %s, gives %s\n", f.emit, len(g.Nodes), valueNames(g.Inputs), valueNames(g.Outputs))
	}
	if f.in == "" {
		return nil
	}
	out, err := f.compute(cmd.Context(), g, in)
	if err != nil {
		return err
	}
	result := map[string]*graph.Tensor{}
	for i, name := range f.wrt {
		result[name] = out[grads[i]]
		fmt.Fprintln(cmd.OutOrStdout(), tensorText(name, result[name]))
	}
	return npz.Write(f.out, result)
}

// arrays reads the inputs, and the cotangents under the names of the inputs that take them.
func (f *vjpFlags) arrays() (map[string]*graph.Tensor, error) {
	if f.in == "" {
		return nil, nil
	}
	in, err := npz.Read(f.in)
	if err != nil || f.cotangent == "" {
		return in, err
	}
	cotangents, err := npz.Read(f.cotangent)
	if err != nil {
		return nil, err
	}
	for _, name := range f.outputs {
		if cotangents[name] == nil {
			return nil, errs.New(errs.Invalid, "%s holds no array %q, the cotangent of that output", f.cotangent, name)
		}
		in[cotangentName(name)] = cotangents[name]
	}
	return in, nil
}

func cotangentName(output string) string { return "cotangent_" + output }

// differentiate cuts the graph down to the outputs and appends the gradients, whose names it
// returns. With cotangents, or where an output has more than one element, the graph takes them as inputs.
func (f *vjpFlags) differentiate(g *graph.Graph) ([]string, error) {
	outputs, err := valuesByName(g, "--output", f.outputs)
	if err != nil {
		return nil, err
	}
	wrt, err := valuesByName(g, "--wrt", f.wrt)
	if err != nil {
		return nil, err
	}
	reduceTo(g, slices.Clone(outputs))
	names := make([]string, len(wrt))
	err = g.Build(func(b *graph.Builder) {
		var cotangents []*graph.Value
		if f.weighted(outputs) {
			for _, y := range outputs {
				cotangents = append(cotangents, b.Input(cotangentName(y.Name), y.Type, y.Shape))
			}
		}
		for i, dx := range b.Gradient(outputs, cotangents, wrt) {
			names[i] = b.Output("grad_"+wrt[i].Name, dx).Name
		}
	})
	if err != nil {
		return nil, err
	}
	if f.in != "" && f.cotangent == "" && f.weighted(outputs) {
		return nil, errs.New(errs.Invalid, "%s of more than one element: give --cotangent, an npz file with an array of each output's shape by its name (ones for the gradient of its sum)", shapes(outputs))
	}
	return names, g.Check()
}

// weighted says whether the graph takes cotangents.
func (f *vjpFlags) weighted(outputs []*graph.Value) bool {
	return f.cotangent != "" || slices.ContainsFunc(outputs, func(y *graph.Value) bool { return !y.Shape.Count().Is(1) })
}

func shapes(vs []*graph.Value) string {
	parts := make([]string, len(vs))
	for i, v := range vs {
		parts[i] = v.Name + v.Shape.String()
	}
	return strings.Join(parts, ", ")
}

// tensorText is a tensor's name, type and shape as graphs print them.
func tensorText(name string, t *graph.Tensor) string {
	return fmt.Sprintf("%s:%s%s", name, t.Type, strings.ReplaceAll(fmt.Sprint(t.Dims), " ", ","))
}

// usesDataFiles says whether weights lie in files beside the model, as its exporter left them.
func usesDataFiles(g *graph.Graph) bool {
	for v := range g.Constants() {
		if s := v.Const.Source; s != nil && !strings.HasSuffix(s.Path, ".onnx") {
			return true
		}
	}
	return false
}

// compute runs the graph on the arrays that it takes; others are left out.
func (f *vjpFlags) compute(ctx context.Context, g *graph.Graph, arrays map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
	in := map[string]*graph.Tensor{}
	for _, v := range g.Inputs {
		if in[v.Name] = arrays[v.Name]; in[v.Name] == nil {
			return nil, errs.New(errs.Invalid, "%s holds no array %q, which the model takes as %s%s", f.in, v.Name, v.Type, v.Shape)
		}
	}
	if f.interpreter {
		return interp.Run(g, in)
	}
	s, err := ort.NewSession(g, ort.Options{})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Run(ctx, in)
}
