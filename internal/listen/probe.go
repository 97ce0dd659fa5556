package listen

import (
	"context"
	"errors"
	"time"

	"github.com/ismurov/pglocker/internal/pause"
)

const (
	// A probe that is not heard is repeated after probeAfterMin, and then less often. Once one
	// was heard there is another after each probeAfterMax.
	probeAfterMin = time.Second
	probeAfterMax = time.Minute
	// hearWithin is how long a connection that used to hear has to hear the next probe.
	hearWithin = 10 * time.Second
)

var errDeaf = errors.New("pglocker: the listener no longer hears")

// probeUntilHeard sends probes until one is heard, or returns false when ctx ends. It keeps a
// connection that hears none: the server may be busy, and a new one is no better behind a pooler.
func (l *Listener) probeUntilHeard(ctx context.Context, heard <-chan struct{}) bool {
	told := ""

	for after := probeAfterMin; ; after = min(2*after, probeAfterMax) {
		err := l.sendProbe(ctx, after)

		if hear(ctx, heard, after) {
			return true
		}

		if ctx.Err() != nil {
			return false
		}

		cause := "no notification arrives (a pooler in transaction mode?)"
		attrs := []any{"error", err}

		switch {
		case errors.Is(err, ErrUnsent):
			cause = "no notification could be sent to try the listener"
		case err != nil:
			cause = "no notification was sent for certain"
		default:
			attrs = nil
		}

		if cause != told {
			told = cause
			l.cfg.Logger.Info(polling, append(attrs, "cause", cause)...)
		}
	}
}

// probeWhileHeard sends probes to a connection that hears, until ctx ends. It returns errDeaf
// when one is not heard: the other end may have vanished without a word.
func (l *Listener) probeWhileHeard(ctx context.Context, heard <-chan struct{}) error {
	for pause.Sleep(ctx, probeAfterMax) {
		// An earlier probe may have been heard meanwhile, which proves nothing about now.
		select {
		case <-heard:
		default:
		}

		if err := l.sendProbe(ctx, hearWithin); err != nil {
			continue // this says nothing about the connection that listens
		}

		if !hear(ctx, heard, hearWithin) && ctx.Err() == nil {
			return errDeaf
		}
	}

	return nil
}

func (l *Listener) sendProbe(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()

	return l.cfg.Notify(ctx, l.cfg.Probe)
}

// hear reports whether a probe is heard within a time, and before ctx ends.
func hear(ctx context.Context, heard <-chan struct{}, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()

	select {
	case <-heard:
		return true
	case <-ctx.Done():
		return false
	}
}
