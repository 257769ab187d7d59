// Package prompt reads and writes the tuned artefact: one safetensors file with the learned
// tensors and, in its metadata, a card that says what they are. It knows neither models nor
// where files are kept.
package prompt

import (
	"crypto/sha256"
	"encoding/hex"
	"math"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Prompt is the tuned artefact. Its tensors by the card's kind, all of floats:
//
//	classifier  context [M,D], [C,M,D] when the card says class-specific, or [depth,M,D]: text tokens
//	            visual [depth,K,D]: image tokens
//	            head.weight [C,P], head.bias [C]: a linear classifier over embeddings
//	            couple.I.weight [Dv,D], couple.I.bias [Dv]: the map from context to visual tokens at
//	            block I that MaPLe learned, where a file keeps it; "visual" holds its result
//	caption     one or more of
//	            prefix [P,D]: tokens before the decoder's
//	            keys, values [L,H,P,d]: what each of the decoder's L layers attends to besides
//	            map.I.weight [out,in], map.I.bias [out]: layers from an image's feature to a prefix
//	            visual [depth,K,D]: image tokens
//	concept     embedding [n,D]: the rows that the card's token stands for
//	style       context [M,D]: tokens before the user's words
//	negative    negative [n,D]: tokens in place of a negative prompt's words
//
// The last three have embedding_2, context_2 or negative_2 [n,D2] besides, where the bundle has a
// second text encoder. Other names are carried along.
type Prompt struct {
	Card    Card
	Tensors map[string]*graph.Tensor
}

// CheckBundle refuses every bundle but the one that the prompt was tuned on: tokens mean
// nothing to other weights, even where the shapes agree.
func (p *Prompt) CheckBundle(digest string) error {
	if p.Card.Bundle.Digest == digest {
		return nil
	}
	return errs.New(errs.Conflict, "prompt was tuned on bundle %q (%s), not on the one given (%s): load that bundle, or tune the prompt again on this one",
		p.Card.Bundle.Name, p.Card.Bundle.Digest, digest)
}

// Digest is the SHA-256, in hexadecimal, of the file that [Write] makes of p.
func (p *Prompt) Digest() (string, error) {
	h := sha256.New()
	if err := Write(h, p); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// check refuses what could not be served: wrong shapes, numbers that are not finite.
func (p *Prompt) check() error {
	if err := p.Card.check(); err != nil {
		return err
	}
	for _, name := range order(p.Tensors) {
		if err := checkFinite(name, p.Tensors[name]); err != nil {
			return err
		}
	}
	return p.checkKind()
}

// checkClasses compares the tensors with a row for each class with the card's classes.
func (p *Prompt) checkClasses() error {
	rows := []string{"head.weight", "head.bias"}
	if p.Card.ClassSpecific {
		rows = append(rows, "context")
		if t := p.Tensors["context"]; t != nil && len(t.Dims) != 3 {
			return errs.New(errs.Invalid, "prompt tensor \"context\": %v, must be [C,M,D] as the card says class-specific", t.Dims)
		}
	}
	for _, name := range rows {
		if t := p.Tensors[name]; t != nil && t.Dims[0] != int64(len(p.Card.Classes)) {
			return errs.New(errs.Invalid, "prompt tensor %q: %d rows for the card's %d classes", name, t.Dims[0], len(p.Card.Classes))
		}
	}
	return nil
}

// checkFinite finds the first NaN or infinity of a float tensor, or elements that are missing.
func checkFinite(name string, t *graph.Tensor) error {
	b, err := t.Bytes()
	if err != nil {
		return errs.New(errs.Or(err, errs.Invalid), "prompt tensor %q: %w", name, err)
	}
	size := t.Type.Size()
	if want := t.Len() * int64(size); int64(len(b)) != want {
		return errs.New(errs.Invalid, "prompt tensor %q: %s%v needs %d bytes, has %d", name, t.Type, t.Dims, want, len(b))
	}
	mask, ok := exponent[t.Type]
	if !ok {
		return nil
	}
	for i := 0; i+size <= len(b); i += size {
		var v uint64
		for j := range size {
			v |= uint64(b[i+j]) << (8 * j)
		}
		if v&mask == mask {
			return errs.New(errs.Invalid, "prompt tensor %q: element %d is not finite", name, i/size)
		}
	}
	return nil
}

// exponent holds the bits that are all set in a NaN or an infinity (IEEE 754; bfloat16 is the
// upper half of a float32).
var exponent = map[graph.DataType]uint64{
	graph.Float16: 0x7c00, graph.BFloat16: 0x7f80,
	graph.Float: 0x7f800000, graph.Double: math.MaxInt64 &^ (1<<52 - 1),
}
