//go:build linux

package inversion

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/generation/diffusion"
	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/process"
	"github.com/foretoken/foretoken/tuning/tuningtest"
)

// realSize is what was measured: seconds of the process's threads, save for Clock, and the most memory that the process
// has had, mapped files included.
type realSize struct {
	Part    string             `json:"part"`
	Seconds map[string]float64 `json:"seconds"`
	Clock   float64            `json:"clock"` // seconds of the step by the clock
	Peak    int64              `json:"peak_bytes"`
	Loss    float64            `json:"loss"`
	Moved   float64            `json:"moved"` // how far the new row went, of its length
}

// TestRealSize draws with the pipeline in the folder FORETOKEN_SD_SIZES, or learns a word in it, whichever FORETOKEN_SD_PART says, and
// prints a line of JSON that bench/reference/sd15.py reads; without a folder there is nothing to do.
func TestRealSize(t *testing.T) {
	dir := os.Getenv("FORETOKEN_SD_SIZES")
	if dir == "" {
		t.Skip("run by `make sd-sizes`")
	}
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := diffusion.Open(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r := &realSize{Part: os.Getenv("FORETOKEN_SD_PART"), Seconds: map[string]float64{}}
	if r.Part == "draw" {
		r.draw(t, p)
	} else {
		r.learn(t, p)
	}
	if r.Peak, err = process.PeakMemory(); err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(line))
}

// draw takes two steps of a picture with guidance, two rows each, and measures the second.
func (r *realSize) draw(t *testing.T, p *diffusion.Pipeline) {
	var used []float64
	var clock []time.Time
	_, err := p.Generate(t.Context(), []diffusion.Request{{Prompt: "a cat", Steps: 2, Seed: 1, OnStep: func(diffusion.Step) {
		used, clock = append(used, process.Time().Seconds()), append(clock, time.Now())
	}}})
	if err != nil {
		t.Fatal(err)
	}
	r.Seconds["step"], r.Clock = used[1]-used[0], clock[1].Sub(clock[0]).Seconds()
}

// learn takes a step of textual inversion with one picture.
func (r *realSize) learn(t *testing.T, p *diffusion.Pipeline) {
	recipe := recipe(t, "textual-inversion")
	recipe.Batch, recipe.Inversion.MicroBatch, recipe.Inversion.Init = 1, 1, ""
	tr := trainer(t, p, recipe, data(1, 0, "mug"))
	timed := func(name string, f func()) {
		start, now := process.Time().Seconds(), time.Now()
		f()
		r.Seconds[name], r.Clock = process.Time().Seconds()-start, time.Since(now).Seconds()
	}
	timed("encode", func() {
		if _, err := tr.examples(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	timed("prepare", func() {
		if err := tr.open(); err != nil {
			t.Fatal(err)
		}
	})
	before := append([]float32(nil), tr.params[0].Values()...)
	timed("step", func() { r.Loss = steps(t, tr, 1)[0] })
	r.Moved = tuningtest.Distance(tr.params[0].Values(), before, make([]float32, len(before)))
	if !(r.Moved > 0) {
		t.Error("the new row did not move")
	}
}
