package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// maxOpenings bounds the connections of one handle that are being opened for requests
	// of this package, whatever the driver does: lib/pq doesn't return from a server that
	// accepts a connection and then says nothing.
	maxOpenings = 8
	// maxOpeningsBeside is the same for a handle beside the pool.
	maxOpeningsBeside = 4
	// openWithin is how long a connection may take to be opened. Its caller need not wait
	// for it: it is of use to the next one.
	openWithin = 2 * time.Minute
	// replaceAfter is how long the opening of a connection that no caller waits for is left
	// alone. Then it may be given up for a new one, which perhaps finds another server. The
	// oldest is not: it may be nearly there.
	replaceAfter = 10 * time.Second
	// maxLeft bounds the statements of one handle whose callers have left and which the
	// driver goes on waiting for.
	maxLeft = 16
	// lookAgain is how often it is looked whether the pool has a free connection
	// meanwhile.
	lookAgain = 100 * time.Millisecond
)

// handle takes connections from a database handle. The opening of one goes on when its
// caller leaves. A server that starts, or a login that needs a ticket first, may take longer
// than callers have time. If each of them began anew, none would ever get a connection.
type handle struct {
	db *sql.DB
	// pool is under db, nil if there is none. It opens connections in the background by
	// itself.
	pool *pgxpool.Pool
	// limit bounds the connections in use; nil: no bound but that of db.
	limit chan struct{}
	// mostOpenings is maxOpenings or maxOpeningsBeside.
	mostOpenings int
	// ready has a connection whose caller has left, for the next caller.
	ready chan *sql.Conn
	// detached counts what goes on without a caller.
	detached *counter

	// mu guards what follows.
	mu sync.Mutex
	// openings are under way, the oldest first.
	openings []*opening
	// taken are the connections that are in use or waited for.
	taken int
	// left counts the statements that were left behind.
	left int
	// changed is closed when one of the openings, or of what was left, has ended; nil while
	// nobody waits for that.
	changed chan struct{}
	// ended is called once the handle is closed and nothing is under way.
	ended func()
}

// opening is one connection that is being opened.
type opening struct {
	began  time.Time
	cancel context.CancelFunc
	opened chan opened
	// gone is closed when the caller has left.
	gone chan struct{}
	// left and cancelled are guarded by the handle's mutex.
	left, cancelled bool
}

type opened struct {
	conn *sql.Conn
	err  error
}

func newHandle(db *sql.DB, detached *counter) *handle {
	h := &handle{db: db, mostOpenings: maxOpenings, ready: make(chan *sql.Conn), detached: detached}

	if connector, ok := rawConnectorOf(db); ok {
		h.pool, _ = pgxPoolOf(connector)
	}

	return h
}

// take returns a connection. The caller calls done with it.
func (h *handle) take(ctx context.Context) (conn *sql.Conn, done func(), err error) {
	if h.limit != nil {
		select {
		case h.limit <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}

	h.mu.Lock()
	h.taken++
	h.mu.Unlock()

	taken := false

	defer func() {
		if !taken { // for an error, or for a panic of a hook
			h.putBack()
		}
	}()

	if conn, err = h.conn(ctx); err != nil {
		return nil, nil, err
	}

	taken = true

	return conn, func() {
		_ = conn.Close() // back to the pool; a broken one is dropped there

		h.putBack()
	}, nil
}

func (h *handle) putBack() {
	if h.limit != nil {
		<-h.limit
	}

	h.mu.Lock()
	defer h.mu.Unlock()

	h.taken--
	h.endIfUnused()
}

func (h *handle) conn(ctx context.Context) (*sql.Conn, error) {
	for {
		if !h.mustOpen() {
			return h.db.Conn(ctx)
		}

		o, changed := h.begin(ctx)

		if o != nil {
			select {
			case got := <-o.opened:
				return got.conn, got.err
			case conn := <-h.ready:
				h.leave(o)

				return conn, nil
			case <-ctx.Done():
				h.leave(o)

				return nil, ctx.Err()
			}
		}

		again := time.NewTimer(lookAgain)

		select {
		case conn := <-h.ready:
			again.Stop()

			return conn, nil
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()

			return nil, ctx.Err()
		}

		again.Stop()
	}
}

// mustOpen reports whether the pool has no connection to give, and may open one.
func (h *handle) mustOpen() bool {
	if h.pool != nil {
		return false
	}

	stats := h.db.Stats()

	return stats.Idle == 0 && (stats.MaxOpenConnections <= 0 || stats.OpenConnections < stats.MaxOpenConnections)
}

// begin starts to open a connection, unless enough are being opened. changed is then
// closed when there may be room.
func (h *handle) begin(ctx context.Context) (o *opening, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if len(h.openings) >= h.mostOpenings {
		h.replace()

		return nil, h.whenChanged()
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openWithin)
	o = &opening{began: time.Now(), cancel: cancel, opened: make(chan opened), gone: make(chan struct{})}
	h.openings = append(h.openings, o)

	h.detached.add()

	go func() {
		defer h.detached.done()

		h.open(ctx, o)
	}()

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

func (h *handle) open(ctx context.Context, o *opening) {
	defer h.end(o)

	conn, err := h.openOne(ctx)

	select {
	case o.opened <- opened{conn, err}:
	case <-o.gone:
		if err == nil {
			select {
			case h.ready <- conn:
			default:
				_ = conn.Close() // back to the pool, for the next one
			}
		}
	}
}

// openOne turns a panic of the driver, or of a hook, into an error: it is on a goroutine on
// which its caller can't recover.
func (h *handle) openOne(ctx context.Context) (conn *sql.Conn, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			conn, err = nil, fmt.Errorf("%w: %v", errDriverPanicked, cause)
		}
	}()

	return h.db.Conn(ctx)
}

