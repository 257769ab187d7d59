package ort

// #cgo CFLAGS: -O2 -Wall
// #cgo LDFLAGS: -ldl
// #include "capi.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// openEnvironment makes the process's environment, with one pool of threads; 0 threads are as many
// as there are cores.
func openEnvironment(library string, threads int) error {
	path := C.CString(library)
	defer C.free(unsafe.Pointer(path))
	message := C.ft_open(path, C.int(threads))
	if message == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(message))
	return errors.New(C.GoString(message))
}

// failed turns a status into an error and frees it.
func failed(during error, s *C.OrtStatus) error {
	if s == nil {
		return nil
	}
	defer C.ft_release_status(s)
	return newError(during, int(C.ft_code(s)), C.GoString(C.ft_message(s)))
}

// shared is a session that shares weights and threads.
type shared struct {
	session         *C.OrtSession
	weights         *Weights
	inputs, outputs []*C.char
	initializers    []*C.OrtValue
}

// root is the folder that weights' places are told relative to: they may be in several.
const root = "/"

// newShared makes a session from a graph whose weights that lie in files are taken from o.Weights.
func newShared(g *graph.Graph, o Options) (_ *shared, err error) {
	model, err := g.Marshal(graph.MarshalOptions{DataDir: root})
	if err != nil {
		return nil, err
	}
	if err := o.Weights.acquire(); err != nil {
		return nil, err
	}
	s := &shared{weights: o.Weights, inputs: cStrings(names(g.Inputs)), outputs: cStrings(names(g.Outputs))}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	var settings *C.OrtSessionOptions
	if err := failed(ErrLoad, C.ft_options(C.bool(o.Deterministic), C.bool(!o.Lean), &settings)); err != nil {
		return nil, err
	}
	defer C.ft_release_options(settings)
	if err := setUp(settings, o); err != nil {
		return nil, err
	}
	for v := range g.Constants() {
		if err := s.lend(settings, v); err != nil {
			return nil, err
		}
	}
	err = failed(ErrLoad, C.ft_session(unsafe.Pointer(unsafe.SliceData(model)), C.size_t(len(model)), settings, o.Weights.packed, &s.session))
	Trim() // preparing a graph leaves megabytes free that only the next one would use
	o.Weights.forget()
	return s, err
}

func setUp(settings *C.OrtSessionOptions, o Options) error {
	if o.Provider != CPU {
		name := C.CString(string(o.Provider))
		defer C.free(unsafe.Pointer(name))
		if err := failed(ErrLoad, C.ft_provider(settings, name)); err != nil {
			return o.Provider.unavailable(err)
		}
	}
	config := map[string]string{
		folderKey: root,
		// What is computed from weights would be the session's own; settle has done it. Older libraries
		// don't know the limit: their sessions keep transposed matrices of their own.
		"optimization.constant_folding_max_output_size_in_bytes": fmt.Sprint(foldLimit),
		// Products become Gemms where all extents are known, and other kernels repack weights in other
		// forms.
		withoutKey: "MatMulAddFusion",
	}
	if o.Lean {
		config["session.disable_prepacking"] = "1"
		config[withoutKey] += ";NchwcTransformer" // which has convolutions' weights in blocks
	}
	if o.Strict {
		config[strictKey] = "1"
	}
	for key, value := range config {
		if err := configure(settings, key, value); err != nil {
			return err
		}
	}
	return nil
}

func configure(settings *C.OrtSessionOptions, key, value string) error {
	k, v := C.CString(key), C.CString(value)
	defer C.free(unsafe.Pointer(k))
	defer C.free(unsafe.Pointer(v))
	return failed(ErrLoad, C.ft_config(settings, k, v))
}

// lend gives the session a constant that lies in a file, in place.
func (s *shared) lend(settings *C.OrtSessionOptions, v *graph.Value) error {
	if v.Const.InMemory() {
		return nil
	}
	data, err := s.weights.bytes(v.Const.Source)
	if err != nil {
		return err
	}
	// The mapping is not Go's memory: C may keep its address.
	value, err := newValue(v.Const.Type, v.Const.Dims, data)
	if err != nil {
		return err
	}
	s.initializers = append(s.initializers, value)
	name := C.CString(v.Name)
	defer C.free(unsafe.Pointer(name))
	return failed(ErrLoad, C.ft_initializer(settings, name, value))
}

