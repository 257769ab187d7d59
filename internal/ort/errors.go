package ort

import (
	"errors"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// What can go wrong in the runtime, for [errors.Is]. A run that its context ended is the context's
// error.
var (
	ErrLoad        = errors.New("ONNX Runtime refuses the graph")
	ErrRun         = errors.New("ONNX Runtime cannot run the graph")
	ErrOutOfMemory = errors.New("ONNX Runtime is out of memory")
)

// Error is what ONNX Runtime said, for [errors.As].
type Error struct {
	During  error // ErrLoad or ErrRun
	Code    int   // the C API's OrtErrorCode; 0 where the wrapper does not tell
	Message string
}

func (e *Error) Error() string { return e.During.Error() + ": " + e.Message }

// Is matches what the error happened during, and ErrOutOfMemory.
func (e *Error) Is(target error) bool {
	return target == e.During || target == ErrOutOfMemory && e.outOfMemory()
}

// outOfMemory goes by the words: the runtime has no code for it.
func (e *Error) outOfMemory() bool {
	return strings.Contains(e.Message, "Failed to allocate memory") || strings.Contains(e.Message, "bad_alloc")
}

// newError gives the runtime's words the kind of error that they are.
func newError(during error, code int, message string) error {
	e := &Error{During: during, Code: code, Message: message}
	switch {
	case e.outOfMemory():
		return errs.New(errs.TooLarge, "%w: take fewer rows, classes or prompt tokens at once", e)
	case during == ErrLoad:
		return errs.New(errs.Unsupported, "%w", e)
	}
	return e
}
