package dataset

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/internal/errs"
)

var update = flag.Bool("update", false, "write the golden files")

// pets is a small data set with one of everything.
var pets = [][2]string{
	{"pets/", ""},
	{"pets/README.txt", "pictures of pets"},
	{"pets/classes.yaml", "hot_dog: frankfurter\n"},
	{"pets/train/tabby_cat/1.png", "4x3 tabby"},
	{"pets/train/tabby_cat/2.png", "4x3 tabby two"},
	{"pets/train/hot_dog/1.png", "5x5 dog"},
	{"pets/train/hot_dog/broken.jpg", "nothing"},
	{"pets/Val/hot_dog/1.png", "5x5 dog three"},
	{"pets/test/tabby_cat/1.png", "4x3 tabby"},
	{"pets/test/hot_dog/deeper/1.png", "5x5 dog two"},
	{"pets/test/stray.png", "1x1"},
	{"pets/train/.DS_Store", "noise"},
	{"__MACOSX/pets/train/tabby_cat/._1.png", "noise"},
	{"pets/.git/1.png", "noise"},
}

func TestAVersionSaysWhatTheZipHolds(t *testing.T) {
	v, m := mustImport(t, pets)
	if want := []Class{{"hot_dog", "frankfurter"}, {"tabby_cat", "tabby cat"}}; !slices.Equal(v.Classes, want) {
		t.Errorf("classes %v, want %v", v.Classes, want)
	}
	if want := []ClassCount{{1, 1, 1}, {2, 0, 1}}; !slices.Equal(v.Counts(), want) {
		t.Errorf("counts %v, want %v", v.Counts(), want)
	}
	want := Item{Path: "train/tabby_cat/1.png", SHA256: sum([]byte("4x3 tabby")), Size: 9, Width: 4, Height: 3, Class: 1, Split: Train}
	if !slices.ContainsFunc(v.Items, func(it Item) bool { return reflect.DeepEqual(it, want) }) {
		t.Errorf("no %+v in %+v", want, v.Items)
	}
	if want := []Skipped{{"test/stray.png", "lies in no class folder"}, {"train/hot_dog/broken.jpg", "not an image"}}; !slices.Equal(v.Skipped, want) {
		t.Errorf("skipped %v, want %v", v.Skipped, want)
	}
	if v.Ignored != 1 {
		t.Errorf("ignored %d files, want the README alone", v.Ignored)
	}
	if want := []Duplicate{{sum([]byte("4x3 tabby")), []string{"test/tabby_cat/1.png", "train/tabby_cat/1.png"}}}; !reflect.DeepEqual(v.Leaks, want) {
		t.Errorf("leaks %v, want %v", v.Leaks, want)
	}
	if last := m.puts[len(m.puts)-1]; last != ManifestKey("pets", v.Digest) || len(m.puts) != 6 {
		t.Errorf("stored %v; want 5 images, each once, then the manifest", m.puts)
	}
}

func TestTheManifestIsAsItWas(t *testing.T) {
	v, m := mustImport(t, pets)
	manifest := m.blobs[ManifestKey("pets", v.Digest)]
	if sum(manifest) != v.Digest {
		t.Errorf("digest %s of a manifest with %s", v.Digest, sum(manifest))
	}
	isGolden(t, manifest, "testdata/manifest.json")
}

// isGolden compares a manifest with the one in a file.
func isGolden(t *testing.T, manifest []byte, golden string) {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, manifest, "", "  "); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("the format changed: got %s", b.Bytes())
	}
}

