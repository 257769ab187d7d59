package dataset

import (
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/foretoken/foretoken/internal/errs"
)

// The splits of a version.
const (
	Train      = "train"
	Validation = "validation"
	Test       = "test"
)

// splitFolders are the folders that name a split, in lower case.
var splitFolders = map[string]string{
	"train": Train, "val": Validation, "valid": Validation, "validation": Validation, "test": Test,
}

// namesFile overrides display names: a mapping from folder to name.
const namesFile = "classes.yaml"

// imageTypes are the extensions taken for images: those that are decoded, and those that a
// person would miss if they went unmentioned.
var imageTypes = map[string]bool{
	".png": true, ".jpg": true, ".jpeg": true, ".jpe": true, ".jfif": true, ".gif": true, ".webp": true, ".bmp": true,
	".tif": true, ".tiff": true, ".avif": true, ".heic": true, ".heif": true, ".jp2": true, ".jxl": true,
}

func isImage(name string) bool { return imageTypes[strings.ToLower(path.Ext(name))] }

// isNoise says whether a file is one that systems leave behind.
func isNoise(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool {
		return part == "__MACOSX" || strings.HasPrefix(part, ".") && part != "."
	})
}

// placed is an image whose place in the version is known from its path and from what files of
// texts say.
type placed struct {
	path    string // below the wrapping folder
	folder  string // of its class, "" without classes
	split   string // "" where no folder says
	items   []Item // texts that files of texts have: an item each, with a split where one is said
	sidecar *file  // a text file beside it
	file    file
}

// layout is what a list of files means.
type layout struct {
	images  []placed
	skipped []Skipped // images without a place, and places without an image
	ignored int       // files that are not used
	names   *file     // classes.yaml
}

// arrange finds out what a list of files means: files of texts come first, then class folders,
// then text files beside the images, then images alone.
func (im *importer) arrange(files []file) (*layout, error) {
	images, others, err := sift(files)
	if err != nil {
		return nil, err
	}
	l := &layout{}
	wrap := unwrap(images)
	texts, err := im.readTexts(images, others)
	if err != nil {
		return nil, err
	}
	if texts != nil {
		l.placeDescribed(images, texts)
		return l, nil
	}
	l.sortOthers(others, wrap)
	captioned := l.addSidecars(images, others)
	splits := namesSplits(images)
	classes := im.hasClasses(images, splits) || l.names != nil
	for _, p := range images {
		l.place(p, splits, classes, captioned)
	}
	return l, nil
}

// sift parts images from other files.
func sift(files []file) (images []placed, others []file, err error) {
	seen := map[string]bool{}
	for _, f := range files {
		if isNoise(f.name) {
			continue
		}
		if seen[f.name] {
			return nil, nil, refuse(errs.Invalid, f.name, "is there twice")
		}
		seen[f.name] = true
		if isImage(f.name) {
			images = append(images, placed{path: f.name, file: f})
		} else {
			others = append(others, f)
		}
	}
	return images, others, nil
}

// sortOthers looks for classes.yaml among the files that are no images.
func (l *layout) sortOthers(others []file, wrap string) {
	for _, f := range others {
		if strings.TrimPrefix(f.name, wrap) == namesFile {
			l.names = &f
		} else {
			l.ignored++
		}
	}
}

// unwrap takes a folder that wraps all others off the paths, and returns it with its slash.
func unwrap(images []placed) string {
	if len(images) == 0 {
		return ""
	}
	wrap, _, _ := strings.Cut(images[0].path, "/")
	prefix := wrap + "/"
	deep := false
	for _, p := range images {
		if !strings.HasPrefix(p.path, prefix) {
			return ""
		}
		deep = deep || strings.Count(p.path, "/") > 1
	}
	if !deep || splitFolders[strings.ToLower(wrap)] != "" {
		return ""
	}
	for i := range images {
		images[i].path = strings.TrimPrefix(images[i].path, prefix)
	}
	return prefix
}

