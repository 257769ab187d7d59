//go:build unix

package graph_test

import (
	"syscall"
	"time"
)

// clock is the processor time that this process has used: what work costs, however busy the
// machine is with other work.
func clock() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
