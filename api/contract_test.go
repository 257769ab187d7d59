package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/prompt/embeds"
	"github.com/foretoken/foretoken/prompt/pickle"
	"github.com/foretoken/foretoken/storage"
)

// contract validates live requests and answers against the OpenAPI document.
type contract struct {
	*service
	router routers.Router
	doc    *openapi3.T
	seen   map[string]bool
}

func newContract(t *testing.T, s *service) *contract {
	t.Helper()
	openapi3filter.RegisterBodyDecoder("application/zip", openapi3filter.FileBodyDecoder)
	openapi3filter.RegisterBodyDecoder("image/png", openapi3filter.FileBodyDecoder)
	openapi3filter.RegisterBodyDecoder("image/jpeg", openapi3filter.FileBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/event-stream", openapi3filter.FileBodyDecoder)
	doc := must(openapi3.NewLoader().LoadFromData(must(files.ReadFile("openapi.yaml"))(t)))(t)
	check(t, doc.Validate(t.Context()))
	return &contract{s, must(gorillamux.NewRouter(doc))(t), doc, map[string]bool{}}
}

// ask makes a request and checks both it and the answer, which has to have the status.
func (c *contract) ask(t *testing.T, method, path, contentType string, body []byte, status int) []byte {
	t.Helper()
	request := must(http.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body)))(t)
	request.Header.Set("Authorization", "Bearer "+c.key)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	route, params, err := c.router.FindRoute(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	c.seen[route.Operation.OperationID] = true
	input := &openapi3filter.RequestValidationInput{
		Request: request, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
	if status < 400 {
		if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
			t.Errorf("%s %s: the request breaks the contract: %v", method, path, err)
		}
	}
	live := must(http.NewRequestWithContext(t.Context(), method, c.URL+path, bytes.NewReader(body)))(t)
	live.Header = request.Header
	answer := must(http.DefaultClient.Do(live))(t)
	defer answer.Body.Close()
	b := must(io.ReadAll(answer.Body))(t)
	if answer.StatusCode != status {
		t.Fatalf("%s %s: %d, want %d: %.500s", method, path, answer.StatusCode, status, b)
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: answer.StatusCode, Header: answer.Header, Body: io.NopCloser(bytes.NewReader(b)),
	})
	if err != nil {
		t.Errorf("%s %s: the answer breaks the contract: %v\n%.800s", method, path, err, b)
	}
	return b
}

func (c *contract) askJSON(t *testing.T, path string, in any, status int, into any) {
	t.Helper()
	b := c.ask(t, "POST", path, "application/json", must(json.Marshal(in))(t), status)
	if into != nil {
		check(t, json.Unmarshal(b, into))
	}
}

// joined imports a concept of SDXL from diffusers' two files.
func (c *contract) joined(t *testing.T) {
	t.Helper()
	b := must(bundle.Open("../generation/diffusion/testdata/xl"))(t)
	check(t, c.Catalog.PutBundle(t.Context(), storage.Bundle{Name: "xl", Digest: b.Digest, Dir: b.Dir, Created: time.Now()}))
	send := func(status int, files ...string) []byte {
		t.Helper()
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		for _, file := range files {
			part := must(w.CreateFormFile("file", file))(t)
			width := map[string]int64{"learned_embeds.bin": 16, "learned_embeds_2.bin": 24}[file]
			check(t, pickle.Write(part, pickle.NewDict("<two>", graph.NewTensor(make([]float32, 2*width), 2, width))))
		}
		check(t, w.Close())
		return c.ask(t, "POST", "/v1/prompts/import?bundle=xl", w.FormDataContentType(), form.Bytes(), status)
	}
	var p promptView
	check(t, json.Unmarshal(send(201, "learned_embeds.bin", "learned_embeds_2.bin"), &p))
	if p.Name != "two" || p.Bundle != "xl" || p.Kind != "concept" {
		t.Errorf("imported as %+v", p)
	}
	e := must(embeds.Read(c.ask(t, "GET", "/v1/prompts/two/file?format=sdxl", "", nil, 200), "two"))(t)
	if e.First.Dims[1] != 16 || e.Second.Dims[1] != 24 {
		t.Errorf("exported as %v and %v", e.First.Dims, e.Second.Dims)
	}
	for _, files := range [][]string{{"learned_embeds.bin"}, {"learned_embeds_2.bin", "learned_embeds.bin"}, {"learned_embeds.bin", "learned_embeds.bin", "learned_embeds.bin"}} {
		send(400, files...)
	}
}

