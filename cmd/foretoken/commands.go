package main

import (
	"archive/zip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/tuning"
)

// terminal says whether progress can be drawn on w.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// bar makes a progress bar on a terminal, elsewhere one that draws nothing.
func bar(w io.Writer, total int64, what string, bytes bool) *progressbar.ProgressBar {
	if !terminal(w) {
		w = io.Discard
	}
	return progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(bytes), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30))
}

// table prints rows in columns.
func table(w io.Writer, rows ...[]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	t.Flush()
}

func asJSON(cmd *cobra.Command) bool {
	v, err := cmd.Flags().GetBool("json")
	return err == nil && v
}

func newDataset() *cobra.Command {
	cmd := &cobra.Command{Use: "dataset", Short: "Upload and list data sets"}
	var name string
	push := &cobra.Command{
		Use:   "push FOLDER|ZIP",
		Short: "Upload a folder or zip as a new version: class folders, images with captions or questions, or images alone",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				name = strings.TrimSuffix(filepath.Base(filepath.Clean(args[0])), ".zip")
			}
			v, err := push(cmd.Context(), newClient(), args[0], name, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), v, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d images %s, version %s\n", v.Name, v.Images, v.contents(), v.Version)
				for _, s := range v.Skipped {
					fmt.Fprintf(w, "left out %s: %s\n", s.Path, s.Reason)
				}
				for _, l := range v.Leaks {
					fmt.Fprintf(w, "the same image in more than one split: %s\n", strings.Join(l.Paths, ", "))
				}
			})
		},
	}
	push.Flags().StringVar(&name, "name", "", "the data set's name (default: the folder's or zip's)")
	list := &cobra.Command{
		Use:   "list",
		Short: "List data sets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l listOf[datasetView]
			if err := newClient().get(cmd.Context(), "/v1/datasets", &l); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), l, func(w io.Writer) {
				rows := [][]string{{"NAME", "IMAGES", "CLASSES", "VERSION"}}
				for _, d := range l.Data {
					rows = append(rows, []string{d.Name, strconv.Itoa(d.Images), strconv.Itoa(d.Classes), d.Version[:12]})
				}
				table(w, rows...)
			})
		},
	}
	cmd.AddCommand(push, list)
	return cmd
}

// push uploads a zip, or a folder as the zip that it would make.
func push(ctx context.Context, c *client, path, name string, progress io.Writer) (v uploadView, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return v, errs.New(errs.NotFound, "%w", err)
	}
	var body io.ReadCloser
	size := int64(-1)
	if info.IsDir() {
		body = zipFolder(path)
	} else {
		size = info.Size()
		if body, err = os.Open(path); err != nil {
			return v, err
		}
	}
	defer body.Close()
	b := bar(progress, size, "uploading", true)
	answer, err := c.send(ctx, http.MethodPost, "/v1/datasets?name="+url.QueryEscape(name), "application/zip", io.TeeReader(body, b))
	b.Finish()
	return v, decode(answer, err, &v)
}

// zipFolder writes a folder as a zip, as it is read. Images are stored, not packed again.
func zipFolder(dir string) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeZip(w, dir)) }()
	return r
}

func writeZip(w io.Writer, dir string) error {
	z := zip.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return errs.New(errs.Invalid, "%s is a symbolic link or special file: put the file itself there", path)
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return zipFile(z, path, filepath.ToSlash(relative))
	})
	if err != nil {
		return err
	}
	return z.Close()
}

