package main

import (
	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/tuning/inspect"
)

func newModelInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Say what a model is and where prompts can enter it",
		Long: `Say of a bundle's folder or of an ONNX file what it is: its towers, inputs and outputs, weights, operators
and whether gradients pass them; where prompts can enter, by the tensors' names; and each reason why
something can't be tuned.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := inspect.Open(args[0])
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), r, r.Print)
		},
	}
}
