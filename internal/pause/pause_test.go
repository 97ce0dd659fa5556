package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/pause"
)

func TestJitter(t *testing.T) {
	t.Parallel()

	for _, test := range []struct{ d, n, shortest time.Duration }{
		{time.Second, 2, time.Second / 2},
		{time.Second, 10, time.Second * 9 / 10},
		{1, 2, 1},
		{0, 2, 0},
		{-time.Second, 2, -time.Second},
	} {
		for range 1000 {
			if got := pause.Jitter(test.d, test.n); got < test.shortest || got > test.d {
				t.Fatalf("Jitter(%s, %d) is %s, want %s to %s", test.d, test.n, got, test.shortest, test.d)
			}
		}
	}
}

func TestSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()

		for _, test := range []struct {
			d, took time.Duration
			want    bool
		}{
			{-1, 0, true},
			{40 * time.Second, 40 * time.Second, true},
			{40 * time.Second, time.Minute, false},
			{0, time.Minute, false},
		} {
			got := pause.Sleep(ctx, test.d)
			if took := time.Since(began); got != test.want || took != test.took {
				t.Errorf("Sleep(%s) is %t after %s, want %t after %s", test.d, got, took, test.want, test.took)
			}
		}
	})
}
