package bundle

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/foretoken/foretoken/internal/errs"
)

// TextWidths are the lengths of the rows of the first and the second text encoder of the diffusers
// folder dir, as their config.json have them; the second is 0 where there is none. A folder of
// another kind is of kind [errs.Invalid].
func TextWidths(dir string) (first, second int, err error) {
	if _, err := os.Stat(filepath.Join(dir, indexFile)); err != nil {
		return 0, 0, errs.New(errs.Invalid, "bundle %s makes no images (it has no %s), so it takes no concepts, styles or negative prompts", filepath.Base(dir), indexFile)
	}
	if first, err = hiddenSize(filepath.Join(dir, "text_encoder", "config.json")); err != nil {
		return 0, 0, err
	}
	second, err = hiddenSize(filepath.Join(dir, "text_encoder_2", "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return first, 0, nil
	}
	return first, second, err
}

func hiddenSize(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, errs.New(errs.Invalid, "bundle: %w", err)
	}
	var config struct {
		HiddenSize int `json:"hidden_size"`
	}
	if err := json.Unmarshal(b, &config); err != nil || config.HiddenSize < 1 {
		return 0, errs.New(errs.Invalid, "bundle: %s says no hidden_size above 0 (%v)", path, err)
	}
	return config.HiddenSize, nil
}
