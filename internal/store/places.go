package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Callers share statements, so a few connections serve any number of them. When statements hang, a
// pool without a limit must not grow with the number of callers. docs/adr/0007 says why so.
//
// maxStatements bounds the statements under way, and so the connections of the pool. maxLoners
// bounds those among them that wait for a row that another transaction has locked. Every
// passedOverPause a request beyond that asks again by a batch, which passes over locked rows. So
// locked rows, however many, hold up no request for another row.
//
// maxOpenings is a third bound: an opening goes on, for the next caller, when its statement has
// left its place.
const (
	maxStatements = 5
	maxLoners     = 3

	passedOverPause = 100 * time.Millisecond

	// closingFor is how long a statement keeps its place after its context has ended, while its
	// connection lives on: pgx closes it in the background, and lib/pq waits for the server's
	// answer. That may take minutes, and the next connection may do better.
	closingFor  = 5 * time.Second
	closingLook = 10 * time.Millisecond

	// maxWrittenOff bounds the statements without a place that the driver still waits for.
	maxWrittenOff = 16
)

// places are those of statements under way.
type places struct {
	// One element for each statement in a place, and for each that lost its place.
	taken, writtenOff chan struct{}
}

// take waits for a place until ctx ends, or the caller of [Outlive] has left.
func (p *places) take(ctx context.Context) (*place, error) {
	taken := &place{of: p}

	select {
	case p.taken <- struct{}{}:
		return taken, nil
	default:
	}

	caller := callerOf(ctx)

	select {
	case p.taken <- struct{}{}:
		return taken, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-caller.Done():
		return nil, caller.Err()
	}
}

// place is one of them.
type place struct {
	of    *places
	state atomic.Int32
}

// The states of a place: a statement has it, or has lost it, or has ended.
const (
	placeTaken = iota
	placeWrittenOff
	placeFreed
)

// free ends the statement. Later calls do nothing.
func (p *place) free() {
	switch p.state.Swap(placeFreed) {
	case placeTaken:
		<-p.of.taken
	case placeWrittenOff:
		<-p.of.writtenOff
	}
}

// writeOffAfter writes the place off closingFor after ctx has ended, unless stop is called.
func (p *place) writeOffAfter(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { time.AfterFunc(closingFor, p.writeOff) })
}

// writeOff gives the place to the next statement, once fewer than maxWrittenOff have lost theirs.
func (p *place) writeOff() {
	select {
	case p.of.writtenOff <- struct{}{}:
	default:
		if p.state.Load() == placeTaken {
			time.AfterFunc(closingFor, p.writeOff)
		}

		return
	}

	if p.state.CompareAndSwap(placeTaken, placeWrittenOff) {
		<-p.of.taken
	} else { // it ended at the same moment
		<-p.of.writtenOff
	}
}

// freeWhen frees the place when its connection is closed, or closingFor after since, or at once if
// closed is nil.
func (p *place) freeWhen(closed <-chan struct{}, since time.Time) {
	if closed != nil && time.Since(since) < closingFor {
		select {
		case <-closed:
		default:
			time.AfterFunc(closingLook, func() { p.freeWhen(closed, since) })

			return
		}
	}

	p.free()
}

// loners are the statements that may wait for a row. The room for them is made when it is first
// asked for: in a small pool all connections but one, or the only one.
type loners func() chan struct{}

func newLoners(h *handle) loners {
	return sync.OnceValue(func() chan struct{} {
		n := maxLoners
		if _, size := h.usage(); size > 0 {
			n = max(min(n, size-1), 1)
		}

		return make(chan struct{}, n)
	})
}

// enter takes room if there is some. The caller then calls leave.
func (l loners) enter() bool {
	select {
	case l() <- struct{}{}:
		return true
	default:
		return false
	}
}

// wait is enter that waits until ctx ends, and for limit at most unless that is 0.
func (l loners) wait(ctx context.Context, limit time.Duration) bool {
	var passed <-chan time.Time
	if limit > 0 {
		passed = time.After(limit)
	}

	select {
	case l() <- struct{}{}:
		return true
	case <-passed:
	case <-ctx.Done():
	}

	return false
}

func (l loners) leave() { <-l() }
