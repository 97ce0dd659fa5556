package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Store runs the statements of one table over one database handle.
type Store struct {
	db *sql.DB
	// handle takes connections from db.
	handle *handle
	table  Table
	shape  *shapeCache

	// pgx: the driver says that it is pgx. A connector around pgx's may say so too, and
	// have connections of its own.
	pgx bool
	// native: the connections are pgx's, false until one was seen. pgx returns
	// driver.ErrBadConn only for what was not sent, and returns at once when a context
	// ends; lib/pq does neither, and of others nothing is known.
	native *atomic.Bool
	// beside: the handle was opened by the user for the Locker alone.
	beside bool
	// pq: the driver is lib/pq, whose statements are sent without arguments.
	pq bool
	// way is how the connections are used that aren't pgx's own, nil until one was seen.
	way *atomic.Pointer[way]
	// asItIs: text may be sent as it is over those connections: their client_encoding is
	// UTF8, or nothing is converted since the database is in SQL_ASCII.
	asItIs *atomic.Bool

	// unnamed: named statements don't outlive a transaction here. It is found out
	// by the first that gets lost, see lostStatement.
	unnamed *atomic.Bool

	// detached counts statements that were left behind by callers whose context
	// ended, and whose driver still waits for the answer.
	detached *counter

	lanes  *lanes
	late   LateFunc
	places places
	loners *loners

	quiet *quiet
	log   *slog.Logger
}

// LateFunc is told of a grant that came when its caller had left: whose generation it is
// is nobody's concern any more. It is called from a goroutine of the Store, and must
// return soon.
type LateFunc func(id string, granted Result, ttl time.Duration)

// New returns a Store that uses db, which stays the caller's. It sends nothing.
func New(db *sql.DB, table Table, late LateFunc) *Store {
	_, isPgx := db.Driver().(*stdlib.Driver)

	s := &Store{
		db:       db,
		table:    table,
		shape:    newShapeCache(),
		pgx:      isPgx,
		native:   new(atomic.Bool),
		pq:       isPq(db),
		way:      new(atomic.Pointer[way]),
		asItIs:   new(atomic.Bool),
		unnamed:  new(atomic.Bool),
		detached: new(counter),
		late:     late,
		places:   newPlaces(),
		quiet:    new(quiet),
		log:      slog.New(slog.DiscardHandler),
	}
	s.handle = newHandle(db, s.detached)
	s.loners = newLoners(s.handle)
	s.lanes = newLanes(s)

	return s
}

// On returns the same Store over another handle to the same database, whose connections
// are made in the same way.
func (s *Store) On(db *sql.DB) *Store {
	on := *s
	on.db, on.handle = db, newHandle(db, s.detached)
	on.places, on.loners = newPlaces(), newLoners(on.handle)
	on.lanes = newLanes(&on)

	return &on
}

// Beside returns the same Store over a handle that the user has opened for it, perhaps with
// another driver. It uses limit connections at a time, or as many as it needs if that is 0.
func (s *Store) Beside(db *sql.DB, limit int) *Store {
	_, isPgx := db.Driver().(*stdlib.Driver)

	on := *s
	on.db, on.handle, on.beside = db, newHandle(db, s.detached), true
	on.handle.mostOpenings = maxOpeningsBeside

	if limit > 0 {
		on.handle.limit, on.handle.mostOpenings = make(chan struct{}, limit), limit
	}

	on.pgx, on.pq = isPgx, isPq(db)
	on.native, on.unnamed = new(atomic.Bool), new(atomic.Bool)
	on.way, on.asItIs = new(atomic.Pointer[way]), new(atomic.Bool)
	on.places, on.loners = newPlaces(), newLoners(on.handle)
	on.lanes = newLanes(&on)

	return &on
}

// Connect opens a connection of the pool unless one is open. It returns when ctx ends. The
// opening then goes on, for the next caller.
func (s *Store) Connect(ctx context.Context) error {
	_, done, err := s.connect(ctx)
	if err == nil {
		done()
	}

	return err
}

// Close closes the database handle, which was opened for this Store alone. ended is called
// when nothing of it is left, which may take as long as its driver likes.
func (s *Store) Close(ended func()) { s.handle.close(ended) }

// arguments are what the driver is given. pgx prepares every statement under a
// name, unless it is told not to, which a wrapper may not pass on.
func (s *Store) arguments(args []any) []any {
	if !s.native.Load() {
		return arrayLiterals(args)
	}

	if !s.unnamed.Load() {
		return args
	}

	return append([]any{pgx.QueryExecModeExec}, args...)
}