// end takes an opening out, however it ended.
func (h *handle) end(o *opening) {
	o.cancel()

	h.mu.Lock()
	defer h.mu.Unlock()

	h.openings = slices.DeleteFunc(h.openings, func(other *opening) bool { return other == o })
	h.change()
	h.endIfUnused()
}

func (h *handle) leave(o *opening) {
	h.mu.Lock()
	defer h.mu.Unlock()

	o.left = true
	close(o.gone)
}

// whenChanged is closed when there is less under way than now. h.mu is held.
func (h *handle) whenChanged() <-chan struct{} {
	if h.changed == nil {
		h.changed = make(chan struct{})
	}

	return h.changed
}

// change tells waiters that there is less under way. h.mu is held.
func (h *handle) change() {
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// giveUpOpening ends what is being opened for nobody.
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

// close closes the database handle, and calls ended when nothing is left of it.
func (h *handle) close(ended func()) {
	h.giveUpOpening()
	_ = h.db.Close() // nothing was left to be said on it

	h.mu.Lock()
	defer h.mu.Unlock()

	h.ended = ended
	h.endIfUnused()
}

// endIfUnused is called when there is less under way. h.mu is held.
func (h *handle) endIfUnused() {
	if h.ended != nil && h.taken == 0 && len(h.openings) == 0 {
		h.ended()
		h.ended = nil
	}
}

// behind is a statement that the driver may go on waiting for when its caller has left.
// nil: the driver doesn't do that.
type behind struct {
	handle *handle
	// left and over are guarded by the handle's mutex.
	left, over bool
}

// mayStay waits for room for a statement that may be left behind. It is false if ctx ends
// before there is any.
func (s *Store) mayStay(ctx context.Context) (*behind, bool) {
	if s.native.Load() {
		return nil, true
	}

	for h := s.handle; ; {
		h.mu.Lock()

		if h.left < maxLeft {
			h.mu.Unlock()

			return &behind{handle: h}, true
		}

		changed := h.whenChanged()
		h.mu.Unlock()

		select {
		case <-changed:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// leave says that the caller has left.
func (b *behind) leave() {
	if b == nil {
		return
	}

	b.handle.mu.Lock()
	defer b.handle.mu.Unlock()

	if !b.over {
		b.left = true
		b.handle.left++
	}
}

// end says that the driver has returned.
func (b *behind) end() {
	if b == nil {
		return
	}

	b.handle.mu.Lock()
	defer b.handle.mu.Unlock()

	b.over = true

	if b.left {
		b.handle.left--
		b.handle.change()
	}
}

// usage is how many of the pool's connections are in use, and how many there may be. most
// is 0 where there is no bound, or it can't be asked for.
func (h *handle) usage() (used, most int) {
	stats := h.db.Stats()
	used, most = stats.InUse, stats.MaxOpenConnections

	if h.pool != nil {
		under := h.pool.Stat()
		if acquired, bound := int(under.AcquiredConns()), int(under.MaxConns()); most <= 0 || bound-acquired < most-used {
			used, most = acquired, bound
		}
	}

	return used, max(most, 0)
}

// obstacle is what keeps a request from being sent, "" if nothing is known to.
func (h *handle) obstacle() string {
	if used, most := h.usage(); most > 0 && used >= most {
		return fmt.Sprintf("no free connection in the pool (%d of %d in use)", used, most)
	}

	h.mu.Lock()
	defer h.mu.Unlock()

	switch {
	case h.left >= maxLeft:
		return fmt.Sprintf("the driver has not returned from %d earlier statements", h.left)
	case len(h.openings) > 0:
		return fmt.Sprintf("a connection has been opening for %s", time.Since(h.openings[0].began).Round(time.Millisecond))
	}

	return ""
}
