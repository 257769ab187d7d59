//go:build unix

package process

import (
	"syscall"
	"time"
)

// Time is the processor time that the process has used: what work costs, however busy the machine is with other work.
func Time() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // for a bad address alone
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
