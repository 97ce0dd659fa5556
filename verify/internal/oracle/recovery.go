package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

const (
	// recoverWithin is how much longer than a lease, or than a holder's tenure, recovery may take
	// once nothing is broken any more: a poll, and what a busy machine adds.
	recoverWithin = time.Second
	// renewWithin is how long it may take until a client has held a lock by renewals for longer
	// than a lease. While connections are opened anew everywhere, two of its leases may be lost
	// before, each with the time that it was held.
	renewWithin = 2*traffic.MaxTenure + recoverWithin
	// wakeWithinOnceHealed is how long a lock may be free while a client waits for it that has
	// missed a notification: about four seconds (docs/guarantees.md), and recoverWithin.
	wakeWithinOnceHealed = 5 * time.Second
	// lookAtWaiters is how long a run goes on to see whether a waiter is forgotten. On a busy machine
	// the lock is held for nearly half of the time.
	lookAtWaiters = 2 * wakeWithinOnceHealed
)

// Recovery is the part of O6 about the clients' own Lockers, for G7: what they have to do once
// nothing is broken any more. It is told what happens from that moment on.
type Recovery struct {
	healed    history.Event
	clients   []string
	contended []traffic.Spec

	// granted, renewed and served are when each client first was granted a lock, had held one for
	// longer than its lease, and was granted the lock for which it waits without a limit. taken is
	// when each lock was first granted.
	granted, renewed, served, taken map[string]int64
	// kept are the locks of which a release failed. Their lease may run to its end.
	kept map[string]bool
	// since is when tenures began.
	since map[tenure]int64
	// stalled is for how long each client didn't run.
	stalled map[string]int64
}

// NewRecovery begins with the note that all is healed. The extras are what the clients do
// besides.
func NewRecovery(healed history.Event, extras traffic.Extras) *Recovery {
	return &Recovery{
		healed: healed, clients: strings.Fields(healed.Detail), contended: extras.Contended(),
		granted: make(map[string]int64), renewed: make(map[string]int64), served: make(map[string]int64),
		taken: make(map[string]int64), kept: make(map[string]bool), since: make(map[tenure]int64), stalled: make(map[string]int64),
	}
}

// See takes what one client wrote down, in its order.
func (r *Recovery) See(e history.Event) {
	if e.At <= r.healed.At {
		return
	}

	switch {
	case e.Phase == history.Return && e.Kind.Grants() && e.Outcome == history.OK:
		first(r.granted, e.Client, e.At)
		first(r.taken, e.Lock, e.At)
		first(r.taken, e.Family, e.At)

		if e.Lock == traffic.Relay.ID {
			first(r.served, e.Client, e.At)
		}

		r.since[tenure{e.Client, e.Lock, e.Token}] = e.At
	case e.Phase == history.Return && e.Kind.Frees() && e.Outcome == history.Unknown:
		r.kept[e.Lock], r.kept[e.Family] = true, true
	case e.Kind == history.Lost:
		delete(r.since, tenure{e.Client, e.Lock, e.Token})
	case e.Phase == history.Invoke && e.Kind == history.Unlock:
		began, held := r.since[tenure{e.Client, e.Lock, e.Generation}]
		if held && e.At-began > e.TTL {
			first(r.renewed, e.Client, e.At)
		}
	case e.Kind == history.Stall:
		r.stalled[e.Client] += e.At - max(e.From, r.healed.At)
	}
}

func first(times map[string]int64, of string, at int64) {
	if _, ok := times[of]; !ok {
		times[of] = at
	}
}

// want is something that has to happen until some moment.
type want struct {
	lock, what string
	// at is when it happened, 0 if it didn't.
	at, by int64
}

func (w want) broken() bool { return w.at == 0 || w.at > w.by }

