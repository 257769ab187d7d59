package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt/embeds"
)

// newPromptDownload saves a prompt's own file.
func newPromptDownload() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "download NAME[@REVISION]",
		Short: "Save a prompt's file",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				out = args[0] + ".safetensors"
			}
			return newClient().save(cmd.Context(), "/v1/prompts/"+url.PathEscape(args[0])+"/file", out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file (default: NAME.safetensors)")
	return cmd
}

// newPromptImport makes a prompt of a textual-inversion file.
func newPromptImport() *cobra.Command {
	query := map[string]*string{}
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Make a prompt of a textual-inversion file: diffusers' learned_embeds, AUTOMATIC1111's, SDXL's",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return errs.New(errs.NotFound, "%w", err)
			}
			defer f.Close()
			q := url.Values{"file": {filepath.Base(args[0])}}
			for name, value := range query {
				if *value != "" {
					q.Set(name, *value)
				}
			}
			var p promptView
			answer, err := newClient().send(cmd.Context(), http.MethodPost, "/v1/prompts/import?"+q.Encode(), "application/octet-stream", f)
			if err := decode(answer, err, &p); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), p, func(w io.Writer) {
				fmt.Fprintf(w, "%s@%d: a %s for %s, written %s\n", p.Name, p.Revision, p.Kind, p.Bundle, p.Token)
			})
		},
	}
	for _, f := range [][2]string{
		{"bundle", "the bundle that it is for (required)"},
		{"name", "the prompt's name (default: the token without < and >)"},
		{"token", "what stands for it in texts (default: what the file says, or its name)"},
		{"kind", "concept, style or negative (default: concept)"},
	} {
		query[f[0]] = cmd.Flags().String(f[0], "", f[1])
	}
	if err := cmd.MarkFlagRequired("bundle"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

// newPromptExport saves a prompt as other programs read it.
func newPromptExport() *cobra.Command {
	var format, out string
	cmd := &cobra.Command{
		Use:   "export NAME[@REVISION]",
		Short: "Save a concept, style or negative prompt as other programs read it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/v1/prompts/" + url.PathEscape(args[0]) + "/file?" + url.Values{"format": {format}}.Encode()
			if out == "" {
				out = args[0] + embeds.Format(format).Suffix()
			}
			if err := newClient().save(cmd.Context(), path, out); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), out)
			return nil
		},
	}
	var formats []string
	for _, f := range embeds.Formats {
		formats = append(formats, string(f))
	}
	cmd.Flags().StringVar(&format, "format", string(embeds.Diffusers), "one of "+strings.Join(formats, ", "))
	cmd.Flags().StringVar(&out, "out", "", "file (default: NAME with the format's ending)")
	return cmd
}
