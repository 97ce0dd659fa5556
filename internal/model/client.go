package model

// client is everything that client c can do next.
func (m *machine) client(s *State, c int, yield yield) {
	if s.clients[c].paused {
		t := *s
		t.clients[c].paused = false

		if t.now >= t.clients[c].deadline {
			t.clients[c].holds = false
		}

		yield("client %c goes on", who(c), t, nil)

		return
	}

	cl := &s.clients[c]

	if s.pauses < m.Pauses && (cl.holds || cl.requests[slotMain].kind != none) {
		t := *s
		t.pauses++
		t.clients[c].paused = true
		yield("client %c is paused", who(c), t, nil)
	}

	switch r := &cl.requests[slotMain]; {
	case r.kind == none:
		m.begin(s, c, yield)
	case r.phase == answered:
		m.hear(*s, c, yield)
	case r.phase == executed && m.mutant == AckBeforeCommit:
		m.hear(*s, c, yield)
	case r.phase == lost:
		m.doubt(s, c, yield)
	}

	m.lose(s, c, yield)
	m.renewal(s, c, yield)
	m.background(s, c, yield)
	m.write(s, c, yield)
}

// begin sends a request, where none is under way.
func (m *machine) begin(s *State, c int, yield yield) {
	cl := &s.clients[c]

	if cl.waits {
		t := *s
		t.clients[c].waits = false
		yield("client %c waits no longer", who(c), t, nil)
	}

	if cl.holds {
		m.end(s, c, yield)

		if m.Refresh && cl.tries < m.Tries {
			t := *s
			r := m.ask(&t, c, refresh)
			r.gen, r.ref = cl.token, cl.tenure
			yield("client %c refreshes its lease", who(c), t, nil)
		}

		return
	}

	// Who is the first doesn't matter where all can do the same.
	if cl.tries < m.Tries && (m.Seen || c == 0 || s.clients[c-1].tries > 0 || m.HandOver && c == 2) {
		m.sendAcquire(s, c, "client %c asks for the lock", yield)
	}

	if m.Seen && c == m.Clients-1 {
		// By the status of a held lock anybody could take it from its holder.
		if shown := s.cur.row; shown.there && (shown.owner == 0 || shown.expires <= s.clock()) && (!cl.looked || cl.seen != shown) {
			t := *s
			t.clients[c].seen, t.clients[c].looked = s.cur.row, true
			yield("client %c reads the status", who(c), t, nil)
		}

		if cl.looked && cl.tries < m.Tries {
			t := *s
			r := m.ask(&t, c, swap)
			r.gen, r.ref = cl.seen.gen, cl.seen.owner

			if cl.seen.owner == 0 {
				r.free, r.freeSince = true, cl.seen.expires
			}

			yield("client %c refreshes by the status that it has read", who(c), t, nil)
		}
	}
}

// sendAcquire sends an acquire of a new name.
func (m *machine) sendAcquire(s *State, c int, label string, yield yield) {
	if m.mutant != TransactionsClock {
		t := *s
		m.ask(&t, c, acquire)
		yield(label, who(c), t, nil)

		return
	}

	// In a transaction that began some time ago.
	for begun := int(s.now); begun >= max(0, int(s.now)-2); begun-- {
		t := *s
		m.ask(&t, c, acquire).clock = uint8(int8(begun) + s.skew)
		yield(label, who(c), t, nil)
	}
}

// ask sends a request under a new name.
func (m *machine) ask(s *State, c int, k kind) *request {
	cl := &s.clients[c]
	cl.waits = false
	cl.requests[slotMain] = request{
		kind: k, phase: sent, name: nameOf(c, cl.tries), sent: s.now,
	}
	cl.tries++

	return &cl.requests[slotMain]
}

const maxTries = 4

func nameOf(c int, try uint8) name { return name(1 + c*maxTries + int(try)) }

// end is Unlock: belief ends, and then a release or a hand-over is sent.
func (m *machine) end(s *State, c int, yield yield) {
	free := func(hold uint8, label string) {
		t := *s
		cl := &t.clients[c]
		cl.holds = m.mutant == BelieveUntilReleased
		cl.requests[slotMain] = request{
			kind: release, phase: sent, gen: cl.token, ref: cl.tenure, hold: hold, sent: t.now,
		}
		yield(label, who(c), t, nil)
	}

	free(0, "client %c unlocks")

	if m.Hold > 0 {
		free(m.Hold, "client %c unlocks, and has the lock kept for a while")
	}

	if other := 1 - c; m.HandOver && c < 2 && s.clients[other].waits {
		t := *s
		cl := &t.clients[c]
		cl.holds = false
		// The name is one of the client that it is meant for.
		cl.requests[slotMain] = request{
			kind: handOver, phase: sent, gen: cl.token, ref: cl.tenure, sent: t.now,
			name: nameOf(other, m.Tries+s.clients[c].tries),
		}
		yield("client %c hands the lock over to the other of its process", who(c), t, nil)
	}
}

