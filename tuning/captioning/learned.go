package captioning

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/tuning"
)

// shape is a learned tensor's name, as the training graph takes it, and extents.
type shape struct {
	name string
	dims []int64
}

// parameterShapes lists what a recipe learns, in a fixed order.
func parameterShapes(p parts, r *tuning.Recipe) []shape {
	tokens := int64(r.Prefix.Tokens)
	var list []shape
	switch r.Method {
	case tuning.CaptionPrefix:
		name := prefixName
		if p.Mapped {
			name = oursName
		}
		list = append(list, shape{name, []int64{1, tokens, int64(p.Decoder.Width)}})
	case tuning.CaptionKeyValues:
		if r.Prefix.Hidden > 0 {
			list = append(list, reparametrised(p.Decoder, r.Prefix)...)
			break
		}
		list = append(list, keyValues(p.Decoder, tokens)...)
	case tuning.CaptionMap:
		list = append(list, mapLayers(p, r.Prefix)...)
	}
	for i := range depth(r) {
		list = append(list, shape{graph.PromptName("visual", i), []int64{1, int64(r.Visual.Tokens), int64(p.Images.Width)}})
	}
	return list
}

// keyValues are the decoder's inputs of keys and values [1,H,P,d], in the order of layers, keys first.
func keyValues(d *graph.DecoderTower, tokens int64) []shape {
	var list []shape
	for _, l := range d.Layers {
		if l.Cross {
			continue
		}
		for _, kind := range []string{"prefix_key.", "prefix_value."} {
			list = append(list, shape{fmt.Sprintf("%s%d", kind, len(list)/2), []int64{1, int64(l.Heads), tokens, int64(l.HeadWidth)}})
		}
	}
	return list
}

// newParameters draws where learning starts: layers as PyTorch's nn.Linear does, image tokens as VPT does (Jia et al. 2022),
// all else from N(0, std). A soft prefix may start from words.
func newParameters(p parts, r *tuning.Recipe, words []int64) ([]*tuning.Parameter, error) {
	var params []*tuning.Parameter
	fanIn := 0.0 // of the layer whose weight was last: its bias is drawn alike
	for _, s := range parameterShapes(p, r) {
		values, g := make([]float32, graph.Count(s.dims)), rng.New(r.Seed, "start", s.name)
		switch {
		case strings.HasSuffix(s.name, ".weight"):
			fanIn = float64(s.dims[1])
			uniform(g, values, 1/math.Sqrt(fanIn))
		case strings.HasSuffix(s.name, ".bias"):
			uniform(g, values, 1/math.Sqrt(fanIn))
		case strings.HasPrefix(s.name, "visual."):
			uniform(g, values, math.Sqrt(6/float64(3*p.Patch*p.Patch+p.Images.Width)))
		default:
			normal(g, values, r.Prefix.Std)
		}
		params = append(params, tuning.NewParameter(s.name, values, s.dims...))
	}
	if r.Method != tuning.CaptionPrefix || r.Prefix.Start == tuning.StartNormal {
		return params, nil
	}
	return params, startFrom(params[0].Values(), p.Decoder, r, words)
}

// startFrom makes a soft prefix's tokens the embeddings of words, as many as there is room for, or of words drawn from the
// vocabulary (prompt tuning; Lester et al. 2021, section 3.2).
func startFrom(values []float32, d *graph.DecoderTower, r *tuning.Recipe, words []int64) error {
	if r.Prefix.Start == tuning.StartVocabulary {
		rows, known := d.Table.Shape[0].Int()
		if !known {
			return errs.New(errs.Unsupported, "prefix.start: the size of the decoder's table of tokens %s isn't known", d.Table.Shape)
		}
		g := rng.New(r.Seed, "start", "vocabulary")
		words = make([]int64, r.Prefix.Tokens)
		for i := range words {
			words[i] = g.Int64N(rows)
		}
	}
	rows, err := d.Embeddings(words[:min(len(words), r.Prefix.Tokens)])
	if err != nil {
		return err
	}
	copy(values, rows)
	return nil
}

func normal(g *rand.Rand, values []float32, std float64) {
	for i := range values {
		values[i] = float32(g.NormFloat64() * std)
	}
}

func uniform(g *rand.Rand, values []float32, limit float64) {
	for i := range values {
		values[i] = float32((2*g.Float64() - 1) * limit)
	}
}

// depth is the number of the encoder's blocks with image tokens of their own.
func depth(r *tuning.Recipe) int {
	if r.Visual.Tokens == 0 {
		return 0
	}
	return r.Visual.Depth
}
