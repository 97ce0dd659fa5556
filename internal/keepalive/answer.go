package keepalive

import (
	"slices"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

type answer struct {
	results []store.RenewResult
	sent    time.Time
	err     error
	ended   bool // the Renewer has ended the context, which may be the only cause of err
	unsent  bool // the terms were over before, and the session is as good as new
}

// finish takes the answer of an attempt, doubled or not.
func (r *Renewer) finish(a *attempt, got answer) {
	r.mu.Lock()
	defer r.unlock()

	_, wanted := r.attempts[a]
	delete(r.attempts, a)

	if r.current == a {
		r.current = nil
	}

	a.gaveUp = got.err != nil && got.ended || got.lacks()
	a.opens = a.opens || got.unsent // opening it has taken all the time

	places := make([]int, len(a.leases))
	for i := range places {
		places[i] = i
	}

	r.settle(a, places, got)
	r.poke()

	if a.link == nil {
		return
	}

	a.link.proven = a.link.proven || got.err == nil

	if r.idle == nil && wanted && (got.err == nil && !(got.lacks() && got.ended) || got.unsent || got.divides() && a.link.proven) {
		r.idle = a.link
	} else {
		r.calls = append(r.calls, a.link.Close)
	}
}

// told takes the answers about some leases of an attempt that goes on.
func (r *Renewer) told(a *attempt, places []int, results []store.RenewResult, sent time.Time) {
	r.mu.Lock()
	defer r.unlock()

	got := answer{results: make([]store.RenewResult, len(a.leases)), sent: sent}
	for i, place := range places {
		got.results[place] = results[i]
	}

	r.settle(a, places, got)
	r.poke()
}

// divides: the server has refused them together.
func (got answer) divides() bool { return got.err != nil && !got.ended && store.Divides(got.err) }

// lacks: some leases have no answer, and others do.
func (got answer) lacks() bool {
	return slices.ContainsFunc(got.results, func(r store.RenewResult) bool { return r.State == store.RenewUnanswered && r.Err == nil })
}

// settle takes what was answered about the leases of an attempt in these places.
func (r *Renewer) settle(a *attempt, places []int, got answer) {
	var (
		divides = got.divides()
		renewed = make([]*Lease, 0, len(places))
		notices = make([]notice, 0, len(places))
		refused []*Lease
		now     = time.Now()
	)

	for _, i := range places {
		l := a.leases[i]
		if l == nil {
			continue
		}

		a.leases[i] = nil
		l.underWay--

		if !l.held {
			continue
		}

		var result store.RenewResult // of an error: none
		if got.err == nil {
			result = got.results[i]
		}

		err := got.err
		if result.State == store.RenewUnanswered {
			err = result.Err
		}

		silent := got.err != nil && got.ended || result.State == store.RenewUnanswered && err == nil

		current := l.attempt == a
		if current {
			l.attempt = nil
		}

		// The silence goes on until an attempt brings an answer.
		if !silent && l.asked != nil && (l.asked == a || l.asked.gaveUp) {
			l.asked = nil
		}

		if got.err == nil && result.State == store.Renewed && current && got.sent.After(l.term.Sent) {
			renewed = append(renewed, l)
			notices = append(notices, r.extend(l, result, got.sent, now))

			continue
		}

		r.part(l)

		switch {
		case got.err != nil || result.State == store.RenewUnanswered:
			if silent {
				err = nil
			}

			r.failed(l, a, err, now)

			switch {
			case current && divides:
				refused = append(refused, l)
			case current:
				r.wait(l, now.Add(l.retryDelay()))
			}
		case result.State == store.Renewed:
			r.renewed(l, result, got.sent, now)
		case result.State == store.RenewBusy:
			r.busy(l, current, now)
		default:
			r.lose(l, true, now)
		}
	}

	r.gather(renewed, now)
	r.notify(notices)
	r.divide(refused, now)
	r.report(now)
}

// failed notes an attempt without an answer, which has no error, or with an error for one.
func (r *Renewer) failed(l *Lease, a *attempt, err error, now time.Time) {
	if l.term.Sent.After(a.began) {
		return // an attempt beside this one has renewed it since
	}

	l.failures++

	if err != nil {
		l.lastErr, l.locked = err, false
	}

	r.trouble(l, now)
}

// renewed is for a lease that another attempt has taken or renewed since. Of attempts that ran side by side the
// one that was sent last counts.
func (r *Renewer) renewed(l *Lease, result store.RenewResult, sent, now time.Time) {
	if sent.After(l.term.Sent) {
		r.notify([]notice{r.extend(l, result, sent, now)})
		r.ends.put(l, r.end(l, now))
	}

	if l.attempt == nil {
		r.wait(l, l.term.Sent.Add(l.interval()))
	}
}

// notice is a call of [Holder.Renewed].
type notice struct {
	holder    Holder
	expiresAt time.Time
	left      time.Duration
}

func (r *Renewer) notify(notices []notice) {
	r.calls = append(r.calls, func() {
		for _, n := range notices {
			n.holder.Renewed(n.expiresAt, n.left)
		}
	})
}

// extend begins a new term. The caller moves the lease to where that ends.
func (r *Renewer) extend(l *Lease, result store.RenewResult, sent, now time.Time) notice {
	left := l.term.Left(now)
	l.term = Term{Sent: sent, TTL: l.term.TTL, Margin: l.term.Margin}.Shown(result.Lease)

	l.failures, l.lastErr, l.locked, l.asked, l.party = 0, nil, false, nil, 0
	r.calm(l)

	return notice{l.Holder, result.ExpiresAt, left}
}

// busy notes that another transaction has the row locked. A guarded transaction does that now
// and then: it is no trouble while half of the term is left. If an earlier attempt was under way, the
// transaction may be its own, which is no cause of a loss.
func (r *Renewer) busy(l *Lease, current bool, now time.Time) {
	if current {
		l.failures++

		if l.alone {
			l.locked, l.lastErr = true, nil
		}

		r.wait(l, now.Add(l.retryDelay()))
	}

	if !l.locked || l.term.Left(now) >= l.term.usable()/2 {
		return
	}

	r.trouble(l, now)
	r.calls = append(r.calls, l.Holder.Locked)
}
