package graph

import "fmt"

// DataType is an element type with ONNX's own numbering (TensorProto.DataType).
type DataType int32

// The element types that encoders' graphs use.
const (
	Undefined DataType = 0
	Float     DataType = 1
	Uint8     DataType = 2
	Int8      DataType = 3
	Uint16    DataType = 4
	Int16     DataType = 5
	Int32     DataType = 6
	Int64     DataType = 7
	String    DataType = 8
	Bool      DataType = 9
	Float16   DataType = 10
	Double    DataType = 11
	Uint32    DataType = 12
	Uint64    DataType = 13
	BFloat16  DataType = 16
	Uint4     DataType = 21 // two in a byte, the first in its lower half
	Int4      DataType = 22
)

var dataTypes = map[DataType]struct {
	name string
	bits int
}{
	Undefined: {"undefined", 0}, Float: {"float", 32}, Uint8: {"uint8", 8}, Int8: {"int8", 8}, Uint16: {"uint16", 16},
	Int16: {"int16", 16}, Int32: {"int32", 32}, Int64: {"int64", 64}, String: {"string", 0}, Bool: {"bool", 8},
	Float16: {"float16", 16}, Double: {"double", 64}, Uint32: {"uint32", 32}, Uint64: {"uint64", 64}, BFloat16: {"bfloat16", 16},
	Uint4: {"uint4", 4}, Int4: {"int4", 4},
}

// String is the type's name as ONNX writes it.
func (t DataType) String() string {
	if d, ok := dataTypes[t]; ok {
		return d.name
	}
	return fmt.Sprintf("DataType(%d)", int32(t))
}

// Size is the number of bytes of one element, 0 where elements have no fixed size or share a byte.
func (t DataType) Size() int { return dataTypes[t].bits / 8 }

// Bytes is the number of bytes of n elements, the last of which may be filled up.
func (t DataType) Bytes(n int64) int64 { return (n*int64(dataTypes[t].bits) + 7) / 8 }

// IsFloat says whether gradients can flow through values of this type.
func (t DataType) IsFloat() bool {
	return t == Float || t == Float16 || t == Double || t == BFloat16
}
