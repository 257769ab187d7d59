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

// news is what becomes of one of several requests: something on the way, or its end.
type news[S, A any] struct {
	request int // which
	step    S
	answer  *A // nil on the way
	err     error
}

// await collects the answers to n requests. step hears of what comes on the way, done, where it is set, of each answer; an
// error of theirs, of a request or of ctx ends the waiting.
func await[S, A any](ctx context.Context, box *mailbox[news[S, A]], n int, step func(request int, s S) error, done func(request int, a A) error) ([]A, error) {
	answers := make([]A, n)
	for left := n; left > 0; {
		all, err := box.take(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range all {
			err := m.err
			switch {
			case err != nil:
			case m.answer == nil:
				err = step(m.request, m.step)
			default:
				answers[m.request] = *m.answer
				left--
				if done != nil {
					err = done(m.request, *m.answer)
				}
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return answers, nil
}
