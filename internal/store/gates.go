package store

import (
	"context"
	"sync"
)

// atGate bounds the statements of one Store under way for one family: they wait for its gate. It is below
// maxLoners, so that a gate whose row is locked for long doesn't hold up other families.
const atGate = 2

// gates are those that statements are under way for.
type gates struct {
	// mu guards what follows.
	mu   sync.Mutex
	open map[string]*gateRoom
}

// gateRoom is the room at one gate, of which users have some or wait for it.
type gateRoom struct {
	room  chan struct{}
	users int
}

// enter waits for room at a gate until ctx ends. The caller calls leave.
func (g *gates) enter(ctx context.Context, id string) (leave func(), ok bool) {
	g.mu.Lock()

	r := g.open[id]
	if r == nil {
		if g.open == nil {
			g.open = make(map[string]*gateRoom)
		}

		r = &gateRoom{room: make(chan struct{}, atGate)}
		g.open[id] = r
	}

	r.users++
	g.mu.Unlock()

	select {
	case r.room <- struct{}{}:
		ok = true
	case <-ctx.Done():
	}

	leave = func() {
		if ok {
			<-r.room
		}

		g.mu.Lock()
		defer g.mu.Unlock()

		if r.users--; r.users == 0 {
			delete(g.open, id)
		}
	}

	if !ok {
		leave()
	}

	return leave, ok
}
