package api

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/internal/fetch"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/vision"
)

// addGenerators puts into the catalogue, without the checks of models that are added over HTTP, the starter's captioner and two
// tiny painters with random weights; "checked" has a safety checker.
func (s *service) addGenerators(t *testing.T) {
	t.Helper()
	for name, dir := range map[string]string{"teller": "starter/captioner", "painter": "generation/diffusion/testdata/sd", "checked": "generation/diffusion/testdata/inpaint"} {
		b := must(bundle.Open("../" + dir))(t)
		check(t, s.Catalog.PutBundle(t.Context(), storage.Bundle{Name: name, Digest: b.Digest, Dir: b.Dir, Created: time.Now()}))
	}
}

func (s *service) client() openai.Client {
	return openai.NewClient(option.WithBaseURL(s.URL+"/v1"), option.WithAPIKey(s.key), option.WithMaxRetries(0))
}

// asking is a chat request about an image.
func asking(text, image string) openai.ChatCompletionNewParams {
	parts := []openai.ChatCompletionContentPartUnionParam{openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: image})}
	if text != "" {
		parts = append(parts, openai.TextContentPart(text))
	}
	return openai.ChatCompletionNewParams{Model: "teller", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(parts)}}
}

// TestOpenAIsClientReadsImages has OpenAI's client for Go make a caption, choices, and a streamed answer.
func TestOpenAIsClientReadsImages(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	s.upload(t, "emoji", demoZip(t, "openmoji", 1, 1))
	client, ctx := s.client(), t.Context()
	a := must(client.Chat.Completions.New(ctx, asking("", dataURL(t))))(t)
	if len(a.Choices) != 1 || a.Choices[0].Message.Content == "" || a.Choices[0].Message.Role != "assistant" {
		t.Fatalf("a caption: %s", a.RawJSON())
	}
	if u := a.Usage; u.CompletionTokens < 1 || u.CompletionTokens > 40 || u.PromptTokens < 1 || u.TotalTokens != u.PromptTokens+u.CompletionTokens {
		t.Errorf("usage %+v", u)
	}
	again := must(client.Chat.Completions.New(ctx, asking("", dataURL(t))))(t)
	if again.Choices[0].Message.Content != a.Choices[0].Message.Content {
		t.Errorf("the same question has two answers: %q, %q", a.Choices[0].Message.Content, again.Choices[0].Message.Content)
	}

	p := asking("", dataURL(t))
	p.N, p.Seed, p.MaxCompletionTokens, p.Temperature = openai.Int(3), openai.Int(7), openai.Int(5), openai.Float(1.5)
	many := must(client.Chat.Completions.New(ctx, p))(t)
	if len(many.Choices) != 3 || many.Choices[2].Index != 2 || many.Usage.CompletionTokens > 15 {
		t.Errorf("three choices: %s", many.RawJSON())
	}
	if a, b, c := many.Choices[0].Message.Content, many.Choices[1].Message.Content, many.Choices[2].Message.Content; a == b && b == c {
		t.Errorf("all choices are %q", a)
	}
	if more := must(client.Chat.Completions.New(ctx, p))(t); more.Choices[1].Message.Content != many.Choices[1].Message.Content {
		t.Errorf("the same seed gives %q and %q", many.Choices[1].Message.Content, more.Choices[1].Message.Content)
	}

	var detail struct{ Classes []classView }
	s.get(t, "/v1/datasets/emoji?samples=1", &detail)
	stored := "/v1/datasets/emoji/images/" + detail.Classes[0].Samples[0].SHA256
	if a := must(client.Chat.Completions.New(ctx, asking("", stored)))(t); a.Choices[0].Message.Content == "" {
		t.Errorf("a stored image: %s", a.RawJSON())
	}
}

