package main

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/cmd/pglocker/internal/doctor"
)

// TestDoctor: the exit code is that of the worst finding, and text and JSON name the same.
func TestDoctor(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	if out := b.ok("doctor"); !strings.Contains(out, "\n0 errors, 0 warnings.\n") {
		t.Errorf("on a healthy server:\n%s", out)
	}

	b.exec("ALTER TABLE pglocker.lock_statuses SET (fillfactor = 100)")

	o := b.fails(1, nil, "doctor", "-o", "json")
	report := decode[doctor.Report](t, o.stdout)

	if len(report.Findings) != 1 || report.Findings[0].Name != "storage" || report.Findings[0].Severity != doctor.Warning || o.stderr != "" {
		t.Errorf("a warning: %s%s", o.stdout, o.stderr)
	}

	var raw struct {
		Checks, Findings []map[string]any
	}

	must(t, json.Unmarshal([]byte(o.stdout), &raw))

	for _, field := range []string{"name", "check", "severity", "seen", "means", "mend"} {
		if raw.Findings[0][field] == nil {
			t.Errorf("a finding lacks the field %q", field)
		}
	}

	for _, field := range []string{"name", "status", "seen"} {
		if raw.Checks[0][field] == nil {
			t.Errorf("a check lacks the field %q", field)
		}
	}

	b.expire("job")

	if out := b.run("doctor").stdout; !strings.Contains(out, "warn  crashed") || !strings.Contains(out, "pglocker history job") {
		t.Errorf("a crash an hour ago:\n%s", out)
	}

	if out := b.run("doctor", "--crashed", "59m").stdout; strings.Contains(out, "warn  crashed") {
		t.Errorf("a crash, later than asked for:\n%s", out)
	}

	b.exec("DROP TABLE pglocker.lock_statuses CASCADE")

	if out := b.fails(2, nil, "doctor").stdout; !strings.Contains(out, "ERROR no-table") || !strings.Contains(out, "> pglocker migrate") {
		t.Errorf("without a table:\n%s", out)
	}
}

// TestDoctorUnreachable: a server that can't be reached is an error like others, and no password is printed.
func TestDoctorUnreachable(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	u, err := url.Parse(b.url)
	must(t, err)

	u.User = url.UserPassword("nobody", "secret-word")
	u.Host = "127.0.0.1:1"
	b.env = []string{"PGLOCKER_DSN=" + u.String()}

	for _, format := range []string{"text", "json"} {
		o := b.fails(2, nil, "doctor", "-o", format)
		if !strings.Contains(o.stdout, "unreachable") || strings.Contains(o.stdout+o.stderr, "secret-word") {
			t.Errorf("%s%s", o.stdout, o.stderr)
		}
	}

	b.fails(exitUsage, []string{"unknown command"}, "doctor", "now")
	b.fails(exitUsage, []string{"--crashed"}, "doctor", "--crashed", "soon")
}
