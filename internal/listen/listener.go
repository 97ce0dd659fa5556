// Package listen receives the notifications of released locks. Its connection exists while a waiter of the Locker
// waits, and for up to five seconds after the last.
//
// A connection that listens may still hear nothing: behind a pooler in transaction mode LISTEN
// succeeds, and the notifications go to the client that has that server connection by then. So
// a connection is believed once it has heard a probe, a notification that the listener sends
// itself over another connection. Until then, and when the connection is lost, the waiters poll.
// A listener saves time; nothing else depends on it.
package listen

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/internal/pause"
)

var (
	// ErrUnsupported is the error of a driver that can't listen.
	ErrUnsupported = errors.New("pglocker: the driver can't listen")
	// ErrRefused is the error of a server that refuses every LISTEN.
	ErrRefused = errors.New("pglocker: the server refuses LISTEN")
	// ErrUnsent is the error of a notification that was certainly not sent.
	ErrUnsent = errors.New("pglocker: the notification was not sent")
)

// Conn is a connection of the listener's own.
type Conn interface {
	// Listen starts to listen on a channel. ErrRefused: the server refuses LISTEN.
	Listen(ctx context.Context, channel string) error
	Wait(ctx context.Context) (channel, payload string, err error)
	Close()
}

type Config struct {
	// Open opens a connection. ErrUnsupported is final.
	Open func(ctx context.Context) (Conn, error)
	// Notify sends a notification over another connection. ErrUnsent: it was not sent.
	Notify func(ctx context.Context, channel string) error
	// Channel is listened on. Probe is a channel of this listener alone.
	Channel, Probe string
	// Wake is called with the payload of each notification. WakeAll is called when some may
	// have been missed, and when the waiters need no longer poll. Both return at once.
	Wake    func(payload string)
	WakeAll func()
	// OnState is told of each change of the state, and returns at once.
	OnState func(from, to State)
	Logger  *slog.Logger
}

// State is what the waiters rely on.
type State string

const (
	Resting State = "resting" // there are none
	Polling State = "polling"
	Hearing State = "hearing"
)

const (
	// The connection outlives the last waiter by as long as it has heard, from lingerMin to lingerMax: a process that
	// has waited for long may soon wait again.
	lingerMin, lingerMax = 250 * time.Millisecond, 5 * time.Second
	// The pause between connections doubles from reconnectMin to reconnectMax.
	reconnectMin, reconnectMax = 20 * time.Millisecond, 5 * time.Second
	// openWithin is how long a connection may take to open, which is long where a server
	// starts for it. setUpWithin is how long it then has until it listens.
	openWithin  = 30 * time.Second
	setUpWithin = 5 * time.Second
	// A server that refuses LISTEN is asked again: it may be another by then.
	refusedMin = 5 * time.Minute
	refusedMax = time.Hour

	polling = "pglocker: waiting by polling"
)

// Listener listens for all waiters of one Locker.
type Listener struct {
	cfg Config

	proven atomic.Bool // the connection has heard a probe

	// mu guards the fields below up to the next empty line.
	mu      sync.Mutex
	waiters int
	state   State
	// stop ends the goroutine, nil if there is none. idle does so after the linger.
	stop context.CancelFunc
	idle *time.Timer
	// hears is since when the connection hears, zero if it doesn't.
	hears time.Time
	never bool // the driver can't listen
	// refused is for how long a server that refuses LISTEN is not asked again.
	refused      time.Duration
	refusedUntil time.Time

	goroutines sync.WaitGroup
}

// New returns a Listener that owns nothing yet.
func New(cfg Config) *Listener {
	l := &Listener{cfg: cfg, state: Resting}
	l.idle = time.AfterFunc(lingerMax, l.endIfUnused)
	l.idle.Stop()

	return l
}

// Proven reports whether releases are heard for certain, as long as the connection lasts. A
// waiter asks before it looks at the lock.
func (l *Listener) Proven() bool { return l.proven.Load() }

// Use says that a waiter waits, until Done.
func (l *Listener) Use() {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.waiters++
	l.idle.Stop()

	if l.state == Resting {
		l.move(Polling)
	}

	if l.stop != nil || l.never {
		return
	}

	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop

	l.goroutines.Go(func() { l.run(ctx) })
}

