package dataset

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// maxSidecar is how large a text file beside an image may be, in bytes, and maxMissing how many
// images that texts name but that are not there are listed one by one.
const (
	maxSidecar = 64 << 10
	maxMissing = 1000
)

// describedImages is what the files of texts say.
type describedImages struct {
	byFile  map[string][]text // by the name of the image's file
	missing []Skipped         // images that have texts, but are not there
	ignored int               // files that are none of texts
}

// readTexts reads the files of texts among others, in the order of their names; nil where there
// are none.
func (im *importer) readTexts(images []placed, others []file) (*describedImages, error) {
	others = slices.SortedFunc(slices.Values(others), func(a, b file) int { return strings.Compare(a.name, b.name) })
	d := &describedImages{byFile: map[string][]text{}}
	find := newFinder(images)
	json := newCOCO()
	used := map[string]string{} // folders that a metadata file describes
	var bytes int64
	found := false
	for _, f := range others {
		read, isJSON := readerOf(f.name), strings.EqualFold(path.Ext(f.name), ".json")
		if read == nil && !isJSON {
			d.ignored++
			continue
		}
		if bytes += f.size; bytes > im.Limits.TextBytes {
			return nil, refuse(errs.TooLarge, f.name, "%d bytes in files of texts, limit %d: leave out those that hold no captions, questions or answers", bytes, im.Limits.TextBytes)
		}
		content, err := f.read()
		if err == nil {
			content, err = decodeUTF8(content)
		}
		if err != nil {
			return nil, refuse(errs.Or(err, errs.Invalid), f.name, "%w", err)
		}
		if isJSON {
			known, err := json.read(f.name, content)
			if err != nil {
				return nil, refuse(errs.Or(err, errs.Invalid), f.name, "%w", err)
			}
			found = found || known
			if !known {
				d.ignored++
			}
			continue
		}
		folder := path.Dir(f.name)
		if other := used[folder]; other != "" {
			return nil, refuse(errs.Invalid, f.name, "and %q describe the same folder: keep one", other)
		}
		used[folder] = f.name
		texts, err := read(content)
		if err != nil {
			return nil, refuse(errs.Of(err), f.name, "%w", err)
		}
		found = true
		for _, t := range texts {
			d.put(find.relative(folder, t), t)
		}
	}
	if !found {
		return nil, nil
	}
	for _, t := range json.join() {
		d.put(find.named(t), t)
	}
	return d, nil
}

// put gives a text to an image's file, or lists that there is none.
func (d *describedImages) put(file string, t text) {
	if file != "" {
		d.byFile[file] = append(d.byFile[file], t)
		return
	}
	d.missing = append(d.missing, Skipped{strings.ToValidUTF8(cmp.Or(t.image, "number "+t.id), "?"), "has texts, but is not there"})
}

// finder finds images by what texts call them.
type finder struct {
	files   map[string]bool
	byBase  map[string][]string // the last part of a path: the files of that name
	byDigit map[string][]string // the number at a name's end, without zeros before it
}

func newFinder(images []placed) *finder {
	f := &finder{map[string]bool{}, map[string][]string{}, map[string][]string{}}
	for _, p := range images {
		name := p.file.name
		base := path.Base(name)
		f.files[name] = true
		f.byBase[base] = append(f.byBase[base], name)
		stem := strings.TrimSuffix(base, path.Ext(base))
		digits := stem[len(strings.TrimRight(stem, "0123456789")):]
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
			id := strconv.FormatUint(n, 10)
			f.byDigit[id] = append(f.byDigit[id], name)
		}
	}
	return f
}

