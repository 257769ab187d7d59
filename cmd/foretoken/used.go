package main

import (
	"context"

	"github.com/foretoken/foretoken/dataset"
)

// used is the set of object keys that the catalogue leads to.
func (a *app) used(ctx context.Context) (map[string]bool, error) {
	keys := map[string]bool{}
	runs, err := a.catalog.Runs(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		if !r.Ended() {
			keys[r.Checkpoint] = true
		}
	}
	prompts, err := a.catalog.Prompts(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range prompts {
		keys[p.Object] = true
	}
	versions, err := a.catalog.Versions(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range versions {
		v, err := dataset.Load(ctx, a.objects, row.Name, row.Version)
		if err != nil {
			return nil, err
		}
		for _, key := range v.Objects() {
			keys[key] = true
		}
	}
	return keys, nil
}
