package pglocker

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

// tellEvery is how often a trouble is logged at most.
const tellEvery = time.Minute

// trouble is something that fails again and again. Its beginning is logged, unless there was a line within the
// last minute; then it, once a minute; and its end, if its beginning was.
type trouble struct {
	// mu guards what follows.
	mu     sync.Mutex
	began  time.Time // zero while there is none
	told   time.Time
	failed int
	// open: its beginning was logged, and so its end will be.
	open bool
}

// happened counts a failure at now. It is true if that is to be logged.
func (t *trouble) happened(now time.Time) (tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()

	t.failed++

	if t.began.IsZero() {
		t.began = now
	}

	if !t.told.IsZero() && now.Sub(t.told) < tellEvery {
		return false
	}

	t.told, t.open = now, true

	return true
}

// over ends the trouble. tell: that is to be logged. lasted and failed have no meaning otherwise.
func (t *trouble) over(now time.Time) (lasted time.Duration, failed int, tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()

	lasted, failed, tell = now.Sub(t.began), t.failed, t.open
	t.began, t.failed, t.open = time.Time{}, 0, false

	return lasted, failed, tell
}

// report logs the troubles of one Locker, which its renewer and its desk tell it.
type report struct {
	desk *handover.Desk

	renewals, releases trouble
	// looking is held while a goroutine looks up which transactions have a row locked.
	looking sync.Mutex
}

// over logs the end of a trouble, if its beginning was logged.
func (r *report) over(t *trouble, message string) {
	if lasted, failed, tell := t.over(time.Now()); tell {
		r.desk.Log.Info(message, "lasted", lasted, "failed_attempts", failed)
	}
}

func (r *report) renewal(t keepalive.Trouble) {
	if t.Locks == 0 {
		r.desk.Aside(func() { r.over(&r.renewals, "pglocker: renewals are no longer in trouble") })

		return
	}

	if !r.renewals.happened(time.Now()) {
		return
	}

	r.desk.Aside(func() {
		level := slog.LevelWarn
		if errors.Is(t.Err, keepalive.ErrPanic) {
			level = slog.LevelError
		}

		holders := ""
		if t.Locked {
			r.looking.Lock()
			holders = r.rowHolders(t.LockID)
			r.looking.Unlock()
		}

		r.desk.Log.Log(context.Background(), level, "pglocker: renewals are in trouble", "locks", t.Locks,
			"lock", t.LockID, "token", t.Generation, "left", t.Left, "last_renewed_ago", t.Since, "error", causeOf(t.Cause, holders))
	})
}

func (r *report) release(t handover.Trouble) {
	if t.Locks == 0 {
		r.over(&r.releases, "pglocker: releases are no longer in trouble")
	} else if r.releases.happened(time.Now()) {
		r.desk.Log.Warn("pglocker: releases are in trouble", "locks", t.Locks, "lock", t.LockID, "token", t.Token, "error", t.Err)
	}
}

const holdersWithin = time.Second

// rowHolders names the transactions that have the lock's row locked, "" if that isn't found out within
// holdersWithin. The caller holds looking.
func (r *report) rowHolders(lockID string) string {
	ctx, cancel := context.WithTimeout(r.desk.Context(), holdersWithin)
	defer cancel()

	caller := r.desk.Beside.Caller()
	defer caller.Done()

	var names []string

	// What can't be asked isn't known.
	_ = caller.Ask(ctx, time.Now().Add(holdersWithin), holdersWithin, func(ctx context.Context, st *store.Store) error {
		holders, err := st.Holders(ctx, lockID)
		for _, h := range holders {
			names = append(names, h.String())
		}

		return err
	})

	return strings.Join(names, ", ")
}
