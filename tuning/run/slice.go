package run

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/jobs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/tuning"
)

// RunSlice does one slice of a run: where it is still the run's next one, train from the last
// checkpoint for a while, store the checkpoint, then commit. An error of the run's own ends it
// as failed; one of the surroundings leaves the slice to be taken over.
func (s *Service) RunSlice(ctx context.Context, slice jobs.Slice) error {
	r, err := s.Catalog.Run(ctx, slice.Run)
	if err != nil {
		return err
	}
	mine, err := s.Catalog.Beat(ctx, r.ID, slice.Number, time.Now())
	if err != nil || !mine {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go s.beat(ctx, cancel, slice)
	err = s.attempt(ctx, r)
	if err == nil {
		return nil
	}
	s.forget(r.ID)
	if ctx.Err() != nil || errs.Of(err) == errs.Unavailable || errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return s.fail(context.WithoutCancel(ctx), r, err)
}

// beat tells, every fifth of the silence that others wait for, that the slice is worked on, and
// gives up when it is no longer this worker's.
func (s *Service) beat(ctx context.Context, cancel context.CancelFunc, slice jobs.Slice) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.Silence / 5):
		}
		if mine, err := s.Catalog.Beat(ctx, slice.Run, slice.Number, time.Now()); err == nil && !mine {
			cancel()
			return
		}
	}
}

// attempt does the slice. A panic is an error of the run.
func (s *Service) attempt(ctx context.Context, r storage.Run) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "run %s: panic: %v\n%s", r.ID, p, debug.Stack())
		}
	}()
	w, err := s.trainer(ctx, r)
	if err != nil {
		return err
	}
	if err := s.event(ctx, r.ID, "state", stateEvent{State: storage.Running, Step: w.trainer.Step()}); err != nil {
		return err
	}
	if err := s.train(ctx, r, w.trainer); err != nil {
		return err
	}
	if w.trainer.Done() {
		return s.finish(ctx, r, w)
	}
	return s.save(ctx, r, w)
}

// trainer returns the run's trainer as the last slice left it: warm from memory, else restored
// from the checkpoint.
func (s *Service) trainer(ctx context.Context, r storage.Run) (*warm, error) {
	s.mu.Lock()
	w := s.warm[r.ID]
	s.mu.Unlock()
	if w != nil && w.slice == r.Slice {
		return w, nil
	}
	s.forget(r.ID)
	w = &warm{slice: r.Slice}
	if err := json.Unmarshal(r.Spec, &w.spec); err != nil {
		return nil, errs.New(errs.Invalid, "run %s: spec: %w", r.ID, err)
	}
	t, err := s.newTrainer(ctx, w.spec)
	if err != nil {
		return nil, err
	}
	if r.Checkpoint != "" {
		if err := s.restore(ctx, t, r.Checkpoint); err != nil {
			t.Close()
			return nil, err
		}
	}
	w.trainer = t
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warm[r.ID] = w
	return w, nil
}

func (s *Service) restore(ctx context.Context, t Trainer, key string) error {
	body, _, err := s.Objects.Get(ctx, key)
	if err != nil {
		return err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return t.Restore(b)
}

// forget drops a run's trainer from memory.
func (s *Service) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.warm[id]; w != nil {
		w.trainer.Close()
		delete(s.warm, id)
	}
}

// eventInterval is the least time between two events of steps.
const eventInterval = 250 * time.Millisecond

// stepEvent is how training goes.
type stepEvent struct {
	tuning.Progress
	SecondsLeft float64 `json:"seconds_left"`
}

// train does steps, at least one, until the slice's time or steps are up or all are done.
func (s *Service) train(ctx context.Context, r storage.Run, t Trainer) error {
	start, first := time.Now(), t.Step()
	var told time.Time
	for !t.Done() && (t.Step() == first || time.Since(start) < s.Slice && (s.SliceSteps == 0 || t.Step()-first < s.SliceSteps)) {
		p, err := t.Next(ctx)
		if err != nil {
			return err
		}
		if s.Observe != nil {
			s.Observe(r.ID, p)
		}
		if time.Since(told) < eventInterval && !t.Done() {
			continue
		}
		told = time.Now()
		left := time.Since(start).Seconds() / float64(t.Step()-first) * float64(t.Steps()-t.Step())
		if err := s.event(ctx, r.ID, "step", stepEvent{p, left}); err != nil {
			return err
		}
	}
	return nil
}

