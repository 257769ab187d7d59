package ort

// #include "capi.h"
import "C"

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Weights are what the sessions of a model share: its files, mapped into memory once, and the forms
// that kernels repack weights into, once for all sessions that use them in the same way. They are
// safe for concurrent use.
type Weights struct {
	packed *C.OrtPrepackedWeightsContainer

	settling sync.Mutex
	made     map[string]*graph.Source // where what was computed of weights lies, by key

	mu    sync.Mutex
	users int // sessions, and who made it
	open  bool
	files map[string]mapping // by path
}

// mapping is a file in memory, until it is released.
type mapping struct {
	bytes   []byte
	release func()
}

// NewWeights returns weights that no session shares yet.
func NewWeights() (*Weights, error) {
	if err := Init(); err != nil {
		return nil, err
	}
	w := &Weights{users: 1, open: true, files: map[string]mapping{}, made: map[string]*graph.Source{}}
	return w, failed(ErrLoad, C.ft_container(&w.packed))
}

// Close frees the weights when the last session that shares them is closed. New sessions are
// errors; closing twice is not.
func (w *Weights) Close() {
	w.mu.Lock()
	open := w.open
	w.open = false
	w.mu.Unlock()
	if open {
		w.release()
	}
}

func (w *Weights) acquire() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.open {
		return errs.New(errs.Internal, "the model's weights are closed")
	}
	w.users++
	return nil
}

func (w *Weights) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users--
	if w.users > 0 {
		return
	}
	C.ft_release_container(w.packed)
	for _, m := range w.files {
		m.release()
	}
}

// bytes are a source's bytes in its mapped file. They are valid while a user of w holds it.
func (w *Weights) bytes(s *graph.Source) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := w.files[s.Path]
	if !ok {
		var err error
		if m.bytes, m.release, err = graph.MapFile(s.Path); err != nil {
			return nil, fmt.Errorf("weights: %w", err)
		}
		w.files[s.Path] = m
	}
	file := m.bytes
	if s.Offset+s.Length > int64(len(file)) {
		return nil, errs.New(errs.Conflict, "%s has %d bytes; a weight lies at %d to %d: the file was changed since the model was loaded", s.Path, len(file), s.Offset, s.Offset+s.Length)
	}
	return file[s.Offset:][:s.Length:s.Length], nil
}

// scratchName is what files of [Weights.scratch] are called. Whoever uses one holds a lock on it.
const scratchName = "foretoken-weights-"

// scratch maps a new file, which goes with w.
func (w *Weights) scratch(size int64) (path string, mapped []byte, err error) {
	removeAbandoned()
	f, err := os.CreateTemp("", ".new-"+scratchName+"*")
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			os.Remove(path)
			f.Close()
		}
	}()
	path = filepath.Join(filepath.Dir(f.Name()), strings.TrimPrefix(filepath.Base(f.Name()), ".new-"))
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		return path, nil, err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return path, nil, err
	}
	if err = reserve(f, size); err != nil {
		return path, nil, errs.New(errs.Unavailable, "%w: set TMPDIR to a folder with room for %d MB", err, size>>20+1)
	}
	if mapped, err = syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED); err != nil {
		return path, nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[path] = mapping{mapped, func() {
		syscall.Munmap(mapped)
		os.Remove(path)
		f.Close()
	}}
	return path, mapped, nil
}

// reserve fills a file with zeros: to write to a mapping for which a full disk has no room is a crash.
func reserve(f *os.File, size int64) error {
	zeros := make([]byte, min(size, 1<<20))
	for ; size > 0; size -= int64(len(zeros)) {
		if _, err := f.Write(zeros[:min(size, int64(len(zeros)))]); err != nil {
			return err
		}
	}
	return nil
}

// removeAbandoned removes the scratch files of processes that were killed: nobody holds locks on them.
func removeAbandoned() {
	paths, _ := filepath.Glob(filepath.Join(os.TempDir(), scratchName+"*"))
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.Remove(path)
		}
		f.Close()
	}
}

// forget lets the system take back the pages of the files: what kernels have repacked is not read
// again, and the rest comes back when it is.
func (w *Weights) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.files {
		syscall.Madvise(m.bytes, syscall.MADV_DONTNEED)
	}
}