// TestImagesOnOtherHosts has OpenAI's client for Go name images by addresses on a host that the server may fetch from.
func TestImagesOnOtherHosts(t *testing.T) {
	bag, picture, mask := sampleImage(t, "fashion_bag.png"), square(t, 255), square(t, 0)
	host := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/bag.png", http.StatusFound)
		case "/inside":
			http.Redirect(w, r, "https://10.0.0.1/", http.StatusFound)
		case "/bag.png":
			w.Write(bag)
		case "/picture.png":
			w.Write(picture)
		case "/mask.png":
			w.Write(mask)
		default:
			io.WriteString(w, "no image")
		}
	}))
	t.Cleanup(host.Close)
	roots := x509.NewCertPool()
	roots.AddCert(host.Certificate())
	s := start(t, func(c *Config) {
		c.Fetch = must(fetch.New(fetch.Config{Hosts: []string{host.URL, "*"}, Networks: []string{"127.0.0.1"}, Roots: roots}))(t)
	})
	s.addGenerators(t)
	client, ctx := s.client(), t.Context()

	want := must(client.Chat.Completions.New(ctx, asking("", dataURL(t))))(t).Choices[0].Message.Content
	for _, path := range []string{"/bag.png", "/moved"} {
		if got := must(client.Chat.Completions.New(ctx, asking("", host.URL+path)))(t).Choices[0].Message.Content; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for address, words := range map[string]string{
		host.URL + "/text":               "image_url: not an image",
		host.URL + "/inside":             "https://10.0.0.1/: its host is at an address of another network",
		"https://169.254.169.254/":       "link-local",
		"https://127.0.0.1:1/bag.png":    "not among the hosts",
		"http" + host.URL[len("https"):]: "not among the hosts",
	} {
		_, err := client.Chat.Completions.New(ctx, asking("", address))
		if e := (*openai.Error)(nil); !errors.As(err, &e) || e.StatusCode != 400 || !strings.Contains(e.Message, words) {
			t.Errorf("%s: %v, want %s", address, err, words)
		}
	}
	classes := map[string]any{"image": host.URL + "/bag.png", "bundle": "starter", "classes": []string{"a bag", "a dog"}}
	var answer struct{ Scores []struct{ Class string } }
	if s.post(t, "/v1/classify", classes, 200, &answer); answer.Scores[0].Class != "a bag" {
		t.Errorf("classes %+v", answer)
	}

	// Edits by address are those by file. The client has no type for these requests, and sends them all the same.
	ours := []option.RequestOption{option.WithJSONSet("steps", 4), option.WithJSONSet("seed", 7), option.WithJSONSet("response_format", "b64_json")}
	edit := map[string]any{
		"model": "painter", "prompt": "a red cat", "images": []any{map[string]string{"image_url": host.URL + "/picture.png"}},
		"mask": map[string]string{"image_url": host.URL + "/mask.png"},
	}
	var edited openai.ImagesResponse
	check(t, client.Post(ctx, "images/edits", edit, &edited, ours...))
	contentType, body := form(t, map[string][]byte{"image": picture, "mask": mask}, map[string]string{
		"model": "painter", "prompt": "a red cat", "steps": "4", "seed": "7", "response_format": "b64_json",
	})
	_, b := s.send(t, "POST", "/v1/images/edits", contentType, bytes.NewReader(body))
	var byFile openai.ImagesResponse
	check(t, json.Unmarshal(b, &byFile))
	one, card := pngOf(t, base64Of(t, edited.Data[0].B64JSON))
	other, cardByFile := pngOf(t, base64Of(t, byFile.Data[0].B64JSON))
	if !same(one, other) || card.Image != cardByFile.Image || card.Mask != digestOf(mask) {
		t.Errorf("by address %+v, by file %+v", card, cardByFile)
	}
	for name, change := range map[string]map[string]any{
		"images: 0, must be 1":                   {"images": []any{}},
		"images[0].file_id is not supported":     {"images": []any{map[string]string{"file_id": "file-1"}}},
		"mask.image_url: the address begins":     {"mask": map[string]string{"image_url": "data:text/plain,a"}},
		"images[0].image_url: https://10.0.0.1/": {"images": []any{map[string]string{"image_url": host.URL + "/inside"}}},
	} {
		body := maps.Clone(edit)
		maps.Copy(body, change)
		status, b := s.send(t, "POST", "/v1/images/edits", "application/json", bytes.NewReader(must(json.Marshal(body))(t)))
		if status != 400 || !strings.Contains(string(b), name) {
			t.Errorf("%s: %d %s", name, status, b)
		}
	}
}

