package serving

import (
	"context"
	"sync"
)

// mailbox passes values from a batch to a request's own goroutine. Putting never waits, so that a
// slow client holds up nobody else in its batch.
type mailbox[T any] struct {
	mu     sync.Mutex
	values []T
	more   chan struct{} // has room for one: there are values
}

func newMailbox[T any]() *mailbox[T] { return &mailbox[T]{more: make(chan struct{}, 1)} }

func (m *mailbox[T]) put(v T) {
	m.mu.Lock()
	m.values = append(m.values, v)
	m.mu.Unlock()
	select {
	case m.more <- struct{}{}:
	default:
	}
}

// take waits for values, and takes all that are there.
func (m *mailbox[T]) take(ctx context.Context) ([]T, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-m.more:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	values := m.values
	m.values = nil
	return values, nil
}
