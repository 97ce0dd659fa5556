package audit_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
)

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// TestAudit: every transition is written down as it was made, and nothing else is.
func TestAudit(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs a database")
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	server, err := pgtesting.StartServer(ctx, pgtesting.WithProgress(os.Stderr))
	must(t, err)
	t.Cleanup(func() { must(t, server.Stop()) })

	db, err := sql.Open("pgx", server.URL()+"&application_name=c1.1")
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })

	locker, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{Owner: "c1.1"})
	must(t, err)

	_, err = db.ExecContext(ctx, audit.SQL)
	must(t, err)

	created, err := locker.CreateLock(ctx, "a")
	must(t, err)
	granted, err := locker.AcquireLock(ctx, "a", time.Minute)
	must(t, err)

	// Neither a refusal nor a waiter's mark is a transition.
	if _, err := locker.AcquireLock(ctx, "a", time.Minute); err == nil {
		t.Fatal("granted twice")
	}

	if _, err := locker.TryLock(ctx, "a", time.Minute, pglocker.WithWait(50*time.Millisecond)); err == nil {
		t.Fatal("granted twice")
	}

	refreshed, err := locker.RefreshLock(ctx, granted, time.Hour)
	must(t, err)

	relocking, stop := context.WithCancel(ctx)
	relocked := make(chan error, 1)

	go func() { relocked <- locker.StartRelocker(relocking, refreshed, 2*time.Hour, time.Hour) }()

	for renewed := false; !renewed; {
		shown, err := locker.GetLockStatus(ctx, "a")
		must(t, err)

		renewed = shown.ExpiresAt.After(refreshed.ExpiresAt)
	}

	stop()
	must(t, <-relocked)

	// What is rolled back was never there.
	tx, err := db.BeginTx(ctx, nil)
	must(t, err)
	_, err = tx.ExecContext(ctx, `UPDATE pglocker.lock_statuses SET generation = 99`)
	must(t, err)
	must(t, tx.Rollback())

	_, err = db.ExecContext(ctx, `DELETE FROM pglocker.lock_statuses`)
	must(t, err)

	transitions, err := audit.Load(ctx, db)
	must(t, err)

	version := func(s *pglocker.LockStatus) audit.Version {
		v := audit.Version{Generation: s.Generation, Expires: s.ExpiresAt.UnixMicro(), Owner: s.Owner}
		if s.Owner != "" {
			v.Acquired = s.AcquiredAt.UnixMicro()
		}

		return v
	}

	wanted := []string{
		fmt.Sprint(audit.Version{}, version(created)),
		fmt.Sprint(version(created), version(granted)),
		fmt.Sprint(version(granted), version(refreshed)),
		"renewed", "released", "deleted",
	}

	if len(transitions) != len(wanted) {
		t.Fatalf("%d transitions: %v", len(transitions), transitions)
	}

	for i, tr := range transitions {
		if got := fmt.Sprint(tr.Old, tr.New); i < 3 && got != wanted[i] {
			t.Errorf("%d: %s, want %s", i, got, wanted[i])
		}

		if tr.App != "c1.1" || tr.Lock != "a" || i > 0 && tr.Old != transitions[i-1].New {
			t.Errorf("%d: %s", i, tr)
		}
	}

	// Without RealTimeSQL no transition has a moment, and with it the next has.
	if transitions[0].From != 0 {
		t.Errorf("%s has a moment", transitions[0])
	}

	_, err = db.ExecContext(ctx, audit.RealTimeSQL)
	must(t, err)

	before := history.Now()
	_, err = locker.CreateLock(ctx, "b")
	must(t, err)

	after := history.Now()
	timed, err := audit.Load(ctx, db)
	must(t, err)

	const step = int64(10 * time.Millisecond)
	if tr := timed[len(timed)-1]; tr.From < before-step || tr.From > tr.To-step || tr.To > after+step {
		t.Errorf("written down between %d and %d, and so says the audit: %d to %d", before, after, tr.From, tr.To)
	}

	// Each lease runs from a moment between the arrival of its statement and what was written
	// down after it.
	for i, ttl := range []time.Duration{time.Minute, time.Hour, 2 * time.Hour} {
		tr := transitions[i+1]
		if from := tr.New.Expires - ttl.Microseconds(); from < tr.Began || from > tr.At {
			t.Errorf("%s: its lease runs from %d", tr, from)
		}
	}

	if tr := transitions[3]; !tr.Renews() || tr.Grants() || tr.New.Expires <= tr.Old.Expires {
		t.Errorf("%s, want a renewal", tr)
	}

	if tr := transitions[4]; tr.Renews() || tr.Grants() || tr.New.Owner != "" || tr.New.Generation != refreshed.Generation+1 {
		t.Errorf("%s, want a release", tr)
	}

	if tr := transitions[5]; tr.New != (audit.Version{}) {
		t.Errorf("%s, want it deleted", tr)
	}

	if tr := transitions[1]; !tr.Grants() || tr.Renews() {
		t.Errorf("%s, want a grant", tr)
	}
}