// newValue wraps elements in place.
func newValue(t graph.DataType, dims []int64, data []byte) (*C.OrtValue, error) {
	var v *C.OrtValue
	err := failed(ErrRun, C.ft_tensor(unsafe.Pointer(unsafe.SliceData(data)), C.size_t(len(data)),
		(*C.int64_t)(unsafe.SliceData(dims)), C.size_t(len(dims)), C.int(t), &v))
	return v, err
}

func cStrings(list []string) []*C.char {
	out := make([]*C.char, len(list))
	for i, s := range list {
		out[i] = C.CString(s)
	}
	return out
}

func (s *shared) close() error {
	if s.session != nil {
		C.ft_release_session(s.session)
	}
	release(s.initializers)
	for _, name := range append(s.inputs, s.outputs...) {
		C.free(unsafe.Pointer(name))
	}
	s.weights.release()
	return nil
}

func release(values []*C.OrtValue) {
	for _, v := range values {
		if v != nil {
			C.ft_release_value(v)
		}
	}
}

func (s *shared) run(ctx context.Context, in, out []*graph.Tensor) ([]*graph.Tensor, error) {
	var pins runtime.Pinner // the runtime keeps the tensors' addresses until they are released
	defer pins.Unpin()
	inputs, err := hand(&pins, in)
	defer release(inputs)
	if err != nil {
		return nil, err
	}
	outputs, err := hand(&pins, out)
	defer func() { release(outputs) }()
	if err != nil {
		return nil, err
	}
	var options *C.OrtRunOptions
	if err := failed(ErrRun, C.ft_run_options(&options)); err != nil {
		return nil, err
	}
	defer C.ft_release_run_options(options)
	err = untilDone(ctx, func() { C.ft_terminate(options) }, func() error {
		return failed(ErrRun, C.ft_run(s.session, options,
			unsafe.SliceData(s.inputs), unsafe.SliceData(inputs), C.size_t(len(inputs)),
			unsafe.SliceData(s.outputs), C.size_t(len(outputs)), unsafe.SliceData(outputs)))
	})
	if err != nil {
		return nil, err
	}
	results := make([]*graph.Tensor, len(outputs))
	for i, v := range outputs {
		if results[i] = out[i]; results[i] != nil {
			continue
		}
		if results[i], err = read(v); err != nil {
			return nil, errs.New(errs.Of(err), "output %q: %w", C.GoString(s.outputs[i]), err)
		}
	}
	return results, nil
}

// hand wraps tensors for the length of a run; nil stays nil.
func hand(pins *runtime.Pinner, tensors []*graph.Tensor) ([]*C.OrtValue, error) {
	values := make([]*C.OrtValue, len(tensors))
	for i, t := range tensors {
		if t == nil {
			continue
		}
		data, err := t.Bytes()
		if err != nil {
			return values, err
		}
		if len(data) == 0 {
			data = make([]byte, 1)[:0] // an address, of no elements
		}
		pins.Pin(unsafe.SliceData(data))
		if values[i], err = newValue(t.Type, edgeDims(t), data); err != nil {
			return values, err
		}
	}
	return values, nil
}

// read copies a tensor that the runtime has made.
func read(v *C.OrtValue) (*graph.Tensor, error) {
	var kind C.int
	var rank C.size_t
	var extents [C.FT_MAX_RANK]C.int64_t
	var data unsafe.Pointer
	if err := failed(ErrRun, C.ft_describe(v, &kind, &rank, &extents[0], &data)); err != nil {
		return nil, err
	}
	t := graph.DataType(kind)
	if t.Size() == 0 || rank > C.FT_MAX_RANK {
		return nil, errs.New(errs.Unsupported, "it is no tensor of numbers with at most %d axes", C.FT_MAX_RANK)
	}
	dims := make([]int64, rank)
	for i := range dims {
		dims[i] = int64(extents[i])
	}
	n := int(graph.Count(dims)) * t.Size()
	words := make([]uint64, (n+7)/8) // any element type can view words in place
	elements := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)
	copy(elements, unsafe.Slice((*byte)(data), n))
	return graph.NewTensorBytes(t, elements, dims...)
}
