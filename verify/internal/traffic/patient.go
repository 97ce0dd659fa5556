package traffic

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// What a client has to do again once nothing is broken any more, other workers do only now
// and then. So there are two of which it is known when they do.

// Relay is the lock of those who wait for as long as it takes. It is held for moments, and
// free for most of the time: who isn't granted it wasn't woken, and doesn't look.
var Relay = Spec{"relay-0", 300 * time.Millisecond}

const (
	relayTenure  = 20 * time.Millisecond
	relayAbsence = 400 * time.Millisecond

	// steadyTTL is long enough for a connection to be opened within it, however busy the
	// machine is; of shorter leases nothing is promised then.
	steadyTTL    = time.Second
	steadyTenure = steadyTTL * 6 / 5
	// endless is beyond any run: only the end of a run ends such a wait.
	endless = time.Hour
)

// steady is a lock that its client alone uses, and holds for longer than a lease: it
// lives on renewals.
func steady(client string) Spec { return Spec{"steady-" + client, steadyTTL} }

// passOn waits for a lock for as long as it takes, and holds it for a moment.
func (w *worker) passOn(ctx context.Context, lock Spec) {
	w.waitFor(ctx, lock, endless, w.upTo(relayTenure))
}

// keepSteady holds a lock for longer than a lease.
func (w *worker) keepSteady(ctx context.Context, lock Spec) {
	w.waitFor(ctx, lock, time.Second, steadyTenure)
}

// waitFor takes a lock, holds it for that long unless it is lost, and gives it up.
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
