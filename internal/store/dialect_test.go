package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// lives takes a lock through its life, and several at once.
func lives(t *testing.T, s *store.Store) {
	t.Helper()

	ctx := t.Context()

	res, err := s.Claim(ctx, "a", "me", ttl, margin, store.Mark{For: time.Second, Signature: 1})
	if err != nil || res.Verdict != store.Granted || res.Row.Remaining() < ttl/2 {
		t.Fatalf("Claim: %+v, %v", res, err)
	}

	if res, err = s.Acquire(ctx, "a", "other", ttl, margin); err != nil || res.Verdict != store.Busy || res.Row.Owner != "me" {
		t.Errorf("Acquire of a held lock: %+v, %v", res, err)
	}

	states := grantMany(t, s, 5)

	var due []store.Renewal
	for i, state := range states {
		due = append(due, store.Renewal{LockID: fmt.Sprintf("%03d", i), Generation: state.Generation, TTL: 2 * ttl})
	}

	due = append(due, store.Renewal{LockID: "a", Generation: 1 << 60, TTL: ttl})

	results, _, err := s.Renew(ctx, due, nil)
	must(t, err)

	for i, r := range results {
		switch {
		case i == len(states) && r.State != store.RenewGone:
			t.Errorf("renewal under another generation: %+v", r)
		case i < len(states) && (r.State != store.Renewed || r.Lease < ttl+ttl/2):
			t.Errorf("renewal %d: %+v", i, r)
		}
	}

	for i, err := range releaseMany(ctx, s, states) {
		if err != nil {
			t.Errorf("release of %d: %v", i, err)
		}
	}

	if freed, err := s.GiveBack(ctx, []string{"a"}, []string{"me"}, true); err != nil || len(freed) != 1 {
		t.Errorf("GiveBack: %v, %v", freed, err)
	}

	if res, err = s.AcquireAll(ctx, []string{"a", "b"}, "all", ttl, margin, false); err != nil || res.Verdict != store.Granted || len(res.Grants) != 2 {
		t.Errorf("AcquireAll: %+v, %v", res, err)
	}

	if res, err = s.AcquireAll(ctx, []string{"a", "c"}, "others", ttl, margin, false); err != nil || res.Verdict != store.Busy || res.LockID != "a" {
		t.Errorf("AcquireAll beside a held lock: %+v, %v", res, err)
	}

	if res, err = s.Acquire(ctx, "c", "me", ttl, margin); err != nil || res.Verdict != store.Granted {
		t.Errorf("Acquire of what was not granted with others: %+v, %v", res, err)
	}
}

// TestDialectByServer: what the server refuses chooses the dialect, and what of it is left out.
func TestDialectByServer(t *testing.T) {
	t.Parallel()

	const plain = "locks use the plain dialect"

	for driver, want := range map[string]string{
		"pgx":                  "",
		"postgres":             "",
		contract.LikeCitus:     "tokens_survive_lossy_failovers=true passes_over_locked_rows=true commits_made_durable=true",
		contract.LikeYugabyte:  "tokens_survive_lossy_failovers=false passes_over_locked_rows=true commits_made_durable=true",
		contract.LikeCockroach: "tokens_survive_lossy_failovers=false passes_over_locked_rows=true commits_made_durable=true",
		contract.Poorest:       "tokens_survive_lossy_failovers=false passes_over_locked_rows=false commits_made_durable=false",
	} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()

			s, _ := newStore(t, driver)

			var (
				log bytes.Buffer
				mu  sync.Mutex
			)

			s.Log(slog.New(slog.NewTextHandler(locked{&mu, &log}, nil)))
			lives(t, s)

			if text := log.String(); strings.Contains(text, plain) != (want != "") || strings.Count(text, plain) > 1 || !strings.Contains(text, want) {
				t.Errorf("the log has %q, want %q", text, want)
			}
		})
	}
}

