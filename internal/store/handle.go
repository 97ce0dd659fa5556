package store

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// handle takes connections from a database handle.
type handle struct {
	db *sql.DB
	// pool is under db, or nil. It opens connections in the background by itself.
	pool *pgxpool.Pool
	// limit bounds the connections in use, unless it is nil.
	limit        chan struct{}
	mostOpenings int
	// ready has a connection whose caller has left, for the next caller.
	ready    chan *sql.Conn
	detached *counter
	places   *places

	// mu guards what follows.
	mu sync.Mutex
	// openings are under way, the oldest first.
	openings []*opening
	// taken are the connections that are in use or waited for.
	taken int
	// changed is closed when an opening has ended. It is nil while nobody waits for that.
	changed chan struct{}
	// ended is called once the handle is closed and nothing is under way.
	ended func()
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
		_ = conn.Close() // back to the pool, which drops a broken one

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

// usage is how many of the pool's connections are in use, and how many there may be: 0 for no
// bound.
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

	if n := len(h.places.writtenOff); n == maxWrittenOff {
		return fmt.Sprintf("the driver has not returned from %d earlier statements", n)
	}

	h.mu.Lock()
	defer h.mu.Unlock()

	if len(h.openings) > 0 {
		return fmt.Sprintf("a connection has been opening for %s", time.Since(h.openings[0].began).Round(time.Millisecond))
	}

	return ""
}
