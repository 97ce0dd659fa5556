package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ismurov/pglocker/internal/outlive"
)

const (
	// maxOpenings bounds the connections that a handle opens at once for this package. lib/pq
	// doesn't return from a server that accepts a connection and then says nothing.
	maxOpenings = 8
	// maxOpeningsBeside is the same for a handle beside the pool.
	maxOpeningsBeside = 4
	// openWithin is how long an opening may take. If its caller leaves, the next one can use it.
	openWithin = 2 * time.Minute
	// replaceAfter is how long an opening that no caller waits for is left alone. Then it may be
	// given up for a new one, which perhaps finds another server.
	replaceAfter = 10 * time.Second
	// lookAgain is how often a caller that may not open one looks for a free connection.
	lookAgain = 100 * time.Millisecond
)

// opening is one connection that is being opened. It goes on when its caller leaves: a server that
// starts, or a login that needs a ticket first, may take longer than callers have time.
type opening struct {
	*outlive.Request[opened]
	began  time.Time
	cancel context.CancelFunc
	// left and cancelled are guarded by the handle's mutex.
	left, cancelled bool
}

type opened struct {
	conn conn
	err  error
}

// conn takes a connection of the pool, or opens one.
func (h *handle) conn(ctx context.Context) (conn, error) {
	for {
		if !h.mustOpen() {
			return h.next(ctx)
		}

		var (
			result <-chan opened
			again  <-chan time.Time
		)

		o, changed := h.begin(ctx)
		if o != nil {
			result = o.Result()
		} else {
			again = time.After(lookAgain)
		}

		select {
		case got := <-result:
			if got.conn == nil && got.err == nil {
				got.err = errDriverLeft
			}

			return got.conn, got.err
		case conn := <-h.ready:
			h.leave(o)

			return conn, nil
		case <-ctx.Done():
			h.leave(o)

			return nil, ctx.Err()
		case <-changed:
		case <-again:
		}
	}
}

// mustOpen reports whether the pool has no connection to give, and may open one.
func (h *handle) mustOpen() bool {
	if h.under != nil {
		return false
	}

	stats := h.db.Stats()

	return stats.Idle == 0 && (stats.MaxOpenConnections <= 0 || stats.OpenConnections < stats.MaxOpenConnections)
}

// begin starts to open a connection, or returns what is closed when there may be room for that.
func (h *handle) begin(ctx context.Context) (o *opening, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if len(h.openings) >= h.mostOpenings {
		h.replace()

		if h.changed == nil {
			h.changed = make(chan struct{})
		}

		return nil, h.changed
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openWithin)
	o = &opening{began: time.Now(), cancel: cancel}
	h.openings = append(h.openings, o)

	o.Request = outlive.Start(func(run func()) {
		h.detached.start(func() {
			defer h.end(o)

			run()
		})
	}, func() opened { return h.open(ctx) }, h.offer)

	return o, nil
}

// replace gives up the second oldest of the openings that no caller waits for. The oldest may be
// nearly there. h.mu is held.
func (h *handle) replace() {
	oldest := true

	for _, o := range h.openings {
		switch {
		case !o.left:
		case oldest:
			oldest = false
		case o.cancelled:
			return // its end is awaited
		case time.Since(o.began) >= replaceAfter:
			o.cancelled = true
			o.cancel()

			return
		}
	}
}

// open turns a panic of the driver, or of a hook, into an error for the caller.
func (h *handle) open(ctx context.Context) (o opened) {
	defer func() {
		if cause := recover(); cause != nil {
			o = opened{err: fmt.Errorf("%w: %v", errDriverPanicked, cause)}
		}
	}()

	o.conn, o.err = h.next(ctx)

	return o
}

// offer gives a connection whose caller has left to the next caller, or back to the pool.
func (h *handle) offer(o opened) {
	if o.conn == nil {
		return
	}

	select {
	case h.ready <- o.conn:
	default:
		_ = o.conn.Close() // back to the pool
	}
}

// end takes an opening out, however it ended.
func (h *handle) end(o *opening) {
	o.cancel()

	h.mu.Lock()
	defer h.mu.Unlock()

	h.openings = slices.DeleteFunc(h.openings, func(other *opening) bool { return other == o })

	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}

	h.endIfUnused()
}

// leave says that the caller of an opening, if there is one, has left.
func (h *handle) leave(o *opening) {
	if o == nil {
		return
	}

	h.mu.Lock()
	defer h.mu.Unlock()

	o.left = true
	o.Leave()
}

// giveUpOpening ends the openings that no caller waits for.
func (h *handle) giveUpOpening() {
	h.mu.Lock()
	defer h.mu.Unlock()

	for _, o := range h.openings {
		if o.left {
			o.cancelled = true
			o.cancel()
		}
	}
}