// TestDialectWithoutSettings: a server without set_config is asked without names and without settings.
func TestDialectWithoutSettings(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)

		contract.Exec(t, db, "ALTER FUNCTION pg_catalog.set_config(text, text, boolean) RENAME TO set_config_not")
		t.Cleanup(func() {
			_, err := db.ExecContext(context.WithoutCancel(t.Context()), "ALTER FUNCTION pg_catalog.set_config_not(text, text, boolean) RENAME TO set_config")
			must(t, err)
		})

		lives(t, s)
	})
}

// TestDialectAsked: the dialect that was asked for is spoken, whatever the server takes.
func TestDialectAsked(t *testing.T) {
	t.Parallel()

	s, _ := newStore(t, "pgx")
	s.Speak(store.DialectPlain)
	lives(t, s)

	if _, err := s.Prune(t.Context(), time.Hour); err == nil {
		t.Error("the plain dialect prunes")
	}

	s, _ = newStore(t, contract.LikeYugabyte)
	s.Speak(store.DialectFull)

	if s.Notifies() {
		t.Error("releases notify before the table was looked at")
	}

	_, err := s.Claim(t.Context(), "a", "me", ttl, margin, store.Mark{For: time.Second, Signature: 1})
	must(t, err)

	if !s.Notifies() {
		t.Error("the full dialect, asked for, is not spoken")
	}
}

// TestDialectNames: names are names in each dialect, whatever they look like.
func TestDialectNames(t *testing.T) {
	t.Parallel()

	odd := store.Table{Schema: `{ttl} s'"`, Name: `t{lock_id}"{table}$1 SET (x`}

	for _, driver := range []string{"pgx", "postgres", contract.LikeCitus, contract.LikeYugabyte} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()

			db := contract.Open(t, driver, newDatabase(t).String())
			must(t, store.Migrate(t.Context(), db, odd, nil))

			s := store.New(db, odd, nil)
			s.Speak(store.DialectPlain)
			lives(t, s)
		})
	}
}

// TestDialectWithoutPrivilege: a role that lacks a privilege is no server that lacks a feature. The full dialect
// goes on, and says what is lacking.
func TestDialectWithoutPrivilege(t *testing.T) {
	t.Parallel()

	u := newDatabase(t)
	admin := contract.Open(t, "pgx", u.String())
	must(t, store.Migrate(t.Context(), admin, table, nil))

	role := "narrow_" + strings.TrimPrefix(u.Path, "/")
	contract.Exec(t, admin, fmt.Sprintf(`CREATE ROLE %q`, role))
	contract.Exec(t, admin, fmt.Sprintf(`GRANT USAGE ON SCHEMA pglocker TO %q`, role))
	contract.Exec(t, admin, fmt.Sprintf(`GRANT INSERT, UPDATE, SELECT (lock_id, generation, expires_at, owner, acquired_at, contended_until)
		ON %s TO %q`, table, role))
	t.Cleanup(func() {
		for _, text := range []string{`DROP OWNED BY %q`, `DROP ROLE %q`} {
			_, err := admin.ExecContext(context.WithoutCancel(t.Context()), fmt.Sprintf(text, role))
			must(t, err)
		}
	})

	q := u.Query()
	q.Set("options", "-c role="+role)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")

	s := store.New(contract.Open(t, "pgx", u.String()), table, nil)

	for range 2 { // the shape is looked up again after the first refusal
		_, err := s.Acquire(t.Context(), "a", "me", ttl, margin)
		must(t, err)

		// Several in a statement need SELECT on the whole table.
		_, _, err = s.Renew(t.Context(), []store.Renewal{{LockID: "a", Generation: 2, TTL: ttl}}, nil)
		if !errors.Is(err, store.ErrPermissionDenied) {
			t.Errorf("Renew: %v, want ErrPermissionDenied", err)
		}
	}

	if !s.Notifies() {
		t.Error("the plain dialect is spoken to a server that takes the full one")
	}
}
