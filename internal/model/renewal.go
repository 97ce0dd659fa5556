package model

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

// doubt is what a client does about a reply that was lost.
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
		t, names := *s, set{}
		names.add(uint8(r.name))
		t.clients[c].requests[slotMain] = request{}
		yield("client %c takes the lock for refused", who(c), t, m.refused(&t, c, names))

		return
	}

	t := *s
	cl := &t.clients[c]

	if !cl.doubt && r.kind != release {
		cl.doubt, cl.first = true, r.sent
	}

	q := &cl.requests[slotMain]
	q.phase, q.sent = sent, t.now

	if r.kind.grants() {
		cl.lost.add(uint8(r.name))
		q.name = nameOf(c, firstAgain+cl.again)
		cl.again++
	}

	q.clock = t.clock()
	q.answer = answer{}
	yield("client %c sends its request again", who(c), t, nil)

	// Or it leaves, and returns what it may have been granted.
	t = *s
	cl = &t.clients[c]
	cl.requests[slotMain], cl.doubt = request{}, false

	switch {
	case r.kind == handOver, r.kind == acquire:
		cl.returns.add(uint8(r.name))
		cl.returns.addAll(cl.lost)
	case r.of == handOver, r.of == acquire:
		cl.returns.addAll(cl.lost)
	case r.kind == release && m.mutant == BelieveUntilReleased:
		cl.holds = false
	}

	yield("client %c leaves, and says that it doesn't know", who(c), t, nil)
}

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

// background is the return of a grant by client c. It may never come to it, so giving up is
// no step of its own.
func (m *machine) background(s *State, c int, yield yield) {
	cl := &s.clients[c]

	owner := s.cur.row.owner
	if owner == 0 || !cl.returns.has(uint8(owner)) || s.tx.open || s.shared() {
		return
	}

	var broken *Violation

	for d := range m.Clients {
		if s.believes(d) && s.clients[d].tenure == owner {
			broken = violation(OnlyHolder, "client %c returns %s, as which client %c holds the lock", 'A'+c, owner, 'A'+d)
		}
	}

	t := *s
	t.clients[c].returns.remove(uint8(owner))

	img := t.cur
	img.row.gen, img.row.owner, img.row.acquired, img.row.expires = m.next(&t, img.row), 0, never, t.clock()
	yield("client %c returns what it was granted", who(c), t, m.commit(&t, &request{kind: release}, img, false, broken))
}
