package main

import (
	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/tuning/inspect"
)

func newModelInspect() *cobra.Command {
	var o inspect.Options
	cmd := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Say what a model is, where prompts can enter it, and what a step costs",
		Long: `Say of a bundle's folder or of an ONNX file what it is: its towers, inputs and outputs, weights, operators
and whether gradients pass them; where prompts can enter, by the tensors' names; what a step of tuning
takes; and each reason why something can't be tuned.

The memory of a step is worked out from the graph's shapes. Its time is as well, by the speed of this
machine: a matrix product, a pass over memory and empty nodes are timed for some tenths of a second.
--measure runs the step itself, with what it took beside the estimate.`,
		Example: `  foretoken model inspect ~/models/clip-vit-base-patch16 --batch 32 --prompts 16
  foretoken model inspect vision_model.onnx --measure --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := inspect.Open(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), r, r.Print)
		},
	}
	cmd.Flags().IntVar(&o.Batch, "batch", 8, "images, or texts, a step")
	cmd.Flags().IntVar(&o.Prompts, "prompts", 8, "prompts a block: image tokens, or words of context")
	cmd.Flags().IntVar(&o.Depth, "depth", 1, "blocks that have prompts of their own")
	cmd.Flags().IntVar(&o.Length, "length", 0, "tokens a text (default: the window; 32 for a decoder)")
	cmd.Flags().BoolVar(&o.Measure, "measure", false, "run some steps as well and say what they took")
	return cmd
}
