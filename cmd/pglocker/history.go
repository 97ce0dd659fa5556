package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

// eventRecord is an event as -o json prints it. Fields may be added; those that are there keep their names.
type eventRecord struct {
	At    time.Time          `json:"at"`
	Event pglocker.EventKind `json:"event"`
	ID    string             `json:"id"`
	Token int64              `json:"token"`
	// PreviousToken is the generation of the row before.
	PreviousToken int64     `json:"previous_token"`
	Owner         *string   `json:"owner"`
	ExpiresAt     time.Time `json:"expires_at"`
	Reason        *string   `json:"reason"`
}

// tenureRecord is what `history --at` prints with -o json.
type tenureRecord struct {
	ID    string     `json:"id"`
	Token int64      `json:"token"`
	Owner *string    `json:"owner"`
	Since time.Time  `json:"since"`
	Until *time.Time `json:"until"` // null: it hasn't ended
	// LeaseEnds is when the lease of a tenure ends that has not ended.
	LeaseEnds *time.Time `json:"lease_ends"`
	// End is the event that ended it, or null.
	End *pglocker.EventKind `json:"end"`
}

// optional is nil for an empty text.
func optional[T ~string](text T) *T {
	if text == "" {
		return nil
	}

	return &text
}

// past is what `history` was asked for.
type past struct {
	*app
	since, at string
	last      int
}

func newHistory(a *app) *cobra.Command {
	p := &past{app: a}
	cmd := &cobra.Command{
		Use:     "history [ID]",
		GroupID: groupLook,
		Short:   "Show what happened to a lock, or who held it at some time",
		Long: `history lists the events of a lock, or of all locks: when it was granted, to whom, under
which token, and how each tenure ended. "expired" means that the lease ended without a
release; the event is written with the next event of the lock. Renewals aren't written. Those
of all locks are listed lock by lock, but with -n by time.

With --at it says who held the lock at that time, by the database's clock. The exit code is 1
if no program did.

A TIME is 2026-11-27T03:12:00Z, "2026-11-27 03:12" or 03:12, which are UTC, or a duration:
2h or 7d ago. The history is opt-in: ` + "`pglocker migrate --history`" + ` begins it.`,
		Example: `  pglocker history jobs/nightly --since 7d
  pglocker history jobs/nightly --at 03:12
  pglocker history -n 100 -o json`,
		Args:              arguments(0, 1, "at most one ID"),
		ValidArgsFunction: a.completeID,
	}

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&p.since, "since", "", "only events from this `time` on")
	flags.IntVarP(&p.last, "last", "n", 0, "only the last `n` events")
	flags.StringVar(&p.at, "at", "", "who held the lock at this `time`")
	cmd.MarkFlagsMutuallyExclusive("at", "since")
	cmd.MarkFlagsMutuallyExclusive("at", "last")

	cmd.RunE = interruptible(func(ctx context.Context, args []string) error {
		id := append(args, "")[0]

		switch {
		case p.last < 0:
			return usagef("-n must not be negative")
		case p.at != "" && id == "":
			return usagef("--at needs an ID")
		case len(args) > 0 && id == "":
			return fmt.Errorf("%w: empty", pglocker.ErrInvalidLockID)
		}

		s, err := p.look(ctx, "history")
		if err != nil {
			return err
		}
		defer s.close()

		if p.at != "" {
			return p.holder(ctx, s, id)
		}

		return p.events(ctx, s, id)
	})

	return cmd
}

func (p *past) events(ctx context.Context, s *sight, id string) error {
	var since time.Time

	if p.since != "" {
		var err error
		if since, err = parseTime(p.since, s.clock()); err != nil {
			return err
		}
	}

	out := p.lines(id == "", s.owners)
	kept := &tail{n: p.last, byTime: id == "", to: out.add}

	for event, err := range s.locker.History(ctx, id, since) {
		if err != nil {
			return err
		}

		if err := kept.add(newEventRecord(event)); err != nil {
			return err
		}
	}

	if err := kept.end(); err != nil {
		return err
	}

	return out.end()
}

func newEventRecord(e pglocker.Event) eventRecord {
	return eventRecord{
		At: e.At, Event: e.Kind, ID: e.LockID, Token: e.Token, PreviousToken: e.PreviousToken, Owner: optional(e.Owner),
		ExpiresAt: e.ExpiresAt, Reason: optional(e.Reason),
	}
}

