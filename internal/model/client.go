package model

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
			r := m.send(&t, c, refresh)
			r.gen, r.ref = cl.token, cl.tenure
			yield("client %c refreshes its lease", who(c), t, nil)
		}

		return
	}

	// The first client stands for the others where all can do the same.
	if cl.tries < m.Tries && (m.Seen || c == 0 || s.clients[c-1].tries > 0 || m.HandOver && c == 2) {
		m.sendAcquire(s, c, "client %c requests the lock", yield)
	}

	if m.Seen && c == m.Clients-1 {
		// With the status of a held lock a client could take it from its holder.
		if shown := s.cur.row; shown.there && (shown.owner == 0 || shown.expires <= s.clock()) && (!cl.looked || cl.seen != shown) {
			t := *s
			t.clients[c].seen, t.clients[c].looked = s.cur.row, true
			yield("client %c reads the status", who(c), t, nil)
		}

		if cl.looked && cl.tries < m.Tries {
			t := *s
			r := m.send(&t, c, swap)
			r.gen, r.ref = cl.seen.gen, cl.seen.owner

			if cl.seen.owner == 0 {
				r.free, r.freeSince = true, cl.seen.expires
			}

			yield("client %c refreshes by the status that it has read", who(c), t, nil)
		}
	}
}

func (m *machine) sendAcquire(s *State, c int, label string, yield yield) {
	if m.mutant != TransactionsClock {
		t := *s
		m.send(&t, c, acquire)
		yield(label, who(c), t, nil)

		return
	}

	// In a transaction that began earlier.
	for begun := int(s.now); begun >= max(0, int(s.now)-2); begun-- {
		t := *s
		m.send(&t, c, acquire).clock = uint8(int8(begun) + s.skew)
		yield(label, who(c), t, nil)
	}
}

func (m *machine) send(s *State, c int, k kind) *request {
	cl := &s.clients[c]
	cl.waits = false
	cl.requests[slotMain] = request{
		kind: k, phase: sent, name: nameOf(c, cl.tries), sent: s.now,
	}
	cl.tries++

	return &cl.requests[slotMain]
}

const (
	maxTries = 9
	// firstAgain is the first number of an attempt that isn't the first of its request.
	firstAgain = 5
)

func nameOf(c int, try uint8) name { return name(1 + c*maxTries + int(try)) }

// end is Unlock: the client stops to believe, and sends a release or a hand-over.
func (m *machine) end(s *State, c int, yield yield) {
	unlock := func(hold uint8, label string) {
		t := *s
		cl := &t.clients[c]
		cl.holds = m.mutant == BelieveUntilReleased
		cl.requests[slotMain] = request{
			kind: release, phase: sent, gen: cl.token, ref: cl.tenure, hold: hold, sent: t.now,
		}
		yield(label, who(c), t, nil)
	}

	unlock(0, "client %c unlocks")

	if m.Hold > 0 {
		unlock(m.Hold, "client %c unlocks, and has the lock kept for a while")
	}

	if other := 1 - c; m.HandOver && c < 2 && s.clients[other].waits {
		t := *s
		cl := &t.clients[c]
		cl.holds = false
		// The name is one of the client that is granted the lock.
		cl.requests[slotMain] = request{
			kind: handOver, phase: sent, gen: cl.token, ref: cl.tenure, sent: t.now,
			name: nameOf(other, m.Tries+s.clients[c].tries),
		}
		yield("client %c hands the lock over to the other of its process", who(c), t, nil)
	}
}

// write is the work of a holder, and of a client that doesn't know that it has lost the
// lock.
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
			return // the guard waits, or finds that the lock is lost
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
