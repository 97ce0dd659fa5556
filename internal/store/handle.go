package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// handle takes connections from a database handle, or from a pgxpool.Pool.
type handle struct {
	// db is nil for a pool.
	db *sql.DB
	// under is the pgxpool.Pool, or the one under db. It is nil if there is none. It opens connections in the
	// background by itself.
	under *poolUnder
	// next takes a connection, or opens one.
	next func(context.Context) (conn, error)
	// connector returns one that makes connections as these are made, under a name if it can. It is false
	// where the driver can't be asked.
	connector func(name string) (driver.Connector, bool)
	// limit bounds the connections in use, unless it is nil.
	limit        chan struct{}
	mostOpenings int
	// ready has a connection whose caller has left, for the next caller.
	ready    chan conn
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

func newHandle(detached *counter) *handle {
	return &handle{mostOpenings: maxOpenings, ready: make(chan conn), detached: detached}
}

// handleOn takes connections from db.
func handleOn(db *sql.DB, detached *counter) *handle {
	h := newHandle(detached)
	h.db = db
	h.next = func(ctx context.Context) (conn, error) {
		c, err := db.Conn(ctx)
		if err != nil {
			return nil, err // and no *sql.Conn that is nil
		}

		return c, nil
	}
	h.connector = func(name string) (driver.Connector, bool) { return connectorOf(db, name) }

	if connector, ok := rawConnectorOf(db); ok {
		if pool, ok := pgxPoolOf(connector); ok {
			h.under = newPoolUnder(pool)
		}
	}

	return h
}

// handleOnPool takes connections from pool.
func handleOnPool(pool *pgxpool.Pool, detached *counter) *handle {
	h := newHandle(detached)
	h.under = newPoolUnder(pool)
	h.next = func(ctx context.Context) (conn, error) {
		c, err := pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}

		return pooled{c}, nil
	}
	h.connector = func(name string) (driver.Connector, bool) {
		return newPoolConnector(pool.Config(), func(ctx context.Context, cfg *pgx.ConnConfig) (any, error) {
			return pgx.ConnectConfig(ctx, cfg)
		}, nil, name), true
	}

	return h
}

// take returns a connection. The caller calls done with it.
func (h *handle) take(ctx context.Context) (c conn, done func(), err error) {
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

	if c, err = h.conn(ctx); err != nil {
		return nil, nil, err
	}

	taken = true

	return c, func() {
		_ = c.Close() // back to the pool, which drops a broken one

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
	if h.db != nil {
		stats := h.db.Stats()
		used, most = stats.InUse, stats.MaxOpenConnections
	}

	if h.under != nil {
		if acquired, bound, _ := h.under.usage(); most <= 0 || bound-acquired < most-used {
			used, most = acquired, bound
		}
	}

	return used, max(most, 0)
}

// idle is how many of the pool's connections wait to be used.
func (h *handle) idle() (free int) {
	if h.db != nil {
		free = h.db.Stats().Idle
	}

	if h.under != nil {
		_, _, idle := h.under.usage()
		free += idle
	}

	return free
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
