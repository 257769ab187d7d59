// Package errs is the table of error kinds. A kind decides the HTTP status and the
// CLI's exit code; the message says what was wrong, where, and what to do.
package errs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Kind classifies an error by what the caller can do about it.
type Kind int

// The kinds. The zero value is an error nobody classified: a fault of ours.
const (
	Internal     Kind = iota
	Invalid           // the request or the file is wrong; change it
	NotFound          // there is no such thing
	Conflict          // it exists already, or changed meanwhile
	TooLarge          // over a limit that the message names
	Unsupported       // well-formed, but nothing here can handle it (a model, a codec)
	Unauthorized      // no key, or a wrong one
	Forbidden         // the key may not do this
	Quota             // a limit over time is used up
	Unavailable       // a dependency is not there now; try again
	Canceled          // the caller gave up
)

// table holds a row a kind: its name on the wire, its HTTP status, the CLI's exit code.
var table = [...]struct {
	name       string
	httpStatus int
	exitCode   int
}{
	Internal:     {"internal", http.StatusInternalServerError, 1},
	Invalid:      {"invalid", http.StatusBadRequest, 2},
	NotFound:     {"not_found", http.StatusNotFound, 3},
	Conflict:     {"conflict", http.StatusConflict, 4},
	TooLarge:     {"too_large", http.StatusRequestEntityTooLarge, 5},
	Unsupported:  {"unsupported", http.StatusUnprocessableEntity, 6},
	Unauthorized: {"unauthorized", http.StatusUnauthorized, 7},
	Forbidden:    {"forbidden", http.StatusForbidden, 7},
	Quota:        {"quota", http.StatusTooManyRequests, 8},
	Unavailable:  {"unavailable", http.StatusServiceUnavailable, 9},
	Canceled:     {"canceled", 499, 10},
}

// String is the kind's name on the wire.
func (k Kind) String() string { return table[k].name }

// HTTPStatus is the status that an answer with this kind carries.
func (k Kind) HTTPStatus() int { return table[k].httpStatus }

// ExitCode is what the CLI exits with; never 0.
func (k Kind) ExitCode() int { return table[k].exitCode }

// Parse finds a kind by its name on the wire; [Internal] for an unknown name.
func Parse(name string) Kind {
	for k, row := range table {
		if row.name == name {
			return Kind(k)
		}
	}
	return Internal
}

type kinded struct {
	kind Kind
	error
}

func (e *kinded) Unwrap() error { return e.error }

// New makes an error of a kind; the format works as in [fmt.Errorf], %w included.
func New(kind Kind, format string, args ...any) error {
	return &kinded{kind, fmt.Errorf(format, args...)}
}

// Of returns the kind of the outermost classified error in err's chain. A cancelled
// context is [Canceled]; anything else unclassified is [Internal].
func Of(err error) Kind {
	if k, ok := errors.AsType[*kinded](err); ok {
		return k.kind
	}
	if errors.Is(err, context.Canceled) {
		return Canceled
	}
	return Internal
}

// Or returns err's kind where it has one, else the given one.
func Or(err error, otherwise Kind) Kind {
	if k := Of(err); k != Internal {
		return k
	}
	return otherwise
}
