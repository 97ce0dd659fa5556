package store

import (
	"context"
	"database/sql"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Store runs the statements of one table over one database handle.
type Store struct {
	handle *handle
	table  Table
	shape  *shapeCache

	// pgx: the driver says that it is pgx, as a connector around pgx's may that has other
	// connections.
	pgx bool
	// native: the connections are pgx's, as one showed. pgx returns driver.ErrBadConn only for what
	// was not sent, and returns at once when a context ends. lib/pq does neither.
	native *atomic.Bool
	// last is the connection of pgx that was used last, nil if there is none.
	last *atomic.Pointer[recognized]
	// beside: the user opened the handle for the Locker alone.
	beside bool
	// pq: the driver is lib/pq, whose statements are sent without arguments.
	pq bool
	// way is how other connections are used. It is nil until one was seen.
	way *atomic.Pointer[way]
	// asItIs: text may be sent as it is over those: their client_encoding is UTF8, or nothing is
	// converted.
	asItIs *atomic.Bool

	// unnamed: named statements don't outlive a transaction here, see lostStatement.
	unnamed *atomic.Bool
	// sent says which statements go under a name for all that.
	sent *sentOnce

	// detached counts the goroutines of this Store and those made from it.
	detached *counter

	lanes  *lanes
	late   LateFunc
	batch  BatchFunc
	places *places
	loners loners
	gates  *gates

	quiet *quiet
	log   *slog.Logger
}

// LateFunc is told of a grant that came when its caller had left. It must not block.
type LateFunc func(id string, granted Result, ttl time.Duration)

// New returns a Store that uses db, which stays the caller's. It sends nothing.
func New(db *sql.DB, table Table, late LateFunc) *Store {
	s := blank(table, late)

	return s.onAnother(handleOn(db, s.detached))
}

// NewPool returns a Store that uses a pool, which stays the caller's. It sends nothing.
func NewPool(pool *pgxpool.Pool, table Table, late LateFunc) *Store {
	s := blank(table, late)
	on := s.over(handleOnPool(pool, s.detached))
	on.meetAnew()
	on.pgx = true

	return on
}

func blank(table Table, late LateFunc) *Store {
	return &Store{
		table:    table,
		shape:    &shapeCache{looking: make(chan struct{}, 4)},
		detached: new(counter),
		late:     late,
		gates:    new(gates),
		quiet:    new(quiet),
		log:      slog.New(slog.DiscardHandler),
	}
}

// On returns the same Store over another handle, with connections to the same database made in the
// same way.
func (s *Store) On(db *sql.DB) *Store { return s.over(handleOn(db, s.detached)) }

// Beside returns the same Store over a handle that the user has opened for it, perhaps with another
// driver. It uses limit connections at a time, or as many as it needs if that is 0.
func (s *Store) Beside(db *sql.DB, limit int) *Store {
	on := s.onAnother(handleOn(db, s.detached))
	on.beside = true
	on.handle.mostOpenings = maxOpeningsBeside

	if limit > 0 {
		on.handle.limit, on.handle.mostOpenings = make(chan struct{}, limit), limit
	}

	return on
}

// onAnother returns the same Store over a handle whose driver isn't known.
func (s *Store) onAnother(h *handle) *Store {
	on := s.over(h)
	on.meetAnew()
	on.pgx, on.pq = isPgx(h.db.Driver()), isPq(h.db.Driver())

	return on
}

// meetAnew forgets what was seen of the driver.
func (s *Store) meetAnew() {
	s.native, s.unnamed, s.asItIs = new(atomic.Bool), new(atomic.Bool), new(atomic.Bool)
	s.way, s.last, s.sent = new(atomic.Pointer[way]), new(atomic.Pointer[recognized]), &sentOnce{texts: make(map[string]bool)}
}

// over returns the same Store over another handle.
func (s *Store) over(h *handle) *Store {
	on := *s
	on.handle = h
	on.places = &places{taken: make(chan struct{}, maxStatements), writtenOff: make(chan struct{}, maxWrittenOff)}
	on.loners, on.gates = newLoners(on.handle), new(gates)
	on.handle.places = on.places
	on.lanes = newLanes(&on)

	return &on
}

// BatchFunc is told how many requests a statement carries that grants or releases.
type BatchFunc func(grants bool, requests int)

// OnBatch has the Store tell of its batches, but not with nil.
func (s *Store) OnBatch(batch BatchFunc) { s.batch = batch }

// Log has the Store tell what it goes on without.
func (s *Store) Log(log *slog.Logger) { s.log = log }

// Connect opens a connection of the pool unless one is open. If ctx ends, the opening goes on, for
// the next caller.
func (s *Store) Connect(ctx context.Context) error {
	_, done, err := s.connect(ctx)
	if err == nil {
		done()
	}

	return err
}

// Close closes the handle, which was opened for this Store alone. It calls ended when nothing of it
// is left, which may take as long as its driver likes.
func (s *Store) Close(ended func()) { s.handle.close(ended) }

// Exhausted reports whether others use up the pool. Batches are not counted: they end soon.
func (s *Store) Exhausted() bool {
	used, most := s.handle.usage()

	return most > 0 && used-int(s.lanes.connected.Load()) >= most
}

// Source is the pool that the connections come from, or the database handle where no pool of pgx is under it. Stores of
// one source have equal ones.
func (s *Store) Source() any {
	if s.handle.under != nil {
		return s.handle.under.pool
	}

	return s.handle.db
}

// GiveUpOpening ends the openings of connections that no caller waits for.
func (s *Store) GiveUpOpening() { s.handle.giveUpOpening() }

// waitForDriver is how long [Store.Wait] waits for drivers that don't return.
const waitForDriver = 5 * time.Second

// Wait calls GiveUpOpening, and waits until no goroutine of the Store is left, on this handle or on
// another. After waitForDriver it returns how many are left: some drivers don't return while a
// server doesn't answer.
func (s *Store) Wait() (left int) {
	s.GiveUpOpening()

	return s.detached.waitFor(waitForDriver)
}

// Full reports whether grants carry the name of their owner, as far as is known.
func (s *Store) Full() bool {
	last := s.shape.last.Load() // also while it is looked at anew

	return last != nil && last.full
}
