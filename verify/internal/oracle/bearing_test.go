package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// bearing is a run in which the library has to bear what is done.
func bearing(notes []history.Event, ops ...*history.Operation) *oracle.Run {
	r := run(ops...)
	r.History.Notes = notes
	r.Bears = &oracle.Bears{Refusals: []string{"55P03"}}

	return r
}

// TestBearing: a fault that leaves a lock alone costs no client the lock, ends no wait before its
// time, and keeps no holder from releasing.
func TestBearing(t *testing.T) {
	t.Parallel()

	lease := func(ttl int64, o *history.Operation) *history.Operation {
		o.TTL = ttl * ms

		return o
	}
	long := func() *history.Operation { return lease(2000, granted("c1.1", history.Lock, 9, 11, 2)) }
	short := func() *history.Operation { return lease(1900, granted("c1.1", history.Lock, 9, 11, 2)) }
	loss := func(at int64, why string) history.Event {
		return note("c1.1", history.Lost, at, history.Event{Lock: "a", Token: 2, Detail: why})
	}
	refusedRow := func(lock string, from, to int64) history.Event {
		return note("coordinator", history.RowRefused, to, history.Event{Detail: lock, From: from * ms})
	}
	stall := func(client string, from int64) history.Event {
		return note(client, history.Stall, 2400, history.Event{From: from * ms})
	}
	refused := func(kind history.Kind, from, to int64, e history.Event) *history.Operation {
		e.Outcome = history.Refused
		if e.Detail == "" {
			e.Detail = "ERROR: canceling statement due to lock timeout (SQLSTATE 55P03)"
		}

		return op("c1.1", kind, from, to, e)
	}
	unlock := func(to, limit int64) *history.Operation {
		return op("c1.1", history.Unlock, 50, to, history.Event{Outcome: history.Unknown, Generation: 2, Limit: limit * ms})
	}
	// leased says that the client knew, when it unlocked, until when its lease lasts.
	leased := func(r *oracle.Run, until int64) *oracle.Run {
		r.History.Renewals = append(r.History.Renewals, note("c1.1", history.Renewed, 49, history.Event{
			Lock: "a", Token: 2, Expires: until * us,
		}))

		return r
	}

	const lost = "pglocker: lock lost: no renewal of \"a\" was acknowledged in time"

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
	}{
		{"lost", bearing([]history.Event{loss(2500, lost)}, long()), "lost by nothing"},
		{"lost, and nothing is said of this run", &oracle.Run{History: &history.History{
			Operations: []*history.Operation{long()}, Notes: []history.Event{loss(2500, lost)},
		}}, ""},
		{"unlocked", bearing([]history.Event{loss(2500, "context canceled")}, long()), ""},
		{"a lease that is short", bearing([]history.Event{loss(2500, lost)}, short()), ""},
		{"its own row was refused", bearing([]history.Event{refusedRow("a", 1700, 1800), loss(2500, lost)}, long()), ""},
		{"its own row was refused before that lease", bearing([]history.Event{refusedRow("a", 300, 400), loss(2500, lost)}, long()), "lost by nothing"},
		{"another's row was refused", bearing([]history.Event{refusedRow("b", 1700, 1800), loss(2500, lost)}, long()), "lost by nothing"},
		{"its client didn't run", bearing([]history.Event{stall("c1.1", 1800), loss(2500, lost)}, long()), ""},
		{"its client didn't run for a short time", bearing([]history.Event{stall("c1.1", 2000), loss(2500, lost)}, long()), "lost by nothing"},
		{"another client didn't run", bearing([]history.Event{stall("c2.1", 1800), loss(2500, lost)}, long()), "lost by nothing"},

		{"a wait that was refused", bearing(nil, refused(history.Lock, 10, 310, history.Event{Waits: true, Limit: 1000 * ms})), "would have passed"},
		{"a wait whose context had ended", bearing(nil, refused(history.Lock, 10, 310, history.Event{Waits: true, Limit: 302 * ms})), ""},
		{"a wait whose time was over", bearing(nil, refused(history.TryLock, 10, 310, history.Event{Waits: true, Wait: 300 * ms})), ""},
		{"a wait that the run's end ended", bearing(nil, refused(history.Lock, 10, 310, history.Event{Waits: true, Detail: "nothing was sent: context canceled"})), ""},
		{"a wait for a lock whose row was refused", bearing([]history.Event{refusedRow("a", 300, 400)}, refused(history.Lock, 10, 310, history.Event{Waits: true})), ""},
		{"made once, and refused as it may be", bearing(nil, refused(history.Acquire, 10, 310, history.Event{Limit: 1000 * ms})), ""},
		{"made once, and refused by something else", bearing(nil, refused(history.Acquire, 10, 310, history.Event{Detail: "25006"})), "would have passed"},
		{"the application's own guard", bearing(nil, refused(history.Guard, 10, 310, history.Event{Detail: "25006"})), ""},

		{"given up while the lease ran", leased(bearing(nil, unlock(60, 2000)), 900), "given up to release"},
		{"given up at the end of the lease", leased(bearing(nil, unlock(890, 2000)), 900), ""},
		{"given up when the context ended", leased(bearing(nil, unlock(60, 12)), 900), ""},
		{"given up, and its own row was refused", leased(bearing([]history.Event{refusedRow("a", 40, 70)}, unlock(60, 2000)), 900), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			wantOnly(t, oracle.CheckBearing(test.run), oracle.Bearing, test.want)
		})
	}

	busy := bearing([]history.Event{loss(2500, lost)}, long())
	busy.Bears = &oracle.Bears{Cause: "this row is refused"}
	wantOnly(t, oracle.CheckBearing(busy), oracle.Bearing, "")

	told := bearing([]history.Event{loss(2500, lost+": ERROR: this row is refused")}, long())
	told.Bears = busy.Bears
	wantOnly(t, oracle.CheckBearing(told), oracle.Bearing, "lost by nothing")

	held := bearing([]history.Event{loss(2500, lost)}, long())
	held.Bears = &oracle.Bears{Losses: true}
	wantOnly(t, oracle.CheckBearing(held), oracle.Bearing, "")
}
