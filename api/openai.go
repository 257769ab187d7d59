package api

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/serving"
)

// modelView is a bundle or a prompt as OpenAI's clients know models.
type modelView struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func (s *server) models(c *gin.Context) ([]modelView, error) {
	bundles, err := s.Catalog.Bundles(c.Request.Context())
	if err != nil {
		return nil, err
	}
	prompts, err := s.Catalog.Prompts(c.Request.Context())
	if err != nil {
		return nil, err
	}
	models := []modelView{}
	for _, b := range bundles {
		models = append(models, modelView{b.Name, "model", b.Created.Unix(), "bundle"})
	}
	last := ""
	for _, p := range prompts {
		if p.Name != last {
			models = append(models, modelView{p.Name, "model", p.Created.Unix(), p.Bundle})
		}
		last = p.Name
	}
	return models, nil
}

func (s *server) listModels(c *gin.Context) error {
	models, err := s.models(c)
	return answer(c, gin.H{"object": "list", "data": models}, err)
}

func (s *server) getModel(c *gin.Context) error {
	models, err := s.models(c)
	if err != nil {
		return err
	}
	for _, m := range models {
		if m.ID == c.Param("id") {
			c.JSON(http.StatusOK, m)
			return nil
		}
	}
	return unknownModel(c.Param("id"))
}

func unknownModel(name string) error {
	return errs.New(errs.NotFound, "the model %.100q does not exist: GET /v1/models lists bundles and prompts", name)
}

// embeddingsRequest follows OpenAI's; keys that mean nothing here are let pass, as there.
type embeddingsRequest struct {
	Model          string          `json:"model"`
	Input          json.RawMessage `json:"input"`
	EncodingFormat string          `json:"encoding_format"`
	Dimensions     *int            `json:"dimensions"`
}

// maxInputs is how many inputs one request may have, OpenAI's own limit.
const maxInputs = 2048

func (s *server) embeddings(c *gin.Context) error {
	var in embeddingsRequest
	err := readJSON(c, &in, false)
	var inputs []string
	if err == nil {
		inputs, err = in.check()
	}
	if err != nil {
		return err
	}
	t, err := s.model(c, in.Model)
	if err != nil {
		return err
	}
	vectors, tokens, err := s.embed(c, t, inputs)
	if err != nil {
		return err
	}
	data := make([]gin.H, len(vectors))
	for i, v := range vectors {
		data[i] = gin.H{"object": "embedding", "index": i, "embedding": encode(v, in.EncodingFormat)}
	}
	c.JSON(http.StatusOK, gin.H{"object": "list", "model": in.Model, "data": data, "usage": gin.H{"prompt_tokens": tokens, "total_tokens": tokens}})
	return nil
}

func (in *embeddingsRequest) check() ([]string, error) {
	if in.Dimensions != nil {
		return nil, errs.New(errs.Invalid, "dimensions is not supported: a frozen encoder's embeddings have one width; leave it out")
	}
	if in.EncodingFormat != "" && in.EncodingFormat != "float" && in.EncodingFormat != "base64" {
		return nil, errs.New(errs.Invalid, "encoding_format is %.20q, must be float or base64", in.EncodingFormat)
	}
	var one string
	if json.Unmarshal(in.Input, &one) == nil {
		return checkInputs([]string{one})
	}
	var many []string
	if json.Unmarshal(in.Input, &many) == nil {
		return checkInputs(many)
	}
	return nil, errs.New(errs.Invalid, "input must be a string or a list of strings; token arrays are not supported, because each model here has a tokenizer of its own")
}

func checkInputs(inputs []string) ([]string, error) {
	if len(inputs) == 0 || len(inputs) > maxInputs {
		return nil, errs.New(errs.Invalid, "input has %d entries, must be 1 to %d", len(inputs), maxInputs)
	}
	for i, s := range inputs {
		if s == "" {
			return nil, errs.New(errs.Invalid, "input %d is an empty string", i)
		}
	}
	return inputs, nil
}

// model finds what a model's name stands for: a prompt, else a bundle.
func (s *server) model(c *gin.Context, name string) (*serving.Target, error) {
	t, err := s.Engine.Resolve(c.Request.Context(), name, "")
	if errs.Of(err) != errs.NotFound && name != "" {
		return t, err
	}
	t, err = s.Engine.Resolve(c.Request.Context(), "", name)
	if errs.Of(err) == errs.NotFound {
		return nil, unknownModel(name)
	}
	return t, err
}

// embed embeds texts and, where they begin data:image/, images; it counts their tokens.
func (s *server) embed(c *gin.Context, t *serving.Target, inputs []string) (vectors [][]float32, tokens int, err error) {
	vectors = make([][]float32, len(inputs))
	var texts []string
	var places []int
	for i, input := range inputs {
		if !strings.HasPrefix(input, dataImage) {
			texts, places = append(texts, input), append(places, i)
			continue
		}
		image, err := decodeDataURL(input)
		if err != nil {
			return nil, 0, errs.New(errs.Of(err), "input %d: %w", i, err)
		}
		if vectors[i], err = s.Engine.EmbedImage(c.Request.Context(), t, image); err != nil {
			return nil, 0, errs.New(errs.Of(err), "input %d: %w", i, err)
		}
		tokens += t.Model.Images.Info.Tokens
	}
	if len(texts) == 0 {
		return vectors, tokens, nil
	}
	rows, err := s.Engine.EmbedTexts(c.Request.Context(), t, texts)
	if err != nil {
		return nil, 0, err
	}
	for i, row := range rows {
		vectors[places[i]] = row
	}
	return vectors, tokens + s.Engine.TextTokens(t, texts), nil
}

// encode writes a vector as numbers, or as base64 of little-endian 32-bit floats.
func encode(v []float32, format string) any {
	if format != "base64" {
		return v
	}
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, v) // a buffer takes everything
	return base64.StdEncoding.EncodeToString(b.Bytes())
}
