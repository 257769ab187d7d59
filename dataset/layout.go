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

// placed is an image whose folder and split are known from its path.
type placed struct {
	path   string // below the wrapping folder
	folder string // of its class
	split  string // "" where no folder says
	file   file
}

// layout is what a list of files means.
type layout struct {
	images  []placed
	skipped []Skipped // images in no class
	ignored int       // files that are no images
	names   *file     // classes.yaml
}

// arrange reads class and split out of the paths.
func arrange(files []file) (*layout, error) {
	l := &layout{}
	seen := map[string]bool{}
	var images []placed
	var others []file
	for _, f := range files {
		if isNoise(f.name) {
			continue
		}
		if seen[f.name] {
			return nil, refuse(errs.Invalid, f.name, "is there twice")
		}
		seen[f.name] = true
		if isImage(f.name) {
			images = append(images, placed{path: f.name, file: f})
		} else {
			others = append(others, f)
		}
	}
	l.sortOthers(others, unwrap(images))
	splits, err := namesSplits(images)
	if err != nil {
		return nil, err
	}
	for _, p := range images {
		l.place(p, splits)
	}
	return l, nil
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
func namesSplits(images []placed) (bool, error) {
	deep, found := false, false
	for _, p := range images {
		top, rest, inFolder := strings.Cut(p.path, "/")
		if !inFolder {
			continue
		}
		if splitFolders[strings.ToLower(top)] == "" {
			return false, nil
		}
		found = true
		deep = deep || strings.Contains(rest, "/")
	}
	if found && !deep {
		return false, errs.New(errs.Invalid, "%q: the split folders hold no class folders; expected train/CLASS/IMAGE", images[0].path)
	}
	return found, nil
}

func (l *layout) place(p placed, splits bool) {
	rest := p.path
	if splits {
		top, below, inFolder := strings.Cut(p.path, "/")
		if inFolder {
			p.split, rest = splitFolders[strings.ToLower(top)], below
		}
	}
	folder, _, inClass := strings.Cut(rest, "/")
	if !inClass {
		l.skipped = append(l.skipped, Skipped{p.path, "lies in no class folder"})
		return
	}
	p.folder = folder
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
		names[p.folder] = ReadName(p.folder)
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
