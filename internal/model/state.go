package model

// State is everything that decides what can happen next. It is compared by ==, and has only
// bytes, which makes that fast.
type State struct {
	// now is the time. The database's clock differs by skew; all clocks go at the same
	// rate.
	now  uint8
	skew int8

	timeline uint8
	// cur is what the server shows, durable what a crash leaves.
	cur, durable image
	// standby is what a promotion finds if the standby has fallen behind.
	standby image
	behind  bool
	// tx is a statement that was executed and not committed. It has the row locked.
	tx transaction

	clients [maxClients]client
	// fence is the resource elsewhere: the largest token that it has seen, and its grant.
	fence write

	renewals, losses, pauses, crashes, promotions, steps, prunes uint8

	// The promises are checked by the rest, which decides nothing.

	// acked are the tokens that a client was told of, lastToken is the largest.
	acked     set
	lastToken uint8
	// granted are the names of committed grants.
	granted set
	// grants counts the grants of the lock, with those that a promotion lost.
	grants uint8
	// promised is the last durable state of the row that a client was told of.
	promised promise
}

const maxClients = 3

// set has numbers below 40.
type set [5]uint8

func (s *set) has(n uint8) bool { return s[n/8]&(1<<(n%8)) != 0 }
func (s *set) add(n uint8)      { s[n/8] |= 1 << (n % 8) }
func (s *set) remove(n uint8)   { s[n/8] &^= 1 << (n % 8) }

func (s *set) addAll(of set) {
	for i := range s {
		s[i] |= of[i]
	}
}

// image is what the server's log adds up to.
type image struct {
	row row
	// mark is the watermark, the largest generation that was ever to be pruned.
	mark uint8
	// written is the last guarded write, to a table of the same database.
	written write
}

type row struct {
	there bool
	gen   uint8
	// expires and acquired are by the database's clock. acquired is never if there is no
	// owner.
	expires, acquired uint8
	owner             name
	// grant is the ordinal number of the grant. No client sees it.
	grant uint8
}

const never = 255

type write struct{ token, grant uint8 }

type promise struct{ gen, expires uint8 }

func (p promise) covers(r row) bool {
	return r.gen > p.gen || r.gen == p.gen && r.expires >= p.expires
}

// name is the name of a request for the lock, from 1; 0 is none.
type name uint8

type transaction struct {
	open         bool
	client, slot uint8
	img          image
	durable      bool
}

type client struct {
	paused bool
	// tries counts the requests with a name that it has sent, again their attempts after
	// the first, each under a name of its own.
	tries, again uint8
	// waits: the other client of its process may hand the lock over to it.
	waits bool

	// holds: it believes that it holds the lock, by the grant tenure, until the deadline.
	// token and grant stay afterwards: it may go on to write.
	holds        bool
	tenure       name
	token, grant uint8
	deadline     uint8

	// doubt: a reply to the present request was lost, which was sent at first. lost are the
	// names of its attempts without a reply.
	doubt bool
	first uint8
	lost  set
	// returns are the names of the grants that it returns in the background.
	returns set

	// guard is the token of its open guarded transaction, 0 if there is none.
	guard uint8

	seen   row
	looked bool

	requests [3]request
}

const (
	slotMain  = 0 // it waits for the answer
	slotRenew = 1
	slotStray = 2 // it doesn't, and the request may still be executed
)

type kind uint8

const (
	none kind = iota
	acquire
	refresh // by a generation
	swap    // refresh by a status that was seen
	renew
	release
	handOver
	settle         // an acquire or a refresh, by the names of its attempts
	settleHandOver // the same of a hand-over
)

func (k kind) String() string {
	return [...]string{"", "acquire", "refresh", "refresh by status", "renewal", "release", "hand-over", "settling", "settling of a hand-over"}[k]
}

func (k kind) grants() bool { return k == acquire || k == refresh || k == swap || k == handOver }

type phase uint8

const (
	sent     phase = iota + 1
	blocked        // by the row, after it has read the clock
	begun          // has read the watermark, and will insert the row
	executed       // not committed
	answered       // the answer is on its way
	lost           // no answer will come, and the client knows
)

