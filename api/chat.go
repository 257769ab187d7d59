package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/generation/caption"
	"github.com/foretoken/foretoken/generation/decode"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/serving"
	"github.com/foretoken/foretoken/vision"
)

// chatRequest follows OpenAI's. What would change the answer and can't be done here is refused by
// name; what means nothing here is let pass.
type chatRequest struct {
	Model         string        `json:"model"`
	Messages      []chatMessage `json:"messages"`
	Stream        bool          `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	N                   *int            `json:"n"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Temperature         *float64        `json:"temperature"`
	TopP                *float64        `json:"top_p"`
	Seed                *int64          `json:"seed"`
	Stop                json.RawMessage `json:"stop"`
	FrequencyPenalty    float64         `json:"frequency_penalty"`
	PresencePenalty     float64         `json:"presence_penalty"`

	// What OpenAI's models do not have; the names are transformers'.
	TopK              *int     `json:"top_k"`
	Beams             *int     `json:"num_beams"`
	LengthPenalty     *float64 `json:"length_penalty"`
	RepetitionPenalty *float64 `json:"repetition_penalty"`
	NoRepeatNgram     *int     `json:"no_repeat_ngram_size"`

	Refused chatRefused `json:"-"`
}

// chatRefused are OpenAI's keys for which a captioner has nothing.
type chatRefused struct {
	Tools          json.RawMessage `json:"tools"`
	Functions      json.RawMessage `json:"functions"`
	ResponseFormat json.RawMessage `json:"response_format"`
	Logprobs       json.RawMessage `json:"logprobs"`
	LogitBias      json.RawMessage `json:"logit_bias"`
	Audio          json.RawMessage `json:"audio"`
	Prediction     json.RawMessage `json:"prediction"`
	WebSearch      json.RawMessage `json:"web_search_options"`
}

type chatMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type chatPart struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	ImageURL struct {
		URL string `json:"url"`
	} `json:"image_url"`
}

const (
	maxChoices   = 8
	maxStops     = 4    // OpenAI's own limit
	maxNewTokens = 4096 // of one answer
)

// chat makes captions and answers of an image.
func (s *server) chat(c *gin.Context) error {
	in, err := readChat(c)
	if err != nil {
		return err
	}
	target, err := s.Engine.Captioner(c.Request.Context(), in.Model)
	if err != nil {
		return err
	}
	text, source, err := in.question()
	if err != nil {
		return err
	}
	requests, err := in.requests(target.Model.Options(), text)
	if err != nil {
		return err
	}
	b, err := s.imageOf(c.Request.Context(), "image_url", source)
	if err != nil {
		return err
	}
	img, err := vision.Decode(bytes.NewReader(b), vision.Limits{})
	if err != nil {
		return errs.New(errs.Of(err), "image_url: %w", err)
	}
	for i := range requests {
		requests[i].Image = img
	}
	out := &completion{
		id: "chatcmpl-" + rand.Text(), created: time.Now().Unix(), model: in.Model,
		fingerprint: "fp_" + target.Model.Bundle.Digest[:12], usage: in.StreamOptions.IncludeUsage,
	}
	if in.Stream {
		return s.streamChat(c, target, requests, out)
	}
	answers, err := s.Engine.Caption(c.Request.Context(), target, requests, nil)
	return answer(c, out.whole(answers), err)
}

func readChat(c *gin.Context) (*chatRequest, error) {
	var body json.RawMessage
	if err := readJSON(c, &body, false); err != nil {
		return nil, err
	}
	in := &chatRequest{}
	for _, into := range []any{in, &in.Refused} {
		if err := json.Unmarshal(body, into); err != nil {
			return nil, errs.New(errs.Invalid, "the request's body is not the JSON that is expected here: %w", err)
		}
	}
	return in, in.refuse()
}

