package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestInfinity: a row that says 'infinity', by which an operator may block a lock, is
// held, and one that says '-infinity', as a migration may make it, is free, with each
// driver and in each time zone.
func TestInfinity(t *testing.T) {
	t.Parallel()

	for _, driver := range []string{"pgx", "pgx, as text", "postgres", contract.Traced, contract.Opaque} {
		for _, columns := range []string{"six columns", "three columns"} {
			for _, zone := range []string{"UTC", "America/New_York", "Pacific/Kiritimati"} {
				t.Run(driver+", "+columns+", "+zone, func(t *testing.T) {
					t.Parallel()

					u := newDatabase(t)
					q := u.Query()
					q.Set("timezone", zone)

					driver, text := strings.CutSuffix(driver, ", as text")
					if text {
						q.Set("default_query_exec_mode", "simple_protocol")
					}

					u.RawQuery = q.Encode()

					testInfinity(t, driver, u.String(), columns == "six columns")
				})
			}
		}
	}
}

func testInfinity(t *testing.T, driver, url string, full bool) {
	ctx := t.Context()
	db := contract.Open(t, driver, url)

	if err := store.Migrate(ctx, db, table, nil); err != nil {
		t.Fatal(err)
	}

	if !full {
		contract.Exec(t, db, "ALTER TABLE "+table.String()+
			" DROP COLUMN owner, DROP COLUMN acquired_at, DROP COLUMN contended_until")
	}

	s := store.New(db, table, nil)

	held, err := s.Acquire(ctx, "a", "me", ttl, margin)
	if err != nil {
		t.Fatal(err)
	}

	contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = 'infinity'")

	isHeld := func(what string, row store.Row) {
		t.Helper()

		if want := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC); row.ExpiresAt != want || !row.Held() ||
			row.Generation != held.Row.Generation {
			t.Errorf("%s: %+v, want it held until %s", what, row, want)
		}

		if left := row.Remaining(); left < 100*365*24*time.Hour || left+time.Hour < left {
			t.Errorf("%s: %s remain, want a lot and no overflow", what, left)
		}
	}

	res, err := s.Acquire(ctx, "a", "you", ttl, margin)
	if err != nil || res.Verdict != store.Busy {
		t.Fatalf("Acquire of what is held for ever: %+v, %v", res, err)
	}

	isHeld("Acquire", res.Row)

	for _, mark := range []time.Duration{time.Second, 0} {
		res, err = s.Claim(ctx, "a", "you", ttl, margin, store.Mark{For: mark})
		if err != nil || res.Verdict != store.Busy || res.Marked != (full && mark > 0) {
			t.Fatalf("Claim of what is held for ever: %+v, %v", res, err)
		}

		isHeld("Claim", res.Row)
	}

	together := &store.Asked{ID: "a"}
	if err := store.AskTogether(ctx, s, "get", []*store.Asked{together}); err != nil || !together.Matched {
		t.Fatalf("together: %+v, %v", together, err)
	}

	isHeld("together", together.Row)

	renewed, _, err := s.Renew(ctx, []store.Renewal{{LockID: "a", Generation: held.Row.Generation, TTL: ttl}}, nil)
	if err != nil || renewed[0].State != store.Renewed || renewed[0].ExpiresAt.Year() != 9999 {
		t.Errorf("Renew of what is held for ever: %+v, %v", renewed, err)
	}

	contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = '-infinity'")

	if res, err = s.Get(ctx, "a"); err != nil || res.Row.ExpiresAt != (time.Time{}) || res.Row.Held() || res.Row.Remaining() > 0 {
		t.Errorf("Get of what was never held: %+v, %v", res, err)
	}

	if res, err = s.Acquire(ctx, "a", "you", ttl, margin); err != nil || res.Verdict != store.Granted {
		t.Errorf("Acquire of what was never held: %+v, %v", res, err)
	}
}