// relative finds an image by its path from the folder of the file that names it.
func (f *finder) relative(folder string, t text) string {
	name := path.Join(folder, strings.ReplaceAll(t.image, `\`, "/"))
	if f.files[name] {
		return name
	}
	return ""
}

// named finds an image by the end of its path, or by its number where it has no name. Of several
// it takes the one in a folder of the text's split.
func (f *finder) named(t text) string {
	candidates := f.byDigit[t.id]
	if t.image != "" {
		candidates = slices.DeleteFunc(slices.Clone(f.byBase[path.Base(t.image)]), func(name string) bool {
			return !strings.HasSuffix("/"+name, path.Join("/", t.image))
		})
	}
	if len(candidates) > 1 {
		candidates = slices.DeleteFunc(slices.Clone(candidates), func(name string) bool {
			return t.split == "" || splitIn(path.Dir(name)) != t.split
		})
	}
	if len(candidates) != 1 {
		return ""
	}
	return candidates[0]
}

// placeDescribed takes the images that have texts; the others are left out and listed.
func (l *layout) placeDescribed(images []placed, d *describedImages) {
	l.ignored += d.ignored
	for _, p := range images {
		top, _, _ := strings.Cut(p.path, "/")
		p.split = cmp.Or(splitFolders[strings.ToLower(top)], splitIn(path.Dir(p.path)))
		p.items = itemsOf(d.byFile[p.file.name])
		if len(p.items) == 0 {
			l.skipped = append(l.skipped, Skipped{p.path, "has no texts"})
			continue
		}
		l.images = append(l.images, p)
	}
	slices.SortFunc(d.missing, func(a, b Skipped) int { return strings.Compare(a.Path, b.Path) })
	d.missing = slices.Compact(d.missing)
	if n := len(d.missing) - maxMissing; n > 0 {
		d.missing = append(d.missing[:maxMissing], Skipped{"...", fmt.Sprintf("%d more images have texts, but are not there", n)})
	}
	l.skipped = append(l.skipped, d.missing...)
}

// itemsOf joins the captions of an image, and makes an item of each of its questions. A question
// that is there again is dropped.
func itemsOf(texts []text) []Item {
	var items []Item
	captions := -1
	asked := map[string]bool{}
	for _, t := range texts {
		switch {
		case t.question != "" && !asked[t.question]:
			asked[t.question] = true
			items = append(items, Item{Question: t.question, Answers: t.answers, Split: t.split})
		case len(t.captions) > 0 && captions < 0:
			captions = len(items)
			items = append(items, Item{Captions: t.captions, Split: t.split})
		case len(t.captions) > 0:
			items[captions].Captions = append(items[captions].Captions, t.captions...)
		}
	}
	return items
}

// sidecarTypes are the extensions of text files that lie beside images, as kohya's scripts and
// others have them.
var sidecarTypes = []string{".txt", ".caption"}

// addSidecars gives each image the text file of its name, and says whether there is one at all.
func (l *layout) addSidecars(images []placed, others []file) bool {
	byStem := map[string]*file{}
	for _, f := range others {
		ext := path.Ext(f.name)
		if slices.Contains(sidecarTypes, strings.ToLower(ext)) {
			stem := strings.TrimSuffix(f.name, ext)
			if byStem[stem] == nil || f.name > byStem[stem].name { // .txt before .caption
				byStem[stem] = &f
			}
		}
	}
	used := map[*file]bool{}
	for i := range images {
		name := images[i].file.name
		if f := byStem[strings.TrimSuffix(name, path.Ext(name))]; f != nil {
			images[i].sidecar = f
			used[f] = true
		}
	}
	l.ignored -= len(used)
	return len(used) > 0
}

// readSidecar takes each line of the text beside an image as a caption. A text that can't be used
// is errUnreadable, so that its image is left out.
func (p placed) readSidecar() ([]Item, error) {
	b, err := p.sidecar.read()
	if err != nil {
		return nil, err
	}
	captions, err := sidecarLines(b)
	if err == nil && len(captions) == 0 && p.folder == "" {
		err = errs.New(errs.Invalid, "it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: text %q: %w", errUnreadable, path.Base(p.sidecar.name), err)
	}
	return []Item{{Captions: captions}}, nil
}

func sidecarLines(b []byte) ([]string, error) {
	if len(b) > maxSidecar {
		return nil, errs.New(errs.TooLarge, "%d bytes, limit %d", len(b), maxSidecar)
	}
	b, err := decodeUTF8(b)
	if err != nil {
		return nil, err
	}
	t := text{captions: strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' || r == '\r' })}
	err = t.clean()
	return t.captions, err
}
