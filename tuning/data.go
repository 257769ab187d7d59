package tuning

import (
	"bytes"
	"context"
	"image"
	"slices"

	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/vision"
)

// Sample is one labelled image. Its class may be another number than its item's.
type Sample struct {
	ID    string // the image's SHA-256: views are drawn by it
	Class int    // index into Data.Classes, or dataset.NoClass where there are none
	Item  dataset.Item
	Image func(ctx context.Context) (image.Image, error)
}

// Data is what a run learns from and is scored on.
type Data struct {
	Classes     []string // display names
	Train, Test []Sample
	Shots       int // the most training images of a class
	// The card's entries on where the images come from.
	Dataset, Version, Split string
	SplitSeed, ShotsSeed    uint64
}

// LoadData is the part of a dataset version that a selection names. Images are read when they
// are wanted.
func LoadData(objs storage.Objects, v *dataset.Version, s dataset.Selection) *Data {
	d := &Data{Dataset: v.ID, Version: v.Digest, Split: s.Hash, SplitSeed: v.SplitBy.Seed}
	for _, c := range v.Classes {
		d.Classes = append(d.Classes, c.Name)
	}
	sample := func(i int) Sample {
		it := v.Items[i]
		return Sample{ID: it.SHA256, Class: it.Class, Item: it, Image: func(ctx context.Context) (image.Image, error) {
			return readImage(ctx, objs, it)
		}}
	}
	for _, i := range s.Train {
		d.Train = append(d.Train, sample(i))
	}
	for _, i := range s.Test {
		d.Test = append(d.Test, sample(i))
	}
	d.Shots = shots(d.Train, len(d.Classes))
	return d
}

func readImage(ctx context.Context, objs storage.Objects, it dataset.Item) (image.Image, error) {
	b, err := dataset.ReadImage(ctx, objs, it)
	if err != nil {
		return nil, err
	}
	img, err := vision.Decode(bytes.NewReader(b), vision.Limits{})
	if err != nil {
		return nil, errs.New(errs.Of(err), "image %q: %w", it.Path, err)
	}
	return img, nil
}

func shots(samples []Sample, classes int) int {
	counts := make([]int, classes)
	for _, s := range samples {
		if s.Class != dataset.NoClass {
			counts[s.Class]++
		}
	}
	return slices.Max(append(counts, 0))
}

// Only is the data of the given classes, in that order.
func (d *Data) Only(classes []int) *Data {
	c := *d
	c.Classes = nil
	for _, class := range classes {
		c.Classes = append(c.Classes, d.Classes[class])
	}
	keep := func(samples []Sample) []Sample {
		var kept []Sample
		for _, s := range samples {
			if s.Class = slices.Index(classes, s.Class); s.Class >= 0 {
				kept = append(kept, s)
			}
		}
		return kept
	}
	c.Train, c.Test = keep(d.Train), keep(d.Test)
	c.Shots = shots(c.Train, len(c.Classes))
	return &c
}