// hear takes the answer that has come.
func (m *machine) hear(s State, c int, yield yield) {
	cl := &s.clients[c]
	r := cl.requests[slotMain]
	cl.requests[slotMain] = request{}

	first := r.sent
	if cl.doubt && (r.kind == confirm || r.kind == settle) && m.mutant != TermFromRepetition {
		first = cl.first
	}

	doubt := cl.doubt
	again := func(k kind, label string) {
		q := r
		q.kind, q.phase, q.sent = k, sent, s.now

		if k == confirm || k == settle { // it goes by the name alone
			q.of, q.gen, q.ref = r.kind, 0, 0
		}

		q.answer = answer{}

		q.clock = s.clock() // in a new transaction, if in any

		cl.requests[slotMain] = q
		yield(label, who(c), s, nil)
	}

	if !r.ok && doubt && r.kind.grants() {
		k := confirm
		if r.kind == handOver {
			k = settle
		}

		again(k, "client %c is refused, and asks whether its first request was granted")

		return
	}

	cl.doubt = false

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
	case r.ok && (r.kind == handOver || r.kind == settle):
		m.deliver(s, c, r, first, yield)
	case r.ok:
		broken := m.hold(&s, c, r, first)
		yield("client %c hears that it is granted the lock", who(c), s, broken)
	case r.kind == refresh, r.of == refresh:
		cl.holds = false
		yield("client %c hears that its lease is another's", who(c), s, nil)
	case r.kind == swap, r.kind == handOver, r.of == swap, r.of == handOver:
		yield("client %c hears that the lock has moved on", who(c), s, nil)
	case s.cur.row.there && s.cur.row.expires > s.clock():
		// The look why it was refused.
		cl.waits = m.HandOver && c < 2

		if doubt {
			cl.gives = r.name
		}

		yield("client %c hears that the lock is held", who(c), s, m.refused(&s, c, r.name))
	default:
		cl.doubt = doubt
		again(acquire, "client %c hears that it was refused, sees the lock free, and asks again")
	}
}

