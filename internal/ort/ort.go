// Package ort runs graphs on ONNX Runtime. It is the only place that knows the runtime's
// Go wrapper; everything else hands it a [graph.Graph] and tensors.
package ort

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	onnx "github.com/yalue/onnxruntime_go"
)

// libraryName is the shared library's file name beside the binary and under .cache/ort.
const libraryName = "libonnxruntime.so"

// Init loads the runtime's shared library, once per process; later calls return the first
// one's result. The library is the file that FORETOKEN_ORT_LIB names, else
// libonnxruntime.so beside the executable, else .cache/ort/libonnxruntime.so in the working
// directory or the nearest folder above it (`make setup` puts it there).
var Init = sync.OnceValue(func() error {
	path, err := library()
	if err != nil {
		return err
	}
	onnx.SetSharedLibraryPath(path)
	if err := onnx.InitializeEnvironment(onnx.WithLogLevelFatal()); err != nil {
		return errs.New(errs.Unavailable, "%s is not an ONNX Runtime library of version 1.24 or newer (%w): run `make setup`, or set FORETOKEN_ORT_LIB to one", path, err)
	}
	return nil
})

func library() (string, error) {
	if path := os.Getenv("FORETOKEN_ORT_LIB"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", errs.New(errs.Unavailable, "FORETOKEN_ORT_LIB: %w: set it to libonnxruntime.so of version 1.24 or newer, or unset it and run `make setup`", err)
		}
		return path, nil
	}
	for _, path := range candidates() {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errs.New(errs.Unavailable, "ONNX Runtime's library was not found: run `make setup`, or set FORETOKEN_ORT_LIB to libonnxruntime.so of version 1.24 or newer")
}

func candidates() []string {
	var paths []string
	cached := filepath.Join(".cache", "ort", libraryName)
	if exe, err := os.Executable(); err == nil {
		dir := filepath.Dir(exe)
		paths = append(paths, filepath.Join(dir, libraryName), filepath.Join(dir, "..", cached))
	}
	dir, err := os.Getwd()
	for err == nil {
		paths = append(paths, filepath.Join(dir, cached))
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return paths
}

// Options are a session's settings.
type Options struct {
	// Threads is how many cores one node may use; 0 is all of them.
	Threads int
}

// Session runs one graph. It is safe for concurrent use.
type Session struct {
	mu      sync.RWMutex // Close waits for runs
	session *onnx.DynamicAdvancedSession
	inputs  []*graph.Value
	outputs []string
	scalars map[string]bool // outputs of rank 0
}

// NewSession prepares a graph, which it leaves as it is. Weights that lie in files are read
// from there by the runtime, not through Go memory. A graph that the runtime refuses is an
// error of kind [errs.Unsupported].
func NewSession(g *graph.Graph, o Options) (*Session, error) {
	if err := Init(); err != nil {
		return nil, err
	}
	if len(g.Inputs) == 0 || len(g.Outputs) == 0 {
		return nil, errs.New(errs.Invalid, "a graph of %d inputs and %d outputs can't be run: it needs one of each", len(g.Inputs), len(g.Outputs))
	}
	dir := dataDir(g)
	fit, scalars := adapt(g)
	model, err := fit.Marshal(graph.MarshalOptions{DataDir: dir})
	if err != nil {
		return nil, err
	}
	settings, err := options(o, dir)
	if err != nil {
		return nil, err
	}
	defer settings.Destroy()
	s := &Session{inputs: slices.Clone(g.Inputs), scalars: scalars}
	names := make([]string, len(g.Inputs))
	for i, v := range g.Inputs {
		names[i] = v.Name
	}
	for _, v := range g.Outputs {
		s.outputs = append(s.outputs, v.Name)
	}
	s.session, err = onnx.NewDynamicAdvancedSessionWithONNXData(model, names, s.outputs, settings)
	if err != nil {
		return nil, errs.New(errs.Unsupported, "ONNX Runtime refuses the graph: %w", err)
	}
	return s, nil
}

// dataDir is the folder that the graph's weights lie in: the model's own.
func dataDir(g *graph.Graph) string {
	dir, err := filepath.EvalSymlinks(g.Dir)
	if err != nil {
		return g.Dir
	}
	return dir
}

func options(o Options, dir string) (*onnx.SessionOptions, error) {
	s, err := onnx.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	settings := []func() error{
		func() error { return s.SetIntraOpNumThreads(o.Threads) },
		func() error { return s.SetInterOpNumThreads(1) },
		// Without the arena a step on ViT-B/16 takes a tenth longer and its peak grows from 2.6 to
		// 4.0 GB in six steps; with memory patterns it peaks at 3.4 GB.
		func() error { return s.SetCpuMemArena(true) },
		func() error { return s.SetMemPattern(false) },
		func() error { return s.SetLogSeverityLevel(onnx.LoggingLevelFatal) },
	}
	if dir != "" {
		settings = append(settings, func() error {
			return s.AddSessionConfigEntry("session.model_external_initializers_file_folder_path", dir)
		})
	}
	for _, set := range settings {
		if err := set(); err != nil {
			s.Destroy()
			return nil, err
		}
	}
	return s, nil
}

// Close frees the session when the runs under way have ended. Later runs are errors; closing
// twice is not.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return nil
	}
	err := s.session.Destroy()
	s.session = nil
	return err
}

