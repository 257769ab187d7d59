package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
)

// The demo's sets for the captioner and the painter; no picture of them was seen in training.
var (
	captionSet = demoSet{name: "captions", about: "drawings in a style that the captioner never saw, with captions in German, which it was taught a little of and does not say by itself"}
	conceptSet = demoSet{name: "concept", about: "five pictures of one thing, an orange heart, which the painter never saw"}
	styleSet   = demoSet{name: "style", about: "sixteen drawings in a style that the painter never saw"}
)

const (
	// conceptWord is the word whose embedding the concept starts from, and conceptToken what stands for it.
	conceptWord  = "heart"
	conceptToken = "<orange-heart>"
	// sceneSeeds is how many pictures are drawn of each scene.
	sceneSeeds = 3
)

var (
	conceptScenes = []string{"a flat drawing of %s", "a flat drawing of %s on a yellow background", "a 3d drawing of %s", "a monochrome drawing of %s"}
	styleScenes   = []string{"a red heart", "a cat face", "a house", "an umbrella"}
)

// generate has the captioner and the painter learn, and shows what they made before and after.
func (d *demo) generate(ctx context.Context, folder string) error {
	d.say("\nWhat steers a captioner and a painter:")
	for _, set := range []demoSet{captionSet, conceptSet, styleSet} {
		if err := d.upload(ctx, set); err != nil {
			return err
		}
	}
	if err := d.captions(ctx); err != nil {
		return err
	}
	err := d.pictures(ctx, conceptSet, "textual-inversion-starter", map[string]any{"token": conceptToken, "init": conceptWord}, filepath.Join(folder, "concept.png"),
		worded(conceptScenes, conceptWord), worded(conceptScenes, conceptToken))
	if err != nil {
		return err
	}
	return d.pictures(ctx, styleSet, "style-starter", nil, filepath.Join(folder, "style.png"), styleScenes, styleScenes)
}

// worded writes scenes of a thing.
func worded(scenes []string, thing string) (texts []string) {
	for _, s := range scenes {
		texts = append(texts, fmt.Sprintf(s, thing))
	}
	return texts
}

// captions learns a prefix, and prints scores and captions of held-out pictures without it and with it.
func (d *demo) captions(ctx context.Context) error {
	run, seconds, err := d.learn(ctx, map[string]any{"dataset": captionSet.name, "bundle": captionerName, "recipe": "caption-kv-starter", "prompt": "german"})
	if err != nil {
		return err
	}
	zero, tuned := run.Metrics.ZeroShot, run.Metrics.Tuned
	d.say("\ncaptions of %d held-out drawings, a prefix learned in %.0f s:\n", tuned.Images, seconds)
	rows := [][]string{{"", "CIDEr-D", "BLEU-4", "ROUGE-L"}}
	for _, line := range []struct {
		name string
		s    *score
	}{{"frozen", zero}, {"with the prefix", tuned}} {
		rows = append(rows, []string{line.name, measure(line.s, "cider_d"), measure(line.s, "bleu4"), measure(line.s, "rouge_l")})
	}
	table(d.out, rows...)
	d.say("")
	rows = [][]string{{"reference", "frozen", "with the prefix"}}
	for i, e := range tuned.Examples[:min(5, len(tuned.Examples))] {
		rows = append(rows, []string{strings.Join(e.References, " / "), zero.Examples[i].Text, e.Text})
	}
	table(d.out, rows...)
	return nil
}

func measure(s *score, name string) string {
	x, known := s.Others[name]
	if !known {
		return "-"
	}
	return strconv.FormatFloat(x, 'f', 3, 64)
}

// learn starts a run and waits for its end.
func (d *demo) learn(ctx context.Context, request map[string]any) (r runView, seconds float64, err error) {
	start := time.Now()
	if err := d.client.post(ctx, "/v1/runs", request, &r); err != nil {
		return r, 0, err
	}
	r, err = watch(ctx, d.client, r.ID, d.progress)
	if err == nil && (r.Metrics.ZeroShot == nil || r.Metrics.Tuned == nil) {
		err = errs.New(errs.Internal, "run %s has no scores", r.ID)
	}
	return r, time.Since(start).Seconds(), err
}

// pictures learns a concept or a style, draws scenes without it and with it, and prints its scores.
func (d *demo) pictures(ctx context.Context, set demoSet, recipe string, change map[string]any, file string, before, after []string) error {
	r, err := d.recipe(ctx, recipe, change)
	if err != nil {
		return err
	}
	run, seconds, err := d.learn(ctx, map[string]any{"dataset": set.name, "bundle": painterName, "recipe": r, "prompt": set.name})
	if err != nil {
		return err
	}
	var sheet [][]image.Image
	for i := range before {
		var row []image.Image
		for _, q := range []pictureQuery{{text: before[i]}, {text: after[i], prompts: []string{set.name}}} {
			q.bundle, q.n, q.seed = painterName, sceneSeeds, 1
			pictures, err := q.draw(ctx, d.client, d.progress)
			if err != nil {
				return err
			}
			for _, p := range pictures {
				img, err := png.Decode(bytes.NewReader(p.png))
				if err != nil {
					return err
				}
				row = append(row, img)
			}
		}
		sheet = append(sheet, row)
	}
	if err := writeSheet(file, sheet, sceneSeeds); err != nil {
		return err
	}
	d.say("\n%s, learned in %.0f s: %s has a row for each of %q, before on the left, after on the right.\n", set.name, seconds, file, after)
	rows := [][]string{{"", "denoising loss", "CLIP score", "likeness to what was learned from"}}
	for _, line := range []struct {
		name string
		s    *score
	}{{"before", run.Metrics.ZeroShot}, {"after", run.Metrics.Tuned}} {
		rows = append(rows, []string{line.name, measure(line.s, "denoising_loss"), measure(line.s, "clip_score"), measure(line.s, "nearest_neighbour_identity")})
	}
	table(d.out, rows...)
	return nil
}

// recipe is a built-in recipe with changes to its inversion.
func (d *demo) recipe(ctx context.Context, name string, change map[string]any) (map[string]any, error) {
	var b json.RawMessage
	if err := d.client.get(ctx, "/v1/recipes/"+name, &b); err != nil {
		return nil, err
	}
	r := map[string]any{}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	inversion, ok := r["inversion"].(map[string]any)
	if !ok {
		return nil, errs.New(errs.Internal, "recipe %s has no inversion", name)
	}
	for key, v := range change {
		inversion[key] = v
	}
	return r, nil
}

// writeSheet writes pictures of one size in rows, with a gap in the middle of each.
func writeSheet(file string, rows [][]image.Image, middle int) error {
	const gap = 4
	side := rows[0][0].Bounds().Size()
	columns := len(rows[0])
	out := image.NewNRGBA(image.Rect(0, 0, columns*(side.X+gap)+4*gap, len(rows)*(side.Y+gap)+gap))
	draw.Draw(out, out.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
	for y, row := range rows {
		for x, img := range row {
			at := image.Pt(gap+x*(side.X+gap), gap+y*(side.Y+gap))
			if x >= middle {
				at.X += 2 * gap
			}
			draw.Draw(out, image.Rectangle{at, at.Add(side)}, img, img.Bounds().Min, draw.Src)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := png.Encode(&b, out); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}