func zipFile(z *zip.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

func newTune() *cobra.Command {
	var in struct {
		Dataset string `json:"dataset"`
		Version string `json:"version,omitempty"`
		Bundle  string `json:"bundle"`
		Recipe  any    `json:"recipe"`
		Shots   int    `json:"shots"`
		HoldOut bool   `json:"hold_out"`
		Prompt  string `json:"prompt,omitempty"`
		Seed    uint64 `json:"seed"`
	}
	var recipe string
	var detach bool
	cmd := &cobra.Command{
		Use:   "tune",
		Short: "Tune a prompt on a data set, and watch it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if in.Recipe, err = readRecipe(recipe); err != nil {
				return err
			}
			c := newClient()
			var r runView
			if err := c.post(cmd.Context(), "/v1/runs", in, &r); err != nil {
				return err
			}
			if !detach {
				if r, err = watch(cmd.Context(), c, r.ID, cmd.ErrOrStderr()); err != nil {
					return err
				}
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), r, r.print)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Dataset, "dataset", "", "data set")
	f.StringVar(&in.Version, "version", "", "its version (default: the latest)")
	f.StringVar(&in.Bundle, "bundle", starterName, "frozen model")
	f.StringVar(&recipe, "recipe", "coop", "name of a recipe, or a YAML file")
	f.IntVar(&in.Shots, "shots", 16, "training images a class; 0 is all")
	f.BoolVar(&in.HoldOut, "hold-out", false, "tune on the first half of the classes, score both halves")
	f.StringVar(&in.Prompt, "prompt", "", "name of the prompt (default: DATASET-RECIPE)")
	f.Uint64Var(&in.Seed, "seed", 1, "draws shots, start and order")
	f.BoolVar(&detach, "detach", false, "return at once")
	cmd.MarkFlagRequired("dataset")
	return cmd
}

// readRecipe is a recipe's name, or the content of a YAML file as JSON.
func readRecipe(name string) (any, error) {
	if !strings.HasSuffix(name, ".yaml") && !strings.HasSuffix(name, ".yml") {
		return name, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, errs.New(errs.NotFound, "recipe: %w", err)
	}
	return tuning.ParseRecipe(b)
}

func (r runView) print(w io.Writer) {
	fmt.Fprintf(w, "run        %s, %s\n", r.ID, r.State)
	if r.Error != "" {
		fmt.Fprintf(w, "error      %s\n", r.Error)
	}
	for _, line := range []struct {
		name string
		s    *score
	}{{"zero-shot", r.Metrics.ZeroShot}, {"tuned", r.Metrics.Tuned}} {
		if line.s != nil {
			fmt.Fprintf(w, "%-10s %s\n", line.name, line.s)
		}
	}
	if r.Prompt != "" {
		fmt.Fprintf(w, "prompt     %s\n", r.Prompt)
	}
}

// String is the accuracy with its interval, and that on classes held out; for what does not classify, its measures.
func (s *score) String() string {
	if len(s.Others) > 0 {
		var measures []string
		for _, name := range slices.Sorted(maps.Keys(s.Others)) {
			measures = append(measures, fmt.Sprintf("%s %.3f", name, s.Others[name]))
		}
		return fmt.Sprintf("%s; %d images", strings.Join(measures, ", "), s.Images)
	}
	text := fmt.Sprintf("%s (95 %% interval %s to %s) of %d test images", percent(s.Accuracy), percent(s.Interval[0]), percent(s.Interval[1]), s.Images)
	if s.Novel != nil {
		text += fmt.Sprintf(", %s on classes held out", percent(*s.Novel))
	}
	return text
}

// watch draws a run's progress until it ends. A run that failed is an error.
func watch(ctx context.Context, c *client, id string, progress io.Writer) (r runView, err error) {
	b := bar(progress, 1, "tuning", false)
	err = c.events(ctx, id, func(e event) error {
		var step struct {
			Step     int     `json:"step"`
			Steps    int     `json:"total_steps"`
			Loss     float64 `json:"loss"`
			Accuracy float64 `json:"accuracy"`
		}
		if e.kind != "step" {
			return nil
		}
		if err := json.Unmarshal(e.data, &step); err != nil {
			return err
		}
		b.ChangeMax(step.Steps)
		b.Describe(fmt.Sprintf("loss %.3f, batch accuracy %s", step.Loss, percent(step.Accuracy)))
		return b.Set(step.Step)
	})
	b.Finish()
	if err != nil {
		return r, err
	}
	if err := c.get(ctx, "/v1/runs/"+id, &r); err != nil {
		return r, err
	}
	if r.State != "done" {
		return r, errs.New(errs.Invalid, "run %s is %s: %s", r.ID, r.State, r.Error)
	}
	return r, nil
}

// targetFlags name what a request is conditioned by.
func targetFlags(cmd *cobra.Command, prompt, bundle *string) {
	cmd.Flags().StringVar(prompt, "prompt", "", "tuned prompt, NAME or NAME@REVISION")
	cmd.Flags().StringVar(bundle, "bundle", "", "frozen model, for the answer without a prompt")
	cmd.MarkFlagsOneRequired("prompt", "bundle")
}

