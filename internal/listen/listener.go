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

// ErrUnsupported is the error of a driver that can't listen.
var ErrUnsupported = errors.New("pglocker: the driver can't listen")

// Conn is a connection of the listener's own.
type Conn interface {
	// Listen starts to listen on a channel.
	Listen(ctx context.Context, channel string) error
	// Wait returns the next notification.
	Wait(ctx context.Context) (channel, payload string, err error)
	Close()
}

// Config says how the listener does its work.
type Config struct {
	// Open opens a connection; ErrUnsupported is final.
	Open func(ctx context.Context) (Conn, error)
	// Notify sends a notification over another connection.
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

	for {
		began := time.Now()
		err := l.listen(ctx)

		if ctx.Err() != nil {
			return
		}

		l.proven.Store(false)
		l.cfg.WakeAll() // they polled seldom, in the belief that they would hear

		if errors.Is(err, ErrUnsupported) {
			l.giveUp(ctx, err)

			return
		}

		l.cfg.Logger.Warn("pglocker: listener lost its connection; waiting by polling until it is back", "error", err)

		if time.Since(began) > reconnectMax {
			delay = reconnectMin
		}

		select {
		case <-time.After(delay/2 + rand.N(delay/2)):
		case <-ctx.Done():
			return
		}

		delay = min(2*delay, reconnectMax)
	}
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

// listen is one connection's life.
func (l *Listener) listen(ctx context.Context) error {
	setup, cancel := context.WithTimeout(ctx, reconnectMax)
	defer cancel()

	conn, err := l.cfg.Open(setup)
	if err != nil {
		return err
	}

	defer conn.Close()

	for _, channel := range []string{l.cfg.Probe, l.cfg.Channel} {
		if err := conn.Listen(setup, channel); err != nil {
			return err
		}
	}

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
			return errDeaf
		case err != nil:
			return err
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

var errDeaf = errors.New("pglocker: the listener no longer hears")

// probeUntilHeard sends notifications to the listener until one is heard, or
// returns false when ctx ends. One that takes long is not held against the
// connection: the server may be busy, and behind a pooler nothing is lost by
// asking again now and then.
func (l *Listener) probeUntilHeard(ctx context.Context, heard <-chan struct{}) bool {
	for after := probeAfterMin; ; after = min(2*after, probeAfterMax) {
		err := l.sendProbe(ctx, after)

		select {
		case <-heard:
			return true
		case <-ctx.Done():
			return false
		case <-time.After(after):
		}

		if after == probeAfterMin {
			l.cfg.Logger.Info("pglocker: waiting by polling, since no notification arrives (a pooler in transaction mode?)",
				"error", err)
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
