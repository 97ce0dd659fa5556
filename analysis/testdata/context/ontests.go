package context

import (
	"context"
	"testing"
	"time"
)

// Tests do these things on purpose.
func inATest(t *testing.T, j *jobs) {
	ctx := t.Context()

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error {
		time.Sleep(time.Second)

		return work(ctx)
	})

	_, _ = j.locker.TryLock(ctx, "a", time.Minute)
}
