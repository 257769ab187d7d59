// Package ort runs graphs on ONNX Runtime. It is the only place that knows the runtime's
// Go wrapper; everything else hands it a [graph.Graph] and tensors.
package ort

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
// directory or the nearest folder above it (`make setup` puts it there). FORETOKEN_THREADS says how
// many threads all sessions that share weights run on together.
var Init = sync.OnceValue(func() error {
	threads, err := poolSize()
	if err != nil {
		return err
	}
	path, err := library()
	if err != nil {
		return err
	}
	// The environment is the process's one, and whoever is first decides on its threads: the
	// wrapper gets what there is.
	err = openEnvironment(path, threads)
	if err == nil {
		onnx.SetSharedLibraryPath(path)
		err = onnx.InitializeEnvironment(onnx.WithLogLevelFatal())
	}
	if err != nil {
		return errs.New(errs.Unavailable, "%s is not an ONNX Runtime library of version 1.24 or newer (%w): run `make setup`, or set FORETOKEN_ORT_LIB to one", path, err)
	}
	return nil
})

// poolSize is how many threads FORETOKEN_THREADS asks for; 0, where it is not set, are as many as
// there are cores.
func poolSize() (int, error) {
	text := os.Getenv("FORETOKEN_THREADS")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, errs.New(errs.Invalid, "FORETOKEN_THREADS is %q: set it to a number of threads from 1 on, or unset it for as many as there are cores", text)
	}
	return n, nil
}

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
	// Provider is the kind of device that kernels run on; Strict refuses graphs that it has not all
	// kernels for, which otherwise run on the CPU.
	Provider Provider
	Strict   bool
	// Weights, where set, are shared with the other sessions that are given them. Such sessions
	// run on the process's one pool of threads.
	Weights *Weights
	// Threads is how many cores one node may use in a session that shares no weights; 0 is all
	// of them.
	Threads int
	// Deterministic asks kernels for the same bits in every run. Only sessions with shared
	// weights can be asked.
	Deterministic bool
	// Lean takes the least memory in place of the least time: kernels read weights as they lie in their file, where otherwise
	// they make copies in the forms that they are fastest with, and what a value took is given back when nothing reads it any
	// more. It is for models of gigabytes, and for sessions with shared weights.
	Lean bool
	// Rounding lets products of weights of 8 bits round their other operand to 8 bits as well, where the model's file says so. A
	// gradient takes them as products of floats, and so does a session without it.
	Rounding bool
	// WrittenOut keeps operators written out that the device has a kernel for.
	WrittenOut bool
}

// Session settings by name.
const (
	folderKey  = "session.model_external_initializers_file_folder_path" // of a model that is no file
	strictKey  = "session.disable_cpu_ep_fallback"
	withoutKey = "optimization.disable_specified_optimizers"
)

// engine is what a session runs on: onnxruntime_go's session or one of our own.
type engine interface {
	// run computes the outputs, in their order: into those of out that are not nil.
	run(ctx context.Context, in, out []*graph.Tensor) ([]*graph.Tensor, error)
	close() error
}

// Session runs one graph. It is safe for concurrent use.
type Session struct {
	mu      sync.RWMutex // Close waits for runs
	engine  engine       // nil when closed
	inputs  []*graph.Value
	outputs []*graph.Value
	scalars map[string]bool // outputs of rank 0
	device  Provider
	widened bool // it computes in floats what the graph computes in half floats
	fused   int
}

// NewSession prepares a graph, which it leaves as it is. Weights that lie in files are read
// from there by the runtime, not through Go memory. A graph that the runtime refuses is an
// [ErrLoad] of kind [errs.Unsupported].
func NewSession(g *graph.Graph, o Options) (*Session, error) {
	if err := Init(); err != nil {
		return nil, err
	}
	if len(g.Inputs) == 0 || len(g.Outputs) == 0 {
		return nil, errs.New(errs.Invalid, "a graph of %d inputs and %d outputs can't be run: it needs one of each", len(g.Inputs), len(g.Outputs))
	}
	fit, scalars := adapt(g)
	wide, err := o.Provider.widen(fit)
	if err != nil {
		return nil, err
	}
	if wide != nil {
		fit = wide
	}
	fit, fused := o.fuse(o.Provider.reckon(fit))
	s := &Session{inputs: slices.Clone(g.Inputs), outputs: slices.Clone(g.Outputs), scalars: scalars, device: o.Provider, widened: wide != nil, fused: fused}
	defer s.device.hold()()
	switch {
	case o.Weights != nil:
		if fit, err = o.Weights.settle(fit); err == nil {
			s.engine, err = newShared(fit, o)
		}
	case o.Deterministic:
		err = errs.New(errs.Invalid, "a session that shares no weights can't be deterministic: set Options.Weights")
	default:
		s.engine, err = newWrapped(fit, o)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func names(values []*graph.Value) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.Name
	}
	return out
}

