package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/api"
	"github.com/foretoken/foretoken/starter"
)

// demoSet is a data set of the demo. Neither was seen in the starter's training.
type demoSet struct {
	name, about string
	shots       int
	sample      string // a picture that is in neither split
}

var demoSets = []demoSet{
	{"fashion", "photographs of clothes (Fashion-MNIST), far from what the starter knows", 16, "fashion_bag.png"},
	{"openmoji", "drawings by class, in a style that the starter never saw (OpenMoji)", 4, "openmoji_animal_mammal.png"},
}

// demoRecipes are compared; the last is the rival that every method has to be measured against.
var demoRecipes = []string{"coop-starter", "vpt-deep-starter", "maple-starter", "linear-probe"}

func newDemo() *cobra.Command {
	var dir, pictures string
	var stay, generate bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Take real images through the whole path, from upload to answers, and say what prompts bought",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			temporary := dir == ""
			if temporary {
				var err error
				if dir, err = os.MkdirTemp("", "foretoken-demo-"); err != nil {
					return err
				}
				defer os.RemoveAll(dir)
			}
			parts := []part{(*demo).run}
			if generate {
				parts = append(parts, func(d *demo, ctx context.Context) error { return d.generate(ctx, pictures) })
			}
			return runDemo(cmd.Context(), dir, cmd.OutOrStdout(), cmd.ErrOrStderr(), stay || !cmd.Flags().Changed("stay") && terminal(cmd.OutOrStdout()), parts...)
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "keep the data in this folder (default: a temporary one)")
	cmd.Flags().BoolVar(&generate, "generate", false, "captions and pictures too: a captioner's prefix, a concept and a style for a painter, before and after")
	cmd.Flags().StringVar(&pictures, "pictures", "demo-out", "folder for the pictures of --generate")
	cmd.Flags().BoolVar(&stay, "stay", false, "serve on until Ctrl-C, to try the page (default: on a terminal)")
	return cmd
}

// part is one of the demo's.
type part func(*demo, context.Context) error

