package prompt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// What a file may hold, so that a hostile one costs little.
const (
	maxHeader  = 16 << 20 // bytes
	maxTensors = 4096
	maxRank    = 8
)

// metadataKey is where the card lies in the file's metadata, and metadataName where
// safetensors keeps metadata among the tensors.
const (
	metadataKey  = "foretoken"
	metadataName = "__metadata__"
)

// dtypes are safetensors' names of element types.
var dtypes = map[string]graph.DataType{
	"F64": graph.Double, "F32": graph.Float, "F16": graph.Float16, "BF16": graph.BFloat16, "BOOL": graph.Bool,
	"I64": graph.Int64, "I32": graph.Int32, "I16": graph.Int16, "I8": graph.Int8,
	"U64": graph.Uint64, "U32": graph.Uint32, "U16": graph.Uint16, "U8": graph.Uint8,
}

// entry is one tensor as the header describes it.
type entry struct {
	name       string
	dtype      graph.DataType
	dims       []int64
	begin, end int64 // in the data that follows the header
}

// ReadBytes reads a prompt from a file's content.
func ReadBytes(b []byte) (*Prompt, error) {
	return Read(bytes.NewReader(b), int64(len(b)))
}

// Read reads a prompt from a safetensors file of the given size. The file is not trusted: every
// length is checked before it is used, and the tensors never take more memory than the file.
// See https://huggingface.co/docs/safetensors for the format.
func Read(r io.ReaderAt, size int64) (*Prompt, error) {
	f, err := readFile(r, size)
	if err != nil {
		return nil, err
	}
	card, err := parseMetadata(f.metadata)
	if err != nil {
		return nil, err
	}
	p := &Prompt{Card: card}
	if p.Tensors, err = f.tensors(); err != nil {
		return nil, err
	}
	return p, p.check()
}

// ReadTensors reads the tensors of any safetensors file as [Read] does, whatever its metadata say.
func ReadTensors(b []byte) (map[string]*graph.Tensor, error) {
	f, err := readFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	return f.tensors()
}

// layout is a file whose header is read.
type layout struct {
	r        io.ReaderAt
	start    int64 // of the data
	metadata json.RawMessage
	entries  []entry
}

func readFile(r io.ReaderAt, size int64) (*layout, error) {
	header, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	f := &layout{r: r, start: 8 + int64(len(header))}
	if f.metadata, f.entries, err = parseHeader(header); err != nil {
		return nil, err
	}
	return f, checkLayout(f.entries, size-f.start)
}

func (f *layout) tensors() (map[string]*graph.Tensor, error) {
	tensors := map[string]*graph.Tensor{}
	for _, e := range f.entries {
		data := make([]byte, e.end-e.begin)
		if err := readFull(f.r, data, f.start+e.begin); err != nil {
			return nil, err
		}
		t, err := graph.NewTensorBytes(e.dtype, data, e.dims...)
		if err != nil {
			return nil, errs.New(errs.Invalid, "prompt tensor %q: %w", e.name, err)
		}
		tensors[e.name] = t
	}
	return tensors, nil
}

func readFull(r io.ReaderAt, b []byte, offset int64) error {
	if n, err := r.ReadAt(b, offset); n < len(b) {
		return errs.New(errs.Or(err, errs.Invalid), "prompt file: %d bytes at offset %d: %w", len(b), offset, err)
	}
	return nil
}

func readHeader(r io.ReaderAt, size int64) ([]byte, error) {
	var prefix [8]byte
	if size < 8 {
		return nil, errs.New(errs.Invalid, "prompt file of %d bytes is too short for safetensors", size)
	}
	if err := readFull(r, prefix[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > uint64(size-8) {
		return nil, errs.New(errs.Invalid, "prompt file: header of %d bytes in a file of %d: not safetensors, or cut off", n, size)
	}
	if n > maxHeader {
		return nil, errs.New(errs.TooLarge, "prompt file: header of %d bytes, limit %d", n, maxHeader)
	}
	header := make([]byte, n)
	if err := readFull(r, header, 8); err != nil {
		return nil, err
	}
	if !utf8.Valid(header) {
		return nil, errs.New(errs.Invalid, "prompt file: the header is not UTF-8")
	}
	return header, nil
}

func parseHeader(header []byte) (metadata json.RawMessage, entries []entry, err error) {
	all, err := members("header", header)
	if err != nil {
		return nil, nil, err
	}
	metadata = all[metadataName]
	delete(all, metadataName)
	if len(all) > maxTensors {
		return nil, nil, errs.New(errs.TooLarge, "prompt file: %d tensors, limit %d", len(all), maxTensors)
	}
	entries = make([]entry, 0, len(all))
	for name, raw := range all {
		e, err := parseEntry(name, raw)
		if err != nil {
			return nil, nil, errs.New(errs.Of(err), "prompt tensor %q: %w", name, err)
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), strings.Compare(a.name, b.name))
	})
	return metadata, entries, nil
}

