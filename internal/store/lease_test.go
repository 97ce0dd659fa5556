package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestLease: a grant and a renewal tell how long the row shows the lease: what was asked for,
// also if the statement waited for the row, unless a trigger cut it.
func TestLease(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()

		const cut = 5 * time.Second

		contract.Exec(t, db, fmt.Sprintf(`CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				NEW.expires_at := least(NEW.expires_at, clock_timestamp() + interval '%d s');
				RETURN NEW;
			END $$`, int(cut.Seconds())))
		addTrigger(t, db, "cut", "BEFORE INSERT OR UPDATE", "WHEN (NEW.lock_id LIKE 'cut%') EXECUTE FUNCTION cut()")

		for verb, grant := range map[string]func(id string) (store.Result, error){
			"acquire": func(id string) (store.Result, error) { return s.Acquire(ctx, id, "me", ttl, margin) },
			"claim": func(id string) (store.Result, error) {
				return s.Claim(ctx, id, "me", ttl, margin, store.Mark{For: ttl})
			},
			"refresh": func(id string) (store.Result, error) {
				return s.Refresh(ctx, id, store.State{Generation: 1}, "me", ttl, margin)
			},
			"hand-over": func(id string) (store.Result, error) { return s.HandOver(ctx, id, 1, "me", ttl, margin) },
		} {
			for _, id := range []string{"cut, " + verb, "whole, " + verb} {
				if _, err := s.Create(ctx, id); err != nil {
					t.Fatal(err)
				}

				stranger := lockRow(t, db, id)

				type granted struct {
					store.Result
					err error
				}

				done := make(chan granted, 1)

				go func() {
					res, err := grant(id)
					done <- granted{res, err}
				}()

				awaitBlocked(t, db)
				time.Sleep(50 * time.Millisecond) // which the statement waits for the row

				if err := stranger.Rollback(); err != nil {
					t.Fatal(err)
				}

				got := contract.Receive(t, verb, done)
				if got.err != nil || got.Verdict != store.Granted {
					t.Fatalf("%s: %+v, %v", verb, got.Result, got.err)
				}

				want := ttl
				if strings.HasPrefix(id, "cut") {
					want = cut
				}

				if lease := got.Lease(); lease < want || lease > want+10*time.Second {
					t.Errorf("%s: the row shows a lease of %s, want %s", id, lease, want)
				}

				renewed, _, err := s.Renew(ctx, []store.Renewal{{LockID: id, Generation: got.Row.Generation, TTL: ttl}}, nil)
				if err != nil || renewed[0].State != store.Renewed || renewed[0].Lease < want || renewed[0].Lease > want+10*time.Second {
					t.Errorf("%s: renewed %+v, %v, want %s", id, renewed, err, want)
				}
			}
		}
	})
}

// TestDivides: what may be due to one of several renewals.
func TestDivides(t *testing.T) {
	t.Parallel()

	for code, want := range map[string]bool{
		"P0001": true, "23514": true, "42501": true, "40001": true, "40P01": true, "55P03": true, "57014": true,
		"54000": true, "58030": true, "XX000": true, "XX001": true, "XX002": true, "22008": true,
		"08006": false, "25006": false, "26000": false, "42P05": false, "28000": false, "3D000": false, "42703": false,
		"42P01": false, "53100": false, "53300": false, "57P01": false, "57P03": false,
	} {
		if got := store.Divides(fmt.Errorf("a renewal: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s divides: %t, want %t", code, got, want)
		}
	}

	if store.Divides(errors.New("a broken network")) {
		t.Error("an error that is none of the server's divides")
	}
}