// hold is the moment when client c begins to believe.
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

	if !cl.holds { // it took too long: passed on
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

// deliver gives a hand-over's grant to the one who waits, who may have left, or frees it.
func (m *machine) deliver(s State, c int, r request, first uint8, yield yield) {
	to := 1 - c
	cl := &s.clients[to]
	asks := &cl.requests[slotMain]

	switch {
	case cl.paused:
		// One process: what one can do, the other can.
	case cl.waits || asks.kind == acquire && !cl.holds && cl.requests[slotStray].kind == none && cl.gives == 0:
		if asks.kind == acquire { // what that brings is passed on
			cl.requests[slotStray], cl.gives = *asks, asks.name
			if asks.phase == answered || asks.phase == lost {
				cl.requests[slotStray] = request{}
			}

			*asks = request{}
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

// refused is the moment when a client is told that it wasn't granted the lock.
func (m *machine) refused(s *State, c int, n name) *Violation {
	if s.clients[c].gives == n { // its caller is told, and in the background it is given back
		return nil
	}

	if s.cur.row.owner == n && s.cur.row.expires > s.clock() {
		return violation(UnknownIsUnknown, "%s counts as refused, and has the lock", n)
	}

	if r := s.clients[c].requests[slotStray]; r.kind == acquire && r.name == n {
		return violation(UnknownIsUnknown, "%s counts as refused, and is under way", n)
	}

	return nil
}

// lose loses the answer to a request, or the request.
func (m *machine) lose(s *State, c int, yield yield) {
	cl := &s.clients[c]
	r := &cl.requests[slotMain]

	if s.losses >= m.Losses || r.kind == none || r.phase == lost {
		return
	}

	arrived := r.phase == answered || r.phase == executed
	if !arrived && cl.requests[slotStray].kind != none {
		return
	}

	t := *s
	t.losses++

	q := &t.clients[c].requests[slotMain]
	if !arrived {
		t.clients[c].requests[slotStray] = *q
	}

	label := "the reply to %s is lost"
	if !arrived {
		label = "the connection of %s breaks while it is under way"
	}

	text := what(c, q)
	q.phase = lost

	yield(label, text, t, nil)
}

// doubt is what a client does about an answer that won't come.
func (m *machine) doubt(s *State, c int, yield yield) {
	r := s.clients[c].requests[slotMain]

	if m.mutant == UnknownIsHeld && r.kind == acquire {
		t := *s
		cl := &t.clients[c]
		cl.requests[slotMain] = request{}
		cl.tenure, cl.token, cl.deadline = r.name, t.cur.row.gen, r.sent+m.TTL-m.Margin
		r.answer = answer{newGen: t.cur.row.gen, expires: t.cur.row.expires}
		yield("client %c takes the lock for granted", who(c), t, m.told(&t, r))

		return
	}

	if m.mutant == UnknownIsFree && r.kind == acquire {
		t := *s
		t.clients[c].requests[slotMain] = request{}
		yield("client %c takes the lock for refused", who(c), t, m.refused(&t, c, r.name))

		return
	}

	// It asks again.
	t := *s
	cl := &t.clients[c]

	if !cl.doubt && r.kind != release {
		cl.doubt, cl.first = true, r.sent
	}

	q := &cl.requests[slotMain]
	q.phase, q.sent = sent, t.now

	q.clock = t.clock()
	q.answer = answer{}
	yield("client %c asks again", who(c), t, nil)

	// Or it leaves, and what it may have been granted is given back.
	t = *s
	cl = &t.clients[c]
	cl.requests[slotMain], cl.doubt = request{}, false

	switch {
	case r.kind == handOver, r.kind == acquire, r.of == handOver, r.of == acquire:
		cl.gives = r.name
	case r.kind == release && m.mutant == BelieveUntilReleased:
		cl.holds = false
	}

	yield("client %c leaves, and says that it doesn't know", who(c), t, nil)
}

// renewal is what the renewer of client c does.
func (m *machine) renewal(s *State, c int, yield yield) {
	cl := &s.clients[c]
	r := &cl.requests[slotRenew]

	switch {
	case r.kind == none && cl.holds && s.renewals < m.Renewals && s.now+m.TTL-m.Margin > cl.deadline:
		t := *s
		t.renewals++
		t.clients[c].requests[slotRenew] = request{
			kind: renew, phase: sent, gen: cl.token, ref: cl.tenure, sent: t.now,
		}
		yield("client %c sends a renewal", who(c), t, nil)
	case r.phase == answered:
		t := *s
		cl := &t.clients[c]
		current := cl.holds && cl.tenure == r.ref

		switch {
		case r.ok:
			t.promise(r.answer)

			if from := r.sent; current {
				if m.mutant == TermFromReply {
					from = t.now
				}

				cl.deadline = max(cl.deadline, from+m.TTL-m.Margin)
			}
		case !r.busy && current:
			cl.holds = false
		}

		cl.requests[slotRenew] = request{}
		yield("client %c hears of its renewal", who(c), t, nil)

		if s.losses < m.Losses {
			t := *s
			t.losses++
			t.clients[c].requests[slotRenew] = request{}
			yield("the reply to a renewal of %c is lost", who(c), t, nil)
		}
	}
}

// background is what client c gives back. That it gives up is the same as that it never
// comes to it.
func (m *machine) background(s *State, c int, yield yield) {
	cl := &s.clients[c]

	if cl.gives == 0 || s.cur.row.owner != cl.gives || s.tx.open || s.shared() {
		return
	}

	var broken *Violation

	for d := range m.Clients {
		if s.believes(d) && s.clients[d].tenure == cl.gives {
			broken = violation(OnlyHolder, "client %c gives back %s, as which client %c holds the lock", 'A'+c, cl.gives, 'A'+d)
		}
	}

	t := *s
	t.clients[c].gives = 0

	img := t.cur
	img.row.gen, img.row.owner, img.row.acquired, img.row.expires = m.next(&t, img.row), 0, never, t.clock()
	yield("client %c gives back what it was granted", who(c), t, m.commit(&t, &request{kind: release}, img, false, broken))
}

// write is the work of a holder, and of one that doesn't know that it is none any more.
func (m *machine) write(s *State, c int, yield yield) {
	cl := &s.clients[c]

	if m.Fence && cl.token != 0 && cl.token >= s.fence.token && s.fence != (write{cl.token, cl.grant}) {
		t := *s
		t.fence = write{cl.token, cl.grant}

		var broken *Violation
		if cl.grant <= s.fence.grant {
			broken = violation(NoStaleWrite, "the resource takes a write of grant %d with token %d after one of grant %d with token %d",
				cl.grant, cl.token, s.fence.grant, s.fence.token)
		}

		yield("client %c writes to the resource elsewhere", who(c), t, broken)
	}

	if !m.Guard || cl.token == 0 {
		return
	}

	if cl.guard == 0 {
		shown := s.cur.row
		if s.tx.open && m.mutant != WeakGuard || !shown.there || shown.gen != cl.token || shown.expires <= s.clock() {
			return // it waits, or finds that the lock is lost
		}

		t := *s
		t.clients[c].guard = cl.token
		yield("client %c begins a guarded transaction", who(c), t, nil)

		return
	}

	t := *s
	t.clients[c].guard = 0
	yield("client %c rolls its guarded transaction back", who(c), t, nil)

	t = *s
	t.clients[c].guard = 0
	t.cur.written = write{cl.guard, t.cur.row.grant}
	t.durable = t.cur

	var broken *Violation
	if t.cur.row.gen != cl.guard {
		broken = violation(NoStaleWrite, "a write under token %d is committed after the lock has moved on to %d",
			cl.guard, t.cur.row.gen)
	}

	if t.cur.written.grant < s.cur.written.grant {
		broken = violation(NoStaleWrite, "a write of grant %d is committed after one of grant %d",
			t.cur.written.grant, s.cur.written.grant)
	}

	yield("client %c commits its guarded transaction", who(c), t, broken)
}
