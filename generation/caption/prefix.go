package caption

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
)

// steering is what a prompt puts before a text and into the image encoder.
type steering struct {
	visual [][]float32 // a layer each: [K,D]
	prefix []float32   // [P,D]
	pairs  [][]float32 // keys and values of each layer in turn: [H,P,d]
	maps   []layer     // from the image's feature to a prefix; none: the bundle's own mapper
	shape  shape
}

// shape is what requests have to have in common to share runs.
type shape struct {
	visual, depth int // K and how many layers
	prefix        int // tuned tokens, and those that the image is mapped to
	pairs         int
	unplaced      bool // the pairs stand at no place
	opening       int
	uncached      bool
}

// layer is a linear layer, as PyTorch has it.
type layer struct {
	weight, bias []float32 // [out,in], [out]
	in, out      int
}

// steer reads a prompt's tensors; nil steers nothing.
func (m *Model) steer(p *prompt.Prompt) (*steering, error) {
	s := &steering{}
	if p != nil {
		if err := p.CheckBundle(m.Bundle.Digest); err != nil {
			return nil, err
		}
		if p.Card.Kind != prompt.Caption {
			return nil, errs.New(errs.Invalid, "a prompt of kind %s does not steer a captioner: one of kind %s does", p.Card.Kind, prompt.Caption)
		}
		for _, read := range []func(*prompt.Prompt, *steering) error{m.readVisual, m.readPrefix, m.readPairs, m.readMaps} {
			if err := read(p, s); err != nil {
				return nil, err
			}
		}
	}
	s.shape.prefix += m.mapped(s)
	return s, nil
}

// mapped is how many places the image's own prefix takes.
func (m *Model) mapped(s *steering) int {
	switch {
	case len(s.maps) > 0:
		return s.maps[len(s.maps)-1].out / m.Decoder.Width
	case m.Mapper != nil:
		n, _ := m.Mapper.Outputs[0].Shape[1].Int()
		return int(n)
	}
	return 0
}

// wrong is the error of a tensor that does not fit the bundle.
func (m *Model) wrong(name string, t *graph.Tensor, want string, args ...any) error {
	return errs.New(errs.Invalid, "prompt tensor %q has the shape %v, bundle %s takes %s", name, t.Dims, m.Bundle.Name, fmt.Sprintf(want, args...))
}

func (m *Model) readVisual(p *prompt.Prompt, s *steering) (err error) {
	t := p.Tensors["visual"]
	if t == nil {
		return nil
	}
	if m.Images.Refused != nil {
		return errs.New(errs.Unsupported, "prompt tensor \"visual\": %w", m.Images.Refused)
	}
	if d := t.Dims; len(d) != 3 || d[0] < 1 || d[0] > int64(m.Images.Depth()) || d[1] < 1 || d[2] != int64(m.Images.Width()) {
		return m.wrong("visual", t, "[1 to %d,K,%d]", m.Images.Depth(), m.Images.Width())
	}
	s.shape.depth, s.shape.visual = int(t.Dims[0]), int(t.Dims[1])
	s.visual, err = parts(t, s.shape.depth)
	return err
}

func (m *Model) readPrefix(p *prompt.Prompt, s *steering) (err error) {
	t := p.Tensors["prefix"]
	if t == nil {
		return nil
	}
	if d := t.Dims; len(d) != 2 || d[0] < 1 || d[1] != int64(m.Decoder.Width) {
		return m.wrong("prefix", t, "[P,%d]", m.Decoder.Width)
	}
	s.shape.prefix = int(t.Dims[0])
	s.prefix, err = graph.Float32s(t)
	return err
}

func (m *Model) readPairs(p *prompt.Prompt, s *steering) error {
	keys, values := p.Tensors["keys"], p.Tensors["values"]
	if keys == nil || values == nil {
		return nil
	}
	own := m.selfLayers(m.Decoder)
	if len(own) == 0 {
		return m.wrong("keys", keys, "none: its decoder's layers of self attention were not found")
	}
	for name, t := range map[string]*graph.Tensor{"keys": keys, "values": values} {
		d := t.Dims
		if len(d) != 4 || d[0] != int64(len(own)) || d[1] != int64(own[0].Heads) || d[2] < 1 || d[2] != keys.Dims[2] || d[3] != int64(own[0].HeadWidth) {
			return m.wrong(name, t, "[%d,%d,P,%d]", len(own), own[0].Heads, own[0].HeadWidth)
		}
	}
	s.shape.pairs, s.shape.unplaced = int(keys.Dims[2]), p.Card.Unplaced
	if s.shape.unplaced && m.Mapped() {
		return errs.New(errs.Unsupported, "bundle %s: its images stand at places before the text, keys and values at no place are for decoders that attend to images", m.Bundle.Name)
	}
	k, err := parts(keys, len(own))
	if err != nil {
		return err
	}
	v, err := parts(values, len(own))
	for i := range k {
		s.pairs = append(s.pairs, k[i], v[i])
	}
	return err
}

