package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"golang.org/x/term"
)

// watchOn lists again and again, until ctx ends or the database can't be used any more. A database that can't be
// reached is asked again.
func (l *listing) watchOn(ctx context.Context, s *sight) error {
	for round := 0; ; round++ {
		begun := time.Now()
		err := l.snapshot(ctx, s, round)

		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && (round == 0 || !unavailable(err) || isAny(err, states...)):
			return err
		case err != nil:
			fmt.Fprintf(l.stderr, "%s\npglocker: trying again, what was listed last is old\n", l.explain(err))
		}

		pause := max(time.Duration(l.interval), 10*time.Since(begun))

		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// snapshot lists once.
func (l *listing) snapshot(ctx context.Context, s *sight, round int) error {
	if round > 0 {
		if err := s.renew(ctx); err != nil {
			return err
		}
	}

	switch {
	case l.json():
		return l.list(ctx, s, newLineOf[lockRecord](l.stdout, s.clock(), "locks"))
	case terminal(l.stdout):
		return l.screen(ctx, s)
	}

	if _, err := fmt.Fprintf(l.stdout, "At %s:\n", stamp(s.clock())); err != nil {
		return err
	}

	err := l.list(ctx, s, l.text(l.stdout, s.owners))
	if err == nil {
		_, err = fmt.Fprintln(l.stdout)
	}

	return err
}

// screen fills the terminal.
func (l *listing) screen(ctx context.Context, s *sight) error {
	width, height, err := term.GetSize(int(l.stdout.Fd()))
	if err != nil {
		width, height = 80, 24
	}

	var text bytes.Buffer

	out := &someRecords{textRecords: l.text(&text, s.owners), room: max(height-4, 1)}
	out.width = width

	if err := l.list(ctx, s, out); err != nil {
		return err
	}

	// Home, and clear what is behind each line and below the last, so that nothing flickers.
	atLeast := ""
	if out.left == countUpTo {
		atLeast = "at least "
	}

	top := fmt.Sprintf("\x1b[H%s%d locks at %s, every %s, Ctrl-C ends it\x1b[K\n",
		atLeast, out.shown+out.left, stamp(s.clock()), l.interval.String())
	body := bytes.ReplaceAll(text.Bytes(), []byte("\n"), []byte("\x1b[K\n"))

	bottom := "\x1b[J"
	if out.left > 0 {
		bottom = fmt.Sprintf("... and %s%d more\x1b[K\x1b[J", atLeast, out.left)
	}

	_, err = fmt.Fprintf(l.stdout, "%s%s%s", top, body, bottom)

	return err
}

// countUpTo is how many of the locks are counted for which there is no room.
const countUpTo = 10_000

// someRecords are as many as there is room for.
type someRecords struct {
	*textRecords
	room, shown, left int
}

func (s *someRecords) add(r lockRecord) error {
	if s.shown == s.room {
		if s.left++; s.left == countUpTo {
			return errEnough
		}

		return nil
	}

	s.shown++

	return s.textRecords.add(r)
}
