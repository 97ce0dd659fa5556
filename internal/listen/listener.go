// Package listen receives the notifications of released locks, over one
// connection that exists only while somebody waits.
//
// A connection that listens may still hear nothing: behind a pooler in
// transaction mode LISTEN succeeds, and the notifications go to whoever has that
// server connection at the moment. So a listener is believed only once it has
// heard a notification that was sent to it over another connection. Until then,
// and whenever the connection is lost, those who wait poll; a listener saves
// time and nothing else depends on it.
package listen

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrUnsupported is the error of a driver that can't listen.
	ErrUnsupported = errors.New("pglocker: the driver can't listen")
	// ErrRefused is the error of a server that doesn't let anybody listen.
	ErrRefused = errors.New("pglocker: the server refuses LISTEN")
	// ErrUnsent is the error of a notification that was not sent for certain.
	ErrUnsent = errors.New("pglocker: the notification was not sent")
)

// Conn is a connection of the listener's own.
type Conn interface {
	// Listen starts to listen on a channel. ErrRefused: the server doesn't do that.
	Listen(ctx context.Context, channel string) error
	// Wait returns the next notification.
	Wait(ctx context.Context) (channel, payload string, err error)
	Close()
}

// Config says how the listener does its work.
type Config struct {
	// Open opens a connection; ErrUnsupported is final.
	Open func(ctx context.Context) (Conn, error)
	// Notify sends a notification over another connection. ErrUnsent: it was not sent.
	Notify func(ctx context.Context, channel string) error
	// Channel is what is listened on, and Probe a channel of this listener alone.
	Channel, Probe string
	// Wake is called with the payload of each notification, and WakeAll when some
	// may have been missed, or when waiting need no longer be polling. Both return
	// at once.
	Wake    func(payload string)
	WakeAll func()
	Logger  *slog.Logger
}

const (
	// A connection that has not heard its probe is sent another after a second,
	// then after longer, up to a minute. One that has is sent another each minute.
	probeAfterMin = time.Second
	probeAfterMax = time.Minute
	// hearWithin is how long a connection that used to hear may take to hear a
	// probe. After that it is opened anew.
	hearWithin = 10 * time.Second
	// linger is how long the connection outlives the last who waited, so that
	// locks that are waited for often, and never for long, don't cost a connection
	// each time.
	linger = 250 * time.Millisecond

	reconnectMin = 20 * time.Millisecond
	reconnectMax = 5 * time.Second

	// openWithin is how long a connection may take to be opened, which is long where a
	// server starts for it, and setUpWithin how long it then has until it listens.
	openWithin  = 30 * time.Second
	setUpWithin = 5 * time.Second

	// A server that refuses LISTEN is asked again after some minutes: it may be another
	// by then, or another version.
	refusedMin = 5 * time.Minute
	refusedMax = time.Hour
)

// Listener serves all who wait in one Locker.
type Listener struct {
	cfg Config

	// proven: the connection has heard its probe.
	proven atomic.Bool

	// mu guards what follows.
	mu    sync.Mutex
	users int
	// stop ends the running goroutine, nil if there is none; idle does so some time
	// after the last user has gone.
	stop context.CancelFunc
	idle *time.Timer
	// never is set if the driver can't listen.
	never bool
	// refused is for how long the server is not asked again, and refusedUntil until when:
	// zero if it has not refused to be listened to.
	refused      time.Duration
	refusedUntil time.Time

	goroutines sync.WaitGroup
}

// New returns a Listener that owns nothing yet.
func New(cfg Config) *Listener { return &Listener{cfg: cfg} }

// Proven reports whether a release is now heard for certain, as long as the
// connection lasts. A waiter asks before it looks at the lock.
func (l *Listener) Proven() bool { return l.proven.Load() }

// Use says that somebody waits, until Done.
func (l *Listener) Use() {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.users++

	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}

	if l.stop != nil || l.never {
		return
	}

	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop

	l.goroutines.Add(1)

	go func() {
		defer l.goroutines.Done()

		l.run(ctx)
	}()
}

// Done ends what Use began.
func (l *Listener) Done() {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.users--

	if l.users == 0 && l.stop != nil {
		l.idle = time.AfterFunc(linger, l.endIfUnused)
	}
}

// Wait ends the linger and returns when the connection is closed. Nobody may wait
// any more.
func (l *Listener) Wait() {
	l.endIfUnused()
	l.goroutines.Wait()
}

func (l *Listener) endIfUnused() {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.users == 0 && l.stop != nil {
		l.end()
	}
}

// end stops the goroutine. The mutex is held.
func (l *Listener) end() {
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}

	l.stop()
	l.stop = nil
	l.proven.Store(false)
}

// run listens until ctx ends, or until it is clear that nothing will be heard.
func (l *Listener) run(ctx context.Context) {
	delay := reconnectMin

	for l.sleep(ctx, l.untilAsked()) {
		began := time.Now()
		connected, err := l.listen(ctx)

		if ctx.Err() != nil {
			return
		}

		l.proven.Store(false)
		l.cfg.WakeAll() // they polled seldom, in the belief that they would hear

		switch {
		case errors.Is(err, ErrUnsupported):
			l.giveUp(ctx, err)

			return
		case errors.Is(err, ErrRefused):
			l.putOff(ctx, err)

			continue
		case connected:
			l.cfg.Logger.Warn("pglocker: listener lost its connection; waiting by polling until it is back", "error", err)
		default:
			l.cfg.Logger.Warn("pglocker: listener has no connection yet; waiting by polling until it has one", "error", err)
		}

		if time.Since(began) > reconnectMax {
			delay = reconnectMin
		}

		if !l.sleep(ctx, delay/2+rand.N(delay/2)) {
			return
		}

		delay = min(2*delay, reconnectMax)
	}
}

