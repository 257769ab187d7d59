package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/storage"
)

// Checker decodes an image as training will, and returns its size in pixels. An error of the
// kind [errs.TooLarge] refuses the whole import; other errors leave the image out, save
// [errs.Canceled] and [errs.Unavailable]. It is called by several goroutines at once.
type Checker func(ctx context.Context, image []byte) (width, height int, err error)

// ImportOptions say how files become a version.
type ImportOptions struct {
	ID    string  // the dataset's name
	Check Checker // required
	// ClassNames override display names by folder, before those of a classes.yaml.
	ClassNames map[string]string
	// Seed draws the splits where the folders do not name them.
	Seed   uint64
	Limits Limits
}

// Limits are what an import may cost. Zero fields mean the defaults.
type Limits struct {
	Entries    int   // files and folders: default 500,000
	Bytes      int64 // of the zip, and of all its files unpacked: default 20 GiB
	ImageBytes int64 // of one image: default 64 MiB
	Ratio      int64 // unpacked to packed, where more than 1 MiB: default 200
	Pixels     int64 // of one image: default 40 million; the Checker may be stricter
	TextBytes  int64 // of all files of texts: default 512 MiB
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Entries:    orDefault(l.Entries, 500_000),
		Bytes:      orDefault(l.Bytes, 20<<30),
		ImageBytes: orDefault(l.ImageBytes, 64<<20),
		Ratio:      orDefault(l.Ratio, 200),
		Pixels:     orDefault(l.Pixels, 40_000_000),
		TextBytes:  orDefault(l.TextBytes, 512<<20),
	}
}

func orDefault[T int | int64](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// file is one file of a zip or folder. Its name is clean: relative, with slashes.
type file struct {
	name string
	size int64 // bytes, as declared
	read func() ([]byte, error)
}

// errUnreadable marks a file whose bytes are damaged where they lie; the rest can go on.
var errUnreadable = errors.New("unreadable")

// ImportZip makes a version of the zip stored at key. docs/formats.md says which layouts are read:
// class folders, files of captions or of questions and answers, texts beside images, or images
// alone; within train, val and test folders or without, within one wrapping folder or without. The zip is read by
// ranges and never held whole. A zip with a hostile entry is refused as a whole; an image that
// can't be read is left out and listed in Skipped.
func ImportZip(ctx context.Context, objs storage.Objects, key string, o ImportOptions) (*Version, error) {
	im, err := newImporter(objs, o)
	if err != nil {
		return nil, err
	}
	files, err := im.openZip(ctx, key)
	if err != nil {
		return nil, im.wrap(err)
	}
	return im.run(ctx, files)
}

// ImportDir makes the version that [ImportZip] would make of a zip of the folder.
func ImportDir(ctx context.Context, objs storage.Objects, dir string, o ImportOptions) (*Version, error) {
	im, err := newImporter(objs, o)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, im.wrap(errs.New(errs.NotFound, "folder: %w", err))
	}
	defer root.Close()
	files, err := im.listDir(ctx, root)
	if err != nil {
		return nil, im.wrap(err)
	}
	return im.run(ctx, files)
}

type importer struct {
	ImportOptions
	objs    storage.Objects
	entries int
	bytes   int64
}

func newImporter(objs storage.Objects, o ImportOptions) (*importer, error) {
	if err := checkID(o.ID); err != nil {
		return nil, err
	}
	if o.Check == nil {
		return nil, errs.New(errs.Internal, "dataset %s: imported without a Checker", o.ID)
	}
	o.Limits = o.Limits.withDefaults()
	return &importer{ImportOptions: o, objs: objs}, nil
}

func (im *importer) wrap(err error) error {
	return errs.New(errs.Of(err), "dataset %s: %w", im.ID, err)
}

