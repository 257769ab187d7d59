package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"image"
	"image/png"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/serving"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/vision"
)

const (
	// cardKeyword is what a picture's PNG carries its card under.
	cardKeyword = "foretoken"
	// sharedFor is how long a picture's address is valid.
	sharedFor = time.Hour
)

// pictureCard says how a picture came to be: with the same bundle and prompts it can be drawn again.
type pictureCard struct {
	Tool      string           `json:"tool"`
	Task      string           `json:"task"` // image_generation, image_edit or image_variation
	Model     string           `json:"model"`
	Bundle    prompt.BundleRef `json:"bundle"`
	Prompts   []promptCard     `json:"prompts,omitempty"`
	Prompt    string           `json:"prompt"`
	Negative  string           `json:"negative_prompt,omitempty"`
	Seed      uint64           `json:"seed"`
	Size      string           `json:"size"`
	Steps     int              `json:"steps"`
	Guidance  float64          `json:"guidance"`
	Scheduler string           `json:"scheduler"`
	Eta       float64          `json:"eta,omitempty"`
	Strength  float64          `json:"strength,omitempty"`
	Image     string           `json:"image,omitempty"` // SHA-256 of the file that was drawn anew
	Mask      string           `json:"mask,omitempty"`
	Created   time.Time        `json:"created"`
}

type promptCard struct {
	Name   string      `json:"name"`
	Digest string      `json:"digest"`
	Kind   prompt.Kind `json:"kind"`
	Token  string      `json:"token,omitempty"`
}

// painting is one request for pictures, under way.
type painting struct {
	*server
	c       *gin.Context
	in      *imagesRequest
	task    string
	painter *serving.Painter
	out     *stream
	counted bool // whether an event has told what was put in
}

// paint draws what a request asks for. r has the image and the mask, where there are any.
func (s *server) paint(c *gin.Context, in *imagesRequest, task string, r diffusion.Request) error {
	r, err := in.request(r)
	if err != nil {
		return err
	}
	p := &painting{server: s, c: c, in: in, task: task, out: &stream{c: c}}
	if p.painter, err = s.Engine.Painter(c.Request.Context(), in.Model, in.Prompts...); err != nil {
		return err
	}
	r.Concepts = p.painter.Concepts()
	if r, err = p.painter.Model.Resolve(r); err != nil {
		return err
	}
	if in.PartialImages > 0 {
		r.PreviewEvery = max(1, r.Steps/(in.PartialImages+1))
	}
	seed := randomSeed()
	if in.Seed != nil {
		seed = *in.Seed
	}
	requests := make([]diffusion.Request, in.N)
	for i := range requests {
		requests[i] = r
		requests[i].Seed = seed + uint64(i)
	}
	if in.Stream {
		return p.out.end(p.stream(requests))
	}
	results, err := s.Engine.Paint(c.Request.Context(), p.painter, requests, serving.Watch{})
	if err != nil {
		return err
	}
	return p.answer(results)
}

// answer sends all pictures at once.
func (p *painting) answer(results []diffusion.Result) error {
	data, unsafe := []gin.H{}, 0
	for _, r := range results {
		item := gin.H{"seed": r.Seed}
		if r.Unsafe {
			unsafe++
			item["unsafe"] = true // the picture is black
		}
		b, key, err := p.keep(r)
		if err != nil {
			return err
		}
		if p.in.Format == "b64_json" {
			item["b64_json"] = base64.StdEncoding.EncodeToString(b)
		} else if item["url"], err = p.Objects.Share(p.c.Request.Context(), key, sharedFor); err != nil {
			return err
		}
		data = append(data, item)
	}
	if unsafe == len(results) {
		return errs.New(errs.Invalid, "%w", errUnsafe)
	}
	return answer(p.c, gin.H{
		"created": time.Now().Unix(), "data": data, "size": sizeOf(results[0].Image), "background": "opaque", "output_format": "png",
		"usage": p.usage(results...),
	}, nil)
}