// sleep returns false when ctx ends.
func (l *Listener) sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}

	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// untilAsked is how long a server that refuses LISTEN is still left alone.
func (l *Listener) untilAsked() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()

	return time.Until(l.refusedUntil)
}

// putOff leaves the server alone for some time.
func (l *Listener) putOff(ctx context.Context, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if ctx.Err() != nil {
		return // another goroutine's turn
	}

	if l.refused == 0 {
		l.cfg.Logger.Info("pglocker: waiting by polling, without notifications; the server is asked again now and then",
			"reason", err)
	}

	l.refused = min(max(2*l.refused, refusedMin), refusedMax)
	l.refusedUntil = time.Now().Add(l.refused)
}

func (l *Listener) giveUp(ctx context.Context, err error) {
	l.cfg.Logger.Info("pglocker: waiting by polling, without notifications", "reason", err)

	l.mu.Lock()
	defer l.mu.Unlock()

	if ctx.Err() != nil {
		return // another goroutine's turn
	}

	l.never = true
	l.end()
}

// listen is one connection's life. connected: it did listen.
func (l *Listener) listen(ctx context.Context) (connected bool, err error) {
	conn, err := l.open(ctx)
	if err != nil {
		return false, err
	}

	defer conn.Close()

	l.accepted()

	ctx, deafen := context.WithCancelCause(ctx)
	heard := make(chan struct{}, 1)

	var prober sync.WaitGroup

	prober.Go(func() {
		if l.probeUntilHeard(ctx, heard) {
			deafen(l.probeWhileHeard(ctx, heard))
		}
	})

	defer prober.Wait()
	defer deafen(nil)

	for proven := false; ; {
		channel, payload, err := conn.Wait(ctx)

		switch {
		case err != nil && errors.Is(context.Cause(ctx), errDeaf):
			return true, errDeaf
		case err != nil:
			return true, err
		case channel == l.cfg.Channel:
			l.cfg.Wake(payload)
		case channel == l.cfg.Probe:
			select {
			case heard <- struct{}{}:
			default:
			}

			if !proven {
				proven = true

				l.prove(ctx)
				l.cfg.WakeAll()
			}
		}
	}
}

// open returns a connection that listens.
func (l *Listener) open(ctx context.Context) (Conn, error) {
	opening, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()

	conn, err := l.cfg.Open(opening)
	if err != nil {
		return nil, err
	}

	setUp, cancel := context.WithTimeout(ctx, setUpWithin)
	defer cancel()

	for _, channel := range []string{l.cfg.Probe, l.cfg.Channel} {
		if err := conn.Listen(setUp, channel); err != nil {
			conn.Close()

			return nil, err
		}
	}

	return conn, nil
}

// accepted notes that the server doesn't refuse LISTEN.
func (l *Listener) accepted() {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.refused, l.refusedUntil = 0, time.Time{}
}

var errDeaf = errors.New("pglocker: the listener no longer hears")

// probeUntilHeard sends notifications to the listener until one is heard, or
// returns false when ctx ends. One that takes long is not held against the
// connection: the server may be busy, and behind a pooler nothing is lost by
// asking again now and then.
func (l *Listener) probeUntilHeard(ctx context.Context, heard <-chan struct{}) bool {
	told := ""

	for after := probeAfterMin; ; after = min(2*after, probeAfterMax) {
		err := l.sendProbe(ctx, after)

		select {
		case <-heard:
			return true
		case <-ctx.Done():
			return false
		case <-time.After(after):
		}

		var (
			what = "pglocker: waiting by polling, since no notification arrives (a pooler in transaction mode?)"
			why  []any
		)

		switch {
		case errors.Is(err, ErrUnsent):
			what, why = "pglocker: waiting by polling, since no notification could be sent to try the listener", []any{"error", err}
		case err != nil:
			what, why = "pglocker: waiting by polling, since no notification was sent for certain", []any{"error", err}
		}

		if what != told {
			told = what
			l.cfg.Logger.Info(what, why...)
		}
	}
}

// probeWhileHeard does the same for a connection that hears, until it doesn't: its
// other end may have vanished without a word.
func (l *Listener) probeWhileHeard(ctx context.Context, heard <-chan struct{}) error {
	for {
		select {
		case <-time.After(probeAfterMax):
		case <-ctx.Done():
			return nil
		}

		// A probe may be left that was heard beside another, or late. It says nothing about
		// now. One that is late and heard from here on does.
		select {
		case <-heard:
		default:
		}

		if err := l.sendProbe(ctx, hearWithin); err != nil {
			continue // it could not be sent, which says nothing about the listener
		}

		select {
		case <-heard:
		case <-time.After(hearWithin):
			return errDeaf
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *Listener) sendProbe(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()

	return l.cfg.Notify(ctx, l.cfg.Probe)
}

func (l *Listener) prove(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if ctx.Err() == nil { // else end has run, and this connection counts no more
		l.proven.Store(true)
	}
}
