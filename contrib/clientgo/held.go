package pglockerclientgo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker"
)

// clockCheck is the longest time between two looks at the wall clock while a Lock leads.
const clockCheck = time.Second

// held is the lease that a Lock was granted, as far as it knows.
type held struct {
	// mu guards what follows.
	mu sync.Mutex
	// status is the lease as it was granted or seen last, nil if there is none.
	status *pglocker.LockStatus
	// ours begins the owner of every grant to this Lock, "" until the first. It has the random id of the Lock's Locker.
	ours string
	// token is the generation that the lease began with.
	token int64

	// leads: the elector that runs by the context of the last UntilLost was told of a grant. That context, which lost
	// ends, is to end at the time until, by the clock that is there first.
	leads bool
	until time.Time
	// timer calls expire while leads.
	timer *time.Timer
	lost  context.CancelCauseFunc
}

// Token returns the fencing token of this Lock's term: it is the same until the term ends, and larger than those of all
// terms before. It is 0 while the Lock has no lease. It says nothing about whether the lease has ended.
//
// A resource that remembers the largest token, and refuses smaller ones, isn't written to by a former leader.
func (l *Lock) Token() int64 {
	l.held.mu.Lock()
	defer l.held.mu.Unlock()

	return l.held.token
}

// UntilLost returns a context for the elector's Run, for RunOrDie or for the Start of controller-runtime's manager. It
// ends with ctx, and when this Lock can't trust its lease any more, with a cause that matches [pglocker.ErrLockLost]:
//
//   - No renewal was acknowledged in time. That is [pglocker.Config.SafetyMargin] before the lease ends at the latest,
//     counted from before the last acknowledged renewal was sent. The clock that says so first counts, monotonic or
//     wall: after the sleep of a machine, the context ends within a second.
//   - Get has seen that the lease is gone.
//
// It also ends before a release is sent. So a leader stops before another can start, while its process isn't paused.
// Run returns then. To campaign again, the caller calls UntilLost again: each call ends the context of the call before.
func (l *Lock) UntilLost(ctx context.Context) context.Context {
	ctx, lost := context.WithCancelCause(ctx)

	l.held.mu.Lock()
	defer l.held.mu.Unlock()

	if l.held.lost != nil {
		l.held.lost(context.Canceled)
	}

	l.held.lost, l.held.leads = lost, false

	return ctx
}

// lease returns the status by which the lease is renewed, nil if there is none.
func (h *held) lease() *pglocker.LockStatus {
	h.mu.Lock()
	defer h.mu.Unlock()

	return h.status
}

// granted takes note of a grant or a renewal that can be trusted until then. told: the elector is told of a success.
func (h *held) granted(status *pglocker.LockStatus, until time.Time, told bool) {
	h.mu.Lock()
	defer h.mu.Unlock()

	h.ours = status.Owner[:strings.LastIndexByte(status.Owner, '.')+1]
	h.take(status)

	h.leads, h.until = h.leads || told, until

	if h.timer == nil {
		h.timer = time.AfterFunc(nextLook(time.Now(), until), h.expire)
	} else {
		h.timer.Reset(nextLook(time.Now(), until))
	}
}

// take makes a status that of the lease. The caller has locked mu.
func (h *held) take(status *pglocker.LockStatus) {
	h.status = status
	if h.token == 0 {
		h.token = status.Generation
	}
}

// see compares what the row shows with the lease. It returns what is newer, and whether that is this Lock's. It may be
// under a later generation: that of a renewal whose reply was lost. On a table without owners that isn't seen.
func (h *held) see(status *pglocker.LockStatus) (newest *pglocker.LockStatus, ours bool) {
	h.mu.Lock()
	defer h.mu.Unlock()

	switch {
	// A standby that lags behind. After the term it may be a table that was restored.
	case h.status != nil && status.Generation < h.status.Generation && left(time.Now(), h.until) > 0:
		return h.status, true
	case h.ours != "" && strings.HasPrefix(status.Owner, h.ours):
		h.take(status)
	case h.status == nil || h.status.Generation != status.Generation:
		h.drop("another grant or a release was seen")

		return status, false
	}

	return status, true
}

// lose takes note that there is no lease.
func (h *held) lose() {
	h.mu.Lock()
	defer h.mu.Unlock()

	h.drop("the row is gone")
}

// expire is called when the time until may have come.
func (h *held) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()

	if !h.leads {
		return
	}

	if next := nextLook(time.Now(), h.until); next > 0 {
		h.timer.Reset(next)
	} else {
		h.stop(fmt.Errorf("%w: no renewal was acknowledged in time", pglocker.ErrLockLost))
	}
}

// nextLook is how long it is from now to the next look at the clocks, zero or below if until has come. Timers go by the
// monotonic clock alone.
func nextLook(now, until time.Time) time.Duration { return min(left(now, until), clockCheck) }

// left is how long it is from now to until. The clock that says less counts: the monotonic one stops while a machine
// sleeps, and the wall clock may be set back.
func left(now, until time.Time) time.Duration {
	return min(until.Sub(now), until.Round(0).Sub(now.Round(0)))
}

// end ends the term, and returns the lease that is to be released, nil if there is none.
func (h *held) end() *pglocker.LockStatus {
	h.mu.Lock()
	defer h.mu.Unlock()

	status := h.status
	h.stop(context.Canceled)
	h.status, h.token = nil, 0

	return status
}

// drop forgets the lease. The caller has locked mu.
func (h *held) drop(why string) {
	h.stop(fmt.Errorf("%w: %s", pglocker.ErrLockLost, why))
	h.status, h.token = nil, 0
}

// stop ends the context of UntilLost if it leads. The caller has locked mu.
func (h *held) stop(cause error) {
	if h.leads && h.lost != nil {
		h.lost(cause)
	}

	h.leads = false
}
