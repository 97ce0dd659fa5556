package store

import (
	"context"
	"database/sql"
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
// stranger's transaction has it locked. Requests beyond that look at their row now and then,
// together, by the statements for several, which pass over a locked row; whoever finds room
// then waits for its row. So neither a locked row nor any number of them holds up a request for
// another row: what was passed over only because it had just changed is answered by the next
// look.
const (
	maxStatements = 5
	maxLoners     = 3

	// passedOverPause is the pause between looks.
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

// loners counts the statements that may wait for a row.
type loners struct{ n atomic.Int32 }

// enter is false if there is no room. In a small pool there is room for fewer, but for one
// in any.
func (l *loners) enter(db *sql.DB) (leave func(), ok bool) {
	n := l.n.Add(1)
	if n == 1 || n <= maxLoners && !l.fills(db, n) {
		return l.leave, true
	}

	l.leave()

	return nil, false
}

// fills reports whether so many leave no connection of the pool to others.
func (l *loners) fills(db *sql.DB, n int32) bool {
	size := db.Stats().MaxOpenConnections

	return size > 0 && int(n) >= size
}

func (l *loners) leave() { l.n.Add(-1) }

// wait is enter for a request that no statement for several can answer.
func (l *loners) wait(ctx context.Context, db *sql.DB) (leave func(), err error) {
	for {
		if leave, ok := l.enter(db); ok {
			return leave, nil
		}

		if !Pause(ctx, passedOverPause) {
			return nil, ended(ctx)
		}
	}
}
