package graph_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheGuidesExamplesAreTheCode: each block of code that docs/graph.md says is in a file stands in that file.
func TestTheGuidesExamplesAreTheCode(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "docs", "graph.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?i)in `([a-z_/]+\\.go)`[^\n]*:\n\n((?:    [^\n]*\n|\n)+)").FindAllStringSubmatch(string(guide), -1)
	if len(examples) < 5 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, e := range examples {
		code, err := os.ReadFile(e[1])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(bare(string(code)), bare(e[2])) {
			t.Errorf("%s does not have\n%s", e[1], e[2])
		}
	}
}

// bare is text without white space.
func bare(s string) string { return strings.Join(strings.Fields(s), "") }
