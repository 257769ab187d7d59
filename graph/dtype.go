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
)

var dataTypes = map[DataType]struct {
	name string
	size int
}{
	Undefined: {"undefined", 0}, Float: {"float", 4}, Uint8: {"uint8", 1}, Int8: {"int8", 1}, Uint16: {"uint16", 2},
	Int16: {"int16", 2}, Int32: {"int32", 4}, Int64: {"int64", 8}, String: {"string", 0}, Bool: {"bool", 1},
	Float16: {"float16", 2}, Double: {"double", 8}, Uint32: {"uint32", 4}, Uint64: {"uint64", 8}, BFloat16: {"bfloat16", 2},
}

// String is the type's name as ONNX writes it.
func (t DataType) String() string {
	if d, ok := dataTypes[t]; ok {
		return d.name
	}
	return fmt.Sprintf("DataType(%d)", int32(t))
}

// Size is the number of bytes of one element, 0 where elements have no fixed size.
func (t DataType) Size() int { return dataTypes[t].size }

// IsFloat says whether gradients can flow through values of this type.
func (t DataType) IsFloat() bool {
	return t == Float || t == Float16 || t == Double || t == BFloat16
}