// refuse names what can't be done here.
func (in *chatRequest) refuse() error {
	r := in.Refused
	for _, f := range []struct {
		key     string
		value   json.RawMessage
		nothing []string // values that ask for nothing
	}{
		{"tools", r.Tools, []string{"[]"}},
		{"functions", r.Functions, []string{"[]"}},
		{"response_format", r.ResponseFormat, []string{`{"type":"text"}`}},
		{"logprobs", r.Logprobs, []string{"false"}},
		{"logit_bias", r.LogitBias, []string{"{}"}},
		{"audio", r.Audio, nil},
		{"prediction", r.Prediction, nil},
		{"web_search_options", r.WebSearch, nil},
	} {
		value := strings.Join(strings.Fields(string(f.value)), "")
		if value != "" && value != "null" && !slices.Contains(f.nothing, value) {
			return errs.New(errs.Invalid, "%s is not supported: a captioner answers with text alone; leave it out", f.key)
		}
	}
	if in.FrequencyPenalty != 0 || in.PresencePenalty != 0 {
		return errs.New(errs.Invalid, "frequency_penalty and presence_penalty are not supported: give repetition_penalty (above 1 against repetition), and leave them out")
	}
	return nil
}

// question is the text and the image of the one user message.
func (in *chatRequest) question() (text, image string, err error) {
	if len(in.Messages) != 1 || in.Messages[0].Role != "user" {
		roles := []string{}
		for _, m := range in.Messages {
			roles = append(roles, m.Role)
		}
		return "", "", errs.New(errs.Invalid, "messages: roles %q; a captioner keeps no conversation and takes no instructions: give one message of the role user, with an image and, if wanted, a question or opening words", roles)
	}
	content := in.Messages[0].Content
	if json.Unmarshal(content, &text) == nil {
		return "", "", errs.New(errs.Invalid, "messages: the message has no image: give its content as a list with a part of type image_url")
	}
	var parts []chatPart
	if err := json.Unmarshal(content, &parts); err != nil {
		return "", "", errs.New(errs.Invalid, "messages: content must be a list of parts: %w", err)
	}
	var texts, images []string
	for i, p := range parts {
		switch p.Type {
		case "text":
			texts = append(texts, p.Text)
		case "image_url":
			images = append(images, p.ImageURL.URL)
		default:
			return "", "", errs.New(errs.Invalid, "messages: part %d is of type %.40q, must be text or image_url", i, p.Type)
		}
	}
	if len(images) != 1 {
		return "", "", errs.New(errs.Invalid, "messages: %d images, must be 1", len(images))
	}
	return strings.Join(texts, "\n"), images[0], nil
}

// requests are the choices that are asked for, without the image. o is the bundle's own.
func (in *chatRequest) requests(o decode.Options, text string) ([]caption.Request, error) {
	n := 1
	if in.N != nil {
		n = *in.N
	}
	if n < 1 || n > maxChoices {
		return nil, errs.New(errs.Invalid, "n is %d, must be 1 to %d", n, maxChoices)
	}
	if err := in.options(&o, n); err != nil {
		return nil, err
	}
	requests := make([]caption.Request, n)
	for i := range requests {
		own := o.Clone()
		own.Seed += uint64(i)
		requests[i] = caption.Request{Text: text, Options: &own}
	}
	return requests, nil
}

// options changes the bundle's own options to what the request says.
func (in *chatRequest) options(o *decode.Options, n int) (err error) {
	if o.Stop, err = stops(in.Stop, o.Stop); err != nil {
		return err
	}
	tokens := in.MaxCompletionTokens
	if tokens == nil {
		tokens = in.MaxTokens
	}
	if tokens != nil {
		if *tokens < 1 || *tokens > maxNewTokens {
			return errs.New(errs.Invalid, "max_completion_tokens is %d, must be 1 to %d", *tokens, maxNewTokens)
		}
		o.MaxNewTokens = *tokens
	}
	in.chance(o, n)
	set(&o.TopK, in.TopK)
	set(&o.Beams, in.Beams)
	set(&o.LengthPenalty, in.LengthPenalty)
	set(&o.RepetitionPenalty, in.RepetitionPenalty)
	set(&o.NoRepeatNgram, in.NoRepeatNgram)
	if t := in.Temperature; t != nil && !(*t >= 0 && *t <= 2) {
		return errs.New(errs.Invalid, "temperature is %g, must be 0 to 2", *t)
	}
	return o.Check()
}

