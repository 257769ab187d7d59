package serving

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/tuning"
)

// DefaultTemplates write class names where a request gives none.
var DefaultTemplates = []string{"a photo of a {}."}

// ClassScore is a class and how probable it is.
type ClassScore struct {
	Class       string  `json:"class"`
	Probability float64 `json:"probability"`
}

// Classify returns the classes with their probabilities, the most probable first. Without
// classes a prompt's own are taken.
func (e *Engine) Classify(ctx context.Context, t *Target, image []byte, classes, templates []string) ([]ClassScore, error) {
	c, err := e.classifier(ctx, t, classes, templates)
	if err != nil {
		return nil, err
	}
	embedding, err := e.EmbedImage(ctx, t, image)
	if err != nil {
		return nil, err
	}
	var scores []ClassScore
	for i, p := range tuning.Probabilities(c.Logits(embedding)) {
		scores = append(scores, ClassScore{c.Names[i], p})
	}
	slices.SortStableFunc(scores, func(a, b ClassScore) int { return cmp.Compare(b.Probability, a.Probability) })
	return scores, nil
}

// classifier returns the target's classifier for the classes, from the cache where it can.
func (e *Engine) classifier(ctx context.Context, t *Target, classes, templates []string) (*tuning.Classifier, error) {
	if len(classes) == 0 && t.Prompt != nil {
		classes = t.Prompt.Card.Classes
	}
	if len(templates) == 0 {
		templates = DefaultTemplates
		if t.Prompt != nil {
			templates = t.Prompt.Card.Templates
		}
	}
	if err := checkClasses(classes); err != nil {
		return nil, err
	}
	key := fmt.Sprintf("%s %q %q", t.Key, classes, templates)
	if c, ok := e.classifiers.Get(key); ok {
		return c, nil
	}
	v, err, _ := e.loading.Do(key, func() (any, error) {
		c, err := t.Model.Classifier(context.WithoutCancel(ctx), t.Prompt, classes, templates)
		if err == nil {
			e.classifiers.Add(key, c)
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	return v.(*tuning.Classifier), nil
}

// maxClasses is how many classes one request may name.
const maxClasses = 10_000

func checkClasses(classes []string) error {
	if len(classes) < 2 {
		return errs.New(errs.Invalid, "classes: %d given, at least 2 are needed to choose from", len(classes))
	}
	if len(classes) > maxClasses {
		return errs.New(errs.TooLarge, "classes: %d given, limit %d", len(classes), maxClasses)
	}
	if i := slices.IndexFunc(classes, func(c string) bool { return strings.TrimSpace(c) == "" }); i >= 0 {
		return errs.New(errs.Invalid, "classes: number %d is empty", i+1)
	}
	return nil
}

// EmbedTexts returns the embeddings [P], L2-normalised, of texts under the target: behind its
// context where it has one for all classes.
func (e *Engine) EmbedTexts(ctx context.Context, t *Target, texts []string) ([][]float32, error) {
	p := t.Prompt
	if p != nil && p.Tensors["head.weight"] != nil {
		return nil, errs.New(errs.Invalid, "a %s has no text side: it can classify, not embed or search", p.Card.Method)
	}
	if p != nil && p.Card.ClassSpecific {
		p = nil
	}
	rows, err := t.Model.ClassFeatures(ctx, p, texts, []string{"{}"})
	if err != nil {
		return nil, err
	}
	values, err := graph.Values[float32](rows)
	if err != nil {
		return nil, err
	}
	width := int(rows.Dims[1])
	var out [][]float32
	for i := range texts {
		out = append(out, values[i*width:(i+1)*width])
	}
	return out, nil
}

// TextTokens counts the tokens that texts take in the target's text tower; one that has no
// tokens there takes none.
func (e *Engine) TextTokens(t *Target, texts []string) int {
	n := 0
	for _, s := range texts {
		if ids, err := t.Model.Texts.Encode(s, t.Model.Texts.Info.Window); err == nil {
			n += len(ids)
		}
	}
	return n
}

// Hit is an image that a search found.
type Hit struct {
	Path   string  `json:"path"`
	SHA256 string  `json:"sha256"`
	Class  string  `json:"class"`
	Score  float64 `json:"score"` // cosine
}

// index holds the embeddings of a dataset version under one target.
type index struct {
	rows  []float32 // [N,P]
	width int
}

// Search returns the images of a dataset version, or of one split of it, that fit a text best,
// the best first.
func (e *Engine) Search(ctx context.Context, t *Target, v *dataset.Version, split, query string, limit int) ([]Hit, error) {
	if strings.TrimSpace(query) == "" {
		return nil, errs.New(errs.Invalid, "query is empty")
	}
	texts, err := e.EmbedTexts(ctx, t, []string{query})
	if err != nil {
		return nil, err
	}
	ix, err := e.index(ctx, t, v)
	if err != nil {
		return nil, err
	}
	hits := []Hit{}
	for i, it := range v.Items {
		again := i > 0 && v.Items[i-1].Path == it.Path // another question about an image
		if again || split != "" && it.Split != split {
			continue
		}
		sum := 0.0
		for j, x := range ix.rows[i*ix.width : (i+1)*ix.width] {
			sum += float64(x) * float64(texts[0][j])
		}
		hits = append(hits, Hit{it.Path, it.SHA256, v.ClassName(it), sum})
	}
	slices.SortStableFunc(hits, func(a, b Hit) int { return cmp.Compare(b.Score, a.Score) })
	return hits[:min(limit, len(hits))], nil
}

// index embeds a version's images, once for all who ask.
func (e *Engine) index(ctx context.Context, t *Target, v *dataset.Version) (*index, error) {
	key := "index " + t.Key + " " + v.Digest
	if ix, ok := e.indexes.Get(key); ok {
		return ix, nil
	}
	made, err, _ := e.loading.Do(key, func() (any, error) {
		every := dataset.Selection{}
		for i := range v.Items {
			every.Test = append(every.Test, i)
		}
		data := tuning.LoadData(e.objects, v, every)
		rows, err := t.Model.NewEvaluator(data).Embed(context.WithoutCancel(ctx), t.Prompt)
		if err != nil {
			return nil, err
		}
		values, err := graph.Values[float32](rows)
		if err != nil {
			return nil, err
		}
		ix := &index{values, int(rows.Dims[1])}
		e.indexes.Add(key, ix)
		return ix, nil
	})
	if err != nil {
		return nil, err
	}
	return made.(*index), nil
}