// TestAStreamedAnswerIsTheWholeOne compares the pieces with the answer that is not streamed.
func TestAStreamedAnswerIsTheWholeOne(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	client, ctx := s.client(), t.Context()
	p := asking("", dataURL(t))
	p.N, p.Seed, p.Temperature = openai.Int(2), openai.Int(3), openai.Float(1)
	whole := must(client.Chat.Completions.New(ctx, p))(t)
	p.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := client.Chat.Completions.NewStreaming(ctx, p)
	sum, pieces := openai.ChatCompletionAccumulator{}, 0
	for stream.Next() {
		chunk := stream.Current()
		if !sum.AddChunk(chunk) {
			t.Fatalf("a chunk that does not fit: %s", chunk.RawJSON())
		}
		for _, c := range chunk.Choices {
			if c.Delta.Content != "" {
				pieces++
			}
		}
	}
	check(t, stream.Err())
	for i, c := range whole.Choices {
		if got := sum.Choices[i]; got.Message.Content != c.Message.Content || got.FinishReason != c.FinishReason {
			t.Errorf("choice %d: streamed %q (%s), whole %q (%s)", i, got.Message.Content, got.FinishReason, c.Message.Content, c.FinishReason)
		}
	}
	if pieces < 4 {
		t.Errorf("%d pieces of two answers", pieces)
	}
	if sum.Usage.TotalTokens != whole.Usage.TotalTokens {
		t.Errorf("usage %+v and %+v", sum.Usage, whole.Usage)
	}

	_, raw := s.send(t, "POST", "/v1/chat/completions", "application/json", strings.NewReader(fmt.Sprintf(
		`{"model":"teller","stream":true,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":%q}}]}]}`, dataURL(t))))
	if text := string(raw); !strings.HasPrefix(text, `data: {`) || !strings.HasSuffix(text, "\n\ndata: [DONE]\n\n") || strings.Contains(text, "usage") {
		t.Errorf("the stream is\n%s", text)
	}
}

// TestStopTextsEndAnAnswer takes a part of an answer as the text to stop before.
func TestStopTextsEndAnAnswer(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	client := s.client()
	p := asking("", dataURL(t))
	text := must(client.Chat.Completions.New(t.Context(), p))(t).Choices[0].Message.Content
	if len(text) < 4 {
		t.Fatalf("the answer %q is too short for the test", text)
	}
	middle := text[len(text)/2:]
	p.Stop = openai.ChatCompletionNewParamsStopUnion{OfStringArray: []string{middle}}
	got := must(client.Chat.Completions.New(t.Context(), p))(t).Choices[0]
	want, _, _ := strings.Cut(text, middle)
	if got.Message.Content != want || got.FinishReason != "stop" {
		t.Errorf("%q stopped before %q: %q (%s), want %q", text, middle, got.Message.Content, got.FinishReason, want)
	}
}

