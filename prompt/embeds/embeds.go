// Package embeds turns textual-inversion files, as people share them, into prompts and prompts into
// them: diffusers' learned_embeds, AUTOMATIC1111's embeddings, also hidden in pictures, and SDXL's
// with a part for each text encoder. It knows neither models nor where files are kept.
package embeds

import (
	"bytes"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/prompt/pickle"
)

// Format is how a file lays out a concept.
type Format string

// The formats that are written. Each is read as well, and known by what it holds.
const (
	Diffusers    Format = "diffusers"     // learned_embeds.safetensors: the token and its rows
	DiffusersBin Format = "diffusers-bin" // learned_embeds.bin: the same as a pickle
	A1111        Format = "a1111"         // a .pt with string_to_param["*"], name, step
	A1111Tensors Format = "a1111-tensors" // a .safetensors with emb_params, named by its file
	SDXL         Format = "sdxl"          // a .safetensors with clip_l and clip_g
)

const (
	maxVectors   = 1000 // rows of a concept
	star         = "*"  // what A1111 calls the concept within its file
	clipL, clipG = "clip_l", "clip_g"
)

// Formats are the formats that are written.
var Formats = []Format{Diffusers, DiffusersBin, A1111, A1111Tensors, SDXL}

// Suffix is how names of files of the format end.
func (f Format) Suffix() string {
	switch f {
	case DiffusersBin:
		return ".bin"
	case A1111:
		return ".pt"
	}
	return ".safetensors"
}

// Embedding is what a file holds: rows that stand for one placeholder in texts.
type Embedding struct {
	Token  string        // as the file says, or by its name; it may be no placeholder that a prompt can have
	First  *graph.Tensor // [n,D] floats: for the text encoder, or SDXL's first
	Second *graph.Tensor // [n,D2] floats, nil where there is one encoder
}

