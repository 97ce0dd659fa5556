package main

import (
	"strings"
	"testing"
)

func TestLs(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	if out := b.ok("ls", "-o", "json"); out != "[]\n" {
		t.Errorf("of an empty table: %q", out)
	}

	held := b.hold("jobs/a")
	expired := b.expire("jobs/b")

	_, err := b.locker.CreateLock(t.Context(), "other")
	must(t, err)

	records := decode[[]lockRecord](t, b.ok("ls", "-o", "json"))
	if len(records) != 3 {
		t.Fatalf("%d locks, want 3: %+v", len(records), records)
	}

	if r := records[0]; r.ID != "jobs/a" || r.State != stateHeld || r.Token != held.Token() || r.Remaining <= 0 ||
		r.Owner == nil || !strings.HasPrefix(*r.Owner, "other#") || r.AcquiredAt == nil || r.Kind != "lock" {
		t.Errorf("the held lock: %+v", r)
	}

	if r := records[1]; r.State != stateExpired || r.Token != expired.Generation || r.Remaining != 0 {
		t.Errorf("the expired lock: %+v", r)
	}

	if r := records[2]; r.State != stateFree || r.Owner != nil || r.AcquiredAt != nil {
		t.Errorf("the free lock: %+v", r)
	}

	text := b.ok("ls")
	if lines := strings.Split(text, "\n"); len(lines) != 5 || !strings.HasPrefix(lines[1], "jobs/a  held     ") {
		t.Errorf("as text:\n%s", text)
	}
}
