package faulttest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestOneRenewalRefused: the server refuses to renew one lock of twenty. That one is lost, and
// says what the server said; the others are kept.
func TestOneRenewalRefused(t *testing.T) {
	t.Parallel()

	const ttl = 4 * time.Second

	refusal := func(code string) string {
		return fmt.Sprintf(`CREATE FUNCTION pglocker.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = '%s'; END $$;
			CREATE TRIGGER refuse BEFORE UPDATE ON pglocker.lock_statuses FOR EACH ROW
			WHEN (NEW.lock_id = 'lock 07') EXECUTE FUNCTION pglocker.refuse()`, code)
	}

	for name, test := range map[string]struct{ refuse, says string }{
		"trigger":         {refusal("P0001"), "not this one"},
		"limit":           {refusal("54000"), "not this one"},
		"corrupt page":    {refusal("XX001"), "not this one"},
		"unreadable page": {refusal("58030"), "not this one"},
		"serialization":   {refusal("40001"), "not this one"},
		"deadlock":        {refusal("40P01"), "not this one"},
		"lock timeout":    {refusal("55P03"), "not this one"},
		"permission":      {refusal("42501"), "not this one"},
		"check":           {"ALTER TABLE pglocker.lock_statuses ADD CHECK (lock_id <> 'lock 07') NOT VALID", "violates check constraint"},
		"statement timeout": {`CREATE FUNCTION pglocker.hang() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
			CREATE TRIGGER hang BEFORE UPDATE ON pglocker.lock_statuses FOR EACH ROW
			WHEN (NEW.lock_id = 'lock 07') EXECUTE FUNCTION pglocker.hang()`, "statement timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			contract.EachDriver(t, func(t *testing.T, driver string) {
				t.Parallel()

				url := contract.NewDatabase(t)
				direct := contract.Open(t, "pgx", url)

				if name == "statement timeout" {
					url += "&statement_timeout=200"
				}

				locker := contract.NewLocker(t, driver, url)

				var locks []*pglocker.Lock

				for i := range 20 {
					lock, err := locker.TryLock(t.Context(), fmt.Sprintf("lock %02d", i), ttl)
					contract.Must(t, err)

					locks = append(locks, lock)
				}

				for _, text := range strings.SplitAfter(test.refuse, "$$;") {
					contract.Exec(t, direct, text)
				}

				culprit := locks[7]

				<-culprit.Context().Done()

				cause := context.Cause(culprit.Context())
				if !errors.Is(cause, pglocker.ErrLockLost) || !strings.Contains(cause.Error(), test.says) {
					t.Errorf("lost for %v, want %q", cause, test.says)
				}

				if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
					t.Errorf("lost for the end of a context: %v", cause)
				}

				ended := contract.Now(t, direct)

				for i, lock := range locks {
					if i == 7 {
						continue
					}

					// A lock that isn't renewed is lost before that, or its lease is over.
					contract.Await(t, "a renewal after the loss", func() bool {
						return lock.Context().Err() != nil || lock.Status().ExpiresAt.After(ended.Add(ttl))
					})

					if err := context.Cause(lock.Context()); err != nil {
						t.Errorf("lock %d: %v", i, err)
					} else if err := lock.Unlock(t.Context()); err != nil {
						t.Errorf("lock %d: %v", i, err)
					}
				}
			})
		})
	}
}
