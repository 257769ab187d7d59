package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/jobs"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/serving"
	"github.com/foretoken/foretoken/starter"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/tuning/run"
)

// app is the service on its stores, without HTTP.
type app struct {
	catalog  *storage.Catalog
	objects  storage.Objects
	models   *tuning.Models
	runs     *run.Service
	engine   *serving.Engine
	registry *prometheus.Registry
	close    []func()
}

// openApp opens the stores in a data folder, which no other process may have open: object store,
// catalogue, models. The starter bundles are added where they are missing.
func openApp(ctx context.Context, dir string, log io.Writer) (a *app, err error) {
	a = &app{registry: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if err := a.lock(dir); err != nil {
		return a, err
	}
	if a.objects, err = a.openObjects(ctx, filepath.Join(dir, "s3"), log); err != nil {
		return a, err
	}
	if a.catalog, err = storage.OpenCatalog(ctx, filepath.Join(dir, "catalogue.db")); err != nil {
		return a, err
	}
	a.close = append(a.close, func() { a.catalog.Close() })
	device, err := ort.ProviderFromEnv()
	if err != nil {
		return a, err
	}
	a.models = tuning.NewModels(func(ctx context.Context, name string) (string, string, error) {
		b, err := a.catalog.Bundle(ctx, name)
		return b.Dir, b.Digest, err
	}, ort.Options{Provider: device})
	a.close = append(a.close, a.models.Close)
	if err := a.addStarters(ctx, filepath.Join(dir, "bundles")); err != nil {
		return a, err
	}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.engine = serving.New(a.catalog, a.objects, a.models, a.registry)
	a.close = append(a.close, a.engine.Close)
	steps := prometheus.NewCounter(prometheus.CounterOpts{Name: "foretoken_tuning_steps_total", Help: "Steps of all runs."})
	a.registry.MustRegister(steps)
	a.runs = &run.Service{
		Catalog: a.catalog, Objects: a.objects, Models: a.models, Tool: "foretoken " + version,
		Observe: func(string, tuning.Progress) { steps.Inc() },
	}
	return a, a.runs.Open(ctx, jobs.Options{Log: log})
}

// work starts the queue's worker.
func (a *app) work(ctx context.Context) error {
	if err := a.runs.Start(ctx); err != nil {
		return err
	}
	a.close = append(a.close, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = a.runs.Stop(ctx) // a slice that does not stop is done again
	})
	return nil
}

// Close ends everything, the last opened first.
func (a *app) Close() {
	for i := len(a.close) - 1; i >= 0; i-- {
		a.close[i]()
	}
}

// lock takes the data folder: two processes never open one SQLite file.
func (a *app) lock(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return errs.New(errs.Conflict, "the data folder %s is in use by another foretoken: talk to that one (FORETOKEN_URL), end it, or name another folder with --data", dir)
	}
	a.close = append(a.close, func() { f.Close() })
	return nil
}

// openObjects opens the S3 service that the AWS variables name, else the embedded one.
func (a *app) openObjects(ctx context.Context, dir string, log io.Writer) (storage.Objects, error) {
	c, configured := storage.S3ConfigFromEnv()
	if !configured {
		e, err := storage.StartEmbedded(ctx, storage.EmbeddedConfig{Dir: dir, Listen: os.Getenv("FORETOKEN_S3_LISTEN"), Log: log})
		if err != nil {
			return nil, err
		}
		a.close = append(a.close, func() { e.Close() })
		e.Config.Public = c.Public
		c = e.Config
	}
	return storage.OpenS3(ctx, c)
}

// The bundles that come with the program: two encoders, and one that makes captions and one that
// makes pictures.
const (
	starterName   = "starter"
	captionerName = "starter-captioner"
	painterName   = "starter-painter"
)

var starters = []struct {
	name, folder string
	files        fs.FS
}{
	{starterName, "bundle", starter.Bundle},
	{captionerName, "captioner", starter.Captioner},
	{painterName, "painter", starter.Painter},
}

// addStarters adds the bundles that are missing.
func (a *app) addStarters(ctx context.Context, dir string) error {
	for _, s := range starters {
		if b, err := a.catalog.Bundle(ctx, s.name); err == nil {
			if _, err := os.Stat(b.Dir); err == nil {
				continue
			}
		}
		if err := a.addStarter(ctx, dir, s.name, s.folder, s.files); err != nil {
			return err
		}
	}
	return nil
}

// addStarter writes an embedded bundle out, since the runtime reads files, and adds it. The
// folder is named by its digest, so that a newer program's starter does not replace an older one
// under a catalogue's feet.
func (a *app) addStarter(ctx context.Context, dir, name, folder string, files fs.FS) error {
	temporary := filepath.Join(dir, fmt.Sprintf(".%s-%d", name, os.Getpid()))
	defer os.RemoveAll(temporary)
	if err := extract(files, folder, temporary); err != nil {
		return err
	}
	b, err := bundle.Open(temporary)
	if err != nil {
		return err
	}
	final, err := filepath.Abs(filepath.Join(dir, name+"-"+b.Digest[:12]))
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, final); err != nil && !errors.Is(err, fs.ErrExist) && !isNotEmpty(err) {
		return err
	}
	return a.catalog.PutBundle(ctx, storage.Bundle{Name: name, Digest: b.Digest, Dir: final, Created: time.Now()})
}

func isNotEmpty(err error) bool { return errors.Is(err, syscall.ENOTEMPTY) }

// extract writes a folder of an embedded file system out.
func extract(from fs.FS, folder, to string) error {
	return fs.WalkDir(from, folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		b, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o644)
	})
}
