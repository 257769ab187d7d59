package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// StatModel describes what path names, an ONNX file or a folder that may hold some.
func StatModel(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "model: %w: name an .onnx file or a folder that holds some", err)
	}
	return info, err
}

// ModelFiles lists the ONNX files that path stands for: itself, or those of a bundle's folder, in
// it and in its folder "onnx".
func ModelFiles(path string) ([]string, error) {
	info, err := StatModel(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	for _, pattern := range []string{"*.onnx", "onnx/*.onnx"} {
		found, err := filepath.Glob(filepath.Join(escapeGlob(path), filepath.FromSlash(pattern)))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, errs.New(errs.NotFound, "model: no .onnx file in %s or in its folder onnx", path)
	}
	slices.Sort(files)
	return files, nil
}

// escapeGlob takes the meaning out of a path's special characters.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
