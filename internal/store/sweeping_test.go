package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestLockedTable: while somebody has the whole table locked for longer than the role waits,
// hundreds of callers are told so after a few waits, and not one after the other.
func TestLockedTable(t *testing.T) {
	t.Parallel()

	for _, setting := range []struct{ name, code string }{
		{"lock_timeout", "55P03"},
		{"statement_timeout", "57014"},
	} {
		t.Run(setting.name, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				const (
					callers = 400
					limit   = 300 * time.Millisecond
					most    = 30 * limit // it would be hundreds
				)

				url := newDatabase(t).String()
				admin := contract.Open(t, driver, url)
				must(t, store.Migrate(t.Context(), admin, table, nil))
				contract.Exec(t, admin, fmt.Sprintf(
					"DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET %s = %d', current_database()); END $$",
					setting.name, limit.Milliseconds()))

				s := store.New(contract.Open(t, driver, url), table, nil)
				grantMany(t, s, callers)

				tx, err := admin.BeginTx(t.Context(), nil)
				must(t, err)

				defer func() { must(t, tx.Rollback()) }()

				_, err = tx.ExecContext(t.Context(), "LOCK TABLE "+table.String())
				must(t, err)

				ctx, cancel := context.WithTimeout(t.Context(), most)
				defer cancel()

				var group sync.WaitGroup

				for i := range callers {
					group.Go(func() {
						_, err := s.Acquire(ctx, fmt.Sprintf("%03d", i), "me", ttl, margin)

						if code := codeOf(err); code != setting.code {
							t.Errorf("Acquire of %d: %v, want %s", i, err, setting.code)
						}
					})
				}

				group.Wait()
			})
		})
	}
}

// codeOf is the SQLSTATE of an error, "" if it has none.
func codeOf(err error) string {
	var (
		ofPgx *pgconn.PgError
		ofPq  interface{ SQLState() string }
	)

	switch {
	case errors.As(err, &ofPgx):
		return ofPgx.Code
	case errors.As(err, &ofPq):
		return ofPq.SQLState()
	}

	return ""
}

// TestRefusedAtBothEnds: rows that are refused cost the others nothing, even if they are the
// first and the last of a statement, and are refused for a reason that may hold for all.
func TestRefusedAtBothEnds(t *testing.T) {
	t.Parallel()

	for name, bad := range map[string]string{
		"the ends":           "'000', '100'",
		"also another":       "'000', '037', '100'",
		"beside the middle":  "'000', '049', '051', '100'",
		"but the first":      "'050', '100'",
		"neighbours as well": "'000', '001', '002', '098', '099', '100'",
	} {
		for _, state := range []string{"42501", "55P03", "57014", "42P01", "53400"} {
			t.Run(name+" "+state, func(t *testing.T) {
				t.Parallel()

				s, db := newStore(t, "pgx")
				refuse(t, db, state, "once", bad)

				var asked []*store.Asked

				for i := range 101 {
					id := fmt.Sprintf("%03d", i)
					_, err := s.Create(t.Context(), id)
					must(t, err)

					asked = append(asked, &store.Asked{ID: id, Owner: "me", TTL: ttl})
				}

				refused := make(map[string]bool)
				for _, id := range column[string](t, db, "SELECT lock_id FROM "+table.String()+" WHERE lock_id IN ("+bad+")") {
					refused[id] = true
				}

				must(t, store.AskTogether(t.Context(), s, "acquire", asked))

				for _, a := range asked {
					if a.Matched == refused[a.ID] || (codeOf(a.Err) == state) != refused[a.ID] {
						t.Errorf("%q: matched %t, %v, want refused %t", a.ID, a.Matched, a.Err, refused[a.ID])
					}
				}
			})
		}
	}
}
