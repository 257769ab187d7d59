package dataset

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/storage"
)

// openZip reads a zip's directory and refuses it where an entry is hostile. Nothing is
// unpacked yet.
func (im *importer) openZip(ctx context.Context, key string) ([]file, error) {
	info, err := im.objs.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if info.Size > im.Limits.Bytes {
		return nil, errs.New(errs.TooLarge, "zip of %d bytes, limit %d", info.Size, im.Limits.Bytes)
	}
	r := &rangeReader{ctx: ctx, objs: im.objs, key: key, size: info.Size}
	guard := &directoryGuard{r: r, entries: im.Limits.Entries}
	z, err := zip.NewReader(guard, info.Size)
	if err := errors.Join(r.err, guard.err); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "not a zip that can be read, or cut off: %w", err)
	}
	guard.open = true
	var files []file
	for _, entry := range z.File {
		f, err := im.zipFile(r, entry)
		if err != nil {
			return nil, err
		}
		if f != nil {
			files = append(files, *f)
		}
	}
	if im.bytes > ratioFloor && im.bytes/im.Limits.Ratio > info.Size {
		return nil, errs.New(errs.TooLarge, "zip of %d bytes unpacks to %d, limit %d:1", info.Size, im.bytes, im.Limits.Ratio)
	}
	return files, nil
}

// ratioFloor is the unpacked size from which the ratio counts: small flat pictures pack well.
const ratioFloor = 1 << 20

// zipFile checks one entry's row in the directory; nil for a folder.
func (im *importer) zipFile(r *rangeReader, f *zip.File) (*file, error) {
	name, err := cleanName(f.Name)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(f.Name, "/") || strings.HasSuffix(f.Name, `\`) {
		return nil, im.count(name, 0)
	}
	if !f.Mode().IsRegular() {
		return nil, refuse(errs.Invalid, name, "symbolic link or special file (%s)", f.Mode())
	}
	const encrypted = 1
	if f.Flags&encrypted != 0 {
		return nil, refuse(errs.Invalid, name, "is encrypted; make the zip without a password")
	}
	size, packed := f.UncompressedSize64, f.CompressedSize64
	if err := im.count(name, size); err != nil {
		return nil, err
	}
	if ratio := uint64(im.Limits.Ratio); size > ratioFloor && size/ratio > packed {
		return nil, refuse(errs.TooLarge, name, "%d bytes unpacked from %d, limit %d:1", size, packed, ratio)
	}
	return &file{name, int64(size), func() ([]byte, error) { return unpack(r, f) }}, nil
}

// unpack reads one entry, whose declared size is within the limits. Damage is errUnreadable;
// an entry that holds more than it declares is refused.
func unpack(r *rangeReader, f *zip.File) ([]byte, error) {
	data := make([]byte, f.UncompressedSize64)
	content, err := f.Open()
	if err == nil {
		defer content.Close()
		_, err = io.ReadFull(content, data)
	}
	if err == nil {
		_, err = io.ReadFull(content, make([]byte, 1)) // where the zip's reader compares length and checksum
	}
	switch {
	case r.err != nil:
		return nil, r.err
	case content != nil && errors.Is(err, zip.ErrFormat):
		return nil, refuse(errs.TooLarge, f.Name, "holds more than the %d bytes that it declares", len(data))
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return data, nil
}

// rangeReader reads an object by ranges: small ones where reading jumps, ever larger ones
// where it goes on. It is for one goroutine.
type rangeReader struct {
	ctx  context.Context // of the import that reads
	objs storage.Objects
	key  string
	size int64

	start int64 // of buf
	buf   []byte
	err   error // the first failure of the store
}

const (
	firstBlock = 64 << 10
	lastBlock  = 4 << 20
)

// ReadAt reads through the block; see [io.ReaderAt].
func (r *rangeReader) ReadAt(p []byte, offset int64) (int, error) {
	n := 0
	for n < len(p) {
		at := offset + int64(n)
		if at < 0 || at >= r.size {
			return n, io.EOF
		}
		if at < r.start || at >= r.start+int64(len(r.buf)) {
			if err := r.fetch(at); err != nil {
				r.err = err
				return n, err
			}
		}
		n += copy(p[n:], r.buf[at-r.start:])
	}
	return n, nil
}

func (r *rangeReader) fetch(at int64) error {
	length := int64(firstBlock)
	if at == r.start+int64(len(r.buf)) {
		length = min(max(2*int64(len(r.buf)), firstBlock), lastBlock)
	}
	length = min(length, r.size-at)
	body, err := r.objs.GetRange(r.ctx, r.key, at, length)
	if err != nil {
		return err
	}
	defer body.Close()
	if int64(cap(r.buf)) < length {
		r.buf = make([]byte, length)
	}
	r.start, r.buf = at, r.buf[:length]
	if _, err := io.ReadFull(body, r.buf); err != nil {
		r.buf = r.buf[:0]
		return errs.New(errs.Or(err, errs.Unavailable), "object %s: bytes %d to %d of %d: %w", r.key, at, at+length, r.size, err)
	}
	return nil
}

// directoryGuard watches what the zip's reader is given while it reads the directory, which it
// holds in memory, and stops it over the limit of entries: it checks neither the number that a
// zip declares nor the number there is.
type directoryGuard struct {
	r       *rangeReader
	entries int // limit
	open    bool

	rows, bytes int
	err         error
}

// The last 65 KiB are read twice, to find the directory and as a part of it; and a row of
// the directory is taken to be no longer than 256 bytes on average.
const (
	twiceRead   = 65 << 10
	rowBytes    = 256
	shortestRow = 46
)

// ReadAt passes on what the object holds; see [io.ReaderAt].
func (g *directoryGuard) ReadAt(p []byte, offset int64) (int, error) {
	n, err := g.r.ReadAt(p, offset)
	if g.open {
		return n, err
	}
	g.bytes += n
	g.rows += bytes.Count(p[:n], []byte("PK\x01\x02"))
	switch {
	case g.rows > g.entries+twiceRead/shortestRow:
		g.err = errs.New(errs.TooLarge, "zip of more than %d entries, limit %d", g.rows-twiceRead/shortestRow-1, g.entries)
	case g.bytes > 4*twiceRead+g.entries*rowBytes:
		g.err = errs.New(errs.TooLarge, "zip directory of more than %d bytes, limit for %d entries", g.bytes, g.entries)
	case declaredEntries(p[:n]) > uint64(g.entries):
		g.err = errs.New(errs.TooLarge, "zip of %d entries, limit %d", declaredEntries(p[:n]), g.entries)
	}
	if g.err != nil {
		return 0, g.err
	}
	return n, err
}

// declaredEntries is the number in a zip64 end-of-directory record, for which the zip's reader
// reserves memory; 0 where b is none.
func declaredEntries(b []byte) uint64 {
	i := bytes.Index(b, []byte("PK\x06\x06"))
	if i < 0 || len(b) < i+40 {
		return 0
	}
	return binary.LittleEndian.Uint64(b[i+32:])
}
