package contract

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// OddLockIDs are lock ids that only an exact round trip keeps apart: they are special in
// SQL, in array literals or in a text protocol.
func OddLockIDs() []string {
	return []string{
		"NULL", "null", `"NULL"`,
		" ", "  ", "a", "a ", " a", "a\t", "A", "\n", "\r\n", "\a\x01\x7f",
		"{", "}", "{}", "{a,b}", ",", ",,", `"`, `""`, `\`, `\\`, `\"`, `"\`, `\n`, `\000`, `\x41`,
		"'", "''", "'; DROP TABLE lock_statuses; --", "$1", "$$", "%s", "%", "_", ":name", "?", "[1]", "--", "/*",
		"émile", "e\u0301mile", "ß", "ss", "İ", "日本語", "🔒", "👩‍👩‍👧‍👦", "\u200b", "\ufeff", "\U0010ffff", "\ufffd",
		strings.Repeat("x", pglocker.MaxLockIDBytes),
		strings.Repeat(`"`, pglocker.MaxLockIDBytes),
		strings.Repeat(`\`, pglocker.MaxLockIDBytes),
		strings.Repeat("🔒", pglocker.MaxLockIDBytes/4),
	}
}

// testLockIDs: every statement keeps every valid id as it is, and no two ids are the same
// lock.
func testLockIDs(t *testing.T, e *env) {
	ctx := withinContext(t)

	ids := OddLockIDs()
	held := make(map[string]*pglocker.LockStatus, len(ids))

	for _, id := range ids {
		held[id] = e.acquire(t, id, minute)
	}

	for _, id := range ids {
		if got := e.get(t, id); *got != *held[id] {
			t.Errorf("acquired %+v, got %+v", held[id], got)
		}

		stored := Query[int](t, e.direct, "SELECT count(*) FROM "+e.table()+" WHERE convert_to(lock_id::text, 'UTF8') = $1", []byte(id))
		if stored != 1 {
			t.Errorf("%d rows have the id %q, byte for byte", stored, id)
		}
	}

	for _, id := range ids {
		refreshed, err := e.locker.RefreshLock(ctx, held[id], minute)
		if err != nil {
			t.Errorf("RefreshLock of %q: %v", id, err)

			continue
		}

		held[id] = refreshed
	}

	// Renewals send many ids in one array literal.
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	done := make(chan error, len(ids))

	for _, id := range ids {
		go func() { done <- e.locker.StartRelocker(ctx, held[id], 2*minute, minute) }()
	}

	Await(t, "every lease is renewed", func() bool {
		for _, id := range ids {
			if status, err := e.locker.GetLockStatus(t.Context(), id); err != nil || !status.ExpiresAt.After(held[id].ExpiresAt) {
				return false
			}
		}

		return true
	})
	stop()

	for range ids {
		if err := Receive(t, "the relocker ends", done); err != nil {
			t.Error(err)
		}
	}

	for _, id := range ids {
		e.isFree(t, id)
	}
}

// BadLockIDs are lock ids that are refused.
func BadLockIDs() map[string]string {
	return map[string]string{
		"empty":        "",
		"too long":     strings.Repeat("x", pglocker.MaxLockIDBytes+1),
		"NUL":          "a\x00b",
		"only NUL":     "\x00",
		"cut rune":     "\xf0\x9f\x94",
		"surrogate":    "\xed\xa0\x80",
		"latin1":       "caf\xe9",
		"long by rune": strings.Repeat("é", pglocker.MaxLockIDBytes/2+1),
	}
}

// BadTTLs are TTLs that are refused.
func BadTTLs() []time.Duration {
	return []time.Duration{
		0, -1, -time.Second, math.MinInt64,
		1, time.Microsecond, time.Millisecond - 1,
		pglocker.MaxTTL + 1, math.MaxInt64,
	}
}

// BadCalls calls every method of a locker with every input that it must refuse. It fails
// the test unless the error names that input.
func BadCalls(ctx context.Context, t *testing.T, locker *pglocker.Locker) {
	t.Helper()

	status := func(id string) *pglocker.LockStatus { return &pglocker.LockStatus{LockID: id, Generation: 1} }
	never := func(context.Context) error {
		t.Error("fn was called")

		return nil
	}
	check := func(want error, what string, err error) {
		t.Helper()

		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}

	for name, id := range BadLockIDs() {
		_, err := locker.CreateLock(ctx, id)
		check(pglocker.ErrInvalidLockID, "CreateLock of lock id: "+name, err)
		_, err = locker.GetLockStatus(ctx, id)
		check(pglocker.ErrInvalidLockID, "GetLockStatus of lock id: "+name, err)
		_, err = locker.AcquireLock(ctx, id, minute)
		check(pglocker.ErrInvalidLockID, "AcquireLock of lock id: "+name, err)
		_, err = locker.RefreshLock(ctx, status(id), minute)
		check(pglocker.ErrInvalidLockID, "RefreshLock of lock id: "+name, err)
		check(pglocker.ErrInvalidLockID, "ReleaseLock of lock id: "+name, locker.ReleaseLock(ctx, status(id)))
		check(pglocker.ErrInvalidLockID, "StartRelocker of lock id: "+name, locker.StartRelocker(ctx, status(id), minute, time.Second))
		check(pglocker.ErrInvalidLockID, "Do of lock id: "+name, locker.Do(ctx, id, minute, time.Second, never))
	}

	const reserved = pglocker.ReservedPrefix + "a"

	for what, call := range map[string]func() error{
		"CreateLock":    func() error { _, err := locker.CreateLock(ctx, reserved); return err },
		"AcquireLock":   func() error { _, err := locker.AcquireLock(ctx, reserved, minute); return err },
		"RefreshLock":   func() error { _, err := locker.RefreshLock(ctx, status(reserved), minute); return err },
		"ReleaseLock":   func() error { return locker.ReleaseLock(ctx, status(reserved)) },
		"StartRelocker": func() error { return locker.StartRelocker(ctx, status(reserved), minute, time.Second) },
		"Do":            func() error { return locker.Do(ctx, reserved, minute, time.Second, never) },
		"TryLock":       func() error { _, err := locker.TryLock(ctx, reserved, minute); return err },
		"Lock":          func() error { _, err := locker.Lock(ctx, reserved, minute); return err },
	} {
		check(pglocker.ErrReservedLockID, what+" of a reserved lock id", call())
	}

	for _, ttl := range BadTTLs() {
		_, err := locker.AcquireLock(ctx, "a", ttl)
		check(pglocker.ErrInvalidTTL, fmt.Sprintf("AcquireLock for %s", ttl), err)
		_, err = locker.RefreshLock(ctx, status("a"), ttl)
		check(pglocker.ErrInvalidTTL, fmt.Sprintf("RefreshLock for %s", ttl), err)
		check(pglocker.ErrInvalidTTL, fmt.Sprintf("StartRelocker for %s", ttl), locker.StartRelocker(ctx, status("a"), ttl, time.Second))
		check(pglocker.ErrInvalidTTL, fmt.Sprintf("Do for %s", ttl), locker.Do(ctx, "a", ttl, time.Second, never))
	}

	for _, interval := range []time.Duration{0, -1, math.MinInt64, minute, minute + 1, math.MaxInt64} {
		check(pglocker.ErrInvalidRelockInterval, fmt.Sprintf("StartRelocker every %s", interval),
			locker.StartRelocker(ctx, status("a"), minute, interval))
		check(pglocker.ErrInvalidRelockInterval, fmt.Sprintf("Do every %s", interval),
			locker.Do(ctx, "a", minute, interval, never))
	}

	_, err := locker.RefreshLock(ctx, nil, minute)
	check(pglocker.ErrStatusIsNil, "RefreshLock of no status", err)
	check(pglocker.ErrStatusIsNil, "ReleaseLock of no status", locker.ReleaseLock(ctx, nil))
	check(pglocker.ErrStatusIsNil, "StartRelocker of no status", locker.StartRelocker(ctx, nil, minute, time.Second))
	check(pglocker.ErrFuncIsNil, "Do of no func", locker.Do(ctx, "a", minute, time.Second, nil))
}

// testBadInput: refused input changes nothing, and the locker goes on to work.
func testBadInput(t *testing.T, e *env) {
	ctx := withinContext(t)
	held := e.acquire(t, newID(), minute)
	rows := func() int { return Query[int](t, e.direct, "SELECT count(*) FROM "+e.table()) }

	before := rows()

	BadCalls(ctx, t, e.locker)

	if after := rows(); after != before {
		t.Errorf("%d rows have become %d", before, after)
	}

	if got := e.get(t, held.LockID); *got != *held {
		t.Errorf("held %+v, got %+v", held, got)
	}

	if err := e.locker.ReleaseLock(ctx, held); err != nil {
		t.Errorf("the locker doesn't work any more: %v", err)
	}

	for _, ttl := range []time.Duration{pglocker.MinTTL, pglocker.MaxTTL} {
		if _, err := e.locker.AcquireLock(ctx, newID(), ttl); err != nil {
			t.Errorf("AcquireLock for %s: %v", ttl, err)
		}
	}
}

// testMissingTable: the error says how to create the table. When the table is there, the
// same locker works.
func testMissingTable(t *testing.T, e *env) {
	ctx := withinContext(t)

	cfg := e.config()
	cfg.Table = "not_there_yet"

	locker := e.open(t, cfg)
	id := newID()
	errs := make(map[string]error)
	status := &pglocker.LockStatus{LockID: id, Generation: 1}

	_, errs["CreateLock"] = locker.CreateLock(ctx, id)
	_, errs["GetLockStatus"] = locker.GetLockStatus(ctx, id)
	_, errs["AcquireLock"] = locker.AcquireLock(ctx, id, minute)
	_, errs["RefreshLock"] = locker.RefreshLock(ctx, status, minute)
	errs["ReleaseLock"] = locker.ReleaseLock(ctx, status)
	errs["Do"] = locker.Do(ctx, id, minute, time.Second, func(context.Context) error { return nil })

	for verb, err := range errs {
		if !errors.Is(err, pglocker.ErrTableNotFound) || !strings.Contains(err.Error(), "MigrateDB") ||
			!strings.Contains(err.Error(), cfg.Table) {
			t.Errorf("%s without a table: %v, want ErrTableNotFound, the table's name and how to make it", verb, err)
		}
	}

	e.makeTable(t, cfg)

	held, err := locker.AcquireLock(ctx, id, minute)
	if err != nil {
		t.Fatalf("AcquireLock after the table was made: %v", err)
	}

	// The table may also be dropped again.
	Exec(t, e.direct, fmt.Sprintf("DROP TABLE %s.%s", quote(cfg.Scheme), quote(cfg.Table)))

	if err := locker.ReleaseLock(ctx, held); !errors.Is(err, pglocker.ErrTableNotFound) {
		t.Errorf("ReleaseLock without a table: %v, want ErrTableNotFound", err)
	}
}
