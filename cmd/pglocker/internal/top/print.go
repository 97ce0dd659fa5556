package top

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Print writes one snapshot as text, for a pipe or a file. It has no colours.
func Print(w io.Writer, s *Snapshot) error {
	fmt.Fprintf(w, "%s\n", summary(s))

	if s.NoOwners {
		fmt.Fprintln(w, noOwnersText)
	}

	if s.Standby {
		fmt.Fprintln(w, standbyText)
	}

	if len(s.Rows) > 0 {
		fmt.Fprintln(w)
	}

	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(s.Rows) > 0 {
		fmt.Fprintln(tw, "KIND\tNAME\tHOLDER\tTOKEN\tHELD\tLEASE\tWAITED FOR")
	}

	for i := range s.Rows {
		r := &s.Rows[i]
		token, lease, waited := "-", "-", "no"

		if len(r.Holds) > 0 {
			token, lease = fmt.Sprint(r.token()), left(r.until(), s.At)
		}

		if r.Waited {
			waited = "yes"
		} else if s.NoOwners {
			waited = "?"
		}

		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			r.Kind, printable(r.Name), holders(r, s.NoOwners), token, held(r, s.At), lease, waited)
	}

	if err := tw.Flush(); err != nil {
		return err
	}

	if s.Hidden > 0 {
		_, err := fmt.Fprintf(w, "and %s more\n", count(s.Hidden))

		return err
	}

	return nil
}

const (
	noOwnersText = "The table has three columns: holders, since when they hold, and waiters aren't known."
	standbyText  = "The server is a standby: what it shows may be old, and it can't free a lock."
)

// summary is a snapshot in one line.
func summary(s *Snapshot) string {
	t := s.Totals
	text := fmt.Sprintf("%s held=%d waited=%d", s.At.UTC().Format(time.RFC3339), t.Held, t.Waited)

	if t.Oldest != nil {
		text += fmt.Sprintf(" oldest=%s oldest_name=%q", span(s.At.Sub(t.Oldest.Since)), t.Oldest.Name)
	}

	text += fmt.Sprintf(" locks=%d leaders=%d/%d slots=%d semaphores=%d readers=%d writers=%d",
		t.Locks, t.Led, t.Elections, t.Slots, t.Semaphores, t.Readers, t.Writers)

	if s.Changes != nil {
		at := ""
		if s.ChangesAtLeast {
			at = "at_least_"
		}

		text += fmt.Sprintf(" %schanges_per_second=%.1f", at, *s.Changes)
	}

	return text
}

// Lines writes a line for each look, every interval or as seldom as a look of the size of the table allows, until
// ctx ends, and returns ctx's error. An error of a look is told by fail, and the next look is made as usual. If object
// isn't nil, it writes the line, as an object.
func Lines(ctx context.Context, w io.Writer, table Table, q Query, interval time.Duration, object func(any) error, fail func(error)) error {
	looker := NewLooker(table)
	pace := pace{interval: interval, limit: firstLimit}

	for {
		var s *Snapshot

		err := pace.look(ctx, func(ctx context.Context) (err error) {
			s, err = looker.Look(ctx, q)

			return err
		})

		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			fail(err)
		default:
			if err := writeLine(w, s, object); err != nil {
				return err
			}
		}

		timer := time.NewTimer(pace.rest())
		select {
		case <-ctx.Done():
			timer.Stop()

			return ctx.Err()
		case <-timer.C:
		}
	}
}

func writeLine(w io.Writer, s *Snapshot, object func(any) error) error {
	if object != nil {
		return object(s)
	}

	_, err := fmt.Fprintln(w, summary(s))

	return err
}
