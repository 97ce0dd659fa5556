package main

import (
	"strings"
	"testing"
	"time"
)

func TestShow(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	held := b.hold("jobs/a")
	expired := b.expire("jobs/b")

	r := decode[lockRecord](t, b.ok("show", "jobs/a", "-o", "json"))
	if r.State != stateHeld || r.Token != held.Token() || r.Owner == nil || r.Remaining <= 0 {
		t.Errorf("the held lock: %+v", r)
	}

	text := b.ok("show", "jobs/b")
	for _, want := range []string{"jobs/b", "expired", "without a release", expired.Owner, "free since"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}

	b.fails(exitFailed, []string{`there is no lock "jobs/c"`}, "show", "jobs/c")
	b.fails(exitUsage, []string{"takes one ID"}, "show")
	b.fails(exitUsage, []string{"takes one ID", `"b"`}, "show", "a", "b")
	b.fails(exitUsage, []string{"invalid lock id", "1025 bytes"}, "show", strings.Repeat("a", 1025))
	b.fails(exitUsage, []string{"invalid lock id", "empty"}, "show", "")
	b.fails(exitUsage, []string{"invalid lock id", "UTF-8"}, "show", "\xff")
}

// TestShowSuggests: the name of a recipe isn't the id of its row.
func TestShowSuggests(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	semaphore, err := b.locker.NewSemaphore("pool", 2)
	must(t, err)

	_, err = semaphore.TryAcquire(t.Context(), time.Minute)
	must(t, err)

	b.fails(exitFailed, []string{"one of the kind semaphore", "pglocker ls pglocker:semaphore:pool"}, "show", "pool")
	b.fails(exitFailed, []string{`there is no lock "poo"` + "\n"}, "show", "poo")

	if text := b.ok("show", "pglocker:semaphore:pool:1"); !strings.Contains(text, "semaphore") {
		t.Errorf("the permit:\n%s", text)
	}
}

// TestHostileIDs: an id can't move the cursor, change colours or break the JSON.
func TestHostileIDs(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	id := "a\x1b[2J\n\"b\u202e<é"
	b.create(id)

	for _, args := range [][]string{{"ls"}, {"show", id}} {
		if text := b.ok(args...); strings.ContainsAny(text, "\x1b\u202e") || !strings.Contains(text, `a\u001b[2J\u000a"b\u202e<é`) {
			t.Errorf("%q: %q", args, text)
		}
	}

	if r := b.list(); r[0].ID != id {
		t.Errorf("as JSON: %q", r[0].ID)
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.create("jobs/a")
	b.create("other")

	if text := b.ok("__complete", "show", "jo"); !strings.HasPrefix(text, "jobs/a\n:") {
		t.Errorf("offered: %q", text)
	}

	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if text := b.ok("completion", shell); !strings.Contains(text, "pglocker") {
			t.Errorf("%s: %q", shell, text)
		}
	}

	// Where the database is down the shell gets nothing, and no error.
	if text := b.ok("__complete", "-d", "host=127.0.0.1 port=1", "show", ""); !strings.HasPrefix(text, ":") {
		t.Errorf("offered without a database: %q", text)
	}
}
