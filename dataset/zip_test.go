package dataset

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
)

func zipOf(t testing.TB, files [][2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.CreateHeader(&zip.FileHeader{Name: f[0], Method: zip.Deflate, Modified: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f[1])
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zipWith makes a zip of two honest images and one entry as the header says.
func zipWith(t testing.TB, h zip.FileHeader, packed string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{"cat/1.png", "dog/1.png"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "2x2 "+name)
	}
	w, err := z.CreateRaw(&h)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, packed)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// deflated packs content and returns the header and the packed bytes.
func deflated(t testing.TB, name string, content []byte) (zip.FileHeader, string) {
	t.Helper()
	b := zipOf(t, [][2]string{{name, string(content)}})
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := z.File[0].OpenRaw()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := io.ReadAll(raw)
	if err != nil {
		t.Fatal(err)
	}
	return z.File[0].FileHeader, string(packed)
}

func TestAHostileZipIsRefusedAsAWhole(t *testing.T) {
	stored := func(name, content string) []byte {
		n := uint64(len(content))
		return zipWith(t, zip.FileHeader{Name: name, CompressedSize64: n, UncompressedSize64: n, CRC32: crc32.ChecksumIEEE([]byte(content))}, content)
	}
	link := zip.FileHeader{Name: "cat/link.png", CompressedSize64: 11, UncompressedSize64: 11}
	link.SetMode(os.ModeSymlink | 0o777)
	device := zip.FileHeader{Name: "cat/tty.png"}
	device.SetMode(os.ModeDevice | 0o666)
	bomb, bombPacked := deflated(t, "cat/bomb.png", make([]byte, 8<<20))
	liar, liarPacked := deflated(t, "cat/liar.png", []byte(strings.Repeat("3x3 ", 100)))
	liar.UncompressedSize64 = 10

	tests := []struct {
		name   string
		zip    []byte
		limits Limits
		kind   errs.Kind
		says   []string
	}{
		{"a path that slips out", stored("../../etc/cat/1.png", "1x1"), Limits{}, errs.Invalid, []string{`"../../etc/cat/1.png"`, "out of the folder"}},
		{"a path that slips out further in", stored("cat/../../1.png", "1x1"), Limits{}, errs.Invalid, []string{"cat/../../1.png", "out of the folder"}},
		{"a path that slips out with backslashes", stored(`cat\..\..\1.png`, "1x1"), Limits{}, errs.Invalid, []string{"out of the folder"}},
		{"an absolute path", stored("/etc/1.png", "1x1"), Limits{}, errs.Invalid, []string{`"/etc/1.png"`, "absolute"}},
		{"a drive", stored(`C:\cat\1.png`, "1x1"), Limits{}, errs.Invalid, []string{"absolute"}},
		{"a server's path", stored(`\\host\cat\1.png`, "1x1"), Limits{}, errs.Invalid, []string{"absolute"}},
		{"a control character", stored("cat/\x1b[2J.png", "1x1"), Limits{}, errs.Invalid, []string{"control character"}},
		{"a symbolic link", zipWith(t, link, "/etc/passwd"), Limits{}, errs.Invalid, []string{`"cat/link.png"`, "symbolic link"}},
		{"a device", zipWith(t, device, ""), Limits{}, errs.Invalid, []string{`"cat/tty.png"`, "special file"}},
		{"an encrypted entry", zipWith(t, zip.FileHeader{Name: "cat/s.png", Flags: 1, CompressedSize64: 4, UncompressedSize64: 4}, "abcd"), Limits{}, errs.Invalid, []string{`"cat/s.png"`, "password"}},
		{"an entry twice", stored("cat/1.png", "1x1"), Limits{}, errs.Invalid, []string{`"cat/1.png"`, "twice"}},
		{"an entry twice in other spelling", stored("./cat//1.png", "1x1"), Limits{}, errs.Invalid, []string{`"cat/1.png"`, "twice"}},
		{"a bomb by its ratio", zipWith(t, bomb, bombPacked), Limits{}, errs.TooLarge, []string{`"cat/bomb.png"`, "8388608", "limit 200:1"}},
		{"a declared size over the limit", zipWith(t, zip.FileHeader{Name: "cat/big.bin", UncompressedSize64: 1 << 40}, ""), Limits{}, errs.TooLarge, []string{`"cat/big.bin"`, "1099511627776 bytes", "limit 21474836480"}},
		{"a declared size near 2^64", zipWith(t, zip.FileHeader{Name: "cat/big.bin", UncompressedSize64: 1<<64 - 1}, ""), Limits{}, errs.TooLarge, []string{"18446744073709551615"}},
		{"sizes over the limit in sum", zipOf(t, [][2]string{{"cat/1.png", "1x1"}, {"cat/2.png", strings.Repeat("1x1 ", 1000)}}), Limits{Bytes: 4000}, errs.TooLarge, []string{`"cat/2.png"`, "4000 bytes after 3 before it, limit 4000"}},
		{"a zip over the limit", stored("cat/2.png", "1x1"), Limits{Bytes: 100}, errs.TooLarge, []string{"zip of", "limit 100"}},
		{"small entries that share their bytes", overlapping(t), Limits{}, errs.TooLarge, []string{"unpacks to", "limit 200:1"}},
		{"an image over its limit", stored("cat/2.png", "1x1 and more and more"), Limits{ImageBytes: 15}, errs.TooLarge, []string{`"cat/2.png"`, "21 bytes, limit 15"}},
		{"more bytes than declared", zipWith(t, liar, liarPacked), Limits{}, errs.TooLarge, []string{`"cat/liar.png"`, "more than the 10 bytes"}},
		{"too many entries", stored("cat/2.png", "1x1"), Limits{Entries: 2}, errs.TooLarge, []string{`"cat/2.png"`, "entry number 3, limit 2"}},
		{"too many pixels", stored("cat/2.png", "5000x5000"), Limits{Pixels: 1_000_000}, errs.TooLarge, []string{`"cat/2.png"`, "5000 x 5000 pixels, limit 1000000"}},
		{"pixels that overflow", stored("cat/2.png", "4611686018427387904x4"), Limits{}, errs.TooLarge, []string{`"cat/2.png"`}},
		{"too many pixels by the checker", stored("cat/2.png", "huge"), Limits{}, errs.TooLarge, []string{`"cat/2.png"`, "99 megapixels"}},
		{"no zip", []byte("hello"), Limits{}, errs.Invalid, []string{"not a zip"}},
		{"a zip that is cut off", stored("cat/2.png", "1x1")[:100], Limits{}, errs.Invalid, []string{"not a zip", "cut off"}},
		{"an empty zip", zipOf(t, nil), Limits{}, errs.Invalid, []string{"no images"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			m.blobs["upload"] = tt.zip
			o := options()
			o.Limits = tt.limits
			v, err := ImportZip(t.Context(), m, "upload", o)
			if err == nil {
				t.Fatalf("imported as %+v", v)
			}
			if errs.Of(err) != tt.kind {
				t.Errorf("%v error %q, want %v", errs.Of(err), err, tt.kind)
			}
			for _, s := range append(tt.says, "dataset pets") {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
			for key := range m.blobs {
				if strings.HasPrefix(key, "datasets/") {
					t.Errorf("a version was stored: %s", key)
				}
			}
		})
	}
}

// overlapping makes a zip whose entries all have the same local header and data.
func overlapping(t *testing.T) []byte {
	t.Helper()
	one := zipOf(t, [][2]string{{"cat/1.png", strings.Repeat("1", 1000<<10)}})
	directory := bytes.Index(one, []byte("PK\x01\x02"))
	end := bytes.Index(one, []byte("PK\x05\x06"))
	row := one[directory:end]
	out := bytes.Clone(one[:directory])
	const copies = 2000
	name := bytes.Index(row, []byte("cat/1.png"))
	for i := range copies {
		r := bytes.Clone(row)
		copy(r[name:], fmt.Sprintf("c/%03x.png", i)[:9])
		out = append(out, r...)
	}
	tail := bytes.Clone(one[end:])
	binary.LittleEndian.PutUint16(tail[8:], copies)
	binary.LittleEndian.PutUint16(tail[10:], copies)
	binary.LittleEndian.PutUint32(tail[12:], uint32(copies*len(row)))
	return append(out, tail...)
}

func TestADirectoryOverTheLimitIsNotHeldInMemory(t *testing.T) {
	many := make([][2]string, 3000)
	for i := range many {
		many[i] = [2]string{fmt.Sprintf("c%d/", i), ""}
	}
	lying := zipOf(t, many[:3])
	end := bytes.Index(lying, []byte("PK\x05\x06"))
	record := append([]byte("PK\x06\x06"), make([]byte, 52)...)
	binary.LittleEndian.PutUint64(record[32:], 1<<40) // entries that it says it has
	locator := append([]byte("PK\x06\x07\x00\x00\x00\x00"), make([]byte, 12)...)
	binary.LittleEndian.PutUint64(locator[8:], uint64(end))
	locator[16] = 1
	tail := bytes.Clone(lying[end:])
	copy(tail[8:], "\xff\xff\xff\xff")
	zip64 := append(append(append(bytes.Clone(lying[:end]), record...), locator...), tail...)

	longNames := make([][2]string, 40)
	for i := range longNames {
		longNames[i] = [2]string{fmt.Sprintf("%d/%s", i, strings.Repeat("n", 60_000)), ""}
	}
	for _, tt := range []struct {
		name, says string
		zip        []byte
	}{
		{"rows without end", "more than", zipOf(t, many)},
		{"a declared number", "1099511627776 entries", zip64},
		{"names without end", "zip directory of more than", zipOf(t, longNames)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			m.blobs["upload"] = tt.zip
			o := options()
			o.Limits.Entries = 50
			_, err := ImportZip(t.Context(), m, "upload", o)
			if errs.Of(err) != errs.TooLarge || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestADamagedImageIsListedAndTheRestGoesOn(t *testing.T) {
	b := zipOf(t, [][2]string{{"cat/1.png", "2x2 one"}, {"cat/2.png", "no image"}, {"cat/3.png", "panic"}, {"cat/4.png", "0x7"}, {"dog/1.png", "2x2 other"}, {"dog/broken.png", "2x2 unlike any other"}})
	i := bytes.LastIndex(b[:bytes.Index(b, []byte("PK\x01\x02"))], []byte("dog/broken.png"))
	b[i+len("dog/broken.png")+12] ^= 0xff // within the packed bytes
	m := newMemory()
	m.blobs["upload"] = b
	v, err := ImportZip(t.Context(), m, "upload", options())
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Items) != 2 || len(v.Skipped) != 4 {
		t.Fatalf("items %+v, skipped %+v", v.Items, v.Skipped)
	}
	for i, want := range []Skipped{
		{"cat/2.png", "not an image"}, {"cat/3.png", "the decoder failed"}, {"cat/4.png", "0 x 7 pixels"}, {"dog/broken.png", "unreadable"},
	} {
		if s := v.Skipped[i]; s.Path != want.Path || !strings.Contains(s.Reason, want.Reason) {
			t.Errorf("skipped %+v, want %+v", s, want)
		}
	}
}

func TestAnImportStopsWhereTheStoreFails(t *testing.T) {
	upload := zipOf(t, [][2]string{{"cat/1.png", "2x2"}, {"dog/1.png", "2x2 other" + noise(300<<10)}})
	tests := []struct {
		name, method, key string
		after             int
	}{
		{"asked for the zip's size", "stat", "upload", 0},
		{"reading the directory", "range", "upload", 0},
		{"reading an image", "range", "upload", 2},
		{"asked for an image", "stat", "blobs/", 0},
		{"storing an image", "put", "blobs/", 0},
		{"storing the manifest", "put", "datasets/", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			m.blobs["upload"] = upload
			var calls atomic.Int64
			m.fail = func(method, key string) error {
				if method == tt.method && strings.HasPrefix(key, tt.key) && calls.Add(1) > int64(tt.after) {
					return errs.New(errs.Unavailable, "the store is away")
				}
				return nil
			}
			v, err := ImportZip(t.Context(), m, "upload", options())
			if errs.Of(err) != errs.Unavailable {
				t.Errorf("version %+v, error %v", v, err)
			}
			for key := range m.blobs {
				if strings.HasPrefix(key, "datasets/") {
					t.Errorf("a version was stored: %s", key)
				}
			}
		})
	}
}

// noise is text that does not pack.
func noise(n int) string {
	b := make([]byte, n)
	for i, r := 0, rng.New(1, "noise"); i < n; i++ {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func TestAnImportStopsWhereItIsTold(t *testing.T) {
	m := newMemory()
	m.blobs["upload"] = zipOf(t, [][2]string{{"cat/1.png", "2x2"}, {"dog/1.png", "2x2 other"}})
	ctx, cancel := context.WithCancel(t.Context())
	o := options()
	o.Check = func(context.Context, []byte) (int, int, error) {
		cancel()
		return 1, 1, nil
	}
	if _, err := ImportZip(ctx, m, "upload", o); errs.Of(err) != errs.Canceled {
		t.Errorf("cancelled in the middle: %v", err)
	}
	o.Check = func(context.Context, []byte) (int, int, error) {
		return 0, 0, errs.New(errs.Unavailable, "the decoder is away")
	}
	if _, err := ImportZip(t.Context(), m, "upload", o); errs.Of(err) != errs.Unavailable {
		t.Errorf("an unavailable decoder: %v", err)
	}
	whole := m.blobs["upload"]
	m.large = map[string]*io.SectionReader{"short": io.NewSectionReader(bytes.NewReader(whole[:len(whole)-50]), 0, int64(len(whole)))}
	if _, err := ImportZip(t.Context(), m, "short", options()); errs.Of(err) != errs.Unavailable {
		t.Errorf("a store that returns less than it said: %v", err)
	}
	if _, err := ImportZip(t.Context(), m, "nothing", options()); errs.Of(err) != errs.NotFound {
		t.Errorf("a zip that is not there: %v", err)
	}
}

func TestRangesGrowWhereReadingGoesOn(t *testing.T) {
	const size = 32 << 20
	m := newMemory()
	m.blobs["upload"] = make([]byte, size)
	calls := 0
	m.fail = func(string, string) error { calls++; return nil }
	r := &rangeReader{ctx: t.Context(), objs: m, key: "upload", size: size}
	if n, err := io.Copy(io.Discard, io.NewSectionReader(r, 0, size)); n != size || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if calls > 15 {
		t.Errorf("%d calls for %d MiB read on", calls, size>>20)
	}
	for _, offset := range []int64{20 << 20, 10 << 20, 30 << 20} {
		if _, err := r.ReadAt(make([]byte, 10), offset); err != nil || len(r.buf) != firstBlock {
			t.Errorf("%d bytes were fetched after a jump, %v", len(r.buf), err)
		}
	}
	for _, offset := range []int64{-1, size} {
		if n, err := r.ReadAt(make([]byte, 1), offset); n != 0 || err != io.EOF {
			t.Errorf("read %d bytes at %d, %v", n, offset, err)
		}
	}
}

// sparseFile skips over blocks of zeros.
type sparseFile struct {
	*os.File
	at int64
}

func (f *sparseFile) Write(b []byte) (int, error) {
	defer func() { f.at += int64(len(b)) }()
	if len(bytes.Trim(b, "\x00")) == 0 {
		return len(b), f.Truncate(f.at + int64(len(b)))
	}
	return f.WriteAt(b, f.at)
}

func TestALargeZipIsNotHeldInMemory(t *testing.T) {
	const images, imageBytes = 100, 2 << 20
	file, err := os.Create(filepath.Join(t.TempDir(), "large.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z := zip.NewWriter(&sparseFile{File: file})
	zeros := make([]byte, imageBytes)
	for i := range images {
		w, err := z.CreateRaw(&zip.FileHeader{
			Name: fmt.Sprintf("c%d/%d.bmp", i%2, i), CRC32: crc32.ChecksumIEEE(zeros),
			CompressedSize64: imageBytes, UncompressedSize64: imageBytes,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory()
	m.drop = true
	m.large = map[string]*io.SectionReader{"upload": io.NewSectionReader(file, 0, info.Size())}
	var calls, peak atomic.Uint64
	o := options()
	o.Check = func(context.Context, []byte) (int, int, error) {
		if calls.Add(1)%10 == 0 {
			var s runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&s)
			peak.Store(max(peak.Load(), s.HeapAlloc))
		}
		return 1, 1, nil
	}
	v, err := ImportZip(t.Context(), m, "upload", o)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Items) != images || info.Size() < images*imageBytes {
		t.Errorf("%d images of a zip of %d bytes", len(v.Items), info.Size())
	}
	t.Logf("heap at most %d MiB for a zip of %d MiB", peak.Load()>>20, info.Size()>>20)
	if limit := uint64(40 << 20); peak.Load() > limit || peak.Load() == 0 {
		t.Errorf("heap of %d bytes, limit %d", peak.Load(), limit)
	}
}

func FuzzImportZip(f *testing.F) {
	f.Add(zipOf(f, [][2]string{{"pets/train/cat/1.png", "2x2 a"}, {"pets/test/dog/1.png", "3x3 b"}, {"pets/classes.yaml", "cat: house cat\n"}}))
	f.Add(zipOf(f, [][2]string{{"cat/1.png", "2x2 a"}, {"dog/../../1.png", "3x3"}}))
	f.Add(zipWith(f, zip.FileHeader{Name: "cat/\x81.png", CompressedSize64: 4, UncompressedSize64: 3}, "3x3 "))
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMemory()
		m.blobs["upload"] = data
		o := options()
		o.Limits = Limits{Entries: 100, Bytes: 1 << 20, ImageBytes: 1 << 16}
		v, err := ImportZip(t.Context(), m, "upload", o)
		if err != nil {
			if errs.Of(err) == errs.Internal {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		loaded, err := Load(t.Context(), m, v.ID, v.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range loaded.Items {
			if _, err := ReadImage(t.Context(), m, it); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(loaded.FewShot(1, 1).Train); got > max(1, len(loaded.Classes)) {
			t.Fatalf("%d images for one shot of %d classes", got, len(loaded.Classes))
		}
	})
}
