package model

// hear is what client c does about the answer that has come.
func (m *machine) hear(s State, c int, yield yield) {
	cl := &s.clients[c]
	r := cl.requests[slotMain]
	cl.requests[slotMain] = request{}

	first := r.sent
	if cl.doubt && (r.kind == settle || r.kind == settleHandOver) && m.mutant != TermFromRepetition {
		first = cl.first
	}

	doubt, missing := cl.doubt, cl.lost
	again := func(k kind, label string) {
		q := r
		q.kind, q.phase, q.sent = k, sent, s.now

		if k == settle || k == settleHandOver { // by the name alone
			q.of, q.gen, q.ref, q.names = r.kind, 0, 0, missing
		}

		q.answer = answer{}
		q.clock = s.clock() // in a new transaction, if in any

		cl.requests[slotMain] = q
		yield(label, who(c), s, nil)
	}

	if !r.ok && doubt && r.kind.grants() {
		k := settle
		if r.kind == handOver {
			k = settleHandOver
		}

		again(k, "client %c is refused, and settles its first request")

		return
	}

	cl.doubt, cl.lost = false, set{}

	// Other attempts of the request may still be under way.
	if missing.remove(uint8(r.name)); r.ok && (r.kind == acquire || r.of == acquire) && m.mutant != GrantSettlesAll {
		cl.returns.addAll(missing)
	}

	switch {
	case r.kind == release:
		if m.mutant == BelieveUntilReleased {
			cl.holds = false
		}

		if r.ok && r.hold > 0 {
			s.promise(r.answer)
		}

		yield("client %c hears of its release", who(c), s, nil)
	case r.ok && r.short && r.kind.grants() && r.kind != handOver:
		r.gen, r.ref, r.free = r.newGen, r.name, false
		again(refresh, "client %c got too little of a lease, and refreshes it")
	case r.ok && (r.kind == handOver || r.kind == settleHandOver):
		m.handedOver(s, c, r, first, yield)
	case r.ok:
		broken := m.hold(&s, c, r, first)
		yield("client %c hears that it is granted the lock", who(c), s, broken)
	case r.kind == refresh, r.of == refresh:
		cl.holds = false
		yield("client %c hears that its lease is another's", who(c), s, nil)
	case r.kind == swap, r.kind == handOver, r.of == swap, r.of == handOver:
		yield("client %c hears that the lock has moved on", who(c), s, nil)
	case s.cur.row.there && s.cur.row.expires > s.clock():
		// The client looks at the row to see why.
		cl.waits = m.HandOver && c < 2

		names := missing
		names.add(uint8(r.name))

		if doubt {
			cl.returns.addAll(names)
		}

		yield("client %c hears that the lock is held", who(c), s, m.refused(&s, c, names))
	default:
		cl.doubt, cl.lost = doubt, missing
		again(acquire, "client %c hears that it was refused, sees the lock free, and requests it again")
	}
}

// hold is the moment when client c begins to believe that it holds the lock.
func (m *machine) hold(s *State, c int, r request, first uint8) *Violation {
	cl := &s.clients[c]

	if broken := m.told(s, r); broken != nil {
		return broken
	}

	if m.mutant == TermFromReply {
		first = s.now
	}

	cl.tenure, cl.token, cl.grant = r.name, r.newGen, r.answer.grant
	cl.deadline = first + m.TTL - m.Margin

	if m.mutant == NoMargin {
		cl.deadline = first + m.TTL
	}

	cl.holds = s.now < cl.deadline
	cl.waits = false

	if !cl.holds { // it took too long
		cl.requests[slotMain] = request{
			kind: release, phase: sent, gen: cl.token, ref: cl.tenure, sent: s.now,
		}

		return nil
	}

	for d := range m.Clients {
		if d != c && s.believes(d) {
			return violation(OneHolder, "client %c holds the lock as %s, and client %c as %s",
				'A'+c, cl.tenure, 'A'+d, s.clients[d].tenure)
		}
	}

	return nil
}

// told notes that a client knows of a grant.
func (m *machine) told(s *State, r request) *Violation {
	token := r.newGen

	if !s.granted.has(uint8(r.name)) {
		return violation(UnknownIsUnknown, "%s counts as granted, and no such grant was committed", r.name)
	}

	if s.acked.has(token) {
		return violation(TokensGrow, "%s has token %d, which another had before", r.name, token)
	}

	s.acked.add(token)
	s.lastToken = max(s.lastToken, token)
	s.promise(r.answer)

	return nil
}

func (s *State) promise(a answer) {
	if p := s.promised; p.gen < a.newGen || p.gen == a.newGen && p.expires < a.expires {
		s.promised = promise{a.newGen, a.expires}
	}
}

// handedOver gives a hand-over's grant to the waiter, or releases it if the waiter has
// left.
func (m *machine) handedOver(s State, c int, r request, first uint8, yield yield) {
	to := 1 - c
	cl := &s.clients[to]
	own := &cl.requests[slotMain]

	switch {
	case cl.paused:
		// Both are in one process: what one can do, the other can.
	case cl.waits || own.kind == acquire && !cl.holds && cl.requests[slotStray].kind == none && cl.returns == set{}:
		if own.kind == acquire { // its grant is returned
			cl.requests[slotStray] = *own
			cl.returns.add(uint8(own.name))
			cl.returns.addAll(cl.lost)

			if own.phase == answered || own.phase == lost {
				cl.requests[slotStray] = request{}
			}

			*own = request{}
			cl.doubt = false
		}

		broken := m.hold(&s, to, r, first)
		yield("client %c hears of the hand-over, and the other has the lock", who(c), s, broken)

		return
	}

	broken := m.told(&s, r)
	s.clients[c].requests[slotMain] = request{
		kind: release, phase: sent, gen: r.newGen, ref: r.name, sent: s.now,
	}
	yield("client %c hears of the hand-over, and releases: the other has left", who(c), s, broken)
}

// refused is the moment when a client is told that none of its attempts with those names
// was granted the lock.
func (m *machine) refused(s *State, c int, names set) *Violation {
	// The caller is told of what is returned in the background.
	returns := s.clients[c].returns

	if n := s.cur.row.owner; n != 0 && names.has(uint8(n)) && !returns.has(uint8(n)) && s.cur.row.expires > s.clock() {
		return violation(UnknownIsUnknown, "%s counts as refused, and has the lock", n)
	}

	if r := s.clients[c].requests[slotStray]; r.kind == acquire && names.has(uint8(r.name)) && !returns.has(uint8(r.name)) {
		return violation(UnknownIsUnknown, "%s counts as refused, and is under way", r.name)
	}

	return nil
}
