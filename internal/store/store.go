package store

import (
	"context"
	"database/sql"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
)

// Store runs the statements of one table over one database handle.
type Store struct {
	db *sql.DB
	// handle takes connections from db.
	handle *handle
	table  Table
	shape  *shapeCache

	// pgx: the driver says that it is pgx. A connector around pgx's may say so too, and have
	// connections of its own.
	pgx bool
	// native: the connections are pgx's. It is false until one was seen. pgx returns
	// driver.ErrBadConn only for what was not sent, and returns at once when a context ends. lib/pq
	// does neither, and of others nothing is known.
	native *atomic.Bool
	// beside: the user opened the handle for the Locker alone.
	beside bool
	// pq: the driver is lib/pq, whose statements are sent without arguments.
	pq bool
	// way is how connections that aren't pgx's own are used. It is nil until one was seen.
	way *atomic.Pointer[way]
	// asItIs: text may be sent as it is over those connections: their client_encoding is UTF8, or
	// nothing is converted since the database is in SQL_ASCII.
	asItIs *atomic.Bool

	// unnamed: named statements don't outlive a transaction here. The first that gets lost shows
	// it, see lostStatement.
	unnamed *atomic.Bool

	// detached counts the goroutines of the Store: batches, openings of connections, and statements
	// over drivers that may go on waiting when their callers have left.
	detached *counter

	lanes  *lanes
	late   LateFunc
	places *places
	loners *loners

	quiet *quiet
	log   *slog.Logger
}

// LateFunc is told of a grant that came when its caller had left. It is called on a goroutine of the
// Store, and must not block.
type LateFunc func(id string, granted Result, ttl time.Duration)

// New returns a Store that uses db, which stays the caller's. It sends nothing.
func New(db *sql.DB, table Table, late LateFunc) *Store {
	s := &Store{
		table:    table,
		shape:    newShapeCache(),
		detached: new(counter),
		late:     late,
		quiet:    new(quiet),
		log:      slog.New(slog.DiscardHandler),
	}

	return s.over(db, true)
}

// On returns the same Store over another handle to the same database, whose connections are made
// in the same way.
func (s *Store) On(db *sql.DB) *Store { return s.over(db, false) }

// Beside returns the same Store over a handle that the user has opened for it, perhaps with
// another driver. It uses limit connections at a time, or as many as it needs if that is 0.
func (s *Store) Beside(db *sql.DB, limit int) *Store {
	on := s.over(db, true)
	on.beside = true
	on.handle.mostOpenings = maxOpeningsBeside

	if limit > 0 {
		on.handle.limit, on.handle.mostOpenings = make(chan struct{}, limit), limit
	}

	return on
}

// over returns the same Store over another handle. anew: its driver isn't known.
func (s *Store) over(db *sql.DB, anew bool) *Store {
	on := *s
	on.db, on.handle = db, newHandle(db, s.detached)

	if anew {
		_, on.pgx = db.Driver().(*stdlib.Driver)
		on.pq = isPq(db)
		on.native, on.unnamed, on.asItIs = new(atomic.Bool), new(atomic.Bool), new(atomic.Bool)
		on.way = new(atomic.Pointer[way])
	}

	on.places, on.loners = newPlaces(), newLoners(on.handle)
	on.handle.places = on.places
	on.lanes = newLanes(&on)

	return &on
}

// Log has the Store tell what it goes on without.
func (s *Store) Log(log *slog.Logger) { s.log = log }

// Connect opens a connection of the pool unless one is open. It returns when ctx ends. The opening
// then goes on, for the next caller.
func (s *Store) Connect(ctx context.Context) error {
	_, done, err := s.connect(ctx)
	if err == nil {
		done()
	}

	return err
}

// Close closes the database handle, which was opened for this Store alone. It calls ended when
// nothing of the handle is left, which may take as long as its driver likes.
func (s *Store) Close(ended func()) { s.handle.close(ended) }

// Exhausted reports whether others use up the pool. This Store's own batches are not counted,
// since they end soon.
func (s *Store) Exhausted() bool {
	used, most := s.handle.usage()

	return most > 0 && used-int(s.lanes.connected.Load()) >= most
}

// GiveUpOpening ends the openings of connections that no caller waits for.
func (s *Store) GiveUpOpening() { s.handle.giveUpOpening() }

// waitForDriver is how long [Store.Wait] waits for drivers that don't return.
const waitForDriver = 5 * time.Second

// Wait calls GiveUpOpening, and waits until no batch, no
// statement that was left behind and no opening is under way, on this handle or on another. Some
// drivers don't return while a server doesn't answer. Wait leaves these behind after
// waitForDriver, and returns how many there are.
func (s *Store) Wait() (left int) {
	s.GiveUpOpening()

	return s.detached.waitFor(waitForDriver)
}

// Full reports whether grants carry the name of their owner. It is false while the table has not
// been looked at.
func (s *Store) Full() bool {
	last := s.shape.last.Load() // also while it is looked at anew

	return last != nil && last.full
}
