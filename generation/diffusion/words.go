package diffusion

import (
	"slices"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
)

// Words are learned prompts as words beyond the token tables of a bundle's text encoders: each has ids
// from the table's length on, and a row for each.
type Words struct {
	pipeline *Pipeline
	first    []map[*prompt.Prompt]int64 // by encoder: a prompt's first id
	count    []map[*prompt.Prompt]int
	rows     [][]float32
}

// Words numbers prompts of the kinds concept, style and negative, in order; the same prompt twice is
// one. Others are refused, as are those of another bundle or of another width.
func (p *Pipeline) Words(prompts []*prompt.Prompt) (*Words, error) {
	w := &Words{pipeline: p}
	for i, e := range p.Texts {
		first, count := map[*prompt.Prompt]int64{}, map[*prompt.Prompt]int{}
		var rows []float32
		for _, q := range prompts {
			if _, ok := first[q]; ok {
				continue
			}
			values, err := p.rowsOf(q, i)
			if err != nil {
				return nil, err
			}
			first[q] = e.Vocabulary() + int64(len(rows)/e.Tower.Width)
			count[q] = len(values) / e.Tower.Width
			rows = append(rows, values...)
		}
		w.first, w.count, w.rows = append(w.first, first), append(w.count, count), append(w.rows, rows)
	}
	return w, nil
}

// rowsOf are a prompt's vectors for an encoder [n,D].
func (p *Pipeline) rowsOf(q *prompt.Prompt, encoder int) ([]float32, error) {
	name := prompt.Rows(q.Card.Kind)
	if name == "" {
		return nil, errs.New(errs.Invalid, "a prompt of kind %s can't steer a picture: concept, style and negative can", q.Card.Kind)
	}
	if err := q.CheckBundle(p.Bundle.Digest); err != nil {
		return nil, err
	}
	if encoder == 1 {
		name += "_2"
	}
	t := q.Tensors[name]
	if t == nil {
		return nil, errs.New(errs.Invalid, "prompt %s has no tensor %q, and bundle %s has %d text encoders", title(q), name, p.Bundle.Name, len(p.Texts))
	}
	width := p.Texts[encoder].Tower.Width
	if len(t.Dims) != 2 || t.Dims[0] < 1 || t.Dims[1] != int64(width) {
		return nil, errs.New(errs.Invalid, "prompt %s: %q is %v; %s takes [n,%d]", title(q), name, t.Dims, p.Texts[encoder].name, width)
	}
	return graph.Float32s(t)
}

// title is what a prompt goes by in errors.
func title(q *prompt.Prompt) string {
	if q.Card.Token != "" {
		return q.Card.Token
	}
	return "of kind " + q.Card.Kind.String()
}

// Rows are the learned rows of an encoder, [R,D]: those of ids from its Vocabulary on.
func (w *Words) Rows(encoder int) []float32 { return w.rows[encoder] }

// ids are a prompt's for an encoder.
func (w *Words) ids(encoder int, q *prompt.Prompt) []int64 {
	out := make([]int64, w.count[encoder][q])
	for i := range out {
		out[i] = w.first[encoder][q] + int64(i)
	}
	return out
}

// IDs are a text's ids for an encoder, padded or cut to its window: the placeholders of the prompts given
// are their learned words, styles stand in front.
func (w *Words) IDs(encoder int, s string, prompts []*prompt.Prompt) (Framed, error) {
	return w.sequence(encoder, s, prompts, prompt.Style)
}

// NegativeIDs are those of a negative prompt: negative prompts whose placeholder is not in the text stand
// in front.
func (w *Words) NegativeIDs(encoder int, s string, prompts []*prompt.Prompt) (Framed, error) {
	return w.sequence(encoder, s, prompts, prompt.Negative)
}

func (w *Words) sequence(encoder int, s string, prompts []*prompt.Prompt, ahead prompt.Kind) (Framed, error) {
	e := w.pipeline.Texts[encoder]
	byToken := map[string]*prompt.Prompt{}
	var placeholders []string
	for _, q := range prompts {
		if q.Card.Token != "" {
			byToken[q.Card.Token] = q
			placeholders = append(placeholders, q.Card.Token)
		}
	}
	parts := pieces(s, placeholders)
	var ids []int64
	for _, q := range prompts {
		if q.Card.Kind == ahead && (q.Card.Token == "" || !slices.Contains(parts, q.Card.Token)) {
			ids = append(ids, w.ids(encoder, q)...)
		}
	}
	for i, part := range parts {
		if i%2 == 1 {
			ids = append(ids, w.ids(encoder, byToken[part])...)
			continue
		}
		words, err := e.Tokenizer.Tokens(part)
		if err != nil {
			return Framed{}, err
		}
		ids = append(ids, words...)
	}
	return e.frame(ids)
}

// checkMentioned refuses concepts whose placeholder stands in neither text, and two with the same.
func checkMentioned(r *Request) error {
	seen := map[string]bool{}
	for _, q := range r.Concepts {
		token := q.Card.Token
		if token == "" {
			if q.Card.Kind == prompt.Concept {
				return errs.New(errs.Invalid, "a concept without a placeholder can't be named in a text")
			}
			continue
		}
		if seen[token] {
			return errs.New(errs.Invalid, "two prompts of one request have the placeholder %s", token)
		}
		seen[token] = true
		if q.Card.Kind == prompt.Concept && len(pieces(r.Prompt, []string{token})) == 1 && len(pieces(r.Negative, []string{token})) == 1 {
			return errs.New(errs.Invalid, "the placeholder %s of a learned concept is not in the prompt %q: write it where the concept belongs", token, r.Prompt)
		}
	}
	return nil
}