// Done ends what Use began.
func (l *Listener) Done() {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.waiters--

	switch {
	case l.waiters > 0:
	case l.stop != nil && l.hears.IsZero():
		l.idle.Reset(lingerMin)
	case l.stop != nil:
		l.idle.Reset(min(max(time.Since(l.hears), lingerMin), lingerMax))
	default:
		l.move(Resting)
	}
}

// Wait ends the linger and returns when the connection is closed. No waiter may be left.
func (l *Listener) Wait() {
	l.endIfUnused()
	l.goroutines.Wait()
}

func (l *Listener) endIfUnused() {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.waiters == 0 && l.stop != nil {
		l.end()
	}
}

// end stops the goroutine. The caller holds mu.
func (l *Listener) end() {
	l.idle.Stop()
	l.stop()
	l.stop = nil
	l.hears = time.Time{}
	l.proven.Store(false)

	if l.waiters > 0 { // the driver can't listen
		l.move(Polling)
	} else {
		l.move(Resting)
	}
}

// move moves the state. The caller holds mu, so changes are told in order.
func (l *Listener) move(to State) {
	from := l.state
	l.state = to

	if from != to && l.cfg.OnState != nil {
		l.cfg.OnState(from, to)
	}
}

// change calls do under mu, unless ctx has ended: another goroutine may listen by then.
func (l *Listener) change(ctx context.Context, do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if ctx.Err() == nil {
		do()
	}
}

// run listens over one connection after another until ctx ends, or the driver can't.
func (l *Listener) run(ctx context.Context) {
	delay := reconnectMin

	for pause.Sleep(ctx, l.untilAsked()) {
		began := time.Now()
		cause, err := l.listen(ctx)

		if ctx.Err() != nil {
			return
		}

		l.proven.Store(false)
		l.change(ctx, func() {
			l.hears = time.Time{}

			if l.waiters == 0 { // it only lingered
				l.end()
			} else {
				l.move(Polling)
			}
		})

		if ctx.Err() != nil {
			return
		}

		l.cfg.WakeAll() // the waiters relied on notifications

		switch {
		case errors.Is(err, ErrUnsupported):
			l.cfg.Logger.Info(polling, "cause", cause, "error", err)
			l.change(ctx, func() {
				l.never = true
				l.end()
			})

			return
		case errors.Is(err, ErrRefused):
			l.change(ctx, func() {
				if l.refused == 0 {
					l.cfg.Logger.Info(polling, "cause", cause, "error", err)
				}

				l.refused = min(max(2*l.refused, refusedMin), refusedMax)
				l.refusedUntil = time.Now().Add(l.refused)
			})

			continue
		}

		l.cfg.Logger.Warn(polling, "cause", cause, "error", err)

		if time.Since(began) > reconnectMax {
			delay = reconnectMin
		}

		pause.Sleep(ctx, pause.Jitter(delay, 2))

		delay = min(2*delay, reconnectMax)
	}
}

// untilAsked is how long a server that refuses LISTEN is not asked again.
func (l *Listener) untilAsked() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()

	return time.Until(l.refusedUntil)
}

// listen is the life of one connection. It returns what has ended it, and the error of that.
func (l *Listener) listen(ctx context.Context) (cause string, err error) {
	conn, err := l.open(ctx)
	if err != nil {
		return "the listener has no connection", err
	}

	defer conn.Close()
	l.change(ctx, func() { l.refused, l.refusedUntil = 0, time.Time{} })

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

	for {
		channel, payload, err := conn.Wait(ctx)

		switch {
		case err != nil:
			return "the listener lost its connection", cmp.Or(context.Cause(ctx), err)
		case channel == l.cfg.Channel:
			l.cfg.Wake(payload)
		case channel == l.cfg.Probe:
			select {
			case heard <- struct{}{}:
			default:
			}

			if !l.Proven() {
				l.change(ctx, func() {
					l.hears = time.Now()
					l.proven.Store(true)
					l.move(Hearing)
				})
				l.cfg.WakeAll()
			}
		}
	}
}

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
