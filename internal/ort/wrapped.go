package ort

import (
	"context"
	"path/filepath"
	"reflect"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	onnx "github.com/yalue/onnxruntime_go"
)

// wrapped runs a graph on onnxruntime_go: a session with threads and weights of its own.
type wrapped struct {
	session *onnx.DynamicAdvancedSession
	outputs []string
}

func newWrapped(g *graph.Graph, o Options) (*wrapped, error) {
	dir := dataDir(g)
	model, err := g.Marshal(graph.MarshalOptions{DataDir: dir})
	if err != nil {
		return nil, err
	}
	settings, err := wrappedOptions(o, dir)
	if err != nil {
		return nil, err
	}
	defer settings.Destroy()
	s, err := onnx.NewDynamicAdvancedSessionWithONNXData(model, names(g.Inputs), names(g.Outputs), settings)
	if err != nil {
		return nil, newError(ErrLoad, 0, err.Error())
	}
	return &wrapped{s, names(g.Outputs)}, nil
}

// dataDir is the folder that the graph's weights lie in: the model's own.
func dataDir(g *graph.Graph) string {
	dir, err := filepath.EvalSymlinks(g.Dir)
	if err != nil {
		return g.Dir
	}
	return dir
}

func wrappedOptions(o Options, dir string) (*onnx.SessionOptions, error) {
	s, err := onnx.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	settings := []func() error{
		func() error { return s.SetIntraOpNumThreads(o.Threads) },
		func() error { return s.SetInterOpNumThreads(1) },
		func() error { return s.SetCpuMemArena(true) },
		func() error { return s.SetMemPattern(false) },
		func() error { return s.SetLogSeverityLevel(onnx.LoggingLevelFatal) },
	}
	if dir != "" {
		settings = append(settings, func() error { return s.AddSessionConfigEntry(folderKey, dir) })
	}
	if o.Provider != CPU {
		settings = append(settings, func() error { return appendProvider(s, o.Provider) })
	}
	if o.Strict {
		settings = append(settings, func() error { return s.AddSessionConfigEntry(strictKey, "1") })
	}
	for _, set := range settings {
		if err := set(); err != nil {
			s.Destroy()
			return nil, err
		}
	}
	return s, nil
}

func appendProvider(s *onnx.SessionOptions, p Provider) error {
	err := error(nil)
	if p == CUDA {
		var settings *onnx.CUDAProviderOptions
		if settings, err = onnx.NewCUDAProviderOptions(); err == nil {
			defer settings.Destroy()
			err = s.AppendExecutionProviderCUDA(settings)
		}
	} else {
		err = s.AppendExecutionProvider(string(p), nil)
	}
	if err != nil {
		return p.unavailable(newError(ErrLoad, 0, err.Error()))
	}
	return nil
}

func (w *wrapped) close() error { return w.session.Destroy() }

func (w *wrapped) run(ctx context.Context, in, out []*graph.Tensor) ([]*graph.Tensor, error) {
	inputs, err := wrap(in)
	defer destroy(inputs)
	if err != nil {
		return nil, err
	}
	outputs, err := wrap(out)
	defer func() { destroy(outputs) }()
	if err != nil {
		return nil, err
	}
	run, err := onnx.NewRunOptions()
	if err != nil {
		return nil, err
	}
	defer run.Destroy()
	err = untilDone(ctx, func() { run.Terminate() }, func() error { return w.session.RunWithOptions(inputs, outputs, run) })
	if err != nil {
		return nil, newError(ErrRun, 0, err.Error())
	}
	results := make([]*graph.Tensor, len(outputs))
	for i, v := range outputs {
		if results[i] = out[i]; results[i] == nil {
			results[i] = tensor(v)
		}
		if results[i] == nil {
			return nil, errs.New(errs.Unsupported, "output %q is of a type that is not read (%T)", w.outputs[i], v)
		}
	}
	return results, nil
}

// wrap makes the wrapper's tensors over the memory of ours; nil stays nil.
func wrap(tensors []*graph.Tensor) ([]onnx.Value, error) {
	values := make([]onnx.Value, len(tensors))
	for i, t := range tensors {
		if t == nil {
			continue
		}
		data, err := t.Bytes()
		if err != nil {
			return values, err
		}
		if len(data) == 0 {
			data = make([]byte, 8) // the wrapper takes the first element's address
		}
		v, err := onnx.NewCustomDataTensor(onnx.NewShape(edgeDims(t)...), data, onnx.TensorElementDataType(t.Type))
		if err != nil {
			return values, err
		}
		values[i] = v
	}
	return values, nil
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
