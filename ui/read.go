package ui

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

const (
	// askFor is how long the database may take to answer the first and smallest question.
	askFor = 5 * time.Second
	// lookThrough is how many rows are read for a page of those that the database can't choose: of free locks,
	// and of locks that are waited for.
	lookThrough = 20_000
	// topRows is how many rows of each kind the overview has.
	topRows = 8
	// countUpTo is how far the overview counts.
	countUpTo = 1_000
)

// row is a row of the table, as it was at the time now.
type row struct {
	pglocker.LockStatus
	Kind  pglocker.Kind
	Name  string // without the prefix of its kind
	Held  bool
	Owned bool // the table tells owners
}

// State is what the row's lock is.
func (r row) State() string {
	switch {
	case r.Held && r.Owned && r.Owner == "":
		return "kept" // by a minimum hold
	case r.Held:
		return "held"
	case r.Owner != "" && r.Kind != pglocker.KindInternal:
		return "crashed"
	default:
		return "free"
	}
}

func (r row) URL() string { return lockURL(r.LockID) }

// Waits: a waiter has marked the row.
func (r row) Waits() bool { return r.Waited }

// reader reads one page.
type reader struct {
	*Handler
	ctx   context.Context
	now   time.Time
	three bool
	notes []string
}

// read reads a page. last is the page's data of the look before, or nil.
func (h *Handler) read(ctx context.Context, q query, last any) (seen look, err error) {
	r := &reader{Handler: h, ctx: ctx}

	if err = r.begin(); err != nil {
		return look{}, err
	}

	var stop func()

	r.ctx, stop = guarded(ctx, func(ctx context.Context) error {
		_, err := h.locker.DatabaseTime(ctx)
		if errors.Is(err, pglocker.ErrReadOnly) {
			return nil // a standby answers
		}

		return err
	})
	defer stop()

	if seen.data, seen.every, err = r.page(q, last); err != nil {
		if ctx.Err() == nil && r.ctx.Err() != nil {
			err = context.Cause(r.ctx)
		}

		return look{}, err
	}

	seen.now, seen.notes = r.now, r.notes

	return seen, nil
}

func (h *Handler) failed(q query, err error) {
	h.options.Logger.Warn("pglocker: a page can't be read", "page", q.page, "error", err)
}

// begin asks for the time. A database that hangs is found out here.
func (r *reader) begin() error {
	ctx, cancel := context.WithTimeout(r.ctx, askFor)
	defer cancel()

	now, err := r.locker.DatabaseTime(ctx)
	r.now = now

	switch {
	case errors.Is(err, pglocker.ErrReadOnly):
		r.now = time.Now().UTC()
		r.note("The database is a standby, or read-only. What it shows may be late, and times are those of this server. " +
			"Locks can't be granted or released here.")
	case err != nil:
		return err
	}

	owners, err := r.locker.HasOwners(ctx)
	if r.three = err == nil && !owners; r.three {
		r.note("The table has three columns. It doesn't show who holds a lock, since when, who waits, or whether a " +
			"holder has crashed. MigrateDB adds the columns that do.")
	}

	return err
}

// note says something on the page, once.
func (r *reader) note(text string) {
	if !slices.Contains(r.notes, text) {
		r.notes = append(r.notes, text)
	}
}

func (r *reader) page(q query, last any) (data any, every time.Duration, err error) {
	switch q.page {
	case "locks":
		data, err = r.locks(q)
	case "elections":
		data, err = r.elections(q.prefix, q.after, r.options.Rows)
	case "semaphores":
		data, err = r.groups(pglocker.KindSemaphore, q.prefix, q.after, r.options.Rows)
	case "rwlocks":
		data, err = r.groups(pglocker.KindRWLock, q.prefix, q.after, r.options.Rows)
	case "contention":
		data, err = r.contention()
		every = contentionEvery
	case "lock":
		data, err = r.lock(q, last)
	case "group":
		data, err = r.group(q, last)
	default:
		data, err = r.overview()
	}

	return data, every, err
}

// rows lists rows of the table.
func (r *reader) rows(filter pglocker.LocksFilter) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for status, err := range r.locker.Locks(r.ctx, filter) {
			if !yield(r.row(status), err) || err != nil {
				return
			}
		}
	}
}

