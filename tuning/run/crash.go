package run

import "os"

// crashPoint ends the process, as kill -9 would, at a named moment between two writes, where the
// environment asks for it: the test that kills workers needs moments that are too short to hit.
func crashPoint(name string) {
	if os.Getenv("FORETOKEN_CRASH_AT") == name {
		p, err := os.FindProcess(os.Getpid())
		if err == nil {
			_ = p.Kill()
		}
		select {}
	}
}
