package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Verdict is the database's answer to a request, given that there was one.
type Verdict int

const (
	// Granted: the row is as asked for, and that is durable.
	Granted Verdict = iota + 1
	// Busy: the lock is held by another.
	Busy
	// WrongGeneration: the row has another generation than the request named.
	WrongGeneration
	// NotFound: there is no row.
	NotFound
)

// Result is a verdict with what it rests on.
type Result struct {
	Verdict Verdict
	// Row is the row after a grant; the row that stood in the way for Busy and
	// WrongGeneration; nothing for NotFound.
	Row Row
	// Mark is, for a Claim that was not granted, the mark that stood on the row
	// before it.
	Mark time.Time
	// Marked: that Claim left a mark. Row shows it, or that of another who has waited
	// since.
	Marked bool
	// Stray are the owners of those attempts of this request whose replies were lost. One of
	// them may be what the row shows now, unless the verdict is Granted, or the server may
	// still grant it: a network or a pooler can hold an attempt back for minutes. No caller
	// waits for such a grant. Stray is set beside an error, too.
	Stray []string
	// Notified: those who wait were told of a release.
	Notified bool
	// Sent is the moment before the granting statement was sent. The lease
	// can't have begun before it.
	Sent time.Time
	// Later is how long after Sent the statement was sent that Row is from, if it is
	// another.
	Later time.Duration
}

// Lease is how long the row of a grant shows the lease, counted from a moment after Sent: at
// least what was asked for, unless a trigger cut it.
func (r Result) Lease() time.Duration { return leaseOf(r.Row.ExpiresAt, r.Row.Began) + r.Later }

// errCut is the error of a grant whose lease is of no use to anybody.
func errCut(res Result, margin time.Duration) error {
	return fmt.Errorf("%w: it shows a lease of %s where more was asked for, and at least the safety margin of %s "+
		"is needed (a trigger?)", ErrInvalidTable, res.Lease(), margin)
}

// maxContests bounds the rounds of one Acquire. A round ends without an answer
// only if the lock changed hands between two statements.
const maxContests = 16

// Acquire grants the lock to owner for ttl if it is free, and creates it if it
// isn't there. owner must be of this call alone: a grant whose reply is lost is
// found again by it. Each attempt after a lost reply has an owner of its own, made
// from that one, so that a grant can be told from one that comes later. A grant with
// margin or less remaining is not reported.
//
// An error that matches [ErrUnknownOutcome] means that the lock may have been
// granted, to one of Result.Stray; any other error, that it was not.
func (s *Store) Acquire(ctx context.Context, id, owner string, ttl, margin time.Duration) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Result{}, err
	}

	g := grant{store: s, shape: sh, id: id, owner: owner, ttl: ttl}

	return g.result(g.acquire(ctx, margin))
}

func (g *grant) acquire(ctx context.Context, margin time.Duration) (Result, error) {
	var (
		s     = g.store
		seen  Result
		alone bool
	)

	for contests := 0; contests < maxContests; {
		res, granted, err := g.try(ctx, s.lanes.acquire, State{}, alone)
		if err != nil {
			return Result{}, err
		}

		if granted || g.waited || !alone { // else it may have been passed over again
			contests++
		}

		if !granted {
			if seen, err = s.look(ctx, g.shape, g.id); err != nil {
				return Result{}, g.doubt(err)
			}

			// If it is free, a statement for several may have passed it over.
			alone = true

			switch {
			case seen.Verdict == NotFound:
				res, granted, err = g.try(ctx, s.lanes.insert, State{}, false)
				if err != nil {
					return Result{}, err
				}
			case seen.Row.Held() && !g.mine(seen.Row):
				if g.doubtful && !g.shape.full {
					return Result{}, g.doubt(nil)
				}

				seen.Verdict = Busy

				return seen, nil
			}
		}

		// The lease was computed before the statement waited for the row; if
		// whoever held the row rolled back, part of it may be gone by now.
		for granted && res.Row.Remaining() <= margin {
			if res.Lease() <= margin {
				return Result{}, errCut(res, margin)
			}

			g.over = true
			res, granted, err = g.try(ctx, s.lanes.refresh, State{Generation: res.Row.Generation}, true)
			if err != nil {
				return Result{}, err
			}
		}

		if granted {
			return res, nil
		}
	}

	if g.doubtful {
		return Result{}, g.doubt(nil)
	}

	if g.shape.secured && !seen.Row.Held() {
		return Result{}, s.hidden(g.id)
	}

	// Every round found it free and lost it to another: contended, if not held
	// at this very moment.
	seen.Verdict = Busy

	return seen, nil
}

