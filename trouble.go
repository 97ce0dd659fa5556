package pglocker

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

// tellEvery is how often a trouble is logged at most.
const tellEvery = time.Minute

// trouble is something that fails again and again. It is to be logged when it begins, once
// a minute while it lasts, and when it is over. If it begins anew within a minute of the last
// line, nothing is logged before that minute is over.
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

// over ends the trouble. It is true if that is to be logged.
func (t *trouble) over(now time.Time) (lasted time.Duration, failed int, tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()

	if !t.began.IsZero() {
		lasted = now.Sub(t.began)
	}

	failed, tell = t.failed, t.open
	t.began, t.failed, t.open = time.Time{}, 0, false

	return lasted, failed, tell
}

// logOver logs the end of a trouble, if its beginning was logged.
func (l *Locker) logOver(t *trouble, message string) {
	if lasted, failed, tell := t.over(time.Now()); tell {
		l.log.Info(message, "lasted", lasted, "failed_attempts", failed)
	}
}

// aside runs a function that may take long on a goroutine of its own. Close waits for it. Once
// the Locker is closed, the caller waits instead.
func (l *Locker) aside(run func()) {
	end, err := l.begin()
	if err != nil {
		run()

		return
	}

	go func() {
		defer end()
		run()
	}()
}

// renewalTrouble is told by the renewer of what goes wrong.
func (l *Locker) renewalTrouble(t keepalive.Trouble) {
	if t.Locks == 0 {
		l.aside(func() { l.logOver(&l.renewals, "pglocker: renewals are no longer in trouble") })

		return
	}

	if !l.renewals.happened(time.Now()) {
		return
	}

	l.aside(func() {
		level := slog.LevelWarn
		if panicked := (*keepalive.PanicError)(nil); errors.As(t.Err, &panicked) {
			level = slog.LevelError
		}

		locked := ""
		if t.Locked {
			locked = l.rowHolders(t.LockID)
		}

		l.log.Log(context.Background(), level, "pglocker: renewals are in trouble", "locks", t.Locks,
			"lock", t.LockID, "token", t.Generation, "left", t.Left, "last_renewed_ago", t.Since, "error", causeOf(t.Cause, locked))
	})
}

// releaseFailed logs a release that failed and is repeated.
func (l *Locker) releaseFailed(t *tenure, err error) {
	if l.releases.happened(time.Now()) {
		l.log.Warn("pglocker: releases are in trouble", "lock", t.lockID, "token", t.state.Generation, "error", err)
	}
}

// releaseSettled is called at the end of each release that had failed.
func (l *Locker) releaseSettled() {
	if l.failing.Add(-1) == 0 {
		l.logOver(&l.releases, "pglocker: releases are no longer in trouble")
	}
}

// holdersWithin bounds the look for the transactions that have a row locked.
const holdersWithin = time.Second

// tryRowHolders is rowHolders, but "" if somebody looks: a transaction that has many rows
// locked is found by one of them.
func (l *Locker) tryRowHolders(lockID string) string {
	if !l.looking.TryLock() {
		return ""
	}
	defer l.looking.Unlock()

	return l.lookForHolders(lockID)
}

// rowHolders names the transactions that have the lock's row locked, "" if that can't be found
// out within holdersWithin. One caller looks at a time.
func (l *Locker) rowHolders(lockID string) string {
	l.looking.Lock()
	defer l.looking.Unlock()

	return l.lookForHolders(lockID)
}

func (l *Locker) lookForHolders(lockID string) string {
	ctx, cancel := context.WithTimeout(l.ctx, holdersWithin)
	defer cancel()

	st := l.store

	if st.Exhausted() {
		spare := l.spare.use(l.newSpare)
		defer l.spare.done()

		if err := spare.opened(ctx, holdersWithin); err != nil {
			return ""
		}

		st = spare.store
	}

	holders, err := st.Holders(ctx, lockID)
	if err != nil {
		return ""
	}

	return strings.Join(namesOf(holders), ", ")
}

func namesOf(holders []store.Holder) []string {
	names := make([]string, len(holders))
	for i, h := range holders {
		names[i] = h.String()
	}

	return names
}
