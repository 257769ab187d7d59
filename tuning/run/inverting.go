package run

import (
	"context"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/tuning/inversion"
)

// newInverting learns words of a text-to-image model. Where the recipe names a dual encoder, it scores what is drawn.
func newInverting(ctx context.Context, models *tuning.Models, in *input) (Trainer, error) {
	p, err := models.Painter(ctx, in.spec.Bundle)
	if err != nil {
		return nil, err
	}
	t, err := inversion.New(ctx, p, in.spec.Recipe, in.data)
	if err != nil {
		return nil, err
	}
	if name := in.spec.Recipe.Inversion.Judge; name != "" {
		if t.Judge, err = models.Get(ctx, name); err != nil {
			t.Close()
			return nil, errs.New(errs.Of(err), "inversion.judge: %w", err)
		}
	}
	return t, nil
}
