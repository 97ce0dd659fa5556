package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// TestServerSettings: what is wrong with a whole server is found and mended.
func TestServerSettings(t *testing.T) {
	t.Parallel()

	w := newWardAt(t, contract.StartServer(t, pgtesting.WithSetting("autovacuum", "off"),
		pgtesting.WithSetting("full_page_writes", "off")).URL())

	report := w.examine(w.url)
	finds(t, "planted", report, "autovacuum-off-server")
	notes(t, report, "durability", "fsync is off")
	notes(t, report, "durability", "full_page_writes is off")
	w.mend(report)
	contract.Await(t, "the server has read its settings", func() bool {
		return contract.Query[string](t, w.db, "SHOW autovacuum") == "on"
	})
	finds(t, "mended", w.examine(w.url))
}

// TestSynchronousStandbyMissing: a server whose commits hang is found, though it answers all else.
func TestSynchronousStandbyMissing(t *testing.T) {
	t.Parallel()

	w := newWardAt(t, contract.StartServer(t).URL())
	contract.Exec(t, w.db, "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (nobody)'")
	contract.Exec(t, w.db, "SELECT pg_reload_conf()")
	contract.Await(t, "the server has read its settings", func() bool {
		return contract.Query[string](t, w.db, "SHOW synchronous_standby_names") != ""
	})

	report := w.examine(w.url)
	finds(t, "planted", report, "synchronous-standby")

	if status, seen := statusOf(t, w.examine(w.appURL), "replication"); status != Skipped || !strings.Contains(seen, "GRANT pg_read_all_stats TO "+w.app) {
		t.Errorf("to a role that doesn't see it: %s, %s", status, seen)
	}

	w.mend(report)
	contract.Await(t, "the server has read its settings", func() bool {
		return contract.Query[string](t, w.db, "SHOW synchronous_standby_names") == ""
	})
	finds(t, "mended", w.examine(w.url))
}

func TestRequired(t *testing.T) {
	t.Parallel()

	for names, want := range map[string]int64{
		"a": 1, "a, b": 1, "FIRST 2 (a, b)": 2, "any 3 (a,b,c)": 3, " 2(a, b)": 2, "*": 1, `"2 (x)"`: 1,
	} {
		if got := required(names); got != want {
			t.Errorf("%q: %d, want %d", names, got, want)
		}
	}
}

// TestStandby: a standby is found, and what can be examined there is.
func TestStandby(t *testing.T) {
	t.Parallel()

	server := contract.StartServer(t)
	w := &ward{t: t, url: server.URL(), limits: DefaultLimits()}
	db := contract.Open(t, "pgx", server.URL())
	contract.Must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))
	contract.Must(t, server.Shutdown(t.Context(), pgtesting.FastShutdown))
	contract.Must(t, os.WriteFile(filepath.Join(server.DataDir(), "standby.signal"), nil, 0o644))
	contract.Must(t, server.Start(t.Context()))

	report := w.examine(w.url)
	finds(t, "a standby", report, "standby")

	for _, check := range []string{"notifications", "timeline", "replication"} {
		if status, _ := statusOf(t, report, check); status != Skipped {
			t.Errorf("the check %s is %s", check, status)
		}
	}
}

// TestServerConnections: a server that has few connections left is found.
func TestServerConnections(t *testing.T) {
	t.Parallel()

	w := newWardAt(t, contract.StartServer(t, pgtesting.WithSetting("max_connections", "13")).URL())

	for range 8 {
		w.connect(w.url, "")
	}

	report := w.examine(w.url)
	finds(t, "planted", report, "connections")

	if f := report.Findings[0]; !strings.Contains(f.Seen, " of 10 connections") {
		t.Error(f.Seen)
	}
}

