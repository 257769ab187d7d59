// Package npz reads and writes NumPy's archives of arrays, as tensors.
//
// The format is https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html: a zip
// of .npy files, each a header that is a Python dictionary, and the elements.
package npz

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// types are NumPy's names of little-endian element types.
var types = map[string]graph.DataType{
	"<f2": graph.Float16, "<f4": graph.Float, "<f8": graph.Double, "|b1": graph.Bool,
	"|i1": graph.Int8, "<i2": graph.Int16, "<i4": graph.Int32, "<i8": graph.Int64,
	"|u1": graph.Uint8, "<u2": graph.Uint16, "<u4": graph.Uint32, "<u8": graph.Uint64,
}

const (
	magic     = "\x93NUMPY"
	maxHeader = 1 << 16
	maxArray  = 1 << 34 // bytes
)

// Read reads the arrays of an archive by their names. Arrays in Fortran's order are brought
// into C's. Errors are of kind [errs.NotFound], [errs.Invalid] or, for an element type that is
// not known, [errs.Unsupported].
func Read(path string) (map[string]*graph.Tensor, error) {
	z, err := zip.OpenReader(path)
	if err != nil {
		return nil, errs.New(openKind(err), "npz %s: %w", path, err)
	}
	defer z.Close()
	out := map[string]*graph.Tensor{}
	for _, f := range z.File {
		name, isArray := strings.CutSuffix(f.Name, ".npy")
		if !isArray {
			continue
		}
		if out[name], err = readEntry(f); err != nil {
			return nil, errs.New(errs.Or(err, errs.Invalid), "npz %s: array %q: %w", path, name, err)
		}
	}
	return out, nil
}

func openKind(err error) errs.Kind {
	if os.IsNotExist(err) {
		return errs.NotFound
	}
	return errs.Invalid
}

func readEntry(f *zip.File) (*graph.Tensor, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	size, err := h.size()
	if err != nil {
		return nil, err
	}
	// What is there bounds what is allocated, not what the header claims.
	data, err := io.ReadAll(io.LimitReader(r, size+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != size {
		return nil, fmt.Errorf("%s%v needs %d bytes, it has %d or more", h.dtype, h.dims, size, len(data))
	}
	if h.fortran {
		data = rowMajor(data, h.dims, h.dtype.Size())
	}
	return graph.NewTensorBytes(h.dtype, data, h.dims...)
}

// header is what an array's header says.
type header struct {
	dtype   graph.DataType
	fortran bool
	dims    []int64
}

var (
	descrKey = regexp.MustCompile(`'descr':\s*'([^']*)'`)
	orderKey = regexp.MustCompile(`'fortran_order':\s*(True|False)`)
	shapeKey = regexp.MustCompile(`'shape':\s*\(([0-9, ]*)\)`)
)

func readHeader(r io.Reader) (h header, err error) {
	var start struct {
		Magic        [6]byte
		Major, Minor uint8
	}
	if err := binary.Read(r, binary.LittleEndian, &start); err != nil || string(start.Magic[:]) != magic {
		return h, fmt.Errorf("no NumPy array")
	}
	length := make([]byte, 4)
	if start.Major == 1 {
		_, err = io.ReadFull(r, length[:2])
	} else {
		_, err = io.ReadFull(r, length)
	}
	n := binary.LittleEndian.Uint32(length)
	if err != nil || n > maxHeader {
		return h, fmt.Errorf("a header of %d bytes", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return h, err
	}
	return parseHeader(string(text))
}

func parseHeader(text string) (h header, err error) {
	descr, order, shape := descrKey.FindStringSubmatch(text), orderKey.FindStringSubmatch(text), shapeKey.FindStringSubmatch(text)
	if descr == nil || order == nil || shape == nil {
		return h, fmt.Errorf("its header %.80q is not understood", text)
	}
	var ok bool
	if h.dtype, ok = types[descr[1]]; !ok {
		return h, errs.New(errs.Unsupported, "elements of NumPy's type %q: little-endian floats, integers and booleans are read", descr[1])
	}
	h.fortran, h.dims = order[1] == "True", []int64{}
	for d := range strings.SplitSeq(shape[1], ",") {
		if d = strings.TrimSpace(d); d == "" {
			continue
		}
		n, err := strconv.ParseInt(d, 10, 64)
		if err != nil {
			return h, err
		}
		h.dims = append(h.dims, n)
	}
	return h, nil
}

func (h header) size() (int64, error) {
	n := int64(h.dtype.Size())
	for _, d := range h.dims {
		if d > 0 && n > maxArray/d {
			return 0, errs.New(errs.TooLarge, "shape %v, at most %d bytes are read", h.dims, int64(maxArray))
		}
		n *= d
	}
	return n, nil
}

// rowMajor reorders elements that were stored with the first axis running fastest.
func rowMajor(data []byte, dims []int64, size int) []byte {
	out := make([]byte, 0, len(data))
	index := make([]int64, len(dims))
	for range len(data) / size {
		at, stride := int64(0), int64(size)
		for axis, n := range dims {
			at += index[axis] * stride
			stride *= n
		}
		out = append(out, data[at:at+int64(size)]...)
		for axis := len(dims) - 1; axis >= 0; axis-- {
			if index[axis]++; index[axis] < dims[axis] {
				break
			}
			index[axis] = 0
		}
	}
	return out
}

// Write writes tensors as an archive that numpy.load reads. Equal tensors give equal bytes. Where
// writing fails, no file is left.
func Write(path string, tensors map[string]*graph.Tensor) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".npz-*")
	if err != nil {
		return errs.New(openKind(err), "npz %s: %w", path, err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	z := zip.NewWriter(f)
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		if err := writeEntry(z, name, tensors[name]); err != nil {
			return fmt.Errorf("npz %s: array %q: %w", path, name, err)
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := f.Chmod(fs.FileMode(0o644)); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func writeEntry(z *zip.Writer, name string, t *graph.Tensor) error {
	descr := ""
	for d, dtype := range types {
		if dtype == t.Type {
			descr = d
		}
	}
	if descr == "" {
		return errs.New(errs.Unsupported, "NumPy has no elements of type %s", t.Type)
	}
	data, err := t.Bytes()
	if err != nil {
		return err
	}
	w, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Store})
	if err != nil {
		return err
	}
	if _, err := w.Write(encodeHeader(descr, t.Dims)); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// encodeHeader makes the header of an array, padded so that the elements start at a multiple of 64.
func encodeHeader(descr string, dims []int64) []byte {
	shape := strings.Trim(strings.ReplaceAll(fmt.Sprint(dims), " ", ", "), "[]")
	if len(dims) == 1 {
		shape += ","
	}
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, shape)
	const before = len(magic) + 4
	text += strings.Repeat(" ", 63-(before+len(text))%64) + "\n"
	var b bytes.Buffer
	b.WriteString(magic + "\x01\x00")
	b.Write(binary.LittleEndian.AppendUint16(nil, uint16(len(text))))
	b.WriteString(text)
	return b.Bytes()
}
