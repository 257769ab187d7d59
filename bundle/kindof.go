package bundle

import (
	"io/fs"
	"os"

	"github.com/foretoken/foretoken/internal/errs"
)

// KindOf tells by its files' names what the bundle in dir is. It reads none of them.
func KindOf(dir string) (Kind, error) {
	b := &Bundle{Dir: dir}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b.Files = append(b.Files, File{Path: path})
		}
		return err
	})
	if err != nil {
		return 0, errs.New(errs.NotFound, "bundle: %w", err)
	}
	return b.Kind(), nil
}