func TestADigestDependsOnContentAlone(t *testing.T) {
	want, _ := mustImport(t, pets)
	backwards := slices.Clone(pets)
	slices.Reverse(backwards)
	var unwrapped [][2]string
	for _, f := range pets[1:] {
		unwrapped = append(unwrapped, [2]string{strings.TrimPrefix(f[0], "pets/"), f[1]})
	}
	windows := slices.Clone(pets)
	for i := range windows {
		windows[i][0] = strings.ReplaceAll(windows[i][0], "/", `\`)
	}
	changed := append(slices.Clone(pets), [2]string{"pets/train/hot_dog/3.png", "4x4 new"})
	for _, tt := range []struct {
		name  string
		files [][2]string
		same  bool
	}{
		{"another order and another time", backwards, true},
		{"no wrapping folder", unwrapped, true},
		{"backslashes", windows, true},
		{"one more image", changed, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, _ := mustImport(t, tt.files)
			if (v.Digest == want.Digest) != tt.same {
				t.Errorf("digest %s, of the first %s, want same %t\n%+v", v.Digest, want.Digest, tt.same, v)
			}
		})
	}
}

func writeDir(t *testing.T, files [][2]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f[0]))
		if strings.HasSuffix(f[0], "/") {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f[1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAFolderGivesTheVersionOfItsZip(t *testing.T) {
	want, _ := mustImport(t, pets)
	dir := writeDir(t, pets)
	for _, path := range []string{dir, filepath.Join(dir, "pets")} {
		m := newMemory()
		v, err := ImportDir(t.Context(), m, path, options())
		if err != nil {
			t.Fatal(err)
		}
		if v.Digest != want.Digest {
			t.Errorf("digest %s, of the zip %s\n%+v", v.Digest, want.Digest, v)
		}
	}
}

func TestAHostileFolderIsRefused(t *testing.T) {
	link := writeDir(t, pets)
	if err := os.Symlink("/etc/passwd", filepath.Join(link, "pets/train/hot_dog/link.png")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, dir, says string
		limits          Limits
		kind            errs.Kind
	}{
		{"a symbolic link", link, `link.png": symbolic link`, Limits{}, errs.Invalid},
		{"too many files", writeDir(t, pets), "limit 4", Limits{Entries: 4}, errs.TooLarge},
		{"too many bytes", writeDir(t, pets), "limit 20 in all", Limits{Bytes: 20}, errs.TooLarge},
		{"a large image", writeDir(t, pets), "limit 8", Limits{ImageBytes: 8}, errs.TooLarge},
		{"a folder that is not there", filepath.Join(link, "nothing"), "no such file", Limits{}, errs.NotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options()
			o.Limits = tt.limits
			_, err := ImportDir(t.Context(), newMemory(), tt.dir, o)
			if errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v error %v, want %v saying %q", errs.Of(err), err, tt.kind, tt.says)
			}
		})
	}
}

func TestFoldersAreReadAsAPersonMeansThem(t *testing.T) {
	tests := []struct {
		name    string
		paths   string
		classes string
		splits  string // of the items, by path
		folders bool
	}{
		{"classes alone", "cat/1.png dog/1.png", "cat dog", "train train", false},
		{"classes in a wrapping folder", "w/cat/1.png w/dog/1.png", "cat dog", "train train", false},
		{"splits in a wrapping folder", "w/test/cat/1.png w/train/dog/1.png", "cat dog", "test train", true},
		{"every word for a split", "TEST/a/1.png train/a/1.png val/a/1.png valid/a/1.png validation/a/1.png", "a", "test train validation validation validation", true},
		{"training images alone are split", "train/a/1.png train/a/2.png train/b/1.png train/b/2.png", "a b", "", false},
		{"a class called train beside others", "car/1.png train/1.png", "car train", "train train", false},
		{"a class called train in a wrapping folder", "w/car/1.png w/train/1.png", "car train", "train train", false},
		{"folders within a class", "cat/x/1.png cat/y/1.png dog/1.png", "cat dog", "", false},
		{"the same name in two classes", "a/1.png b/1.png", "a b", "train train", false},
		{"other files outside the wrapping folder", "LICENSE w/cat/1.png w/dog/1.JPEG", "cat dog", "train train", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var files [][2]string
			for i, path := range strings.Fields(tt.paths) {
				files = append(files, [2]string{path, fmt.Sprintf("2x2 image %d", i)})
			}
			v, _ := mustImport(t, files)
			var classes, splits []string
			for _, c := range v.Classes {
				classes = append(classes, c.Folder)
			}
			for _, it := range v.Items {
				splits = append(splits, it.Split)
			}
			if got := strings.Join(classes, " "); got != tt.classes {
				t.Errorf("classes %s, want %s", got, tt.classes)
			}
			if got := strings.Join(splits, " "); tt.splits != "" && got != tt.splits {
				t.Errorf("splits %s, want %s", got, tt.splits)
			}
			if v.SplitBy.Folders != tt.folders || len(v.Skipped) > 0 {
				t.Errorf("split by %+v, skipped %v", v.SplitBy, v.Skipped)
			}
		})
	}
}