// concepts imports and exports a concept.
func (c *contract) concepts(t *testing.T) {
	t.Helper()
	b := must(bundle.Open("../generation/diffusion/testdata/sd"))(t)
	check(t, c.Catalog.PutBundle(t.Context(), storage.Bundle{Name: "sd", Digest: b.Digest, Dir: b.Dir, Created: time.Now()}))
	const width = 16 // of the fixture's text encoder
	var file bytes.Buffer
	check(t, pickle.Write(&file, pickle.NewDict("<mug>", graph.NewTensor(make([]float32, 2*width), 2, width))))
	const binary = "application/octet-stream"
	var p promptView
	check(t, json.Unmarshal(c.ask(t, "POST", "/v1/prompts/import?bundle=sd&file=learned_embeds.bin", binary, file.Bytes(), 201), &p))
	if p.Name != "mug" || p.Revision != 1 || p.Bundle != "sd" {
		t.Errorf("imported as %+v", p)
	}
	for _, format := range []string{"diffusers", "diffusers-bin", "a1111", "a1111-tensors"} {
		out := c.ask(t, "GET", "/v1/prompts/mug/file?format="+format, "", nil, 200)
		e := must(embeds.Read(out, "mug"))(t)
		if e.First.Dims[0] != 2 || e.First.Dims[1] != width {
			t.Errorf("%s: exported as %v", format, e.First.Dims)
		}
	}
	c.ask(t, "GET", "/v1/prompts/mug/file?format=sdxl", "", nil, 400)
	c.ask(t, "POST", "/v1/prompts/import?bundle=starter&file=a.bin", binary, file.Bytes(), 400)
	c.ask(t, "POST", "/v1/prompts/import?bundle=none&file=a.bin", binary, file.Bytes(), 404)
	c.ask(t, "POST", "/v1/prompts/import?bundle=sd&name=a/b", binary, file.Bytes(), 400)
	c.ask(t, "POST", "/v1/prompts/import?bundle=sd&kind=negative&name=bad", binary, file.Bytes(), 201)
	c.joined(t)
	hostile := must(os.ReadFile("../prompt/pickle/testdata/hostile_system.pt"))(t)
	if answer := c.ask(t, "POST", "/v1/prompts/import?bundle=sd", binary, hostile, 400); !bytes.Contains(answer, []byte("posix.system")) {
		t.Errorf("a malicious file: %s", answer)
	}
}