func (r *reader) row(status pglocker.LockStatus) row {
	kind, name := pglocker.KindOf(status.LockID)

	return row{LockStatus: status, Kind: kind, Name: name, Held: status.HeldAt(r.now), Owned: !r.three}
}

// listing is one page of the locks.
type listing struct {
	Rows []row
	// Next is after which id the next page begins. "" if this is the last.
	Next string
	// Through is how many rows were looked through, if the page isn't full because they were too many.
	Through int
}

// locks lists a page of plain locks.
func (r *reader) locks(q query) (*listing, error) {
	filter := pglocker.LocksFilter{Kind: pglocker.KindLock, Prefix: q.prefix, After: q.after}
	wants := func(row) bool { return true }

	switch q.state {
	case "held":
		filter.Held = true
	case "waited":
		filter.Held = true // what is free has no waiter for long
		wants = row.Waits
	case "crashed":
		filter.Crashed = true
	case "free":
		wants = func(l row) bool { return !l.Held }
	}

	if r.three && (q.state == "crashed" || q.state == "waited") {
		return &listing{}, nil
	}

	list, through := new(listing), 0

	for l, err := range r.rows(filter) {
		if err != nil {
			return nil, err
		}

		if len(list.Rows) == r.options.Rows {
			list.Next = list.Rows[len(list.Rows)-1].LockID

			break
		}

		if wants(l) {
			list.Rows = append(list.Rows, l)
		}

		if through++; through == lookThrough {
			list.Next, list.Through = l.LockID, through

			break
		}
	}

	return list, nil
}

// overview is the first page.
type overview struct {
	Held, Waited, Crashed count
	// Longest are the locks that were held for longest, those that are waited for first.
	Longest    []row
	CrashedTop []row
	Elections  electionList
	Semaphores groupList
	RWLocks    groupList
}

// count is a number up to countUpTo.
type count struct {
	N    int
	More bool
}

func (c count) String() string {
	if c.More {
		return strconv.Itoa(c.N) + "+"
	}

	return strconv.Itoa(c.N)
}

func (r *reader) overview() (*overview, error) {
	o := new(overview)

	for l, err := range r.rows(pglocker.LocksFilter{Kind: pglocker.KindLock, Held: true}) {
		if err != nil {
			return nil, err
		}

		if o.Held.N == countUpTo {
			o.Held.More, o.Waited.More = true, true

			break
		}

		o.Held.N++

		if l.Waits() {
			o.Waited.N++
		}

		o.Longest = append(o.Longest, l)
	}

	slices.SortStableFunc(o.Longest, func(a, b row) int {
		if a.Waits() != b.Waits() {
			if a.Waits() {
				return -1
			}

			return 1
		}

		return a.AcquiredAt.Compare(b.AcquiredAt)
	})

	o.Longest = o.Longest[:min(len(o.Longest), topRows)]

	if err := r.crashed(o); err != nil {
		return nil, err
	}

	elections, err := r.elections("", "", topRows)
	if err != nil {
		return nil, err
	}

	semaphores, err := r.groups(pglocker.KindSemaphore, "", "", topRows)
	if err != nil {
		return nil, err
	}

	rwlocks, err := r.groups(pglocker.KindRWLock, "", "", topRows)
	if err != nil {
		return nil, err
	}

	o.Elections, o.Semaphores, o.RWLocks = *elections, *semaphores, *rwlocks

	return o, nil
}

func (r *reader) crashed(o *overview) error {
	if r.three {
		return nil
	}

	for l, err := range r.rows(pglocker.LocksFilter{Kind: pglocker.KindLock, Crashed: true}) {
		if err != nil {
			return err
		}

		if o.Crashed.N == countUpTo {
			o.Crashed.More = true

			break
		}

		o.Crashed.N++
		o.CrashedTop = append(o.CrashedTop, l)
	}

	slices.SortStableFunc(o.CrashedTop, func(a, b row) int { return b.ExpiresAt.Compare(a.ExpiresAt) })
	o.CrashedTop = o.CrashedTop[:min(len(o.CrashedTop), topRows/2)]

	return nil
}

// OwnerName is [pglocker.Config.Owner] of an owner, and id is what the Locker and the grant added to it.
func ownerName(owner string) (name, id string) {
	if i := strings.LastIndexByte(owner, '#'); i >= 0 {
		return owner[:i], owner[i:]
	}

	return owner, ""
}
