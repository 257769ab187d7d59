package api

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenAIsClientsInOtherLanguages has OpenAI's own clients for Python and Node speak to the
// service. `make test` installs them into .cache/clients; without them it skips aloud, and with
// CI=true that is an error.
func TestOpenAIsClientsInOtherLanguages(t *testing.T) {
	s := start(t, nil)
	s.upload(t, "emoji", demoZip(t, "openmoji", 2, 1))
	s.tune(t, "emoji", "coop", "p")
	s.addGenerators(t)
	image := filepath.Join(t.TempDir(), "image.png")
	check(t, os.WriteFile(image, sampleImage(t, "openmoji_animal_mammal.png"), 0o600))
	installed := must(filepath.Abs("../.cache/clients"))(t)
	scripts := must(filepath.Abs("testdata/clients"))(t)
	tests := []struct{ language, dir, program, script, library string }{
		{"Python", installed, filepath.Join(installed, "python/bin/python"), "client.py", filepath.Join(installed, "python/lib/python*/site-packages/openai")},
		{"Node", filepath.Join(installed, "node"), "node", "client.mjs", filepath.Join(installed, "node/node_modules/openai")},
	}
	for _, tt := range tests {
		t.Run(tt.language, func(t *testing.T) {
			if found, _ := filepath.Glob(tt.library); len(found) == 0 {
				const remedy = "it is not installed: run scripts/setup-clients.sh"
				if os.Getenv("CI") == "true" {
					t.Fatal(remedy)
				}
				t.Skip("OPENAI'S CLIENT IS NOT TESTED: " + remedy)
			}
			cmd := exec.CommandContext(t.Context(), tt.program, filepath.Join(scripts, tt.script), s.URL+"/v1", s.key, "p", image)
			cmd.Dir = tt.dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Log(strings.TrimSpace(string(out)))
		})
	}
}