// save stores the checkpoint, then commits the slice and enqueues the next one in one
// transaction, then deletes the checkpoint before.
func (s *Service) save(ctx context.Context, r storage.Run, w *warm) error {
	b, err := w.trainer.Checkpoint()
	if err != nil {
		return err
	}
	key := checkpointKey(r.ID, r.Slice)
	if _, err := s.Objects.Put(ctx, key, bytes.NewReader(b), int64(len(b)), storage.PutOptions{}); err != nil {
		return err
	}
	result := storage.SliceResult{State: storage.Running, Step: w.trainer.Step(), Steps: w.trainer.Steps(), Checkpoint: key}
	committed, err := s.commit(ctx, r, result, func(tx *sql.Tx) error {
		return s.queue.Enqueue(ctx, tx, jobs.Slice{Run: r.ID, Number: r.Slice + 1})
	})
	if err != nil {
		return err
	}
	if !committed { // another worker was first: what it made of the slice is the same
		s.forget(r.ID)
		return s.discard(ctx, key)
	}
	w.slice = r.Slice + 1
	if r.Checkpoint != "" {
		return s.discard(ctx, r.Checkpoint)
	}
	return nil
}

// discard deletes a checkpoint that nothing names any more. The slice is committed by then, so its heartbeat may end its
// context at any moment: that doesn't end the deleting.
func (s *Service) discard(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return s.Objects.Delete(ctx, key)
}

// commit takes over a slice's result, and calls more in the same transaction.
func (s *Service) commit(ctx context.Context, r storage.Run, result storage.SliceResult, more func(tx *sql.Tx) error) (committed bool, err error) {
	err = s.Catalog.Tx(ctx, func(tx *sql.Tx) error {
		committed, err = s.Catalog.CommitSlice(ctx, tx, r.ID, r.Slice, result, time.Now())
		if err != nil || !committed || more == nil {
			return err
		}
		return more(tx)
	})
	return committed && err == nil, err
}

// fail ends a run with an error.
func (s *Service) fail(ctx context.Context, r storage.Run, cause error) error {
	result := storage.SliceResult{State: storage.Failed, Step: r.Step, Steps: r.Steps, Checkpoint: r.Checkpoint, Error: cause.Error()}
	_, err := s.commit(ctx, r, result, func(tx *sql.Tx) error {
		return s.eventTx(ctx, tx, r.ID, stateEvent{State: storage.Failed, Error: cause.Error(), Step: r.Step})
	})
	return err
}

func (s *Service) eventTx(ctx context.Context, tx *sql.Tx, id string, data stateEvent) error {
	e, err := newEvent("state", data)
	if err != nil {
		return err
	}
	return s.Catalog.AddEventsTx(ctx, tx, id, e)
}

// finish scores the prompt, stores its file, and names it in the transaction that ends the run.
func (s *Service) finish(ctx context.Context, r storage.Run, w *warm) error {
	defer s.forget(r.ID)
	p, metrics, err := w.trainer.Finish(ctx)
	if err != nil {
		return err
	}
	b, err := json.Marshal(metrics)
	if err != nil {
		return err
	}
	result := storage.SliceResult{State: storage.Done, Step: w.trainer.Step(), Steps: w.trainer.Steps(), Metrics: b}
	end := stateEvent{State: storage.Done, Step: w.trainer.Step(), Metric: b}
	var row storage.Prompt
	if p != nil {
		p.Card.Tool = s.Tool
		if row, err = StorePrompt(ctx, s.Objects, w.spec.Prompt, r.ID, p); err != nil {
			return err
		}
		row.Bundle = w.spec.Bundle
		result.Prompt, end.Prompt = row.Name, row.Name
	}
	_, err = s.commit(ctx, r, result, func(tx *sql.Tx) error {
		if row.Name != "" {
			if _, err := s.Catalog.AddPrompt(ctx, tx, row); err != nil {
				return err
			}
		}
		return s.eventTx(ctx, tx, r.ID, end)
	})
	if err != nil || r.Checkpoint == "" {
		return err
	}
	return s.discard(ctx, r.Checkpoint)
}

// StorePrompt stores the prompt's file under its digest, and returns the row that will name it once
// [storage.Catalog.AddPrompt] has it. Run is empty where no run made it. A name that can't be one is
// of kind [errs.Invalid].
func StorePrompt(ctx context.Context, objs storage.Objects, name, run string, p *prompt.Prompt) (storage.Prompt, error) {
	if err := checkName(name); err != nil {
		return storage.Prompt{}, err
	}
	var file bytes.Buffer
	if err := prompt.Write(&file, p); err != nil {
		return storage.Prompt{}, err
	}
	digest, err := p.Digest()
	if err != nil {
		return storage.Prompt{}, err
	}
	card, err := json.Marshal(p.Card)
	if err != nil {
		return storage.Prompt{}, err
	}
	row := storage.Prompt{
		Name: name, Digest: digest, Bundle: p.Card.Bundle.Name, Run: run,
		Object: fmt.Sprintf("prompts/%s/%s.safetensors", name, digest), Size: int64(file.Len()), Card: card, Created: time.Now(),
	}
	_, err = objs.Put(ctx, row.Object, &file, row.Size, storage.PutOptions{ContentType: "application/octet-stream"})
	return row, err
}
