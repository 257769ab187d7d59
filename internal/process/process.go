// Package process tells what this process has used of the machine.
package process

import (
	"fmt"
	"os"
	"strings"
)

// PeakMemory is the most memory in bytes that the process has had, itself alone: what getrusage says counts the parent's
// as well. Only Linux tells.
func PeakMemory() (int64, error) { return status("VmHWM:") }

// Memory is what it has now, in bytes. Only Linux tells.
func Memory() (int64, error) { return status("VmRSS:") }

// status reads a line of the process's state (proc_pid_status(5)), in kibibytes, as bytes.
func status(key string) (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), key)
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, fmt.Errorf("/proc/self/status: %s %w", key, err)
	}
	return kib << 10, nil
}