// wants lists what has to happen, except for what the audit has to tell of waiters.
func (r *Recovery) wants() []want {
	var all []want

	for _, client := range r.clients {
		all = append(all, want{
			"", client + " was granted no lock in time once all was healed",
			r.granted[client], r.by(traffic.MaxTTL+recoverWithin, client),
		}, want{
			"", client + " held no lock for longer than its lease in time once all was healed",
			r.renewed[client], r.by(renewWithin, client),
		})
	}

	for _, lock := range r.contended {
		within := traffic.MaxTenure + recoverWithin
		if r.kept[lock.ID] {
			within += lock.TTL
		}

		all = append(all, want{
			lock.ID, "granted to no client in time once all was healed", r.taken[lock.ID], r.by(within, r.clients...),
		})
	}

	return all
}

// by is the end of a time that begins with the healing. It is longer by the time in which one of
// the clients didn't run.
func (r *Recovery) by(d time.Duration, clients ...string) int64 {
	var stalled int64
	for _, client := range clients {
		stalled = max(stalled, r.stalled[client])
	}

	return r.healed.At + r.healed.Value + int64(d) + stalled
}

// Over reports whether the run may end: everything has happened, or its time is over.
func (r *Recovery) Over(now int64) bool {
	waiting := r.wants()
	for _, client := range r.clients {
		waiting = append(waiting, want{at: r.served[client], by: r.by(lookAtWaiters, client)})
	}

	return !slices.ContainsFunc(waiting, func(w want) bool { return w.at == 0 && now <= w.by })
}

// CheckRecovery judges what a Recovery was told, and the waiters.
func CheckRecovery(run *Run) []Violation {
	var r *Recovery

	for _, e := range run.History.Notes {
		if e.Kind == history.Healed { // again, where something broke by itself after that
			r = NewRecovery(e, run.Extras)
		}
	}

	if r == nil {
		return nil
	}

	for _, e := range eventsOf(run.History) {
		r.See(e)
	}

	var violations []Violation

	for _, w := range r.wants() {
		if w.broken() {
			violations = append(violations, Violation{Healing, w.lock, w.what, []string{
				fmt.Sprintf("healed at %d, to be seen until %d, seen at %d", r.healed.At, w.by, w.at),
			}})
		}
	}

	return append(violations, r.checkWaiters(run)...)
}

// checkWaiters looks for clients that wait once all is healed, and aren't granted a lock that is
// free. Others may have it in between: a client that is woken, or looks, would have it sooner.
func (r *Recovery) checkWaiters(run *Run) []Violation {
	var violations []Violation

	free := make(map[string][]window)
	for _, f := range freeTimes(run) {
		free[f.before.Lock] = append(free[f.before.Lock], f.window)
	}

	for _, op := range run.History.Operations {
		if !op.Waits || op.End == history.Never || !slices.Contains(r.clients, op.Client) {
			continue
		}

		if op.Request != 0 && op.Request != op.Op {
			continue // judged with the first of its request
		}

		from := max(op.Call, r.healed.At)
		wasted := -stalledIn(run, op.Client, window{from, op.End})

		for _, f := range freeFor(run, free, op) {
			wasted += max(0, min(op.End, f.to)-max(from, f.from))
		}

		if wasted > int64(wakeWithinOnceHealed) {
			violations = append(violations, Violation{
				Healing, op.Lock,
				fmt.Sprintf("free for %s while somebody waited, once all was healed", time.Duration(wasted)),
				describe(r.healed, op),
			})
		}
	}

	return violations
}

// eventsOf takes a history apart again.
func eventsOf(h *history.History) []history.Event {
	events := slices.Clone(h.Notes)

	for _, op := range h.Operations {
		invoke := op.Event
		invoke.Phase, invoke.At = history.Invoke, op.Call
		events = append(events, invoke)

		if op.End != history.Never {
			answer := op.Event
			answer.Phase, answer.At = history.Return, op.End
			events = append(events, answer)
		}
	}

	slices.SortStableFunc(events, func(a, b history.Event) int { return cmp.Compare(a.At, b.At) })

	return events
}
