package store_test

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestMarksAndPolling: who polls shows that it is there, and doesn't end the mark of
// somebody who listens, nor make it last for ever.
func TestMarksAndPolling(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		const (
			modulus = store.MarkModulus * time.Microsecond
			polling = time.Microsecond
		)

		s, db := newStore(t, driver)

		if _, err := s.Acquire(t.Context(), "a", "holder", time.Hour, margin); err != nil {
			t.Fatal(err)
		}

		// marks returns for how long the mark stands then.
		marks := func(mark store.Mark) (before time.Time, stands time.Duration) {
			t.Helper()

			res, err := s.Claim(t.Context(), "a", "waiter", time.Hour, margin, mark)
			if err != nil || !res.Marked {
				t.Fatalf("%+v, %v", res, err)
			}

			if got := store.SignatureOf(res.Row.ContendedUntil); got != mark.Signature {
				t.Errorf("%+v is signed %d", mark, got)
			}

			return res.Mark, res.Row.ContendedUntil.Sub(res.Row.Now)
		}

		if _, stands := marks(store.Mark{For: polling, Signature: 7}); stands > 0 {
			t.Errorf("with nobody who listens, the mark of who polls stands for %s", stands)
		}

		before, stands := marks(store.Mark{For: store.LongestMark, Signature: 500_000})
		if stands > store.LongestMark || stands < store.LongestMark-modulus-time.Second {
			t.Errorf("a mark for %s stands for %s", store.LongestMark, stands)
		}

		if got := store.SignatureOf(before); got != 7 {
			t.Errorf("it finds a mark signed %d, want 7", got)
		}

		// Many who poll, before the one who listens renews its mark.
		const polls, step = 40, 648_567

		for n := range int64(polls) {
			stood, since := stands, time.Now()

			_, stands = marks(store.Mark{For: polling, Signature: n * step % store.MarkModulus})
			if stands < min(stood-time.Since(since)-100*time.Millisecond, store.LongestMark) || stands > store.LongestMark+modulus {
				t.Errorf("after the mark of one who polls, that of who listens stands for %s, and before for %s", stands, stood)
			}
		}

		if before, _ := marks(store.Mark{For: store.LongestMark, Signature: 5}); store.SignatureOf(before) != (polls-1)*step%store.MarkModulus {
			t.Errorf("who listens finds a mark signed %d, which isn't that of the last who polled", store.SignatureOf(before))
		}

		// A mark from before the clock was set back doesn't stay.
		contract.Exec(t, db, "UPDATE "+table.String()+" SET contended_until = clock_timestamp() + interval '1 hour'")

		if _, stands := marks(store.Mark{For: polling, Signature: 3}); stands > store.LongestMark+modulus {
			t.Errorf("a mark of an hour still stands for %s", stands)
		}
	})
}