// TestSlot: a slot that holds dead rows back is found, and no more once it is dropped. It is that of a standby which
// said which rows it needs, and went away.
func TestSlot(t *testing.T) {
	t.Parallel()

	w := newWardAt(t, contract.StartServer(t).URL())
	contract.Exec(t, w.db, "SELECT pg_create_physical_replication_slot('gone', true)")
	finds(t, "a slot that holds no rows back", w.examine(w.url))
	standbyGoes(t, w, "gone")

	report := w.examine(w.url)
	finds(t, "planted", report, "replication-slot")
	w.mend(report)
	finds(t, "mended", w.examine(w.url))
}

// TestOldestSlot: of more slots than are named, the one that holds back most is named first.
func TestOldestSlot(t *testing.T) {
	t.Parallel()

	w := newWardAt(t, contract.StartServer(t).URL())

	for n := range 5 {
		contract.Exec(t, w.db, "SELECT pg_create_physical_replication_slot($1, true)", fmt.Sprintf("young_%d", n))
	}

	contract.Exec(t, w.db, "SELECT pg_create_physical_replication_slot('oldest', true)")
	standbyGoes(t, w, "oldest")

	for n := range 5 {
		standbyGoes(t, w, fmt.Sprintf("young_%d", n))
	}

	report := w.examine(w.url)
	if f := report.Findings; len(f) != 5 || !strings.Contains(f[0].Seen, "slot oldest,") {
		t.Errorf("found %+v", f)
	}
}

