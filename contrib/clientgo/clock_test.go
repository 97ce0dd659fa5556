package pglockerclientgo

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/ismurov/pglocker"
)

// wallEarlier returns a time that differs from at by its wall clock alone. A clock that reads it is as far from it as one
// that is ahead is from at. The package time has no function for that.
func wallEarlier(t *testing.T, at time.Time, by time.Duration) time.Time {
	t.Helper()

	earlier := at.Add(-by)
	*(*int64)(unsafe.Add(unsafe.Pointer(&earlier), 8)) += int64(by) // the monotonic reading is the second word

	if earlier.Sub(at) != 0 || earlier.Round(0).Sub(at.Round(0)) != -by {
		t.Fatal("a time isn't what this test takes it for")
	}

	return earlier
}

func TestLeft(t *testing.T) {
	t.Parallel()

	now := time.Now()
	until := now.Add(time.Minute)

	for what, c := range map[string]struct {
		until time.Time
		want  time.Duration
	}{
		"both clocks agree":           {until, time.Minute},
		"the machine slept":           {wallEarlier(t, until, time.Hour), time.Minute - time.Hour},
		"the wall clock was set back": {wallEarlier(t, until, -time.Hour), time.Minute},
	} {
		if got := left(now, c.until); got != c.want {
			t.Errorf("%s: %s are left instead of %s", what, got, c.want)
		}
	}
}

// TestTheMachineSleeps: the monotonic clock has stood still, the lease has ended.
func TestTheMachineSleeps(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var l Lock

		run := l.UntilLost(t.Context())
		l.held.granted(&pglocker.LockStatus{Owner: "a#1.1", Generation: 1}, time.Now().Add(time.Hour), true)

		time.Sleep(10 * time.Minute)
		synctest.Wait()

		if run.Err() != nil {
			t.Fatal("while the lease can be trusted: ", context.Cause(run))
		}

		l.held.mu.Lock()
		l.held.until = l.held.until.Add(-time.Hour) // fake time has a wall clock alone
		l.held.mu.Unlock()

		woke := time.Now()
		<-run.Done()

		if took := time.Since(woke); took > clockCheck {
			t.Errorf("it led for %s after its machine woke", took)
		}

		if cause := context.Cause(run); !errors.Is(cause, pglocker.ErrLockLost) {
			t.Errorf("the context of a run whose machine slept: %v", cause)
		}
	})
}

// TestARestoredTable: its generations are smaller than that of the lease. They are believed when the term is over.
func TestARestoredTable(t *testing.T) {
	t.Parallel()

	var h held

	h.granted(&pglocker.LockStatus{Owner: "a#1.5", Generation: 5}, time.Now().Add(time.Hour), true)

	restored := &pglocker.LockStatus{Owner: "b#1.3", Generation: 3}
	if shown, ours := h.see(restored); !ours || shown.Generation != 5 {
		t.Errorf("during the term: %+v, %t", shown, ours)
	}

	h.until = time.Now()

	if shown, ours := h.see(restored); ours || shown != restored || h.lease() != nil {
		t.Errorf("after the term: %+v, %t, and the lease is %+v", shown, ours, h.lease())
	}
}