func TestChatRefusals(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	user := func(parts ...any) []any { return []any{map[string]any{"role": "user", "content": parts}} }
	picture := map[string]any{"type": "image_url", "image_url": map[string]any{"url": dataURL(t)}}
	at := func(url string) map[string]any {
		return map[string]any{"type": "image_url", "image_url": map[string]any{"url": url}}
	}
	for name, c := range map[string]struct {
		change map[string]any
		status int
		words  string
	}{
		"no image":            {map[string]any{"messages": []any{map[string]any{"role": "user", "content": "what?"}}}, 400, "has no image"},
		"two images":          {map[string]any{"messages": user(picture, picture)}, 400, "2 images, must be 1"},
		"instructions":        {map[string]any{"messages": append([]any{map[string]any{"role": "system", "content": "be brief"}}, user(picture)...)}, 400, "takes no instructions"},
		"another host":        {map[string]any{"messages": user(at("https://example.org/a.png"))}, 400, "fetches nothing from other hosts"},
		"an address inside":   {map[string]any{"messages": user(at("http://169.254.169.254/latest"))}, 400, "fetches nothing from other hosts"},
		"a host in disguise":  {map[string]any{"messages": user(at("//example.org/v1/datasets/a/images/b"))}, 400, "fetches nothing from other hosts"},
		"a file":              {map[string]any{"messages": user(at("/etc/passwd"))}, 400, "must be a data URL"},
		"no such stored one":  {map[string]any{"messages": user(at("/v1/datasets/none/images/00"))}, 404, "none"},
		"sound":               {map[string]any{"messages": user(picture, map[string]any{"type": "input_audio"})}, 400, "input_audio"},
		"tools":               {map[string]any{"tools": []any{map[string]any{"type": "function"}}}, 400, "tools"},
		"logprobs":            {map[string]any{"logprobs": true}, 400, "logprobs"},
		"a frequency penalty": {map[string]any{"frequency_penalty": 0.5}, 400, "repetition_penalty"},
		"too warm":            {map[string]any{"temperature": 3}, 400, "temperature is 3"},
		"no choices":          {map[string]any{"n": 0}, 400, "n is 0"},
		"no tokens":           {map[string]any{"max_tokens": 0}, 400, "max_completion_tokens is 0"},
		"five stops":          {map[string]any{"stop": []string{"a", "b", "c", "d", "e"}}, 400, "stop has 5 texts"},
		"an unknown model":    {map[string]any{"model": "none"}, 404, "none"},
		"an encoder":          {map[string]any{"model": "starter"}, 400, "takes a captioner"},
	} {
		body := map[string]any{"model": "teller", "messages": user(picture)}
		for k, v := range c.change {
			body[k] = v
		}
		for _, stream := range []bool{false, true} {
			body["stream"] = stream
			status, b := s.send(t, "POST", "/v1/chat/completions", "application/json", bytes.NewReader(must(json.Marshal(body))(t)))
			if status != c.status || !strings.Contains(string(b), c.words) {
				t.Errorf("%s, streamed %v: %d %s", name, stream, status, b)
			}
		}
	}
	s.post(t, "/v1/classify", map[string]any{"image": dataURL(t), "bundle": "teller", "classes": []string{"a", "b"}}, 400, nil)
}

// TestDifferentImagesShareABatch asks for many captions at once.
func TestDifferentImagesShareABatch(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	client := s.client()
	images := []string{dataURL(t), "data:image/png;base64," + base64.StdEncoding.EncodeToString(sampleImage(t, "openmoji_animal_mammal.png"))}
	alone := make([]string, len(images))
	for i, image := range images {
		alone[i] = must(client.Chat.Completions.New(t.Context(), asking("", image)))(t).Choices[0].Message.Content
	}
	before := s.counter(t, "foretoken_caption_batches_total")
	const n = 8
	got := make([]string, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if a, err := client.Chat.Completions.New(t.Context(), asking("", images[i%2])); err == nil {
				got[i] = a.Choices[0].Message.Content
			}
		})
	}
	group.Wait()
	for i, text := range got {
		if text != alone[i%2] {
			t.Errorf("image %d: %q in company, %q alone", i%2, text, alone[i%2])
		}
	}
	if batches := s.counter(t, "foretoken_caption_batches_total") - before; batches > n/2 {
		t.Errorf("%d requests in %d batches", n, batches)
	}
}

