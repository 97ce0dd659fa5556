package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

func newShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		GroupID: groupLook,
		Short:   "Show one lock",
		Long: `show prints a lock: its state, its fencing token, who holds it and since when, and when its
lease ends. ID may be the row of a semaphore, a read-write lock or an election, as ls prints
it. The exit code is 1 if there is no such lock.`,
		Example: `  pglocker show jobs/nightly
  pglocker show pglocker:election:scheduler -o json`,
		Args:              arguments(1, 1, "one ID"),
		ValidArgsFunction: a.completeID,
		RunE: interruptible(func(ctx context.Context, args []string) error {
			s, err := a.look(ctx, "show")
			if err != nil {
				return err
			}
			defer s.close()

			r, err := s.record(ctx, args[0])
			if err != nil {
				return s.suggest(ctx, args[0], err)
			}

			if a.json() {
				return a.printJSON(r)
			}

			return a.printRecord(r, s.owners)
		}),
	}
}

// record reads one lock.
func (s *sight) record(ctx context.Context, id string) (lockRecord, error) {
	status, err := s.locker.GetLockStatus(ctx, id)
	if err != nil {
		return lockRecord{}, err
	}

	// A listing knows of waiters too. The id itself comes first of those that begin with it.
	for listed, err := range s.locker.Locks(ctx, pglocker.LocksFilter{Prefix: id}) {
		if err == nil && listed.LockID == id {
			status = &listed
		}

		break
	}

	return newRecord(*status, s.clock(), s.owners), nil
}

// suggest says of a lock that isn't there that a recipe of that name is.
func (s *sight) suggest(ctx context.Context, id string, err error) error {
	if !errors.Is(err, pglocker.ErrLockNotFound) {
		return err
	}

	text := fmt.Sprintf("there is no lock %q", id)

	for _, kind := range []pglocker.Kind{pglocker.KindSemaphore, pglocker.KindRWLock, pglocker.KindElection} {
		prefix := pglocker.ReservedPrefix + string(kind) + ":" + id

		for status, failed := range s.locker.Locks(ctx, pglocker.LocksFilter{Prefix: prefix}) {
			if rest := strings.TrimPrefix(status.LockID, prefix); failed == nil && (rest == "" || rest[0] == ':') {
				text += fmt.Sprintf(", but one of the kind %s: see `pglocker ls %s`", kind, prefix)
			}

			break
		}
	}

	return said{text, err}
}

// meanings say what a state means to someone who waits for the lock.
var meanings = map[string]string{
	stateHeld:    "if its holder is gone, the lock is free when the lease ends",
	stateMinHold: "it was released, and its minimum hold keeps it until the lease ends",
	stateFree:    "it was released, or never granted",
	stateExpired: "it is free: its lease ended without a release, mostly because the holder crashed or was paused",
}

// printRecord prints one lock for people.
func (a *app) printRecord(r lockRecord, owners bool) error {
	to := bufio.NewWriter(a.stdout) // it keeps the first error
	line := func(name, value string) { fmt.Fprintf(to, "%-10s  %s\n", name, value) }

	line("lock", printable(r.ID))

	if r.Kind != pglocker.KindLock {
		line("kind", string(r.Kind))
	}

	state := r.State
	if colours(a.stdout) {
		state = paint(stateColours[state], state)
	}

	line("state", state+": "+meanings[r.State])
	line("token", fmt.Sprint(r.Token))

	switch {
	case r.Owner != nil && r.State == stateExpired:
		line("last owner", printable(*r.Owner))
	case r.Owner != nil:
		line("owner", printable(*r.Owner))
	case !owners:
		line("owner", "not known: the table has no such column")
	}

	if r.Waited != nil && *r.Waited {
		line("waited for", "yes")
	}

	if r.AcquiredAt != nil {
		line("granted", stamp(*r.AcquiredAt)+during(", %s ago", r.heldFor()))
	}

	if r.Remaining > 0 {
		line("lease ends", stamp(r.ExpiresAt)+during(", in %s", r.endsIn()))
	} else {
		line("free since", stamp(r.ExpiresAt))
	}

	return to.Flush()
}

// during puts a time of a record into a text, unless there is none.
func during(text, time string) string {
	if time == "-" {
		return ""
	}

	return fmt.Sprintf(text, time)
}
