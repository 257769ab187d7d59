package jobs

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// chain is a handler whose runs have a number of slices.
type chain struct {
	queue  *Queue
	db     *sql.DB
	last   int
	done   chan struct{}
	mu     sync.Mutex
	seen   []int
	silent []Slice
	fail   func(Slice) error
}

func (c *chain) RunSlice(ctx context.Context, s Slice) error {
	c.mu.Lock()
	c.seen = append(c.seen, s.Number)
	c.mu.Unlock()
	if c.fail != nil {
		if err := c.fail(s); err != nil {
			return err
		}
	}
	if s.Number == c.last {
		close(c.done)
		return nil
	}
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := c.queue.Enqueue(ctx, tx, Slice{s.Run, s.Number + 1}); err != nil {
		return err
	}
	return tx.Commit()
}

func (c *chain) Silent(context.Context) ([]Slice, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	silent := c.silent
	c.silent = nil
	return silent, nil
}

func open(t *testing.T, c *chain) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "jobs.db")+"?_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	c.db, c.done = db, make(chan struct{})
	if c.queue, err = Open(t.Context(), db, c, Options{Watch: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if err := c.queue.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.queue.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		db.Close()
	})
}

func (c *chain) enqueue(t *testing.T, s Slice, commit bool) {
	t.Helper()
	tx, err := c.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := c.queue.Enqueue(t.Context(), tx, s); err != nil {
		t.Fatal(err)
	}
	if commit {
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *chain) wait(t *testing.T) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("the chain did not end: slices %v", c.numbers())
	}
}

func (c *chain) numbers() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int(nil), c.seen...)
}

func TestSlicesFollowEachOther(t *testing.T) {
	c := &chain{last: 4}
	open(t, c)
	c.enqueue(t, Slice{"r", 9}, false) // rolled back: never runs
	c.enqueue(t, Slice{"r", 0}, true)
	c.wait(t)
	for i, n := range c.numbers() {
		if n != i {
			t.Fatalf("slices %v, want 0 to 4", c.numbers())
		}
	}
}

func TestASilentSliceIsTakenUpAgain(t *testing.T) {
	c := &chain{last: 1}
	failed := false
	c.fail = func(s Slice) error {
		if s.Number == 1 && !failed {
			failed = true
			c.mu.Lock()
			c.silent = []Slice{s}
			c.mu.Unlock()
			panic("worker died")
		}
		return nil
	}
	open(t, c)
	c.enqueue(t, Slice{"r", 0}, true)
	c.wait(t)
	if got := c.numbers(); len(got) != 3 || got[2] != 1 {
		t.Errorf("slices %v, want 0, 1, 1", got)
	}
}

// TestASliceThatWaitsIsNotEnqueuedTwice has one worker busy while another run's slice waits.
func TestASliceThatWaitsIsNotEnqueuedTwice(t *testing.T) {
	c := &chain{last: 1}
	release := make(chan struct{})
	c.fail = func(s Slice) error {
		if s.Run == "long" {
			<-release
			return errors.New("over")
		}
		return nil
	}
	open(t, c)
	c.enqueue(t, Slice{"long", 7}, true)
	c.enqueue(t, Slice{"r", 1}, true)
	for range 5 {
		c.mu.Lock()
		c.silent = []Slice{{"r", 1}}
		c.mu.Unlock()
		time.Sleep(60 * time.Millisecond)
	}
	close(release)
	c.wait(t)
	time.Sleep(500 * time.Millisecond)
	if got := c.numbers(); len(got) != 2 {
		t.Errorf("slices %v, want 7 and 1", got)
	}
}

func TestAFailedSliceIsNotTriedByItself(t *testing.T) {
	c := &chain{last: 9}
	c.fail = func(Slice) error { return errors.New("no") }
	open(t, c)
	c.enqueue(t, Slice{"r", 0}, true)
	time.Sleep(time.Second)
	if got := c.numbers(); len(got) != 1 {
		t.Errorf("slices %v, want one", got)
	}
}
