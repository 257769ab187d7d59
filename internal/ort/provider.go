package ort

import (
	"os"
	"strings"
	"sync"

	"github.com/foretoken/foretoken/internal/errs"
)

// Provider is a kind of device, by the name of ONNX Runtime's execution provider. Operators that it has
// no kernel for run on the CPU, and so do all where it is empty.
type Provider string

// The providers.
const (
	CPU    Provider = ""
	WebGPU Provider = "WebGPU"
	CUDA   Provider = "CUDA"
)

// ProviderFromEnv is what FORETOKEN_DEVICE names: cpu, webgpu or cuda; the CPU where it is not set.
func ProviderFromEnv() (Provider, error) {
	name := os.Getenv("FORETOKEN_DEVICE")
	switch strings.ToLower(name) {
	case "", "cpu":
		return CPU, nil
	case "webgpu":
		return WebGPU, nil
	case "cuda":
		return CUDA, nil
	}
	return CPU, errs.New(errs.Invalid, "FORETOKEN_DEVICE is %q: set it to cpu, webgpu or cuda", name)
}

// webGPU is held by who makes, runs or frees a session on it: the sessions of a process have one context,
// and two at a time crash ONNX Runtime 1.30.
var webGPU sync.Mutex

// hold waits for the device, where one at a time may use it; the function returned lets it go.
func (p Provider) hold() (release func()) {
	if p != WebGPU {
		return func() {}
	}
	webGPU.Lock()
	return webGPU.Unlock
}

// unavailable is the error for a device that this library or machine does not have.
func (p Provider) unavailable(err error) error {
	return errs.New(errs.Unavailable, "there is no %s here: %w: use a library of ONNX Runtime that is built with it (FORETOKEN_ORT_LIB) on a machine that has such a device, or run on the CPU", p, err)
}
