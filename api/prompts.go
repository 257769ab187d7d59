package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/prompt/embeds"
	"github.com/foretoken/foretoken/serving"
	"github.com/foretoken/foretoken/storage"
)

type promptView struct {
	Name     string          `json:"name"`
	Revision int             `json:"revision"`
	Digest   string          `json:"digest"`
	Bundle   string          `json:"bundle"`
	Kind     string          `json:"kind"`
	Token    string          `json:"token,omitempty"` // what stands for a concept in texts
	Run      string          `json:"run,omitempty"`
	Size     int64           `json:"size"`
	Promoted bool            `json:"promoted"`
	Created  time.Time       `json:"created"`
	Card     json.RawMessage `json:"card,omitempty"`
}

func viewPrompt(p storage.Prompt) promptView {
	var card struct {
		Kind  prompt.Kind `json:"kind"`
		Token string      `json:"token"`
	}
	_ = json.Unmarshal(p.Card, &card) // it was written from a card
	return promptView{p.Name, p.Revision, p.Digest, p.Bundle, card.Kind.String(), card.Token, p.Run, p.Size, p.Promoted, p.Created, p.Card}
}

// listPrompts lists, for each name, the revision that it stands for; with ?revisions=all, all.
func (s *server) listPrompts(c *gin.Context) error {
	prompts, err := s.Catalog.Prompts(c.Request.Context())
	if c.Query("revisions") != "all" {
		slices.SortStableFunc(prompts, func(a, b storage.Prompt) int {
			if a.Name != b.Name || a.Promoted == b.Promoted {
				return 0
			}
			if a.Promoted {
				return -1
			}
			return 1
		})
		prompts = slices.CompactFunc(prompts, func(a, b storage.Prompt) bool { return a.Name == b.Name })
	}
	return answer(c, listOf(prompts, func(p storage.Prompt) promptView {
		v := viewPrompt(p)
		v.Card = nil
		return v
	}), err)
}

// promptRow finds the prompt that the path names, as NAME or NAME@REVISION.
func (s *server) promptRow(c *gin.Context) (storage.Prompt, error) {
	name, revision, err := serving.ParseRef(c.Param("name"))
	if err != nil {
		return storage.Prompt{}, err
	}
	return s.Catalog.Prompt(c.Request.Context(), name, revision)
}

func (s *server) getPrompt(c *gin.Context) error {
	p, err := s.promptRow(c)
	return answer(c, viewPrompt(p), err)
}

// downloadPrompt sends the prompt's own file, or with ?format= what other programs read.
func (s *server) downloadPrompt(c *gin.Context) error {
	p, err := s.promptRow(c)
	if err != nil {
		return err
	}
	b, err := serving.ReadObject(c.Request.Context(), s.Objects, p.Object)
	if err != nil {
		return err
	}
	suffix := ".safetensors"
	if f := embeds.Format(c.Query("format")); f != "" {
		if b, err = exported(b, f, p.Name); err != nil {
			return err
		}
		suffix = f.Suffix()
	}
	c.Header("Content-Disposition", fmt.Sprintf("attachment; filename=%q", fmt.Sprintf("%s-%d%s", p.Name, p.Revision, suffix)))
	c.Data(http.StatusOK, "application/octet-stream", b)
	return nil
}

func (s *server) promotePrompt(c *gin.Context) error {
	var in struct {
		Revision int `json:"revision"`
	}
	if err := readJSON(c, &in, true); err != nil {
		return err
	}
	if in.Revision < 1 {
		return errs.New(errs.Invalid, "revision is %d, must be 1 or more", in.Revision)
	}
	if err := s.Catalog.Promote(c.Request.Context(), c.Param("name"), in.Revision); err != nil {
		return err
	}
	return s.getPrompt(c)
}
