package inspect

import (
	"os"
	"runtime/debug"

	"github.com/foretoken/foretoken/internal/ort"
	"github.com/foretoken/foretoken/internal/process"
)

// startPeak gives unused memory back, makes the kernel forget the process's peak, and returns the memory it has now
// in bytes.
func startPeak() int64 {
	debug.FreeOSMemory()
	ort.Trim()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // where this is not allowed, the old peak counts
	now, _ := process.Memory()                                // 0 where it isn't told
	return now
}

// peakSince is how many bytes the process has grown by at most.
func peakSince(before int64) int64 {
	peak, _ := process.PeakMemory()
	return peak - before
}
