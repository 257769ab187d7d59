package prompt

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
)

// Format is the version of the card that this package writes. It reads this one and no newer.
const Format = 1

// Card says what a prompt is: what it was learned on, how, and how well it does.
type Card struct {
	Format int       `json:"format"` // filled in by [Write]
	Bundle BundleRef `json:"bundle"`
	Kind   Kind      `json:"kind,omitempty"`
	Method string    `json:"method"` // coop, vpt, maple, textual-inversion, ...
	// Token is the placeholder that stands for a concept in texts, such as "<mug>".
	Token string `json:"token,omitempty"`
	// Recipe is the method as data, with every default written out.
	Recipe json.RawMessage `json:"recipe,omitempty"`
	// Classes are display names, in the order of the labels.
	Classes []string `json:"classes,omitempty"`
	// ClassSpecific tells a context of [C,M,D], one for each class, from a deep one of [depth,M,D].
	ClassSpecific bool `json:"class_specific,omitempty"`
	// Unplaced says that keys and values take none of the decoder's places: the text behind them begins at place 0.
	Unplaced  bool       `json:"unplaced,omitempty"`
	Templates []string   `json:"templates,omitempty"`
	Dataset   DatasetRef `json:"dataset,omitzero"`
	// Preprocessing is what was done to images: the bundle's preprocessor_config.json, resolved.
	Preprocessing json.RawMessage `json:"preprocessing,omitempty"`
	LogitScale    LogitScale      `json:"logit_scale,omitzero"`
	Seeds         Seeds           `json:"seeds"`
	Metrics       Metrics         `json:"metrics,omitzero"`
	Parameters    int64           `json:"parameters"`       // numbers that were learned
	Parent        string          `json:"parent,omitempty"` // digest of the prompt that tuning started from
	Tool          string          `json:"tool,omitempty"`   // version of the program
	Created       time.Time       `json:"created,omitzero"`
}

// BundleRef names the one bundle that a prompt works with.
type BundleRef struct {
	Name   string `json:"name"`
	Digest string `json:"digest"` // SHA-256, hexadecimal
}

// DatasetRef names the images that a prompt was learned from and scored on.
type DatasetRef struct {
	Name    string `json:"name"`
	Version string `json:"version"` // digest of the dataset version
	Split   string `json:"split"`   // hash of which image was in which split
}

// LogitScale is the factor between cosines and logits, and where it was found.
type LogitScale struct {
	Value  float32 `json:"value"`
	Source string  `json:"source"`
}

// Seeds are where the random numbers of a run came from.
type Seeds struct {
	Split uint64 `json:"split"` // train, validation and test
	Shots uint64 `json:"shots"` // which images were drawn for few-shot training
	Train uint64 `json:"train"` // initialisation, order, augmentation
}

// Metrics compare the prompt with the bundle's zero-shot answer on the same images.
type Metrics struct {
	ZeroShot *Score `json:"zero_shot,omitempty"`
	Tuned    *Score `json:"tuned,omitempty"`
}

// Score is how one classifier does on a split. Fractions lie in 0..1.
type Score struct {
	Split    string       `json:"split"`
	Images   int          `json:"images"`
	Accuracy float64      `json:"accuracy"`
	Interval [2]float64   `json:"interval"` // 95 % confidence interval of the accuracy
	PerClass []ClassScore `json:"per_class,omitempty"`
	// Base, Novel and HarmonicMean are set where classes were held out of training.
	Base         *float64 `json:"base,omitempty"`
	Novel        *float64 `json:"novel,omitempty"`
	HarmonicMean *float64 `json:"harmonic_mean,omitempty"`
	// Others are further measures by name, for example "loss" or "recall@5".
	Others map[string]float64 `json:"others,omitempty"`
}

// ClassScore is the accuracy over the images of one class.
type ClassScore struct {
	Class    string  `json:"class"`
	Images   int     `json:"images"`
	Accuracy float64 `json:"accuracy"`
}

// encode writes the card as one line of JSON; equal cards give equal bytes.
func (c Card) encode() (string, error) {
	c.Format = Format
	c.Created = c.Created.UTC()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(c); err != nil {
		return "", errs.New(errs.Invalid, "prompt card: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func decodeCard(s string) (Card, error) {
	fields, err := members("card", []byte(s))
	if err != nil {
		return Card{}, err
	}
	var format int
	if err := json.Unmarshal(fields["format"], &format); err != nil || format < 1 {
		return Card{}, errs.New(errs.Invalid, "prompt card: format %.20q, must be 1 or more", fields["format"])
	}
	if format > Format {
		return Card{}, errs.New(errs.Unsupported, "prompt card of format %d: this version reads up to %d; update foretoken", format, Format)
	}
	var c Card
	if err := json.Unmarshal([]byte(s), &c); err != nil {
		return Card{}, errs.New(errs.Or(err, errs.Invalid), "prompt card: %w", err)
	}
	return c, nil
}

// check refuses a card of an unknown kind or that names no bundle.
func (c Card) check() error {
	if err := c.Kind.check(); err != nil {
		return err
	}
	if len(c.Bundle.Digest) != 64 || strings.Trim(c.Bundle.Digest, "0123456789abcdef") != "" {
		return errs.New(errs.Invalid, "prompt card: bundle digest %.80q is no SHA-256 in lower-case hexadecimal", c.Bundle.Digest)
	}
	return nil
}
