package doctor

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

func TestEngineOf(t *testing.T) {
	t.Parallel()

	const debian = "PostgreSQL 15.20 (Debian 15.20-0+deb12u1) on x86_64-pc-linux-gnu"

	for want, test := range map[string]struct {
		product string
		traits
	}{
		"PostgreSQL":                    {debian, traits{Families: "plpgsql,pg_stat_statements"}},
		"PostgreSQL with Citus 12.1-1":  {debian, traits{Citus: "12.1-1"}},
		"Amazon Aurora":                 {debian, traits{Aurora: true, Families: "rds"}},
		"Amazon RDS":                    {debian, traits{Families: "plpgsql,rds"}},
		"AlloyDB":                       {debian, traits{Families: "alloydb,cloudsql"}},
		"Cloud SQL":                     {debian, traits{Families: "cloudsql"}},
		"Neon":                          {debian, traits{Families: "neon,plpgsql"}},
		"Azure Database for PostgreSQL": {debian, traits{Families: "azure"}},
		"YugabyteDB":                    {"PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64-pc-linux-gnu", traits{}},
		"CockroachDB":                   {"CockroachDB CCL v23.1.14 (x86_64-pc-linux-gnu)", traits{}},
		"EnterpriseDB":                  {"EnterpriseDB 15.2 on x86_64", traits{}},
	} {
		if got := engineOf(test.product, test.traits); got != want {
			t.Errorf("%s, %+v: %s, want %s", test.product, test.traits, got, want)
		}
	}
}

// TestNodes: clocks that are apart by more than a reading of them may explain are found, and a server that doesn't
// answer.
func TestNodes(t *testing.T) {
	t.Parallel()

	near := node{"a:1", true, "1700000000.25", "00000001"}

	for when, test := range map[string]struct {
		other node
		trip  time.Duration
		want  string
	}{
		"near":             {node{"b:1", true, "1700000000.5", "00000002"}, time.Millisecond, ""},
		"far":              {node{"b:1", true, "1700000001.5", "00000001"}, time.Millisecond, "clock-skew"},
		"far, by the trip": {node{"b:1", true, "1700000001.5", "00000001"}, time.Second, ""},
		"down":             {node{"b:1", false, "connection refused", ""}, time.Millisecond, "node"},
	} {
		result := Check{Name: "engine"}
		judgeNodes([]node{near, test.other}, test.trip, time.Second, &result)

		var found []string
		for _, f := range result.findings {
			found = append(found, f.Name)
		}

		if got := strings.Join(found, ","); got != test.want {
			t.Errorf("%s: %q, want %q", when, got, test.want)
		}
	}
}

// TestPlainDialect: a server that refuses PostgreSQL's dialect is named, with what is lost there.
func TestPlainDialect(t *testing.T) {
	t.Parallel()

	w := newWard(t)

	if status, seen := statusOf(t, w.examine(w.appURL), "engine"); status != OK || seen != "PostgreSQL, dialect postgresql" {
		t.Errorf("before: %s, %s", status, seen)
	}

	contract.Exec(t, w.db, "ALTER FUNCTION pg_catalog.set_config(text, text, boolean) RENAME TO set_config_not")
	t.Cleanup(func() {
		_, err := w.db.ExecContext(context.WithoutCancel(t.Context()), "ALTER FUNCTION pg_catalog.set_config_not(text, text, boolean) RENAME TO set_config")
		contract.Must(t, err)
	})

	report := w.examine(w.appURL)
	if status, seen := statusOf(t, report, "engine"); status != OK || seen != "PostgreSQL, dialect plain" {
		t.Errorf("%s, %s", status, seen)
	}

	notes(t, report, "engine", "Semaphore, RWLock and Prune return ErrUnsupportedServer")

	if status, _ := statusOf(t, report, "notifications"); status != Skipped {
		t.Errorf("notifications: %s", status)
	}
}

// TestCitus: each server of a cluster is looked at, and what is on them isn't sought here.
func TestCitus(t *testing.T) {
	t.Parallel()

	url := os.Getenv("CITUS_DATABASE_URL")
	if url == "" {
		t.Skip("CITUS_DATABASE_URL is not set")
	}

	db := contract.Open(t, "pgx", url)
	cfg := &pglocker.Config{Scheme: "pglocker_doctor", Distributed: true}

	contract.Exec(t, db, "DROP SCHEMA IF EXISTS pglocker_doctor CASCADE")
	contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))

	connect, err := pgx.ParseConfig(url)
	contract.Must(t, err)

	limits := DefaultLimits()
	limits.Patience = time.Minute // the machine may be busy

	report, err := Run(t.Context(), Config{Connect: connect, Schema: cfg.Scheme, Table: pglocker.DefaultTable, Limits: limits})
	contract.Must(t, err)
	finds(t, "a cluster", report)

	if _, seen := statusOf(t, report, "engine"); !strings.Contains(seen, "Citus") || !strings.Contains(seen, "dialect plain") {
		t.Errorf("engine: %s", seen)
	}

	notes(t, report, "engine", ": timeline ")

	for _, check := range []string{"notifications", "bloat", "plans"} {
		if status, seen := statusOf(t, report, check); status != Skipped {
			t.Errorf("%s: %s, %s", check, status, seen)
		}
	}
}
