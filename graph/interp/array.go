package interp

import (
	"fmt"

	"github.com/foretoken/foretoken/graph"
)

// Array is a tensor whose elements, of whatever type, are held as doubles.
type Array struct {
	Type graph.DataType
	Dims []int
	Data []float64
}

// FromTensor widens a tensor's elements.
func FromTensor(t *graph.Tensor) (Array, error) {
	a := Array{Type: t.Type, Dims: make([]int, len(t.Dims))}
	for i, d := range t.Dims {
		a.Dims[i] = int(d)
	}
	var err error
	switch t.Type {
	case graph.Float, graph.Float16, graph.BFloat16:
		var v []float32
		v, err = graph.Float32s(t)
		a.Data = widen(v)
	case graph.Double:
		a.Data, err = graph.Values[float64](t)
	case graph.Int64:
		a.Data, err = widened[int64](t)
	case graph.Int32:
		a.Data, err = widened[int32](t)
	case graph.Int16:
		a.Data, err = widened[int16](t)
	case graph.Uint16:
		a.Data, err = widened[uint16](t)
	case graph.Uint32:
		a.Data, err = widened[uint32](t)
	case graph.Uint64:
		a.Data, err = widened[uint64](t)
	case graph.Uint8:
		a.Data, err = widened[uint8](t)
	case graph.Int8:
		a.Data, err = widened[int8](t)
	case graph.Uint4, graph.Int4:
		var v []int16
		v, err = graph.Codes(t)
		a.Data = widen(v)
	case graph.Bool:
		var b []byte
		b, err = t.Bytes()
		a.Data = widen(b)
	default:
		return a, fmt.Errorf("elements of type %s are not interpreted", t.Type)
	}
	return a, err
}

// integer is an element type of integers.
type integer interface {
	int64 | int32 | int16 | int8 | uint64 | uint32 | uint16 | uint8
}

func widened[T integer](t *graph.Tensor) ([]float64, error) {
	v, err := graph.Values[T](t)
	return widen(v), err
}

func widen[T float32 | integer](v []T) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// tensor narrows the elements to the array's type; half floats become float32.
func (a Array) tensor() *graph.Tensor {
	dims := make([]int64, len(a.Dims))
	for i, d := range a.Dims {
		dims[i] = int64(d)
	}
	switch a.Type {
	case graph.Int64:
		return graph.NewTensor(narrow[int64](a.Data), dims...)
	case graph.Int32:
		return graph.NewTensor(narrow[int32](a.Data), dims...)
	case graph.Int16:
		return graph.NewTensor(narrow[int16](a.Data), dims...)
	case graph.Int8:
		return graph.NewTensor(narrow[int8](a.Data), dims...)
	case graph.Uint8:
		return graph.NewTensor(narrow[uint8](a.Data), dims...)
	case graph.Uint16:
		return graph.NewTensor(narrow[uint16](a.Data), dims...)
	case graph.Uint32:
		return graph.NewTensor(narrow[uint32](a.Data), dims...)
	case graph.Uint64:
		return graph.NewTensor(narrow[uint64](a.Data), dims...)
	case graph.Uint4, graph.Int4:
		return graph.NewCodes(a.Type, narrow[int16](a.Data), dims...)
	case graph.Double:
		return graph.NewTensor(a.Data, dims...)
	case graph.Bool:
		b := make([]bool, len(a.Data))
		for i, x := range a.Data {
			b[i] = x != 0
		}
		return graph.NewTensor(b, dims...)
	}
	return graph.NewTensor(narrow[float32](a.Data), dims...)
}

func narrow[T float32 | integer](v []float64) []T {
	out := make([]T, len(v))
	for i, x := range v {
		out[i] = T(x)
	}
	return out
}

func count(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

func zeros(t graph.DataType, dims ...int) Array {
	return Array{t, dims, make([]float64, count(dims))}
}

// strides are the distances, in elements, between neighbours along each axis.
func strides(dims []int) []int {
	s := make([]int, len(dims))
	n := 1
	for i := len(dims) - 1; i >= 0; i-- {
		s[i] = n
		n *= dims[i]
	}
	return s
}

// each calls f with every index of dims, in row-major order.
func each(dims []int, f func(at []int)) {
	if count(dims) == 0 {
		return
	}
	at := make([]int, len(dims))
	for {
		f(at)
		axis := len(dims) - 1
		for ; axis >= 0; axis-- {
			if at[axis]++; at[axis] < dims[axis] {
				break
			}
			at[axis] = 0
		}
		if axis < 0 {
			return
		}
	}
}

// broadcast is numpy's rule for shapes.
func broadcast(shapes ...[]int) []int {
	rank := 0
	for _, s := range shapes {
		rank = max(rank, len(s))
	}
	out := make([]int, rank)
	for i := range out {
		out[i] = 1
		for _, s := range shapes {
			if j := i - rank + len(s); j >= 0 && s[j] != 1 {
				if out[i] != 1 && out[i] != s[j] {
					panic(fmt.Sprintf("shapes %v do not go together", shapes))
				}
				out[i] = s[j]
			}
		}
	}
	return out
}

// expand repeats a to dims.
func (a Array) expand(dims []int) Array {
	if equal(a.Dims, dims) {
		return a
	}
	out := zeros(a.Type, dims...)
	s := strides(a.Dims)
	lead := len(dims) - len(a.Dims)
	i := 0
	each(dims, func(at []int) {
		from := 0
		for j, st := range s {
			if a.Dims[j] != 1 {
				from += at[lead+j] * st
			}
		}
		out.Data[i] = a.Data[from]
		i++
	})
	return out
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// transpose permutes the axes.
func (a Array) transpose(perm []int) Array {
	dims := make([]int, len(perm))
	from := strides(a.Dims)
	step := make([]int, len(perm))
	for i, p := range perm {
		dims[i], step[i] = a.Dims[p], from[p]
	}
	out := zeros(a.Type, dims...)
	i := 0
	each(dims, func(at []int) {
		k := 0
		for j, x := range at {
			k += x * step[j]
		}
		out.Data[i] = a.Data[k]
		i++
	})
	return out
}

func (a Array) reshaped(dims ...int) Array { return Array{a.Type, dims, a.Data} }

// split views the array as [outer, n, inner] around an axis.
func (a Array) split(axis int) (outer, n, inner int) {
	return count(a.Dims[:axis]), a.Dims[axis], count(a.Dims[axis+1:])
}