// State is a state of a lock that a request goes by.
type State struct {
	Generation int64
	// Until is what that state showed as the end of the lease, zero if that isn't known or
	// the state was that of a grant. A crash may have undone a release, and the next
	// grant have got its generation: a tenure that began after Until is not this state.
	// Without the columns it takes, it is ignored, and releases are flushed.
	Until time.Time
}

// Dated reports whether the state goes by more than its generation.
func (s *Store) Dated(st State) bool { return s.Full() && !st.Until.IsZero() }

func (st State) seen(sh *shape) int64 {
	if !sh.full || st.Until.IsZero() {
		return 0
	}

	return st.Until.UnixMicro()
}

// shownBy reports whether the row shows this state: an update by it finds the row, unless
// row-level security keeps the row from it.
func (st State) shownBy(row Row) bool {
	return row.Generation == st.Generation && (st.Until.IsZero() || !row.AcquiredAt.After(st.Until))
}

// Refresh grants the lock to owner for ttl if it is in the given state, held or not.
// Errors are as for [Store.Acquire].
func (s *Store) Refresh(ctx context.Context, id string, state State, owner string, ttl, margin time.Duration) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Result{}, err
	}

	g := grant{store: s, shape: sh, id: id, owner: owner, ttl: ttl, keep: true}

	return g.result(g.swap(ctx, state, margin))
}

// HandOver is [Store.Refresh] for another owner than the one that holds the lock: a
// release and the grant to the next in one statement.
func (s *Store) HandOver(ctx context.Context, id string, generation int64, owner string, ttl, margin time.Duration) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Result{}, err
	}

	g := grant{store: s, shape: sh, id: id, owner: owner, ttl: ttl}

	return g.result(g.swap(ctx, State{Generation: generation}, margin))
}

// swap grants by a state.
func (g *grant) swap(ctx context.Context, state State, margin time.Duration) (Result, error) {
	s := g.store
	alone := false

	for {
		res, granted, err := g.try(ctx, s.lanes.refresh, state, alone)
		if err != nil {
			return Result{}, err
		}

		if granted && res.Row.Remaining() > margin {
			return res, nil
		}

		if granted && res.Lease() <= margin {
			return Result{}, errCut(res, margin)
		}

		if granted { // computed before a wait, see Acquire
			g.over = true
			state = State{Generation: res.Row.Generation}

			continue
		}

		seen, err := s.look(ctx, g.shape, g.id)
		if err != nil {
			return Result{}, g.doubt(err)
		}

		if g.doubtful && !g.shape.full {
			return Result{}, g.doubt(nil)
		}

		if seen.Verdict == Granted && (seen.Row.Generation == state.Generation || g.mine(seen.Row)) && !g.waited {
			alone = true // a statement for several passed it over

			continue
		}

		if seen.Verdict == Granted {
			if g.shape.secured && state.shownBy(seen.Row) {
				return Result{}, g.doubt(s.hidden(g.id))
			}

			seen.Verdict = WrongGeneration
		}

		return seen, nil
	}
}

// grant is one request for a lock, through all its attempts.
type grant struct {
	store *Store
	shape *shape
	id    string
	// owner is that of the next attempt. first is the caller's, of which the others are made,
	// and renamed counts those.
	owner, first string
	renamed      int
	ttl          time.Duration
	// keep: the grant extends a lease under which the caller may be working, even if it
	// doesn't wait for the answer.
	keep bool
	// refreshed: the shape was looked up anew.
	refreshed bool

	// waited: the last answer was one to a statement that waited for the row.
	waited bool
	// doubtful: a reply was lost, so the row may already name one of the owners in lost.
	doubtful bool
	lost     []string
	cause    error
	// over: it was granted, and the lease was over, or nearly, when that was acknowledged. If
	// nothing better comes of it, that it was refused would be wrong as well.
	over bool
	// firstSent is when the first of the doubtful attempts was sent: the lease
	// can't have begun earlier, and may have begun then.
	firstSent time.Time
}

// lose notes that the reply to the present attempt, which was sent at the given moment, was
// lost. It gives the next attempt an owner of its own. Under the same owner, a late grant of
// this attempt could not be told from that of the next, and so could never be returned.
func (g *grant) lose(sent time.Time, cause error) {
	if !g.doubtful {
		g.doubtful, g.cause, g.firstSent = true, cause, sent
		g.first = g.owner
	}

	g.lost = append(g.lost, g.owner)
	g.renamed++
	g.owner = fmt.Sprintf("%s-%d", g.first, g.renamed+1)
}

