package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/internal/outlive"
)

// answer is what one statement returned.
type answer[T any] struct {
	rows []T
	// sent is the moment just before the statement went out.
	sent time.Time
	// named: the driver may have sent it under a name, and can do without.
	named bool
	// outcome tells what an error means.
	outcome outcome
	err     error
	// shared: the error may be due to another request in the statement.
	shared bool
	// waited: the statement waited for the row. Without that, no row may mean that another
	// transaction has it locked or changed it at the same moment.
	waited bool
}

// ask runs one statement once. It returns when ctx ends, with outcome unknown if the statement was
// sent, even on drivers that go on waiting.
func ask[T any](ctx context.Context, s *Store, text string, args []any, scan scanFunc[T]) answer[T] {
	return askPrepared(ctx, s, prepared{text: text, args: args, rows: 1}, scan)
}

func askPrepared[T any](ctx context.Context, s *Store, p prepared, scan scanFunc[T]) answer[T] {
	if err := ctx.Err(); err != nil {
		return answer[T]{err: ended(ctx)}
	}

	if s.native.Load() {
		a := askDriver(ctx, s, func() (prepared, bool) { return p, true }, scan)
		a.err = withContext(ctx, a.err)

		return a
	}

	// dispatched is set by the first of two: the statement on its way out, or a caller that leaves.
	var dispatched atomic.Bool

	prepare := func() (prepared, bool) { return p, dispatched.CompareAndSwap(false, true) }
	r := outlive.Start(s.detached.start, func() *answer[T] {
		a := askDriver(ctx, s, prepare, scan)

		return &a
	}, nil)

	select {
	case a := <-r.Result():
		if a == nil {
			a = &answer[T]{outcome: unknown, err: errDriverLeft}
		}

		a.err = withContext(ctx, a.err)

		return *a
	case <-ctx.Done():
		r.Leave()

		if dispatched.CompareAndSwap(false, true) {
			return answer[T]{err: s.ended(ctx)}
		}

		return answer[T]{outcome: unknown, err: ctxError(ctx)}
	}
}

// prepared is a statement and its arguments, and how many rows it may return.
type prepared struct {
	text string
	args []any
	rows int
	// reqs are those of a batch. byID: the rows say by the id for which of them they are, not by its number.
	reqs []request
	byID bool
}

// errDriverLeft: the driver ended the goroutine that it was called on.
var errDriverLeft = errors.New("pglocker: the driver did not return")

// errDriverPanicked is an error for all whose requests the driver was given.
var errDriverPanicked = errors.New("pglocker: the driver panicked")

// askDriver calls prepare when a connection is there. ok is false if nothing is left to send. It
// turns a panic of the driver into an error for all callers.
func askDriver[T any](ctx context.Context, s *Store, prepare func() (p prepared, ok bool), scan scanFunc[T]) (a answer[T]) {
	place, err := s.places.take(ctx)
	if err != nil {
		return answer[T]{err: s.ended(callerOf(ctx))}
	}

	var closed <-chan struct{}

	defer func() { place.freeWhen(closed, time.Now()) }()

	if !s.native.Load() {
		defer place.writeOffAfter(ctx)()
	}

	var (
		conn       conn
		done       func()
		dispatched bool
		returned   bool
	)

	defer func() {
		// A driver that panics, or ends the goroutine, keeps its connection, but not the place of
		// the next.
		if conn != nil && !returned {
			defer s.handle.putBack()
		}

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
		sending(progressOf(ctx))

		a, closed = askOver(ctx, s, conn, p, scan)
	} else {
		a.err = s.ended(ctx)
	}

	returned = true

	done()

	return a
}

// abandon closes a connection under which the driver panicked. Its place in a database handle is lost:
// database/sql believes that it is in use.
func abandon(c conn) {
	defer func() { _ = recover() }() // the driver's again

	if _, ok := c.(*sql.Conn); !ok {
		discard(c)

		_ = c.Close()

		return
	}

	_ = c.Raw(func(driverConn any) error { return driverConn.(driver.Conn).Close() })
}

// askOver runs a statement over a connection. closed is closed when nothing is left of it there. It
// is nil where that is so already.
func askOver[T any](ctx context.Context, s *Store, c conn, p prepared, scan scanFunc[T]) (a answer[T], closed <-chan struct{}) {
	var err error

	native := false

	if s.pgx {
		// Without the conversions of database/sql and the goroutine that it starts for each result.
		err = c.Raw(func(driverConn any) (err error) {
			var own pgxConn
			if own, native = s.recognize(driverConn); !native {
				return nil
			}

			if err := readable(own.PgConn(), p.text, p.args); err != nil {
				return err
			}

			args := p.args
			if a.named = s.byName(p.text); !a.named {
				args = withoutName(args)
			}

			a.sent = time.Now()
			a.rows, err = drain(func() (pgxRows, error) { return queryPgx(ctx, own, p.text, args, a.named) }, p.rows, scan)

			if err != nil && withoutSettings(err) {
				s.unnamed.Store(true)

				a.named = false
				a.rows, err = drain(func() (pgxRows, error) { return queryPgx(ctx, own, p.text, s.arguments(p.args), false) }, p.rows, scan)
			}

			if own.IsClosed() {
				closed = own.PgConn().CleanupDone()
			}

			return err
		})
	}

	if !native && err == nil {
		var w *way

		if w, err = s.wayOver(c); err == nil {
			a.sent = time.Now()
			a.rows, err = query(ctx, s, w, c.(*sql.Conn), p, scan)
		}
	}

	if err != nil {
		a.rows, a.err, a.outcome = nil, err, judge(err, native)

		if a.outcome == refused && elsewhere(err) {
			discard(c) // or the next would be given it
		}
	}

	return a, closed
}
