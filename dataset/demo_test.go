package dataset_test

import (
	"archive/zip"
	"bytes"
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/starter"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/vision"
)

func decode(_ context.Context, image []byte) (width, height int, err error) {
	img, err := vision.Decode(bytes.NewReader(image), vision.Limits{})
	if err != nil {
		return 0, 0, err
	}
	return img.Rect.Dx(), img.Rect.Dy(), nil
}

// unzip unpacks b into a new folder, counts images by split and class, and those that are
// in two splits.
func unzip(t *testing.T, b []byte) (dir string, images map[string]int, leaks int) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	dir, images = t.TempDir(), map[string]int{}
	split := map[string]string{} // by content
	for _, f := range z.File {
		content, err := fs.ReadFile(z, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if path.Ext(f.Name) == ".png" {
			images[path.Dir(f.Name)]++
			in, _, _ := strings.Cut(f.Name, "/")
			switch before := split[string(content)]; before {
			case "", in:
			case "both":
				in = "both"
			default:
				in = "both"
				leaks++
			}
			split[string(content)] = in
		}
	}
	return dir, images, leaks
}

func TestTheDemosZipsAreImported(t *testing.T) {
	for _, tt := range []struct {
		zip   string
		class dataset.Class
		size  int // pixels a side
	}{
		{"fashion.zip", dataset.Class{Folder: "ankle_boot", Name: "ankle boot"}, 28},
		{"openmoji.zip", dataset.Class{Folder: "animal_mammal", Name: "animal mammal"}, 112},
	} {
		t.Run(tt.zip, func(t *testing.T) {
			b, err := starter.Demo.ReadFile("demo/" + tt.zip)
			if err != nil {
				t.Fatal(err)
			}
			objs := dataset.NewMemory()
			if _, err := objs.Put(t.Context(), "uploads/1", bytes.NewReader(b), int64(len(b)), storage.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			o := dataset.ImportOptions{ID: "demo", Check: decode}
			v, err := dataset.ImportZip(t.Context(), objs, "uploads/1", o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(v.Classes, tt.class) || len(v.Skipped) > 0 || v.Ignored != 1 {
				t.Errorf("classes %v, skipped %v, ignored %d", v.Classes, v.Skipped, v.Ignored)
			}
			dir, images, leaks := unzip(t, b)
			if len(v.Leaks) != leaks {
				t.Errorf("%d leaks, want %d: %v", len(v.Leaks), leaks, v.Leaks)
			}
			for i, n := range v.Counts() {
				folder := v.Classes[i].Folder
				if n.Train == 0 || n.Train != images["train/"+folder] || n.Test != images["test/"+folder] || n.Validation != 0 {
					t.Errorf("%s: %+v of %v", folder, n, images)
				}
			}
			if it := v.Items[0]; it.Width != tt.size || it.Height != tt.size {
				t.Errorf("%+v is not %d pixels wide and high", it, tt.size)
			}
			same, err := dataset.ImportDir(t.Context(), objs, dir, o)
			if err != nil || same.Digest != v.Digest {
				t.Errorf("the folder's version is %+v, %v", same, err)
			}
			loaded, err := dataset.Load(t.Context(), objs, "demo", v.Digest)
			if err != nil || loaded.FewShot(16, 1).Hash != v.FewShot(16, 1).Hash {
				t.Errorf("loaded %+v, %v", loaded, err)
			}
		})
	}
}
