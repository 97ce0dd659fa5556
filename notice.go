package pglocker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

const (
	// A waiter is told of in the log when it has waited for noticeAfter, and then every
	// noticeEvery. However many wait for a lock in a Locker, it is told once in that time.
	noticeAfter = 5 * time.Second
	noticeEvery = time.Minute
)

// noticeTimer yields when a waiter is to be told of for the first time, never if nobody wants to
// know.
func (l *Locker) noticeTimer(ctx context.Context) *time.Timer {
	timer := time.NewTimer(noticeAfter)

	if !l.log.Enabled(ctx, slog.LevelInfo) {
		timer.Stop()
	}

	return timer
}

// notices are the locks that were told of lately.
type notices struct {
	// mu guards what follows.
	mu sync.Mutex
	// last is when each was told of. Older ones are forgotten when there are limit.
	last  map[string]time.Time
	limit int
}

// due reports whether a lock is to be told of now, and notes that it is.
func (n *notices) due(lockID string, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()

	if last, ok := n.last[lockID]; ok && now.Sub(last) < noticeEvery {
		return false
	}

	if len(n.last) >= n.limit {
		for id, last := range n.last {
			if now.Sub(last) >= noticeEvery {
				delete(n.last, id)
			}
		}

		n.limit = max(2*len(n.last), 64)
	}

	if n.last == nil {
		n.last = make(map[string]time.Time)
	}

	n.last[lockID] = now

	return true
}

// tellWaiting tells the log that somebody has waited for a lock since it joined the line,
// and, as the database has it now, for whom.
func (l *Locker) tellWaiting(ctx context.Context, lockID string, joined time.Time) {
	if !l.notices.due(lockID, time.Now()) {
		return
	}

	end, err := l.begin()
	if err != nil {
		return
	}

	go func() {
		defer end()

		attempt, cancel := context.WithTimeout(store.Outlive(ctx), attemptMax)
		defer cancel()

		stop := context.AfterFunc(l.ctx, cancel)
		defer stop()

		attrs := []slog.Attr{slog.String("lock", lockID), slog.Duration("waited", time.Since(joined))}

		seen, err := l.store.Get(attempt, lockID)
		if l.ctx.Err() != nil {
			return
		}

		switch row := seen.Row; {
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

		l.log.LogAttrs(ctx, slog.LevelInfo, "pglocker: waiting for a lock", attrs...)
	}()
}
