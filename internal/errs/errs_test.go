package errs

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestOfFindsTheOutermostKind(t *testing.T) {
	cause := errors.New("disk on fire")
	tests := []struct {
		name string
		err  error
		want Kind
	}{
		{"a bare error is internal", cause, Internal},
		{"a kind is kept through wrapping", fmt.Errorf("loading: %w", New(NotFound, "no bundle %q", "x")), NotFound},
		{"the outer kind wins", New(Unavailable, "storage: %w", New(NotFound, "gone")), Unavailable},
		{"a cancelled context is canceled", fmt.Errorf("run: %w", context.Canceled), Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Of(tt.err); got != tt.want {
				t.Errorf("Of(%v) = %v, want %v", tt.err, got, tt.want)
			}
		})
	}
	if !errors.Is(New(Invalid, "x: %w", cause), cause) {
		t.Error("the cause is not reachable through the kind")
	}
}

func TestEveryKindHasARow(t *testing.T) {
	for k := Internal; k <= Canceled; k++ {
		if k.String() == "" || k.HTTPStatus() < 400 || k.ExitCode() == 0 || Parse(k.String()) != k {
			t.Errorf("kind %d has an incomplete row", k)
		}
	}
}
