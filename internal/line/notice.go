package line

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/store"
)

const (
	// A waiter is logged after noticeAfter, and then every noticeEvery. All waiters of a lock in a Locker
	// share one line.
	noticeAfter = 5 * time.Second
	noticeEvery = time.Minute
)

// notices are the locks that were logged in the last minute, and older ones.
type notices struct {
	mu sync.Mutex
	// last is when each was logged. When there are limit of them, old ones are dropped. mu guards both.
	last  map[string]time.Time
	limit int
}

// due reports whether a lock is to be logged now, and notes that it is.
func (n *notices) due(lockID string, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()

	if last, ok := n.last[lockID]; ok && now.Sub(last) < noticeEvery {
		return false
	}

	if len(n.last) >= n.limit {
		maps.DeleteFunc(n.last, func(_ string, last time.Time) bool { return now.Sub(last) >= noticeEvery })

		n.limit = max(2*len(n.last), 64)
	}

	if n.last == nil {
		n.last = make(map[string]time.Time)
	}

	n.last[lockID] = now

	return true
}

// tellWaiting logs that a waiter has been in line since joined, and who holds the lock now.
func (l *Line) tellWaiting(ctx context.Context, lockID string, joined time.Time) {
	if !l.Desk.Log.Enabled(ctx, slog.LevelInfo) || !l.notices.due(lockID, time.Now()) {
		return
	}

	l.Desk.Aside(func() {
		closed := l.Desk.Context()
		if closed.Err() != nil {
			return
		}

		attempt, cancel := context.WithTimeout(store.Outlive(ctx), beside.AttemptMax)
		defer cancel()

		stop := context.AfterFunc(closed, cancel)
		defer stop()

		attrs := []slog.Attr{slog.String("lock", lockID), slog.Duration("waited", time.Since(joined))}

		found, err := l.Desk.Store.Get(attempt, lockID)
		if closed.Err() != nil {
			return
		}

		switch row := found.Row; {
		case err != nil:
			attrs = append(attrs, slog.Any("error", err))
		case row.Held():
			attrs = append(attrs, slog.Int64("token", row.Generation))
			if row.Owner != "" {
				attrs = append(attrs, slog.String("owner", row.Owner))
			}

			if !row.AcquiredAt.IsZero() {
				attrs = append(attrs, slog.Time("held_since", row.AcquiredAt), slog.Duration("held_for", row.Now.Sub(row.AcquiredAt)))
			}
		}

		l.Desk.Log.LogAttrs(ctx, slog.LevelInfo, "pglocker: waiting for a lock", attrs...)
	})
}