// runDemo starts the service on embedded defaults, and talks to it as any client would.
func runDemo(ctx context.Context, dir string, out, progress io.Writer, stay bool, parts ...part) error {
	start := time.Now()
	serverLog, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return err
	}
	defer serverLog.Close()
	a, err := openWorker(ctx, dir, serverLog)
	if err != nil {
		return err
	}
	defer a.Close()
	_, key, err := api.NewKey(ctx, a.catalog, "demo")
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- a.serve(serving, l, api.Config{Log: serverLog, MaxUpload: 1 << 30}) }()
	d := &demo{client: &client{url: "http://" + l.Addr().String(), key: key}, out: out, progress: progress}
	for _, show := range parts {
		if err := show(d, ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\nAll of it took %.0f s.\n", time.Since(start).Seconds())
	if stay {
		fmt.Fprintf(out, "The page: %s/#key=%s - Ctrl-C ends it.\n", d.client.url, key)
		<-ctx.Done()
	} else {
		fmt.Fprintf(out, "The page is served while a server runs: `bin/foretoken serve` prints its address and key.\n")
	}
	stop()
	return <-ended
}

type demo struct {
	client        *client
	out, progress io.Writer
	results       map[string][]result // by set
}

// result is a line of the table.
type result struct {
	recipe             string
	accuracy           score
	zeroShot           score
	parameters, bytes  int64
	seconds            float64
	novel, novelZero   *float64
	other, otherZero   *float64
	search, searchZero *float64
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) run(ctx context.Context) error {
	d.results = map[string][]result{}
	for _, set := range demoSets {
		if err := d.upload(ctx, set); err != nil {
			return err
		}
	}
	for i, set := range demoSets {
		other := demoSets[(i+1)%len(demoSets)]
		for _, recipe := range demoRecipes {
			r, err := d.tune(ctx, set, other, recipe)
			if err != nil {
				return err
			}
			d.results[set.name] = append(d.results[set.name], r)
		}
		d.table(set, other)
	}
	if err := d.classifyEachWay(ctx); err != nil {
		return err
	}
	return d.oneBatch(ctx)
}

// upload pushes a set's zip through the API into the object store.
func (d *demo) upload(ctx context.Context, set demoSet) error {
	f, err := starter.Demo.Open("demo/" + set.name + ".zip")
	if err != nil {
		return err
	}
	defer f.Close()
	var v uploadView
	answer, err := d.client.send(ctx, "POST", "/v1/datasets?name="+set.name, "application/zip", f)
	if err := decode(answer, err, &v); err != nil {
		return err
	}
	d.say("uploaded %s: %d images %s, version %s - %s", v.Name, v.Images, v.contents(), v.Version[:12], set.about)
	return nil
}

// tune tunes on all classes, then on half of them for the score on the others, and measures what
// the prompt keeps.
func (d *demo) tune(ctx context.Context, set, other demoSet, recipe string) (r result, err error) {
	r.recipe = recipe
	run, err := d.finish(ctx, set, recipe, set.name+"-"+recipe, false)
	if err != nil {
		return r, err
	}
	r.zeroShot, r.accuracy = *run.Metrics.ZeroShot, *run.Metrics.Tuned
	if r.seconds, err = d.trained(ctx, run); err != nil {
		return r, err
	}
	var p promptView
	if err := d.client.get(ctx, "/v1/prompts/"+run.Prompt, &p); err != nil {
		return r, err
	}
	var card struct{ Parameters int64 }
	if err := json.Unmarshal(p.Card, &card); err != nil {
		return r, err
	}
	r.parameters, r.bytes = card.Parameters, p.Size
	if recipe == "linear-probe" {
		return r, nil // it has no answer for classes without training images, nor for words
	}
	return r, d.kept(ctx, &r, set, other, run.Prompt)
}

// kept measures what a probe can't: classes left out, the other set, search by words.
func (d *demo) kept(ctx context.Context, r *result, set, other demoSet, prompt string) error {
	half, err := d.finish(ctx, set, r.recipe, set.name+"-"+r.recipe+"-half", true)
	if err != nil {
		return err
	}
	r.novel, r.novelZero = half.Metrics.Tuned.Novel, half.Metrics.ZeroShot.Novel
	templates, err := d.templates(ctx, prompt)
	if err != nil {
		return err
	}
	for _, m := range []struct {
		into           **float64
		prompt, bundle string
	}{{&r.other, prompt, ""}, {&r.otherZero, "", starterName}} {
		var s score
		err := d.client.post(ctx, "/v1/evaluations", map[string]any{"dataset": other.name, "prompt": m.prompt, "bundle": m.bundle, "templates": templates}, &s)
		if err != nil {
			return err
		}
		*m.into = &s.Accuracy
	}
	if r.search, err = d.precision(ctx, set, r.accuracy, prompt, ""); err != nil {
		return err
	}
	r.searchZero, err = d.precision(ctx, set, r.accuracy, "", starterName)
	return err
}

// templates are those of a prompt's recipe.
func (d *demo) templates(ctx context.Context, prompt string) ([]string, error) {
	var p promptView
	if err := d.client.get(ctx, "/v1/prompts/"+prompt, &p); err != nil {
		return nil, err
	}
	var card struct{ Templates []string }
	return card.Templates, json.Unmarshal(p.Card, &card)
}

// precision searches the test images by each class's name: the share of the first ten that show it.
func (d *demo) precision(ctx context.Context, set demoSet, s score, prompt, bundle string) (*float64, error) {
	const first = 10
	right := 0
	for _, class := range s.PerClass {
		var v searchView
		err := d.client.post(ctx, "/v1/search", map[string]any{
			"dataset": set.name, "split": "test", "query": class.Class, "limit": first, "prompt": prompt, "bundle": bundle,
		}, &v)
		if err != nil {
			return nil, err
		}
		for _, h := range v.Hits {
			if h.Class == class.Class {
				right++
			}
		}
	}
	share := float64(right) / float64(first*len(s.PerClass))
	return &share, nil
}

// finish starts a run and waits for its end.
func (d *demo) finish(ctx context.Context, set demoSet, recipe, prompt string, holdOut bool) (runView, error) {
	var r runView
	err := d.client.post(ctx, "/v1/runs", map[string]any{
		"dataset": set.name, "bundle": starterName, "recipe": recipe, "shots": set.shots, "hold_out": holdOut, "prompt": prompt,
	}, &r)
	if err != nil {
		return r, err
	}
	what := fmt.Sprintf("%s, %s, %d shots", recipe, set.name, set.shots)
	if holdOut {
		what += ", half of the classes"
	}
	start := time.Now()
	r, err = watch(ctx, d.client, r.ID, d.progress)
	if err == nil {
		d.say("tuned %s: %s in %.0f s", what, percent(r.Metrics.Tuned.Accuracy), time.Since(start).Seconds())
	}
	return r, err
}

// trained is the seconds from a run's start to its last step.
func (d *demo) trained(ctx context.Context, r runView) (float64, error) {
	created, err := time.Parse(time.RFC3339, r.Created)
	if err != nil {
		return 0, err
	}
	updated, err := time.Parse(time.RFC3339, r.Updated)
	return updated.Sub(created).Seconds(), err
}

// table prints a set's results, and says where the probe wins.
func (d *demo) table(set, other demoSet) {
	results := d.results[set.name]
	zero := results[0].zeroShot
	d.say("\n%s, %d shots a class, %d test images, accuracy with 95 %% interval:\n", set.name, set.shots, zero.Images)
	rows := [][]string{
		{"", "accuracy", "", "trained", "bytes", "seconds", "classes left out", "on " + other.name, "search: first 10"},
		{"zero-shot", percent(zero.Accuracy), interval(zero), "0", "0", "0", only(results[0].novelZero), only(results[0].otherZero), only(results[0].searchZero)},
	}
	for _, r := range results {
		rows = append(rows, []string{
			r.recipe, percent(r.accuracy.Accuracy), interval(r.accuracy), strconv.FormatInt(r.parameters, 10), strconv.FormatInt(r.bytes, 10),
			fmt.Sprintf("%.0f", r.seconds), only(r.novel), only(r.other), only(r.search),
		})
	}
	table(d.out, rows...)
	d.say("\n%s", verdict(results))
}

func interval(s score) string { return fmt.Sprintf("%.1f-%.1f", 100*s.Interval[0], 100*s.Interval[1]) }

// only prints a measure that not every method has.
func only(x *float64) string {
	if x == nil {
		return "-"
	}
	return percent(*x)
}

// verdict compares the best prompt with the probe.
func verdict(results []result) string {
	probe, best := results[len(results)-1], results[0]
	for _, r := range results[:len(results)-1] {
		if r.accuracy.Accuracy > best.accuracy.Accuracy {
			best = r
		}
	}
	gap := 100 * (best.accuracy.Accuracy - probe.accuracy.Accuracy)
	who := fmt.Sprintf("The best prompt (%s) beats the linear probe by %.1f points.", best.recipe, gap)
	if gap <= 0 {
		who = fmt.Sprintf("The linear probe wins here, by %.1f points over the best prompt (%s).", -gap, best.recipe)
	}
	return who + " A probe has no answer (-) for classes without training images, for other sets, or for words."
}

// classifyEachWay classifies one new picture of each set by all prompts, and without.
func (d *demo) classifyEachWay(ctx context.Context) error {
	for _, set := range demoSets {
		image, err := fs.ReadFile(starter.Demo, path.Join("demo/samples", set.sample))
		if err != nil {
			return err
		}
		d.say("\na new picture, %s:", set.sample)
		var classes []string
		for _, c := range d.results[set.name][0].accuracy.PerClass {
			classes = append(classes, c.Class)
		}
		rows := [][]string{}
		add := func(how, prompt, bundle string, classes []string) error {
			v, err := classify(ctx, d.client, image, prompt, bundle, classes)
			if err == nil {
				rows = append(rows, []string{"  " + how, v.Scores[0].Class, percent(v.Scores[0].Probability)})
			}
			return err
		}
		if err := add("zero-shot", "", starterName, classes); err != nil {
			return err
		}
		for _, recipe := range demoRecipes {
			if err := add(recipe, set.name+"-"+recipe, "", nil); err != nil {
				return err
			}
		}
		table(d.out, rows...)
	}
	return nil
}

// oneBatch sends requests for two prompts of the same shape at the same time.
func (d *demo) oneBatch(ctx context.Context) error {
	image, err := fs.ReadFile(starter.Demo, path.Join("demo/samples", demoSets[0].sample))
	if err != nil {
		return err
	}
	before, err := d.forwards(ctx)
	if err != nil {
		return err
	}
	const requests = 8
	errors := make([]error, requests)
	var group sync.WaitGroup
	for i := range requests {
		prompt := demoSets[i%2].name + "-vpt-deep-starter"
		group.Go(func() { _, errors[i] = classify(ctx, d.client, image, prompt, "", nil) })
	}
	group.Wait()
	for _, err := range errors {
		if err != nil {
			return err
		}
	}
	after, err := d.forwards(ctx)
	if err != nil {
		return err
	}
	d.say("\n%d requests at once with 2 different prompts went through the image tower in %.0f forward passes.", requests, after-before)
	return nil
}

// forwards reads the count of forward passes from /metrics.
func (d *demo) forwards(ctx context.Context) (float64, error) {
	answer, err := d.client.send(ctx, "GET", "/metrics", "", nil)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "\nforetoken_image_forwards_total ")
	number, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseFloat(number, 64)
}