// pngOf decodes a picture and its card.
func pngOf(t *testing.T, b []byte) (image.Image, pictureCard) {
	t.Helper()
	img := must(png.Decode(bytes.NewReader(b)))(t)
	var card pictureCard
	check(t, json.Unmarshal([]byte(must(vision.PNGText(b, "foretoken"))(t)), &card))
	return img, card
}

func base64Of(t *testing.T, s string) []byte { return must(base64.StdEncoding.DecodeString(s))(t) }

// TestOpenAIsClientDraws has OpenAI's client for Go make images, a streamed preview, an edit and
// variations.
func TestOpenAIsClientDraws(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	client, ctx := s.client(), t.Context()
	p := openai.ImageGenerateParams{Model: "painter", Prompt: "a cat of the red dog", N: openai.Int(2), ResponseFormat: openai.ImageGenerateParamsResponseFormatB64JSON}
	ours := []option.RequestOption{option.WithJSONSet("steps", 4), option.WithJSONSet("seed", 7), option.WithJSONSet("negative_prompt", "the dog")}
	two := must(client.Images.Generate(ctx, p, ours...))(t)
	if len(two.Data) != 2 {
		t.Fatalf("%d pictures", len(two.Data))
	}
	first, card := pngOf(t, base64Of(t, two.Data[0].B64JSON))
	if card.Seed != 7 || card.Steps != 4 || card.Prompt != p.Prompt || card.Negative != "the dog" || card.Bundle.Name != "painter" || card.Scheduler == "" || card.Guidance == 0 {
		t.Errorf("card %+v", card)
	}
	second, card := pngOf(t, base64Of(t, two.Data[1].B64JSON))
	if card.Seed != 8 || same(first, second) {
		t.Errorf("the second picture has seed %d, and is the first one: %v", card.Seed, same(first, second))
	}
	u := two.Usage
	if latents := int64(first.Bounds().Dx() * first.Bounds().Dy() / 4); u.OutputTokens != 2*latents || u.OutputTokensDetails.ImageTokens != u.OutputTokens {
		t.Errorf("usage %s of two pictures of %v", u.RawJSON(), first.Bounds())
	}
	if u.InputTokens != 8 || u.InputTokensDetails.TextTokens != 8 || u.InputTokensDetails.ImageTokens != 0 || u.TotalTokens != u.InputTokens+u.OutputTokens {
		t.Errorf("usage %s of %q without %q", u.RawJSON(), p.Prompt, card.Negative)
	}
	streamed := client.Images.GenerateStreaming(ctx, p, ours...)
	sum, pictures := int64(0), 0
	for ; streamed.Next(); pictures++ {
		sum += streamed.Current().Usage.TotalTokens
	}
	if check(t, streamed.Err()); pictures != 2 || sum != u.TotalTokens {
		t.Errorf("%d streamed pictures use %d tokens, want those of the whole answer, %d", pictures, sum, u.TotalTokens)
	}
	p.N, p.ResponseFormat = openai.Int(1), openai.ImageGenerateParamsResponseFormatURL
	one := must(client.Images.Generate(ctx, p, ours...))(t)
	answer := must(http.Get(one.Data[0].URL))(t)
	defer answer.Body.Close()
	if again, _ := pngOf(t, must(io.ReadAll(answer.Body))(t)); !same(first, again) {
		t.Error("the same seed draws another picture")
	}

	p.PartialImages = openai.Int(2)
	previews, done := drain(t, client.Images.GenerateStreaming(ctx, p, ours...), func(e openai.ImageGenStreamEventUnion) (string, string, int64) {
		return e.Type, e.B64JSON, e.PartialImageIndex
	})
	if len(previews) != 2 || len(done) != 1 {
		t.Fatalf("%d previews, %d pictures", len(previews), len(done))
	}
	if last, _ := pngOf(t, done[0]); !same(first, last) || same(first, must(png.Decode(bytes.NewReader(previews[0])))(t)) {
		t.Error("the streamed picture is another one, or the preview is the picture")
	}

	picture, mask := square(t, 255), square(t, 0)
	edit := func(parts int64) openai.ImageEditParams {
		return openai.ImageEditParams{
			Model: "painter", Prompt: "a red cat", Image: openai.ImageEditParamsImageUnion{OfFile: openai.File(bytes.NewReader(picture), "a.png", "image/png")},
			Mask: openai.File(bytes.NewReader(mask), "mask.png", "image/png"), ResponseFormat: openai.ImageEditParamsResponseFormatB64JSON, PartialImages: openai.Int(parts),
		}
	}
	var usage openai.ImageEditCompletedEventUsage
	previews, done = drain(t, client.Images.EditStreaming(ctx, edit(2)), func(e openai.ImageEditStreamEventUnion) (string, string, int64) {
		usage = e.Usage
		return e.Type, e.B64JSON, e.PartialImageIndex
	})
	if len(previews) != 2 || len(done) != 1 {
		t.Fatalf("%d previews of the edit, %d pictures", len(previews), len(done))
	}
	last, card := pngOf(t, done[0])
	if card.Task != "image_edit" || card.Image != digestOf(picture) || card.Mask != digestOf(mask) {
		t.Errorf("the edit's card %+v", card)
	}
	if same(last, must(png.Decode(bytes.NewReader(previews[0])))(t)) {
		t.Error("the preview of the edit is the picture")
	}
	again := edit(0) // with the seed that was drawn: where it streams, the client sends no fields of its caller's
	again.SetExtraFields(map[string]any{"seed": strconv.FormatUint(card.Seed, 10)})
	edited := must(client.Images.Edit(ctx, again))(t)
	if whole, _ := pngOf(t, base64Of(t, edited.Data[0].B64JSON)); !same(whole, last) {
		t.Error("the streamed edit is another one")
	}
	if usage.InputTokensDetails.TextTokens != 3 || usage.InputTokensDetails.ImageTokens != usage.OutputTokens || usage.TotalTokens != 3+2*usage.OutputTokens || usage.TotalTokens != edited.Usage.TotalTokens {
		t.Errorf("the streamed edit's usage is %s, the edit's %s", usage.RawJSON(), edited.Usage.RawJSON())
	}
	var varied struct{ Data []struct{ URL string } }
	contentType, body := form(t, map[string][]byte{"image": picture}, map[string]string{"model": "painter", "n": "2", "steps": "4"})
	status, b := s.send(t, "POST", "/v1/images/variations", contentType, bytes.NewReader(body))
	check(t, json.Unmarshal(b, &varied))
	if status != 200 || len(varied.Data) != 2 || varied.Data[0].URL == "" {
		t.Errorf("variations: %d %s", status, b)
	}
}

