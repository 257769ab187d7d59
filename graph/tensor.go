package graph

import (
	"fmt"
	"io"
	"math"
	"os"
	"unsafe"
)

// Tensor is a dense array in row-major order: a weight, a constant, or a value
// that enters or leaves a run. A weight's bytes may still lie in its model file;
// they are read when first asked for.
type Tensor struct {
	Type DataType
	Dims []int64 // empty for a scalar
	// Source says where the bytes lie when they are not in memory.
	Source *Source

	data []byte // little-endian elements; nil while only Source knows them
}

// Source is a byte range of a file: an external-data tensor, or the inline
// raw_data of a model file, which is left where it is.
type Source struct {
	Path           string // absolute
	Offset, Length int64
}

// Element is a Go type that a Tensor's elements can be read as.
type Element interface {
	~float32 | ~float64 | ~int64 | ~int32 | ~int16 | ~int8 | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~bool
}

// NewTensor wraps data without copying it. The element type follows from T
// (uint16 is Uint16: for half floats use [NewTensorBytes]).
// It panics when dims do not multiply to len(data): that is a programming error.
func NewTensor[T Element](data []T, dims ...int64) *Tensor {
	if n := Count(dims); n != int64(len(data)) {
		panic(fmt.Sprintf("graph: %d elements do not fill dims %v", len(data), dims))
	}
	return &Tensor{Type: typeOf[T](), Dims: dims, data: asBytes(data)}
}

// NewTensorBytes wraps little-endian element bytes of any type of fixed size, those of 4 bits too.
func NewTensorBytes(t DataType, data []byte, dims ...int64) (*Tensor, error) {
	if want := t.Bytes(Count(dims)); t.Bytes(1) == 0 || want != int64(len(data)) {
		return nil, fmt.Errorf("tensor of %s%v needs %d bytes, got %d", t, dims, want, len(data))
	}
	return &Tensor{Type: t, Dims: dims, data: data}, nil
}

// Integers makes a tensor of the type that a graph takes ids, masks and places in: int64, int32, bool or floats.
func Integers(values []int64, as DataType, dims ...int64) *Tensor {
	switch as {
	case Int32:
		return NewTensor(integersAs(values, func(v int64) int32 { return int32(v) }), dims...)
	case Bool:
		return NewTensor(integersAs(values, func(v int64) bool { return v != 0 }), dims...)
	case Float:
		return NewTensor(integersAs(values, func(v int64) float32 { return float32(v) }), dims...)
	}
	return NewTensor(values, dims...)
}

func integersAs[T any](values []int64, f func(int64) T) []T {
	out := make([]T, len(values))
	for i, v := range values {
		out[i] = f(v)
	}
	return out
}

// Len is the number of elements.
func (t *Tensor) Len() int64 { return Count(t.Dims) }

// InMemory says whether the elements have been read from their source.
func (t *Tensor) InMemory() bool { return t.data != nil || t.Len() == 0 }

// Bytes returns the little-endian elements, reading them from the source file when
// they are not in memory. Bytes read from a file are not kept.
func (t *Tensor) Bytes() ([]byte, error) {
	if t.data != nil || t.Source == nil {
		return t.data, nil
	}
	f, err := os.Open(t.Source.Path)
	if err != nil {
		return nil, fmt.Errorf("weight data: %w", err)
	}
	defer f.Close()
	// Allocated as 8-byte words, so that any element type can view it in place.
	words := make([]uint64, (t.Source.Length+7)/8)
	b := asBytes(words)[:t.Source.Length]
	if _, err := io.ReadFull(io.NewSectionReader(f, t.Source.Offset, t.Source.Length), b); err != nil {
		return nil, fmt.Errorf("weight data %s[%d:+%d]: %w", t.Source.Path, t.Source.Offset, t.Source.Length, err)
	}
	return b, nil
}

// row is element i along the first axis. No more than its bytes are read.
func (t *Tensor) row(i int64) *Tensor {
	r := &Tensor{Type: t.Type, Dims: t.Dims[1:]}
	size := r.Len() * int64(t.Type.Size())
	if t.data != nil {
		r.data = t.data[i*size : (i+1)*size]
	} else if t.Source != nil {
		r.Source = &Source{Path: t.Source.Path, Offset: t.Source.Offset + i*size, Length: size}
	}
	return r
}