// result adds to the result of a request the attempts that are astray.
func (g *grant) result(res Result, err error) (Result, error) {
	res.Stray = g.lost

	// What was granted, and then not refreshed, may stand on the row as well.
	if g.over && errors.Is(err, ErrUnknownOutcome) {
		res.Stray = append(res.Stray, g.owner)
	}

	return res, err
}

// mine reports whether the row was left by an attempt whose reply was lost.
func (g *grant) mine(row Row) bool { return slices.Contains(g.lost, row.Owner) }

// outdated looks the shape up anew, once, if err may be due to the one that was known, and
// reports whether it is another.
func (g *grant) outdated(ctx context.Context, err error) bool {
	if g.refreshed || !outdated(err) {
		return false
	}

	g.refreshed = true

	found, ok := g.store.changed(ctx, g.shape)
	g.shape = found

	return ok
}

// doubt is the error of a request that may have been granted.
func (g *grant) doubt(err error) error {
	switch {
	case !g.doubtful && (!g.over || err == nil):
		return err
	case err == nil:
		err = g.cause
	}

	if errors.Is(err, ErrUnknownOutcome) {
		return err
	}

	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// try sends a granting statement. Where the reply is lost it asks again, which
// is safe because the row names the owner: either the repetition is granted, or
// an earlier attempt was and is confirmed by a write, or another holds the lock. On
// a table without owners the outcome stays unknown.
func (g *grant) try(ctx context.Context, l *lane[Row], state State, alone bool) (Result, bool, error) {
	req := request{
		shape: g.shape, id: g.id, owner: g.owner, ttl: Microseconds(g.ttl),
		generation: state.Generation, seen: state.seen(g.shape), discard: !g.keep,
	}

	for n := 1; ; n++ {
		start := time.Now()
		req.owner = g.owner
		a := l.write(ctx, req, alone)
		g.waited = a.waited

		if a.err == nil && len(a.rows) == 1 {
			return Result{Verdict: Granted, Row: a.rows[0], Sent: a.sent}, true, nil
		}

		if a.outcome == unknown {
			g.lose(start, a.err)
		}

		if a.err == nil && g.doubtful && g.shape.full {
			var confirmed bool

			if a, confirmed = g.confirm(ctx, req, alone); confirmed {
				return Result{Verdict: Granted, Row: a.rows[0], Sent: g.firstSent, Later: a.sent.Sub(g.firstSent)}, true, nil
			}
		}

		if a.err == nil {
			return Result{}, false, nil
		}

		if a.outcome == refused && g.outdated(ctx, a.err) {
			req.shape, req.seen = g.shape, state.seen(g.shape)

			continue
		}

		if !g.doubtful {
			return Result{}, false, g.doubt(a.err)
		}

		if a.outcome == refused || !g.shape.full || n >= sendAttempts || !pause(ctx, n) {
			return Result{}, false, g.doubt(a.err)
		}
	}
}

// confirm settles, by a write, whether one of the attempts whose replies were lost was
// granted. That one is astray no more.
func (g *grant) confirm(ctx context.Context, req request, alone bool) (a answer[Row], confirmed bool) {
	req.seen, req.hold = 0, 0 // it goes by the owner alone

	for i, owner := range g.lost {
		req.owner = owner
		a = g.store.lanes.confirm.write(ctx, req, alone)
		g.waited = g.waited && a.waited

		switch {
		case a.err != nil:
			return a, false
		case len(a.rows) == 1:
			g.owner, g.lost = owner, slices.Delete(g.lost, i, i+1)

			return a, true
		}
	}

	return a, false
}

// GiveBack frees the lock if the grant to one of the owners is what it shows. It reports
// whether it is free now, and errors when it could not ask. With queue it stands in line
// for the row, behind every statement that waits for it already; nothing of those
// owners can be granted after that. On a table without owners it does nothing.
func (s *Store) GiveBack(ctx context.Context, id string, owners []string, queue bool) (bool, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil || !sh.full {
		return false, err
	}

	req := request{shape: sh, id: id, owners: textArray(owners)}

	if !queue {
		a := s.lanes.giveBack.write(ctx, req, false)

		return len(a.rows) == 1, a.err
	}

	if !s.loners.wait(ctx, 0) {
		return false, ended(ctx)
	}
	defer s.loners.leave()

	a := write(ctx, s, sh.statements.giveBackLast, []any{id, req.owners}, func(from scanner) (freed bool, err error) {
		var (
			notified *bool
			lazy     *string
		)

		err = from.Scan(&freed, &notified, &lazy)

		return freed, err
	})

	return len(a.rows) == 1 && a.rows[0], a.err
}