// TestTheWholeServiceKeepsItsContract goes once through every operation of the document.
func TestTheWholeServiceKeepsItsContract(t *testing.T) {
	c := newContract(t, start(t, nil))
	c.ask(t, "GET", "/healthz", "", nil, 200)
	c.ask(t, "GET", "/v1/bundles", "", nil, 200)
	c.askJSON(t, "/v1/bundles", map[string]string{"name": "again", "dir": must(c.Catalog.Bundle(t.Context(), "starter"))(t).Dir}, 201, nil)
	c.askJSON(t, "/v1/bundles", map[string]string{"dir": "relative"}, 400, nil)
	c.ask(t, "GET", "/v1/recipes", "", nil, 200)
	c.ask(t, "GET", "/v1/recipes/coop", "", nil, 200)
	c.ask(t, "GET", "/v1/recipes/none", "", nil, 404)

	c.ask(t, "POST", "/v1/datasets?name=emoji&seed=3", "application/zip", demoZip(t, "openmoji", 2, 2), 201)
	c.ask(t, "POST", "/v1/datasets?name=../up", "application/zip", demoZip(t, "openmoji", 1, 1), 400)
	c.ask(t, "POST", "/v1/datasets?name=broken", "application/zip", []byte("no zip"), 400)
	c.ask(t, "GET", "/v1/datasets", "", nil, 200)
	var detail struct{ Classes []classView }
	check(t, json.Unmarshal(c.ask(t, "GET", "/v1/datasets/emoji?samples=2", "", nil, 200), &detail))
	sha := detail.Classes[0].Samples[0].SHA256
	c.ask(t, "GET", "/v1/datasets/emoji/images/"+sha, "", nil, 200)
	c.ask(t, "GET", "/v1/datasets/emoji/images/"+sha+"?size=32", "", nil, 200)
	c.ask(t, "GET", "/v1/datasets/emoji/images/"+sha+"?size=1", "", nil, 400)
	c.ask(t, "GET", "/v1/datasets/none", "", nil, 404)
	c.ask(t, "POST", "/v1/datasets?name=captions", "application/zip", captionedZip(t, 0, 1), 201)
	var captioned struct{ Items []itemView }
	check(t, json.Unmarshal(c.ask(t, "GET", "/v1/datasets/captions?samples=1", "", nil, 200), &captioned))
	if len(captioned.Items) != 1 || !slices.Equal(captioned.Items[0].Captions, []string{"eine Zeichnung: Ski"}) {
		t.Errorf("items %+v", captioned.Items)
	}
	c.askJSON(t, "/v1/search", map[string]any{"dataset": "captions", "bundle": "starter", "query": "a bag"}, 200, nil)
	c.askJSON(t, "/v1/evaluations", map[string]any{"dataset": "captions", "bundle": "starter"}, 400, nil)

	var r runView
	c.askJSON(t, "/v1/runs", map[string]any{"dataset": "emoji", "bundle": "starter", "recipe": quick(t, "coop"), "shots": 2, "prompt": "p", "seed": 7}, 201, &r)
	events := string(c.ask(t, "GET", "/v1/runs/"+r.ID+"/events", "", nil, 200))
	for _, want := range []string{"event: step\n", "event: state\n", `"state":"done"`, `"seconds_left"`} {
		if !strings.Contains(events, want) {
			t.Errorf("the events lack %s:\n%s", want, events)
		}
	}
	c.ask(t, "GET", "/v1/runs/"+r.ID, "", nil, 200)
	c.ask(t, "GET", "/v1/runs", "", nil, 200)
	c.ask(t, "GET", "/v1/runs/none", "", nil, 404)
	c.concepts(t)
	c.ask(t, "GET", "/v1/prompts/p/file?format=diffusers", "", nil, 400)
	c.askJSON(t, "/v1/runs/"+r.ID+"/cancel", struct{}{}, 409, nil)
	c.askJSON(t, "/v1/runs", map[string]any{"dataset": "none", "bundle": "starter", "recipe": "coop"}, 404, nil)
	c.askJSON(t, "/v1/runs", map[string]any{"dataset": "emoji", "bundle": "starter", "recipe": "none"}, 404, nil)
	c.askJSON(t, "/v1/runs", map[string]any{"dataset": "emoji", "typo": 1}, 400, nil)
	c.askJSON(t, "/v1/runs", map[string]any{"dataset": "captions", "bundle": "starter", "recipe": "coop"}, 400, nil)
	c.askJSON(t, "/v1/runs", map[string]any{"dataset": "emoji", "bundle": "starter", "recipe": "caption-prefix"}, 400, nil)

	c.ask(t, "GET", "/v1/prompts", "", nil, 200)
	c.ask(t, "GET", "/v1/prompts?revisions=all", "", nil, 200)
	c.ask(t, "GET", "/v1/prompts/p@1", "", nil, 200)
	c.ask(t, "GET", "/v1/prompts/p/file", "", nil, 200)
	c.askJSON(t, "/v1/prompts/p/promote", map[string]int{"revision": 1}, 200, nil)
	c.askJSON(t, "/v1/prompts/p/promote", map[string]int{"revision": 9}, 404, nil)
	c.ask(t, "GET", "/v1/prompts/p@x", "", nil, 400)

	c.answers(t)
	c.ask(t, "GET", "/v1/models", "", nil, 200)
	c.ask(t, "GET", "/v1/models/p", "", nil, 200)
	c.ask(t, "GET", "/v1/models/none", "", nil, 404)
	for _, format := range []string{"float", "base64"} {
		c.askJSON(t, "/v1/embeddings", map[string]any{"model": "p", "input": []string{"a cat", dataURL(t)}, "encoding_format": format}, 200, nil)
	}
	c.generation(t)
	var k keyView
	c.askJSON(t, "/v1/keys", map[string]string{"name": "second"}, 201, &k)
	c.ask(t, "GET", "/v1/keys", "", nil, 200)
	c.ask(t, "DELETE", "/v1/keys/"+k.ID, "", nil, 204)
	c.ask(t, "DELETE", "/v1/keys/none", "", nil, 404)
	c.ask(t, "GET", "/metrics", "", nil, 200)
	c.everyOperationSeen(t)
}

