package ui

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

const (
	// eventsRead is how many events are read for one timeline. If there are more, it shows a shorter time.
	eventsRead = 4_000
	// tenuresShown is how many tenures the page of a lock lists.
	tenuresShown = 20
	// shorter is by how much a time with too many events is divided.
	shorter = 8
)

// tenure is the time of one holder.
type tenure struct {
	Token int64
	Owner string
	// Since is when it began. Earlier: it began before that, when isn't known.
	Since   time.Time
	Earlier bool
	// Until is when it ended, or the time of the look if it hasn't.
	Until time.Time
	// End is how it ended, "" if it hasn't.
	End pglocker.EventKind
	// Late: its holder released the lock after the lease had ended.
	Late   bool
	Reason string
	// Kept is until when a minimum hold kept the lock after its release.
	Kept time.Time
}

// Class is how the tenure is drawn.
func (t tenure) Class() string {
	switch t.End {
	case "":
		return "running"
	case pglocker.EventExpired:
		return "crashed"
	case pglocker.EventForced:
		return "forced"
	default:
		return "released"
	}
}

// EndTitle says how it ended.
func (t tenure) EndTitle() string {
	switch t.End {
	case "":
		return "Held"
	case pglocker.EventExpired:
		return "Not released"
	case pglocker.EventForced:
		return "By force"
	case pglocker.EventRefreshed:
		return "Refreshed"
	case pglocker.EventDeleted:
		return "Deleted"
	default:
		return "Released"
	}
}

// pastOf is the history of a row.
type pastOf struct {
	status pglocker.LockStatus
	found  bool      // the row is there
	asked  time.Time // since when events were asked for
	since  time.Time // since when they were read: later, if they were too many
	events []pglocker.Event
	// missing: the history can't be read.
	missing bool
}

// past reads the history of a row since the beginning of the axis. A row whose generation hasn't changed since the
// look before has no new events.
func (r *reader) past(status pglocker.LockStatus, axis axis, before *pastOf) (*pastOf, error) {
	if before != nil && before.status.Generation == status.Generation && before.asked.Equal(axis.Since) {
		again := *before
		again.status, again.found = status, status.Generation > 0

		if again.missing {
			r.note(noHistory)
		}

		return &again, nil
	}

	p := &pastOf{status: status, found: status.Generation > 0, asked: axis.Since, since: axis.Since}

	for {
		p.events = p.events[:0]

		for event, err := range r.locker.History(r.ctx, status.LockID, p.since) {
			switch {
			case errors.Is(err, pglocker.ErrHistoryNotFound):
				p.missing = true
				r.note(noHistory)

				return p, nil
			case errors.Is(err, pglocker.ErrPermissionDenied):
				p.missing = true
				r.note(noRight)

				return p, nil
			case err != nil:
				return nil, err
			}

			if p.events = append(p.events, event); len(p.events) > eventsRead {
				break
			}
		}

		if len(p.events) <= eventsRead || axis.Until.Sub(p.since) < time.Second {
			return p, nil
		}

		p.since = axis.Until.Add(-axis.Until.Sub(p.since) / shorter)
	}
}

const (
	noHistory = "There is no history: who had a lock before, and how that ended, isn't known. MigrateHistory makes one."
	noRight   = "The role of this page may not read the history. It needs SELECT on it."
)

// tenures are the tenures that the events and the row show, the first first. An expiry is written with the next
// event of its lock, so the row alone shows the last one.
func (p *pastOf) tenures(now time.Time, axis axis) (all []tenure) {
	var open *tenure

	end := func(e pglocker.Event) {
		open.Until, open.End, open.Reason = e.At, e.Kind, e.Reason
		if e.Kind == pglocker.EventReleased && e.ExpiresAt.After(e.At) {
			open.Kept = e.ExpiresAt
		}

		all = append(all, *open)
		open = nil
	}

	for _, e := range p.events {
		switch e.Kind {
		case pglocker.EventGranted, pglocker.EventRefreshed:
			if open != nil { // a refresh ends the tenure before
				end(e)
			}

			open = &tenure{Token: e.Token, Owner: e.Owner, Since: e.At}
		default:
			switch last := len(all) - 1; {
			case open != nil && open.Token == e.Token:
				end(e)
			case open == nil && last >= 0 && all[last].Token == e.Token:
				all[last].Late = e.Kind == pglocker.EventReleased
			case open == nil && e.Owner != "" && e.PreviousToken == e.Token:
				open = &tenure{Token: e.Token, Owner: e.Owner, Since: axis.Since, Earlier: true}
				end(e)
			}
		}
	}

	status := p.status
	if status.Owner != "" && (open == nil || open.Token < status.Generation) &&
		!slices.ContainsFunc(all, func(t tenure) bool { return t.Token == status.Generation }) {
		open = &tenure{Token: status.Generation, Owner: status.Owner, Since: status.AcquiredAt}
	}

	if open != nil {
		open.Until = now

		if p.found && status.Generation == open.Token && !status.HeldAt(now) {
			open.Until, open.End = status.ExpiresAt, pglocker.EventExpired
		}

		all = append(all, *open)
	}

	return slices.DeleteFunc(all, func(t tenure) bool { return t.Until.Before(axis.Since) })
}

