package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

// freed is what `free` prints with -o json.
type freed struct {
	ID       string  `json:"id"`
	Token    int64   `json:"token"`
	Owner    *string `json:"owner"`
	Released bool    `json:"released"` // false: the lock was free
	Reason   string  `json:"reason"`
}

// freeing is what `free` was asked for.
type freeing struct {
	*app
	token  int64
	reason string
	yes    bool
}

func newFree(a *app) *cobra.Command {
	f := &freeing{app: a}
	cmd := &cobra.Command{
		Use:     "free ID",
		GroupID: groupCare,
		Short:   "Release a lock that another program holds",
		Long: `free releases a lock, whatever its lease, and wakes those that wait for it. You hardly ever
need it: the lease of a dead holder ends by itself.

The holder isn't stopped. It learns of the release from its next renewal, mostly within a
third of its TTL, and works on until then, perhaps beside the next holder. Stop its process
first.

--token says which tenure you mean, as ls and show print it. If another has begun since,
nothing is released and the exit code is 1. On a terminal free shows the lock, asks for what
is missing, and asks again before it does anything. Elsewhere --yes, --token and --reason are
required. The history has the reason, and who gave it. A lock that is free stays as it is.`,
		Example: `  pglocker free jobs/nightly
  pglocker free jobs/nightly --token 1234 --reason "worker-7 is gone, INC-1234" --yes`,
		Args:              arguments(1, 1, "one ID"),
		ValidArgsFunction: a.completeID,
	}

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Int64Var(&f.token, "token", 0, "the `token` of the tenure that ends")
	flags.StringVar(&f.reason, "reason", "", "why, for the history")
	flags.BoolVarP(&f.yes, "yes", "y", false, "don't ask")

	cmd.RunE = interruptible(func(ctx context.Context, args []string) error {
		named := cmd.Flags().Changed("token")

		switch {
		case f.yes && (!named || strings.TrimSpace(f.reason) == ""):
			return usagef("--yes needs --token and --reason")
		case !f.yes && !terminal(f.stdin):
			return usagef("free asks before it releases a lock, and the standard input is no terminal: give --yes, --token and --reason")
		}

		return f.free(ctx, args[0], named)
	})

	return cmd
}

func (f *freeing) free(ctx context.Context, id string, named bool) error {
	if kind, _ := pglocker.KindOf(id); kind == pglocker.KindInternal {
		return fmt.Errorf("%w: %q", pglocker.ErrReservedLockID, id)
	}

	s, err := f.look(ctx, "free")
	if err != nil {
		return err
	}
	defer s.close()

	r, err := s.record(ctx, id)

	switch {
	case err != nil:
		return s.suggest(ctx, id, err)
	case named && r.Token != f.token:
		return said{fmt.Sprintf("%q has the token %d now, not %d: nothing was released", id, r.Token, f.token), pglocker.ErrWrongGeneration}
	case r.Remaining == 0:
		return f.report(r, false)
	}

	if !f.yes {
		if err := f.ask(ctx, r, s.owners); err != nil {
			return err
		}
	}

	err = s.locker.ForceRelease(ctx, id, r.Token, f.reason+" (by "+f.who()+")")
	if errors.Is(err, pglocker.ErrUnknownOutcome) {
		return fmt.Errorf("%w: whether the lock was released isn't known, see `pglocker show`", err)
	}

	if err != nil {
		return err
	}

	return f.report(r, true)
}

// who is the person or the program that frees the lock.
func (f *freeing) who() string {
	if f.connection.owner != "" {
		return f.connection.owner
	}

	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}

	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}

	return name + "@" + host
}

func (f *freeing) report(r lockRecord, released bool) error {
	if f.json() {
		return f.printJSON(freed{ID: r.ID, Token: r.Token, Owner: r.Owner, Released: released, Reason: f.reason})
	}

	text := fmt.Sprintf("%s was free: there was nothing to release\n", printable(r.ID))
	if released {
		text = fmt.Sprintf("released %s, token %d\n", printable(r.ID), r.Token)
	}

	_, err := fmt.Fprint(f.stdout, text)

	return err
}

// errNotConfirmed ends `free` when the answer isn't yes.
var errNotConfirmed = errors.New("nothing was released")

// ask shows the lock, and asks for the reason and whether to go on.
func (f *freeing) ask(ctx context.Context, r lockRecord, owners bool) error {
	onTerminal := *f.app
	onTerminal.stdout = f.stderr

	if err := onTerminal.printRecord(r, owners); err != nil {
		return err
	}

	if r.State == stateHeld {
		fmt.Fprintln(f.stderr, "The holder isn't stopped by this. If it lives, it works on until its next renewal.")
	}

	input := bufio.NewReader(f.stdin)

	for strings.TrimSpace(f.reason) == "" {
		answer, err := answer(ctx, input, func() { fmt.Fprint(f.stderr, "Why do you release it? ") })
		if err != nil {
			return err
		}

		f.reason = answer
	}

	yes, err := answer(ctx, input, func() { fmt.Fprint(f.stderr, "Release it? [y/N] ") })
	if err != nil {
		return err
	}

	if yes = strings.ToLower(yes); yes != "y" && yes != "yes" {
		return errNotConfirmed
	}

	return nil
}

// answer reads a line, until ctx ends.
func answer(ctx context.Context, from *bufio.Reader, prompt func()) (string, error) {
	prompt()

	type read struct {
		text string
		err  error
	}

	done := make(chan read, 1)

	go func() { // it ends with the process if no line comes
		text, err := from.ReadString('\n')
		done <- read{text, err}
	}()

	select {
	case r := <-done:
		if r.err != nil {
			return "", errNotConfirmed // the end of the input
		}

		return strings.TrimSpace(r.text), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