// namesSplits says whether the outer folders are splits: all of them have a split's name. So
// a class may be called "train" beside others.
func namesSplits(images []placed) bool {
	found := false
	for _, p := range images {
		top, _, inFolder := strings.Cut(p.path, "/")
		if inFolder && splitFolders[strings.ToLower(top)] == "" {
			return false
		}
		found = found || inFolder
	}
	return found
}

// hasClasses says whether folders, below those of the splits, are classes. One folder that holds
// all images is none, unless names are given for classes.
func (im *importer) hasClasses(images []placed, splits bool) bool {
	folders, deep, outside := map[string]bool{}, false, false
	for _, p := range images {
		_, rest := splitOf(p.path, splits)
		folder, _, inFolder := strings.Cut(rest, "/")
		folders[folder] = folders[folder] || inFolder
		deep, outside = deep || inFolder, outside || !inFolder
	}
	alone := len(folders) == 1 && !splits && !outside && len(im.ClassNames) == 0
	return deep && !alone
}

// splitOf is the split that a path's first folder names, where they do so, and the rest.
func splitOf(path string, splits bool) (split, rest string) {
	top, below, inFolder := strings.Cut(path, "/")
	if !splits || !inFolder {
		return "", path
	}
	return splitFolders[strings.ToLower(top)], below
}

// place finds an image's class and split. Where there are neither classes nor files of texts,
// and some images have a text beside them, all must.
func (l *layout) place(p placed, splits, classes, captioned bool) {
	var rest string
	p.split, rest = splitOf(p.path, splits)
	folder, _, inClass := strings.Cut(rest, "/")
	switch {
	case classes && !inClass:
		l.skipped = append(l.skipped, Skipped{p.path, "lies in no class folder"})
		return
	case classes:
		p.folder = folder
	case captioned && p.sidecar == nil:
		l.skipped = append(l.skipped, Skipped{p.path, "has no text file beside it, as others do"})
		return
	}
	l.images = append(l.images, p)
}

// ReadName turns a class's folder into words: "ankle_boot" is "ankle boot".
func ReadName(folder string) string {
	words := strings.FieldsFunc(folder, func(r rune) bool { return r == '_' || r == '-' || r == ' ' })
	if len(words) == 0 {
		return folder
	}
	return strings.Join(words, " ")
}

// classNames finds the display name of each folder: by option, by classes.yaml, by its words.
func (im *importer) classNames(l *layout) (map[string]string, error) {
	names := map[string]string{}
	for _, p := range l.images {
		if p.folder != "" {
			names[p.folder] = ReadName(p.folder)
		}
	}
	written, err := readNames(l.names)
	if err != nil {
		return nil, err
	}
	for _, source := range []map[string]string{written, im.ClassNames} {
		for _, folder := range sortedKeys(source) {
			if _, ok := names[folder]; !ok {
				return nil, errs.New(errs.Invalid, "class names: %q is no class folder; there are %.300q", folder, sortedKeys(names))
			}
			if strings.TrimSpace(source[folder]) == "" {
				return nil, errs.New(errs.Invalid, "class names: the name of %q is empty", folder)
			}
			names[folder] = source[folder]
		}
	}
	return names, checkDistinct(names)
}

// readNames reads a classes.yaml, if there is one.
func readNames(f *file) (names map[string]string, err error) {
	const limit = 1 << 20
	if f == nil {
		return nil, nil
	}
	if f.size > limit {
		return nil, refuse(errs.TooLarge, f.name, "%d bytes, limit %d", f.size, limit)
	}
	b, err := f.read()
	if err != nil {
		return nil, refuse(errs.Or(err, errs.Invalid), f.name, "%w", err)
	}
	if err := yaml.Unmarshal(b, &names); err != nil {
		return nil, refuse(errs.Invalid, f.name, "expected lines FOLDER: NAME: %w", err)
	}
	return names, nil
}

// checkDistinct refuses two classes that no template could tell apart.
func checkDistinct(names map[string]string) error {
	folders := map[string]string{}
	for _, folder := range sortedKeys(names) {
		name := names[folder]
		if other, taken := folders[name]; taken {
			return errs.New(errs.Invalid, "folders %q and %q are both called %q: give one another name in %s", other, folder, name, namesFile)
		}
		folders[name] = folder
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
