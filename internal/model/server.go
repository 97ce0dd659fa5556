package model

import "fmt"

type machine struct {
	Scenario
	mutant Mutant
}

// timelineStep is how far the tokens of a timeline lie above those of the one before. As
// with 2^40 elsewhere, no scenario needs as many.
const timelineStep = 16

// next is the generation after the next change of the row.
func (m *machine) next(s *State, r row) uint8 {
	gen := r.gen + 1
	if !r.there {
		gen = 2
	}

	if gen >= s.timeline*timelineStep {
		panic("a timeline has too few generations for this scenario")
	}

	if m.mutant == NoFloor {
		return gen
	}

	return max(gen, (s.timeline-1)*timelineStep+1)
}

// matches reports whether a statement changes the row: the WHERE of the server.
func (m *machine) matches(r *request, now uint8, row row) bool {
	same := row.there && row.gen == r.gen

	switch r.kind {
	case acquire:
		if m.mutant == TransactionsClock {
			now = r.clock
		}

		return !row.there || row.expires <= now
	case refresh, handOver:
		return same
	case swap: // sqlSeen
		return same && (!r.free || m.mutant == SeenByGeneration || row.acquired == never || row.acquired <= r.freeSince)
	case renew:
		return (same || m.mutant == RenewAnyGeneration && row.there) && (row.expires > now || m.mutant == RenewRevives)
	case release:
		return same || m.mutant == ReleaseAnyGeneration && row.there
	case settle, settleHandOver:
		return row.there && row.owner != 0 && r.names.has(uint8(row.owner)) && row.expires > now
	}

	panic("no such statement")
}

// change is what a statement does to the row. start is when the lease of a grant begins.
func (m *machine) change(s *State, r *request, start uint8, row row) row {
	switch r.kind {
	case acquire, refresh, swap, handOver:
		row.gen = max(m.next(s, row), r.above)
		row.there, row.owner, row.acquired, row.expires = true, r.name, start, start+m.TTL
		row.grant = s.grants + 1
	case renew:
		row.expires = max(row.expires, s.clock()+m.TTL)
	case release:
		if m.mutant == DeleteOnRelease && r.hold == 0 {
			return noRow()
		}

		row.gen, row.expires, row.owner, row.acquired = m.next(s, row), s.clock()+r.hold, 0, never
	}

	return row
}

func noRow() row { return row{acquired: never} }

// lazy: the commit is answered before it is flushed.
func (m *machine) lazy(r *request) bool {
	switch {
	case r.kind == release:
		return r.hold == 0 || m.mutant == LazyHold
	case r.kind.grants():
		return m.mutant == LazyGrants
	}

	return false
}

// execute runs a statement as far as it gets: to its answer, to its commit, or to a wait
// for the row.
func (m *machine) execute(s State, c, slot int, yield yield) {
	r := &s.clients[c].requests[slot]
	seen := s.cur.row
	now := s.clock()

	if m.beginInsert(&s, r) {
		yield("the server reads the watermark for %s", what(c, r), s, nil)

		return
	}

	if !m.matches(r, now, seen) || r.phase == begun && seen.there { // ON CONFLICT DO NOTHING
		r.phase, r.above, r.answer = answered, 0, answer{}
		yield("the server answers %s: nothing to do", what(c, r), s, nil)

		return
	}

	if s.tx.open || s.shared() && m.mutant != WeakGuard {
		switch {
		case r.kind == renew: // SKIP LOCKED
			r.phase, r.answer = answered, answer{busy: true}
			yield("the server answers %s: busy, the row is locked", what(c, r), s, nil)
		case r.phase == sent:
			r.phase = blocked
			if m.mutant != TransactionsClock {
				r.clock = now
			}

			yield("%s waits for the row", what(c, r), s, nil)
		}

		return
	}

	// What was computed before the wait counts if the row is unchanged.
	start := now
	if r.phase == blocked || m.mutant == TransactionsClock && r.kind.grants() {
		start = r.clock
	}

	var broken *Violation

	if seen.owner != 0 && r.ref != 0 && seen.owner != r.ref {
		broken = violation(OnlyHolder, "a %s by who knew %s changes the row of %s", r.kind, r.ref, seen.owner)
	}

	if r.kind == renew && seen.expires <= now {
		broken = violation(OnlyHolder, "a renewal revives the lease of %s, which is over", seen.owner)
	}

	if r.kind == swap && r.ref == 0 && seen.owner != 0 {
		broken = violation(OnlyHolder, "a %s by who saw the lock free takes it from %s", r.kind, seen.owner)
	}

	if r.kind == settle || r.kind == settleHandOver {
		r.name = seen.owner // the answer says which
	}

	img := s.cur
	img.row = m.change(&s, r, start, seen)
	r.above = 0
	r.answer = answer{ok: true, newGen: img.row.gen, expires: img.row.expires, grant: img.row.grant}
	r.short = r.kind.grants() && int(img.row.expires)-int(now) <= int(m.Margin)

	if m.SlowCommit {
		r.phase = executed
		s.tx = transaction{open: true, client: uint8(c), slot: uint8(slot), img: img, durable: !m.lazy(r)}
		yield("the server executes %s", what(c, r), s, broken)

		return
	}

	r.phase = answered
	yield("the server executes and commits %s", what(c, r), s, m.commit(&s, r, img, !m.lazy(r), broken))
}