// run turns files into a stored version: images first, then the manifest that names them.
func (im *importer) run(ctx context.Context, files []file) (*Version, error) {
	l, err := im.arrange(files)
	if err != nil {
		return nil, im.wrap(err)
	}
	names, err := im.classNames(l)
	if err != nil {
		return nil, im.wrap(err)
	}
	items, skipped, err := im.store(ctx, l.images)
	if err != nil {
		return nil, im.wrap(err)
	}
	v := &Version{ID: im.ID, Format: format, Ignored: l.ignored, Skipped: slices.Concat(l.skipped, skipped)}
	if err := v.fill(items, names); err != nil {
		return nil, im.wrap(err)
	}
	v.split(im.Seed)
	v.findDuplicates()
	if err := v.save(ctx, im.objs); err != nil {
		return nil, im.wrap(err)
	}
	return v, nil
}

// count refuses the entry with which the import goes over a limit.
func (im *importer) count(name string, size uint64) error {
	im.entries++
	if im.entries > im.Limits.Entries {
		return refuse(errs.TooLarge, name, "entry number %d, limit %d", im.entries, im.Limits.Entries)
	}
	if left := im.Limits.Bytes - im.bytes; size > uint64(left) {
		return refuse(errs.TooLarge, name, "%d bytes after %d before it, limit %d in all", size, im.bytes, im.Limits.Bytes)
	}
	im.bytes += int64(size)
	if isImage(name) && int64(size) > im.Limits.ImageBytes {
		return refuse(errs.TooLarge, name, "image of %d bytes, limit %d", size, im.Limits.ImageBytes)
	}
	return nil
}

// refuse is the error that stops an import because of one entry.
func refuse(kind errs.Kind, name, format string, args ...any) error {
	return errs.New(kind, "entry %q: %w", name, fmt.Errorf(format, args...))
}

