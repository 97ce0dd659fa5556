package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestConnection: the ways in which libpq's users name a database.
func TestConnection(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.create("here")

	u, err := url.Parse(b.url)
	must(t, err)

	name := strings.TrimPrefix(u.Path, "/")
	password, _ := u.User.Password()
	home := t.TempDir()
	server := []string{"PGHOST=" + u.Hostname(), "PGPORT=" + u.Port(), "PGUSER=" + u.User.Username(), "HOME=" + home}

	service := filepath.Join(t.TempDir(), "services")
	must(t, os.WriteFile(service, fmt.Appendf(nil, "[app]\nhost=%s\nport=%s\ndbname=%s\nuser=%s\n", u.Hostname(), u.Port(), name, u.User.Username()), 0o600))

	must(t, os.WriteFile(filepath.Join(home, ".pgpass"), fmt.Appendf(nil, "*:*:*:*:%s\n", password), 0o600))

	for what, c := range map[string]struct {
		env, args []string
	}{
		"URL":           {nil, []string{"-d", b.url}},
		"conninfo":      {nil, []string{"-d", fmt.Sprintf("host=%s port=%s dbname=%s user=%s password='%s'", u.Hostname(), u.Port(), name, u.User.Username(), password)}},
		"name":          {server, []string{"-d", name}},
		"PGDATABASE":    {append([]string{"PGDATABASE=" + name}, server...), nil},
		"PGLOCKER_DSN":  {[]string{"PGLOCKER_DSN=" + b.url}, nil},
		"-d first":      {[]string{"PGLOCKER_DSN=host=127.0.0.1 port=1"}, []string{"-d", b.url}},
		"PGSERVICE":     {[]string{"PGSERVICE=app", "PGSERVICEFILE=" + service, "HOME=" + home}, nil},
		"service":       {[]string{"PGSERVICEFILE=" + service, "HOME=" + home}, []string{"-d", "service=app"}},
		"several hosts": {append([]string{"PGDATABASE=" + name, "PGTARGETSESSIONATTRS=read-write"}, server...), []string{"-d", fmt.Sprintf("host=127.0.0.1,%s port=1,%s", u.Hostname(), u.Port())}},
		"harmless keywords": {nil, []string{
			"-d",
			b.url + "&keepalives_idle=30&gssencmode=prefer&fallback_application_name=x&load_balance_hosts=random&tcp_user_timeout=5",
		}},
	} {
		b.env = append([]string{"PGPASSWORD="}, c.env...)

		if text := b.ok(append([]string{"ls"}, c.args...)...); !strings.Contains(text, "here") {
			t.Errorf("%s: listed %s", what, text)
		}
	}
}

// TestPatience: a connect timeout bounds the last statements too, within what suits them.
func TestPatience(t *testing.T) {
	t.Parallel()

	for timeout, want := range map[string]time.Duration{
		" connect_timeout=0":    connectTimeout,
		" connect_timeout=1":    minPatience,
		" connect_timeout=7":    7 * time.Second,
		" connect_timeout=1000": maxPatience,
	} {
		c := connection{dsn: "host=127.0.0.1" + timeout}
		if _, err := c.parse("test"); err != nil || c.patience != want {
			t.Errorf("%q: %s, want %s (%v)", timeout, c.patience, want, err)
		}
	}
}

// TestConnectionRefused: what it can't obey it doesn't ignore, and no message has the password.
func TestConnectionRefused(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	for _, c := range []struct {
		code int
		says string
		env  string
		dsn  string
	}{
		{exitUsage, "PGHOSTADDR is set", "PGHOSTADDR=10.0.0.1", ""},
		{exitUsage, "PGSSLCRL is set", "PGSSLCRL=/crl", ""},
		{exitUsage, "GSSAPI", "PGGSSENCMODE=require", ""},
		{exitUsage, "GSSAPI", "", "host=127.0.0.1 gssencmode=require"},
		{exitUsage, "keyword hostaddr", "", "hostaddr=127.0.0.1 password=secret"},
		{exitUsage, "keyword requirepeer", "", "postgres://u:secret@127.0.0.1/db?requirepeer=root"},
		{exitUsage, "can't read the connection string", "", "postgres://u:sec:ret@127.0.0.1:a/db"},
		{exitUsage, "can't read the connection string", "", "password=secret host"},
		{exitUsage, "can't read the connection string", "", "postgres://u:secret/x@127.0.0.1:5432:1/db"},
		{exitUsage, "can't read the connection string", "", "host=127.0.0.1 password='secret"},
		{exitUsage, "target_session_attrs", "PGTARGETSESSIONATTRS=primry", ""},
		{exitUsage, "service", "", "service=absent password=secret"},
		{exitUnavailable, "connection refused", "", "postgres://u:secret@127.0.0.1:1/db"},
		{exitUnavailable, "no such host", "", "postgres://u:secret@absent.invalid/db"},
		{exitUnavailable, "no such file", "", "host=/absent"},
	} {
		b.env = []string{"HOME=" + t.TempDir()}
		if c.env != "" {
			b.env = append(b.env, c.env)
		}

		args := []string{"ls"}
		if c.dsn != "" {
			args = append(args, "-d", c.dsn)
		}

		if o := b.fails(c.code, []string{c.says}, args...); strings.Contains(o.stderr, "secret") || strings.Contains(o.stderr, "ret@") {
			t.Errorf("%q: the password is in the message: %s", c.dsn, o.stderr)
		}
	}
}

// TestServerRefuses: what the server says is said, once.
func TestServerRefuses(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	u, err := url.Parse(b.url)
	must(t, err)

	u.Path = "/absent"
	o := b.fails(exitUnavailable, []string{`database "absent" does not exist`}, "ls", "-d", u.String())

	if strings.Count(o.stderr, "does not exist") != 1 {
		t.Errorf("said more than once: %s", o.stderr)
	}

	b.fails(exitUnavailable, []string{`unrecognized configuration parameter "hots"`}, "ls", "-d", b.url+"&hots=a")
}

// TestSilentServer: one that accepts connections and says nothing is given up.
func TestSilentServer(t *testing.T) {
	t.Parallel()

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)

	t.Cleanup(func() { _ = listener.Close() })

	b := newBed(t)
	b.fails(exitUnavailable, []string{"timeout"}, "ls", "-d", "postgres://"+listener.Addr().String()+"/db?sslmode=disable&connect_timeout=1")
}

func TestEnvironment(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.env = append(b.env, "PGLOCKER_OUTPUT=json", "PGLOCKER_TABLE=absent")

	b.fails(exitUnavailable, []string{`no table "absent"`}, "ls")

	if out := b.ok("ls", "--table", "lock_statuses"); out != "[]\n" {
		t.Errorf("with PGLOCKER_OUTPUT=json: %q", out)
	}

	b.env = append(b.env, "PGLOCKER_VERBOSE=perhaps")
	b.fails(exitUsage, []string{"PGLOCKER_VERBOSE"}, "ls")

	b.env = append(b.env, "PGLOCKER_VERBOSE=", "PGLOCKER_OUTPUT=xml")
	b.fails(exitUsage, []string{"xml"}, "ls")
}
