package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/graph"
)

func newModelPrint() *cobra.Command {
	var outputs []string
	var fold bool
	cmd := &cobra.Command{
		Use:   "print MODEL",
		Short: "Write a model as text, a line a node",
		Long: `Write a model as text: its inputs, a line a node, its outputs, each value with its type and shape.

The graph is the one that the other commands work with: operators are in the forms of opset 18, and
fused or quantised ones are written out as plain ones. Nothing is run.`,
		Example: `  foretoken model print vision_model.onnx
  foretoken model print model.onnx --output image_embeds --fold   # the image tower of a dual graph, shape arithmetic folded`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := loadModel(args[0])
			if err != nil {
				return err
			}
			if len(outputs) > 0 {
				vs, err := valuesByName(g, "--output", outputs)
				if err != nil {
					return err
				}
				reduceTo(g, vs)
			}
			if err := describe(g, fold); err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), g)
			return err
		},
	}
	cmd.Flags().StringSliceVar(&outputs, "output", nil, "print only what leads to these tensors")
	cmd.Flags().BoolVar(&fold, "fold", false, "turn shape arithmetic into constants first")
	return cmd
}

// describe infers the graph's shapes, after folding where that is asked for.
func describe(g *graph.Graph, fold bool) error {
	if fold {
		return g.Fold()
	}
	return g.Infer()
}