func parseMetadata(raw json.RawMessage) (Card, error) {
	if raw == nil {
		return Card{}, errs.New(errs.Invalid, "prompt file: no metadata, so no card: not written by foretoken")
	}
	values, err := members("metadata", raw)
	if err != nil {
		return Card{}, err
	}
	var card *string
	if err := json.Unmarshal(values[metadataKey], &card); err != nil || card == nil {
		return Card{}, errs.New(errs.Invalid, "prompt file: the metadata holds no card under %q: not written by foretoken", metadataKey)
	}
	return decodeCard(*card)
}

// members splits a JSON object, refusing a key that is there twice.
func members(what string, object []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errs.New(errs.Invalid, "prompt file: the %s is no JSON object", what)
	}
	all := map[string]json.RawMessage{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, errs.New(errs.Invalid, "prompt file: %s: %w", what, err)
		}
		name := key.(string) // the decoder lets nothing else stand before a colon
		if _, twice := all[name]; twice {
			return nil, errs.New(errs.Invalid, "prompt file: %s: key %q is there twice", what, name)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errs.New(errs.Invalid, "prompt file: %s: value of %q: %w", what, name, err)
		}
		all[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, errs.New(errs.Invalid, "prompt file: %s: %w", what, err)
	}
	if rest := object[d.InputOffset():]; len(bytes.Trim(rest, " ")) > 0 {
		return nil, errs.New(errs.Invalid, "prompt file: %s: %d bytes after the closing brace", what, len(rest))
	}
	return all, nil
}

func parseEntry(name string, raw json.RawMessage) (entry, error) {
	fields, err := members("entry", raw)
	if err != nil {
		return entry{}, err
	}
	var dtype string
	var dims, offsets []int64
	for key, into := range map[string]any{"dtype": &dtype, "shape": &dims, "data_offsets": &offsets} {
		if err := json.Unmarshal(fields[key], into); err != nil {
			return entry{}, errs.New(errs.Invalid, "%s %.80s: %w", key, fields[key], err)
		}
	}
	e := entry{name: name, dtype: dtypes[dtype], dims: dims}
	if e.dtype == graph.Undefined {
		return e, errs.New(errs.Unsupported, "element type %.20q is not known", dtype)
	}
	if len(offsets) != 2 || offsets[0] < 0 || offsets[1] < offsets[0] {
		return e, errs.New(errs.Invalid, "data_offsets %.80s, must be [begin, end]", fields["data_offsets"])
	}
	e.begin, e.end = offsets[0], offsets[1]
	return e, e.checkSize()
}

// checkSize compares the bytes with what type and shape ask for, without overflow.
func (e entry) checkSize() error {
	if len(e.dims) > maxRank {
		return errs.New(errs.Invalid, "rank %d, limit %d", len(e.dims), maxRank)
	}
	have := e.end - e.begin
	want := int64(e.dtype.Size())
	for _, d := range e.dims {
		if d < 1 || d > have/want {
			return errs.New(errs.Invalid, "shape %v does not fit the %d bytes that it has", e.dims, have)
		}
		want *= d
	}
	if want != have {
		return errs.New(errs.Invalid, "%s%v needs %d bytes, has %d", e.dtype, e.dims, want, have)
	}
	return nil
}

// checkLayout wants the tensors, sorted by offset, to fill the data without gap or overlap.
func checkLayout(entries []entry, size int64) error {
	var at int64
	for _, e := range entries {
		if e.begin != at {
			return errs.New(errs.Invalid, "prompt tensor %q: starts at byte %d where the one before it ends at %d: a gap or an overlap", e.name, e.begin, at)
		}
		at = e.end
	}
	if at != size {
		return errs.New(errs.Invalid, "prompt file: tensors of %d bytes, but %d bytes of data", at, size)
	}
	return nil
}
