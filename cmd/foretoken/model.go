package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/text"
	"github.com/foretoken/foretoken/vision"
)

func newModel() *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Work with bundles: frozen models"}
	cmd.AddCommand(newModelInspect(), newModelPrint(), newModelVJP(), newModelAdd(), newModelList())
	return cmd
}

// inspection is what is found in a bundle.
type inspection struct {
	Name       string     `json:"name"`
	Digest     string     `json:"digest"`
	Files      int        `json:"files"`
	Bytes      int64      `json:"bytes"`
	LogitScale float32    `json:"logit_scale"`
	ScaleFrom  string     `json:"logit_scale_source"`
	Image      *imageSide `json:"image"`
	Text       *textSide  `json:"text"`
}

type imageSide struct {
	Height      int `json:"height"`
	Width       int `json:"width"`
	Tokens      int `json:"tokens"`
	ClassTokens int `json:"class_tokens"`
	TokenWidth  int `json:"token_width"`
	Blocks      int `json:"blocks"`
}

type textSide struct {
	Window     int `json:"window"`
	TokenWidth int `json:"token_width"`
	Blocks     int `json:"blocks"`
}

func newModelInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect DIR",
		Short: "Say where prompts can enter the model in a folder",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := inspect(args[0])
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), in, in.print)
		},
	}
}

func inspect(dir string) (*inspection, error) {
	b, err := bundle.Open(dir)
	if err != nil {
		return nil, err
	}
	in := &inspection{Name: b.Name, Digest: b.Digest, Files: len(b.Files)}
	for _, f := range b.Files {
		in.Bytes += f.Size
	}
	if in.LogitScale, in.ScaleFrom, err = b.LogitScale(); err != nil {
		return nil, err
	}
	images, err := vision.OpenTower(b, ort.Options{})
	if err != nil {
		return nil, err
	}
	defer images.Close()
	texts, err := text.OpenTower(b, ort.Options{})
	if err != nil {
		return nil, err
	}
	defer texts.Close()
	h, w := images.Size()
	in.Image = &imageSide{h, w, images.Info.Tokens, images.Info.ClassTokens, images.Info.Width, images.Depth()}
	in.Text = &textSide{texts.Info.Window, texts.Info.Width, texts.Depth()}
	return in, nil
}

func (in *inspection) print(w io.Writer) {
	fmt.Fprintf(w, "bundle       %s\ndigest       %s\nfiles        %d, %.1f MB\nlogit scale  %.4g (%s)\n",
		in.Name, in.Digest, in.Files, float64(in.Bytes)/1e6, in.LogitScale, in.ScaleFrom)
	fmt.Fprintf(w, "image tower  %d x %d pixels, %d tokens (%d class) of width %d, prompts enter %d blocks\n",
		in.Image.Width, in.Image.Height, in.Image.Tokens, in.Image.ClassTokens, in.Image.TokenWidth, in.Image.Blocks)
	fmt.Fprintf(w, "text tower   window of %d tokens of width %d, context enters %d blocks\n",
		in.Text.Window, in.Text.TokenWidth, in.Text.Blocks)
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