// Read reads a file of any of the formats. Its name says the token where the file does not. The
// file is not trusted; pickles are not run ([pickle.Read]).
func Read(content []byte, name string) (*Embedding, error) {
	e, err := read(content)
	if err != nil {
		return nil, errs.New(errs.Or(err, errs.Invalid), "embedding %.80q: %w", name, err)
	}
	if e.Token == "" || e.Token == star {
		base := path.Base(strings.ReplaceAll(name, `\`, "/"))
		e.Token = strings.TrimSuffix(base, path.Ext(base))
	}
	return e, nil
}

func read(content []byte) (*Embedding, error) {
	if bytes.HasPrefix(content, pngSignature) {
		return readPicture(content)
	}
	// The first bytes of safetensors are the header's length, then comes its brace.
	if len(content) > 8 && content[8] == '{' {
		tensors, err := prompt.ReadTensors(content)
		if err != nil {
			return nil, err
		}
		named := pickle.NewDict()
		for _, key := range slices.Sorted(maps.Keys(tensors)) {
			named.Set(key, tensors[key])
		}
		return find(named)
	}
	value, err := pickle.Read(content)
	if err != nil {
		return nil, err
	}
	switch v := value.(type) {
	case *graph.Tensor: // one tensor alone, as A1111 accepts it
		return find(pickle.NewDict("emb_params", v))
	case *pickle.Dict:
		return find(v)
	}
	return nil, errs.New(errs.Invalid, "it holds neither a dictionary nor a tensor")
}

// find looks for the rows among what a file holds.
func find(d *pickle.Dict) (*Embedding, error) {
	e := &Embedding{}
	var first, second any
	switch {
	case d.Get("string_to_param") != nil:
		params, ok := d.Get("string_to_param").(*pickle.Dict)
		if !ok || len(params.Keys()) != 1 {
			return nil, errs.New(errs.Invalid, "string_to_param must hold one concept; split the file")
		}
		key := params.Keys()[0]
		first = params.Get(key)
		e.Token, _ = key.(string)
		if name, ok := d.Get("name").(string); ok && name != "" {
			e.Token = name
		}
	case d.Get(clipL) != nil: // alone, pivotal tuning's of Stable Diffusion 1
		first, second = d.Get(clipL), d.Get(clipG)
	case d.Get(clipG) != nil:
		return nil, errs.New(errs.Invalid, "it has %s without %s: SDXL takes both", clipG, clipL)
	case d.Get("emb_params") != nil:
		first = d.Get("emb_params")
	case len(d.Keys()) == 1:
		e.Token, _ = d.Keys()[0].(string)
		first = d.Get(d.Keys()[0])
	default:
		return nil, errs.New(errs.Invalid, "no concept among the keys %.200q; expected one token, string_to_param, emb_params, or %s and %s", d.Keys(), clipL, clipG)
	}
	var err error
	if e.First, err = rows(first); err == nil && second != nil {
		e.Second, err = rows(second)
	}
	if err == nil && e.Second != nil {
		err = agree(e.First, e.Second)
	}
	return e, err
}

// agree finds fault with rows for two text encoders that are not as many.
func agree(first, second *graph.Tensor) error {
	if first.Dims[0] != second.Dims[0] {
		return errs.New(errs.Invalid, "%d rows for the first text encoder and %d for the second: must be as many", first.Dims[0], second.Dims[0])
	}
	return nil
}

// Join makes one concept for SDXL of two that are for one text encoder each, as diffusers' script
// writes them: learned_embeds.safetensors and learned_embeds_2.safetensors.
func Join(first, second *Embedding) (*Embedding, error) {
	if first.Second != nil || second.Second != nil || first.Token != second.Token {
		return nil, errs.New(errs.Invalid, "two files must be the parts of one concept, for a text encoder each; these are of %q for %d and of %q for %d",
			first.Token, encoders(first.Second != nil), second.Token, encoders(second.Second != nil))
	}
	if err := agree(first.First, second.First); err != nil {
		return nil, err
	}
	return &Embedding{Token: first.Token, First: first.First, Second: second.First}, nil
}

// rows makes a tensor [D], [n,D] or [1,n,D] of floats to [n,D] of 32 bits.
func rows(v any) (*graph.Tensor, error) {
	t, ok := v.(*graph.Tensor)
	if !ok || len(t.Dims) < 1 || len(t.Dims) > 3 || len(t.Dims) == 3 && t.Dims[0] != 1 || t.Len() == 0 {
		return nil, errs.New(errs.Invalid, "the concept is no tensor of [rows, width]")
	}
	values, err := floats(t)
	if err != nil {
		return nil, err
	}
	dims := t.Dims
	switch len(dims) {
	case 1:
		dims = []int64{1, dims[0]}
	case 3:
		dims = dims[1:]
	}
	if dims[0] > maxVectors {
		return nil, errs.New(errs.TooLarge, "a concept of %d rows, limit %d", dims[0], maxVectors)
	}
	return graph.NewTensor(slices.Clone(values), dims...), nil
}

func floats(t *graph.Tensor) ([]float32, error) {
	if t.Type == graph.Double {
		wide, err := graph.Values[float64](t)
		values := make([]float32, len(wide))
		for i, x := range wide {
			values[i] = float32(x)
		}
		return values, err
	}
	values, err := graph.Float32s(t)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the concept's %w", err)
	}
	return values, nil
}

// Prompt makes a prompt of a kind that text-to-image models take: concept, style or negative. A
// token that is not empty takes the place of the file's.
func (e *Embedding) Prompt(kind prompt.Kind, bundle prompt.BundleRef, token string) (*prompt.Prompt, error) {
	name := prompt.Rows(kind)
	if name == "" {
		return nil, errs.New(errs.Invalid, "kind %s: an embedding is a %s, %s or %s", kind, prompt.Concept, prompt.Style, prompt.Negative)
	}
	p := &prompt.Prompt{
		Card:    prompt.Card{Kind: kind, Method: "import", Bundle: bundle, Token: token, Parameters: e.First.Len()},
		Tensors: map[string]*graph.Tensor{name: e.First},
	}
	if token == "" {
		p.Card.Token = e.Token
	}
	if e.Second != nil {
		p.Tensors[name+"_2"] = e.Second
		p.Card.Parameters += e.Second.Len()
	}
	_, err := p.Digest() // which checks it
	return p, err
}

// Write writes a concept, a style or a negative prompt in a format, under the card's token, or the
// given one where the card has none.
func Write(w io.Writer, p *prompt.Prompt, f Format, token string) error {
	name := prompt.Rows(p.Card.Kind)
	if name == "" {
		return errs.New(errs.Invalid, "a prompt of kind %s is no embedding: only a %s, %s or %s can be written as %s", p.Card.Kind, prompt.Concept, prompt.Style, prompt.Negative, f)
	}
	if p.Card.Token != "" {
		token = p.Card.Token
	}
	first, second := p.Tensors[name], p.Tensors[name+"_2"]
	if (f == SDXL) != (second != nil) {
		return errs.New(errs.Invalid, "%s is for a prompt of %d text encoders, and this one is for %d", f, encoders(f == SDXL), encoders(second != nil))
	}
	switch f {
	case Diffusers:
		return prompt.WriteTensors(w, map[string]*graph.Tensor{token: first})
	case DiffusersBin:
		return pickle.Write(w, pickle.NewDict(token, first))
	case A1111:
		return pickle.Write(w, pickle.NewDict(
			"string_to_token", pickle.NewDict(star, int64(265)), // the token "*" in CLIP's vocabulary
			"string_to_param", pickle.NewDict(star, first),
			"name", token, "step", int64(0), "sd_checkpoint", nil, "sd_checkpoint_name", nil,
		))
	case A1111Tensors:
		return prompt.WriteTensors(w, map[string]*graph.Tensor{"emb_params": first})
	case SDXL:
		return prompt.WriteTensors(w, map[string]*graph.Tensor{clipL: first, clipG: second})
	}
	return errs.New(errs.Invalid, "format %.40q, must be one of %q", f, Formats)
}

func encoders(two bool) int {
	if two {
		return 2
	}
	return 1
}
