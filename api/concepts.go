package api

import (
	"bytes"
	"cmp"
	"database/sql"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/prompt/embeds"
	"github.com/foretoken/foretoken/tuning/run"
)

// maxConcept is the size of an import, in bytes. diffusers' script on a CPU saves the whole token
// table under learned_embeds.bin's rows: 202 MB in Stable Diffusion 2.
const maxConcept = 256 << 20

// unnamed is what a file is called that came without a name.
const unnamed = "concept"

// importPrompt makes a prompt of a textual-inversion file, or of two that are for a text encoder each.
func (s *server) importPrompt(c *gin.Context) error {
	ctx := c.Request.Context()
	e, err := readConcept(c)
	if err != nil {
		return err
	}
	p, err := s.concept(c, e)
	if err != nil {
		return err
	}
	name := c.Query("name")
	if name == "" {
		name = strings.Trim(p.Card.Token, "<>")
	}
	row, err := run.StorePrompt(ctx, s.Objects, name, "", p)
	if err != nil {
		return err
	}
	err = s.Catalog.Tx(ctx, func(tx *sql.Tx) error {
		row.Revision, err = s.Catalog.AddPrompt(ctx, tx, row)
		return err
	})
	if err != nil {
		return err
	}
	c.JSON(http.StatusCreated, viewPrompt(row))
	return nil
}

// readConcept reads the request's body, which is a file or a form with one or two of them as parts
// "file".
func readConcept(c *gin.Context) (*embeds.Embedding, error) {
	if c.ContentType() != "multipart/form-data" {
		body, err := io.ReadAll(c.Request.Body)
		if err != nil {
			return nil, err
		}
		return embeds.Read(body, c.DefaultQuery("file", unnamed))
	}
	var parts []*embeds.Embedding
	err := readParts(c, func(part *multipart.Part) error {
		if part.FormName() != "file" {
			return errs.New(errs.Invalid, "part %.40q is not known: there is file", part.FormName())
		}
		b, err := io.ReadAll(part)
		if err != nil {
			return err
		}
		e, err := embeds.Read(b, cmp.Or(part.FileName(), unnamed))
		parts = append(parts, e)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case len(parts) == 1:
		return parts[0], nil
	case len(parts) == 2:
		return embeds.Join(parts[0], parts[1])
	}
	return nil, errs.New(errs.Invalid, `the form has %d parts "file", must be one, or two for two text encoders`, len(parts))
}

// concept makes the prompt that the query asks for, and holds its rows against the bundle's text
// encoders.
func (s *server) concept(c *gin.Context, e *embeds.Embedding) (*prompt.Prompt, error) {
	row, err := s.Catalog.Bundle(c.Request.Context(), c.Query("bundle"))
	if err != nil {
		return nil, err
	}
	kind := prompt.Concept
	if k := c.Query("kind"); k != "" {
		if err := kind.UnmarshalText([]byte(k)); err != nil {
			return nil, err
		}
	}
	p, err := e.Prompt(kind, prompt.BundleRef{Name: row.Name, Digest: row.Digest}, c.Query("token"))
	if err != nil {
		return nil, err
	}
	p.Card.Tool = s.Version
	first, second, err := bundle.TextWidths(row.Dir)
	if err != nil {
		return nil, err
	}
	if d, d2 := p.Widths(); d != first || d2 != second {
		return nil, errs.New(errs.Invalid, "the file's rows are %s wide, those of bundle %q %s: it is for another base model", widths(d, d2), row.Name, widths(first, second))
	}
	return p, nil
}

// widths writes one width or two.
func widths(first, second int) string {
	if second == 0 {
		return strconv.Itoa(first)
	}
	return fmt.Sprintf("%d and %d", first, second)
}

// exported is a stored prompt in another program's format.
func exported(file []byte, f embeds.Format, name string) ([]byte, error) {
	p, err := prompt.ReadBytes(file)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = embeds.Write(&b, p, f, name)
	return b.Bytes(), err
}
