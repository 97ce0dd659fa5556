package ui

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/ismurov/pglocker"
)

const (
	// contentionEvery is the shortest time between two reads of the history of all locks. It has no index by
	// time, so a read goes through all of it.
	contentionEvery = 15 * time.Second
	// contentionSpan is the time that is looked at, and sparks into how many parts it is divided.
	contentionSpan = time.Hour
	sparks         = 60
	// contentionEvents is how many events are read at most, and contentionFor how long.
	contentionEvents = 200_000
	contentionFor    = 20 * time.Second
	// handedOver is how soon after the end of a tenure the next begins if a waiter was there.
	handedOver = 100 * time.Millisecond
	// contendedShown is how many locks are listed.
	contendedShown = 50
)

// contended is a lock, and how busy it was.
type contended struct {
	ID      string
	Grants  int
	Waits   int // grants that followed on the tenure before at once
	Crashes int
	Forced  int
	Busy    time.Duration
	Longest time.Duration
	Spark   [sparks]time.Duration
}

func (c *contended) URL() string { return lockURL(c.ID) }

// Share is for how much of the time the lock was held.
func (c *contended) Share() string {
	return strconv.Itoa(int(100*c.Busy/contentionSpan)) + "%"
}

// sparkBar is one bar of the small picture of an hour.
type sparkBar struct{ X, Y, H string }

// Bars are the small picture: for how much of each minute the lock was held.
func (c *contended) Bars() (bars []sparkBar) {
	const height = 24

	for i, held := range c.Spark {
		if held > 0 {
			h := max(height*float64(held)/float64(contentionSpan/sparks), 1)
			bars = append(bars, sparkBar{strconv.Itoa(2 * i), strconv.FormatFloat(height-h, 'f', 1, 64), strconv.FormatFloat(h, 'f', 1, 64)})
		}
	}

	return bars
}

// contentionPage is the page of the busiest locks.
type contentionPage struct {
	Locks   []*contended
	Missing bool
	Since   time.Time
}

// contention reads the history of the last hour, lock by lock, and keeps the busiest.
func (r *reader) contention() (*contentionPage, error) {
	axis := axis{r.now.Add(-contentionSpan), r.now}
	page := &contentionPage{Since: axis.Since}

	ctx, cancel := context.WithTimeout(r.ctx, contentionFor)
	defer cancel()

	var (
		past pastOf
		n    int
	)

	flush := func() {
		if len(past.events) > 0 {
			page.add(summary(past.status.LockID, past.tenures(r.now, axis), axis))
		}
	}

	for event, err := range r.locker.History(ctx, "", axis.Since) {
		n++

		switch {
		case errors.Is(err, pglocker.ErrHistoryNotFound):
			page.Missing = true
			r.note(noHistory)

			return page, nil
		case errors.Is(err, pglocker.ErrPermissionDenied):
			page.Missing = true
			r.note(noRight)

			return page, nil
		case err != nil && ctx.Err() != nil && r.ctx.Err() == nil, n > contentionEvents:
			r.note("The history is too long to read all of it in " + contentionFor.String() + ". Locks from " +
				visible(past.status.LockID) + " on are missing. PruneHistory deletes old events.")
			page.finish()

			return page, nil
		case err != nil:
			return nil, err
		}

		// An election is held all the time, and the rows of its terms aren't held at all.
		if kind, _ := pglocker.KindOf(event.LockID); kind == pglocker.KindElection || kind == pglocker.KindInternal {
			continue
		}

		if event.LockID != past.status.LockID {
			flush()

			past = pastOf{events: past.events[:0]}
			past.status.LockID = event.LockID
		}

		past.events = append(past.events, event)
	}

	flush()
	page.finish()

	return page, r.correct(page, axis)
}

// summary sums up the tenures of a lock.
func summary(id string, tenures []tenure, axis axis) *contended {
	c := &contended{ID: id}

	for i, t := range tenures {
		from, until := t.Since, t.Until
		if from.Before(axis.Since) {
			from = axis.Since
		}

		if until.After(axis.Until) {
			until = axis.Until
		}

		if !t.Earlier {
			c.Grants++
		}

		if i > 0 && t.Since.Sub(tenures[i-1].Until) <= handedOver && tenures[i-1].End != pglocker.EventExpired {
			c.Waits++
		}

		switch t.End {
		case pglocker.EventExpired:
			c.Crashes++
		case pglocker.EventForced:
			c.Forced++
		}

		c.held(from, until, axis, 1)
		c.Longest = max(c.Longest, until.Sub(from))
	}

	return c
}

// held adds a time, or takes it away.
func (c *contended) held(from, until time.Time, axis axis, sign time.Duration) {
	part := contentionSpan / sparks

	c.Busy += sign * until.Sub(from)

	for i := max(int(from.Sub(axis.Since)/part), 0); i < sparks; i++ {
		begin := axis.Since.Add(time.Duration(i) * part)
		if !begin.Before(until) {
			break
		}

		c.Spark[i] += sign * (minTime(until, begin.Add(part)).Sub(maxTime(from, begin)))
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}

	return b
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}

	return b
}

// add keeps a lock, if it is among the busiest.
func (p *contentionPage) add(c *contended) {
	if p.Locks = append(p.Locks, c); len(p.Locks) > 20*contendedShown {
		p.finish()
	}
}

// finish keeps the busiest locks: those that were waited for most, and then those that were held for longest.
func (p *contentionPage) finish() {
	slices.SortFunc(p.Locks, func(a, b *contended) int {
		return cmp.Or(cmp.Compare(b.Waits, a.Waits), cmp.Compare(b.Busy, a.Busy), cmp.Compare(a.ID, b.ID))
	})

	p.Locks = p.Locks[:min(len(p.Locks), contendedShown)]
}

// correct takes away what was counted for holders that have crashed since: nothing is written before the next
// event of their lock.
func (r *reader) correct(page *contentionPage, axis axis) error {
	for _, c := range page.Locks {
		status, err := r.locker.GetLockStatus(r.ctx, c.ID)

		switch {
		case errors.Is(err, pglocker.ErrLockNotFound):
		case err != nil:
			return err
		case status.Owner != "" && status.ExpiresAt.Before(axis.Until) && status.AcquiredAt.After(axis.Since):
			c.held(maxTime(status.ExpiresAt, axis.Since), axis.Until, axis, -1)
			c.Crashes++
		}
	}

	return nil
}