// lostStatement reports whether a statement failed only because its name was
// prepared on another connection than it ran on, as happens behind a pooler in
// transaction mode. From then on no names are used.
func (s *Store) lostStatement(err error, named bool) bool {
	switch sqlState(err) {
	case codeInvalidStatementName, codeDuplicateStatement:
		s.unnamed.Store(true)

		return named
	}

	return false
}

// Exhausted reports whether the pool is used up by others. This Store's own statements
// for several requests are not counted, since they end soon.
func (s *Store) Exhausted() bool {
	used, most := s.handle.usage()

	return most > 0 && used-int(s.lanes.connected.Load()) >= most
}

// GuardArgs are the arguments of GuardSQL for database/sql.
func (s *Store) GuardArgs(id string, generation int64) []any {
	return s.arguments([]any{id, generation})
}

// Guard is GuardSQL and its arguments for a transaction of database/sql. Within one a pooler
// keeps the connection to the server, so every driver may be given arguments; but not every
// one tells the server that they are UTF-8.
func (s *Store) Guard(id string, generation int64) (text string, args []any) {
	if s.native.Load() || isASCII([]any{id}) {
		return s.GuardSQL(), s.GuardArgs(id, generation)
	}

	return s.plain(s.GuardSQL(), []any{id, generation})
}

// GuardFailed takes the error of a guard. It notes whether a pooler lost a prepared statement,
// and adds to the error what the caller can do. The transaction can't go on after it.
func (s *Store) GuardFailed(err error) error {
	s.lostStatement(err, true)

	if stalePlan(err) {
		return fmt.Errorf("%w (the table was altered: repeat the transaction)", err)
	}

	return err
}

// GuardSQL is the query that proves, in a transaction of somebody else's, that
// generation $2 holds the lock $1. It sends nothing: what it needs to know of the table
// was looked up for the grant.
func (s *Store) GuardSQL() string {
	if last := s.shape.last.Load(); last != nil {
		return last.statements.guard
	}

	return render(s.table, false, false, textIdentity).guard
}

// GiveUpOpening ends the opening of connections that nobody waits for.
func (s *Store) GiveUpOpening() { s.handle.giveUpOpening() }

// waitForDriver is how long [Store.Wait] waits for drivers that don't return.
const waitForDriver = 5 * time.Second

// Wait returns when no statement that served several or was left behind is under way, on this
// handle or on another, and no connection is being opened. Some drivers don't return while a
// server doesn't answer. Wait leaves these behind after waitForDriver, and returns how many
// there are.
func (s *Store) Wait() (left int) {
	s.GiveUpOpening()

	return s.detached.waitFor(waitForDriver)
}

// Full reports whether grants carry the name of their owner: false also while
// the table has not been looked at.
func (s *Store) Full() bool {
	last := s.shape.last.Load() // also while it is looked at anew

	return last != nil && last.full
}

// answer is what one statement returned.
type answer[T any] struct {
	rows []T
	// sent is the moment just before the statement went out.
	sent time.Time
	// named: the driver may have sent it under a name, and can do without.
	named bool
	// outcome tells how an error is meant.
	outcome outcome
	err     error
	// shared: the statement served others too, and the error may be theirs.
	shared bool
	// waited: the statement waited for the row. Without that, no row may mean that another
	// transaction has it locked, or changed it at the same moment.
	waited bool
}

// ask runs one statement once and drains its rows before anything is believed.
// It returns when ctx ends, with outcome unknown if the statement was sent,
// even on drivers that go on waiting.
func ask[T any](ctx context.Context, s *Store, text string, args []any, scan scanFunc[T]) answer[T] {
	if err := ctx.Err(); err != nil {
		return answer[T]{err: ended(ctx)}
	}

	// dispatched is set by whoever is first: the statement on its way out, or a
	// caller that leaves before it. What the caller is told is then exact.
	var dispatched atomic.Bool

	prepare := func() (prepared, bool) { return prepared{text, args, 1}, dispatched.CompareAndSwap(false, true) }

	a, left := drive(ctx, s, prepare, scan)
	if !left {
		a.err = withContext(ctx, a.err)

		return a
	}

	if dispatched.CompareAndSwap(false, true) {
		return answer[T]{err: s.ended(ctx)}
	}

	return answer[T]{outcome: unknown, err: ctxError(ctx)}
}