func (m *machine) commitOpen(s State, yield yield) {
	c, slot := int(s.tx.client), int(s.tx.slot)
	r := &s.clients[c].requests[slot]
	img, durable := s.tx.img, s.tx.durable

	s.tx = transaction{}
	label := what(c, r)

	if r.phase == executed { // else its answer counted before
		r.phase = answered
	}

	yield("the server commits %s", label, s, m.commit(&s, r, img, durable, nil))
}

func (m *machine) commit(s *State, r *request, img image, durable bool, broken *Violation) *Violation {
	before := s.cur
	img.written = before.written // a guarded write may have been committed meanwhile
	s.cur = img

	if durable {
		s.durable = img
	}

	// Statements that wait for the row compute anew what they write.
	for c := range s.clients {
		for slot := range s.clients[c].requests {
			if q := &s.clients[c].requests[slot]; q.phase == blocked && img.row != before.row {
				q.phase = sent
			}
		}
	}

	if broken != nil || !r.kind.grants() {
		return broken
	}

	s.granted.add(uint8(r.name))
	s.grants++

	for c := range s.clients {
		cl := &s.clients[c]
		known := cl.requests[slotMain].name == r.name || cl.lost.has(uint8(r.name)) || cl.returns.has(uint8(r.name))

		if r == &cl.requests[slotStray] && r.kind == acquire && !known {
			return violation(Returned, "%s is granted the lock, which no client waits for or returns", r.name)
		}
	}

	if img.row.gen <= s.lastToken {
		return violation(TokensGrow, "%s is granted token %d, and %d was given out before", r.name, img.row.gen, s.lastToken)
	}

	for c := range m.Clients {
		if s.believes(c) && s.clients[c].tenure != r.ref {
			return violation(HolderStopsFirst, "%s is granted the lock while client %c holds it as %s",
				r.name, 'A'+c, s.clients[c].tenure)
		}
	}

	return nil
}

// fail is a crash or a promotion. It takes what was not committed, and the connections. A
// request that has not arrived still may, through a pooler.
func (m *machine) fail(s *State, left image) {
	s.cur, s.durable, s.tx = left, left, transaction{}

	for c := range s.clients {
		s.clients[c].guard = 0

		for slot := range s.clients[c].requests {
			r := &s.clients[c].requests[slot]
			if r.phase != blocked && r.phase != executed && r.phase != begun {
				continue
			}

			if slot == slotMain {
				r.phase = lost
			} else {
				*r = request{}
			}
		}
	}
}

func (m *machine) faults(s *State, yield yield) {
	if s.cur != s.durable && (s.crashes < m.Crashes || s.promotions < m.Promotions) {
		t := *s
		t.durable = t.cur
		yield("the server flushes its log", "", t, nil)
	}

	if s.crashes < m.Crashes && s.now < m.Horizon {
		t := *s
		t.crashes++
		label := "the server crashes"

		if t.cur != t.durable {
			label += ", and loses what it had not flushed"
		}

		m.fail(&t, t.durable)
		broken := m.kept(&t)
		m.tick(&t) // a failure takes time
		yield(label+", and starts again", "", t, broken)
	}

	if m.Behind && !s.behind && s.promotions < m.Promotions {
		t := *s
		t.behind, t.standby = true, t.durable
		yield("from here on the standby receives nothing", "", t, nil)
	}

	if s.promotions < m.Promotions && (s.behind || !m.Behind) {
		t := *s
		t.promotions++
		t.timeline++

		left := t.durable
		if m.Behind {
			left, t.standby, t.behind = t.standby, image{}, false
		}

		m.fail(&t, left)

		var broken *Violation
		if m.Behind { // the promise is off
			t.promised = promise{t.cur.row.gen, t.cur.row.expires}
		} else {
			broken = m.kept(&t)
		}

		yield("the standby is promoted", "", t, broken)
	}

	if s.steps < m.Steps {
		for _, step := range []int8{m.Step, -m.Step} {
			if int8(s.now)+s.skew+step < 1 {
				continue
			}

			t := *s
			t.steps++
			t.skew += step
			yield(fmt.Sprintf("the database's clock steps by %+d", step), "", t, nil)
		}
	}
}

// kept checks what a client was told against what a failure has left.
func (m *machine) kept(s *State) *Violation {
	if s.promised != (promise{}) && !s.promised.covers(s.cur.row) && !s.pruned(s.promised) {
		return violation(Durable, "generation %d until %d was acknowledged, and the row shows %s",
			s.promised.gen, s.promised.expires, s.cur.row)
	}

	return nil
}