func TestAZipWithoutAMeaningIsRefused(t *testing.T) {
	named := func(names map[string]string) ImportOptions {
		o := options()
		o.ClassNames = names
		return o
	}
	two := func(more ...[2]string) [][2]string {
		return append([][2]string{{"cat/1.png", "1x1"}, {"dog/1.png", "1x1 d"}}, more...)
	}
	tests := []struct {
		name  string
		files [][2]string
		o     ImportOptions
		says  string
	}{
		{"no images", [][2]string{{"cat/1.txt", "1x1"}}, options(), "expected a folder for each class"},
		{"no image that can be read", [][2]string{{"cat/1.png", "x"}}, options(), `none of the 1 images can be used; the first, "cat/1.png": not an image`},
		{"two classes of one name", [][2]string{{"a_b/1.png", "1x1"}, {"a-b/1.png", "1x1 b"}}, options(), `folders "a-b" and "a_b" are both called "a b"`},
		{"a name for no class", two(), named(map[string]string{"cow": "cow"}), `"cow" is no class folder; there are ["cat" "dog"]`},
		{"an empty name", two(), named(map[string]string{"cat": " "}), `name of "cat" is empty`},
		{"a classes.yaml that is a list", two([2]string{"classes.yaml", "- cat\n- dog\n"}), options(), `"classes.yaml": expected lines FOLDER: NAME`},
		{"a classes.yaml that is huge", two([2]string{"classes.yaml", strings.Repeat("# long\n", 1<<18)}), ImportOptions{ID: "pets", Check: check, Limits: Limits{Ratio: 1 << 20}}, "limit 1048576"},
		{"a name with a slash", two(), ImportOptions{ID: "../pets", Check: check}, `dataset name "../pets"`},
		{"no checker", two(), ImportOptions{ID: "pets"}, "Checker"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := importFiles(t, tt.files, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want one saying %q", err, tt.says)
			}
		})
	}
}