// chance sets how tokens are drawn: at temperature 0 not at all, otherwise where the request or the
// bundle says so, or several choices are wanted.
func (in *chatRequest) chance(o *decode.Options, n int) {
	if t := in.Temperature; t != nil {
		o.Sample = *t > 0
		if o.Sample {
			o.Temperature = *t
		}
	} else if in.TopP != nil || in.TopK != nil || n > 1 && in.Beams == nil {
		o.Sample = true
	}
	set(&o.TopP, in.TopP)
	if in.Seed != nil {
		o.Seed = uint64(*in.Seed)
	} else if o.Sample {
		o.Seed = randomSeed()
	}
}

func set[T any](into *T, value *T) {
	if value != nil {
		*into = *value
	}
}

// randomSeed is a seed that JSON numbers hold exactly.
func randomSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:]) >> 11
}

// stops reads one text or several, and adds them to those of the bundle.
func stops(raw json.RawMessage, own []string) ([]string, error) {
	var one string
	var many []string
	if len(raw) == 0 || string(raw) == "null" {
		return own, nil
	}
	if json.Unmarshal(raw, &one) == nil {
		many = []string{one}
	} else if err := json.Unmarshal(raw, &many); err != nil {
		return nil, errs.New(errs.Invalid, "stop must be a string or a list of strings: %w", err)
	}
	if len(many) > maxStops || slices.Contains(many, "") {
		return nil, errs.New(errs.Invalid, "stop has %d texts, must be up to %d, none of them empty", len(many), maxStops)
	}
	return append(slices.Clone(own), many...), nil
}

// completion is what all answers to one request have in common.
type completion struct {
	id          string
	created     int64
	model       string
	fingerprint string
	usage       bool // whether a stream tells it
}

// whole is an answer that is not streamed.
func (o *completion) whole(answers []caption.Answer) gin.H {
	choices := []gin.H{}
	for i, a := range answers {
		choices = append(choices, gin.H{
			"index": i, "logprobs": nil, "finish_reason": a.Finish,
			"message": gin.H{"role": "assistant", "content": a.Text, "refusal": nil},
		})
	}
	return gin.H{
		"id": o.id, "object": "chat.completion", "created": o.created, "model": o.model, "system_fingerprint": o.fingerprint,
		"choices": choices, "usage": usageOf(answers),
	}
}

// usageOf counts tokens as OpenAI does: the question's and the image's once, each answer's.
func usageOf(answers []caption.Answer) gin.H {
	prompt, completion := 0, 0
	for i, a := range answers {
		completion += len(a.Tokens)
		if i == 0 {
			prompt = a.PromptTokens + a.ImageTokens
		}
	}
	return gin.H{"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
}

// chunk is a part of a stream.
func (o *completion) chunk(choices []gin.H) gin.H {
	chunk := gin.H{"id": o.id, "object": "chat.completion.chunk", "created": o.created, "model": o.model, "system_fingerprint": o.fingerprint, "choices": choices}
	if o.usage {
		chunk["usage"] = nil
	}
	return chunk
}

func (o *completion) delta(choice int, delta gin.H, finish any) gin.H {
	return o.chunk([]gin.H{{"index": choice, "delta": delta, "logprobs": nil, "finish_reason": finish}})
}

// streamChat sends the text as it comes, in the chunks of OpenAI's API.
func (s *server) streamChat(c *gin.Context, target *serving.Captioner, requests []caption.Request, o *completion) error {
	out := &stream{c: c}
	ctx, cancel := context.WithCancel(c.Request.Context())
	defer cancel()
	begun := make([]bool, len(requests))
	begin := func(i int) error {
		if begun[i] {
			return nil
		}
		begun[i] = true
		return out.send("", o.delta(i, gin.H{"role": "assistant", "content": "", "refusal": nil}, nil))
	}
	answers, err := s.Engine.Caption(ctx, target, requests, func(i int, piece string) {
		err := begin(i)
		if err == nil {
			err = out.send("", o.delta(i, gin.H{"content": piece}, nil))
		}
		if err != nil {
			cancel() // the client is gone
		}
	})
	if err != nil {
		return out.end(err)
	}
	for i, a := range answers {
		if err := begin(i); err != nil {
			return nil
		}
		if err := out.send("", o.delta(i, gin.H{}, a.Finish)); err != nil {
			return nil
		}
	}
	if o.usage {
		last := o.chunk([]gin.H{})
		last["usage"] = usageOf(answers)
		if err := out.send("", last); err != nil {
			return nil
		}
	}
	_ = out.write("", "[DONE]")
	return nil
}
