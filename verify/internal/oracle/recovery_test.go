package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// healedAt is when all is healed in the histories here, in milliseconds.
const healedAt = int64(1000)

func healed(clients string, behind int64) history.Event {
	return note("coordinator", history.Healed, healedAt, history.Event{Detail: clients, Value: behind * ms})
}

// on moves an operation to another lock.
func on(lock string, o *history.Operation) *history.Operation {
	o.Lock = lock

	return o
}

// steadyTenure is one of a client that holds a lock of its own from one moment to another.
func steadyTenure(client string, from, to, token int64) []*history.Operation {
	lock := "steady-" + client

	return []*history.Operation{
		on(lock, granted(client, history.Lock, from-1, from, token)),
		on(lock, freed(client, history.Unlock, to, to+1, token)),
	}
}

// failedRelease is one of the first contended lock, whose TTL is 300 ms.
func failedRelease(at int64) []*history.Operation {
	return []*history.Operation{
		on((traffic.Extras{}).Contended()[0].ID, op("c2.1", history.Unlock, at-9, at, history.Event{Outcome: history.Unknown, Generation: 9})),
	}
}

// everything is what one client does when all is well: it is granted each contended lock at
// that moment.
func everything(client string, at int64) []*history.Operation {
	var ops []*history.Operation
	for _, lock := range (traffic.Extras{}).Contended() {
		ops = append(ops,
			on(lock.ID, granted(client, history.TryLock, at-1, at, 2)), on(lock.ID, freed(client, history.Unlock, at, at+1, 2)))
	}

	return ops
}

func TestRecovery(t *testing.T) {
	t.Parallel()

	concat := func(lists ...[]*history.Operation) (all []*history.Operation) {
		for _, list := range lists {
			all = append(all, list...)
		}

		return all
	}

	well := everything("c1.1", 1200)

	for _, test := range []struct {
		name  string
		ops   []*history.Operation
		notes []history.Event
		want  string
	}{
		{name: "nothing was broken", notes: []history.Event{note("c1.1", history.Stall, 1, history.Event{})}},
		{
			name: "all is well", ops: concat(well, steadyTenure("c1.1", 1100, 1201, 2)),
			notes: []history.Event{healed("c1.1", 0)},
		},
		{
			name: "granted nothing any more", ops: concat(well, steadyTenure("c1.1", 1100, 1201, 2), steadyTenure("c2.1", 700, 990, 2)),
			notes: []history.Event{healed("c1.1 c2.1", 0)}, want: "c2.1",
		},
		{
			name: "granted too late", ops: concat(well, steadyTenure("c1.1", 1100, 1201, 2), steadyTenure("c2.1", 3501, 3700, 2)),
			notes: []history.Event{healed("c1.1 c2.1", 0)}, want: "c2.1",
		},
		{
			name: "leases last for longer", ops: concat(well, steadyTenure("c1.1", 1100, 1201, 2), steadyTenure("c2.1", 3501, 3700, 2)),
			notes: []history.Event{healed("c1.1 c2.1", 300)},
		},
		{
			name: "stopped meanwhile", ops: concat(well, steadyTenure("c1.1", 1100, 1201, 2), steadyTenure("c2.1", 3501, 3700, 2)),
			notes: []history.Event{healed("c1.1 c2.1", 0), note("c2.1", history.Stall, 1400, history.Event{From: 500 * ms})},
		},
		{
			name: "another was stopped meanwhile", ops: concat(well, steadyTenure("c1.1", 1100, 1201, 2), steadyTenure("c2.1", 3501, 3700, 2)),
			notes: []history.Event{healed("c1.1 c2.1", 0), note("c1.1", history.Stall, 1400, history.Event{From: 500 * ms})}, want: "c2.1",
		},
		{
			name: "one that was killed before", ops: concat(well, steadyTenure("c1.1", 1100, 1201, 2), steadyTenure("c2.1", 700, 990, 2)),
			notes: []history.Event{note("coordinator", history.Killed, 995, history.Event{Detail: "c2.1"}), healed("c1.1", 0)},
		},
		{
			name: "never held for longer than a lease", ops: concat(well, steadyTenure("c1.1", 1100, 1199, 2)),
			notes: []history.Event{healed("c1.1", 0)}, want: "held no lock for longer",
		},
		{
			name: "held for longer than a lease in time", ops: concat(well, steadyTenure("c1.1", 7850, 7999, 2)),
			notes: []history.Event{healed("c1.1", 0)},
		},
		{
			name: "held for longer than a lease too late", ops: concat(well, steadyTenure("c1.1", 7850, 8001, 2)),
			notes: []history.Event{healed("c1.1", 0)}, want: "held no lock for longer",
		},
		{
			name: "broken once more by itself",
			ops:  concat(well, everything("c1.1", 1250), steadyTenure("c1.1", 7850, 8001, 2)),
			notes: []history.Event{
				healed("c1.1", 0), note("coordinator", history.Healed, 1100, history.Event{Detail: "c1.1"}),
			},
		},
		{
			name: "not recovered after that",
			ops:  concat(well, steadyTenure("c1.1", 1100, 1201, 2), everything("c1.1", 1350)),
			notes: []history.Event{
				healed("c1.1", 0), note("coordinator", history.Healed, 1300, history.Event{Detail: "c1.1"}),
			},
			want: "held no lock for longer",
		},
		{
			name: "lost before", ops: concat(well, steadyTenure("c1.1", 1100, 1201, 2)),
			notes: []history.Event{
				healed("c1.1", 0), note("c1.1", history.Lost, 1190, history.Event{Lock: "steady-c1.1", Token: 2}),
			},
			want: "held no lock for longer",
		},
		{
			name: "held since before", ops: concat(well, steadyTenure("c1.1", 900, 1201, 2)),
			notes: []history.Event{healed("c1.1", 0)}, want: "held no lock for longer",
		},
		{
			name: "a lock that nobody is granted", ops: concat(well[2:], steadyTenure("c1.1", 1100, 1201, 2)),
			notes: []history.Event{healed("c1.1", 0)}, want: "granted to no client",
		},
		{
			name: "a lock that is granted after the longest tenure", notes: []history.Event{healed("c1.1", 0)},
			ops: concat(well[2:], everything("c1.1", 4999)[:2], steadyTenure("c1.1", 1100, 1201, 2)),
		},
		{
			name: "a lock that is granted later", notes: []history.Event{healed("c1.1", 0)},
			ops:  concat(well[2:], everything("c1.1", 5001)[:2], steadyTenure("c1.1", 1100, 1201, 2)),
			want: "granted to no client",
		},
		{
			name: "after the lease that a failed release left", notes: []history.Event{healed("c1.1", 0)},
			ops: concat(well[2:], failedRelease(4900), everything("c1.1", 5299)[:2], steadyTenure("c1.1", 1100, 1201, 2)),
		},
		{
			name: "later than that", notes: []history.Event{healed("c1.1", 0)},
			ops:  concat(well[2:], failedRelease(4900), everything("c1.1", 5301)[:2], steadyTenure("c1.1", 1100, 1201, 2)),
			want: "granted to no client",
		},
		{
			name: "a release that had failed before", notes: []history.Event{healed("c1.1", 0)},
			ops:  concat(well[2:], failedRelease(990), everything("c1.1", 5001)[:2], steadyTenure("c1.1", 1100, 1201, 2)),
			want: "granted to no client",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := run(test.ops...)
			r.History.Notes = test.notes
			wantOnly(t, oracle.CheckRecovery(r), oracle.Healing, test.want)
		})
	}
}

