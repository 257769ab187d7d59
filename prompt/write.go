package prompt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Write writes the prompt as a safetensors file. Equal prompts give equal bytes. What [Read]
// would refuse is refused before anything is written.
func Write(w io.Writer, p *Prompt) error {
	if err := p.check(); err != nil {
		return err
	}
	header, names, err := encodeHeader(p)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("writing a prompt: %w", err)
	}
	for _, name := range names {
		b, err := p.Tensors[name].Bytes()
		if err != nil {
			return fmt.Errorf("prompt tensor %q: %w", name, err)
		}
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("writing a prompt: %w", err)
		}
	}
	return nil
}

// encodeHeader makes length and header, padded so that the data starts at a multiple of 8, and
// lists the tensors in the order of their data.
func encodeHeader(p *Prompt) ([]byte, []string, error) {
	card, err := p.Card.encode()
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	fmt.Fprintf(&b, `{%s:{%s:%s}`, quote(metadataName), quote(metadataKey), quote(card))
	var at int64
	names := order(p.Tensors)
	for _, name := range names {
		e, err := describe(name, p.Tensors[name], at)
		if err != nil {
			return nil, nil, err
		}
		b.WriteString(e)
		at += p.Tensors[name].Len() * int64(p.Tensors[name].Type.Size())
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	n := b.Len() - 8
	if n > maxHeader || len(names) > maxTensors {
		return nil, nil, errs.New(errs.TooLarge, "prompt: header of %d bytes and %d tensors, limits %d and %d", n, len(names), maxHeader, maxTensors)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(n))
	return b.Bytes(), names, nil
}

// describe is a tensor's entry in the header.
func describe(name string, t *graph.Tensor, at int64) (string, error) {
	dtype := ""
	for d, g := range dtypes {
		if g == t.Type {
			dtype = d
		}
	}
	e := entry{name: name, dtype: t.Type, dims: t.Dims, begin: at, end: at + t.Len()*int64(t.Type.Size())}
	if dtype == "" || name == metadataName || !utf8.ValidString(name) {
		return "", errs.New(errs.Invalid, "prompt tensor %q of %s can't be written as safetensors", name, t.Type)
	}
	if err := e.checkSize(); err != nil {
		return "", errs.New(errs.Invalid, "prompt tensor %q: %w", name, err)
	}
	dims := strings.ReplaceAll(fmt.Sprint(t.Dims), " ", ",")
	return fmt.Sprintf(`,%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, quote(name), dtype, dims, e.begin, e.end), nil
}

// order puts wide elements first, so that each tensor is aligned, then goes by name.
func order(tensors map[string]*graph.Tensor) []string {
	return slices.SortedFunc(maps.Keys(tensors), func(a, b string) int {
		return cmp.Or(cmp.Compare(tensors[b].Type.Size(), tensors[a].Type.Size()), strings.Compare(a, b))
	})
}

// quote writes a JSON string. Marshal cannot fail on one.
func quote(s string) []byte {
	b, _ := json.Marshal(s)
	return b
}
