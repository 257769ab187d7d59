package decode

import (
	"math/rand/v2"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
)

// line is a search that follows one text: it takes the likeliest token, or draws one.
type line struct {
	chooser
	draw   *rand.Rand // nil: the likeliest
	ids    []int64    // the opening's among them
	likely float64    // the log-probability of those behind the opening
	writer *writer
}

func newLine(c chooser) *line {
	l := &line{chooser: c, ids: slices.Clone(c.Opening), writer: newWriter(c)}
	if c.Options.Sample {
		l.draw = rng.New(c.Options.Seed, "tokens")
	}
	return l
}

func (l *line) advance(logits []float32, vocabulary int) ([]int, []int64, error) {
	raw := slices.Clone(logits)
	l.scored(l.ids, logits)
	token, err := l.choose(logits)
	if err != nil {
		return nil, nil, err
	}
	l.ids = append(l.ids, token)
	l.likely += float64(raw[token]) - logSum(raw)
	l.writer.add(token)
	if l.writer.stopped || l.ends(l.ids[len(l.Opening):]) {
		l.writer.end()
		return nil, nil, nil
	}
	return []int{0}, []int64{token}, nil
}

func (l *line) choose(scores []float32) (int64, error) {
	if slices.ContainsFunc(scores, func(s float32) bool { return s != s }) {
		return 0, notNumbers
	}
	if l.draw == nil {
		return int64(topK(scores, 1)[0]), nil
	}
	probs := softmax(scores)
	at := l.draw.Float64()
	last := 0
	for i, p := range probs {
		if p == 0 {
			continue
		}
		last = i
		if at -= p; at < 0 {
			break
		}
	}
	return int64(last), nil
}

// notNumbers is the error of a model that overflowed.
var notNumbers = errs.New(errs.Unsupported, "the model's logits are NaN: its weights overflow (half floats on a device that needs more?); remove_invalid_values goes on with zeros")

func (l *line) result() Result { return l.finished(l.ids[len(l.Opening):], l.likely, l.writer) }
