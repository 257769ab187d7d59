// Package run turns tuning into jobs: a run is a chain of short slices, each of which continues
// from the last checkpoint in the object store, and commits by compare-and-set. A worker that is
// killed costs at most one slice, and the prompt is the same.
package run

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/jobs"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/tuning"
)

// Spec is what a run is asked to do.
type Spec struct {
	Dataset string         `json:"dataset"`
	Version string         `json:"version"` // digest; "" is the latest
	Bundle  string         `json:"bundle"`
	Recipe  *tuning.Recipe `json:"recipe"`
	Shots   int            `json:"shots"` // training images a class; 0 is all
	// HoldOut tunes on the first half of the classes, and scores on both halves.
	HoldOut bool   `json:"hold_out"`
	Prompt  string `json:"prompt"` // name of the result; "" is DATASET-RECIPE
	Seed    uint64 `json:"seed"`   // draws the shots
}

// Service creates runs and does their slices. It is safe for concurrent use.
type Service struct {
	Catalog *storage.Catalog
	Objects storage.Objects
	Models  *tuning.Models
	Tool    string        // the program's version, for cards
	Slice   time.Duration // how long a slice trains: default 30 s
	Silence time.Duration // without a heartbeat, after which a slice is taken over: default 5 s
	// SliceSteps ends a slice early, after so many steps; 0 does not.
	SliceSteps int
	// Observe, where it is set, is told of every step.
	Observe func(run string, p tuning.Progress)

	queue *jobs.Queue
	mu    sync.Mutex
	warm  map[string]*warm // runs whose trainer is in memory
}

// warm is a run's trainer after the slices done so far.
type warm struct {
	slice   int // that follows
	spec    Spec
	trainer Trainer
}

// Open prepares the service's queue. The exported fields must be set.
func (s *Service) Open(ctx context.Context, o jobs.Options) (err error) {
	if s.Slice == 0 {
		s.Slice = 30 * time.Second
	}
	if s.Silence == 0 {
		s.Silence = 5 * time.Second
	}
	s.warm = map[string]*warm{}
	s.queue, err = jobs.Open(ctx, s.Catalog.DB(), s, o)
	return err
}

// Start begins to work on slices.
func (s *Service) Start(ctx context.Context) error { return s.queue.Start(ctx) }

// Stop cancels the slice under way: it is done again later, from its start.
func (s *Service) Stop(ctx context.Context) error { return s.queue.Stop(ctx) }

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// checkName refuses a prompt's name that could not stand in an address.
func checkName(name string) error {
	if validName.MatchString(name) {
		return nil
	}
	return errs.New(errs.Invalid, "prompt name %.120q: must be 1 to 100 letters, digits, dots, dashes or underscores", name)
}

// Create checks a spec against its bundle and its data set, resolves its version and name, and enqueues the run.
func (s *Service) Create(ctx context.Context, spec Spec) (storage.Run, error) {
	var none storage.Run
	row, err := s.Catalog.Version(ctx, spec.Dataset, spec.Version)
	if err != nil {
		return none, err
	}
	model, err := s.Catalog.Bundle(ctx, spec.Bundle)
	if err != nil {
		return none, err
	}
	kind, err := bundle.KindOf(model.Dir)
	if err != nil {
		return none, err
	}
	if err := spec.suits(kind); err != nil {
		return none, err
	}
	if spec.Shots < 0 {
		return none, errs.New(errs.Invalid, "shots is %d, must be 0 (all) or more", spec.Shots)
	}
	if spec.HoldOut && (spec.Recipe.Captions() || spec.Recipe.Inverts()) {
		return none, errs.New(errs.Invalid, "hold_out holds classes out, and a %s learns none: leave it out", spec.Recipe.Method)
	}
	v, err := dataset.Load(ctx, s.Objects, row.Name, row.Version)
	if err != nil {
		return none, err
	}
	if err := spec.fits(v); err != nil {
		return none, err
	}
	spec.Version = v.Digest
	if spec.Prompt == "" {
		spec.Prompt = spec.Dataset + "-" + spec.Recipe.Name
	}
	if err := checkName(spec.Prompt); err != nil {
		return none, err
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return none, err
	}
	r := storage.Run{ID: "run-" + strings.ToLower(rand.Text()[:12]), Spec: b, Created: time.Now()}
	err = s.Catalog.Tx(ctx, func(tx *sql.Tx) error {
		if err := s.Catalog.CreateRun(ctx, tx, r); err != nil {
			return err
		}
		return s.queue.Enqueue(ctx, tx, jobs.Slice{Run: r.ID})
	})
	if err != nil {
		return none, err
	}
	return s.Catalog.Run(ctx, r.ID)
}

// Cancel ends a run. A slice under way notices within a second.
func (s *Service) Cancel(ctx context.Context, id string) error {
	if err := s.Catalog.CancelRun(ctx, id, time.Now()); err != nil {
		return err
	}
	return s.event(ctx, id, "state", stateEvent{State: storage.Cancelled})
}

// Silent lists the slices of runs without a heartbeat.
func (s *Service) Silent(ctx context.Context) ([]jobs.Slice, error) {
	runs, err := s.Catalog.Silent(ctx, time.Now().Add(-s.Silence))
	if err != nil {
		return nil, err
	}
	var slices []jobs.Slice
	for _, r := range runs {
		slices = append(slices, jobs.Slice{Run: r.ID, Number: r.Slice})
	}
	return slices, nil
}

// stateEvent tells that a run's state changed.
type stateEvent struct {
	State  string          `json:"state"`
	Error  string          `json:"error,omitempty"`
	Prompt string          `json:"prompt,omitempty"`
	Step   int             `json:"step"`
	Metric json.RawMessage `json:"metrics,omitempty"`
}

func (s *Service) event(ctx context.Context, id, kind string, data any) error {
	e, err := newEvent(kind, data)
	if err != nil {
		return err
	}
	return s.Catalog.AddEvents(ctx, id, e)
}

func newEvent(kind string, data any) (storage.RunEvent, error) {
	b, err := json.Marshal(data)
	return storage.RunEvent{Kind: kind, Data: b, At: time.Now()}, err
}

// checkpointKey is where a slice's checkpoint goes. Two workers never write the same one.
func checkpointKey(run string, slice int) string {
	return fmt.Sprintf("runs/%s/checkpoint-%06d-%s", run, slice, strings.ToLower(rand.Text()[:8]))
}
