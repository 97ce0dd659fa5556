package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

// listing is what `ls` was asked for.
type listing struct {
	*app
	filter pglocker.LocksFilter
	kind   string
	all    bool
}

func newLs(a *app) *cobra.Command {
	l := &listing{app: a}
	cmd := &cobra.Command{
		Use:     "ls [PREFIX]",
		GroupID: groupLook,
		Short:   "List the locks whose ids begin with PREFIX, or all",
		Args:    cobra.MaximumNArgs(1),
	}

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&l.filter.Held, "held", false, "only locks that are held")
	flags.BoolVar(&l.filter.Crashed, "expired", false, "only locks whose lease ended without a release: mostly the holder has crashed")
	flags.StringVar(&l.filter.Owner, "holder", "", "only locks that are, or were last, of this `owner`")
	flags.StringVar(&l.kind, "kind", "", "only rows of this `kind`: lock, semaphore, rwlock, election or internal")
	flags.BoolVarP(&l.all, "all", "a", false, "also the rows that semaphores, read-write locks and elections keep for themselves")
	cmd.MarkFlagsMutuallyExclusive("held", "expired")

	cmd.RunE = interruptible(func(ctx context.Context, args []string) error {
		if len(args) > 0 {
			l.filter.Prefix = args[0]
		}

		l.filter.Kind = pglocker.Kind(l.kind)
		l.all = l.all || l.filter.Kind == pglocker.KindInternal

		return l.run(ctx)
	})

	return cmd
}

func (l *listing) run(ctx context.Context) error {
	locker, db, closeAll, err := l.openLocker(ctx, "ls")
	if err != nil {
		return err
	}
	defer closeAll()

	server, err := serverNow(ctx, db)
	if err != nil {
		return err
	}

	owners, err := locker.HasOwners(ctx)
	if err != nil {
		return err
	}

	if server.standby {
		fmt.Fprintln(l.stderr, "pglocker: this server is a standby. What it shows may be old, and it can't release a lock.")
	}

	if !owners && !l.json() {
		fmt.Fprintln(l.stderr, "pglocker: the table lacks the columns owner and acquired_at: who holds a lock isn't known.")
	}

	out := l.list(owners)

	for status, err := range locker.Locks(ctx, l.filter) {
		if err != nil {
			return err
		}

		if !l.all && inner(status.LockID) {
			continue
		}

		if err := out.add(newRecord(status, server.clock(), owners)); err != nil {
			return err
		}
	}

	return out.end()
}

// recordList prints records one after the other.
type recordList interface {
	add(lockRecord) error
	end() error
}

func (l *listing) list(owners bool) recordList {
	if l.json() {
		return &jsonList{to: l.stdout}
	}

	return &textList{newTable(l.stdout, colours(l.stdout), "LOCK", "STATE", "TOKEN", "HELD FOR", "ENDS IN", "OWNER"), owners}
}

// jsonList is one array, a line for each element.
type jsonList struct {
	to    io.Writer
	begun bool
}

func (j *jsonList) add(r lockRecord) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}

	separator := ",\n "
	if !j.begun {
		separator = "[\n "
	}

	j.begun = true
	_, err = fmt.Fprintf(j.to, "%s%s", separator, text)

	return err
}

func (j *jsonList) end() error {
	if !j.begun {
		_, err := fmt.Fprintln(j.to, "[]")

		return err
	}

	_, err := fmt.Fprintln(j.to, "\n]")

	return err
}

type textList struct {
	*table
	owners bool
}

func (t *textList) add(r lockRecord) error {
	t.table.add(
		cell{text: r.ID},
		cell{r.State, stateColours[r.State]},
		cell{text: fmt.Sprint(r.Token)},
		cell{text: heldFor(r)},
		cell{text: endsIn(r)},
		cell{text: cmp.Or(deref(r.Owner), "-")},
	)

	return nil
}

func (t *textList) end() error { return t.flush() }

func deref(s *string) string {
	if s == nil {
		return ""
	}

	return *s
}

func heldFor(r lockRecord) string {
	if r.State != stateHeld || r.AcquiredAt == nil {
		return "-"
	}

	return spoken(r.ExpiresAt.Add(-seconds(r.Remaining)).Sub(*r.AcquiredAt).Round(time.Second))
}

func endsIn(r lockRecord) string {
	if r.Remaining == 0 {
		return "-"
	}

	return spoken(seconds(r.Remaining))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
