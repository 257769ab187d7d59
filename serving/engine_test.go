package serving

import (
	"context"
	"testing"
)

// TestBatchesWaitNoLongerForWhatArrived counts the requests that batches wait for.
func TestBatchesWaitNoLongerForWhatArrived(t *testing.T) {
	e := &Engine{}
	first, end := e.Expect(t.Context())
	_, endSecond := e.Expect(t.Context())
	for what, c := range []struct {
		do   func()
		left int64
	}{
		{func() {}, 2},
		{func() { Arrived(first) }, 1},
		{func() { Arrived(context.WithoutCancel(first)) }, 1}, // once
		{end, 1},
		{func() { Arrived(context.Background()) }, 1}, // which nobody expected
		{endSecond, 0},
	} {
		if c.do(); int64(e.coming.Load()) != c.left {
			t.Errorf("after step %d %d requests are waited for, want %d", what, e.coming.Load(), c.left)
		}
	}
}