// Close frees the session when the runs under way have ended. Later runs are errors; closing
// twice is not.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return nil
	}
	defer s.device.hold()()
	err := s.engine.close()
	s.engine = nil
	return err
}

// Inputs are the graph's inputs, in order.
func (s *Session) Inputs() []*graph.Value { return s.inputs }

// Fused is how many nodes run as the model's file has them, in place of the nodes that loading wrote them out as.
func (s *Session) Fused() int { return s.fused }

// Run computes all outputs. Inputs are read in place and must stay unchanged until Run
// returns; outputs are the caller's. Half-float outputs come back as floats. When ctx ends, the
// run stops after the node it is at and Run returns ctx's error. Inputs that are missing,
// unknown, or of another type or shape than the graph's are errors of kind [errs.Invalid];
// what fails in the runtime is an [ErrRun].
func (s *Session) Run(ctx context.Context, in map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
	return s.RunInto(ctx, in, nil)
}

// RunInto is Run with outputs that the caller has allocated: those that out names are written
// over its elements, and are what is returned for them. Their types and shapes are those that
// the run comes to; another is an error. After an error what they hold is undefined.
func (s *Session) RunInto(ctx context.Context, in, out map[string]*graph.Tensor) (map[string]*graph.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.engine == nil {
		return nil, errs.New(errs.Internal, "the session is closed")
	}
	inputs, err := s.inOrder(in)
	if err != nil {
		return nil, err
	}
	outputs, err := s.targets(out)
	if err != nil {
		return nil, err
	}
	release := s.device.hold()
	results, err := s.engine.run(ctx, inputs, outputs)
	release()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	named := make(map[string]*graph.Tensor, len(results))
	for i, t := range results {
		name := s.outputs[i].Name
		if s.scalars[name] {
			t.Dims = []int64{}
		}
		named[name] = t
	}
	return named, nil
}

// untilDone runs, and calls terminate should ctx end meanwhile. Terminate is not running any more
// when it returns.
func untilDone(ctx context.Context, terminate func(), run func() error) error {
	terminated := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(terminated)
		terminate()
	})
	err := run()
	if !stop() {
		<-terminated
	}
	return err
}

// inOrder checks the inputs against what the graph wants.
func (s *Session) inOrder(in map[string]*graph.Tensor) ([]*graph.Tensor, error) {
	for name := range in {
		if !slices.ContainsFunc(s.inputs, func(v *graph.Value) bool { return v.Name == name }) {
			return nil, errs.New(errs.Invalid, "the graph has no input %q", name)
		}
	}
	tensors := make([]*graph.Tensor, len(s.inputs))
	for i, want := range s.inputs {
		t := in[want.Name]
		if t == nil {
			return nil, errs.New(errs.Invalid, "input %q is missing", want.Name)
		}
		if err := check("input", want, want.Type, t); err != nil {
			return nil, err
		}
		if s.widened && t.Type == graph.Float16 {
			values, err := graph.Float32s(t)
			if err != nil {
				return nil, err
			}
			t = graph.NewTensor(values, t.Dims...)
		}
		tensors[i] = t
	}
	return tensors, nil
}

// targets are the outputs' tensors, nil for those that the caller has not allocated.
func (s *Session) targets(out map[string]*graph.Tensor) ([]*graph.Tensor, error) {
	tensors := make([]*graph.Tensor, len(s.outputs))
	found := 0
	for i, v := range s.outputs {
		t := out[v.Name]
		if t == nil {
			continue
		}
		found++
		as := v.Type
		if as == graph.Float16 || as == graph.BFloat16 {
			as = graph.Float
		}
		if err := check("the tensor for output", v, as, t); err != nil {
			return nil, err
		}
		if !t.InMemory() {
			return nil, errs.New(errs.Invalid, "the tensor for output %q lies in a file", v.Name)
		}
		tensors[i] = t
	}
	if found < len(out) {
		return nil, errs.New(errs.Invalid, "the graph has %d of the %d outputs that were allocated", found, len(out))
	}
	return tensors, nil
}

// check compares a tensor, called what and the value's name in errors, with a type and the value's
// shape, where that is known.
func check(what string, v *graph.Value, as graph.DataType, t *graph.Tensor) error {
	if t.Type != as {
		return errs.New(errs.Invalid, "%s %q is %s, wants %s", what, v.Name, t.Type, as)
	}
	shape := v.Shape
	if shape == nil {
		return nil
	}
	ok := len(t.Dims) == len(shape)
	for i := 0; ok && i < len(t.Dims); i++ {
		n, known := shape[i].Int()
		ok = !known || n == t.Dims[i]
	}
	if !ok {
		return errs.New(errs.Invalid, "%s %q has shape %v, wants %s", what, v.Name, t.Dims, shape)
	}
	return nil
}

// edgeDims are a tensor's dims where it enters or leaves the runtime; see adapt.
func edgeDims(t *graph.Tensor) []int64 {
	if len(t.Dims) == 0 {
		return []int64{1}
	}
	return t.Dims
}
