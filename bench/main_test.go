package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker/bench/internal/workload"
)

// TestOneFails: a workload that fails doesn't keep the next from running, and an interrupt does.
func TestOneFails(t *testing.T) {
	t.Parallel()

	var (
		ran         []string
		errBroken   = errors.New("broken")
		ctx, cancel = context.WithCancel(t.Context())
		b           = &workload.Bench{Say: func(string, ...any) {}}
	)

	one := func(name string, run func() error) workload.Workload {
		return workload.Workload{Name: name, Run: func(_ *workload.Bench, ctx context.Context) error {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Errorf("%s may run for ever", name)
			}

			ran = append(ran, name)

			return run()
		}}
	}

	failed := runAll(ctx, b, time.Now(), []workload.Workload{
		one("A", func() error { return errBroken }),
		one("B", func() error { return nil }),
		one("C", func() error {
			cancel()

			return ctx.Err()
		}),
		one("D", func() error { return nil }),
	})

	if len(failed) != 1 || !errors.Is(failed[0], errBroken) || failed[0].Error() != "A: broken" {
		t.Errorf("failed: %v", failed)
	}

	if len(ran) != 3 {
		t.Errorf("ran %v", ran)
	}
}
