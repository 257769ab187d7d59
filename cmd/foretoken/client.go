package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/foretoken/foretoken/internal/errs"
)

// client talks to a server's API.
type client struct {
	url, key string
}

// newClient reads FORETOKEN_URL and FORETOKEN_API_KEY.
func newClient() *client {
	c := &client{url: strings.TrimRight(os.Getenv("FORETOKEN_URL"), "/"), key: os.Getenv("FORETOKEN_API_KEY")}
	if c.url == "" {
		c.url = "http://" + defaultListen
	}
	return c
}

// send makes a request and returns the answer, or the error that it carries.
func (c *client) send(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return nil, errs.New(errs.Invalid, "FORETOKEN_URL %q: %w", c.url, err)
	}
	r.Header.Set("Authorization", "Bearer "+c.key)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	answer, err := http.DefaultClient.Do(r)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errs.New(errs.Unavailable, "no server answers at %s: start one with `foretoken serve`, or set FORETOKEN_URL", c.url)
	}
	if err != nil {
		return nil, errs.New(errs.Or(err, errs.Unavailable), "%s: %w", c.url, err)
	}
	if answer.StatusCode < http.StatusBadRequest {
		return answer, nil
	}
	defer answer.Body.Close()
	return nil, c.problem(answer)
}

// problem turns an error answer into the error that the server had.
func (c *client) problem(answer *http.Response) error {
	var in struct {
		Error struct{ Message, Code string }
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil || json.Unmarshal(b, &in) != nil || in.Error.Message == "" {
		return errs.New(errs.Unavailable, "%s answered %s: is that a foretoken server?", c.url, answer.Status)
	}
	kind := errs.Parse(in.Error.Code)
	if kind == errs.Unauthorized && c.key == "" {
		return errs.New(kind, "FORETOKEN_API_KEY is not set: set it to the key that `foretoken serve` showed at its first start")
	}
	return errs.New(kind, "%s", in.Error.Message)
}

// get reads JSON.
func (c *client) get(ctx context.Context, path string, into any) error {
	answer, err := c.send(ctx, http.MethodGet, path, "", nil)
	return decode(answer, err, into)
}

// post sends JSON and reads JSON.
func (c *client) post(ctx context.Context, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	answer, err := c.send(ctx, http.MethodPost, path, "application/json", bytes.NewReader(b))
	return decode(answer, err, into)
}

// save writes what a path answers to a file.
func (c *client) save(ctx context.Context, path, file string) error {
	answer, err := c.send(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

func decode(answer *http.Response, err error, into any) error {
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return json.NewDecoder(answer.Body).Decode(into)
}

// event is a server-sent event.
type event struct {
	kind string
	data []byte
}

// events calls f for each of a run's events, until the run has ended.
func (c *client) events(ctx context.Context, run string, f func(event) error) error {
	answer, err := c.send(ctx, http.MethodGet, "/v1/runs/"+url.PathEscape(run)+"/events", "", nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return readEvents(answer.Body, f)
}

// readEvents calls f for each server-sent event.
func readEvents(body io.Reader, f func(event) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 64<<20)
	var e event
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "event":
			e.kind = value
		case "data":
			e.data = []byte(value)
		case "":
			if err := f(e); err != nil {
				return err
			}
			e = event{}
		}
	}
	return lines.Err()
}

// show prints v as JSON, or by the given function.
func show(w io.Writer, asJSON bool, v any, text func(io.Writer)) error {
	if !asJSON {
		text(w)
		return nil
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }
