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
// It sees every term, unless
//
//   - the term's leader released it before the observer looked again. A leader of this library keeps each term
//     on the row for half a second, or half the TTL. An observer looks when it is notified, which takes
//     milliseconds, and when the lease ends. It looks every five seconds if it is notified, and else every
//     interval of [WithObserveInterval];
//   - the database couldn't be asked, or the loop's body ran, for as long as the term lasted.
//
// Then tokens jump by more than two. A vacancy that is shorter than the time between two looks isn't seen.
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
			row, err := e.lookWithin(ctx)

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

				for _, term := range seen.terms(row) {
					if !yield(term, nil) {
						return
					}
				}
			}

			next.Reset(e.untilLook(row, heard, failures))
		}
	}
}

// lookWithin is look, bounded: its connection may be dead without anybody knowing.
func (e *Election) lookWithin(ctx context.Context) (store.Row, error) {
	attempt, cancel := e.locker.desk.UntilClosed(ctx)
	defer cancel()

	attempt, stop := context.WithTimeout(attempt, beside.AttemptMax)
	defer stop()

	row, err := e.look(attempt)
	if err != nil && ctx.Err() == nil && attempt.Err() != nil {
		err = errors.New(err.Error()) // the context's error isn't the caller's
	}

	return row, err
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
}

// terms are the changes that a row shows.
func (s *sighting) terms(row store.Row) (changes []Term) {
	term, now := Term{Token: row.Generation, Leader: row.Owner, Since: row.AcquiredAt}, termOf(row)

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

	s.begun = true

	return changes
}
