package ui

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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

// contended is a lock or a recipe, and how busy it was.
type contended struct {
	Kind    pglocker.Kind
	Name    string
	URL     string
	Rows    int // of a recipe
	Grants  int
	Waits   int // grants that followed on the tenure before at once
	Crashes int
	Forced  int
	Longest time.Duration
	// busy is for how long its rows were held, and spark the same for each part of the time.
	busy  time.Duration
	spark [sparks]time.Duration
	rows  []string
}

// Share is for how much of the time it was held: of a recipe, the mean of its rows.
func (c *contended) Share() string {
	return strconv.Itoa(int(100*c.busy/(contentionSpan*time.Duration(c.Rows)))) + "%"
}

// sparkHeight is how high the small picture of an hour is. It is twice as wide as it has parts.
const sparkHeight = 24

// Path is that picture: for how much of each part of the time it was held.
func (c *contended) Path() string {
	var b strings.Builder

	fmt.Fprintf(&b, "M0 %d", sparkHeight)

	for i, held := range c.spark {
		share := float64(held) / float64(contentionSpan/sparks*time.Duration(c.Rows))
		fmt.Fprintf(&b, "L%d %.1fL%d %.1f", 2*i, sparkHeight*(1-share), 2*i+2, sparkHeight*(1-share))
	}

	fmt.Fprintf(&b, "L%d %dZ", 2*sparks, sparkHeight)

	return b.String()
}

// contentionPage is the page of the busiest locks.
type contentionPage struct {
	Locks   []*contended
	recipes map[string]*contended
	Missing bool
}

// contention reads the history of the last hour, lock by lock, and keeps the busiest.
func (r *reader) contention() (*contentionPage, error) {
	axis := axis{r.now.Add(-contentionSpan), r.now}
	page := &contentionPage{recipes: map[string]*contended{}}

	ctx, cancel := context.WithTimeout(r.ctx, contentionFor)
	defer cancel()

	var (
		past pastOf
		n    int
	)

	flush := func() {
		if len(past.events) > 0 {
			page.of(past.status.LockID).add(past.tenures(r.now, axis), axis)
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

// of returns what the row of that id belongs to.
func (p *contentionPage) of(id string) *contended {
	kind, name := pglocker.KindOf(id)

	if kind == pglocker.KindLock {
		if len(p.Locks) > 20*contendedShown {
			p.finish()
		}

		c := &contended{Kind: kind, Name: name, URL: lockURL(id), Rows: 1, rows: []string{id}}
		p.Locks = append(p.Locks, c)

		return c
	}

	name = name[:max(strings.LastIndexByte(name, ':'), 0)]

	c := p.recipes[string(kind)+name]
	if c == nil {
		c = &contended{Kind: kind, Name: name, URL: groupURL(kind, name)}
		p.recipes[string(kind)+name] = c
		p.Locks = append(p.Locks, c)
	}

	c.Rows++
	c.rows = append(c.rows, id)

	return c
}

// add sums up the tenures of a row.
func (c *contended) add(tenures []tenure, axis axis) {
	for i, t := range tenures {
		from, until := later(t.Since, axis.Since), earlier(t.Until, axis.Until)

		if !t.Since.Before(axis.Since) && !t.Earlier {
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
}

// held adds a time, or takes it away.
func (c *contended) held(from, until time.Time, axis axis, sign time.Duration) {
	part := contentionSpan / sparks

	c.busy += sign * until.Sub(from)

	for i := max(int(from.Sub(axis.Since)/part), 0); i < sparks; i++ {
		begin := axis.Since.Add(time.Duration(i) * part)
		if !begin.Before(until) {
			break
		}

		c.spark[i] += sign * earlier(until, begin.Add(part)).Sub(later(from, begin))
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}

	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}

	return b
}

// finish keeps the busiest locks: those that were waited for most, and then those that were held for longest.
func (p *contentionPage) finish() {
	slices.SortFunc(p.Locks, func(a, b *contended) int {
		return cmp.Or(cmp.Compare(b.Waits, a.Waits), cmp.Compare(b.busy, a.busy), cmp.Compare(a.Name, b.Name))
	})

	for _, c := range p.Locks[min(len(p.Locks), contendedShown):] {
		delete(p.recipes, string(c.Kind)+c.Name)
	}

	p.Locks = p.Locks[:min(len(p.Locks), contendedShown)]
}

// correct takes away what was counted for holders that have crashed since: nothing is written before the next
// event of their lock.
func (r *reader) correct(page *contentionPage, axis axis) error {
	for _, c := range page.Locks {
		for _, id := range c.rows {
			status, err := r.locker.GetLockStatus(r.ctx, id)

			switch {
			case errors.Is(err, pglocker.ErrLockNotFound):
			case err != nil:
				return err
			case status.Owner != "" && status.ExpiresAt.Before(axis.Until) && status.ExpiresAt.After(axis.Since):
				c.held(status.ExpiresAt, axis.Until, axis, -1)
				c.Crashes++
			}
		}
	}

	return nil
}
