package store

import (
	"context"
	"regexp"
	"sync"
	"sync/atomic"
	"time"
)

// If the server refuses a notification, the release is made without it, since waiters poll as well.
// Relatives of PostgreSQL lack pg_notify or refuse it. Or the queue is full, since a session
// doesn't read it: the commit of the release then fails.

// quietFor is how long releases go without a notification after one was refused.
const quietFor = time.Minute

// quiet says whether releases notify.
type quiet struct {
	// until is in nanoseconds since 1970, zero where nothing was refused.
	until atomic.Int64
	said  atomic.Bool
}

var notifyCall = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?:pg_catalog\.)?pg_notify\([^()]*\)`)
})

// withoutNotify is a statement that notifies nobody.
func withoutNotify(text string) (string, bool) {
	changed := notifyCall().ReplaceAllLiteralString(text, "NULL")

	return changed, changed != text
}

// audible is a statement as it is sent at present.
func (s *Store) audible(text string) string {
	if until := s.quiet.until.Load(); until != 0 && time.Now().UnixNano() < until {
		text, _ = withoutNotify(text)
	}

	return text
}

// askAudibly is ask for a statement that may notify.
func askAudibly[T any](ctx context.Context, s *Store, text string, args []any, scan scanFunc[T]) answer[T] {
	text = s.audible(text)
	send := func(text string) answer[T] { return ask(ctx, s, text, args, scan) }

	return orQuietly(s, text, send(text), send)
}

// orQuietly sends a statement that was refused again, without its notification. The second answer
// counts, unless it is a refusal too.
func orQuietly[T any](s *Store, text string, a answer[T], send func(text string) answer[T]) answer[T] {
	if a.outcome != refused || Passing(a.err) && !general(a.err) || lostName(a.err) {
		return a
	}

	text, notifies := withoutNotify(text)
	if !notifies {
		return a
	}

	switch b := send(text); {
	case b.err == nil:
		s.quiet.until.Store(time.Now().Add(quietFor).UnixNano())

		if s.quiet.said.CompareAndSwap(false, true) {
			s.log.Info("pglocker: releases go without notifications, so waiters poll", "error", a.err)
		}

		return b
	case b.outcome == unknown:
		return b
	default:
		return a
	}
}
