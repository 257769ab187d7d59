package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/jobs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/starter"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/storage/storagetest"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/vision"
)

func startS3(t *testing.T) storage.S3Config {
	t.Helper()
	binary, err := storagetest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	e, err := storage.StartEmbedded(t.Context(), storage.EmbeddedConfig{Dir: t.TempDir(), Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e.Config
}

// openService opens a service on a catalogue and a bucket, without starting it.
func openService(ctx context.Context, catalogue string, c storage.S3Config) (*Service, error) {
	objs, err := storage.OpenS3(ctx, c)
	if err != nil {
		return nil, err
	}
	catalog, err := storage.OpenCatalog(ctx, catalogue)
	if err != nil {
		return nil, err
	}
	s := &Service{Catalog: catalog, Objects: objs, Tool: "test", Silence: time.Second}
	s.Models = tuning.NewModels(func(ctx context.Context, name string) (string, string, error) {
		b, err := catalog.Bundle(ctx, name)
		return b.Dir, b.Digest, err
	}, ort.Options{})
	return s, s.Open(ctx, jobs.Options{Watch: 100 * time.Millisecond})
}

// prepare adds the starter and a data set.
func prepare(t *testing.T, s *Service) {
	t.Helper()
	addBundle(t, s, "starter", "../../starter/bundle")
	upload(t, s, "openmoji")
}

// addBundle puts a bundle into the catalogue.
func addBundle(t *testing.T, s *Service, name, dir string) *bundle.Bundle {
	t.Helper()
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Catalog.PutBundle(t.Context(), storage.Bundle{Name: name, Digest: b.Digest, Dir: b.Dir, Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return b
}

// upload adds a data set of the demo.
func upload(t *testing.T, s *Service, name string) {
	t.Helper()
	zip, err := starter.Demo.ReadFile("demo/" + name + ".zip")
	if err != nil {
		t.Fatal(err)
	}
	key := "uploads/" + name + ".zip"
	if _, err := s.Objects.Put(t.Context(), key, bytes.NewReader(zip), int64(len(zip)), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	v, err := dataset.ImportZip(t.Context(), s.Objects, key, dataset.ImportOptions{ID: name, Check: check})
	if err != nil {
		t.Fatal(err)
	}
	row := storage.DatasetVersion{Name: v.ID, Version: v.Digest, Images: len(v.Items), Classes: len(v.Classes), Created: time.Now()}
	if err := s.Catalog.AddVersion(t.Context(), row); err != nil {
		t.Fatal(err)
	}
}

func check(_ context.Context, b []byte) (width, height int, err error) {
	img, err := vision.Decode(bytes.NewReader(b), vision.Limits{})
	if err != nil {
		return 0, 0, err
	}
	return img.Bounds().Dx(), img.Bounds().Dy(), nil
}

func newService(t *testing.T) *Service {
	t.Helper()
	s, err := openService(t.Context(), filepath.Join(t.TempDir(), "catalogue.db"), startS3(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Models.Close()
		s.Catalog.Close()
	})
	prepare(t, s)
	return s
}

func spec(t *testing.T, recipe string, epochs int) Spec {
	t.Helper()
	r, err := tuning.BuiltIn(recipe)
	if err != nil {
		t.Fatal(err)
	}
	if r.Batch > 0 {
		r.Schedule, r.Batch, r.Views = tuning.Schedule{Epochs: epochs}, 22, 1
	}
	return Spec{Dataset: "openmoji", Bundle: "starter", Recipe: r, Shots: 2, Seed: 1, Prompt: "p"}
}

func start(t *testing.T, s *Service) {
	t.Helper()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
}

func create(t *testing.T, s *Service, sp Spec) storage.Run {
	t.Helper()
	r, err := s.Create(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wait(t *testing.T, s *Service, id string) storage.Run {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		r, err := s.Catalog.Run(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if r.Ended() {
			return r
		}
	}
	t.Fatalf("run %s does not end", id)
	return storage.Run{}
}

// stored reads the prompt that a run stored under a name, and its row.
func stored(t *testing.T, s *Service, name string) (storage.Prompt, *prompt.Prompt) {
	t.Helper()
	row, err := s.Catalog.Prompt(t.Context(), name, 0)
	if err != nil {
		t.Fatal(err)
	}
	body, _, err := s.Objects.Get(t.Context(), row.Object)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	p, err := prompt.ReadBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return row, p
}

func TestARunEndsInAPrompt(t *testing.T) {
	s := newService(t)
	s.SliceSteps = 2
	start(t, s)
	sp := spec(t, "coop", 4)
	sp.HoldOut = true
	r := wait(t, s, create(t, s, sp).ID)
	if r.State != storage.Done || r.Step != r.Steps || r.Slice < 2 {
		t.Fatalf("got %+v", r)
	}
	var m Metrics
	if err := json.Unmarshal(r.Metrics, &m); err != nil {
		t.Fatal(err)
	}
	if m.ZeroShot == nil || m.Tuned == nil || m.Tuned.Novel == nil || m.Tuned.HarmonicMean == nil || m.Tuned.Images == 0 {
		t.Fatalf("metrics %s", r.Metrics)
	}
	row, p := stored(t, s, "p")
	if d, _ := p.Digest(); d != row.Digest || p.Card.Dataset.Version == "" || p.Card.Metrics.Tuned.Accuracy != m.Tuned.Accuracy || len(p.Card.Classes) != 6 {
		t.Errorf("card %+v", p.Card)
	}
	awaitNoCheckpoints(t, s)
	events, err := s.Catalog.Events(t.Context(), r.ID, 0)
	if err != nil || events[len(events)-1].Kind != "state" || !strings.Contains(string(events[len(events)-1].Data), `"done"`) {
		t.Errorf("the last event is %s, %v", events[len(events)-1].Data, err)
	}
}

// awaitNoCheckpoints waits for the last checkpoint to go: a run has ended before it does.
func awaitNoCheckpoints(t *testing.T, s *Service) {
	t.Helper()
	var left []string
	for range 100 {
		left = nil
		for o, err := range s.Objects.List(t.Context(), "runs/") {
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, o.Key)
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("checkpoints are left: %q", left)
}

func TestZeroShotAndTheProbeAreRunsToo(t *testing.T) {
	s := newService(t)
	start(t, s)
	zero := wait(t, s, create(t, s, spec(t, "zero-shot", 0)).ID)
	if zero.State != storage.Done || zero.Prompt != "" || !strings.Contains(string(zero.Metrics), "zero_shot") {
		t.Errorf("zero-shot: %+v", zero)
	}
	probe := wait(t, s, create(t, s, spec(t, "linear-probe", 0)).ID)
	if probe.State != storage.Done || probe.Prompt != "p" {
		t.Errorf("probe: %+v", probe)
	}
}

func TestRefusals(t *testing.T) {
	s := newService(t)
	for name, c := range map[string]struct {
		change func(*Spec)
		want   errs.Kind
	}{
		"no such data set":  {func(sp *Spec) { sp.Dataset = "none" }, errs.NotFound},
		"no such version":   {func(sp *Spec) { sp.Version = "none" }, errs.NotFound},
		"no such bundle":    {func(sp *Spec) { sp.Bundle = "none" }, errs.NotFound},
		"shots below 0":     {func(sp *Spec) { sp.Shots = -1 }, errs.Invalid},
		"a path for a name": {func(sp *Spec) { sp.Prompt = "../x" }, errs.Invalid},
	} {
		sp := spec(t, "coop", 1)
		c.change(&sp)
		if _, err := s.Create(t.Context(), sp); errs.Of(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestWhatARecipeCantLearnFromOrTune: data sets and bundles are refused when a run is created, not when a worker comes to it.
func TestWhatARecipeCantLearnFromOrTune(t *testing.T) {
	s := newService(t)
	upload(t, s, "captions")
	upload(t, s, "concept")
	for _, name := range []string{"captioner", "painter"} {
		addBundle(t, s, name, "../../starter/"+name)
	}
	for name, c := range map[string]struct {
		recipe, bundle, dataset string
		holdOut                 bool
		words                   string // of the refusal; "" where it is accepted
	}{
		"classes of captions":    {"coop", "starter", "captions", false, `recipe "coop" learns to tell classes apart, and data set "captions" (captions) has 0, must be at least 2`},
		"zero-shot of captions":  {"zero-shot", "starter", "captions", false, "has 0, must be at least 2"},
		"classes of pictures":    {"maple", "starter", "concept", false, "(pictures) has 0"},
		"captions of classes":    {"caption-prefix", "captioner", "openmoji", false, `learns from captions or answers, and of image "train/`},
		"captions of pictures":   {"caption-prefix", "captioner", "concept", false, "(pictures) there are none"},
		"captions of captions":   {"caption-prefix", "captioner", "captions", false, ""},
		"a word of classes":      {"textual-inversion", "painter", "openmoji", false, ""},
		"a word of pictures":     {"textual-inversion", "painter", "concept", false, ""},
		"a captioner's classes":  {"coop", "captioner", "openmoji", false, `recipe "coop" tunes a bundle of kind dual-encoder, and "captioner" is of kind captioner`},
		"an encoder's captions":  {"caption-kv", "starter", "captions", false, `tunes a bundle of kind captioner, and "starter" is of kind dual-encoder`},
		"an encoder's word":      {"style", "starter", "concept", false, `tunes a bundle of kind diffusion, and "starter"`},
		"classes, some held out": {"coop", "starter", "openmoji", true, ""},
	} {
		sp := spec(t, "coop", 1)
		recipe, err := tuning.BuiltIn(c.recipe)
		if err != nil {
			t.Fatal(err)
		}
		sp.Recipe, sp.Bundle, sp.Dataset, sp.HoldOut = recipe, c.bundle, c.dataset, c.holdOut
		_, err = s.Create(t.Context(), sp)
		if c.words == "" && err != nil || c.words != "" && (errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: %v, want %q", name, err, c.words)
		}
	}
}

// TestVersionsThatFit goes through versions that have too little of something.
func TestVersionsThatFit(t *testing.T) {
	item := func(class int, split string, captions ...string) dataset.Item {
		return dataset.Item{Path: split, Class: class, Split: split, Captions: captions}
	}
	classes := func(n int) []dataset.Class { return make([]dataset.Class, n) }
	for name, c := range map[string]struct {
		recipe  string
		version dataset.Version
		holdOut bool
		words   string
	}{
		"one class":                 {"coop", dataset.Version{Classes: classes(1), Items: []dataset.Item{item(0, dataset.Train)}}, false, "has 1, must be at least 2"},
		"three classes, half of it": {"coop", dataset.Version{Classes: classes(3), Items: []dataset.Item{item(0, dataset.Train), item(0, dataset.Test)}}, true, "has 3 classes, must be at least 4"},
		"nothing to learn from":     {"coop", dataset.Version{Classes: classes(2), Items: []dataset.Item{item(0, dataset.Test)}}, false, "no training images"},
		"nothing to learn":          {"zero-shot", dataset.Version{Classes: classes(2), Items: []dataset.Item{item(0, dataset.Test)}}, false, ""},
		"nothing to score on":       {"coop", dataset.Version{Classes: classes(2), Items: []dataset.Item{item(0, dataset.Train)}}, false, "no test images"},
		"captions, not to score on": {"caption-prefix", dataset.Version{Items: []dataset.Item{item(dataset.NoClass, dataset.Train, "a")}}, false, "no test images"},
		"a class with captions":     {"caption-prefix", dataset.Version{Classes: classes(2), Items: []dataset.Item{item(0, dataset.Train, "a"), item(1, dataset.Test)}}, false, ""},
		"a picture to learn from":   {"textual-inversion", dataset.Version{Items: []dataset.Item{item(dataset.NoClass, dataset.Train)}}, false, ""},
	} {
		recipe, err := tuning.BuiltIn(c.recipe)
		if err != nil {
			t.Fatal(err)
		}
		err = (&Spec{Recipe: recipe, HoldOut: c.holdOut}).fits(&c.version)
		if c.words == "" && err != nil || c.words != "" && (errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: %v, want %q", name, err, c.words)
		}
	}
}

func TestARunThatCantGoOnFailsWithTheReason(t *testing.T) {
	s := newService(t)
	start(t, s)
	sp := spec(t, "coop", 2)
	sp.Recipe.Context.Tokens = 200
	r := wait(t, s, create(t, s, sp).ID)
	if r.State != storage.Failed || !strings.Contains(r.Error, "do not fit the text window") {
		t.Errorf("got %s: %s", r.State, r.Error)
	}
}

func TestCancelling(t *testing.T) {
	s := newService(t)
	started := make(chan bool, 10_000)
	s.Observe = func(string, tuning.Progress) { started <- true }
	start(t, s)
	r := create(t, s, spec(t, "vpt-deep", 500))
	<-started
	if err := s.Cancel(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	r = wait(t, s, r.ID)
	for deadline := time.Now().Add(20 * time.Second); ; { // the worker notices
		before := len(started)
		time.Sleep(1500 * time.Millisecond)
		if len(started) == before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it trains on")
		}
	}
	if r.State != storage.Cancelled {
		t.Errorf("it is %s", r.State)
	}
}

// TestALateSliceChangesNothing has a worker come back with a slice that another one committed.
func TestALateSliceChangesNothing(t *testing.T) {
	s := newService(t)
	s.SliceSteps = 1
	r := create(t, s, spec(t, "coop", 3))
	late, err := s.trainer(t.Context(), r) // takes slice 0, and sleeps
	if err != nil {
		t.Fatal(err)
	}
	if err := s.train(t.Context(), r, late.trainer); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	delete(s.warm, r.ID)
	s.mu.Unlock()
	if err := s.RunSlice(t.Context(), jobs.Slice{Run: r.ID, Number: 0}); err != nil { // another takes it
		t.Fatal(err)
	}
	before, err := s.Catalog.Run(t.Context(), r.ID)
	if err != nil || before.Slice != 1 || before.Step != 1 {
		t.Fatalf("after the first slice: %+v, %v", before, err)
	}
	if err := s.save(t.Context(), r, late); err != nil { // the first one wakes up
		t.Fatal(err)
	}
	after, err := s.Catalog.Run(t.Context(), r.ID)
	if err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("the late slice changed the run\nfrom %+v\nto   %+v, %v", before, after, err)
	}
	var keys []string
	for o := range s.Objects.List(t.Context(), "runs/") {
		keys = append(keys, o.Key)
	}
	if len(keys) != 1 || keys[0] != after.Checkpoint {
		t.Errorf("checkpoints %q, the run's is %s", keys, after.Checkpoint)
	}
	if err := s.RunSlice(t.Context(), jobs.Slice{Run: r.ID, Number: 0}); err != nil {
		t.Errorf("a stale job: %v", err)
	}
}

// The environment of a worker that the kill test starts.
const workerEnv = "FORETOKEN_TEST_WORKER"

// workerConfig is what such a worker is told.
type workerConfig struct {
	Catalogue string
	S3        storage.S3Config
	Steps     string // file that gets a line a step: the process, the step's number
	Crash     string // "during" the upload of a checkpoint, or "after" it, before the row; "" waits to be killed
	At        int    // which of its checkpoints
}

func TestMain(m *testing.M) {
	if c := os.Getenv(workerEnv); c != "" {
		if err := work(c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// work is the worker process: it works until it is killed, or the run has ended.
func work(config string) error {
	var c workerConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	ctx := context.Background()
	s, err := openService(ctx, c.Catalogue, c.S3)
	if err != nil {
		return err
	}
	steps, err := os.OpenFile(c.Steps, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.SliceSteps = killSlice
	s.Observe = func(_ string, p tuning.Progress) { fmt.Fprintln(steps, os.Getpid(), p.Step) }
	s.Objects = &crashing{Objects: s.Objects, when: c.Crash, at: c.At}
	if err := s.Start(ctx); err != nil {
		return err
	}
	for {
		runs, err := s.Catalog.Runs(ctx)
		if err != nil {
			return err
		}
		if runs[0].Ended() {
			return s.Stop(ctx)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// crashing kills its process at the upload of a checkpoint.
type crashing struct {
	storage.Objects
	when string
	at   int
	seen int
}

func (c *crashing) Put(ctx context.Context, key string, r io.Reader, size int64, o storage.PutOptions) (storage.ObjectInfo, error) {
	if !strings.HasPrefix(key, "runs/") {
		return c.Objects.Put(ctx, key, r, size, o)
	}
	c.seen++
	if c.when == "during" && c.seen == c.at {
		r = &half{r, size / 2}
	}
	info, err := c.Objects.Put(ctx, key, r, size, o)
	if c.when == "after" && c.seen == c.at {
		kill()
	}
	return info, err
}

// half kills its process after half of the bytes.
type half struct {
	io.Reader
	left int64
}

func (h *half) Read(b []byte) (int, error) {
	if h.left <= 0 {
		kill()
	}
	n, err := h.Reader.Read(b[:min(int64(len(b)), h.left)])
	h.left -= int64(n)
	return n, err
}

// kill ends this process as kill -9 does.
func kill() {
	p, _ := os.FindProcess(os.Getpid())
	p.Kill()
	select {}
}

// killSlice is the steps of a slice in the kill test.
const killSlice = 3

// TestKilledWorkers kills a run's workers six times, each after two checkpoints of its own: four
// at any moment, one during the upload of a checkpoint, one between the upload and the row. The
// run resumes where it was, computes at most a slice more for each, and ends with the same prompt.
func TestKilledWorkers(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts eight processes")
	}
	c := startS3(t)
	objs, err := storage.OpenS3(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	undisturbed, calm := killRun(t, c, objs, nil)
	kills := []workerConfig{{}, {Crash: "during", At: 3}, {}, {Crash: "after", At: 3}, {}, {}}
	disturbed, steps := killRun(t, c, objs, kills)
	if undisturbed != disturbed {
		t.Errorf("the prompts differ: %s and %s", undisturbed, disturbed)
	}
	if calm != killSteps {
		t.Errorf("undisturbed it took %d steps, want %d", calm, killSteps)
	}
	if most := calm + len(kills)*killSlice; steps > most || steps < calm {
		t.Errorf("%d steps in all, at least %d, at most %d", steps, calm, most)
	}
	t.Logf("%d steps undisturbed, %d with %d kills", calm, steps, len(kills))
}

// killSteps is the length of the run in the kill test.
const killSteps = 60

// killRun does one run, with workers that are killed, then one that is not, and returns the
// prompt's digest and the steps computed in all.
func killRun(t *testing.T, c storage.S3Config, objs storage.Objects, kills []workerConfig) (digest string, steps int) {
	t.Helper()
	dir := t.TempDir()
	catalogue, counter := filepath.Join(dir, "catalogue.db"), filepath.Join(dir, "steps")
	s, err := openService(t.Context(), catalogue, c)
	if err != nil {
		t.Fatal(err)
	}
	prepare(t, s)
	id := create(t, s, spec(t, "coop", killSteps)).ID
	s.Catalog.Close() // the workers have it
	for _, k := range append(kills, workerConfig{Crash: "never"}) {
		k.Catalogue, k.S3, k.Steps = catalogue, c, counter
		runWorker(t, objs, id, k)
	}
	if s, err = openService(t.Context(), catalogue, c); err != nil {
		t.Fatal(err)
	}
	defer s.Catalog.Close()
	r, err := s.Catalog.Run(t.Context(), id)
	if err != nil || r.State != storage.Done {
		t.Fatalf("%s: %s, %v", r.State, r.Error, err)
	}
	p, err := s.Catalog.Prompt(t.Context(), "p", 0)
	if err != nil {
		t.Fatal(err)
	}
	return p.Digest, countSteps(t, counter, len(kills))
}

// countSteps counts the steps of all workers; each but the first has to resume above step 0.
func countSteps(t *testing.T, path string, kills int) (steps int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	worker, resumed := 0, 0
	for line := range strings.Lines(string(b)) {
		var pid, step int
		if _, err := fmt.Sscan(line, &pid, &step); err != nil {
			t.Fatal(line, err)
		}
		if pid != worker && worker != 0 && step > 1 {
			resumed++
			t.Logf("a worker resumes after step %d", step-1)
		}
		worker = pid
		steps++
	}
	if resumed != kills {
		t.Errorf("%d workers resumed above step 0, want one after each of %d kills", resumed, kills)
	}
	return steps
}

// runWorker starts a worker process and, where it does not crash by itself, kills it after two
// checkpoints; one that never crashes ends with the run.
func runWorker(t *testing.T, objs storage.Objects, id string, k workerConfig) {
	t.Helper()
	config, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := exec.CommandContext(t.Context(), os.Args[0])
	w.Env = append(os.Environ(), workerEnv+"="+string(config))
	w.Stdout, w.Stderr = &out, &out
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	if k.Crash == "" {
		awaitSlices(t, objs, id, 2)
		w.Process.Kill()
	}
	err = w.Wait()
	if k.Crash == "never" {
		if err != nil {
			t.Fatalf("worker: %v\n%s", err, out.String())
		}
		return
	}
	if state := w.ProcessState.String(); state != "signal: killed" {
		t.Fatalf("the worker was to be killed, it ended with %s\n%s", state, out.String())
	}
}

// awaitSlices waits until a run's checkpoint is so many slices further. It looks at the object
// store, since the worker has the catalogue.
func awaitSlices(t *testing.T, objs storage.Objects, id string, slices int) {
	t.Helper()
	first := newest(t, objs, id)
	for deadline := time.Now().Add(2 * time.Minute); newest(t, objs, id) < first+slices; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no checkpoints come")
		}
	}
}

// newest is the number of the slice with the last checkpoint, -1 without any.
func newest(t *testing.T, objs storage.Objects, id string) int {
	t.Helper()
	last := -1
	prefix := "runs/" + id + "/checkpoint-"
	for o, err := range objs.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(o.Key, prefix), "-")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		last = max(last, n)
	}
	return last
}