// drain reads a stream of pictures.
func drain[T any](t *testing.T, stream *ssestream.Stream[T], read func(T) (kind, picture string, index int64)) (previews, done [][]byte) {
	t.Helper()
	for stream.Next() {
		kind, picture, index := read(stream.Current())
		switch {
		case strings.HasSuffix(kind, ".partial_image"):
			if int(index) != len(previews) {
				t.Errorf("preview %d comes as number %d", len(previews), index)
			}
			previews = append(previews, base64Of(t, picture))
		case strings.HasSuffix(kind, ".completed"):
			done = append(done, base64Of(t, picture))
		default:
			t.Errorf("an event of type %q", kind)
		}
	}
	check(t, stream.Err())
	return previews, done
}

func same(a, b image.Image) bool {
	if a.Bounds() != b.Bounds() {
		return false
	}
	for y := range a.Bounds().Dy() {
		for x := range a.Bounds().Dx() {
			if color.NRGBAModel.Convert(a.At(x, y)) != color.NRGBAModel.Convert(b.At(x, y)) {
				return false
			}
		}
	}
	return true
}

// square is a PNG of 32 x 32 grey pixels; those in its left half have the alpha.
func square(t *testing.T, alpha uint8) []byte {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, 32, 32))
	for y := range 32 {
		for x := range 32 {
			c := color.NRGBA{uint8(8 * x), uint8(8 * y), 128, 255}
			if x < 16 {
				c.A = alpha
			}
			img.SetNRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	check(t, png.Encode(&b, img))
	return b.Bytes()
}

// form is a multipart body.
func form(t *testing.T, files map[string][]byte, fields map[string]string) (contentType string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, file := range files {
		part := must(w.CreateFormFile(name, name+".png"))(t)
		must(part.Write(file))(t)
	}
	for name, value := range fields {
		check(t, w.WriteField(name, value))
	}
	check(t, w.Close())
	return w.FormDataContentType(), b.Bytes()
}

func TestImageRefusals(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	for name, c := range map[string]struct {
		change map[string]any
		status int
		words  string
	}{
		"no words":         {map[string]any{"prompt": " "}, 400, "prompt is empty"},
		"eleven pictures":  {map[string]any{"n": 11}, 400, "n is 11"},
		"a size in words":  {map[string]any{"size": "large"}, 400, "size is \\\"large\\\""},
		"an odd size":      {map[string]any{"size": "33x32"}, 400, "33"},
		"a jpeg":           {map[string]any{"output_format": "jpeg"}, 400, "output_format"},
		"no background":    {map[string]any{"background": "transparent"}, 400, "background"},
		"silent previews":  {map[string]any{"partial_images": 2}, 400, "set stream"},
		"no scheduler":     {map[string]any{"scheduler": "magic"}, 422, "magic"},
		"noise of euler":   {map[string]any{"scheduler": "euler", "eta": 0.5}, 400, "eta 0.5 with euler"},
		"too much noise":   {map[string]any{"scheduler": "ddim", "eta": 1.5}, 400, "eta is 1.5"},
		"no such prompt":   {map[string]any{"prompts": []string{"none"}}, 404, "none"},
		"an unknown model": {map[string]any{"model": "none"}, 404, "none"},
		"a captioner":      {map[string]any{"model": "teller"}, 400, "takes a diffusion"},
	} {
		body := map[string]any{"model": "painter", "prompt": "a cat"}
		for k, v := range c.change {
			body[k] = v
		}
		status, b := s.send(t, "POST", "/v1/images/generations", "application/json", bytes.NewReader(must(json.Marshal(body))(t)))
		if status != c.status || !strings.Contains(string(b), c.words) {
			t.Errorf("%s: %d %s", name, status, b)
		}
	}
	picture := square(t, 255)
	for name, c := range map[string]struct {
		path   string
		files  map[string][]byte
		fields map[string]string
		words  string
	}{
		"no image":             {"edits", nil, map[string]string{"prompt": "a cat"}, `no part`},
		"no words":             {"edits", map[string][]byte{"image": picture}, nil, "prompt is empty"},
		"a mask for nothing":   {"edits", map[string][]byte{"image": picture, "mask": picture}, map[string]string{"prompt": "a cat"}, "marks nothing"},
		"a small mask":         {"edits", map[string][]byte{"image": sampleImage(t, "fashion_bag.png"), "mask": square(t, 0)}, map[string]string{"prompt": "a cat"}, "as large as each other"},
		"a mask for variation": {"variations", map[string][]byte{"image": picture, "mask": square(t, 0)}, nil, "takes no mask"},
		"n in words":           {"variations", map[string][]byte{"image": picture}, map[string]string{"n": "two"}, "whole number"},
	} {
		fields := map[string]string{"model": "painter"}
		for k, v := range c.fields {
			fields[k] = v
		}
		contentType, body := form(t, c.files, fields)
		status, b := s.send(t, "POST", "/v1/images/"+c.path, contentType, bytes.NewReader(body))
		if status != 400 || !strings.Contains(string(b), c.words) {
			t.Errorf("%s: %d %s", name, status, b)
		}
	}
}

// TestUnsafePicturesAreNotShown takes a bundle whose checker finds some seeds unsafe.
func TestUnsafePicturesAreNotShown(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	ask := func(seed, n int) (int, []byte) {
		contentType, body := form(t, map[string][]byte{"image": square(t, 255), "mask": square(t, 0)}, map[string]string{
			"model": "checked", "prompt": "a cat of the red dog", "negative_prompt": "the dog", "steps": "10", "guidance": "4",
			"seed": strconv.Itoa(seed), "n": strconv.Itoa(n), "response_format": "b64_json",
		})
		return s.send(t, "POST", "/v1/images/edits", contentType, bytes.NewReader(body))
	}
	status, b := ask(0, 10)
	if status != 200 {
		t.Fatalf("%d %s", status, b)
	}
	var v struct {
		Data []struct {
			Seed   int
			Unsafe bool
			Image  string `json:"b64_json"`
		}
	}
	check(t, json.Unmarshal(b, &v))
	unsafe := -1
	for _, d := range v.Data {
		img, _ := pngOf(t, base64Of(t, d.Image))
		black := same(img, blackOf(img))
		if black != d.Unsafe {
			t.Errorf("seed %d: unsafe %v, black %v", d.Seed, d.Unsafe, black)
		}
		if d.Unsafe {
			unsafe = d.Seed
		}
	}
	if unsafe < 0 {
		t.Fatal("no seed is unsafe: the test tests nothing")
	}
	if status, b := ask(unsafe, 1); status != 400 || !strings.Contains(string(b), "content_policy_violation") {
		t.Errorf("an unsafe picture alone: %d %s", status, b)
	}
}

func blackOf(img image.Image) image.Image {
	black := image.NewNRGBA(img.Bounds())
	for i := 3; i < len(black.Pix); i += 4 {
		black.Pix[i] = 255
	}
	return black
}

// TestAFullQueueSaysWhenToComeAgain asks for more pictures than may wait.
func TestAFullQueueSaysWhenToComeAgain(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	client := s.client()
	var group sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		group.Go(func() {
			_, errs[i] = client.Images.Generate(t.Context(), openai.ImageGenerateParams{Model: "painter", Prompt: "a cat", N: openai.Int(10)}, option.WithJSONSet("steps", 20))
		})
	}
	group.Wait()
	full := 0
	for _, err := range errs {
		e := (*openai.Error)(nil)
		if err == nil {
			continue
		}
		if !errors.As(err, &e) || e.StatusCode != http.StatusTooManyRequests || e.Code != "quota" {
			t.Fatalf("%v", err)
		}
		if after, err := strconv.Atoi(e.Response.Header.Get("Retry-After")); err != nil || after < 1 {
			t.Errorf("Retry-After is %q", e.Response.Header.Get("Retry-After"))
		}
		full++
	}
	if full == 0 || full == len(errs) {
		t.Errorf("%d of %d requests were refused", full, len(errs))
	}
}

// TestAClientThatGoesEndsItsPictures breaks off a long drawing.
func TestAClientThatGoesEndsItsPictures(t *testing.T) {
	s := start(t, nil)
	s.addGenerators(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := s.client()
	stream := client.Images.GenerateStreaming(ctx, openai.ImageGenerateParams{Model: "painter", Prompt: "a cat", N: openai.Int(10)},
		option.WithJSONSet("steps", 500), option.WithJSONSet("progress", true))
	if !stream.Next() {
		t.Fatal(stream.Err())
	}
	cancel()
	for deadline := time.Now().Add(30 * time.Second); s.counter(t, "foretoken_picture_batch_seconds_count") == 0 || s.counter(t, "foretoken_pictures_queued") > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it draws on")
		}
	}
	if n := s.counter(t, "foretoken_pictures_total"); n != 4 {
		t.Errorf("%d pictures were begun, want the first batch's 4", n)
	}
}
