package main

import (
	"testing"
)

func TestPrune(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.hold("held")
	b.expire("expired") // an hour ago
	b.create("fresh")
	b.exec("INSERT INTO pglocker.lock_statuses SELECT 'old' || i, 2, clock_timestamp() - interval '100 days' FROM generate_series(1, 3) AS i")
	b.exec("INSERT INTO pglocker.lock_statuses VALUES ('pglocker:semaphore:s:1', 2, clock_timestamp() - interval '100 days'), " +
		"('pglocker:election:e', 2, clock_timestamp() - interval '100 days')")

	b.fails(exitUsage, []string{"idle"}, "prune")
	b.fails(exitUsage, []string{"invalid duration", "90d"}, "prune", "--idle", "90")
	b.fails(exitUsage, []string{"--idle"}, "prune", "--idle", "-1d")
	b.fails(exitUsage, []string{"dry-run", "history"}, "prune", "--idle", "1d", "--dry-run", "--history", "1d")

	if p := decode[pruned](t, b.ok("prune", "--idle", "90d", "--dry-run", "-o", "json")); !p.DryRun || p.Locks != 4 || p.Events != nil {
		t.Errorf("dry run: %+v", p)
	}

	if n := len(b.list()); n != 8 {
		t.Fatalf("%d locks after a dry run, want 8", n)
	}

	if text := b.ok("prune", "--idle", "90d"); text != "deleted 4 locks\n" {
		t.Errorf("it says %q", text)
	}

	// Deletions and grants are events. Those of now stay.
	if p := decode[pruned](t, b.ok("prune", "--idle", "30m", "--history", "1d", "-o", "json")); p.DryRun || p.Locks != 1 || p.Events == nil || *p.Events != 0 {
		t.Errorf("pruned: %+v", p)
	}

	if text := b.ok("prune", "--idle", "90d", "--history", "0s"); text == "deleted 0 locks and 0 events\n" {
		t.Errorf("it says %q", text)
	}

	b.exec(`DO $$ BEGIN
		IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pglocker_cli_test') THEN CREATE ROLE pglocker_cli_test; END IF;
		EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- of another run at the same time
	END $$`)
	b.exec("GRANT USAGE ON SCHEMA pglocker TO pglocker_cli_test")
	b.exec("GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO pglocker_cli_test")
	b.env = append(b.env, "PGOPTIONS=-c role=pglocker_cli_test")
	b.fails(exitUnavailable, []string{"permission denied", "GRANT DELETE"}, "prune", "--idle", "90d")
}