func TestNamesComeFromOptionsThenTheFileThenTheFolder(t *testing.T) {
	o := options()
	o.ClassNames = map[string]string{"c": "option"}
	v, _, err := importFiles(t, [][2]string{
		{"classes.yaml", "b: file\nc: file\n001: one\n"}, {"a-_b  c/1.png", "1x1"}, {"b/1.png", "1x1"}, {"c/1.png", "1x1"}, {"001/1.png", "1x1"}, {"__/1.png", "1x1"},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	want := []Class{{"001", "one"}, {"__", "__"}, {"a-_b  c", "a b c"}, {"b", "file"}, {"c", "option"}}
	if !slices.Equal(v.Classes, want) {
		t.Errorf("classes %v, want %v", v.Classes, want)
	}
	if len(v.Ambiguous) != 1 || len(v.Ambiguous[0].Paths) != 5 || len(v.Leaks) != 0 {
		t.Errorf("one image in five classes: ambiguous %v, leaks %v", v.Ambiguous, v.Leaks)
	}
}

func TestANameInTheZipsOwnCodePageIsRead(t *testing.T) {
	m := newMemory()
	m.blobs["upload"] = zipWith(t, zip.FileHeader{Name: "m\x81cke/1.png", NonUTF8: true, CompressedSize64: 3, UncompressedSize64: 3}, "1x1")
	v, err := ImportZip(t.Context(), m, "upload", options())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(v.Classes, Class{"mücke", "mücke"}) {
		t.Errorf("classes %v", v.Classes)
	}
}

func TestAVersionIsLoadedAsItWasMade(t *testing.T) {
	want, m := mustImport(t, pets)
	got, err := Load(t.Context(), m, "pets", want.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, it := range got.Items {
		if b, err := ReadImage(t.Context(), m, it); err != nil || int64(len(b)) != it.Size {
			t.Errorf("image %s: %d bytes, %v", it.Path, len(b), err)
		}
	}
}

func TestADamagedObjectIsNoted(t *testing.T) {
	v, m := mustImport(t, pets)
	it := v.Items[0]
	m.blobs[blobKey(it.SHA256)] = bytes.Repeat([]byte("x"), int(it.Size))
	if _, err := ReadImage(t.Context(), m, it); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("other bytes: %v", err)
	}
	m.blobs[blobKey(it.SHA256)] = make([]byte, it.Size+1)
	if _, err := ReadImage(t.Context(), m, it); errs.Of(err) != errs.TooLarge {
		t.Errorf("more bytes: %v", err)
	}
	delete(m.blobs, blobKey(it.SHA256))
	if _, err := ReadImage(t.Context(), m, it); errs.Of(err) != errs.NotFound {
		t.Errorf("no bytes: %v", err)
	}
	m.blobs[ManifestKey("pets", v.Digest)] = []byte("{}")
	if _, err := Load(t.Context(), m, "pets", v.Digest); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("another manifest: %v", err)
	}
}

func TestAMalformedManifestIsRefused(t *testing.T) {
	sha := strings.Repeat("a", 64)
	for name, manifest := range map[string]string{
		"no JSON":            `{`,
		"another format":     `{"format":2}`,
		"a class not there":  `{"format":1,"items":[{"sha256":"` + sha + `","class":0,"split":"train"}]}`,
		"no class of some":   `{"format":1,"classes":[{}],"items":[{"sha256":"` + sha + `","class":-1,"split":"train"}]}`,
		"a negative class":   `{"format":1,"items":[{"sha256":"` + sha + `","class":-2,"split":"train"}]}`,
		"an unknown split":   `{"format":1,"classes":[{}],"items":[{"sha256":"` + sha + `","split":"dev"}]}`,
		"a path as a digest": `{"format":1,"classes":[{}],"items":[{"sha256":"../../x","split":"train"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			digest := sum([]byte(manifest))
			m.blobs[ManifestKey("pets", digest)] = []byte(manifest)
			if v, err := Load(t.Context(), m, "pets", digest); err == nil || errs.Of(err) == errs.Internal {
				t.Errorf("loaded as %+v, %v", v, err)
			}
		})
	}
	for _, id := range []string{"", "..", "a/b", strings.Repeat("x", 65)} {
		if _, err := Load(t.Context(), newMemory(), id, sha); errs.Of(err) != errs.Invalid {
			t.Errorf("name %q: %v", id, err)
		}
	}
	if _, err := Load(t.Context(), newMemory(), "pets", "latest"); errs.Of(err) != errs.Invalid {
		t.Errorf("a digest that is none: %v", err)
	}
}

func TestImportingAgainStoresNothingAgain(t *testing.T) {
	v, m := mustImport(t, pets)
	before := len(m.puts)
	again, err := ImportZip(context.Background(), m, "upload", options())
	if err != nil || again.Digest != v.Digest {
		t.Errorf("again: %s, %v; want %s", again.Digest, err, v.Digest)
	}
	if len(m.puts) != before {
		t.Errorf("put again: %v", m.puts[before:])
	}
}
