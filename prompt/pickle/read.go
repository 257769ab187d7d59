package pickle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Read reads a file of torch.save: a zip as of PyTorch 1.6, or a stream of pickles as of before.
// The file is not trusted.
func Read(b []byte) (any, error) {
	if len(b) > maxFile {
		return nil, errs.New(errs.TooLarge, "file of %d bytes, limit %d", len(b), maxFile)
	}
	if bytes.HasPrefix(b, []byte("PK\x03\x04")) {
		return readZip(b)
	}
	return readStream(b)
}

// archive finds the entries of torch's zip, which lie in one folder.
type archive struct {
	content []byte
	files   map[string]*zip.File
	folder  string
}

func openArchive(b []byte) (*archive, error) {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, errs.New(errs.Invalid, "zip: %w", err)
	}
	a := &archive{content: b, files: map[string]*zip.File{}}
	program := ""
	for _, f := range z.File {
		if a.files[f.Name] != nil {
			return nil, errs.New(errs.Invalid, "zip: entry %.80q is there twice", f.Name)
		}
		a.files[f.Name] = f
		if folder, ok := strings.CutSuffix(f.Name, "data.pkl"); ok && strings.Count(f.Name, "/") == 1 {
			if program != "" {
				return nil, errs.New(errs.Invalid, "zip: both %.80q and %.80q", program, f.Name)
			}
			program, a.folder = f.Name, folder
		}
	}
	if program == "" {
		return nil, errs.New(errs.Invalid, "a zip without a data.pkl: not written by torch.save")
	}
	return a, nil
}

// read returns an entry's bytes, of at most so many, as they lie in the file: torch packs nothing.
func (a *archive) read(name string, limit int64) ([]byte, error) {
	f := a.files[a.folder+name]
	if f == nil {
		return nil, errs.New(errs.Invalid, "zip: no entry %.80q", a.folder+name)
	}
	if f.Method != zip.Store || f.UncompressedSize64 > uint64(limit) || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, errs.New(errs.Invalid, "zip: entry %.80q is packed or over %d bytes: not written by torch.save", f.Name, limit)
	}
	at, err := f.DataOffset()
	if size := int64(f.UncompressedSize64); err == nil && at <= int64(len(a.content))-size {
		b := a.content[at : at+size]
		if f.CRC32 == 0 || f.CRC32 == crc32.ChecksumIEEE(b) {
			return b, nil
		}
		err = zip.ErrChecksum
	}
	return nil, errs.New(errs.Invalid, "zip: entry %.80q can't be read: %v", f.Name, err)
}

func readZip(b []byte) (any, error) {
	a, err := openArchive(b)
	if err != nil {
		return nil, err
	}
	if a.files[a.folder+"byteorder"] != nil {
		order, err := a.read("byteorder", 100)
		if err != nil || string(order) != "little" {
			return nil, errs.New(errs.Unsupported, "byte order %.20q, must be little (%v)", order, err)
		}
	}
	program, err := a.read("data.pkl", maxProgram)
	if err != nil {
		return nil, err
	}
	m := newMachine(program, len(b))
	value, err := m.run()
	if err != nil {
		return nil, err
	}
	if m.at != len(program) {
		return nil, errs.New(errs.Invalid, "pickle: %d bytes behind its end", len(program)-m.at)
	}
	for _, s := range m.storages {
		size := s.size * int64(s.dtype.Size())
		if s.data, err = a.read("data/"+s.key, size); err != nil {
			return nil, err
		}
		if int64(len(s.data)) != size {
			return nil, errs.New(errs.Invalid, "storage %.40q of %d bytes, must have %d", s.key, len(s.data), size)
		}
	}
	return value, m.fill()
}

// magic opens files from before PyTorch 1.6: the number 0x1950a86a20f9469cfc6c.
const magic = bigNumber("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")

// streamVersion is the version of such files.
const streamVersion = 1001

// readStream reads five pickles (a magic number, a version, facts on the machine, the value, the
// names of the storages) and then the storages, each its number of elements and the elements.
func readStream(b []byte) (any, error) {
	m := newMachine(b, len(b))
	var parts [5]any
	for i := range parts {
		var err error
		if parts[i], err = m.run(); err != nil {
			return nil, err
		}
		if i == 0 && parts[0] != any(magic) {
			return nil, errs.New(errs.Invalid, "not written by torch.save")
		}
	}
	if parts[1] != any(int64(streamVersion)) {
		return nil, errs.New(errs.Unsupported, "file of torch.save of version %v, must be %d", parts[1], streamVersion)
	}
	facts, ok := parts[2].(*Dict)
	if !ok || facts.Get("little_endian") != any(true) {
		return nil, errs.New(errs.Unsupported, "the file is not from a little-endian machine")
	}
	keys, ok := parts[4].(*List)
	if !ok {
		return nil, errs.New(errs.Invalid, "file of torch.save: no list of storages")
	}
	if err := m.readStorages(keys); err != nil {
		return nil, err
	}
	return parts[3], m.fill()
}

func (m *machine) readStorages(keys *List) error {
	for _, key := range keys.Items {
		name, _ := key.(string)
		s := m.storages[name]
		if s == nil || s.data != nil {
			return errs.New(errs.Invalid, "storage %.40q is asked for by no tensor, or is there twice", name)
		}
		size := s.size * int64(s.dtype.Size())
		rest := m.in[m.at:]
		if int64(len(rest)) < 8+size || binary.LittleEndian.Uint64(rest) != uint64(s.size) {
			return errs.New(errs.Invalid, "storage %.40q: %d bytes are left for %d elements of %s, or it says another number", name, len(rest), s.size, s.dtype)
		}
		s.data = rest[8 : 8+size]
		m.at += 8 + int(size)
	}
	for name, s := range m.storages {
		if s.data == nil {
			return errs.New(errs.Invalid, "storage %.40q is not in the file", name)
		}
	}
	if m.at != len(m.in) {
		return errs.New(errs.Invalid, "%d bytes behind the storages", len(m.in)-m.at)
	}
	return nil
}

// fill gives the tensors their elements, each its own copy in the order of its axes.
func (m *machine) fill() error {
	for _, v := range m.views {
		size := graph.Count(v.dims) * int64(v.storage.dtype.Size())
		t, err := graph.NewTensorBytes(v.storage.dtype, v.gather(size), v.dims...)
		if err != nil {
			return errs.New(errs.Or(err, errs.Invalid), "tensor: %w", err)
		}
		*v.tensor = *t
	}
	return nil
}

// gather copies the elements that a view names, the last axis the fastest.
func (v view) gather(size int64) []byte {
	width := int64(v.storage.dtype.Size())
	out := make([]byte, 0, size)
	index := make([]int64, len(v.dims))
	for int64(len(out)) < size {
		at := v.offset
		for i, x := range index {
			at += x * v.strides[i]
		}
		out = append(out, v.storage.data[at*width:(at+1)*width]...)
		for i := len(index) - 1; i >= 0; i-- {
			if index[i]++; index[i] < v.dims[i] {
				break
			}
			index[i] = 0
		}
	}
	return out
}
