package doctor

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

func TestMain(m *testing.M) { contract.Main(m, 8) }

// ward is a database that is made ill.
type ward struct {
	t   *testing.T
	url string
	// db is the superuser's. app is a role that may take locks, and no more, and appURL is how it connects.
	db          *sql.DB
	app, appURL string
	limits      Limits
}

const password = "not-to-be-printed"

// newWard makes a database with the table of MigrateDB.
func newWard(t *testing.T) *ward {
	t.Helper()

	return newWardAt(t, contract.NewDatabase(t))
}

// newWardAt is newWard on a database that is there.
func newWardAt(t *testing.T, databaseURL string) *ward {
	t.Helper()

	w := &ward{t: t, url: databaseURL, limits: DefaultLimits()}
	w.limits.Look = 50 * time.Millisecond
	w.limits.Patience = time.Minute // the machine may be busy
	w.db = contract.Open(t, "pgx", databaseURL)
	contract.Must(t, pglocker.MigrateDB(t.Context(), w.db, &pglocker.Config{}))

	w.app = "doctor_" + strings.ToLower(rand.Text())
	contract.Exec(t, w.db, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", w.app, password))
	t.Cleanup(func() {
		for _, text := range []string{"DROP OWNED BY " + w.app, "DROP ROLE " + w.app} {
			if _, err := w.db.ExecContext(context.Background(), text); err != nil {
				t.Error(err)
			}
		}
	})
	contract.Exec(t, w.db, "GRANT USAGE ON SCHEMA pglocker TO "+w.app)
	contract.Exec(t, w.db, "GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO "+w.app)

	u, err := url.Parse(databaseURL)
	contract.Must(t, err)

	u.User = url.UserPassword(w.app, password)
	w.appURL = u.String()

	return w
}

// examine has the doctor come, by a URL.
func (w *ward) examine(databaseURL string) *Report {
	w.t.Helper()

	config, err := pgx.ParseConfig(databaseURL)
	contract.Must(w.t, err)

	report, err := Run(w.t.Context(), Config{Connect: config, Schema: "pglocker", Table: "lock_statuses", Limits: w.limits})
	contract.Must(w.t, err)

	var text strings.Builder

	contract.Must(w.t, report.WriteText(&text, func(_ Status, text string) string { return text }))

	if w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Log(text.String())
		}
	}); strings.Contains(text.String(), password) {
		w.t.Error("the password is printed")
	}

	return report
}

// names are those of the findings, each once, in order.
func names(r *Report) []string {
	var names []string
	for _, f := range r.Findings {
		names = append(names, f.Name)
	}

	slices.Sort(names)

	return slices.Compact(names)
}

// finds fails the test unless these are the findings.
func finds(t *testing.T, when string, r *Report, want ...string) {
	t.Helper()
	slices.Sort(want)

	if got := names(r); !slices.Equal(got, want) {
		t.Errorf("%s: found %q, want %q", when, got, want)
	}
}

// notes fails the test unless a check has a note with these words.
func notes(t *testing.T, r *Report, check, words string) {
	t.Helper()

	for _, c := range r.Checks {
		if c.Name == check && strings.Contains(strings.Join(c.Notes, "\n"), words) {
			return
		}
	}

	t.Errorf("the check %q has no note with %q", check, words)
}

// mend runs the statements that the findings name, as a superuser. Those that mended a cause together may have
// left nothing to drop.
func (w *ward) mend(r *Report) {
	w.t.Helper()

	for _, f := range r.Findings {
		for line := range strings.Lines(f.Mend) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "--") {
				continue
			}

			if strings.HasPrefix(line, "pglocker migrate") {
				contract.Must(w.t, pglocker.MigrateDB(w.t.Context(), w.db, &pglocker.Config{}))

				continue
			}

			_, err := w.db.ExecContext(w.t.Context(), line)

			if e, ok := errors.AsType[*pgconn.PgError](err); ok && (e.Code == "42704" || e.Code == "42P01") {
				continue
			}

			if err != nil {
				w.t.Errorf("what should mend %s: %s: %v", f.Name, line, err)
			}
		}
	}
}

// TestHealthy: on a healthy server nothing is found, by a superuser, by a role of programs, and while locks of
// all kinds are in use. The doctor changes nothing.
func TestHealthy(t *testing.T) {
	t.Parallel()

	w := newWard(t)
	ctx := t.Context()
	contract.Must(t, pglocker.MigrateHistory(ctx, w.db, &pglocker.Config{}))

	locker := contract.NewLockerOn(t, w.db)

	lock, err := locker.TryLock(ctx, "held", time.Hour) // no renewal comes meanwhile
	contract.Must(t, err)

	released, err := locker.TryLock(ctx, "released", time.Hour)
	contract.Must(t, err)
	contract.Must(t, released.Unlock(ctx))

	rw, err := locker.NewRWLock("rw")
	contract.Must(t, err)

	reader, err := rw.TryRLock(ctx, time.Hour)
	contract.Must(t, err)

	semaphore, err := locker.NewSemaphore("s", 2)
	contract.Must(t, err)

	permit, err := semaphore.TryAcquire(ctx, time.Hour)
	contract.Must(t, err)

	rows := func() string {
		return contract.Query[string](t, w.db, "SELECT string_agg(l::text || l.ctid::text || l.xmin::text, ' ' ORDER BY lock_id) FROM pglocker.lock_statuses AS l")
	}
	before := rows()

	for _, by := range []string{w.url, w.appURL} {
		report := w.examine(by)
		finds(t, "a healthy server", report)

		if report.ExitCode() != 0 {
			t.Errorf("exit code %d", report.ExitCode())
		}

		for _, c := range report.Checks {
			if c.Status != OK {
				t.Errorf("the check %s is %s: %s", c.Name, c.Status, c.Seen)
			}
		}

		if len(report.Checks) != len(checks) {
			t.Errorf("%d checks, want %d", len(report.Checks), len(checks))
		}
	}

	if after := rows(); after != before {
		t.Errorf("the doctor changed the table:\n%s\n%s", before, after)
	}

	// A writer that waits in vain leaves rows of its own.
	waiting, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()

	if _, err := rw.Lock(waiting, 100*time.Millisecond); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Fatal(err)
	}

	contract.Must(t, errors.Join(permit.Unlock(ctx), reader.Unlock(ctx), lock.Unlock(ctx)))
	finds(t, "all is released", w.examine(w.url))
}