func dataURL(t *testing.T) string {
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(sampleImage(t, "fashion_bag.png"))
}

// answers asks for classes, images and scores.
func (c *contract) answers(t *testing.T) {
	t.Helper()
	image := dataURL(t)
	var plain, tuned struct{ Scores []struct{ Class string } }
	c.askJSON(t, "/v1/classify", map[string]any{"image": image, "prompt": "p"}, 200, &tuned)
	c.askJSON(t, "/v1/classify", map[string]any{"image": image, "bundle": "starter", "classes": []string{"cat", "dog"}}, 200, &plain)
	if len(tuned.Scores) != 11 || len(plain.Scores) != 2 {
		t.Errorf("%d and %d classes", len(tuned.Scores), len(plain.Scores))
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part := must(w.CreateFormFile("image", "a.png"))(t)
	part.Write(sampleImage(t, "fashion_bag.png"))
	check(t, w.WriteField("prompt", "p"))
	check(t, w.WriteField("classes", `["cat","dog","bag"]`))
	check(t, w.Close())
	c.ask(t, "POST", "/v1/classify", w.FormDataContentType(), form.Bytes(), 200)
	for _, bad := range []map[string]any{
		{"image": image},
		{"image": "http://example.org/a.png", "prompt": "p"},
		{"image": "data:image/png;base64,AAAA", "prompt": "p"},
		{"image": image, "bundle": "starter", "classes": []string{"one"}},
		{"image": image, "bundle": "starter", "classes": []string{"a", " "}},
	} {
		c.askJSON(t, "/v1/classify", bad, 400, nil)
	}
	c.askJSON(t, "/v1/search", map[string]any{"dataset": "emoji", "query": "an animal", "bundle": "starter", "limit": 3, "split": "test"}, 200, nil)
	c.askJSON(t, "/v1/search", map[string]any{"dataset": "emoji", "query": "an animal", "prompt": "p"}, 200, nil)
	c.askJSON(t, "/v1/search", map[string]any{"dataset": "emoji", "query": " ", "bundle": "starter"}, 400, nil)
	c.askJSON(t, "/v1/evaluations", map[string]any{"dataset": "emoji", "prompt": "p"}, 200, nil)
	c.askJSON(t, "/v1/evaluations", map[string]any{"dataset": "emoji", "bundle": "starter"}, 200, nil)
}

// generation makes captions and pictures.
func (c *contract) generation(t *testing.T) {
	t.Helper()
	c.addGenerators(t)
	for name, dir := range map[string]string{"vitgpt2": "generation/caption/testdata/vitgpt2", "sd": "generation/diffusion/testdata/sd"} {
		c.askJSON(t, "/v1/bundles", map[string]string{"name": name, "dir": must(filepath.Abs("../" + dir))(t)}, 201, nil)
	}
	message := []any{map[string]any{"role": "user", "content": []any{
		map[string]any{"type": "text", "text": "what is this?"}, map[string]any{"type": "image_url", "image_url": map[string]any{"url": dataURL(t)}},
	}}}
	for _, stream := range []bool{false, true} {
		c.askJSON(t, "/v1/chat/completions", map[string]any{"model": "teller", "messages": message, "stream": stream, "n": 2, "seed": 3, "stop": []string{"zebra"}}, 200, nil)
		picture := map[string]any{"model": "painter", "prompt": "a cat", "stream": stream, "n": 2, "seed": 3, "steps": 2, "scheduler": "ddim", "eta": 0.5, "progress": true}
		b := c.ask(t, "POST", "/v1/images/generations", "application/json", must(json.Marshal(picture))(t), 200)
		if n := strings.Count(string(b), "event: image_generation.progress\n"); stream && n != 4 {
			t.Errorf("%d events of progress, want one for each of two steps of two pictures", n)
		}
	}
	c.askJSON(t, "/v1/chat/completions", map[string]any{"model": "teller", "messages": []any{}}, 400, nil)
	c.askJSON(t, "/v1/images/generations", map[string]any{"model": "painter", "prompt": ""}, 400, nil)
	contentType, body := form(t, map[string][]byte{"image": square(t, 255), "mask": square(t, 0)}, map[string]string{"model": "painter", "prompt": "a cat", "steps": "2", "n": "1"})
	c.ask(t, "POST", "/v1/images/edits", contentType, body, 200)
	images := []any{map[string]string{"image_url": dataURL(t)}}
	c.askJSON(t, "/v1/images/edits", map[string]any{"model": "painter", "prompt": "a cat", "images": images, "steps": 2, "size": "32x32"}, 200, nil)
	c.askJSON(t, "/v1/images/variations", map[string]any{"model": "painter", "images": images, "steps": 2, "size": "32x32"}, 200, nil)
	contentType, body = form(t, map[string][]byte{"image": square(t, 255)}, map[string]string{"model": "painter", "steps": "2", "strength": "0.6"})
	c.ask(t, "POST", "/v1/images/variations", contentType, body, 200)
	contentType, body = form(t, nil, map[string]string{"model": "painter"})
	c.ask(t, "POST", "/v1/images/variations", contentType, body, 400)
}

func (c *contract) everyOperationSeen(t *testing.T) {
	t.Helper()
	for path, item := range c.doc.Paths.Map() {
		for method, operation := range item.Operations() {
			if !c.seen[operation.OperationID] {
				t.Errorf("%s %s was not asked", method, path)
			}
		}
	}
}

func TestTheDocumentNamesEveryRoute(t *testing.T) {
	s := start(t, nil)
	c := newContract(t, s)
	var documented []string
	for path, item := range c.doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	served := []string{}
	for _, r := range routesOf(s.Config) {
		if slices.Contains([]string{"/", "/app.js", "/style.css", "/openapi.yaml"}, r.Path) {
			continue
		}
		parts := strings.Split(r.Path, "/")
		for i, p := range parts {
			if strings.HasPrefix(p, ":") {
				parts[i] = "{" + p[1:] + "}"
			}
		}
		served = append(served, r.Method+" "+strings.Join(parts, "/"))
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented\n%s\nserved\n%s", strings.Join(documented, "\n"), strings.Join(served, "\n"))
	}
}

func TestKeysAreNeeded(t *testing.T) {
	s := start(t, nil)
	ask := func(header string) int {
		r := must(http.NewRequestWithContext(t.Context(), "GET", s.URL+"/v1/bundles?key="+url.QueryEscape(s.key), nil))(t)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		answer := must(http.DefaultClient.Do(r))(t)
		answer.Body.Close()
		return answer.StatusCode
	}
	for header, want := range map[string]int{"": 401, "Bearer ": 401, "Bearer ft_WRONG": 401, "Basic " + s.key: 401, "Bearer " + s.key: 200} {
		if got := ask(header); got != want {
			t.Errorf("%q: %d, want %d", strings.ReplaceAll(header, s.key, "KEY"), got, want)
		}
	}
	check(t, s.Catalog.RevokeKey(t.Context(), must(s.Catalog.Keys(t.Context()))(t)[0].ID))
	if got := ask("Bearer " + s.key); got != 401 {
		t.Errorf("a revoked key: %d", got)
	}
	if logs := s.logs.String(); strings.Contains(logs, s.key) || !strings.Contains(logs, "/v1/bundles") {
		t.Errorf("the log has the key, or no line:\n%s", logs)
	}
}

func TestLimits(t *testing.T) {
	s := start(t, func(c *Config) { c.MaxUpload = 10_000 })
	for path, body := range map[string]io.Reader{
		"/v1/runs":              strings.NewReader(`{"dataset":"` + strings.Repeat("x", maxJSON) + `"}`),
		"/v1/datasets?name=big": struct{ io.Reader }{bytes.NewReader(make([]byte, 20_000))}, // of unknown length
	} {
		status, b := s.send(t, "POST", path, "application/json", body)
		if status != http.StatusRequestEntityTooLarge || !strings.Contains(string(b), "limit of") {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
	for o := range s.Objects.List(t.Context(), "uploads/") {
		t.Errorf("an upload is left: %s", o.Key)
	}
}

func TestWhatIsNotThere(t *testing.T) {
	s := start(t, nil)
	for ask, want := range map[string]int{"GET /nothing": 404, "GET /v1/nothing": 404, "POST /healthz": 405, "GET /v1/classify": 405} {
		method, path, _ := strings.Cut(ask, " ")
		status, b := s.send(t, method, path, "", nil)
		var body struct{ Error errorBody }
		if json.Unmarshal(b, &body) != nil || status != want || body.Error.Message == "" {
			t.Errorf("%s: %d %s", ask, status, b)
		}
	}
}

func TestAHostileZipIsRefusedByItsEntry(t *testing.T) {
	s := start(t, nil)
	status, b := s.send(t, "POST", "/v1/datasets?name=evil", "application/zip", bytes.NewReader(slipZip(t)))
	if status != 400 || !strings.Contains(string(b), "../../etc/cron.d/x.png") {
		t.Errorf("%d %s", status, b)
	}
	var l list[datasetView]
	s.get(t, "/v1/datasets", &l)
	if len(l.Data) != 0 {
		t.Errorf("it is there: %+v", l.Data)
	}
}

func TestEventsContinueAfterTheLastOneSeen(t *testing.T) {
	s := start(t, nil)
	s.upload(t, "emoji", demoZip(t, "openmoji", 2, 1))
	r := s.tune(t, "emoji", "coop", "p")
	read := func(last string) string {
		request := must(http.NewRequestWithContext(t.Context(), "GET", s.URL+"/v1/runs/"+r.ID+"/events", nil))(t)
		request.Header.Set("Authorization", "Bearer "+s.key)
		request.Header.Set("Last-Event-ID", last)
		answer := must(http.DefaultClient.Do(request))(t)
		defer answer.Body.Close()
		return string(must(io.ReadAll(answer.Body))(t))
	}
	all := strings.Split(strings.TrimSpace(read("")), "\n\n")
	rest := strings.Split(strings.TrimSpace(read("1")), "\n\n")
	if len(all) < 3 || !slices.Equal(all[1:], rest) {
		t.Errorf("%d events in all, %d after the first", len(all), len(rest))
	}
	if !strings.HasPrefix(all[0], fmt.Sprintf("id: %d\nevent: state\n", 1)) {
		t.Errorf("the first event is %q", all[0])
	}
}
