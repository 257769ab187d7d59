package run

import (
	"context"

	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/tuning"
)

// classifying learns prompts of dual encoders, and scores them as classifiers.
type classifying struct {
	*tuning.Tuner
	tuned *tuning.Evaluator // on the classes that are tuned on: all, or the base half
	novel *tuning.Evaluator // on the other half; nil where all are tuned on
}

func newClassifying(ctx context.Context, models *tuning.Models, in *input) (Trainer, error) {
	model, err := models.Get(ctx, in.spec.Bundle)
	if err != nil {
		return nil, err
	}
	c, data := &classifying{}, in.data
	if in.spec.HoldOut {
		base, novel := in.version.Halves()
		data = in.data.Only(base)
		data.Split = in.version.Keep(in.selection, base).Hash
		c.novel = model.NewEvaluator(in.data.Only(novel))
	}
	c.tuned = model.NewEvaluator(data)
	if c.Tuner, err = tuning.NewTuner(ctx, model, in.spec.Recipe, data); err != nil {
		return nil, err
	}
	return c, nil
}

// Metrics are the scores of a run that tunes a classifier.
type Metrics struct {
	ZeroShot *tuning.Evaluation `json:"zero_shot"`
	Tuned    *tuning.Evaluation `json:"tuned,omitempty"`
}

// Finish evaluates the frozen model and the prompt on the test images, and fills the card.
func (c *classifying) Finish(ctx context.Context) (*prompt.Prompt, any, error) {
	p, err := c.Prompt()
	if err != nil {
		return nil, nil, err
	}
	m := &Metrics{}
	if m.ZeroShot, err = c.score(ctx, nil); err != nil {
		return nil, nil, err
	}
	if c.Recipe.Method == tuning.ZeroShot {
		return nil, m, nil
	}
	if m.Tuned, err = c.score(ctx, p); err != nil {
		return nil, nil, err
	}
	p.Card.Metrics = prompt.Metrics{ZeroShot: &m.ZeroShot.Score, Tuned: &m.Tuned.Score}
	return p, m, nil
}

// score evaluates a prompt, or the frozen model, on the classes tuned on and, where it has an
// answer there, on those that were held out.
func (c *classifying) score(ctx context.Context, p *prompt.Prompt) (*tuning.Evaluation, error) {
	score, err := c.tuned.Score(ctx, p, c.Recipe.Templates)
	if err != nil || c.novel == nil || p != nil && (p.Tensors["head.weight"] != nil || p.Card.ClassSpecific) {
		return score, err
	}
	novel, err := c.novel.Score(ctx, p, c.Recipe.Templates)
	if err != nil {
		return nil, err
	}
	base, mean := score.Accuracy, 0.0
	if base+novel.Accuracy > 0 {
		mean = 2 * base * novel.Accuracy / (base + novel.Accuracy)
	}
	score.Base, score.Novel, score.HarmonicMean = &base, &novel.Accuracy, &mean
	return score, nil
}
