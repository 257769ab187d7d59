package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/foretoken/foretoken/internal/errs"
)

func newCaption() *cobra.Command {
	var q captionQuery
	var stream bool
	cmd := &cobra.Command{
		Use:   "caption IMAGE...",
		Short: "Say what images show, or answer a question about them",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := readFiles(args)
			if err != nil {
				return err
			}
			if stream {
				return q.stream(cmd.Context(), newClient(), images, cmd.OutOrStdout())
			}
			texts, err := q.all(cmd.Context(), newClient(), images)
			if err != nil {
				return err
			}
			type captioned struct {
				Image string `json:"image"`
				Text  string `json:"text"`
			}
			var out []captioned
			for i, text := range texts {
				out = append(out, captioned{args[i], text})
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), out, func(w io.Writer) {
				for _, c := range out {
					if len(out) > 1 {
						fmt.Fprintf(w, "%s: ", c.Image)
					}
					fmt.Fprintln(w, c.Text)
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.prompt, "prompt", "", "tuned prompt, NAME or NAME@REVISION")
	f.StringVar(&q.bundle, "bundle", captionerName, "frozen model, where no prompt is given")
	f.StringVar(&q.ask, "ask", "", "a question, or words that the text begins with")
	f.IntVar(&q.beams, "beams", 0, "beams of the search (default: the model's)")
	f.Float64Var(&q.temperature, "temperature", 0, "above 0: words are drawn")
	f.IntVar(&q.tokens, "max-tokens", 0, "length in tokens (default: the model's)")
	f.Uint64Var(&q.seed, "seed", 1, "of words that are drawn")
	f.BoolVar(&stream, "stream", false, "print words as they come")
	return cmd
}

func readFiles(names []string) ([][]byte, error) {
	var files [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, errs.New(errs.NotFound, "%w", err)
		}
		files = append(files, b)
	}
	return files, nil
}

// captionQuery is what is asked of a captioner.
type captionQuery struct {
	prompt, bundle, ask string
	beams, tokens       int
	temperature         float64
	seed                uint64
}

// request is the body for an image.
func (q *captionQuery) request(image []byte, stream bool) map[string]any {
	content := []any{map[string]any{"type": "image_url", "image_url": map[string]string{"url": dataURL(image)}}}
	if q.ask != "" {
		content = append(content, map[string]any{"type": "text", "text": q.ask})
	}
	body := map[string]any{
		"model": cmp.Or(q.prompt, q.bundle), "stream": stream,
		"messages": []any{map[string]any{"role": "user", "content": content}},
	}
	if q.beams > 0 {
		body["num_beams"] = q.beams
	}
	if q.tokens > 0 {
		body["max_completion_tokens"] = q.tokens
	}
	if q.temperature > 0 {
		body["temperature"], body["seed"] = q.temperature, q.seed
	}
	return body
}

// askedAtOnce is how many images are asked about at the same time: they share batches.
const askedAtOnce = 8

// all returns the texts of images, in their order.
func (q *captionQuery) all(ctx context.Context, c *client, images [][]byte) ([]string, error) {
	texts := make([]string, len(images))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(askedAtOnce)
	for i, image := range images {
		group.Go(func() error {
			var v struct {
				Choices []struct {
					Message struct{ Content string }
				}
			}
			if err := c.post(ctx, "/v1/chat/completions", q.request(image, false), &v); err != nil {
				return err
			}
			if len(v.Choices) != 1 {
				return errs.New(errs.Unavailable, "%s answered with %d choices, want 1", c.url, len(v.Choices))
			}
			texts[i] = v.Choices[0].Message.Content
			return nil
		})
	}
	return texts, group.Wait()
}

// stream prints the texts one after the other, as they come.
func (q *captionQuery) stream(ctx context.Context, c *client, images [][]byte, w io.Writer) error {
	for _, image := range images {
		err := c.stream(ctx, "/v1/chat/completions", q.request(image, true), func(e event) error {
			var chunk struct {
				Choices []struct{ Delta struct{ Content string } }
			}
			if string(e.data) == "[DONE]" {
				return nil
			}
			if err := json.Unmarshal(e.data, &chunk); err != nil {
				return err
			}
			for _, choice := range chunk.Choices {
				fmt.Fprint(w, choice.Delta.Content)
			}
			return nil
		})
		if err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return nil
}

// pictureQuery is what is asked of a painter.
type pictureQuery struct {
	bundle, text, negative, size, scheduler, image, mask string
	prompts                                              []string
	n, steps                                             int
	guidance, strength, eta                              float64
	seed                                                 uint64
}

func newGenerate() *cobra.Command {
	var q pictureQuery
	var out string
	cmd := &cobra.Command{
		Use:   "generate TEXT...",
		Short: "Draw pictures of a text, with tuned concepts and styles; or draw an image anew",
		RunE: func(cmd *cobra.Command, args []string) error {
			q.text = strings.Join(args, " ")
			if q.text == "" && q.image == "" {
				return usageError{fmt.Errorf("say what to draw, or give --image for variations of it")}
			}
			pictures, err := q.draw(cmd.Context(), newClient(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			for i := range pictures {
				if pictures[i].File, err = pictures[i].save(out, len(pictures)); err != nil {
					return err
				}
			}
			return show(cmd.OutOrStdout(), asJSON(cmd), pictures, func(w io.Writer) {
				for _, p := range pictures {
					fmt.Fprintf(w, "%s  seed %d, %s\n", p.File, p.Seed, p.Size)
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&q.prompts, "prompt", nil, "tuned concept, style or negative prompt, NAME or NAME@REVISION; may be repeated")
	f.StringVar(&q.bundle, "bundle", painterName, "frozen model, where no prompt is given")
	f.StringVar(&q.negative, "negative", "", "what not to draw")
	f.Uint64Var(&q.seed, "seed", 1, "of the first picture; the next have the numbers after it")
	f.IntVar(&q.n, "n", 1, "how many pictures")
	f.StringVar(&q.size, "size", "", "WIDTHxHEIGHT (default: the model's)")
	f.IntVar(&q.steps, "steps", 0, "steps (default: the scheduler's)")
	f.Float64Var(&q.guidance, "guidance", 0, "how far words push; 1 is not at all (default: the model's)")
	f.StringVar(&q.scheduler, "scheduler", "", "ddim, pndm, euler, euler_ancestral, dpmpp_2m or lcm (default: the model's)")
	f.Float64Var(&q.eta, "eta", 0, "how much noise ddim puts back at each step, up to 1")
	f.StringVar(&q.image, "image", "", "draw this image anew")
	f.StringVar(&q.mask, "mask", "", "PNG that is transparent where the image is to be drawn anew")
	f.Float64Var(&q.strength, "strength", 0, "how much of the image is drawn anew, up to 1")
	f.StringVar(&out, "out", "picture.png", "file; of several, each has its seed in its name")
	return cmd
}

// pictureView is a picture that came.
type pictureView struct {
	File string `json:"file"`
	Seed uint64 `json:"seed"`
	Size string `json:"size"`
	png  []byte
}

// save writes the picture, and returns its file's name.
func (p *pictureView) save(out string, of int) (string, error) {
	if of > 1 {
		kind := filepath.Ext(out)
		out = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(out, kind), p.Seed, kind)
	}
	if dir := filepath.Dir(out); dir != "." {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	return out, os.WriteFile(out, p.png, 0o644)
}

// draw has pictures drawn, and shows how far they are.
func (q *pictureQuery) draw(ctx context.Context, c *client, progress io.Writer) ([]pictureView, error) {
	path, contentType, body, err := q.request()
	if err != nil {
		return nil, err
	}
	b := bar(progress, 1, "drawing", false)
	defer b.Finish()
	var pictures []pictureView
	err = c.streamBody(ctx, path, contentType, body, func(e event) error {
		var v struct {
			Step  int    `json:"step"`
			Steps int    `json:"total_steps"`
			Seed  uint64 `json:"seed"`
			Size  string `json:"size"`
			Image string `json:"b64_json"`
		}
		if err := json.Unmarshal(e.data, &v); err != nil {
			return err
		}
		if strings.HasSuffix(e.kind, ".progress") {
			b.ChangeMax(v.Steps)
			return b.Set(v.Step)
		}
		png, err := base64.StdEncoding.DecodeString(v.Image)
		pictures = append(pictures, pictureView{Seed: v.Seed, Size: v.Size, png: png})
		return err
	})
	return pictures, err
}

// request is the route and the body of what is asked.
func (q *pictureQuery) request() (path, contentType string, body []byte, err error) {
	model, more := q.bundle, q.prompts
	if len(more) > 0 {
		model, more = more[0], more[1:]
	}
	fields := map[string]any{"model": model, "prompt": q.text, "n": q.n, "seed": q.seed, "stream": true, "progress": true}
	for key, v := range map[string]string{"negative_prompt": q.negative, "size": q.size, "scheduler": q.scheduler} {
		if v != "" {
			fields[key] = v
		}
	}
	for key, v := range map[string]float64{"steps": float64(q.steps), "guidance": q.guidance, "strength": q.strength, "eta": q.eta} {
		if v != 0 {
			fields[key] = v
		}
	}
	if len(more) > 0 {
		fields["prompts"] = more
	}
	if q.image == "" {
		if q.mask != "" || q.strength != 0 {
			return "", "", nil, usageError{fmt.Errorf("--mask and --strength go with --image")}
		}
		body, err = json.Marshal(fields)
		return "/v1/images/generations", "application/json", body, err
	}
	path = "/v1/images/edits"
	if q.text == "" {
		path = "/v1/images/variations"
	}
	contentType, body, err = q.form(fields)
	return path, contentType, body, err
}

// form is the body with the image and the mask.
func (q *pictureQuery) form(fields map[string]any) (contentType string, body []byte, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for key, v := range fields {
		text, isText := v.(string)
		if !isText {
			encoded, err := json.Marshal(v)
			if err != nil {
				return "", nil, err
			}
			text = string(encoded)
		}
		if err := w.WriteField(key, text); err != nil {
			return "", nil, err
		}
	}
	for key, name := range map[string]string{"image": q.image, "mask": q.mask} {
		if name == "" {
			continue
		}
		files, err := readFiles([]string{name})
		if err != nil {
			return "", nil, err
		}
		part, err := w.CreateFormFile(key, filepath.Base(name))
		if err == nil {
			_, err = part.Write(files[0])
		}
		if err != nil {
			return "", nil, err
		}
	}
	err = w.Close() // writes the end
	return w.FormDataContentType(), b.Bytes(), err
}

// stream posts JSON and calls f for each event of the answer.
func (c *client) stream(ctx context.Context, path string, body any, f func(event) error) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.streamBody(ctx, path, "application/json", b, f)
}

func (c *client) streamBody(ctx context.Context, path, contentType string, body []byte, f func(event) error) error {
	answer, err := c.send(ctx, http.MethodPost, path, contentType, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return readEvents(answer.Body, func(e event) error {
		var in struct {
			Error struct{ Message, Code string }
		}
		if json.Unmarshal(e.data, &in) == nil && in.Error.Message != "" {
			return errs.New(errs.Parse(in.Error.Code), "%s", in.Error.Message)
		}
		return f(e)
	})
}
