package traffic

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// Once nothing is broken any more, a client has to do two things that other workers do only at
// times. These two workers do them for certain.

// Relay is the lock of workers that wait without a limit. It is held briefly and mostly free. A
// waiter that isn't granted it wasn't woken, and doesn't look.
var Relay = Spec{"relay-0", 300 * time.Millisecond}

const (
	relayTenure  = 20 * time.Millisecond
	relayAbsence = 400 * time.Millisecond

	// steadyTTL is long enough to open a connection within it, however busy the machine is. Shorter
	// leases may be lost then.
	steadyTTL    = time.Second
	steadyTenure = steadyTTL * 6 / 5
	// endless is longer than any run: such a wait ends with the run alone.
	endless = time.Hour
)

// steady is a lock that its client alone uses, and holds for longer than a lease: it
// lives on renewals.
func steady(client string) Spec { return Spec{"steady-" + client, steadyTTL} }

// passOn waits without a limit for a lock, and holds it briefly.
func (w *worker) passOn(ctx context.Context, lock Spec) {
	w.waitFor(ctx, lock, endless, w.upTo(relayTenure))
}

// keepSteady holds a lock for longer than a lease.
func (w *worker) keepSteady(ctx context.Context, lock Spec) {
	w.waitFor(ctx, lock, time.Second, steadyTenure)
}

// waitFor takes a lock, holds it for that long unless it is lost, and releases it.
func (w *worker) waitFor(ctx context.Context, lock Spec, patience, tenure time.Duration) {
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	e := w.rec.Invoke(limited(asking, history.Event{Kind: history.Lock, Lock: lock.ID, TTL: int64(lock.TTL), Waits: true}))
	lk, err := w.locker.Lock(asking, lock.ID, lock.TTL)
	e.At = 0

	if err != nil {
		w.rec.Return(outcome(e, err))

		return
	}

	w.rec.Return(held(e, lk))
	context.AfterFunc(lk.Context(), func() { w.lost(lk, context.Cause(lk.Context())) })

	holding, release := context.WithCancel(lk.Context())
	defer release()

	stop := context.AfterFunc(ctx, release)
	defer stop()

	sleep(holding, tenure)
	w.unlock(ctx, lk, e)
}
