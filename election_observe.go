package pglocker

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/pause"
	"github.com/ismurov/pglocker/internal/store"
)

const (
	// heardLook is how often an observer looks that is notified: a notification may get lost.
	heardLook = 5 * time.Second
	// After an error, an observer pauses for failedLook, and then twice as long each time up to heardLook.
	failedLook = 100 * time.Millisecond
)

// Observe yields who leads now, and then every change of that, until ctx ends: the next term, or a vacancy
// ([Term.Vacant]). It shows what the database shows, in the order of tokens, and no term twice.
//
// It sees every term that a function led, however short, also those that began and ended while it couldn't
// look: leaders write their terms down. The table keeps the last 16 at least. Of a longer absence, or of
// terms that no Election led, only the last is seen. A vacancy that is shorter than the time between two looks
// isn't seen.
//
// It looks when it is notified, which takes milliseconds, when the lease ends, and every five seconds. If it
// can't be notified, it looks every interval of [WithObserveInterval].
//
// An error that may pass is yielded with the zero Term, and Observe goes on, with pauses of 0.1 to 5 s. Other
// errors are yielded and end the sequence, such as [ErrPermissionDenied], [ErrTableNotFound], and [ErrClosed].
// When ctx ends, the sequence ends without an error.
//
// It looks in the caller's goroutine. Nothing is left when the loop is broken. The loop's body must not call
// [Locker.Close], which waits for the loop.
func (e *Election) Observe(ctx context.Context) iter.Seq2[Term, error] {
	return func(yield func(Term, error) bool) {
		l := e.locker

		end, err := l.desk.Begin()
		if err != nil {
			yield(Term{}, err)

			return
		}
		defer end()

		told, done := l.news.subscribe(e.id, e.termID)
		defer done()

		l.listener.Use()
		defer l.listener.Done()

		seen := new(sighting)
		next := time.NewTimer(0)

		defer next.Stop()

		for failures := 0; ; {
			select {
			case <-told:
			case <-next.C:
			case <-ctx.Done():
				return
			case <-l.desk.Context().Done():
				yield(Term{}, context.Cause(l.desk.Context()))

				return
			}

			heard := l.listener.Proven() // whatever changes after the look
			row, missed, err := e.lookWithin(ctx, seen)

			switch {
			case ctx.Err() != nil:
				return
			case l.desk.Context().Err() != nil:
				continue
			case err != nil:
				failures++

				if !yield(Term{}, failed("observe", e.name, err)) || final(err) {
					return
				}
			default:
				failures = 0

				for _, term := range seen.terms(row, missed) {
					if !yield(term, nil) {
						return
					}
				}
			}

			next.Reset(e.untilLook(row, heard, failures))
		}
	}
}

// lookWithin is look, and finds the terms in the log that ended since the last look. It is bounded: its
// connection may be dead without anybody knowing.
func (e *Election) lookWithin(ctx context.Context, seen *sighting) (row store.Row, missed []Term, err error) {
	attempt, cancel := e.locker.desk.UntilClosed(ctx)
	defer cancel()

	attempt, stop := context.WithTimeout(attempt, beside.AttemptMax)
	defer stop()

	row, err = e.look(attempt)

	for token, last := seen.unseen(row); err == nil && token <= last; token++ {
		var res store.Result

		res, err = e.locker.store.Look(attempt, e.logID(token))
		if term := res.Row; err == nil && term.Generation == token {
			missed = append(missed, Term{Token: token, Leader: term.Owner, Since: term.AcquiredAt})
		}
	}

	if err != nil && ctx.Err() == nil && attempt.Err() != nil {
		err = errors.New(err.Error()) // the context's error isn't the caller's
	}

	return row, missed, err
}

// untilLook is how long an observer waits for the next look, if it is told of nothing.
func (e *Election) untilLook(row store.Row, heard bool, failures int) time.Duration {
	if failures > 0 {
		return pause.Jitter(min(failedLook<<min(failures-1, 10), heardLook), 2)
	}

	interval := e.options.observeInterval
	if heard {
		interval = heardLook
	}

	interval = pause.Jitter(interval, 10)
	if row.Held() {
		interval = min(interval, row.Remaining()+handover.PollLate)
	}

	return interval
}

// sighting is what an observer has seen last.
type sighting struct {
	begun, vacant bool
	// token is the largest of a term that was seen.
	token int64
	// first and last are the generations of the row at the first look and at the last one.
	first, last int64
}

// unseen are the tokens, from the first to the last, of terms that may have begun and ended since the last look.
func (s *sighting) unseen(row store.Row) (first, last int64) {
	if !s.begun || row.Generation == s.last {
		return 1, 0
	}

	last = row.Generation - 1 // it was released, or another term has begun

	return max(s.token+1, s.first+1, last-logged+1), last
}

// terms are the changes that a row shows, and the terms of the log that come before.
func (s *sighting) terms(row store.Row, missed []Term) (changes []Term) {
	term, now := Term{Token: row.Generation, Leader: row.Owner, Since: row.AcquiredAt}, termOf(row)

	for _, m := range missed {
		changes = append(changes, m)
		s.token, s.vacant = m.Token, false
	}

	if !s.begun {
		s.first, s.token = row.Generation, row.Generation-1
	}

	// Until its release, a row names the leader of a term whose lease has ended. A crash of the server may bring
	// back a term that was released: it is over, and was seen before.
	if ended := now.Vacant() && row.Owner != ""; (ended || !now.Vacant()) && term.Token > s.token {
		if s.begun || !ended {
			changes = append(changes, term)
		}

		s.token, s.vacant = term.Token, false
	}

	if now.Vacant() && (!s.vacant || !s.begun) {
		changes = append(changes, now)
		s.vacant = true
	}

	s.begun, s.last = true, row.Generation

	return changes
}
