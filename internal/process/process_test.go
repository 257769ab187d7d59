package process

import (
	"runtime"
	"testing"
)

func TestTheProcessTellsWhatItUses(t *testing.T) {
	before := Time()
	x := make([]byte, 64<<20)
	for i := range x {
		x[i] = byte(i)
	}
	if Time() <= before {
		t.Error("writing 64 MB took no time")
	}
	if runtime.GOOS != "linux" {
		return
	}
	now, err := Memory()
	if err != nil || now < int64(len(x)) {
		t.Errorf("memory %d, %v, with %d bytes in use", now, err, len(x))
	}
	peak, err := PeakMemory()
	if err != nil || peak < now {
		t.Errorf("peak %d, %v, memory %d", peak, err, now)
	}
	runtime.KeepAlive(x)
}
