package graph

import (
	"fmt"
	"slices"
)

// Array is a tensor whose elements, of whatever type, are held as doubles: what the kernels of operators work on.
type Array struct {
	Type DataType
	Dims []int
	Data []float64
}

// ArrayOf widens a tensor's elements.
func ArrayOf(t *Tensor) (Array, error) {
	a := Array{Type: t.Type, Dims: make([]int, len(t.Dims))}
	for i, d := range t.Dims {
		a.Dims[i] = int(d)
	}
	var err error
	switch t.Type {
	case Float, Float16, BFloat16:
		var v []float32
		v, err = Float32s(t)
		a.Data = widen(v)
	case Double:
		a.Data, err = Values[float64](t)
	case Int64:
		a.Data, err = widenedValues[int64](t)
	case Int32:
		a.Data, err = widenedValues[int32](t)
	case Int16:
		a.Data, err = widenedValues[int16](t)
	case Uint16:
		a.Data, err = widenedValues[uint16](t)
	case Uint32:
		a.Data, err = widenedValues[uint32](t)
	case Uint64:
		a.Data, err = widenedValues[uint64](t)
	case Uint8:
		a.Data, err = widenedValues[uint8](t)
	case Int8:
		a.Data, err = widenedValues[int8](t)
	case Uint4, Int4:
		var v []int16
		v, err = Codes(t)
		a.Data = widen(v)
	case Bool:
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

func widenedValues[T integer](t *Tensor) ([]float64, error) {
	v, err := Values[T](t)
	return widen(v), err
}

func widen[T float32 | integer](v []T) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// Tensor narrows the elements to the array's type; half floats become float32.
func (a Array) Tensor() *Tensor {
	dims := make([]int64, len(a.Dims))
	for i, d := range a.Dims {
		dims[i] = int64(d)
	}
	switch a.Type {
	case Int64:
		return NewTensor(narrow[int64](a.Data), dims...)
	case Int32:
		return NewTensor(narrow[int32](a.Data), dims...)
	case Int16:
		return NewTensor(narrow[int16](a.Data), dims...)
	case Int8:
		return NewTensor(narrow[int8](a.Data), dims...)
	case Uint8:
		return NewTensor(narrow[uint8](a.Data), dims...)
	case Uint16:
		return NewTensor(narrow[uint16](a.Data), dims...)
	case Uint32:
		return NewTensor(narrow[uint32](a.Data), dims...)
	case Uint64:
		return NewTensor(narrow[uint64](a.Data), dims...)
	case Uint4, Int4:
		return NewCodes(a.Type, narrow[int16](a.Data), dims...)
	case Double:
		return NewTensor(a.Data, dims...)
	case Bool:
		b := make([]bool, len(a.Data))
		for i, x := range a.Data {
			b[i] = x != 0
		}
		return NewTensor(b, dims...)
	}
	return NewTensor(narrow[float32](a.Data), dims...)
}

func narrow[T float32 | integer](v []float64) []T {
	out := make([]T, len(v))
	for i, x := range v {
		out[i] = T(x)
	}
	return out
}

// zeros is an array of zeros.
func zeros(t DataType, dims ...int) Array {
	return Array{t, dims, make([]float64, Count(dims))}
}

// strides are the distances, in elements, between neighbours along each axis.
func strides[T int | int64](dims []T) []T {
	s, n := make([]T, len(dims)), T(1)
	for i, d := range slices.Backward(dims) {
		s[i], n = n, n*d
	}
	return s
}

// eachIndex calls f with every index of dims, in row-major order.
func eachIndex(dims []int, f func(at []int)) {
	if Count(dims) == 0 {
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

// offset is the place of index at in an array of dims, false where it lies outside.
func offset(at, dims []int) (int, bool) {
	k := 0
	for i, x := range at {
		if x < 0 || x >= dims[i] {
			return 0, false
		}
		k = k*dims[i] + x
	}
	return k, true
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
					panic(unfit("shapes %v do not go together", shapes))
				}
				out[i] = s[j]
			}
		}
	}
	return out
}

// expand repeats a to dims.
func (a Array) expand(dims []int) Array {
	if slices.Equal(a.Dims, dims) {
		return a
	}
	out := zeros(a.Type, dims...)
	s := strides(a.Dims)
	lead := len(dims) - len(a.Dims)
	i := 0
	eachIndex(dims, func(at []int) {
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
	eachIndex(dims, func(at []int) {
		k := 0
		for j, x := range at {
			k += x * step[j]
		}
		out.Data[i] = a.Data[k]
		i++
	})
	return out
}

// reshaped has the same elements, which it shares, under other dims.
func (a Array) reshaped(dims ...int) Array { return Array{a.Type, dims, a.Data} }

// apply gives every element what f makes of it.
func apply(a Array, f func(float64) float64) Array {
	out := zeros(a.Type, a.Dims...)
	for i, x := range a.Data {
		out.Data[i] = f(x)
	}
	return out
}

// pair gives f of the elements of two arrays that are broadcast to each other, in the type of the first.
func pair(a, b Array, f func(x, y float64) float64) Array {
	dims := broadcast(a.Dims, b.Dims)
	a, b = a.expand(dims), b.expand(dims)
	out := zeros(a.Type, dims...)
	for i := range out.Data {
		out.Data[i] = f(a.Data[i], b.Data[i])
	}
	return out
}

// split views the array as [outer, n, inner] around an axis.
func (a Array) split(axis int) (outer, n, inner int) {
	return Count(a.Dims[:axis]), a.Dims[axis], Count(a.Dims[axis+1:])
}

// dropAxes leaves axes out of dims.
func dropAxes(dims, axes []int) []int {
	out := []int{}
	for i, d := range dims {
		if !slices.Contains(axes, i) {
			out = append(out, d)
		}
	}
	return out
}
