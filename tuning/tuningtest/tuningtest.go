// Package tuningtest is what the tests of all trainers hold their steps against PyTorch's with.
package tuningtest

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Distance is ||(a - s) - (b - s)|| / ||b - s||: how far a is from b, in parts of how far b is from s.
func Distance(a, b, s []float32) float64 {
	if len(a) != len(b) {
		return math.NaN()
	}
	var difference, norm float64
	for i := range a {
		difference += float64(a[i]-b[i]) * float64(a[i]-b[i])
		norm += float64(b[i]-s[i]) * float64(b[i]-s[i])
	}
	return math.Sqrt(difference / norm)
}

// FailsWithAWrongGradient runs the package's tests of a name, as go test's -run takes it, with one gradient rule, softmax's,
// made 5 % too large. They have to fail, with the message in said. graph is the path of the package graph.
func FailsWithAWrongGradient(t *testing.T, graph, run, said string) {
	t.Helper()
	if testing.Short() {
		t.Skip("it compiles the test again")
	}
	source, err := filepath.Abs(filepath.Join(graph, "ops_nn.go"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const right = "func gradSoftmax(b *backward, n *Node) *Value {"
	if strings.Count(string(b), right) != 1 {
		t.Fatalf("%s has no %q to falsify", source, right)
	}
	wrong := strings.Replace(string(b), right, right+"\n\tx := rightSoftmax(b, n)\n\treturn b.Mul(x, b.Scalar(1.05, x))\n}\n\nfunc rightSoftmax(b *backward, n *Node) *Value {", 1)
	dir := t.TempDir()
	falsified, overlay := filepath.Join(dir, "wrong.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {source: falsified}})
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{falsified: []byte(wrong), overlay: replace} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-run", run, ".").CombinedOutput()
	if err == nil {
		t.Fatalf("it passes with a gradient that is 5 %% wrong:\n%s", out)
	}
	if !strings.Contains(string(out), said) {
		t.Fatalf("it failed for another reason:\n%s", out)
	}
}
