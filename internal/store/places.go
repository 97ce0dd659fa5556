package store

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"
)

// Callers share statements, so a few connections serve any number of callers. When
// statements hang, a pool without a limit must not grow with the number of callers. Two
// bounds see to that. docs/adr/0007 says why.
//
// maxStatements bounds the statements under way, and so the connections of the pool. A
// statement may hang on a dead connection, or at its commit. It ends with the context of its
// callers.
//
// maxLoners, which is lower, bounds those among them that wait for a row that another
// transaction has locked. A request beyond that stands in line for room. Every
// passedOverPause it asks again by the statement for several, which passes over locked
// rows. So locked rows, however many, hold up no request for another row. A request that was
// passed over only because its row had just changed is answered when it asks again.
const (
	maxStatements = 5
	maxLoners     = 3

	passedOverPause = 100 * time.Millisecond

	// closingFor is how long a statement keeps its place after its context has ended, while
	// its connection lives on. pgx sends a request to cancel over another connection, and then
	// closes this one in the background; lib/pq waits for the server's answer. That may take
	// minutes, and the next connection may do better, so the place is freed then.
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

// writeOff frees the place closingFor after ctx has ended, whatever the driver does. The caller
// calls stop when the statement has ended.
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

// enter takes room if there is some now. A caller that gets it calls leave.
func (l *loners) enter() bool {
	select {
	case l.open() <- struct{}{}:
		return true
	default:
		return false
	}
}

// wait is enter that waits for room until ctx ends, and for limit at most unless that is 0.
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
