package run

import (
	"slices"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/tuning"
)

// selection is what a spec takes of its version.
func (sp *Spec) selection(v *dataset.Version) dataset.Selection {
	if sp.Shots > 0 {
		return v.FewShot(sp.Shots, sp.Seed)
	}
	return v.All()
}

// suits refuses a bundle that the recipe's method tunes nothing of.
func (sp *Spec) suits(kind bundle.Kind) error {
	needed := bundle.DualEncoder
	switch r := sp.Recipe; {
	case r.Captions():
		needed = bundle.Captioner
	case r.Inverts():
		needed = bundle.Diffusion
	}
	if kind == needed {
		return nil
	}
	return errs.New(errs.Invalid, "recipe %q tunes a bundle of kind %s, and %q is of kind %s: take another bundle, or another recipe", sp.Recipe.Name, needed, sp.Bundle, kind)
}

// fits refuses a version that lacks what the recipe's method learns from, or is scored on.
func (sp *Spec) fits(v *dataset.Version) error {
	taken, r := sp.selection(v), sp.Recipe
	var err error
	switch {
	case r.Captions():
		err = haveTexts(v, r, taken.Train)
	case !r.Inverts():
		err = sp.haveClasses(v)
	}
	switch {
	case err != nil:
		return err
	case len(taken.Train) == 0 && r.Method != tuning.ZeroShot:
		return errs.New(errs.Invalid, "data set %q has no training images: put some in a folder train, or all outside of folders train, val and test", v.ID)
	case len(taken.Test) == 0 && !r.Inverts():
		return errs.New(errs.Invalid, "data set %q has no test images, on which a prompt is scored: put some in a folder test, or all outside of folders train, val and test", v.ID)
	}
	return nil
}

// haveClasses refuses a version without classes to tell apart.
func (sp *Spec) haveClasses(v *dataset.Version) error {
	if len(v.Classes) < 2 {
		return errs.New(errs.Invalid, "recipe %q learns to tell classes apart, and data set %q (%s) has %d, must be at least 2: upload a zip with a folder for each class, or take a recipe that needs none", sp.Recipe.Name, v.ID, v.Kind(), len(v.Classes))
	}
	if base, novel := v.Halves(); sp.HoldOut && min(len(base), len(novel)) < 2 {
		return errs.New(errs.Invalid, "hold_out tunes on one half of the classes and scores both, and data set %q has %d classes, must be at least 4: leave it out", v.ID, len(v.Classes))
	}
	return nil
}

// haveTexts refuses a version with an image to learn from of which nothing is said.
func haveTexts(v *dataset.Version, r *tuning.Recipe, items []int) error {
	silent := slices.IndexFunc(items, func(i int) bool { return len(v.Items[i].Texts()) == 0 })
	if silent < 0 {
		return nil
	}
	return errs.New(errs.Invalid, "recipe %q learns from captions or answers, and of image %q of data set %q (%s) there are none: upload images with texts (docs/formats.md), or take a recipe that needs none", r.Name, v.Items[items[silent]].Path, v.ID, v.Kind())
}
