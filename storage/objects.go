// Package storage keeps objects in S3 and rows in a catalogue. An object is written before the
// row that names it, so that a crash leaves at worst an object that nothing names.
package storage

import (
	"context"
	"io"
	"iter"
	"time"
)

// ObjectInfo describes a stored object.
type ObjectInfo struct {
	Key         string
	Size        int64 // bytes
	Modified    time.Time
	ContentType string
	ETag        string
}

// PutOptions go with an object that is stored.
type PutOptions struct {
	ContentType string
}

// Objects is an object store. A missing object is an error of kind NotFound, a store that can't
// be reached one of kind Unavailable. It is safe for concurrent use.
type Objects interface {
	// Put stores all of r under key, in place of what is there. A size of -1 is unknown. The
	// object is there whole or not at all.
	Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (ObjectInfo, error)
	Get(ctx context.Context, key string) (io.ReadCloser, ObjectInfo, error)
	// GetRange reads length bytes from offset.
	GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	Stat(ctx context.Context, key string) (ObjectInfo, error)
	// List yields the objects whose keys begin with prefix, in the order of their keys.
	List(ctx context.Context, prefix string) iter.Seq2[ObjectInfo, error]
	// Share returns an address at which anybody who has it can read the object until the time is up,
	// one second to seven days.
	Share(ctx context.Context, key string, during time.Duration) (string, error)
	// Delete removes objects; one that is not there is no error.
	Delete(ctx context.Context, keys ...string) error
}
