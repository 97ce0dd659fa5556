package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

// listing is what `ls` was asked for.
type listing struct {
	*app
	filter   pglocker.LocksFilter
	kind     string
	all      bool
	waited   bool
	watch    bool
	interval days
}

func newLs(a *app) *cobra.Command {
	l := &listing{app: a, interval: days(2 * time.Second)}
	cmd := &cobra.Command{
		Use:     "ls [PREFIX]",
		GroupID: groupLook,
		Short:   "List the locks whose ids begin with PREFIX, or all",
		Long: `ls lists the locks whose ids begin with PREFIX, or all, in the order of their ids. A lock is

  held      its lease runs
  min-hold  it was released, and its minimum hold keeps it from being granted
  free      it was released
  expired   it is free: its lease ended without a release, mostly because the holder crashed

WAITED is "yes" if a waiter in another process listens for the release, or did in the last ten
seconds. A waiter that only polls doesn't show.

A permit of a semaphore, a reader or the writer of a read-write lock, and an election are
rows too: see --kind. ls reads a page at a time, however large the table is. What it shows
may have changed when you read it.

With --held, --waited, --expired and --holder the server reads every row, or those whose ids
begin with PREFIX: no index has what they ask for, since each write would pay for it. Ten
million rows take some seconds.

With --watch it lists again and again: on a terminal as many locks as fit, otherwise all,
each time. After a scan that took long it waits ten times as long before the next.`,
		Example: `  pglocker ls --held
  pglocker ls --expired -o json jobs/
  pglocker ls --kind election`,
		Args: arguments(0, 1, "at most one PREFIX"),
	}

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&l.filter.Held, "held", false, "only locks that are held")
	flags.BoolVar(&l.waited, "waited", false, "only held locks that others wait for")
	flags.BoolVar(&l.filter.Crashed, "expired", false, "only locks whose lease ended without a release")
	flags.StringVar(&l.filter.Owner, "holder", "", "only locks that are, or were last, of this `owner`")
	flags.StringVar(&l.kind, "kind", "", "only rows of this `kind`: lock, semaphore, rwlock, election or internal")
	flags.BoolVarP(&l.all, "all", "a", false, "also the rows that semaphores, read-write locks and elections keep for themselves")
	flags.BoolVarP(&l.watch, "watch", "w", false, "list again and again, until you interrupt it")
	flags.Var(&l.interval, "interval", "how often --watch lists")
	cmd.MarkFlagsMutuallyExclusive("held", "expired")
	cmd.MarkFlagsMutuallyExclusive("waited", "expired")

	cmd.RunE = interruptible(func(ctx context.Context, args []string) error {
		if len(args) > 0 {
			l.filter.Prefix = args[0]
		}

		l.filter.Kind = pglocker.Kind(l.kind)
		l.all = l.all || l.filter.Kind == pglocker.KindInternal

		l.filter.Held = l.filter.Held || l.waited

		if l.interval <= 0 {
			return usagef("--interval must be above zero")
		}

		s, err := l.look(ctx, "ls")
		if err != nil {
			return err
		}
		defer s.close()

		if l.waited && !s.owners {
			return fmt.Errorf("%w, nor whether anybody waits", pglocker.ErrNoOwners)
		}

		if l.watch {
			return l.watchOn(ctx, s)
		}

		stop := l.tellOfScan()
		defer stop()

		return l.list(ctx, s, untilFirst{l.records(l.stdout, s.owners), stop})
	})

	return cmd
}

// scanTold is how long a listing takes on a terminal before it says why.
const scanTold = 2 * time.Second

// tellOfScan says on a terminal, unless stop is called soon, what takes so long.
func (l *listing) tellOfScan() (stop func() bool) {
	if !terminal(l.stderr) || !l.filter.Held && !l.filter.Crashed && l.filter.Owner == "" {
		return func() bool { return false }
	}

	return time.AfterFunc(scanTold, func() {
		rows := "the whole table"
		if l.filter.Prefix != "" {
			rows = "all that begins so"
		}

		fmt.Fprintf(l.stderr, "pglocker: the server reads through %s, in some seconds for ten million rows\n", rows)
	}).Stop
}

// untilFirst are records that call stop at the first: what takes long then is a pager, say.
type untilFirst struct {
	records

	stop func() bool
}

func (u untilFirst) add(r lockRecord) error {
	u.stop()

	return u.records.add(r)
}

// list hands the records to out.
func (l *listing) list(ctx context.Context, s *sight, out records) error {
	for status, err := range s.locker.Locks(ctx, l.filter) {
		if err != nil {
			return err
		}

		if !l.all && inner(status.LockID) || l.waited && !status.Waited {
			continue
		}

		err := out.add(newRecord(status, s.clock(), s.owners))
		if errors.Is(err, errEnough) {
			break
		}

		if err != nil {
			return err
		}
	}

	return out.end()
}

// errEnough ends a listing before its end.
var errEnough = errors.New("enough")

// records prints records one after the other.
type records interface {
	add(r lockRecord) error
	end() error
}

func (l *listing) records(to io.Writer, owners bool) records {
	if l.json() {
		return newArray[lockRecord](to)
	}

	return l.text(to, owners)
}

func (l *listing) text(to io.Writer, owners bool) *textRecords {
	head := []string{"LOCK", "STATE", "TOKEN", "ENDS IN"}
	if owners {
		head = append(head, "HELD FOR", "WAITED", "OWNER")
	}

	return &textRecords{newTable(to, colours(l.stdout), head...), owners}
}

// textRecords is a table of locks.
type textRecords struct {
	*table
	owners bool
}

func (t *textRecords) add(r lockRecord) error {
	cells := []cell{{text: r.ID}, {r.State, stateColours[r.State]}, {text: fmt.Sprint(r.Token)}, {text: r.endsIn()}}
	if t.owners {
		cells = append(cells, cell{text: r.heldFor()}, cell{r.waited(), yellow}, cell{text: cmp.Or(r.owner(), "-")})
	}

	return t.table.add(cells...)
}

func (t *textRecords) end() error { return t.flush() }