// drive has the driver send one statement. It returns when ctx ends: left is set if the
// driver has not returned by then.
func drive[T any](ctx context.Context, s *Store, prepare prepareFunc, scan scanFunc[T]) (a answer[T], left bool) {
	if s.native.Load() {
		return askDriver(ctx, s, prepare, scan), false
	}

	behind, ok := s.mayStay(ctx)
	if !ok {
		return answer[T]{err: s.ended(ctx)}, false
	}

	answers := make(chan answer[T], 1)

	s.detached.add()

	go func() {
		defer s.detached.done()
		defer behind.end()

		a := answer[T]{outcome: unknown, err: errDriverLeft}
		defer func() { answers <- a }()

		a = askDriver(ctx, s, prepare, scan)
	}()

	select {
	case a := <-answers:
		return a, false
	case <-ctx.Done():
		behind.leave()

		return answer[T]{}, true
	}
}

// prepareFunc is called when a connection is there, and returns what to send over
// it. ok is false if nothing is left to send.
type prepareFunc func() (p prepared, ok bool)

// prepared is a statement and its arguments, and how many rows it may return.
type prepared struct {
	text string
	args []any
	rows int
}

// errDriverLeft: the driver ended the goroutine that it was called on.
var errDriverLeft = errors.New("pglocker: the driver did not return")

// errDriverPanicked is an error for all whose requests the driver was given.
var errDriverPanicked = errors.New("pglocker: the driver panicked")

// askDriver turns a panic of the driver into an error: the callers may be many, on goroutines
// of their own.
func askDriver[T any](ctx context.Context, s *Store, prepare prepareFunc, scan scanFunc[T]) (a answer[T]) {
	place, err := s.places.take(ctx)
	if err != nil {
		return answer[T]{err: s.ended(callerOf(ctx))}
	}

	closed := closedChan

	defer func() { place.freeWhen(closed, time.Now()) }()

	if !s.native.Load() {
		defer place.writeOff(ctx)()
	}

	var (
		conn       *sql.Conn
		done       func()
		dispatched bool
		returned   bool
	)

	// A driver that panics, or ends the goroutine, keeps its connection, whose Close may
	// never return. It must not keep the place of the next.
	defer func() {
		if conn != nil && !returned {
			s.handle.putBack()
		}
	}()

	defer func() {
		cause := recover()
		if cause == nil {
			return
		}

		s.log.Error("pglocker: the driver panicked", "panic", cause, "stack", string(debug.Stack()))

		a = answer[T]{err: fmt.Errorf("%w: %v", errDriverPanicked, cause)}
		if dispatched {
			a.outcome = unknown
		}

		if conn != nil {
			abandon(conn)
		}
	}()

	if conn, done, err = s.connect(ctx); err != nil {
		return answer[T]{err: err}
	}

	p, ok := prepare()
	if dispatched = ok; ok {
		progressOf(ctx).send()

		a, closed = askOver(ctx, s, conn, p, scan)
	} else {
		a.err = s.ended(ctx)
	}

	returned = true

	done()

	return a
}

// abandon closes a connection under which the driver panicked. database/sql believes that it
// is still in use, and would wait for ever to close it: its place in the pool is lost.
func abandon(conn *sql.Conn) {
	defer func() { _ = recover() }() // the driver's again

	_ = conn.Raw(func(driverConn any) error { return driverConn.(driver.Conn).Close() })
}

// askOver runs a statement over a connection. closed is closed when nothing is left of the
// statement there.
func askOver[T any](ctx context.Context, s *Store, conn *sql.Conn, p prepared, scan scanFunc[T]) (a answer[T], closed <-chan struct{}) {
	var err error

	closed = closedChan
	native := false

	if s.pgx {
		// The same as below without the conversions of database/sql, and without the
		// goroutine that it starts for each result.
		err = conn.Raw(func(driverConn any) (err error) {
			var own pgxConn
			if own, native = s.recognize(driverConn); !native {
				return nil
			}

			if err := readable(own.Conn().PgConn(), p.text, p.args); err != nil {
				return err
			}

			a.named = !s.unnamed.Load()
			args := s.arguments(p.args)
			a.sent = time.Now()
			a.rows, err = drain(func() (pgxRows, error) { return queryPgx(ctx, own.Conn(), p.text, args, a.named) }, p.rows, scan)

			if own.Conn().IsClosed() {
				closed = own.Conn().PgConn().CleanupDone()
			}

			return err
		})
	}

	if !native && err == nil {
		var w *way

		if w, err = s.wayOver(conn); err == nil {
			a.sent = time.Now()
			a.rows, err = query(ctx, s, w, conn, p, scan)
		}
	}

	if err != nil {
		a.rows, a.err, a.outcome = nil, err, judge(err, native)

		if a.outcome == refused && elsewhere(err) {
			discard(conn) // or the next would be given it
		}
	}

	return a, closed
}

