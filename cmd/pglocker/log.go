package main

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// logger is what the library tells on the standard error: losses and releases that fail; with --verbose, also what
// it waits for and repeats.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	if a.verbose {
		level = slog.LevelDebug
	}

	return slog.New(newLines(a.stderr, level))
}

func newLines(to io.Writer, level slog.Level) *lines {
	return &lines{to: to, level: level, mu: new(sync.Mutex)}
}

// lines is a [slog.Handler] that writes for people: a line for each message, with what belongs to it in brackets.
type lines struct {
	level slog.Level
	with  []slog.Attr

	mu *sync.Mutex // guards the writer
	to io.Writer
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	var about []string

	note := func(a slog.Attr) bool {
		about = append(about, a.Key+" "+printable(a.Value.String()))

		return true
	}

	for _, a := range l.with {
		note(a)
	}

	r.Attrs(note)

	text := "pglocker: " + strings.TrimPrefix(r.Message, "pglocker: ")
	if len(about) > 0 {
		text += " (" + strings.Join(about, ", ") + ")"
	}

	l.mu.Lock()
	defer l.mu.Unlock()

	_, err := io.WriteString(l.to, text+"\n")

	return err
}

func (l *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *l
	with.with = append(append([]slog.Attr{}, l.with...), attrs...)

	return &with
}

// WithGroup leaves groups out: the library has none.
func (l *lines) WithGroup(string) slog.Handler { return l }
