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

// TestClaimMeetsGrant: a claim that waited for the row while the lock was freed leaves its
// mark even so, and says that if another is granted the lock before it asks again. Whoever
// waits is told of the next release, and need not look until then.
func TestClaimMeetsGrant(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)

		if _, err := s.Acquire(t.Context(), "a", "holder", time.Hour, margin); err != nil {
			t.Fatal(err)
		}

		// The other is granted the lock right after the mark.
		for _, text := range []string{
			`CREATE FUNCTION another_is_faster() RETURNS trigger LANGUAGE plpgsql AS $$
			 BEGIN
			     UPDATE ` + table.String() + ` SET generation = generation + 1, owner = 'other',
			            expires_at = clock_timestamp() + interval '1 hour' WHERE lock_id = NEW.lock_id;
			     RETURN NULL;
			 END $$`,
			`CREATE TRIGGER another_is_faster AFTER UPDATE ON ` + table.String() + ` FOR EACH ROW
			 WHEN (OLD.contended_until IS DISTINCT FROM NEW.contended_until) EXECUTE FUNCTION another_is_faster()`,
		} {
			contract.Exec(t, db, text)
		}

		type claimed struct {
			store.Result
			err error
		}

		var (
			release = lockRow(t, db, "a")
			mark    = store.Mark{For: store.LongestMark, Signature: 7}
			done    = make(chan claimed, 1)
		)

		go func() {
			res, err := s.Claim(t.Context(), "a", "waiter", time.Hour, margin, mark)
			done <- claimed{res, err}
		}()

		awaitBlocked(t, db)

		if _, err := release.ExecContext(t.Context(), "UPDATE "+table.String()+
			" SET generation = generation + 1, owner = NULL, expires_at = clock_timestamp()"); err != nil {
			t.Fatal(err)
		}

		if err := release.Commit(); err != nil {
			t.Fatal(err)
		}

		got := contract.Receive(t, "the claim returns", done)
		if got.err != nil || got.Verdict != store.Busy || got.Row.Owner != "other" {
			t.Fatalf("%+v, %v, want busy for the other", got.Result, got.err)
		}

		if !got.Marked || store.SignatureOf(got.Row.ContendedUntil) != mark.Signature {
			t.Errorf("marked is %t, and the row shows the mark %s", got.Marked, got.Row.ContendedUntil)
		}

		stands := contract.Query[bool](t, db,
			"SELECT contended_until > clock_timestamp() + interval '5 s' FROM "+table.String())
		if !stands {
			t.Error("the mark doesn't stand")
		}
	})
}
