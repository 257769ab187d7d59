package api

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/internal/jobs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/serving"
	"github.com/foretoken/foretoken/starter"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/storage/storagetest"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/tuning/run"
)

// service is the whole service on real stores, as one test sees it.
type service struct {
	*httptest.Server
	Config
	key  string
	logs *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts a service with the starter bundle. change may set limits.
func start(t *testing.T, change func(*Config)) *service {
	t.Helper()
	ctx := context.Background()
	binary := must(storagetest.Binary())(t)
	s3 := must(storage.StartEmbedded(ctx, storage.EmbeddedConfig{Dir: t.TempDir(), Binary: binary}))(t)
	objs := must(storage.OpenS3(ctx, s3.Config))(t)
	catalog := must(storage.OpenCatalog(ctx, filepath.Join(t.TempDir(), "catalogue.db")))(t)
	models := tuning.NewModels(func(ctx context.Context, name string) (string, string, error) {
		b, err := catalog.Bundle(ctx, name)
		return b.Dir, b.Digest, err
	}, ort.Options{})
	b := must(bundle.Open("../starter/bundle"))(t)
	check(t, catalog.PutBundle(ctx, storage.Bundle{Name: "starter", Digest: b.Digest, Dir: b.Dir, Created: time.Now()}))
	registry := prometheus.NewRegistry()
	engine := serving.New(catalog, objs, models, registry)
	runs := &run.Service{Catalog: catalog, Objects: objs, Models: models, Tool: "test"}
	check(t, runs.Open(ctx, jobs.Options{}))
	check(t, runs.Start(ctx))
	_, key, err := NewKey(ctx, catalog, "test")
	check(t, err)
	s := &service{key: key, logs: &lockedBuffer{}}
	s.Config = Config{Catalog: catalog, Objects: objs, Models: models, Runs: runs, Engine: engine, Registry: registry, Version: "test", Log: s.logs}
	if change != nil {
		change(&s.Config)
	}
	s.Server = httptest.NewServer(New(s.Config))
	t.Cleanup(func() {
		s.Server.Close()
		check(t, runs.Stop(ctx))
		engine.Close()
		models.Close()
		catalog.Close()
		s3.Close()
	})
	return s
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// send makes a request with the key and returns status and body.
func (s *service) send(t *testing.T, method, path, contentType string, body io.Reader) (int, []byte) {
	t.Helper()
	r := must(http.NewRequestWithContext(t.Context(), method, s.URL+path, body))(t)
	r.Header.Set("Authorization", "Bearer "+s.key)
	r.Header.Set("Content-Type", contentType)
	answer := must(http.DefaultClient.Do(r))(t)
	defer answer.Body.Close()
	return answer.StatusCode, must(io.ReadAll(answer.Body))(t)
}

// post sends v as JSON and reads the answer, which has to have the status.
func (s *service) post(t *testing.T, path string, v any, status int, into any) {
	t.Helper()
	got, b := s.send(t, "POST", path, "application/json", bytes.NewReader(must(json.Marshal(v))(t)))
	if got != status {
		t.Fatalf("POST %s: %d %s", path, got, b)
	}
	if into != nil {
		check(t, json.Unmarshal(b, into))
	}
}

func (s *service) get(t *testing.T, path string, into any) {
	t.Helper()
	status, b := s.send(t, "GET", path, "", nil)
	if status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, status, b)
	}
	check(t, json.Unmarshal(b, into))
}

// demoZip is a zip of the first images of each class of a demo set.
func demoZip(t *testing.T, set string, train, test int) []byte {
	t.Helper()
	file := must(starter.Demo.ReadFile("demo/" + set + ".zip"))(t)
	from := must(zip.NewReader(bytes.NewReader(file), int64(len(file))))(t)
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	taken := map[string]int{}
	for _, f := range from.File {
		folder := filepath.Dir(f.Name)
		limit := train
		if strings.HasPrefix(folder, "test/") {
			limit = test
		}
		if taken[folder]++; taken[folder] > limit {
			continue
		}
		check(t, z.Copy(f))
	}
	check(t, z.Close())
	return out.Bytes()
}

// captionedZip is a zip of the first pictures of each split of the demo's captions.
func captionedZip(t *testing.T, train, test int) []byte {
	t.Helper()
	file := must(starter.Demo.ReadFile("demo/captions.zip"))(t)
	from := must(zip.NewReader(bytes.NewReader(file), int64(len(file))))(t)
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for split, n := range map[string]int{"train": train, "test": test} {
		if n == 0 {
			continue
		}
		const texts = "/metadata.jsonl"
		lines := strings.SplitAfter(string(must(fs.ReadFile(from, split+texts))(t)), "\n")
		must(must(z.Create(split + texts))(t).Write([]byte(strings.Join(lines[:n], ""))))(t)
		for i := range n {
			name := fmt.Sprintf("%s/%03d.png", split, i)
			must(must(z.Create(name))(t).Write(must(fs.ReadFile(from, name))(t)))(t)
		}
	}
	check(t, z.Close())
	return out.Bytes()
}

func (s *service) upload(t *testing.T, name string, zip []byte) {
	t.Helper()
	if status, b := s.send(t, "POST", "/v1/datasets?name="+name, "application/zip", bytes.NewReader(zip)); status != http.StatusCreated {
		t.Fatalf("upload: %d %s", status, b)
	}
}

// quick is a recipe that takes a few steps.
func quick(t *testing.T, name string) *tuning.Recipe {
	t.Helper()
	r := must(tuning.BuiltIn(name))(t)
	if r.Batch > 0 {
		r.Schedule, r.Views = tuning.Schedule{Epochs: 2}, 1
	}
	return r
}

// tune runs a recipe to its end.
func (s *service) tune(t *testing.T, dataset, recipe, prompt string) runView {
	t.Helper()
	var r runView
	s.post(t, "/v1/runs", map[string]any{"dataset": dataset, "bundle": "starter", "recipe": quick(t, recipe), "shots": 2, "prompt": prompt}, http.StatusCreated, &r)
	for deadline := time.Now().Add(3 * time.Minute); r.State == "queued" || r.State == "running"; {
		if time.Now().After(deadline) {
			t.Fatalf("run %+v does not end", r)
		}
		time.Sleep(100 * time.Millisecond)
		s.get(t, "/v1/runs/"+r.ID, &r)
	}
	if r.State != "done" {
		t.Fatalf("run is %s: %s", r.State, r.Error)
	}
	return r
}

func sampleImage(t *testing.T, name string) []byte {
	t.Helper()
	return must(starter.Demo.ReadFile("demo/samples/" + name))(t)
}
