package main

import (
	"encoding/json"
	"fmt"
)

// What the API answers, as far as the commands print it.

type listOf[T any] struct {
	Data []T `json:"data"`
}

type datasetView struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Images  int    `json:"images"`
	Classes int    `json:"classes"`
}

type uploadView struct {
	datasetView
	Kind    string `json:"kind"`
	Skipped []struct {
		Path   string `json:"path"`
		Reason string `json:"reason"`
	} `json:"skipped"`
	Leaks []struct {
		Paths []string `json:"paths"`
	} `json:"leaks"`
}

// contents says what the images come with.
func (v *uploadView) contents() string {
	if v.Classes > 0 {
		return fmt.Sprintf("in %d classes", v.Classes)
	}
	return map[string]string{"captions": "with captions", "questions": "with questions", "pictures": "without texts"}[v.Kind]
}

type bundleView struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

type runView struct {
	ID      string  `json:"id"`
	State   string  `json:"state"`
	Error   string  `json:"error"`
	Step    int     `json:"step"`
	Steps   int     `json:"total_steps"`
	Prompt  string  `json:"prompt"`
	Metrics metrics `json:"metrics"`
	Created string  `json:"created"`
	Updated string  `json:"updated"`
}

type metrics struct {
	ZeroShot *score `json:"zero_shot,omitempty"`
	Tuned    *score `json:"tuned,omitempty"`
}

type score struct {
	Images       int        `json:"images"`
	Accuracy     float64    `json:"accuracy"`
	Interval     [2]float64 `json:"interval"`
	Base         *float64   `json:"base"`
	Novel        *float64   `json:"novel"`
	HarmonicMean *float64   `json:"harmonic_mean"`
	// Others are what a captioner's or a painter's prompt is measured by.
	Others map[string]float64 `json:"others"`
	// Examples are the first test images' captions or answers.
	Examples []struct {
		Text       string   `json:"text"`
		References []string `json:"references"`
	} `json:"examples"`
	PerClass []struct {
		Class    string  `json:"class"`
		Images   int     `json:"images"`
		Accuracy float64 `json:"accuracy"`
	} `json:"per_class"`
}

type promptView struct {
	Name     string          `json:"name"`
	Revision int             `json:"revision"`
	Digest   string          `json:"digest"`
	Bundle   string          `json:"bundle"`
	Kind     string          `json:"kind"`
	Token    string          `json:"token,omitempty"`
	Size     int64           `json:"size"`
	Promoted bool            `json:"promoted"`
	Card     json.RawMessage `json:"card,omitempty"`
}

type classifyView struct {
	Scores []struct {
		Class       string  `json:"class"`
		Probability float64 `json:"probability"`
	} `json:"scores"`
}

type searchView struct {
	Hits []struct {
		Path  string  `json:"path"`
		Class string  `json:"class"`
		Score float64 `json:"score"`
	} `json:"hits"`
}

type keyView struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Created string `json:"created"`
	Revoked bool   `json:"revoked"`
	Key     string `json:"key,omitempty"`
}
