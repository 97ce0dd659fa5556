package store

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// What a migration may wait for.
const (
	otherMigration = "another migration to end"
	tableLock      = "a lock on the table"
)

// logEvery is how often a migration that goes on waiting logs it.
const logEvery = time.Minute

// migrationWait is what a migration waits for.
type migrationWait struct {
	store *Store
	log   *slog.Logger
	since time.Time

	logged   time.Time // zero: never
	waitsFor string
	heldBy   string
}

// note looks up the transactions in the way, and logs them every logEvery. When ctx has ended, it
// looks only if it never did.
func (w *migrationWait) note(ctx context.Context, waitsFor string) {
	if waitsFor == "" || ctx.Err() != nil && w.waitsFor != "" {
		return
	}

	what, args := sqlLocksOfTable, []any{w.store.table.Schema, w.store.table.Name}
	if waitsFor == otherMigration {
		what, args = sqlLocksOfKey, []any{int64(migrationLock)}
	}

	looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
	defer cancel()

	found, err := w.store.holders(looking, what, args...)

	w.waitsFor, w.heldBy = waitsFor, "another transaction"

	if err == nil && len(found) > 0 {
		w.heldBy = strings.Join(valuesOf(found, func(h *Holder) string { return h.detail() }), ", ")
	}

	if w.log == nil || ctx.Err() != nil || !w.logged.IsZero() && time.Since(w.logged) < logEvery {
		return
	}

	w.logged = time.Now()
	w.log.LogAttrs(ctx, slog.LevelWarn, "pglocker: the migration waits, and tries again",
		slog.String("table", w.store.table.String()), slog.String("waits_for", waitsFor),
		slog.String("held_by", w.heldBy), slog.Duration("waited", time.Since(w.since)))
}

// explain adds to an error of a migration what it waited for.
func (w *migrationWait) explain(err error) error {
	if w.waitsFor == "" {
		return err
	}

	return fmt.Errorf("it waited for %s, held by %s: %w", w.waitsFor, w.heldBy, err)
}
