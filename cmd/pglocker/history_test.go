package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

func TestHistory(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	ctx := t.Context()

	first := b.hold("a")
	must(t, first.Unlock(ctx))

	crashed := b.expire("a")
	second := b.hold("a")
	must(t, b.locker.ForceRelease(ctx, "a", second.Token(), "a test"))
	b.hold("b")

	events := decode[[]eventRecord](t, b.ok("history", "a", "-o", "json"))

	var kinds []string
	for _, e := range events {
		kinds = append(kinds, string(e.Event))
	}

	if got := strings.Join(kinds, " "); got != "granted released granted expired granted forced" {
		t.Errorf("events: %s", got)
	}

	if e := events[5]; e.Reason == nil || *e.Reason != "a test" || e.Token != second.Token() || e.Owner == nil || e.ID != "a" {
		t.Errorf("the forced release: %+v", e)
	}

	all := decode[[]eventRecord](t, b.ok("history", "-o", "json"))
	if len(all) != 7 {
		t.Errorf("%d events of all locks, want 7", len(all))
	}

	last := decode[[]eventRecord](t, b.ok("history", "a", "-n", "2", "-o", "json"))
	if len(last) != 2 || last[0].Token != events[4].Token || last[1].Token != events[5].Token {
		t.Errorf("the last two: %+v", last)
	}

	// Of all locks the last are those by time: lock b was granted last.
	last = decode[[]eventRecord](t, b.ok("history", "-n", "2", "-o", "json"))
	if len(last) != 2 || last[0].Event != pglocker.EventForced || last[1].ID != "b" {
		t.Errorf("the last two of all: %+v", last)
	}

	b.exec("UPDATE pglocker.lock_history SET at = at - interval '1 hour' WHERE lock_id = 'b'")

	if last = decode[[]eventRecord](t, b.ok("history", "-n", "1", "-o", "json")); len(last) != 1 || last[0].ID != "a" {
		t.Errorf("the last of all: %+v", last)
	}

	if none := b.ok("history", "a", "--since", "0s", "-o", "json"); none != "[]\n" {
		t.Errorf("since now: %q", none)
	}

	text := b.ok("history", "a")
	if !strings.Contains(text, "reason: a test") || !strings.Contains(text, fmt.Sprint(crashed.Generation)) {
		t.Errorf("as text:\n%s", text)
	}

	tenure := decode[tenureRecord](t, b.ok("history", "a", "--at", events[0].At.Format(time.RFC3339Nano), "-o", "json"))
	if tenure.Token != first.Token() || tenure.End == nil || *tenure.End != pglocker.EventReleased || tenure.Until == nil || tenure.Owner == nil {
		t.Errorf("the first holder: %+v", tenure)
	}

	if text := b.ok("history", "b", "--at", "0s"); !strings.Contains(text, "It is held still") {
		t.Errorf("the holder now: %s", text)
	}

	b.fails(exitFailed, []string{"no holder: the history has no grant before 2020-01-02T03:04:05Z"}, "history", "a", "--at", "2020-01-02T03:04:05Z")
	b.fails(exitUsage, []string{"--at needs an ID"}, "history", "--at", "1h")
	b.fails(exitUsage, []string{"invalid time"}, "history", "--since", "yesterday")
	b.fails(exitUsage, []string{"must not be negative"}, "history", "-n", "-1")
	b.fails(exitUsage, []string{"at", "last"}, "history", "a", "--at", "1h", "-n", "1")
	b.fails(exitUsage, []string{"invalid lock id"}, "history", "")
}

func TestHistoryNotInstalled(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.exec("DROP FUNCTION pglocker.lock_history() CASCADE")
	b.exec("DROP TABLE pglocker.lock_history")

	b.fails(exitUnavailable, []string{"pglocker migrate --history"}, "history", "a")
	b.ok("migrate", "--history")
	b.ok("history", "a")
}
