package dataset

import "github.com/foretoken/foretoken/storage"

// NewMemory gives the tests outside the package their object store.
func NewMemory() storage.Objects { return newMemory() }
