package inspect

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/foretoken/foretoken/internal/ort"
)

// startPeak gives unused memory back, makes the kernel forget the process's peak, and returns the memory it has now
// in bytes.
func startPeak() int64 {
	debug.FreeOSMemory()
	ort.Trim()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // where this is not allowed, the old peak counts
	return resident("VmRSS:")
}

// peakSince is how many bytes the process has grown by at most.
func peakSince(before int64) int64 { return resident("VmHWM:") - before }

// resident reads a line of the process's state, 0 where there is none.
func resident(line string) int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), line)
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0
	}
	return kib << 10
}
