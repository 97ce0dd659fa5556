// Package pause has the random pauses of this library. Processes that fail together would
// otherwise try again together.
package pause

import (
	"context"
	"math/rand/v2"
	"time"
)

// Jitter returns a random duration between d and d less its nth part: between d/2 and d for
// n = 2. It returns d if that is zero or less.
func Jitter(d, n time.Duration) time.Duration { return d - rand.N(max(d/n, 0)+1) }

// Sleep waits for d and returns true, or returns false when ctx ends. It returns at once if d
// is zero or less.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