// standbyGoes connects as a standby that uses a slot, tells that it needs all rows since a transaction, and leaves.
func standbyGoes(t *testing.T, w *ward, slot string) {
	t.Helper()

	u, err := url.Parse(w.url)
	contract.Must(t, err)

	q := u.Query()
	q.Set("replication", "true")
	u.RawQuery = q.Encode()

	conn, err := pgconn.Connect(t.Context(), u.String())
	contract.Must(t, err)

	xmin := contract.Query[int64](t, w.db, "SELECT txid_current()")
	from := contract.Query[string](t, w.db, "SELECT pg_current_wal_lsn()::text")

	conn.Frontend().Send(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION SLOT %s PHYSICAL %s", slot, from)})
	contract.Must(t, conn.Frontend().Flush())

	for {
		message, err := conn.ReceiveMessage(t.Context())
		contract.Must(t, err)

		if refused, ok := message.(*pgproto3.ErrorResponse); ok {
			t.Fatal(refused.Message)
		}

		if _, ok := message.(*pgproto3.CopyBothResponse); ok {
			break
		}
	}

	feedback := []byte{'h'}
	feedback = binary.BigEndian.AppendUint64(feedback, 0) // the time
	feedback = binary.BigEndian.AppendUint32(feedback, uint32(xmin))
	feedback = binary.BigEndian.AppendUint32(feedback, 0)
	feedback = binary.BigEndian.AppendUint32(feedback, 0) // of the catalogs: none
	feedback = binary.BigEndian.AppendUint32(feedback, 0)

	conn.Frontend().Send(&pgproto3.CopyData{Data: feedback})
	contract.Must(t, conn.Frontend().Flush())
	contract.Await(t, "the slot holds rows back", func() bool {
		return contract.Query[bool](t, w.db, "SELECT xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = $1", slot)
	})
	contract.Must(t, conn.Close(t.Context()))
	contract.Await(t, "the slot is left", func() bool {
		return contract.Query[bool](t, w.db, "SELECT count(*) = 0 FROM pg_replication_slots WHERE active")
	})
}

// TestClocks: clocks that are apart are noted. One that runs at another rate is found.
func TestClocks(t *testing.T) {
	t.Parallel()

	library, _ := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1") // the pattern is right

	switch {
	case len(library) > 0:
	case os.Getenv("CI") == "true":
		t.Fatal("libfaketime is not installed")
	default:
		t.Skip("libfaketime is not installed")
	}

	for faked, want := range map[string][]string{"+3600s": nil, "+3600s x1.05": {"clock-rate"}, "+0s x0.95": {"clock-rate"}} {
		t.Run(faked, func(t *testing.T) {
			t.Parallel()

			w := newWardAt(t, contract.StartServer(t, pgtesting.WithEnv("LD_PRELOAD="+library[0]),
				pgtesting.WithEnv("FAKETIME="+faked), pgtesting.WithEnv("DONT_FAKE_MONOTONIC=1")).URL())
			w.limits.Look = 2 * time.Second

			report := w.examine(w.url)
			finds(t, faked, report, want...)

			if strings.HasPrefix(faked, "+3600s") {
				notes(t, report, "clock", " 1h")
			}
		})
	}
}

// TestRate: the error that the trips allow is named, and not taken for a rate.
func TestRate(t *testing.T) {
	t.Parallel()

	start := time.Now()
	a := reading{server: start.Add(time.Hour), sent: start, trip: 10 * time.Millisecond}
	b := reading{server: start.Add(time.Hour + 1010*time.Millisecond), sent: start.Add(time.Second), trip: 30 * time.Millisecond}

	if got, err := rate(a, b); got < -0.0001 || got > 0.0001 || err < 0.0198 || err > 0.0202 {
		t.Errorf("%f ± %f, want 0 ± 0.02", got, err)
	}

	if offset, err := a.offset(); offset != time.Hour-5*time.Millisecond || err != 5*time.Millisecond {
		t.Errorf("%s ± %s", offset, err)
	}
}

// TestVersion: an older server is an error, a newer one noted, and so is a relative of PostgreSQL.
func TestVersion(t *testing.T) {
	t.Parallel()

	w := newWard(t)
	config, err := pgx.ParseConfig(w.url)
	contract.Must(t, err)

	for _, test := range []struct {
		version       int
		product, note string
		errors        int
	}{
		{110022, "PostgreSQL 11.22 on x", "", 1},
		{190000, "PostgreSQL 19 on x", "is tested with PostgreSQL 12 to 18", 0},
		{130000, "CockroachDB CCL v25", "a relative of PostgreSQL", 0},
	} {
		p := newPatient(Config{Connect: config, Schema: "pglocker", Table: "lock_statuses", Limits: w.limits})
		defer p.close()

		result := Check{Name: "server"}
		p.version, p.product = test.version, test.product
		contract.Must(t, checkServer(t.Context(), p, &result))

		r := new(Report)
		r.add(result)

		if r.Count(Error) != test.errors {
			t.Errorf("%s: %+v", test.product, r.Findings)
		}

		if test.note != "" {
			notes(t, r, "server", test.note)
		}
	}
}

// TestEncoding: a database of another encoding is noted.
func TestEncoding(t *testing.T) {
	t.Parallel()

	server := contract.StartServer(t)
	admin := contract.Open(t, "pgx", server.URL())
	contract.Exec(t, admin, "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")

	w := newWardAt(t, strings.Replace(server.URL(), "/postgres?", "/latin?", 1))
	report := w.examine(w.url)
	finds(t, "another encoding", report)
	notes(t, report, "server", "client_encoding=UTF8")
}

// TestHistory: a history that isn't written any more is found.
func TestHistory(t *testing.T) {
	t.Parallel()

	for _, test := range []struct{ name, sql string }{
		{"a disabled trigger", "ALTER TABLE pglocker.lock_statuses DISABLE TRIGGER pglocker_history_update"},
		{"a dropped table", "DROP TABLE pglocker.lock_history"},
		{"no SELECT", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			w := newWard(t)
			contract.Must(t, pglocker.MigrateHistory(t.Context(), w.db, &pglocker.Config{}))
			contract.Exec(t, w.db, test.sql)

			report := w.examine(w.appURL)

			if test.sql == "" {
				finds(t, test.name, report)
				notes(t, report, "privileges", "GRANT SELECT ON pglocker.lock_history TO "+w.app)

				return
			}

			finds(t, test.name, report, "history")
			w.mend(report)
			finds(t, "mended", w.examine(w.appURL))
		})
	}
}

// statusOf is the status of a check, and what it saw.
func statusOf(t *testing.T, r *Report, check string) (Status, string) {
	t.Helper()

	for _, c := range r.Checks {
		if c.Name == check {
			return c.Status, c.Seen
		}
	}

	t.Fatal(errors.New("no check " + check))

	return "", ""
}
