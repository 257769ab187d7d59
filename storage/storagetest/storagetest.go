// Package storagetest builds the embedded S3 server for the tests of other packages.
package storagetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// Binary is the embedded server's path: the one that FORETOKEN_S3_BIN names, else one that is
// built, once for each process.
var Binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("FORETOKEN_S3_BIN"); path != "" {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("the folder of the server's source is not known")
	}
	dir, err := os.MkdirTemp("", "foretoken-s3")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "foretoken-s3")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = filepath.Join(filepath.Dir(here), "..", "s3server")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the embedded S3 server: %w: %s", err, out)
	}
	return path, nil
})