// cleanName is an entry's name relative and with slashes, "." for the root. Names that lead
// elsewhere are refused. A name that is not UTF-8 is in the zip format's own code page 437.
func cleanName(name string) (string, error) {
	if !utf8.ValidString(name) {
		name, _ = charmap.CodePage437.NewDecoder().String(name) // every byte is a character there
	}
	slashed := strings.ReplaceAll(name, `\`, "/")
	switch {
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", refuse(errs.Invalid, name, "control character in the name")
	case strings.HasPrefix(slashed, "/"), len(slashed) > 1 && slashed[1] == ':':
		return "", refuse(errs.Invalid, name, "absolute path")
	case slices.Contains(strings.Split(slashed, "/"), ".."):
		return "", refuse(errs.Invalid, name, "path leads out of the folder")
	}
	return path.Clean(slashed), nil
}

func (im *importer) listDir(ctx context.Context, root *os.Root) ([]file, error) {
	var files []file
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || name == "." {
			return err
		}
		if isNoise(name) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f, err := im.dirFile(root, name, info)
		if f != nil {
			files = append(files, *f)
		}
		return err
	})
	return files, err
}

// dirFile checks one entry of a folder; nil for a folder within.
func (im *importer) dirFile(root *os.Root, name string, info fs.FileInfo) (*file, error) {
	clean, err := cleanName(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, im.count(name, 0)
	}
	if !info.Mode().IsRegular() {
		return nil, refuse(errs.Invalid, name, "symbolic link or special file (%s)", info.Mode())
	}
	limit := im.Limits.TextBytes
	if isImage(clean) {
		limit = im.Limits.ImageBytes
	}
	read := func() ([]byte, error) {
		b, err := readFile(root, name, limit)
		if err != nil {
			return nil, refuse(errs.Or(err, errs.Invalid), name, "%w", err)
		}
		return b, nil
	}
	return &file{clean, info.Size(), read}, im.count(clean, uint64(info.Size()))
}

func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if int64(len(b)) > limit {
		return nil, errs.New(errs.TooLarge, "more than %d bytes", limit)
	}
	return b, err
}

// outcome is what became of one image.
type outcome struct {
	item Item
	skip string // why it was left out
	err  error  // why the import stops
}

// store reads the images one after the other, as they lie, and has a few goroutines check and
// store them, so that no more than one image a goroutine is in memory.
func (im *importer) store(ctx context.Context, images []placed) ([]labelled, []Skipped, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type job struct {
		index int
		data  []byte
	}
	images = slices.Clone(images)
	jobs := make(chan job)
	outcomes := make([]outcome, len(images))
	var workers sync.WaitGroup
	for range min(4, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for j := range jobs {
				o := im.storeImage(ctx, images[j.index], j.data)
				outcomes[j.index] = o
				if o.err != nil {
					cancel(o.err)
				}
			}
		})
	}
	for i, image := range images {
		if ctx.Err() != nil {
			break
		}
		data, err := image.file.read()
		if err == nil && image.sidecar != nil {
			images[i].items, err = image.readSidecar()
		}
		if errors.Is(err, errUnreadable) {
			outcomes[i].skip = err.Error()
		} else if err != nil {
			cancel(err)
		} else {
			jobs <- job{i, data}
		}
	}
	close(jobs)
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}
	items, skipped := sortOut(images, outcomes)
	return items, skipped, nil
}

// storeImage checks one image and stores its bytes under their digest.
func (im *importer) storeImage(ctx context.Context, p placed, data []byte) outcome {
	width, height, err := im.checkImage(ctx, data)
	switch kind := errs.Of(err); {
	case err != nil && (kind == errs.TooLarge || kind == errs.Canceled || kind == errs.Unavailable):
		return outcome{err: refuse(kind, p.file.name, "%w", err)}
	case err != nil:
		return outcome{skip: err.Error()}
	case width < 1 || height < 1:
		return outcome{skip: fmt.Sprintf("%d x %d pixels", width, height)}
	case int64(height) > im.Limits.Pixels/int64(width):
		return outcome{err: refuse(errs.TooLarge, p.file.name, "%d x %d pixels, limit %d in all", width, height, im.Limits.Pixels)}
	}
	it := Item{Path: p.path, SHA256: sum(data), Size: int64(len(data)), Width: width, Height: height, Split: p.split}
	contentType := http.DetectContentType(data[:min(512, len(data))])
	return outcome{item: it, err: putOnce(ctx, im.objs, blobKey(it.SHA256), data, contentType)}
}

// checkImage calls the Checker. A decoder that panics on one image costs that image, not the
// process.
func (im *importer) checkImage(ctx context.Context, data []byte) (width, height int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Invalid, "the decoder failed: %v", p)
		}
	}()
	return im.Check(ctx, data)
}

// labelled is an item with the folder of its class.
type labelled struct {
	Item
	folder string
}

func sortOut(images []placed, outcomes []outcome) (items []labelled, skipped []Skipped) {
	for i, o := range outcomes {
		if o.skip != "" {
			skipped = append(skipped, Skipped{images[i].path, strings.ToValidUTF8(o.skip, "?")})
			continue
		}
		p := images[i]
		for _, it := range p.items {
			it.Path, it.SHA256, it.Size, it.Width, it.Height = o.item.Path, o.item.SHA256, o.item.Size, o.item.Width, o.item.Height
			it.Split = cmp.Or(it.Split, o.item.Split)
			items = append(items, labelled{it, p.folder})
		}
		if len(p.items) == 0 {
			items = append(items, labelled{o.item, p.folder})
		}
	}
	return items, skipped
}

// fill sorts what was imported into classes, items and skipped, independent of its order.
func (v *Version) fill(items []labelled, names map[string]string) error {
	slices.SortFunc(v.Skipped, func(a, b Skipped) int { return strings.Compare(a.Path, b.Path) })
	if len(items) == 0 {
		if len(v.Skipped) > 0 {
			return errs.New(errs.Invalid, "none of the %d images can be used; the first, %q: %s", len(v.Skipped), v.Skipped[0].Path, v.Skipped[0].Reason)
		}
		return errs.New(errs.Invalid, "no images; expected a folder for each class, as CLASS/IMAGE.jpg or train/CLASS/IMAGE.jpg, or images with texts")
	}
	slices.SortStableFunc(items, func(a, b labelled) int { return strings.Compare(a.Path, b.Path) })
	index := map[string]int{}
	for _, it := range items {
		if it.folder != "" {
			index[it.folder] = 0
		}
	}
	for i, folder := range sortedKeys(index) {
		index[folder] = i
		v.Classes = append(v.Classes, Class{folder, names[folder]})
	}
	index[""] = NoClass
	for _, it := range items {
		it.Class = index[it.folder]
		v.Items = append(v.Items, it.Item)
	}
	return nil
}