// usage counts tokens as OpenAI does, what is put in once a request: those of the words, and an image's latents. Of a
// stream's events, the first picture's has what was put in, so that their sum is the request's.
func (p *painting) usage(results ...diffusion.Result) gin.H {
	text, image, drawn := 0, 0, 0
	for _, r := range results {
		drawn += r.Latents
	}
	if !p.counted {
		text = results[0].TextTokens
		if p.in.image != nil {
			image = results[0].Latents
		}
	}
	p.counted = true
	return gin.H{
		"input_tokens": text + image, "input_tokens_details": gin.H{"text_tokens": text, "image_tokens": image},
		"output_tokens": drawn, "output_tokens_details": gin.H{"text_tokens": 0, "image_tokens": drawn}, "total_tokens": text + image + drawn,
	}
}

// keep writes a picture with its card as a PNG, and stores it under its digest.
func (p *painting) keep(r diffusion.Result) (b []byte, key string, err error) {
	card, err := json.Marshal(p.card(r))
	if err != nil {
		return nil, "", err
	}
	if b, err = vision.EncodePNG(r.Image, cardKeyword, string(card)); err != nil {
		return nil, "", err
	}
	key = "images/" + digestOf(b) + ".png"
	_, err = p.Objects.Put(p.c.Request.Context(), key, bytes.NewReader(b), int64(len(b)), storage.PutOptions{ContentType: "image/png"})
	return b, key, err
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (p *painting) card(r diffusion.Result) pictureCard {
	b := p.painter.Model.Bundle
	card := pictureCard{
		Tool: "foretoken " + p.Version, Task: p.task, Model: p.in.Model, Bundle: prompt.BundleRef{Name: b.Name, Digest: b.Digest},
		Prompt: p.in.Prompt, Negative: p.in.Negative, Seed: r.Seed, Size: sizeOf(r.Image), Steps: r.Steps, Guidance: r.Guidance,
		Scheduler: r.Scheduler, Eta: p.in.Eta, Strength: p.in.Strength, Created: time.Now().UTC(),
	}
	if p.in.image != nil {
		card.Image = digestOf(p.in.image)
	}
	if p.in.mask != nil {
		card.Mask = digestOf(p.in.mask)
	}
	for _, n := range p.painter.Prompts {
		card.Prompts = append(card.Prompts, promptCard{n.Name, n.Digest, n.Prompt.Card.Kind, n.Prompt.Card.Token})
	}
	return card
}

// stream sends previews as the pictures come, then each picture, as OpenAI's events.
func (p *painting) stream(requests []diffusion.Request) error {
	sent := make([]int, len(requests)) // previews
	watch := serving.Watch{Done: p.complete}
	if p.in.PartialImages > 0 || p.in.Progress {
		watch.Step = func(d serving.Drawn) error {
			if p.in.Progress {
				kind := p.task + ".progress"
				if err := p.out.send(kind, gin.H{"type": kind, "image": d.Picture, "step": d.Done, "total_steps": d.Of}); err != nil {
					return err
				}
			}
			if d.Preview == nil || sent[d.Picture] == p.in.PartialImages || d.Done == d.Of {
				return nil // the last step's would be the picture itself
			}
			sent[d.Picture]++
			return p.preview(d.Picture, d.Preview, sent[d.Picture]-1)
		}
	}
	_, err := p.Engine.Paint(p.c.Request.Context(), p.painter, requests, watch)
	return err
}

// event has what all events of pictures have, and which of the request's pictures it is.
func (p *painting) event(kind string, picture int, img *image.NRGBA, b []byte) gin.H {
	return gin.H{
		"type": kind, "image": picture, "b64_json": base64.StdEncoding.EncodeToString(b), "created_at": time.Now().Unix(),
		"size": sizeOf(img), "quality": "auto", "background": "opaque", "output_format": "png",
	}
}

func (p *painting) preview(picture int, img *image.NRGBA, index int) error {
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return err
	}
	kind := p.task + ".partial_image"
	event := p.event(kind, picture, img, b.Bytes())
	event["partial_image_index"] = index
	return p.out.send(kind, event)
}

func (p *painting) complete(picture int, r diffusion.Result) error {
	if r.Unsafe {
		return errs.New(errs.Invalid, "%w", errUnsafe)
	}
	b, _, err := p.keep(r)
	if err != nil {
		return err
	}
	kind := p.task + ".completed"
	event := p.event(kind, picture, r.Image, b)
	event["seed"], event["usage"] = r.Seed, p.usage(r)
	return p.out.send(kind, event)
}