func newEval() *cobra.Command {
	var dataset, prompt, bundle string
	cmd := &cobra.Command{
		Use:   "eval",
		Short: "Score a prompt, or a frozen model, on a data set's test images",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s score
			err := newClient().post(cmd.Context(), "/v1/evaluations", map[string]string{"dataset": dataset, "prompt": prompt, "bundle": bundle}, &s)
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), s, func(w io.Writer) {
				fmt.Fprintln(w, s.String())
				rows := [][]string{}
				for _, c := range s.PerClass {
					rows = append(rows, []string{"  " + c.Class, percent(c.Accuracy), fmt.Sprintf("of %d", c.Images)})
				}
				table(w, rows...)
			})
		},
	}
	cmd.Flags().StringVar(&dataset, "dataset", "", "data set")
	cmd.MarkFlagRequired("dataset")
	targetFlags(cmd, &prompt, &bundle)
	return cmd
}

func newClassify() *cobra.Command {
	var prompt, bundle string
	var classes []string
	cmd := &cobra.Command{
		Use:   "classify IMAGE",
		Short: "Classify an image by a prompt, or by class names",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return errs.New(errs.NotFound, "%w", err)
			}
			v, err := classify(cmd.Context(), newClient(), b, prompt, bundle, classes)
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), v, func(w io.Writer) {
				for _, s := range v.Scores[:min(5, len(v.Scores))] {
					fmt.Fprintf(w, "%6s  %s\n", percent(s.Probability), s.Class)
				}
			})
		},
	}
	targetFlags(cmd, &prompt, &bundle)
	cmd.Flags().StringSliceVar(&classes, "class", nil, "class names, comma-separated or repeated (default: the prompt's own)")
	return cmd
}

func classify(ctx context.Context, c *client, image []byte, prompt, bundle string, classes []string) (v classifyView, err error) {
	err = c.post(ctx, "/v1/classify", map[string]any{
		"image": dataURL(image), "prompt": prompt, "bundle": bundle, "classes": classes,
	}, &v)
	return v, err
}

func dataURL(image []byte) string {
	return "data:" + imageType(image) + ";base64," + base64.StdEncoding.EncodeToString(image)
}

// imageType names an image's type; the server looks at the bytes anyway.
func imageType(image []byte) string {
	if kind := http.DetectContentType(image); strings.HasPrefix(kind, "image/") {
		return kind
	}
	return "image/png"
}

func newSearch() *cobra.Command {
	var dataset, prompt, bundle string
	var limit int
	cmd := &cobra.Command{
		Use:   "search WORDS",
		Short: "Find images of a data set by words",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var v searchView
			err := newClient().post(cmd.Context(), "/v1/search", map[string]any{
				"dataset": dataset, "query": strings.Join(args, " "), "limit": limit, "prompt": prompt, "bundle": bundle,
			}, &v)
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), v, func(w io.Writer) {
				for _, h := range v.Hits {
					fmt.Fprintf(w, "%.3f  %s\n", h.Score, h.Path)
				}
			})
		},
	}
	cmd.Flags().StringVar(&dataset, "dataset", "", "data set")
	cmd.Flags().IntVar(&limit, "limit", 10, "how many images")
	cmd.MarkFlagRequired("dataset")
	targetFlags(cmd, &prompt, &bundle)
	return cmd
}

func newPrompt() *cobra.Command {
	cmd := &cobra.Command{Use: "prompt", Short: "List, show, download, promote, import and export prompts"}
	list := &cobra.Command{
		Use:   "list",
		Short: "List prompts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l listOf[promptView]
			if err := newClient().get(cmd.Context(), "/v1/prompts", &l); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), l, func(w io.Writer) {
				rows := [][]string{{"NAME", "REVISION", "BUNDLE", "BYTES"}}
				for _, p := range l.Data {
					rows = append(rows, []string{p.Name, strconv.Itoa(p.Revision), p.Bundle, strconv.FormatInt(p.Size, 10)})
				}
				table(w, rows...)
			})
		},
	}
	shown := &cobra.Command{
		Use:   "show NAME[@REVISION]",
		Short: "Show a prompt's card",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var p promptView
			if err := newClient().get(cmd.Context(), "/v1/prompts/"+url.PathEscape(args[0]), &p); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), true, p, nil)
		},
	}
	promote := &cobra.Command{
		Use:   "promote NAME REVISION",
		Short: "Make a revision the one that the name stands for",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			revision, err := strconv.Atoi(args[1])
			if err != nil {
				return usageError{fmt.Errorf("revision %q is no number", args[1])}
			}
			var p promptView
			if err := newClient().post(cmd.Context(), "/v1/prompts/"+url.PathEscape(args[0])+"/promote", map[string]int{"revision": revision}, &p); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), p, func(w io.Writer) { fmt.Fprintf(w, "%s stands for revision %d\n", p.Name, p.Revision) })
		},
	}
	cmd.AddCommand(list, shown, newPromptDownload(), promote, newPromptImport(), newPromptExport())
	return cmd
}