type request struct {
	kind  kind
	phase phase
	// of is the kind of the request that this one settles.
	of kind
	// gen is the generation that the request names. The client knows it as that of the
	// grant ref, or as free since freeSince.
	gen       uint8
	ref       name
	free      bool
	freeSince uint8
	// name is that of the grant that it requests, names are those that it settles.
	name  name
	names set
	hold  uint8
	// above is the least generation that the watermark leaves, for a request that has begun.
	above uint8
	// sent is by the local clock. clock is the database's when the statement began.
	sent, clock uint8

	answer
}

// answer is what a statement returned.
type answer struct {
	// ok: it matched. busy: it would have, but the row was locked. short: it is a grant
	// with too little of the lease left.
	ok, busy, short bool
	// newGen, expires and grant are those of the row.
	newGen, expires, grant uint8
}

// tidy makes states equal that differ only in what decides nothing any more.
func (m *machine) tidy(s *State) {
	clock := s.clock()

	if s.crashes == m.Crashes && s.promotions == m.Promotions {
		s.durable, s.promised = image{}, promise{}
	}

	for _, img := range []*image{&s.cur, &s.durable, &s.standby, &s.tx.img} {
		if !m.Seen {
			img.row.acquired = 0

			if s.steps == m.Steps && img.row.expires <= clock {
				img.row.expires = 0
			}
		}

		if !m.Guard && !m.Fence {
			img.row.grant = 0
		}

		if !m.Guard {
			img.written = write{}
		}
	}

	if s.steps == m.Steps && !m.Seen && s.promised.expires <= clock {
		s.promised.expires = 0
	}

	if !m.Guard && !m.Fence {
		s.grants = 0
	}

	for c := range m.Clients {
		cl := &s.clients[c]

		if !cl.holds {
			cl.deadline = 0

			if !m.Guard && !m.Fence {
				cl.token, cl.grant, cl.tenure = 0, 0, 0
			}
		}

		if s.losses == m.Losses && cl.requests[slotMain].phase != lost {
			cl.again = 0 // no request will be sent again
		}

		if !cl.doubt {
			cl.first, cl.lost = 0, set{}
		} else {
			cl.first = m.age(s, cl.first)
		}

		for slot := range cl.requests {
			m.tidyRequest(s, &cl.requests[slot])
		}

		if cl.requests[slotStray].phase == answered {
			cl.requests[slotStray] = request{} // no client waits for the answer
		}

		if r := &cl.requests[slotRenew]; r.phase == answered && !r.ok && (r.busy || !cl.holds || cl.tenure != r.ref) {
			*r = request{} // and nothing follows
		}

		if r := &cl.requests[slotMain]; r.kind == release && r.phase == answered && r.hold == 0 && s.losses == m.Losses &&
			m.mutant != BelieveUntilReleased {
			*r = request{}
		}
	}
}

func (m *machine) tidyRequest(s *State, r *request) {
	if r.kind == none {
		return
	}

	if r.kind == release {
		r.sent = 0
	} else {
		r.sent = m.age(s, r.sent)
	}

	if r.phase != blocked && m.mutant != TransactionsClock {
		r.clock = 0
	}

	if !r.ok || r.kind == release && r.hold == 0 {
		r.newGen, r.expires, r.grant = 0, 0, 0
	}

	if s.steps == m.Steps && r.expires <= s.clock() {
		r.expires = 0
	}

	if !m.Guard && !m.Fence {
		r.grant = 0
	}
}

// age is when a request was sent, or the last moment at which it would be too old as well.
func (m *machine) age(s *State, sent uint8) uint8 {
	if term := m.TTL; s.now > term {
		return max(sent, s.now-term)
	}

	return sent
}

// believes: the client would say that it holds the lock. Nothing is promised for one that
// is paused.
func (s *State) believes(c int) bool { return s.clients[c].holds && s.now < s.clients[c].deadline }

func (s *State) clock() uint8 { return uint8(int8(s.now) + s.skew) }

// shared: a guarded transaction has the row locked.
func (s *State) shared() bool {
	for c := range s.clients {
		if s.clients[c].guard != 0 {
			return true
		}
	}

	return false
}