// TestOtherNames: the table may have any name.
func TestOtherNames(t *testing.T) {
	t.Parallel()

	w := newWard(t)
	cfg := &pglocker.Config{Scheme: "Odd \"schema'", Table: "select"}
	contract.Must(t, pglocker.MigrateDB(t.Context(), w.db, cfg))
	contract.Must(t, pglocker.MigrateHistory(t.Context(), w.db, cfg))
	contract.Exec(t, w.db, `ALTER TABLE "Odd ""schema'"."select" SET (fillfactor = 100)`)

	config, err := pgx.ParseConfig(w.url)
	contract.Must(t, err)

	report, err := Run(t.Context(), Config{Connect: config, Schema: cfg.Scheme, Table: cfg.Table, Limits: w.limits})
	contract.Must(t, err)
	finds(t, "another name", report, "storage")
	w.mend(report)

	report, err = Run(t.Context(), Config{Connect: config, Schema: cfg.Scheme, Table: cfg.Table, Limits: w.limits})
	contract.Must(t, err)
	finds(t, "mended", report)
}

// TestPoorRole: a role that may do nothing is told so, and all else is examined.
func TestPoorRole(t *testing.T) {
	t.Parallel()

	w := newWard(t)
	contract.Exec(t, w.db, "REVOKE ALL ON pglocker.lock_statuses FROM "+w.app)
	contract.Exec(t, w.db, "REVOKE ALL ON SCHEMA pglocker FROM "+w.app)

	report := w.examine(w.appURL)
	finds(t, "no privilege", report, "privilege")

	if n := report.Count(Error); n != 4 {
		t.Errorf("%d privileges are missing, want 4", n)
	}

	for _, c := range report.Checks {
		if skipped := c.Status == Skipped; skipped != slices.Contains([]string{"plans", "locks"}, c.Name) {
			t.Errorf("the check %s: %s, %s", c.Name, c.Status, c.Seen)
		}
	}

	notes(t, report, "vacuum", "GRANT pg_read_all_stats TO "+w.app)
	w.mend(report)
	finds(t, "mended", w.examine(w.appURL))
}

// TestUnreachable: a server that can't be reached is a finding, and the password isn't printed.
func TestUnreachable(t *testing.T) {
	t.Parallel()

	w := newWard(t)

	u, err := url.Parse(w.appURL)
	contract.Must(t, err)

	u.User = url.UserPassword(w.app+"x", password)
	finds(t, "another role", w.examine(u.String()), "unreachable")

	u.Host = "127.0.0.1:1"
	report := w.examine(u.String())
	finds(t, "another port", report, "unreachable")

	if report.ExitCode() != 2 {
		t.Errorf("exit code %d", report.ExitCode())
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	config, err := pgx.ParseConfig(w.url)
	contract.Must(t, err)

	if _, err := Run(ctx, Config{Connect: config, Schema: "pglocker", Table: "lock_statuses"}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// TestCheckFails: what keeps one check from looking is said, and its findings stay.
func TestCheckFails(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		err    error
		find   bool
		status Status
		want   []string
	}{
		{&pgconn.PgError{Code: insufficientPrivilege, Message: "permission denied for x"}, false, Skipped, nil},
		{&pgconn.PgError{Code: insufficientPrivilege, Message: "permission denied for x"}, true, Warned, []string{"found"}},
		{&pgconn.PgError{Code: lockNotAvailable}, false, Warned, []string{"no-answer"}},
		{context.DeadlineExceeded, true, Warned, []string{"found", "no-answer"}},
		{errors.New("odd"), false, Warned, []string{"check-failed"}},
	} {
		result := Check{Name: "x"}
		c := check{name: "x", run: func(_ context.Context, _ *patient, r *Check) error {
			if test.find {
				r.find(Warning, "found", "", "", "")
			}

			return test.err
		}}
		contract.Must(t, new(patient).examine(t.Context(), c, &result))

		r := new(Report)
		r.add(result)
		finds(t, test.err.Error(), r, test.want...)

		if got := r.Checks[0]; got.Status != test.status || got.Seen == "" {
			t.Errorf("%v: %s, %q", test.err, got.Status, got.Seen)
		}
	}
}
