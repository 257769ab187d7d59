package main

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

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

// newPromptImport makes a prompt of a textual-inversion file, or of SDXL's two.
func newPromptImport() *cobra.Command {
	query := map[string]*string{}
	cmd := &cobra.Command{
		Use:   "import FILE [FILE_2]",
		Short: "Make a prompt of a textual-inversion file: diffusers' learned_embeds (SDXL's two), AUTOMATIC1111's, kohya's",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			contentType, body, err := conceptForm(args)
			if err != nil {
				return err
			}
			q := url.Values{}
			for name, value := range query {
				if *value != "" {
					q.Set(name, *value)
				}
			}
			var p promptView
			answer, err := newClient().send(cmd.Context(), http.MethodPost, "/v1/prompts/import?"+q.Encode(), contentType, body)
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

// conceptForm is the body with files as its parts "file".
func conceptForm(names []string) (contentType string, body io.Reader, err error) {
	files, err := readFiles(names)
	if err != nil {
		return "", nil, err
	}
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i, file := range files {
		part, err := w.CreateFormFile("file", filepath.Base(names[i]))
		if err == nil {
			_, err = part.Write(file)
		}
		if err != nil {
			return "", nil, err
		}
	}
	return w.FormDataContentType(), &b, w.Close()
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