// tail hands on the last n events, or all if n is 0.
type tail struct {
	n int
	// byTime: the events are those of all locks, lock by lock, and the last are those by their time.
	byTime bool
	kept   []eventRecord
	to     func(eventRecord) error
}

func (t *tail) add(e eventRecord) error {
	if t.n == 0 {
		return t.to(e)
	}

	place := len(t.kept)
	if t.byTime {
		place, _ = slices.BinarySearchFunc(t.kept, e.At, func(k eventRecord, at time.Time) int {
			if k.At.After(at) {
				return 1
			}

			return -1 // of the same time, the later comes behind
		})
	}

	if t.kept = slices.Insert(t.kept, place, e); len(t.kept) > t.n {
		t.kept = slices.Delete(t.kept, 0, 1)
	}

	return nil
}

func (t *tail) end() error {
	for _, e := range t.kept {
		if err := t.to(e); err != nil {
			return err
		}
	}

	return nil
}

// eventLines prints events one after the other.
type eventLines interface {
	add(e eventRecord) error
	end() error
}

func (p *past) lines(all, owners bool) eventLines {
	if p.json() {
		return newArray[eventRecord](p.stdout)
	}

	head := []string{"AT", "EVENT", "TOKEN"}
	if all {
		head = append([]string{"LOCK"}, head...)
	}

	if owners {
		head = append(head, "OWNER")
	}

	return &eventTable{newTable(p.stdout, colours(p.stdout), append(head, "REMARK")...), all, owners}
}

type eventTable struct {
	*table
	all, owners bool
}

// eventColours are the colours of the events on a terminal.
var eventColours = map[pglocker.EventKind]string{
	pglocker.EventGranted: green, pglocker.EventRefreshed: green, pglocker.EventReleased: plain,
	pglocker.EventExpired: red, pglocker.EventForced: yellow, pglocker.EventDeleted: faint,
}

func (t *eventTable) add(e eventRecord) error {
	cells := []cell{{text: precise(e.At)}, {string(e.Event), eventColours[e.Event]}, {text: fmt.Sprint(e.Token)}}
	if t.all {
		cells = append([]cell{{text: e.ID}}, cells...)
	}

	if t.owners {
		cells = append(cells, cell{text: cmp.Or(deref(e.Owner), "-")})
	}

	return t.table.add(append(cells, cell{text: e.remark()})...)
}

func (t *eventTable) end() error { return t.flush() }

func deref(text *string) string {
	if text == nil {
		return ""
	}

	return *text
}

// remark is what the kind of the event doesn't say.
func (e eventRecord) remark() string {
	switch {
	case e.Reason != nil:
		return "reason: " + *e.Reason
	case e.Event == pglocker.EventReleased && e.ExpiresAt.After(e.At):
		return "minimum hold until " + stamp(e.ExpiresAt)
	}

	return ""
}

// holder says who held the lock at a time.
func (p *past) holder(ctx context.Context, s *sight, id string) error {
	at, err := parseTime(p.at, s.clock())
	if err != nil {
		return err
	}

	tenure, err := s.locker.HolderAt(ctx, id, at)
	if err != nil {
		return err
	}

	r := tenureRecord{ID: tenure.LockID, Token: tenure.Token, Owner: optional(tenure.Owner), Since: tenure.Since, End: optional(tenure.End)}
	if tenure.End == "" {
		r.LeaseEnds = &tenure.Until
	} else {
		r.Until = &tenure.Until
	}

	if p.json() {
		return p.printJSON(r)
	}

	_, err = fmt.Fprintf(p.stdout, "At %s %s was held by %s, with the token %d, since %s.\n%s\n", stamp(at), printable(id),
		printable(cmp.Or(tenure.Owner, "an owner that the table doesn't show")), r.Token, stamp(r.Since), endOf(tenure, s.clock()))

	return err
}

func endOf(t *pglocker.Tenure, now time.Time) string {
	switch {
	case t.End == pglocker.EventExpired:
		return "Its lease ended at " + stamp(t.Until) + " without a release: the holder crashed or lost the database."
	case t.End == "" && t.Until.After(now):
		return "It is held still: the lease runs until " + stamp(t.Until) + ", unless it is renewed."
	case t.End == "":
		return "Its lease ended at " + stamp(t.Until) + ", and nothing happened since: the holder crashed or lost the database."
	}

	return fmt.Sprintf("It was %s at %s.", t.End, stamp(t.Until))
}
