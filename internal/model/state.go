package model

// State is everything that decides what can happen next. It is compared by ==, and has
// bytes alone, which makes that fast.
type State struct {
	// now is the time, on a clock that all machines share the rate of. The database's
	// differs from it by skew.
	now  uint8
	skew int8

	timeline uint8
	// cur is what the server shows, and durable what a crash leaves.
	cur, durable image
	// standby is what a promotion finds, once the standby has fallen behind.
	standby image
	behind  bool
	// tx is a statement that was executed and isn't committed. It has the row locked.
	tx transaction

	clients [maxClients]client
	// fence is the resource elsewhere: the largest token that it has seen, and whose.
	fence write

	renewals, losses, pauses, crashes, promotions, steps uint8

	// What follows decides nothing. It is what the promises are checked by.

	// acked are the tokens that a client was told of, and lastToken is the largest of
	// them.
	acked     set
	lastToken uint8
	// granted are the names that were committed as grants.
	granted set
	// grants counts the grants of this lock, those included that a promotion lost.
	grants uint8
	// promised is the last state of the row that a client was told of, and that is
	// meant to last.
	promised promise
}

const maxClients = 3

// set is of numbers below 40.
type set [5]uint8

func (s *set) has(n uint8) bool { return s[n/8]&(1<<(n%8)) != 0 }
func (s *set) add(n uint8)      { s[n/8] |= 1 << (n % 8) }
func (s *set) remove(n uint8)   { s[n/8] &^= 1 << (n % 8) }

func (s *set) addAll(of set) {
	for i := range s {
		s[i] |= of[i]
	}
}

// image is what the log of the server adds up to.
type image struct {
	row row
	// written is the last guarded write, in a table of the same database.
	written write
}

type row struct {
	there bool
	gen   uint8
	// expires and acquired are by the database's clock. acquired is never where there is
	// no owner.
	expires, acquired uint8
	owner             name
	// grant is the ordinal number of the grant that it shows. No client sees it.
	grant uint8
}

const never = 255

type write struct{ token, grant uint8 }

type promise struct{ gen, expires uint8 }

func (p promise) covers(r row) bool {
	return r.gen > p.gen || r.gen == p.gen && r.expires >= p.expires
}

// name is the name of a request for the lock, from 1. None is 0.
type name uint8

type transaction struct {
	open         bool
	client, slot uint8
	img          image
	durable      bool
}

type client struct {
	paused bool
	// tries is how many requests it has sent that have a name, and again how many attempts
	// of them, each under another name, after the first.
	tries, again uint8
	// waits: somebody in this process may hand the lock over to it.
	waits bool

	// holds: it believes that it holds the lock, as the grant named tenure, until the
	// deadline. token and grant stay when the belief is over: it may go on to write.
	holds        bool
	tenure       name
	token, grant uint8
	deadline     uint8

	// doubt: a reply to the present request was lost, which was sent at first. lost are the
	// names of its attempts that had no answer.
	doubt bool
	first uint8
	lost  set
	// gives is what it gives back in the background.
	gives set

	// guard is the token of its guarded transaction, if one is open.
	guard uint8

	// seen is a status that it has read.
	seen   row
	looked bool

	requests [3]request
}

// Slots of a client's requests.
const (
	slotMain  = 0 // what it waits for the answer of
	slotRenew = 1
	slotStray = 2 // what it waits for no more, and may still be executed
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
	confirm // of an acquire or a refresh, by the names of its attempts
	settle  // confirm, of a hand-over
)

func (k kind) String() string {
	return [...]string{"", "acquire", "refresh", "refresh by status", "renewal", "release", "hand-over", "confirmation", "confirmation of a hand-over"}[k]
}

func (k kind) grants() bool { return k == acquire || k == refresh || k == swap || k == handOver }

type phase uint8

const (
	sent     phase = iota + 1
	blocked        // it waits for the row, and has read the clock
	executed       // not committed
	answered       // and the answer is on its way
	lost           // no answer will come, and the client knows
)

type request struct {
	kind  kind
	phase phase
	// of is what a confirmation confirms.
	of kind
	// gen is the generation that it names, which the client knows as that of the grant
	// ref, or else as free, since freeSince.
	gen       uint8
	ref       name
	free      bool
	freeSince uint8
	// name is the grant that it asks for, and names are those that a confirmation asks for.
	name  name
	names set
	hold  uint8
	// sent is by the local clock; clock is the database's when the statement began.
	sent, clock uint8

	answer
}

// answer is what a statement returned.
type answer struct {
	// ok: it matched. busy: it would have, and the row was locked. short: it is a grant,
	// and too little of the lease is left.
	ok, busy, short bool
	// gen, expires and grant are those of the row.
	newGen, expires, grant uint8
}

// tidy makes states equal that differ only in what nothing depends on any more.
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
			cl.again = 0 // no attempt will be repeated
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
			cl.requests[slotStray] = request{} // nobody listens
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

// age is when something was sent, or the last moment at which it would be too old as
// well for a term that is counted from it.
func (m *machine) age(s *State, sent uint8) uint8 {
	if term := m.TTL; s.now > term {
		return max(sent, s.now-term)
	}

	return sent
}

// believes: the client would say that it holds the lock. One that is paused can't see
// its deadline pass, and nothing is promised of it then.
func (s *State) believes(c int) bool { return s.clients[c].holds && s.now < s.clients[c].deadline }

// clock is the database's.
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
