package caption

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"
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
		start := processorTime(t)
		if _, err := m.Generate(t.Context(), rs); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("{\"seconds\": %g}\n", (processorTime(t) - start).Seconds())
	}
}

// processorTime is what the process has used of the processor.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
