package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/tuning/run"
)

type bundleView struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind,omitempty"` // left out where its folder is gone
	Digest  string    `json:"digest"`
	Created time.Time `json:"created"`
}

func viewBundle(b storage.Bundle) bundleView {
	v := bundleView{Name: b.Name, Digest: b.Digest, Created: b.Created}
	if kind, err := bundle.KindOf(b.Dir); err == nil {
		v.Kind = kind.String()
	}
	return v
}

func (s *server) listBundles(c *gin.Context) error {
	bundles, err := s.Catalog.Bundles(c.Request.Context())
	return answer(c, listOf(bundles, viewBundle), err)
}

// addBundle adds a folder of the server's machine. It is opened first: what can't be tuned is
// refused with the reason.
func (s *server) addBundle(c *gin.Context) error {
	var in struct {
		Name string `json:"name"`
		Dir  string `json:"dir"`
	}
	if err := readJSON(c, &in, true); err != nil {
		return err
	}
	row, err := s.openBundle(in.Name, in.Dir)
	if err == nil {
		err = s.Catalog.PutBundle(c.Request.Context(), row)
	}
	if err == nil {
		_, err = s.Models.Kind(c.Request.Context(), row.Name)
	}
	if err != nil {
		return err
	}
	c.JSON(http.StatusCreated, viewBundle(row))
	return nil
}

func (s *server) openBundle(name, dir string) (storage.Bundle, error) {
	if !filepath.IsAbs(dir) {
		return storage.Bundle{}, errs.New(errs.Invalid, "dir is %q, must be an absolute path on the server's machine", dir)
	}
	b, err := bundle.Open(dir)
	if err != nil {
		return storage.Bundle{}, err
	}
	if name == "" {
		name = b.Name
	}
	if strings.ContainsAny(name, "/@ ") || len(name) > 100 {
		return storage.Bundle{}, errs.New(errs.Invalid, "name %.120q: must be at most 100 characters without /, @ and spaces", name)
	}
	if err := s.Models.Check(b); err != nil {
		return storage.Bundle{}, err
	}
	return storage.Bundle{Name: name, Digest: b.Digest, Dir: b.Dir, Created: time.Now().UTC()}, nil
}

func (s *server) listRecipes(c *gin.Context) error {
	var recipes []*tuning.Recipe
	for _, name := range tuning.RecipeNames() {
		r, err := tuning.BuiltIn(name)
		if err != nil {
			return err
		}
		recipes = append(recipes, r)
	}
	c.JSON(http.StatusOK, list[*tuning.Recipe]{recipes})
	return nil
}

func (s *server) getRecipe(c *gin.Context) error {
	r, err := tuning.BuiltIn(c.Param("name"))
	return answer(c, r, err)
}

type runView struct {
	ID      string          `json:"id"`
	State   string          `json:"state"`
	Error   string          `json:"error,omitempty"`
	Step    int             `json:"step"`
	Steps   int             `json:"total_steps"`
	Prompt  string          `json:"prompt,omitempty"`
	Spec    json.RawMessage `json:"spec"`
	Metrics json.RawMessage `json:"metrics"`
	Created time.Time       `json:"created"`
	Updated time.Time       `json:"updated"`
}

func viewRun(r storage.Run) runView {
	return runView{r.ID, r.State, r.Error, r.Step, r.Steps, r.Prompt, r.Spec, r.Metrics, r.Created, r.Updated}
}

func (s *server) listRuns(c *gin.Context) error {
	runs, err := s.Catalog.Runs(c.Request.Context())
	return answer(c, listOf(runs, viewRun), err)
}

// runRequest asks for a run. The recipe is a name, or a whole one.
type runRequest struct {
	Dataset string          `json:"dataset"`
	Version string          `json:"version"`
	Bundle  string          `json:"bundle"`
	Recipe  json.RawMessage `json:"recipe"`
	Shots   int             `json:"shots"`
	HoldOut bool            `json:"hold_out"`
	Prompt  string          `json:"prompt"`
	Seed    *uint64         `json:"seed"` // of shots and training; default 1
}

func (s *server) createRun(c *gin.Context) error {
	var in runRequest
	if err := readJSON(c, &in, true); err != nil {
		return err
	}
	recipe, err := readRecipe(in.Recipe)
	if err != nil {
		return err
	}
	seed := uint64(1)
	if in.Seed != nil {
		seed = *in.Seed
		recipe.Seed = seed
	}
	r, err := s.Runs.Create(c.Request.Context(), run.Spec{
		Dataset: in.Dataset, Version: in.Version, Bundle: in.Bundle, Recipe: recipe, Shots: in.Shots,
		HoldOut: in.HoldOut, Prompt: in.Prompt, Seed: seed,
	})
	if err != nil {
		return err
	}
	c.JSON(http.StatusCreated, viewRun(r))
	return nil
}

func readRecipe(b json.RawMessage) (*tuning.Recipe, error) {
	var name string
	if json.Unmarshal(b, &name) == nil {
		return tuning.BuiltIn(name)
	}
	if len(b) == 0 {
		return nil, errs.New(errs.Invalid, "recipe is missing: give a name (%q) or a whole recipe", tuning.RecipeNames())
	}
	return tuning.ParseRecipe(b)
}

func (s *server) getRun(c *gin.Context) error {
	r, err := s.Catalog.Run(c.Request.Context(), c.Param("id"))
	return answer(c, viewRun(r), err)
}

func (s *server) cancelRun(c *gin.Context) error {
	id := c.Param("id")
	if err := s.Runs.Cancel(c.Request.Context(), id); err != nil {
		return err
	}
	return s.getRun(c)
}

// pollInterval is how often a watched run is looked at.
const pollInterval = 200 * time.Millisecond

// watchRun sends a run's events as they happen (server-sent events), from the start or after
// the one that Last-Event-ID names, until the run has ended.
func (s *server) watchRun(c *gin.Context) error {
	ctx, id := c.Request.Context(), c.Param("id")
	last, err := lastEvent(c)
	if err == nil {
		_, err = s.Catalog.Run(ctx, id)
	}
	if err != nil {
		return err
	}
	c.Header("Content-Type", "text/event-stream")
	c.Header("Cache-Control", "no-store")
	c.Status(http.StatusOK)
	c.Writer.Flush()
	for {
		r, err := s.Catalog.Run(ctx, id) // before the events: those of its end are there then
		if err != nil {
			return nil // the answer has begun: its end says that there is no more
		}
		events, err := s.Catalog.Events(ctx, id, last)
		if err != nil {
			return nil
		}
		for _, e := range events {
			fmt.Fprintf(c.Writer, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Kind, e.Data)
			last = e.Seq
		}
		c.Writer.Flush()
		if r.Ended() {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollInterval):
		}
	}
}

func lastEvent(c *gin.Context) (int, error) {
	header := c.GetHeader("Last-Event-ID")
	if header == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(header)
	if err != nil || n < 0 {
		return 0, errs.New(errs.Invalid, "Last-Event-ID is %.40q, must be an event's number", header)
	}
	return n, nil
}