// Values views the tensor's elements as []T without copying where memory allows it.
// T must match the tensor's type.
func Values[T Element](t *Tensor) ([]T, error) {
	if t.Type != typeOf[T]() {
		return nil, fmt.Errorf("tensor holds %s, asked for %s", t.Type, typeOf[T]())
	}
	b, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	if want := t.Len() * int64(t.Type.Size()); int64(len(b)) != want {
		return nil, fmt.Errorf("tensor of %s%v holds %d bytes, needs %d", t.Type, t.Dims, len(b), want)
	}
	return fromBytes[T](b), nil
}

// Rows returns entries start..end-1 of the first axis of a tensor in memory, which it shares.
func (t *Tensor) Rows(start, end int64) *Tensor {
	size := Count(t.Dims[1:]) * int64(t.Type.Size())
	dims := append([]int64{end - start}, t.Dims[1:]...)
	return &Tensor{Type: t.Type, Dims: dims, data: t.data[start*size : end*size]}
}

// Count multiplies dims; 1 for none.
func Count[T int | int64](dims []T) T {
	n := T(1)
	for _, d := range dims {
		n *= d
	}
	return n
}

func typeOf[T Element]() DataType {
	var z T
	switch any(z).(type) {
	case float32:
		return Float
	case float64:
		return Double
	case int64:
		return Int64
	case int32:
		return Int32
	case int16:
		return Int16
	case int8:
		return Int8
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	case bool:
		return Bool
	}
	return Undefined
}

func asBytes[T Element](s []T) []byte {
	if len(s) == 0 {
		return []byte{}
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}

func fromBytes[T Element](b []byte) []T {
	var z T
	size := int(unsafe.Sizeof(z))
	n := len(b) / size
	if n == 0 {
		return []T{}
	}
	if uintptr(unsafe.Pointer(&b[0]))%uintptr(size) == 0 {
		return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
	}
	out := make([]T, n)
	copy(asBytes(out), b)
	return out
}

// Codes returns the elements of a type of 4 or 8 bits, which quantised weights are of, as int16.
func Codes(t *Tensor) ([]int16, error) {
	b, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	out := make([]int16, t.Len())
	for i := range out {
		switch t.Type {
		case Uint8:
			out[i] = int16(b[i])
		case Int8:
			out[i] = int16(int8(b[i]))
		case Uint4:
			out[i] = int16(b[i/2] >> (4 * (i % 2)) & 15)
		case Int4:
			out[i] = int16(int8(b[i/2]>>(4*(i%2))<<4) >> 4)
		default:
			return nil, fmt.Errorf("tensor holds %s, no codes of 4 or 8 bits", t.Type)
		}
	}
	return out, nil
}

// NewCodes packs numbers of 4 bits, two in a byte, as a tensor of type [Uint4] or [Int4]. It panics when dims do
// not multiply to len(codes).
func NewCodes(t DataType, codes []int16, dims ...int64) *Tensor {
	data := make([]byte, t.Bytes(int64(len(codes))))
	for i, c := range codes {
		data[i/2] |= byte(c&15) << (4 * (i % 2))
	}
	x, err := NewTensorBytes(t, data, dims...)
	if err != nil {
		panic(err)
	}
	return x
}

// Float32s returns a float tensor's elements as float32, widened from half where need be.
func Float32s(t *Tensor) ([]float32, error) {
	switch t.Type {
	case Float:
		return Values[float32](t)
	case Float16, BFloat16:
		b, err := t.Bytes()
		if err != nil {
			return nil, err
		}
		out := make([]float32, len(b)/2)
		for i := range out {
			h := uint16(b[2*i]) | uint16(b[2*i+1])<<8
			if t.Type == BFloat16 {
				out[i] = math.Float32frombits(uint32(h) << 16)
			} else {
				out[i] = float16value(h)
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("tensor holds %s, no float", t.Type)
}

// float16value widens a half float.
func float16value(h uint16) float32 {
	sign, exp, frac := uint32(h&0x8000)<<16, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch {
	case exp == 0 && frac == 0:
		return math.Float32frombits(sign)
	case exp == 0:
		v := float32(frac) / (1 << 24)
		if sign != 0 {
			return -v
		}
		return v
	case exp == 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
