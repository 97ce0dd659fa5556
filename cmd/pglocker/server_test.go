package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// TestStandby: reading works and says so, and nothing else does.
func TestStandby(t *testing.T) {
	t.Parallel()

	server := contract.StartServer(t)
	ctx := t.Context()

	db := contract.Open(t, "pgx", server.URL())
	must(t, pglocker.MigrateDB(ctx, db, &pglocker.Config{}))
	must(t, pglocker.MigrateHistory(ctx, db, &pglocker.Config{}))

	locker, err := pglocker.New(db, &pglocker.Config{Owner: "primary"})
	must(t, err)

	status, err := locker.AcquireLock(ctx, "a", pglocker.MaxTTL)
	must(t, err)
	must(t, server.Shutdown(ctx, pgtesting.FastShutdown))
	must(t, os.WriteFile(filepath.Join(server.DataDir(), "standby.signal"), nil, 0o644))
	must(t, server.Start(ctx))

	b := newBedAt(t, server.URL())

	for _, args := range [][]string{{"ls"}, {"ls", "--held", "-o", "json"}, {"show", "a"}, {"history", "a"}, {"history", "a", "--at", "0s"}} {
		if o := b.fails(0, []string{"is a standby"}, args...); !strings.Contains(o.stdout, "primary#") {
			t.Errorf("%q prints:\n%s", args, o.stdout)
		}
	}

	if text := b.ok("migrate", "--history"); !strings.Contains(text, "is in place") {
		t.Errorf("a migration that is done: %s", text)
	}

	token := fmt.Sprint(status.Generation)
	b.fails(exitUnavailable, []string{"read-only", "primary"}, "free", "a", "--token", token, "--reason", "test", "--yes")
	b.fails(exitUnavailable, []string{"read-only", "primary"}, "prune", "--idle", "1d")

	b.env = append(b.env, "PGTARGETSESSIONATTRS=read-write")
	b.fails(exitUnavailable, []string{"can't connect", "read only"}, "ls")
}

// TestPooler: all of it works through a pooler in transaction mode.
func TestPooler(t *testing.T) {
	t.Parallel()

	direct := newBed(t)
	lock := direct.hold("a")
	pooled := newBedAt(t, contract.ThroughPgBouncer(t, direct.url))

	pooled.ok("migrate", "--history")

	if text := pooled.ok("show", "a"); !strings.Contains(text, "held") {
		t.Errorf("shown:\n%s", text)
	}

	pooled.ok("free", "a", "--token", fmt.Sprint(lock.Token()), "--reason", "test", "--yes")

	if text := pooled.ok("history", "a"); !strings.Contains(text, "forced") {
		t.Errorf("history:\n%s", text)
	}

	for range 10 { // each connection of the pooler has had another client
		if r := pooled.list(); len(r) != 1 || r[0].State != stateFree {
			t.Errorf("listed %+v", r)
		}
	}

	pooled.ok("prune", "--idle", "1d")
}

// TestPoolerWithOthers: no other client's statement runs in place of the command's.
func TestPoolerWithOthers(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	pooled := contract.ThroughPgBouncer(t, b.url)
	ctx, cancel := context.WithCancel(t.Context())

	var others sync.WaitGroup

	for range 6 {
		others.Go(func() {
			conn, err := pgx.Connect(ctx, pooled+"&default_query_exec_mode=exec")
			if err != nil {
				t.Error(err)

				return
			}
			defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it has ended

			for err == nil {
				_, err = conn.Exec(ctx, "SELECT 1")
			}
		})
	}

	a := &app{connection: connection{dsn: pooled}}

	db, err := a.open(ctx, "test")
	must(t, err)

	for range 200 {
		if _, err := serverNow(ctx, db); err != nil {
			t.Error(err)

			break
		}
	}

	must(t, db.Close())
	cancel()
	others.Wait()
}
