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
	card, err := p.Card.encode()
	if err != nil {
		return err
	}
	return writeTensors(w, fmt.Sprintf(`%s:{%s:%s}`, quote(metadataName), quote(metadataKey), quote(card)), p.Tensors)
}

// WriteTensors writes tensors as a safetensors file that says it is for PyTorch, and nothing else.
func WriteTensors(w io.Writer, tensors map[string]*graph.Tensor) error {
	return writeTensors(w, fmt.Sprintf(`%s:{"format":"pt"}`, quote(metadataName)), tensors)
}

func writeTensors(w io.Writer, metadata string, tensors map[string]*graph.Tensor) error {
	header, names, err := encodeHeader(metadata, tensors)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("writing a prompt: %w", err)
	}
	for _, name := range names {
		b, err := tensors[name].Bytes()
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
func encodeHeader(metadata string, tensors map[string]*graph.Tensor) ([]byte, []string, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteString("{" + metadata)
	var at int64
	names := order(tensors)
	for _, name := range names {
		e, err := describe(name, tensors[name], at)
		if err != nil {
			return nil, nil, err
		}
		b.WriteString(e)
		at += tensors[name].Len() * int64(tensors[name].Type.Size())
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
