package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/foretoken/foretoken"

// layers lists the rooms from the bottom up. A package may import rooms of lower
// layers and packages of its own room; rooms of one layer do not know each other.
var layers = [][]string{
	{"internal/errs", "internal/rng", "internal/process"},
	{"graph", "storage"},
	{"internal/ort", "internal/jobs", "internal/npz", "internal/fetch"},
	{"bundle", "dataset", "prompt"},
	{"vision", "text"},
	{"generation"},
	{"tuning"},
	{"serving"},
	{"api"},
	{"cmd/foretoken"},
}

// apart are rooms that may be used from anywhere above the bottom, or by tests alone.
var apart = []string{"starter", "internal/archtest"}

// soleImporter names the one room that may import a library.
var soleImporter = map[string]string{
	"github.com/yalue/onnxruntime_go":   "internal/ort",
	"github.com/gin-gonic/gin":          "api",
	"github.com/disintegration/imaging": "vision",
	"github.com/minio/minio-go/v7":      "storage",
	"github.com/riverqueue/river":       "internal/jobs",
	"github.com/dlclark/regexp2":        "text",
	"github.com/rivo/uniseg":            "text",
}

// unaware lists what a room must not know beyond what the layers forbid.
var unaware = map[string][]string{
	"internal/fetch": {"graph", "storage"},
	"graph":          {"internal/ort", "storage", "internal/rng"},
	"storage":        {"graph", "internal/ort"},
	"prompt":         {"internal/ort", "storage", "bundle"},
	"dataset":        {"internal/ort", "graph", "bundle"},
	"api":            {"graph", "internal/ort"},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImportsGoOneWay(t *testing.T) {
	level := map[string]int{}
	for i, rooms := range layers {
		for _, r := range rooms {
			level[r] = i
		}
	}
	for _, p := range list(t) {
		from := room(p.ImportPath)
		for _, imp := range p.Imports {
			checkLibrary(t, from, imp)
			to := room(imp)
			if to == "" || to == from || slices.Contains(apart, to) || slices.Contains(apart, from) {
				continue
			}
			lf, known := level[from]
			if !known {
				t.Errorf("room %q (package %s) is not in the layers; add it here and to docs/architecture.md", from, p.ImportPath)
				break
			}
			if lt, ok := level[to]; !ok || lt >= lf {
				t.Errorf("%s imports %s: rooms import only lower layers", p.ImportPath, imp)
			}
			if slices.Contains(unaware[from], to) {
				t.Errorf("%s imports %s: %s must not know %s", p.ImportPath, imp, from, to)
			}
		}
	}
}

func checkLibrary(t *testing.T, from, imp string) {
	t.Helper()
	for lib, owner := range soleImporter {
		if (imp == lib || strings.HasPrefix(imp, lib+"/")) && from != owner {
			t.Errorf("%s imports %s: only %s may", from, imp, owner)
		}
	}
}

// room maps an import path to its room, "" when it is not ours.
func room(path string) string {
	rel, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return ""
	}
	parts := strings.Split(rel, "/")
	if parts[0] == "internal" || parts[0] == "cmd" {
		return strings.Join(parts[:min(2, len(parts))], "/")
	}
	return parts[0]
}

// list returns the module's packages with their non-test imports.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}
