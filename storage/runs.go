package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
)

// The states of a run. Queued and running runs have a slice that is enqueued or under way.
const (
	Queued    = "queued"
	Running   = "running"
	Done      = "done"
	Failed    = "failed"
	Cancelled = "cancelled"
)

// Run is one tuning job.
type Run struct {
	ID         string
	Spec       json.RawMessage // what was asked for
	State      string
	Slice      int // the number of the slice to come
	Step       int
	Steps      int
	Checkpoint string // object key of the last one, "" before the first
	Heartbeat  time.Time
	Error      string
	Prompt     string
	Metrics    json.RawMessage
	Created    time.Time
	Updated    time.Time
}

// Ended says whether nothing more will happen to the run.
func (r Run) Ended() bool { return r.State == Done || r.State == Failed || r.State == Cancelled }

const runColumns = `SELECT id, spec, state, slice, step, steps, checkpoint, heartbeat, error, prompt, metrics, created, updated FROM runs`

func scanRun(row scanner) (r Run, err error) {
	var spec, metrics string
	var heartbeat, created, updated int64
	err = row.Scan(&r.ID, &spec, &r.State, &r.Slice, &r.Step, &r.Steps, &r.Checkpoint, &heartbeat, &r.Error, &r.Prompt, &metrics, &created, &updated)
	r.Spec, r.Metrics = json.RawMessage(spec), json.RawMessage(metrics)
	r.Heartbeat, r.Created, r.Updated = time.UnixMilli(heartbeat).UTC(), time.UnixMilli(created).UTC(), time.UnixMilli(updated).UTC()
	return r, err
}

// CreateRun adds a queued run, in the transaction that enqueues its first slice.
func (c *Catalog) CreateRun(ctx context.Context, tx *sql.Tx, r Run) error {
	now := r.Created.UnixMilli()
	_, err := tx.ExecContext(ctx, "INSERT INTO runs (id, spec, state, heartbeat, created, updated) VALUES (?, ?, ?, ?, ?, ?)",
		r.ID, string(r.Spec), Queued, now, now, now)
	return conflict(err, "run %q", r.ID)
}

// Run finds a run.
func (c *Catalog) Run(ctx context.Context, id string) (Run, error) {
	return one(ctx, c.db, scanRun, fmt.Sprintf("run %q", id), runColumns+" WHERE id = ?", id)
}

// Runs lists all runs, the newest first.
func (c *Catalog) Runs(ctx context.Context) ([]Run, error) {
	return all(ctx, c.db, scanRun, runColumns+" ORDER BY created DESC, id")
}

// Beat tells that slice n of a run is being worked on. It is false where the slice is no longer
// the run's next one, or the run has ended.
func (c *Catalog) Beat(ctx context.Context, id string, slice int, now time.Time) (bool, error) {
	return hit(c.db.ExecContext(ctx, "UPDATE runs SET heartbeat = ?, state = 'running' WHERE id = ? AND slice = ? AND state IN ('queued', 'running')",
		now.UnixMilli(), id, slice))
}

// Silent lists the runs that are under way but have had no heartbeat since a time.
func (c *Catalog) Silent(ctx context.Context, since time.Time) ([]Run, error) {
	return all(ctx, c.db, scanRun, runColumns+" WHERE state IN ('queued', 'running') AND heartbeat < ? ORDER BY id", since.UnixMilli())
}

// SliceResult is what a slice came to.
type SliceResult struct {
	State      string // Running where more slices follow, else Done or Failed
	Step       int
	Steps      int
	Checkpoint string
	Error      string
	Prompt     string
	Metrics    json.RawMessage // nil leaves what is there
}

// CommitSlice takes over what slice n came to, by compare-and-set on the slice's number: false,
// and nothing changed, where another worker committed it first or the run was cancelled.
func (c *Catalog) CommitSlice(ctx context.Context, tx *sql.Tx, id string, slice int, r SliceResult, now time.Time) (bool, error) {
	metrics := any(nil)
	if r.Metrics != nil {
		metrics = string(r.Metrics)
	}
	return hit(tx.ExecContext(ctx, `UPDATE runs SET slice = slice + 1, state = ?, step = ?, steps = ?, checkpoint = ?, error = ?, prompt = ?,
		metrics = coalesce(?, metrics), heartbeat = ?, updated = ? WHERE id = ? AND slice = ? AND state IN ('queued', 'running')`,
		r.State, r.Step, r.Steps, r.Checkpoint, r.Error, r.Prompt, metrics, now.UnixMilli(), now.UnixMilli(), id, slice))
}