// Inputs are the graph's inputs, in order.
func (s *Session) Inputs() []*graph.Value { return s.inputs }

// Run computes all outputs. Inputs are read in place and must stay unchanged until Run
// returns; outputs are the caller's. Half-float outputs come back as floats. When ctx ends, the
// run stops after the node it is at and Run returns ctx's error. Inputs that are missing,
// unknown, or of another type or shape than the graph's are errors of kind [errs.Invalid].
func (s *Session) Run(ctx context.Context, in map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.session == nil {
		return nil, errs.New(errs.Internal, "the session is closed")
	}
	values, err := s.bind(in)
	defer destroy(values)
	if err != nil {
		return nil, err
	}
	outputs := make([]onnx.Value, len(s.outputs))
	defer func() { destroy(outputs) }()
	run, err := onnx.NewRunOptions()
	if err != nil {
		return nil, err
	}
	defer run.Destroy()
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		run.Terminate()
	})
	err = s.session.RunWithOptions(values, outputs, run)
	if !stop() {
		<-stopped // Terminate must not meet freed options
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("ONNX Runtime: %w", err)
	}
	return s.collect(outputs)
}

// bind wraps the inputs for the runtime, checked against what the graph wants.
func (s *Session) bind(in map[string]*graph.Tensor) ([]onnx.Value, error) {
	for name := range in {
		if !slices.ContainsFunc(s.inputs, func(v *graph.Value) bool { return v.Name == name }) {
			return nil, errs.New(errs.Invalid, "the graph has no input %q", name)
		}
	}
	var values []onnx.Value
	for _, want := range s.inputs {
		t := in[want.Name]
		if err := check(want, t); err != nil {
			return values, err
		}
		data, err := t.Bytes()
		if err != nil {
			return values, err
		}
		if len(data) == 0 {
			data = make([]byte, 8) // the wrapper takes the first element's address
		}
		dims := t.Dims
		if len(dims) == 0 {
			dims = []int64{1} // see adapt
		}
		v, err := onnx.NewCustomDataTensor(onnx.NewShape(dims...), data, onnx.TensorElementDataType(t.Type))
		if err != nil {
			return values, fmt.Errorf("input %q: %w", want.Name, err)
		}
		values = append(values, v)
	}
	return values, nil
}

func check(want *graph.Value, t *graph.Tensor) error {
	if t == nil {
		return errs.New(errs.Invalid, "input %q is missing", want.Name)
	}
	if t.Type != want.Type {
		return errs.New(errs.Invalid, "input %q is %s, wants %s", want.Name, t.Type, want.Type)
	}
	if want.Shape == nil {
		return nil
	}
	ok := len(t.Dims) == len(want.Shape)
	for i := 0; ok && i < len(t.Dims); i++ {
		n, known := want.Shape[i].Int()
		ok = !known || n == t.Dims[i]
	}
	if !ok {
		return errs.New(errs.Invalid, "input %q has shape %v, wants %s", want.Name, t.Dims, want.Shape)
	}
	return nil
}

// collect names the outputs.
func (s *Session) collect(values []onnx.Value) (map[string]*graph.Tensor, error) {
	out := make(map[string]*graph.Tensor, len(values))
	for i, v := range values {
		name := s.outputs[i]
		t := tensor(v)
		if t == nil {
			return nil, errs.New(errs.Unsupported, "output %q is of a type that is not read (%T)", name, v)
		}
		if s.scalars[name] {
			t.Dims = []int64{}
		}
		out[name] = t
	}
	return out, nil
}

// tensor takes over an output's elements, which lie in Go's memory. It is nil for a type that
// is not read.
func tensor(v onnx.Value) *graph.Tensor {
	dims := v.GetShape()
	switch t := v.(type) {
	case *onnx.Tensor[float32]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[float64]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[int64]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[int32]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[int16]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[int8]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[uint8]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[uint16]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[uint32]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[uint64]:
		return graph.NewTensor(t.GetData(), dims...)
	case *onnx.Tensor[bool]:
		return graph.NewTensor(t.GetData(), dims...)
	}
	return nil
}

func destroy(values []onnx.Value) {
	for _, v := range values {
		if v != nil && !reflect.ValueOf(v).IsNil() { // the wrapper leaves typed nils where a run failed
			v.Destroy()
		}
	}
}
