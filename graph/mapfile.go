//go:build !unix

package graph

import "os"

// MapFile reads a file; the function returned lets go of it.
func MapFile(path string) ([]byte, func(), error) {
	b, err := os.ReadFile(path)
	return b, func() {}, err
}
