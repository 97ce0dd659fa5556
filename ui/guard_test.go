package ui

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestGuarded: a long read goes on while the database answers, and ends soon after it has stopped to.
func TestGuarded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun, hangs := time.Now(), false

		ctx, stop := guarded(t.Context(), func(ctx context.Context) error {
			if !hangs {
				return nil
			}

			<-ctx.Done()

			return ctx.Err()
		})
		defer stop()

		time.Sleep(5*time.Minute + time.Second)

		if ctx.Err() != nil {
			t.Fatalf("it ended: %v", context.Cause(ctx))
		}

		hangs = true

		<-ctx.Done()

		if took := time.Since(begun) - 5*time.Minute; took > 2*askFor || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			t.Errorf("it ended after %s: %v", took, context.Cause(ctx))
		}
	})
}
