package api

import (
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/serving"
	"github.com/foretoken/foretoken/tuning"
)

// classifyRequest asks for an image's class: by a prompt, or by a bundle with class names.
type classifyRequest struct {
	Image     string   `json:"image"` // address
	Prompt    string   `json:"prompt"`
	Bundle    string   `json:"bundle"`
	Classes   []string `json:"classes"`
	Templates []string `json:"templates"`

	bytes []byte
}

func (s *server) classify(c *gin.Context) error {
	in, err := s.readClassify(c)
	if err != nil {
		return err
	}
	t, err := s.target(c, in.Prompt, in.Bundle)
	if err != nil {
		return err
	}
	scores, err := s.Engine.Classify(c.Request.Context(), t, in.bytes, in.Classes, in.Templates)
	return answer(c, gin.H{"bundle": t.Model.Bundle.Name, "prompt": in.Prompt, "scores": scores}, err)
}

func (s *server) target(c *gin.Context, prompt, bundle string) (*serving.Target, error) {
	if prompt == "" && bundle == "" {
		return nil, errs.New(errs.Invalid, "give a prompt, or a bundle for the model without one")
	}
	return s.Engine.Resolve(c.Request.Context(), prompt, bundle)
}

func (s *server) readClassify(c *gin.Context) (*classifyRequest, error) {
	if c.ContentType() == "multipart/form-data" {
		return readForm(c)
	}
	in := &classifyRequest{}
	if err := readJSON(c, in, true); err != nil {
		return nil, err
	}
	var err error
	in.bytes, err = s.imageOf(c.Request.Context(), "image", in.Image)
	return in, err
}

// readForm reads a multipart form part by part: "image" is the file, the others are fields.
func readForm(c *gin.Context) (*classifyRequest, error) {
	in := &classifyRequest{}
	if err := readParts(c, in.field); err != nil {
		return nil, err
	}
	if in.bytes == nil {
		return nil, errs.New(errs.Invalid, `the form has no part "image"`)
	}
	return in, nil
}

// readParts reads a multipart form, part by part.
func readParts(c *gin.Context, field func(*multipart.Part) error) error {
	parts, err := c.Request.MultipartReader()
	if err != nil {
		return errs.New(errs.Invalid, "multipart form: %w", err)
	}
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = field(part)
		}
		if err != nil {
			return errs.New(errs.Or(err, errs.Invalid), "multipart form: %w", err)
		}
	}
}

func (in *classifyRequest) field(part *multipart.Part) (err error) {
	b, err := io.ReadAll(part)
	if err != nil {
		return err
	}
	switch part.FormName() {
	case "image":
		in.bytes = b
	case "prompt":
		in.Prompt = string(b)
	case "bundle":
		in.Bundle = string(b)
	case "classes":
		err = json.Unmarshal(b, &in.Classes)
	case "templates":
		err = json.Unmarshal(b, &in.Templates)
	default:
		return errs.New(errs.Invalid, "part %.40q is not known: there are image, prompt, bundle, classes, templates", part.FormName())
	}
	if err != nil {
		return errs.New(errs.Invalid, "part %q must be a JSON list of strings: %w", part.FormName(), err)
	}
	return nil
}

func (s *server) search(c *gin.Context) error {
	in := struct {
		Dataset string `json:"dataset"`
		Version string `json:"version"`
		Split   string `json:"split"` // "" is all
		Query   string `json:"query"`
		Limit   int    `json:"limit"`
		Prompt  string `json:"prompt"`
		Bundle  string `json:"bundle"`
	}{Limit: 10}
	if err := readJSON(c, &in, true); err != nil {
		return err
	}
	if in.Limit < 1 || in.Limit > 1000 {
		return errs.New(errs.Invalid, "limit is %d, must be 1 to 1000", in.Limit)
	}
	if !slices.Contains([]string{"", dataset.Train, dataset.Validation, dataset.Test}, in.Split) {
		return errs.New(errs.Invalid, "split is %.40q, must be train, validation or test, or left out for all", in.Split)
	}
	t, err := s.target(c, in.Prompt, in.Bundle)
	if err != nil {
		return err
	}
	v, _, err := s.version(c.Request.Context(), in.Dataset, in.Version)
	if err != nil {
		return err
	}
	hits, err := s.Engine.Search(c.Request.Context(), t, v, in.Split, in.Query, in.Limit)
	return answer(c, gin.H{"hits": hits}, err)
}

// evaluate scores a prompt, or a bundle alone, on the test split of a data set.
func (s *server) evaluate(c *gin.Context) error {
	var in struct {
		Dataset   string   `json:"dataset"`
		Version   string   `json:"version"`
		Prompt    string   `json:"prompt"`
		Bundle    string   `json:"bundle"`
		Templates []string `json:"templates"`
	}
	if err := readJSON(c, &in, true); err != nil {
		return err
	}
	t, err := s.target(c, in.Prompt, in.Bundle)
	if err != nil {
		return err
	}
	v, _, err := s.version(c.Request.Context(), in.Dataset, in.Version)
	if err != nil {
		return err
	}
	if len(in.Templates) == 0 {
		in.Templates = serving.DefaultTemplates
		if t.Prompt != nil {
			in.Templates = t.Prompt.Card.Templates
		}
	}
	data := tuning.LoadData(s.Objects, v, dataset.Selection{Test: v.All().Test})
	score, err := t.Model.NewEvaluator(data).Score(c.Request.Context(), t.Prompt, in.Templates)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, score)
	return nil
}