func newRecipe() *cobra.Command {
	cmd := &cobra.Command{Use: "recipe", Short: "List and show recipes"}
	type recipe struct {
		Name        string `json:"name"`
		Method      string `json:"method"`
		Description string `json:"description"`
	}
	list := &cobra.Command{
		Use:   "list",
		Short: "List the recipes that come with the server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l listOf[recipe]
			if err := newClient().get(cmd.Context(), "/v1/recipes", &l); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), l, func(w io.Writer) {
				rows := [][]string{{"NAME", "METHOD", "DESCRIPTION"}}
				for _, r := range l.Data {
					rows = append(rows, []string{r.Name, r.Method, r.Description})
				}
				table(w, rows...)
			})
		},
	}
	shown := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a recipe with every default written out",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var r json.RawMessage
			if err := newClient().get(cmd.Context(), "/v1/recipes/"+url.PathEscape(args[0]), &r); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), true, r, nil)
		},
	}
	cmd.AddCommand(list, shown)
	return cmd
}

func newRun() *cobra.Command {
	cmd := &cobra.Command{Use: "run", Short: "List, show and cancel runs"}
	list := &cobra.Command{
		Use:   "list",
		Short: "List runs, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l listOf[runView]
			if err := newClient().get(cmd.Context(), "/v1/runs", &l); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), l, func(w io.Writer) {
				rows := [][]string{{"RUN", "STATE", "STEP", "PROMPT"}}
				for _, r := range l.Data {
					rows = append(rows, []string{r.ID, r.State, fmt.Sprintf("%d/%d", r.Step, r.Steps), r.Prompt})
				}
				table(w, rows...)
			})
		},
	}
	one := func(use, short string, ask func(ctx context.Context, id string, r *runView) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				var r runView
				if err := ask(cmd.Context(), url.PathEscape(args[0]), &r); err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), asJSON(cmd), r, r.print)
			},
		}
	}
	cmd.AddCommand(list,
		one("show RUN", "Show a run", func(ctx context.Context, id string, r *runView) error {
			return newClient().get(ctx, "/v1/runs/"+id, r)
		}),
		one("cancel RUN", "End a run", func(ctx context.Context, id string, r *runView) error {
			return newClient().post(ctx, "/v1/runs/"+id+"/cancel", struct{}{}, r)
		}))
	return cmd
}

func newKey() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make, list and revoke API keys"}
	create := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key; it is shown once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var k keyView
			if err := newClient().post(cmd.Context(), "/v1/keys", map[string]string{"name": args[0]}, &k); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), k, func(w io.Writer) { fmt.Fprintf(w, "%s  %s\n", k.ID, k.Key) })
		},
	}
	list := &cobra.Command{
		Use:   "list",
		Short: "List keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l listOf[keyView]
			if err := newClient().get(cmd.Context(), "/v1/keys", &l); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), l, func(w io.Writer) {
				rows := [][]string{{"ID", "NAME", "STATE"}}
				for _, k := range l.Data {
					state := "valid"
					if k.Revoked {
						state = "revoked"
					}
					rows = append(rows, []string{k.ID, k.Name, state})
				}
				table(w, rows...)
			})
		},
	}
	revoke := &cobra.Command{
		Use:   "revoke ID",
		Short: "End a key's use",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := newClient().send(cmd.Context(), http.MethodDelete, "/v1/keys/"+url.PathEscape(args[0]), "", nil)
			if err != nil {
				return err
			}
			return answer.Body.Close()
		},
	}
	cmd.AddCommand(create, list, revoke)
	return cmd
}
