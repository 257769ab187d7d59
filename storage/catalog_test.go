package storage

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
)

var day = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func openCatalog(t *testing.T) *Catalog {
	t.Helper()
	c, err := OpenCatalog(t.Context(), filepath.Join(t.TempDir(), "a b", "catalogue.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newRun(t *testing.T, c *Catalog, id string) {
	t.Helper()
	err := c.Tx(t.Context(), func(tx *sql.Tx) error {
		return c.CreateRun(t.Context(), tx, Run{ID: id, Spec: json.RawMessage(`{}`), Created: day})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func commitSlice(t *testing.T, c *Catalog, id string, slice int, r SliceResult) bool {
	t.Helper()
	var ok bool
	err := c.Tx(t.Context(), func(tx *sql.Tx) (err error) {
		ok, err = c.CommitSlice(t.Context(), tx, id, slice, r, day)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestBundles(t *testing.T) {
	c := openCatalog(t)
	b := Bundle{Name: "starter", Digest: "d1", Dir: "/a", Created: day}
	for range 2 { // adding the same again is no error
		if err := c.PutBundle(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	b.Digest = "d2"
	if err := c.PutBundle(t.Context(), b); errs.Of(err) != errs.Conflict {
		t.Errorf("another digest under the same name: %v", err)
	}
	if got := must(c.Bundle(t.Context(), "starter"))(t); got.Digest != "d1" || !got.Created.Equal(day) {
		t.Errorf("got %+v", got)
	}
	if _, err := c.Bundle(t.Context(), "none"); errs.Of(err) != errs.NotFound || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf("a missing one: %v", err)
	}
}

func TestTheLatestVersionOfADataset(t *testing.T) {
	c := openCatalog(t)
	for i, v := range []string{"v1", "v2", "v1"} { // v1 is pushed again
		if err := c.AddVersion(t.Context(), DatasetVersion{Name: "pets", Version: v, Images: 7, Created: day.Add(time.Duration(i) * time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := must(c.Version(t.Context(), "pets", ""))(t); got.Version != "v1" || got.Images != 7 {
		t.Errorf("latest is %+v", got)
	}
	if got := must(c.Version(t.Context(), "pets", "v2"))(t); got.Version != "v2" {
		t.Errorf("got %+v", got)
	}
	if got := must(c.Versions(t.Context()))(t); len(got) != 2 {
		t.Errorf("%d versions, want 2", len(got))
	}
}

func TestASliceCommitsOnce(t *testing.T) {
	c := openCatalog(t)
	newRun(t, c, "r")
	running := SliceResult{State: Running, Step: 10, Steps: 20, Checkpoint: "k"}
	if !commitSlice(t, c, "r", 0, running) {
		t.Fatal("the first commit changed nothing")
	}
	before := must(c.Run(t.Context(), "r"))(t)
	if commitSlice(t, c, "r", 0, SliceResult{State: Done, Step: 99, Checkpoint: "late"}) {
		t.Error("a late commit of the same slice was taken")
	}
	if after := must(c.Run(t.Context(), "r"))(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("a late commit changed the run from %+v to %+v", before, after)
	}
	if before.Slice != 1 || before.Step != 10 || before.Checkpoint != "k" {
		t.Errorf("got %+v", before)
	}
}

func TestOneOfManyWorkersCommitsASlice(t *testing.T) {
	c := openCatalog(t)
	newRun(t, c, "r")
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			if commitSlice(t, c, "r", 0, SliceResult{State: Running}) {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d commits, want 1", won)
	}
}

func TestCancelledRunsStayCancelled(t *testing.T) {
	c := openCatalog(t)
	newRun(t, c, "r")
	if err := c.CancelRun(t.Context(), "r", day); err != nil {
		t.Fatal(err)
	}
	if ok := must(c.Beat(t.Context(), "r", 0, day))(t); ok {
		t.Error("a heartbeat revives it")
	}
	if commitSlice(t, c, "r", 0, SliceResult{State: Done}) {
		t.Error("a commit revives it")
	}
	if err := c.CancelRun(t.Context(), "r", day); errs.Of(err) != errs.Conflict {
		t.Errorf("cancelling again: %v", err)
	}
	if err := c.CancelRun(t.Context(), "none", day); errs.Of(err) != errs.NotFound {
		t.Errorf("cancelling nothing: %v", err)
	}
}

func TestSilentRuns(t *testing.T) {
	c := openCatalog(t)
	for _, id := range []string{"beating", "silent", "ended"} {
		newRun(t, c, id)
	}
	must(c.Beat(t.Context(), "beating", 0, day.Add(time.Minute)))(t)
	commitSlice(t, c, "ended", 0, SliceResult{State: Failed, Error: "why"})
	got := must(c.Silent(t.Context(), day.Add(time.Second)))(t)
	if len(got) != 1 || got[0].ID != "silent" {
		t.Errorf("got %+v, want the silent one", got)
	}
	if ok := must(c.Beat(t.Context(), "silent", 3, day))(t); ok {
		t.Error("a heartbeat of another slice counts")
	}
}

func TestEventsComeInOrder(t *testing.T) {
	c := openCatalog(t)
	newRun(t, c, "r")
	for i := range 3 {
		if err := c.AddEvents(t.Context(), "r", RunEvent{Kind: "step", Data: json.RawMessage(fmt.Sprint(i)), At: day}); err != nil {
			t.Fatal(err)
		}
	}
	got := must(c.Events(t.Context(), "r", 1))(t)
	if len(got) != 2 || got[0].Seq != 2 || string(got[1].Data) != "2" {
		t.Errorf("got %+v", got)
	}
	if err := c.AddEvents(t.Context(), "none", RunEvent{Kind: "step", Data: json.RawMessage("1")}); err == nil {
		t.Error("an event of a run that is not there was taken")
	}
}

func TestRevisionsOfAPrompt(t *testing.T) {
	c := openCatalog(t)
	for want := 1; want <= 3; want++ {
		var got int
		err := c.Tx(t.Context(), func(tx *sql.Tx) (err error) {
			got, err = c.AddPrompt(t.Context(), tx, Prompt{Name: "p", Digest: fmt.Sprint(want), Card: json.RawMessage(`{}`), Created: day})
			return err
		})
		if err != nil || got != want {
			t.Fatalf("revision %d, %v, want %d", got, err, want)
		}
	}
	for _, s := range []struct{ promote, want int }{{0, 3}, {1, 1}, {2, 2}} {
		if s.promote > 0 {
			if err := c.Promote(t.Context(), "p", s.promote); err != nil {
				t.Fatal(err)
			}
		}
		if got := must(c.Prompt(t.Context(), "p", 0))(t); got.Revision != s.want {
			t.Errorf("after promoting %d the name stands for %d", s.promote, got.Revision)
		}
	}
	if err := c.Promote(t.Context(), "p", 9); errs.Of(err) != errs.NotFound {
		t.Errorf("promoting what is not there: %v", err)
	}
	if got := must(c.Prompt(t.Context(), "p", 0))(t); got.Revision != 2 {
		t.Error("a failed promotion took the promoted one away")
	}
}

func TestKeys(t *testing.T) {
	c := openCatalog(t)
	k := Key{ID: "k1", Name: "laptop", Hash: "h", Created: day}
	if err := c.AddKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if err := c.AddKey(t.Context(), k); errs.Of(err) != errs.Conflict {
		t.Errorf("the same key again: %v", err)
	}
	if got := must(c.KeyByHash(t.Context(), "h"))(t); got.ID != "k1" {
		t.Errorf("got %+v", got)
	}
	if err := c.RevokeKey(t.Context(), "k1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.KeyByHash(t.Context(), "h"); errs.Of(err) != errs.NotFound {
		t.Errorf("a revoked key is found: %v", err)
	}
	if got := must(c.Keys(t.Context()))(t); len(got) != 1 || !got[0].Revoked {
		t.Errorf("got %+v", got)
	}
}

func TestACatalogueOfANewerProgramIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	for _, version := range []int{0, 99} {
		c, err := OpenCatalog(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if version > 0 {
			if _, err := c.db.Exec("PRAGMA user_version = 99"); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	if _, err := OpenCatalog(t.Context(), path); errs.Of(err) != errs.Unsupported {
		t.Errorf("got %v", err)
	}
}

func TestCollectLeavesWhatIsUsedOrYoung(t *testing.T) {
	objs, err := OpenS3(t.Context(), startEmbedded(t, t.TempDir()).Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"runs/1/a", "runs/2/a", "other/a"} {
		put(t, objs, key, []byte("x"), 1)
	}
	used := func(key string) bool { return key == "runs/1/a" }
	if got := must(Collect(t.Context(), objs, "runs/", used, time.Hour, time.Now()))(t); len(got) != 0 {
		t.Errorf("young ones were deleted: %v", got)
	}
	got := must(Collect(t.Context(), objs, "runs/", used, time.Hour, time.Now().Add(2*time.Hour)))(t)
	if len(got) != 1 || got[0].Key != "runs/2/a" {
		t.Errorf("deleted %v", got)
	}
	if _, err := objs.Stat(t.Context(), "other/a"); err != nil {
		t.Error(err)
	}
}