// lockPage is the page of one row.
type lockPage struct {
	row
	// Found: the row is there.
	Found bool
	// Marked: a waiter has marked the row.
	Marked bool
	// Of is the recipe that the row belongs to, if any.
	Of       *group
	Terms    []pglocker.Term
	Timeline *timeline
	Tenures  []tenure // the last one first
	Older    int      // how many more there are
	// Since is from when on events were read, and Cut says that there were too many to begin earlier.
	Since time.Time
	Cut   bool
	past  *pastOf
}

// Missing: there is no history to show.
func (p *lockPage) Missing() bool { return p.past.missing }

// shownRow is a row whose mark was read apart.
type shownRow struct {
	row
	Waits bool
}

func (p *lockPage) Shown() shownRow { return shownRow{p.row, p.Marked} }

// lock reads the page of a row.
func (r *reader) lock(q query, last any) (*lockPage, error) {
	status, err := r.locker.GetLockStatus(r.ctx, q.id)

	found := !errors.Is(err, pglocker.ErrLockNotFound)
	if err != nil && found {
		return nil, err
	}

	if !found {
		status = &pglocker.LockStatus{LockID: q.id}
	}

	page := &lockPage{row: r.row(*status), Found: found}
	page.Marked = page.Held && r.marked(q.id)

	switch page.Kind {
	case pglocker.KindSemaphore, pglocker.KindRWLock:
		if i := strings.LastIndexByte(page.Name, ':'); i > 0 {
			page.Of = &group{Kind: page.Kind, Name: page.Name[:i]}
		}
	case pglocker.KindElection:
		if page.Terms, err = r.terms(page.row); err != nil {
			return nil, err
		}
	}

	axis := newAxis(r.now, q.span)

	var before *pastOf
	if p, ok := last.(*lockPage); ok {
		before = p.past
	}

	if page.past, err = r.past(*status, axis, before); err != nil {
		return nil, err
	}

	page.Since = page.past.since

	if page.Cut = page.past.since.After(axis.Since); page.Cut {
		axis = newAxis(r.now, axis.Until.Sub(page.past.since))
	}

	tenures := page.past.tenures(r.now, axis)
	page.Timeline = r.draw(axis, byOwner(tenures))

	slices.Reverse(tenures)
	page.Tenures = tenures[:min(len(tenures), tenuresShown)]
	page.Older = len(tenures) - len(page.Tenures)

	return page, nil
}

// marked reports whether a waiter has marked a row. Only a listing tells.
func (r *reader) marked(id string) bool {
	if r.three {
		return false
	}

	ctx, cancel := context.WithTimeout(r.ctx, time.Second)
	defer cancel()

	for status, err := range r.locker.Locks(ctx, pglocker.LocksFilter{Prefix: id, Held: true}) {
		return err == nil && status.LockID == id && status.Waited
	}

	return false
}

// terms are the terms before the present one.
func (r *reader) terms(l row) ([]pglocker.Term, error) {
	e := &election{row: l}

	for t, err := range r.rows(pglocker.LocksFilter{Kind: pglocker.KindInternal, Prefix: termPrefix + l.Name + ":"}) {
		if err != nil {
			return nil, err
		}

		if electionOf(t.LockID) == l.Name {
			e.addTerm(t)
		}
	}

	e.sortTerms(tenuresShown)

	return e.Before, nil
}
