// Package jobs runs the slices of runs on River, over the catalogue's own SQLite connection, so
// that a slice is enqueued in the transaction that commits the one before it. What a slice does,
// and what becomes of a run, is the caller's.
package jobs

import (
	"context"
	"database/sql"
	"io"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

// Slice is a short part of a run; it is the job's arguments.
type Slice struct {
	Run    string `json:"run"`
	Number int    `json:"number"`
}

// Kind names the job for River.
func (Slice) Kind() string { return "slice" }

// Handler is what the queue calls. Both must be safe for concurrent use.
type Handler interface {
	// RunSlice does a slice and records what came of it, errors of the run's own included. An
	// error is logged and the slice left to Silent.
	RunSlice(ctx context.Context, s Slice) error
	// Silent lists the slices to come of runs without a sign of life: nobody works on them. The
	// queue takes up again those that do not wait in it anyway.
	Silent(ctx context.Context) ([]Slice, error)
}

// Options are the queue's settings. Zero fields mean the defaults.
type Options struct {
	Workers int           // slices at once: default 1, since one uses every core
	Timeout time.Duration // of a slice: default 30 minutes
	Watch   time.Duration // between looks for silent runs: default 1 s
	Log     io.Writer     // default nowhere
}

func (o Options) withDefaults() Options {
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Minute
	}
	if o.Watch == 0 {
		o.Watch = time.Second
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	return o
}

// Queue enqueues slices and, once started, works on them.
type Queue struct {
	options Options
	db      *sql.DB
	client  *river.Client[*sql.Tx]
	handler Handler
	stop    context.CancelFunc
	watched chan struct{}
	log     *slog.Logger
}

// attempts is how often River tries a job: once. A slice whose worker died is enqueued anew.
const attempts = 1

// Open prepares the queue's tables in db and the queue on them.
func Open(ctx context.Context, db *sql.DB, handler Handler, o Options) (*Queue, error) {
	o = o.withDefaults()
	driver := riversqlite.New(db)
	log := slog.New(slog.NewTextHandler(o.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: log})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	q := &Queue{options: o, db: db, handler: handler, log: log}
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{queue: q})
	q.client, err = river.NewClient(driver, &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: o.Workers}},
		Workers:           workers,
		JobTimeout:        o.Timeout,
		FetchPollInterval: 200 * time.Millisecond,
		MaxAttempts:       attempts,
		Logger:            log,
	})
	return q, err
}

// Enqueue adds a slice in a transaction.
func (q *Queue) Enqueue(ctx context.Context, tx *sql.Tx, s Slice) error {
	_, err := q.client.InsertTx(ctx, tx, s, nil)
	return err
}

// Start begins to work, and to watch for silent runs, until Stop.
func (q *Queue) Start(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if err := q.client.Start(ctx); err != nil {
		return err
	}
	ctx, q.stop = context.WithCancel(ctx)
	q.watched = make(chan struct{})
	go q.watch(ctx)
	return nil
}

// Stop cancels what is under way and waits for it, until ctx ends.
func (q *Queue) Stop(ctx context.Context) error {
	q.stop()
	<-q.watched
	return q.client.StopAndCancel(ctx)
}

func (q *Queue) watch(ctx context.Context) {
	defer close(q.watched)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(q.options.Watch):
		}
		if err := q.retake(ctx); err != nil && ctx.Err() == nil {
			q.log.Warn("looking for silent runs", "error", err)
		}
	}
}

func (q *Queue) retake(ctx context.Context) error {
	silent, err := q.handler.Silent(ctx)
	if err != nil {
		return err
	}
	for _, s := range silent {
		waiting, err := q.waiting(ctx, s)
		if err != nil {
			return err
		}
		if waiting {
			continue
		}
		if _, err := q.client.Insert(ctx, s, nil); err != nil {
			return err
		}
	}
	return nil
}

// waiting says whether a slice is in the queue, not taken by any worker. (River's own unique jobs
// would count those that a dead worker had taken.)
func (q *Queue) waiting(ctx context.Context, s Slice) (found bool, err error) {
	err = q.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM river_job WHERE kind = ? AND state IN ('available', 'scheduled', 'pending')
		AND json_extract(args, '$.run') = ? AND json_extract(args, '$.number') = ?)`, s.Kind(), s.Run, s.Number).Scan(&found)
	return found, err
}

type worker struct {
	river.WorkerDefaults[Slice]
	queue *Queue
}

func (w *worker) Work(ctx context.Context, job *river.Job[Slice]) error {
	err := w.queue.handler.RunSlice(ctx, job.Args)
	if err != nil && ctx.Err() == nil {
		w.queue.log.Warn("slice", "run", job.Args.Run, "number", job.Args.Number, "error", err)
	}
	return err
}
