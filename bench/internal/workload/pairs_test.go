package workload

import (
	"context"
	"testing"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
)

// nothing is a client that takes no time, and allocates nothing but its releases.
type nothing struct {
	contender.Contender
	contender.Client
}

func (nothing) CPU() (time.Duration, bool) { return 0, false }

func (nothing) TryAcquire(_ context.Context, id string) (contender.Release, error) {
	return func(context.Context) error {
		if id == "" {
			return contender.ErrHeld
		}

		return nil
	}, nil
}

// TestOwnAllocations: what is counted as the client's allocations has none of the benchmark's.
func TestOwnAllocations(t *testing.T) {
	l := load{goroutines: 4, clients: 2, warmUp: 10 * time.Millisecond, slice: 300 * time.Millisecond, lock: ownLock}

	s, err := pairs(t.Context(), nothing{}, l, nothing{}, nothing{})
	if err != nil {
		t.Fatal(err)
	}

	if s.allocs < -0.5 || s.allocs > 0.5 {
		t.Errorf("a pair of nothing allocates %.2f objects", s.allocs)
	}
}