var closedChan = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)

	return c
}()

// scanFunc reads one row of a result.
type scanFunc[T any] func(from scanner) (T, error)

// scanner is the row that rows stand on, of database/sql or of pgx.
type scanner interface {
	Scan(dest ...any) error
}

// result is what a query returns, by either.
type result interface {
	scanner
	Next() bool
	Err() error
	Close() error
}

// pgxConn is a connection of database/sql that is one of pgx, and no wrapper around it. (A
// wrapper that embeds pgx's own passes for it, and is bypassed.)
type pgxConn interface{ Conn() *pgx.Conn }

// recognize returns a connection of database/sql as one of pgx, if it is one, and
// remembers the answer: a handle's connections are all of one kind.
func (s *Store) recognize(driverConn any) (pgxConn, bool) {
	own, native := driverConn.(pgxConn)
	if native != s.native.Load() {
		// In this mode pgx parses in one message and runs in another, under no name. Behind a
		// pooler it may run what another client has parsed.
		if native && own.Conn().Config().DefaultQueryExecMode == pgx.QueryExecModeDescribeExec {
			s.unnamed.Store(true)
		}

		s.native.Store(native)
	}

	return own, native
}

// pgxRows are those of a statement. batch is what it was sent in, nil if it went alone.
type pgxRows struct {
	pgx.Rows
	batch pgx.BatchResults
}

func (r pgxRows) Close() error {
	r.Rows.Close()
	err := r.Err()

	if r.batch != nil {
		// The transaction of both statements ends here.
		if batchErr := r.batch.Close(); err == nil {
			err = batchErr
		}
	}

	return err
}

// sqlByIndex has the statement behind it planned without a scan of the whole table. A named
// statement is planned a few times and then never again. If the table is nearly empty by then,
// such a scan looks cheap. It would later be made for each lock of thousands.
const sqlByIndex = `SELECT pg_catalog.set_config('enable_seqscan', 'off', true)`

// queryPgx sends a statement. One that is prepared under a name goes behind
// sqlByIndex, in one round trip and one transaction.
func queryPgx(ctx context.Context, conn *pgx.Conn, text string, args []any, named bool) (pgxRows, error) {
	if !named {
		rows, err := conn.Query(ctx, text, args...)

		return pgxRows{Rows: rows}, err
	}

	batch := new(pgx.Batch)
	batch.Queue(sqlByIndex)
	batch.Queue(text, args...)

	results := conn.SendBatch(ctx, batch)

	_, err := results.Exec()
	if err == nil {
		var rows pgx.Rows

		if rows, err = results.Query(); err == nil {
			return pgxRows{rows, results}, nil
		}
	}

	_ = results.Close() // the first error says more

	return pgxRows{}, err
}

// drain runs a query and reads all of it. Only then has the server confirmed the
// commit, or said that it failed.
func drain[T any, R result](query func() (R, error), expect int, scan scanFunc[T]) (scanned []T, err error) {
	rows, err := query()
	if err != nil {
		return nil, err
	}

	scanned = make([]T, 0, expect)

	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			_ = rows.Close() // the scan's error says more

			return nil, err
		}

		scanned = append(scanned, row)
	}

	err = rows.Err()
	if closeErr := rows.Close(); err == nil {
		err = closeErr
	}

	return scanned, err
}

// Delays between attempts of one call, with jitter. They spread out callers that
// failed together; nothing depends on their size.
const (
	retryDelayMin = 2 * time.Millisecond
	retryDelayMax = 250 * time.Millisecond
	// sendAttempts bounds how often a statement that did not get out is sent
	// again: the connections of a pool may all have died with a server.
	sendAttempts = 4
)

// pause waits before attempt number n (1 is the first repetition), or returns
// false when ctx ends.
func pause(ctx context.Context, n int) bool {
	return Pause(ctx, min(retryDelayMin<<min(n, 10), retryDelayMax))
}