// CancelRun ends a run that has not ended.
func (c *Catalog) CancelRun(ctx context.Context, id string, now time.Time) error {
	changed, err := hit(c.db.ExecContext(ctx, "UPDATE runs SET state = 'cancelled', updated = ? WHERE id = ? AND state IN ('queued', 'running')", now.UnixMilli(), id))
	if err != nil || changed {
		return err
	}
	r, err := c.Run(ctx, id)
	if err != nil {
		return err
	}
	return errs.New(errs.Conflict, "run %q is %s already", id, r.State)
}

func hit(result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// RunEvent is something that happened in a run.
type RunEvent struct {
	Run  string
	Seq  int
	Kind string
	Data json.RawMessage
	At   time.Time
}

// AddEvents appends events to a run.
func (c *Catalog) AddEvents(ctx context.Context, run string, events ...RunEvent) error {
	return c.Tx(ctx, func(tx *sql.Tx) error { return c.AddEventsTx(ctx, tx, run, events...) })
}

// AddEventsTx is AddEvents in a transaction.
func (c *Catalog) AddEventsTx(ctx context.Context, tx *sql.Tx, run string, events ...RunEvent) error {
	for _, e := range events {
		_, err := tx.ExecContext(ctx, `INSERT INTO run_events (run, seq, kind, data, at)
			SELECT ?, coalesce(max(seq), 0) + 1, ?, ?, ? FROM run_events WHERE run = ?`, run, e.Kind, string(e.Data), e.At.UnixMilli(), run)
		if err != nil {
			return err
		}
	}
	return nil
}

// Events lists a run's events after the one numbered after.
func (c *Catalog) Events(ctx context.Context, run string, after int) ([]RunEvent, error) {
	scan := func(row scanner) (e RunEvent, err error) {
		var data string
		var at int64
		err = row.Scan(&e.Run, &e.Seq, &e.Kind, &data, &at)
		e.Data, e.At = json.RawMessage(data), time.UnixMilli(at).UTC()
		return e, err
	}
	return all(ctx, c.db, scan, "SELECT run, seq, kind, data, at FROM run_events WHERE run = ? AND seq > ? ORDER BY seq", run, after)
}

// Prompt is one revision of a tuned prompt, whose file is an object.
type Prompt struct {
	Name     string
	Revision int
	Digest   string // SHA-256 of the file
	Bundle   string // name
	Run      string // "" where it was imported
	Object   string // key
	Size     int64  // bytes
	Card     json.RawMessage
	Promoted bool
	Created  time.Time
}

const promptColumns = "SELECT name, revision, digest, bundle, run, object, size, card, promoted, created FROM prompts"

func scanPrompt(row scanner) (p Prompt, err error) {
	var card string
	var created int64
	err = row.Scan(&p.Name, &p.Revision, &p.Digest, &p.Bundle, &p.Run, &p.Object, &p.Size, &card, &p.Promoted, &created)
	p.Card, p.Created = json.RawMessage(card), time.UnixMilli(created).UTC()
	return p, err
}

// AddPrompt names a stored prompt: the next revision of its name, which it returns.
func (c *Catalog) AddPrompt(ctx context.Context, tx *sql.Tx, p Prompt) (revision int, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO prompts (name, revision, digest, bundle, run, object, size, card, created)
		SELECT ?, coalesce(max(revision), 0) + 1, ?, ?, ?, ?, ?, ?, ? FROM prompts WHERE name = ? RETURNING revision`,
		p.Name, p.Digest, p.Bundle, p.Run, p.Object, p.Size, string(p.Card), p.Created.UnixMilli(), p.Name).Scan(&revision)
	return revision, err
}

// Prompt finds a prompt; revision 0 is the promoted one, or the latest where none is.
func (c *Catalog) Prompt(ctx context.Context, name string, revision int) (Prompt, error) {
	what := fmt.Sprintf("prompt %q", name)
	if revision > 0 {
		what += fmt.Sprintf(" revision %d", revision)
	}
	return one(ctx, c.db, scanPrompt, what, promptColumns+" WHERE name = ? AND (? = 0 OR revision = ?) ORDER BY promoted DESC, revision DESC LIMIT 1", name, revision, revision)
}

// Prompts lists all revisions of all prompts, the latest of each first.
func (c *Catalog) Prompts(ctx context.Context) ([]Prompt, error) {
	return all(ctx, c.db, scanPrompt, promptColumns+" ORDER BY name, revision DESC")
}

// Promote makes a revision the one that its name stands for.
func (c *Catalog) Promote(ctx context.Context, name string, revision int) error {
	return c.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE prompts SET promoted = 0 WHERE name = ?", name); err != nil {
			return err
		}
		changed, err := hit(tx.ExecContext(ctx, "UPDATE prompts SET promoted = 1 WHERE name = ? AND revision = ?", name, revision))
		if err == nil && !changed {
			err = errs.New(errs.NotFound, "there is no prompt %q revision %d", name, revision)
		}
		return err
	})
}
