//go:build !unix

package process

import "time"

var began = time.Now()

// Time is how long the process has run, on systems that don't tell its processor time.
func Time() time.Duration { return time.Since(began) }