func (m *Model) readMaps(p *prompt.Prompt, s *steering) error {
	in := 0
	for i := 0; ; i++ {
		weight, bias := p.Tensors["map."+strconv.Itoa(i)+".weight"], p.Tensors["map."+strconv.Itoa(i)+".bias"]
		if weight == nil {
			break
		}
		if i == 0 {
			if !m.Mapped() {
				return m.wrong("map.0.weight", weight, "no map: its decoder looks at the image by cross attention")
			}
			width, _ := m.Images.Output().Shape[1].Int()
			in = int(width)
		}
		if len(weight.Dims) != 2 || weight.Dims[1] != int64(in) {
			return m.wrong("map."+strconv.Itoa(i)+".weight", weight, "[out,%d]", in)
		}
		l := layer{in: in, out: int(weight.Dims[0])}
		in = l.out
		var err error
		if l.weight, err = graph.Float32s(weight); err != nil {
			return err
		}
		if bias != nil {
			if len(bias.Dims) != 1 || bias.Dims[0] != int64(l.out) {
				return m.wrong("map."+strconv.Itoa(i)+".bias", bias, "[%d]", l.out)
			}
			if l.bias, err = graph.Float32s(bias); err != nil {
				return err
			}
		}
		s.maps = append(s.maps, l)
	}
	if n := len(s.maps); n > 0 && (s.maps[n-1].out == 0 || s.maps[n-1].out%m.Decoder.Width != 0) {
		return errs.New(errs.Invalid, "prompt tensor \"map.%d.weight\" gives %d numbers, no multiple of the decoder's width %d", n-1, s.maps[n-1].out, m.Decoder.Width)
	}
	return nil
}

// parts cuts a tensor along its first axis.
func parts(t *graph.Tensor, n int) ([][]float32, error) {
	all, err := graph.Float32s(t)
	if err != nil {
		return nil, err
	}
	size := len(all) / n
	cut := make([][]float32, n)
	for i := range cut {
		cut[i] = all[i*size : (i+1)*size]
	}
	return cut, nil
}

// selfLayers are a decoder's layers of self attention.
func (m *Model) selfLayers(t *graph.DecoderTower) []graph.DecoderLayer {
	var own []graph.DecoderLayer
	for _, l := range t.Layers {
		if !l.Cross {
			own = append(own, l)
		}
	}
	return own
}

// apply runs an image's feature through the layers, with tanh between them (Mokady et al. 2021).
func apply(maps []layer, feature []float32) []float32 {
	x := feature
	for i, l := range maps {
		y := make([]float32, l.out)
		for o := range y {
			sum := float32(0)
			if l.bias != nil {
				sum = l.bias[o]
			}
			for j, w := range l.weight[o*l.in:][:l.in] {
				sum += w * x[j]
			}
			if y[o] = sum; i < len(maps)-1 {
				y[o] = float32(math.Tanh(float64(sum)))
			}
		}
		x = y
	}
	return x
}

// Prefix computes the embeddings [B,P,D] that come before each of the texts of images with these features: what was tuned,
// and behind it what the image is mapped to. It is nil where there is nothing.
func (m *Model) Prefix(ctx context.Context, p *prompt.Prompt, features *graph.Tensor) (*graph.Tensor, error) {
	s, err := m.steer(p)
	if err != nil {
		return nil, err
	}
	all := make([]*steering, features.Dims[0])
	for i := range all {
		all[i] = s
	}
	return m.prefixes(ctx, all, features)
}

// prefixes is [Model.Prefix] for rows with prompts of their own, of one shape.
func (m *Model) prefixes(ctx context.Context, all []*steering, features *graph.Tensor) (*graph.Tensor, error) {
	tokens := all[0].shape.prefix
	if tokens == 0 {
		return nil, nil
	}
	var mapped [][]float32
	if m.Mapper != nil && m.Mapped() {
		session, err := m.session(variant{part: mapperPart})
		if err != nil {
			return nil, err
		}
		out, err := session.Run(ctx, map[string]*graph.Tensor{m.Mapper.Inputs[0].Name: features})
		if err != nil {
			return nil, err
		}
		if mapped, err = parts(out[m.Mapper.Outputs[0].Name], len(all)); err != nil {
			return nil, err
		}
	}
	var rows [][]float32
	if m.Mapped() {
		var err error
		if rows, err = parts(features, len(all)); err != nil {
			return nil, err
		}
	}
	data := make([]float32, 0, len(all)*tokens*m.Decoder.Width)
	for i, s := range all {
		data = append(data, s.prefix...)
		switch {
		case len(s.maps) > 0:
			data = append(data, apply(s.maps, rows[i])...)
		case mapped != nil:
			data = append(data, mapped[i]...)
		}
	}
	return graph.NewTensor(data, int64(len(all)), int64(tokens), int64(m.Decoder.Width)), nil
}
