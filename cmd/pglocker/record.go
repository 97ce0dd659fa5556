package main

import (
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

// The states of a lock.
const (
	stateHeld    = "held"
	stateMinHold = "min-hold" // released, and kept by a minimum hold
	stateFree    = "free"
	stateExpired = "expired" // free: its lease ended without a release
)

// lockRecord is a lock as -o json prints it. Fields may be added; those that are there keep their names.
type lockRecord struct {
	ID   string        `json:"id"`
	Kind pglocker.Kind `json:"kind"`
	// Name is the name of a semaphore, a read-write lock or an election, with its slot; or the id.
	Name  string `json:"name"`
	State string `json:"state"`
	Token int64  `json:"token"`
	// Owner is who holds the lock, or held it when its lease ended.
	Owner      *string    `json:"owner"`
	AcquiredAt *time.Time `json:"acquired_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
	// Remaining is how long the lease still runs, 0 if it has ended.
	Remaining float64 `json:"remaining_seconds"`
	// Waited says whether a waiter in another process listens for the release, null on a table of three columns.
	Waited *bool `json:"waited"`
}

// newRecord is a status as it looks at the time now of the database's clock. owners: the table shows them.
func newRecord(s pglocker.LockStatus, now time.Time, owners bool) lockRecord {
	r := lockRecord{ID: s.LockID, State: stateOf(s, now, owners), Token: s.Generation, ExpiresAt: s.ExpiresAt}
	r.Kind, r.Name = pglocker.KindOf(s.LockID)

	if s.Owner != "" {
		r.Owner = &s.Owner
	}

	if !s.AcquiredAt.IsZero() {
		r.AcquiredAt = &s.AcquiredAt
	}

	if owners {
		r.Waited = &s.Waited
	}

	if s.HeldAt(now) {
		r.Remaining = s.ExpiresAt.Sub(now).Round(time.Millisecond).Seconds()
	}

	return r
}

func stateOf(s pglocker.LockStatus, now time.Time, owners bool) string {
	switch held := s.HeldAt(now); {
	case held && s.Owner == "" && owners:
		return stateMinHold
	case held:
		return stateHeld
	case s.Owner != "":
		return stateExpired
	}

	return stateFree
}

// stateColours are the colours of the states on a terminal.
var stateColours = map[string]string{stateHeld: green, stateMinHold: yellow, stateExpired: red, stateFree: faint}

// inner reports whether a row is for the library alone: it is no lock that a program takes.
func inner(id string) bool {
	kind, name := pglocker.KindOf(id)

	return kind == pglocker.KindInternal || kind != pglocker.KindLock && strings.HasSuffix(name, ":gate")
}

func (r lockRecord) owner() string {
	if r.Owner == nil {
		return ""
	}

	return *r.Owner
}

func (r lockRecord) waited() string {
	if r.Waited != nil && *r.Waited {
		return "yes"
	}

	return "-"
}

// heldFor is how long the lock has been held, or "-".
func (r lockRecord) heldFor() string {
	if r.State != stateHeld || r.AcquiredAt == nil {
		return "-"
	}

	now := r.ExpiresAt.Add(-r.remaining())

	return spoken(max(now.Sub(*r.AcquiredAt), 0))
}

// endsIn is how long the lease still runs, or "-".
func (r lockRecord) endsIn() string {
	if r.Remaining == 0 {
		return "-"
	}

	return spoken(r.remaining())
}

func (r lockRecord) remaining() time.Duration {
	return time.Duration(r.Remaining * float64(time.Second))
}
