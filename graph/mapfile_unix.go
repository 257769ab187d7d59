//go:build unix

package graph

import (
	"fmt"
	"os"
	"syscall"
)

// MapFile maps a file into memory, so that gigabytes of weights are not read to find where
// they lie. Nothing may keep a part of it after the function returned is called.
func MapFile(path string) ([]byte, func(), error) {
	if info, err := os.Stat(path); err != nil {
		return nil, nil, err
	} else if !info.Mode().IsRegular() { // opening a pipe would wait for who writes to it
		return nil, nil, fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() == 0 {
		return nil, func() {}, nil
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, func() { syscall.Munmap(b) }, nil
}