// TestRecoveryOfWaiters: a waiter is answered before the lock was free for five seconds, in all.
func TestRecoveryOfWaiters(t *testing.T) {
	t.Parallel()

	held := change{"c1.1", 0, heldFrom("c1.1", 0, 2)}

	for _, test := range []struct {
		name     string
		from, to int64
		client   string
		audit    []change
		want     string
	}{
		{name: "since before, and it is free", from: 10, to: 6200, client: "c2.1", audit: []change{held}, want: "free for 5.2s"},
		{name: "since after, and it is free", from: 1100, to: 6200, client: "c2.1", audit: []change{held}, want: "free for 5.1s"},
		{name: "no longer than it may", from: 10, to: 5900, client: "c2.1", audit: []change{held}},
		{name: "free before it was healed", from: 10, to: 6000, client: "c2.1", audit: []change{
			held, {"c1.1", 1500, heldFrom("c1.1", 1500, 3)},
		}},
		{name: "free for long, now and then", from: 10, to: 7000, client: "c2.1", audit: []change{
			held, {"c1.1", 3000, heldFrom("c1.1", 3000, 3)}, {"c1.1", 5000, heldFrom("c1.1", 5000, 4)},
		}, want: "free for 5."},
		{name: "killed", from: 10, to: 6200, client: "c3.1", audit: []change{held}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			waiter := op(test.client, history.Lock, test.from, test.to, history.Event{Waits: true, Outcome: history.Refused})
			r := run(append(append(everything("c1.1", 1200), waiter), append(
				steadyTenure("c1.1", 1100, 1300, 2), steadyTenure("c2.1", 1100, 1300, 2)...)...)...)
			r.History.Notes = []history.Event{healed("c1.1 c2.1", 0)}
			r.Audit = chain(test.audit...)
			wantOnly(t, oracle.CheckRecovery(r), oracle.Healing, test.want)
		})
	}
}

// TestRecoveryIsOver: a run needn't go on when all has happened, nor when it is too late.
func TestRecoveryIsOver(t *testing.T) {
	t.Parallel()

	r := oracle.NewRecovery(healed("c1.1", 0), traffic.Extras{})
	over := func(at int64, want bool) {
		t.Helper()

		if got := r.Over(at * ms); got != want {
			t.Errorf("over at %d: %t, want %t", at, got, want)
		}
	}
	see := func(ops []*history.Operation) {
		for _, o := range ops {
			for phase, at := range map[history.Phase]int64{history.Invoke: o.Call, history.Return: o.End} {
				e := o.Event
				e.Phase, e.At = phase, at
				r.See(e)
			}
		}
	}

	over(1001, false)
	over(20_000, true)
	see(everything("c1.1", 1200))
	over(1400, false)
	see(steadyTenure("c1.1", 1100, 1350, 2))
	over(1400, true)
}
