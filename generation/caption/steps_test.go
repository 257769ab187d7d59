package caption

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/foretoken/foretoken/internal/process"
)

// TestCaptionSteps makes texts when it is told to on standard input, beside PyTorch: bench/reference/captions.py runs it.
func TestCaptionSteps(t *testing.T) {
	dir := os.Getenv("FORETOKEN_BENCH_CAPTIONER")
	if dir == "" {
		t.Skip("FORETOKEN_BENCH_CAPTIONER names no bundle: `bench/reference/captions.py` does")
	}
	m := open(t, dir)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var step struct{ Rows, Beams int }
		if err := json.Unmarshal(lines.Bytes(), &step); err != nil {
			t.Fatal(err)
		}
		rs := starterBatch(m, step.Rows, step.Beams)
		start := process.Time()
		if _, err := m.Generate(t.Context(), rs); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("{\"seconds\": %g}\n", (process.Time() - start).Seconds())
	}
}
