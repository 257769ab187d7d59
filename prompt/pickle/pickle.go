// Package pickle reads and writes files of PyTorch's torch.save that hold tensors: dictionaries,
// lists, texts, numbers and tensors. A pickle is a program; this one is never run as such. Only
// the operations that such files need are known, and only the names of the functions that make
// tensors; a file that asks for anything else is refused by what it asks for. The package knows
// nothing of prompts.
//
// The operations are those of Python's pickletools (protocols 2 to 5); how tensors lie in a file is
// told by torch/serialization.py and torch/_utils.py.
package pickle

import (
	"github.com/foretoken/foretoken/graph"
)

// What a file may hold, so that a hostile one costs little.
const (
	maxFile    = 1 << 30  // bytes
	maxProgram = 16 << 20 // bytes of a pickle, tensors' contents apart
	maxRank    = 8
	// Tensors may share their contents in the file, and have each their own here: all of them take at
	// most so many times the file's bytes, and so many more.
	maxShare, freeShare = 4, 1 << 20
)

// A value of a file is one of: nil, bool, int64, float64, string, *[List], [Tuple], *[Dict],
// *[graph.Tensor].

// List is a list of values.
type List struct{ Items []any }

// Tuple is a list that does not change.
type Tuple []any

// Dict is a dictionary whose keys are strings or numbers, in the order in which they were set.
type Dict struct {
	keys   []any
	values map[any]any
}

// NewDict makes a dictionary of pairs of key and value.
func NewDict(pairs ...any) *Dict {
	d := &Dict{values: map[any]any{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		d.Set(pairs[i], pairs[i+1])
	}
	return d
}

// Set puts a value under a key, which is a string or an int64.
func (d *Dict) Set(key, value any) {
	if _, there := d.values[key]; !there {
		d.keys = append(d.keys, key)
	}
	d.values[key] = value
}

// Get is the value under a key, nil where there is none.
func (d *Dict) Get(key any) any { return d.values[key] }

// Keys are the keys in the order in which they were set.
func (d *Dict) Keys() []any { return d.keys }

// storageTypes are the names of torch's storages and their elements.
var storageTypes = map[string]graph.DataType{
	"DoubleStorage": graph.Double, "FloatStorage": graph.Float, "HalfStorage": graph.Float16, "BFloat16Storage": graph.BFloat16,
	"LongStorage": graph.Int64, "IntStorage": graph.Int32, "ShortStorage": graph.Int16, "CharStorage": graph.Int8,
	"ByteStorage": graph.Uint8, "BoolStorage": graph.Bool,
}
