package store

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"
)

// A Store shares its statements, so a few connections serve any number of callers, and a
// pool without a limit must not grow with them in bad times, when statements hang. Two
// bounds keep it so.
//
// maxStatements bounds the statements under way, and so the connections of the pool. Each
// may hang: on a connection that is dead without anybody knowing, or at its commit. A
// statement ends with the context of its callers.
//
// maxLoners, which is lower, bounds those among them that wait for a row, for as long as a
// stranger's transaction has it locked. A request beyond that stands in line for room, and
// whenever it has stood there for passedOverPause it asks again by the statement for several,
// which passes over a locked row. So neither a locked row nor any number of them holds up a
// request for another row: what was passed over only because it had just changed is answered
// when it asks again.
const (
	maxStatements = 5
	maxLoners     = 3

	passedOverPause = 100 * time.Millisecond

	// closingFor is how long a statement keeps its place whose context has ended, where its
	// connection lives on: pgx closes a connection in the background, and sends a request to
	// cancel over another before, and lib/pq waits for the server's answer. It is not for
	// longer, since that may take minutes, and the next connection may do better.
	closingFor  = 5 * time.Second
	closingLook = 10 * time.Millisecond
)

// places are those of statements under way.
type places chan struct{}

func newPlaces() places { return make(places, maxStatements) }

// take waits for a place until ctx ends, or the caller of [Outlive] has left.
func (p places) take(ctx context.Context) (*place, error) {
	taken := &place{of: p}

	select {
	case p <- struct{}{}:
		return taken, nil
	default:
	}

	var left <-chan struct{}
	if caller, ok := ctx.Value(callerKey{}).(context.Context); ok {
		left = caller.Done()
	}

	select {
	case p <- struct{}{}:
		return taken, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-left:
		return nil, context.Canceled
	}
}

// place is one of them; freeing it again does nothing.
type place struct {
	of    places
	freed atomic.Bool
}

func (p *place) free() {
	if p.freed.CompareAndSwap(false, true) {
		<-p.of
	}
}

// writeOff frees the place some time after ctx has ended, whatever the driver does. stop
// is called when the statement has ended.
func (p *place) writeOff(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { time.AfterFunc(closingFor, p.free) })
}

// freeWhen frees the place when its connection is closed, or is being closed for too long.
func (p *place) freeWhen(closed <-chan struct{}, since time.Time) {
	select {
	case <-closed:
		p.free()

		return
	default:
	}

	if time.Since(since) >= closingFor {
		p.free()

		return
	}

	time.AfterFunc(closingLook, func() { p.freeWhen(closed, since) })
}

// loners are the statements that may wait for a row.
type loners struct {
	db   *sql.DB
	once sync.Once
	room chan struct{}
}

// open makes as much room as the pool has when it is first asked for: in a small one, all
// connections but one, or the only one.
func (l *loners) open() chan struct{} {
	l.once.Do(func() {
		n := maxLoners
		if size := l.db.Stats().MaxOpenConnections; size > 0 {
			n = max(min(n, size-1), 1)
		}

		l.room = make(chan struct{}, n)
	})

	return l.room
}

// enter reports whether there is room now. Who enters has to leave.
func (l *loners) enter() bool {
	select {
	case l.open() <- struct{}{}:
		return true
	default:
		return false
	}
}

// wait is enter that waits for room, until ctx ends or for so long; zero: without a limit.
func (l *loners) wait(ctx context.Context, limit time.Duration) bool {
	var passed <-chan time.Time

	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()

		passed = timer.C
	}

	select {
	case l.open() <- struct{}{}:
		return true
	case <-passed:
	case <-ctx.Done():
	}

	return false
}

func (l *loners) leave() { <-l.room }
