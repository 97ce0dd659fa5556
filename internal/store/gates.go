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
	// mu guards what follows, and the users of each gate.
	mu   sync.Mutex
	open map[string]*gateRoom
}

// gateRoom is the room at one gate, of which users have some, wait for it or are about to.
type gateRoom struct {
	room  chan struct{}
	users int
	// handOvers sends the requests that hand over slots of the family, and grants those for slots by how
	// many may be held. The gates' mutex guards grants.
	handOvers *lane[handed]
	grants    map[int64]*lane[slotsRow]
}

// use returns the room at a gate. The caller calls leave.
func (g *gates) use(s *Store, id string) (room *gateRoom, leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()

	room = g.open[id]
	if room == nil {
		if g.open == nil {
			g.open = make(map[string]*gateRoom)
		}

		room = &gateRoom{
			room:      make(chan struct{}, atGate),
			handOvers: newLane(s, kind[handed]{verb: &handSlots, scan: scanHanded, gate: id}),
			grants:    make(map[int64]*lane[slotsRow]),
		}
		g.open[id] = room
	}

	room.users++

	return room, func() {
		g.mu.Lock()
		defer g.mu.Unlock()

		if room.users--; room.users == 0 {
			delete(g.open, id)
		}
	}
}

// grants returns the lane for requests for slots. The caller calls leave.
func (g *gates) grants(s *Store, id string, permits int64) (l *lane[slotsRow], leave func()) {
	room, leave := g.use(s, id)

	g.mu.Lock()
	defer g.mu.Unlock()

	l = room.grants[permits]
	if l == nil {
		l = newLane(s, kind[slotsRow]{verb: &slots, scan: scanSlots, gate: id})
		room.grants[permits] = l
	}

	return l, leave
}

// atGate waits until ctx ends for room to wait for the row of a gate. If ok, the caller calls leave.
func (s *Store) atGate(ctx context.Context, id string) (leave func(), ok bool) {
	gate, left := s.gates.use(s, id)

	select {
	case gate.room <- struct{}{}:
	case <-ctx.Done():
		left()

		return nil, false
	}

	if !s.loners.wait(ctx, 0) {
		<-gate.room
		left()

		return nil, false
	}

	return func() {
		s.loners.leave()
		<-gate.room
		left()
	}, true
}