// Pause waits for half of limit to all of it, at random, or returns false when
// ctx ends. No pause is shorter than a millisecond.
func Pause(ctx context.Context, limit time.Duration) bool {
	limit = max(limit, 2*time.Millisecond)
	timer := time.NewTimer(limit/2 + rand.N(limit/2))

	defer timer.Stop()

	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// write runs one statement until it has an outcome: it is repeated where the
// server rolled it back for the sake of others (until ctx ends) and where it
// was not sent (a few times).
func write[T any](ctx context.Context, s *Store, text string, args []any, scan scanFunc[T]) answer[T] {
	send := func(text string) answer[T] { return ask(ctx, s, text, args, scan) }

	return persist(ctx, s, func(bool) answer[T] {
		text := s.audible(text)

		return orQuietly(s, text, send(text), send)
	})
}

// persist is write for any way to ask. alone is set once an attempt was refused that
// may succeed by itself.
func persist[T any](ctx context.Context, s *Store, attempt func(alone bool) answer[T]) answer[T] {
	var (
		alone bool
		moved tries
	)

	for n, unsent := 1, 0; ; n++ {
		a := attempt(alone)

		switch {
		case a.err == nil:
			return a
		case a.outcome == nothingSent && ctx.Err() == nil:
			unsent++
			if unsent >= sendAttempts || sqlState(a.err) != "" {
				a.err = s.explain(a.err)

				return a
			}
		case a.outcome == refused && a.shared && divisible(a.err) && !general(a.err):
			alone = true

			continue
		case a.outcome == refused && s.afresh(a.err, &moved):
			continue
		case a.outcome == refused && (retriable(a.err) || s.lostStatement(a.err, a.named)):
			alone = true
		case a.outcome == unknown:
			a.err = fmt.Errorf("%w: %w", ErrUnknownOutcome, a.err)

			return a
		default:
			if outdated(a.err) {
				s.shape.set(nil)
			}

			a.err = s.named(ctx, a.err)

			return a
		}

		if !pause(ctx, n) {
			return answer[T]{outcome: a.outcome, err: fmt.Errorf("%w: %w", ended(ctx), a.err)}
		}
	}
}

const (
	// afreshLimit bounds how many stale connections in a row a request is tried on.
	afreshLimit = 16
	// newLimit bounds how many of them may have been new. A name that leads to several
	// servers may lead to a standby several times in a row.
	newLimit = 6
)

// tries counts the connections over which one request was refused because of them.
type tries struct{ all, new int }

// afresh reports whether a request that was refused may be answered at once if it is sent
// again. A connection that is at fault has been discarded. The next is another of the pool, or
// a new one if the pool has none. After newLimit new ones the server itself is at fault.
func (s *Store) afresh(err error, t *tries) bool {
	if t.all >= afreshLimit || t.new >= newLimit && elsewhere(err) || !elsewhere(err) && !stalePlan(err) {
		return false
	}

	t.all++
	if elsewhere(err) && s.idle() == 0 {
		t.new++ // the next one, probably
	}

	return true
}

// idle counts the connections that are open and not in use, in a pgxpool.Pool under the handle
// too.
func (s *Store) idle() int {
	n := s.db.Stats().Idle
	if s.handle.pool != nil {
		n += int(s.handle.pool.Stat().IdleConns())
	}

	return n
}

// read runs a statement that changes nothing, so that not knowing how it ended
// only means to ask again.
func read[T any](ctx context.Context, s *Store, text string, args []any, scan scanFunc[T]) ([]T, error) {
	return persistRead(ctx, s, func(bool) answer[T] { return ask(ctx, s, text, args, scan) })
}

// persistRead is read for any way to ask, as [persist] is write.
func persistRead[T any](ctx context.Context, s *Store, attempt func(alone bool) answer[T]) ([]T, error) {
	var moved tries

	for n := 1; ; n++ {
		a := attempt(n > 1)

		for a.outcome == refused && s.afresh(a.err, &moved) {
			a = attempt(true)
		}

		a.err = withContext(ctx, a.err)

		again := a.outcome != refused || retriable(a.err) || s.lostStatement(a.err, a.named)
		if a.err == nil || !again || n >= sendAttempts || !pause(ctx, n) {
			if a.err != nil {
				a.err = withContext(ctx, s.named(ctx, a.err))
			}

			return a.rows, a.err
		}
	}
}
