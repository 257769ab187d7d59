package graph

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
	"google.golang.org/protobuf/encoding/protowire"
)

// SaveOptions says how [Graph.Save] writes a file.
type SaveOptions struct {
	// External puts large weights into a file of their own, "NAME.data" beside the model.
	// Otherwise they are inline, unless they are more than one file of the format can hold.
	External bool
	// Metadata is written as the model's metadata_props.
	Metadata map[string]string
}

const (
	// maxInlineFile is what a file with inline weights may weigh; protocol buffers end at 2 GiB.
	maxInlineFile = math.MaxInt32 - 64<<20
	// dataAlignment is of weights in a data file, so that they can be mapped as any element type.
	dataAlignment = 64
)

// Save writes the graph as an ONNX file at path that stands alone: weights are copied from where
// they lie, piece by piece, never all into memory. Of what the exporter noted, such as source
// lines, nothing is written. Where writing fails, no file is left at path.
func (g *Graph) Save(path string, o SaveOptions) error {
	if err := g.checkTarget(path); err != nil {
		return err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	dataDir := ""
	if o.External || g.storedBytes() > maxInlineFile {
		dataDir = filepath.Dir(abs)
		if g, err = g.withDataFile(abs + ".data"); err != nil {
			return err
		}
	}
	return writeFile(abs, func(w io.Writer) error { return g.write(w, dataDir, o.Metadata) })
}

// checkTarget refuses to write over the files that weights are yet to be read from.
func (g *Graph) checkTarget(path string) error {
	for _, p := range []string{path, path + ".data"} {
		info, err := os.Stat(p)
		if err != nil {
			continue
		}
		for v := range g.Constants() {
			if s := v.Const.Source; s != nil {
				if source, err := os.Stat(s.Path); err == nil && os.SameFile(info, source) {
					return errs.New(errs.Conflict, "%s holds weights of the model that is written: give the file another name", p)
				}
			}
		}
	}
	return nil
}

// storedBytes is the size of all constants' elements as they are stored.
func (g *Graph) storedBytes() int64 {
	n := int64(0)
	for v := range g.Constants() {
		n += v.Const.Type.Bytes(v.Const.Len())
	}
	return n
}

// withDataFile copies weights that lie in files into one at path, and returns a graph that reads
// them there.
func (g *Graph) withDataFile(path string) (*Graph, error) {
	c := g.Clone()
	err := writeFile(path, func(w io.Writer) error {
		at := int64(0)
		for v := range c.Constants() {
			if v.Const.data != nil || v.Const.Source == nil {
				continue
			}
			pad := -at & (dataAlignment - 1)
			if _, err := w.Write(make([]byte, pad)); err != nil {
				return err
			}
			if err := v.Const.Source.copyTo(w); err != nil {
				return fmt.Errorf("weight %q: %w", v.Name, err)
			}
			at += pad
			length := v.Const.Source.Length
			v.Const = &Tensor{Type: v.Const.Type, Dims: v.Const.Dims, Source: &Source{Path: path, Offset: at, Length: length}}
			at += length
		}
		return nil
	})
	return c, err
}

func (s *Source) copyTo(w io.Writer) error {
	f, err := os.Open(s.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w, io.NewSectionReader(f, s.Offset, s.Length))
	if err == nil && n < s.Length {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// write writes the model; weights that stay inline are streamed behind the rest of the graph.
func (g *Graph) write(out io.Writer, dataDir string, metadata map[string]string) error {
	w := &writer{dataDir: dataDir, stream: true}
	body := w.graph(g)
	if w.err != nil {
		return w.err
	}
	size := int64(len(body))
	for _, v := range w.later {
		size += int64(len(weightHead(v))) + v.Const.Source.Length
	}
	head := protowire.AppendVarint(protowire.AppendTag(g.prelude(), 7, protowire.BytesType), uint64(size))
	if _, err := out.Write(append(head, body...)); err != nil {
		return err
	}
	for _, v := range w.later {
		if _, err := out.Write(weightHead(v)); err != nil {
			return err
		}
		if err := v.Const.Source.copyTo(out); err != nil {
			return fmt.Errorf("weight %q: %w", v.Name, err)
		}
	}
	end := g.opsets()
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		end = appendPair(end, 14, key, metadata[key])
	}
	_, err := out.Write(end)
	return err
}

// weightHead is a weight's field of the graph up to where its elements follow.
func weightHead(v *Value) []byte {
	length := v.Const.Source.Length
	tensor := protowire.AppendVarint(protowire.AppendTag(tensorHeader(v.Name, v.Const), 9, protowire.BytesType), uint64(length))
	head := protowire.AppendVarint(protowire.AppendTag(nil, 5, protowire.BytesType), uint64(int64(len(tensor))+length))
	return append(head, tensor...)
}

// writeFile has f write a file that is at path only when it is complete.
func writeFile(path string, f func(io.Writer) error) (err error) {
	t, err := os.CreateTemp(filepath.Dir(path), ".onnx-*")
	if err != nil {
		return errs.New(errs.Invalid, "writing a model: %w", err)
	}
	defer func() {
		t.Close()
		if err != nil {
			os.Remove(t.Name())
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	w := bufio.NewWriterSize(t, 1<<20)
	if err := f(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := t.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}
