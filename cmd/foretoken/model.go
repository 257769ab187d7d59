package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newModel() *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Work with bundles: frozen models"}
	cmd.AddCommand(newModelInspect(), newModelPrint(), newModelVJP(), newModelExport(), newModelAdd(), newModelList())
	return cmd
}

func newModelAdd() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "add DIR",
		Short: "Add the model in a folder of the server's machine",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			var b bundleView
			if err := newClient().post(cmd.Context(), "/v1/bundles", map[string]string{"name": name, "dir": dir}, &b); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), b, func(w io.Writer) { fmt.Fprintf(w, "%s  %s\n", b.Name, b.Digest) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the bundle's name (default: the folder's)")
	return cmd
}

func newModelList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List bundles",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l listOf[bundleView]
			if err := newClient().get(cmd.Context(), "/v1/bundles", &l); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), l, func(w io.Writer) {
				for _, b := range l.Data {
					fmt.Fprintf(w, "%s  %s\n", b.Name, b.Digest)
				}
			})
		},
	}
}
