package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestErrorAfterTheCommit: an error that comes in place of the reply to a statement that was
// committed, as a pooler reports it or a session that is ended, is no refusal. Each
// caller is told in the end of the grant that it has, alone or in a batch.
func TestErrorAfterTheCommit(t *testing.T) {
	t.Parallel()

	for _, forged := range []contract.Forged{
		{Severity: "FATAL", Code: "XX000", Message: "connection to the server was lost"},
		{Severity: "ERROR", Code: "XX000", Message: "connection to the server was lost", Stays: true},
		{Severity: "FATAL", Translated: "SCHWERWIEGEND", Code: "53200", Message: "Speicher aufgebraucht"},
		{Severity: "FATAL", Code: "25P04", Message: "terminating connection due to transaction timeout"},
		{Severity: "PANIC", Code: "53100", Message: "could not write to file"},
		{Severity: "FATAL", Code: "53300", Message: "too many", Stays: true},
	} {
		name := fmt.Sprintf("%s %s stays=%t", forged.Severity, forged.Code, forged.Stays)

		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				const locks = 64

				databaseURL := newDatabase(t).String()
				if err := store.Migrate(t.Context(), contract.Open(t, driver, databaseURL), table, nil); err != nil {
					t.Fatal(err)
				}

				forger, url := contract.NewForger(t, databaseURL)
				s := store.New(contract.Open(t, driver, url), table, nil)

				for i := range locks {
					if _, err := s.Create(t.Context(), fmt.Sprint(i)); err != nil {
						t.Fatal(err)
					}
				}

				// One reply to a request alone, and one to a batch.
				var alone, batch bool

				forger.OnCommit(func(tag string) *contract.Forged {
					done := &batch
					if tag == "UPDATE 1" {
						done = &alone
					}

					if *done {
						return nil
					}

					*done = true

					return &forged
				})

				var callers sync.WaitGroup

				for i := range locks {
					callers.Go(func() {
						owner := fmt.Sprint("me ", i)

						res, err := s.Acquire(t.Context(), fmt.Sprint(i), owner, ttl, margin)
						if err != nil || res.Verdict != store.Granted || res.Row.Owner != owner {
							t.Errorf("Acquire: %+v, %v, want it granted", res, err)
						}
					})
				}

				callers.Wait()

				if n := forger.Count(); n == 0 {
					t.Error("nothing was forged")
				}

				// A release that was carried out is settled as well.
				alone = false

				seen, err := s.Get(t.Context(), "0")
				if err != nil {
					t.Fatal(err)
				}

				_, err = s.Release(t.Context(), "0", store.State{Generation: seen.Row.Generation}, 0)
				if err != nil && !errors.Is(err, store.ErrUnknownOutcome) {
					t.Errorf("Release: %v, want success or ErrUnknownOutcome", err)
				}
			})
		})
	}
}

// TestRefreshesByAStatusAreSettled: refreshes that go by the status of a free lock share a
// statement whose reply is lost, and then the one that settles them.
func TestRefreshesByAStatusAreSettled(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		const locks = 16

		databaseURL := newDatabase(t).String()
		if err := store.Migrate(t.Context(), contract.Open(t, driver, databaseURL), table, nil); err != nil {
			t.Fatal(err)
		}

		forger, url := contract.NewForger(t, databaseURL)
		s := store.New(contract.Open(t, driver, url), table, nil)

		var states [locks]store.State

		for i := range states {
			row, err := s.Create(t.Context(), fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}

			states[i] = store.State{Generation: row.Generation, Until: row.ExpiresAt}
		}

		var forgedBatch bool

		forger.OnCommit(func(tag string) *contract.Forged {
			if tag == "UPDATE 1" || forgedBatch {
				return nil
			}

			forgedBatch = true

			return &contract.Forged{Severity: "FATAL", Code: "XX000", Message: "connection to the server was lost"}
		})

		var callers sync.WaitGroup

		for i, state := range states {
			callers.Go(func() {
				owner := fmt.Sprint("me ", i)

				res, err := s.Refresh(t.Context(), fmt.Sprint(i), state, owner, ttl, margin)
				if err != nil || res.Verdict != store.Granted || res.Row.Owner != owner {
					t.Errorf("Refresh: %+v, %v, want it granted", res, err)
				}
			})
		}

		callers.Wait()

		if forger.Count() == 0 {
			t.Error("nothing was forged")
		}
	})
}
