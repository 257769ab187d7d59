package tokenizer

import (
	"encoding/json"

	"github.com/foretoken/foretoken/internal/errs"
)

// config is one component's part of the file.
type config struct {
	raw         json.RawMessage
	depth       int  // how many components it lies within
	expressions *int // how many regular expressions the file had before
}

// into reads the component's settings.
func (c config) into(v any) error {
	if err := json.Unmarshal(c.raw, v); err != nil {
		return errs.New(errs.Or(err, errs.Invalid), "%w", err)
	}
	return nil
}

// constructor makes a component of its settings.
type constructor[T any] func(config) (T, error)

// maxDepth bounds how deep sequences lie within sequences.
const maxDepth = 8

// build makes a component by the table's row for its type. A null makes the zero value. A type
// that the table lacks is refused by its name.
func build[T any](table map[string]constructor[T], what string, c config) (made T, err error) {
	if len(c.raw) == 0 || string(c.raw) == "null" {
		return made, nil
	}
	var header struct {
		Type string `json:"type"`
	}
	if err := c.into(&header); err != nil {
		return made, err
	}
	construct, ok := table[header.Type]
	if !ok {
		return made, errs.New(errs.Unsupported, "its %s %q is not supported", what, header.Type)
	}
	if c.depth > maxDepth {
		return made, errs.New(errs.Invalid, "its %s lies within more than %d sequences", what, maxDepth)
	}
	if made, err = construct(c); err != nil {
		return made, errs.New(errs.Or(err, errs.Invalid), "%s %s: %w", what, header.Type, err)
	}
	return made, nil
}

// reader makes a file's components; its first error sticks.
type reader struct {
	err         error
	expressions int
}

// section makes the component of a section.
func section[T any](r *reader, table map[string]constructor[T], what string, raw json.RawMessage) (made T) {
	if r.err == nil {
		made, r.err = build(table, what, config{raw: raw, expressions: &r.expressions})
	}
	return made
}

// buildAll makes the components of a sequence.
func buildAll[T any](table map[string]constructor[T], what string, c config, raw []json.RawMessage) ([]T, error) {
	var all []T
	for _, r := range raw {
		made, err := build(table, what, config{r, c.depth + 1, c.expressions})
		if err != nil {
			return nil, err
		}
		all = append(all, made)
	}
	return all, nil
}

// as makes a constructor of a component without settings.
func as[T any](component T) constructor[T] {
	return func(config) (T, error) { return component, nil }
}
