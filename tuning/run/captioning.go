package run

import (
	"context"

	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/tuning/captioning"
)

// newCaptioning learns what steers a captioner.
func newCaptioning(ctx context.Context, models *tuning.Models, in *input) (Trainer, error) {
	m, err := models.Captioner(ctx, in.spec.Bundle)
	if err != nil {
		return nil, err
	}
	t, err := captioning.New(ctx, m, in.spec.Recipe, in.data)
	if err != nil {
		return nil, err
	}
	return t, nil
}
