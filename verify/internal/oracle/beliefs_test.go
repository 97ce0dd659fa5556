package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

func TestBeliefs(t *testing.T) {
	t.Parallel()

	// lease is one taken by hand, which ends by its holder's own count.
	lease := func(client string, from, to, token int64) *history.Operation {
		o := granted(client, history.Acquire, from, to, token)
		o.Until = (from + ttl) * ms

		return o
	}
	refreshed := func(client string, from, to, generation, token int64) *history.Operation {
		o := granted(client, history.Refresh, from, to, token)
		o.Generation, o.Until = generation, (from+ttl)*ms

		return o
	}
	relocked := func(from, to, token int64, outcome history.Outcome) *history.Operation {
		return op("c1.1", history.Relock, from, to, history.Event{Generation: token, Outcome: outcome})
	}
	lost := func(client string, at, token int64) history.Event {
		return note(client, history.Lost, at, history.Event{Lock: "a", Token: token})
	}
	stall := func(client string, from, to int64) history.Event {
		return note(client, history.Stall, to, history.Event{From: from * ms})
	}
	shared := func(o *history.Operation) *history.Operation {
		o.Lock = traffic.Shared.ID

		return o
	}

	hold1 := granted("c1.1", history.Lock, 0, 1, 2)

	for _, test := range []struct {
		name  string
		ops   []*history.Operation
		notes []history.Event
		want  string
	}{
		{name: "unlocked before the next", ops: []*history.Operation{
			hold1, freed("c1.1", history.Unlock, 10, 12, 2), granted("c2.1", history.Lock, 3, 11, 3),
		}},
		{name: "held while the next begins", ops: []*history.Operation{
			hold1, freed("c1.1", history.Unlock, 10, 12, 2), granted("c2.1", history.Lock, 3, 9, 3),
		}, want: "two believe"},
		{name: "never given up", ops: []*history.Operation{
			hold1, granted("c2.1", history.TryLock, 500, 501, 3),
		}, want: "two believe"},
		{name: "covered by one that is longer", ops: []*history.Operation{
			hold1, freed("c1.1", history.Leave, 90, 91, 2),
			granted("c2.1", history.Lock, 95, 96, 3), freed("c2.1", history.Unlock, 97, 98, 3),
			granted("c3.1", history.Lock, 89, 89, 4),
		}, want: "two believe"},
		{name: "told of the loss in time", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 80, 3),
		}, notes: []history.Event{lost("c1.1", 79, 2)}},
		{name: "told too late", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 80, 3),
		}, notes: []history.Event{lost("c1.1", 81, 2)}, want: "two believe"},
		{name: "told of another token", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 80, 3),
		}, notes: []history.Event{lost("c1.1", 79, 1)}, want: "two believe"},
		{name: "killed", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 80, 3),
		}, notes: []history.Event{note("coordinator", history.Killed, 50, history.Event{Detail: "c1.1"})}},
		{name: "stopped, and then killed", ops: []*history.Operation{
			hold1, granted("c1.1", history.TryLock, 30, 31, 9), granted("c2.1", history.Lock, 60, 101, 3),
		}, notes: []history.Event{note("coordinator", history.Killed, 300, history.Event{Detail: "c1.1"})}},
		{name: "stopped, and killed as it went on", ops: []*history.Operation{
			hold1, op("c1.1", history.Get, 30, 31, history.Event{}), op("c1.1", history.Get, 300, 0, history.Event{}),
			granted("c2.1", history.Lock, 60, 101, 3),
		}, notes: []history.Event{note("coordinator", history.Killed, 302, history.Event{Detail: "c1.1"})}},
		{name: "killed while it worked", ops: []*history.Operation{
			hold1, op("c1.1", history.Get, 98, 99, history.Event{}), granted("c2.1", history.Lock, 60, 80, 3),
		}, notes: []history.Event{note("coordinator", history.Killed, 100, history.Event{Detail: "c1.1"})}, want: "two believe"},
		{name: "stopped again before it was told", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 130, 3),
		}, notes: []history.Event{stall("c1.1", 100, 120), stall("c1.1", 160, 200), lost("c1.1", 210, 2)}},
		{name: "stopped again, and awake for long between", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 130, 3),
		}, notes: []history.Event{stall("c1.1", 80, 100), stall("c1.1", 160, 200), lost("c1.1", 210, 2)}, want: "two believe"},
		{name: "stopped beyond the lease, and told when it went on", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 101, 3),
		}, notes: []history.Event{stall("c1.1", 40, 300), lost("c1.1", 301, 2)}},
		{name: "stopped, and still not told long after", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 101, 3),
		}, notes: []history.Event{stall("c1.1", 40, 300), lost("c1.1", 400, 2)}, want: "two believe"},
		{name: "stopped before it said that it was granted", ops: []*history.Operation{
			granted("c1.1", history.Lock, 0, 301, 2), freed("c1.1", history.Unlock, 310, 311, 2), granted("c2.1", history.Lock, 60, 101, 3),
		}, notes: []history.Event{stall("c1.1", 40, 300)}},
		{name: "stopped before it said that it was granted, and then held for long", ops: []*history.Operation{
			granted("c1.1", history.Lock, 0, 301, 2), freed("c1.1", history.Unlock, 360, 361, 2), granted("c2.1", history.Lock, 60, 101, 3),
		}, notes: []history.Event{stall("c1.1", 40, 300)}, want: "two believe"},
		{name: "stopped before it asked", ops: []*history.Operation{
			granted("c1.1", history.Lock, 300, 301, 2), freed("c1.1", history.Unlock, 310, 311, 2), granted("c2.1", history.Lock, 60, 101, 3),
		}, notes: []history.Event{stall("c1.1", 40, 300)}, want: "two believe"},
		{name: "another was stopped", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 101, 3),
		}, notes: []history.Event{stall("c3.1", 40, 300), lost("c1.1", 301, 2)}, want: "two believe"},
		{name: "a lease that has ended", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), lease("c2.1", 99, 101, 3),
		}},
		{name: "a lease that has not", ops: []*history.Operation{
			lease("c1.1", 2, 3, 2), lease("c2.1", 99, 101, 3),
		}, want: "two believe"},
		{name: "a lease that was released", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), freed("c1.1", history.Release, 10, 12, 2), lease("c2.1", 10, 11, 4),
		}},
		{name: "a lease that was refreshed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), refreshed("c1.1", 50, 51, 2, 3), lease("c2.1", 120, 121, 4),
		}, want: "two believe"},
		{name: "a lease that was kept alive", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(2, 300, 2, history.OK), lease("c2.1", 200, 201, 4),
		}, want: "two believe"},
		{name: "a relocker that was told to stop", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(2, 300, 2, history.OK), lease("c2.1", 200, 201, 4),
		}, notes: []history.Event{lost("c1.1", 200, 2)}},
		{name: "a relocker that never renewed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(50, 148, 2, history.OutcomeLost), lease("c2.1", 101, 102, 4),
		}},
		{name: "the clock was set ahead meanwhile", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 80, 3),
		}, notes: []history.Event{set(50, 51, 200)}},
		{name: "the clock was set ahead before", ops: []*history.Operation{
			granted("c1.1", history.Lock, 100, 101, 2), granted("c2.1", history.Lock, 160, 180, 3),
		}, notes: []history.Event{set(20, 21, 200)}, want: "two believe"},
		{name: "the clock was set ahead, and the lease was renewed since", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 400, 480, 3),
		}, notes: []history.Event{set(50, 51, 200)}, want: "two believe"},
		{name: "the clock was set ahead afterwards", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 80, 3),
		}, notes: []history.Event{set(82, 83, 200)}, want: "two believe"},
		{name: "the clock was set ahead before the reply to the earlier grant", ops: []*history.Operation{
			granted("c1.1", history.Lock, 0, 90, 2), granted("c2.1", history.Lock, 75, 80, 3),
		}, notes: []history.Event{set(20, 21, 200)}},
		{name: "the clock was set ahead only before the reply to the earlier grant", ops: []*history.Operation{
			granted("c1.1", history.Lock, 0, 190, 2), granted("c2.1", history.Lock, 60, 80, 3),
		}, notes: []history.Event{set(182, 183, 200)}, want: "two believe"},
		{name: "the clock was set back meanwhile", ops: []*history.Operation{
			hold1, granted("c2.1", history.Lock, 60, 80, 3),
		}, notes: []history.Event{set(50, 51, -200)}, want: "two believe"},
		{name: "the clock was set back, and some way ahead again", ops: []*history.Operation{
			granted("c1.1", history.Lock, 100, 101, 2), granted("c2.1", history.Lock, 260, 280, 3),
		}, notes: []history.Event{set(20, 21, -200), set(220, 221, -100)}},
		{name: "a relocker that was told to stop before it renewed, and could not release", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(120, 400, 2, history.Unknown), lease("c2.1", 101, 102, 4),
		}, notes: []history.Event{lost("c1.1", 190, 2)}},
		{name: "a relocker that was told to stop when it must have renewed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(20, 400, 2, history.Unknown), lease("c2.1", 101, 102, 4),
		}, notes: []history.Event{lost("c1.1", 190, 2)}, want: "two believe"},
		{name: "a relocker that was stopped, and never renewed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(2, 300, 2, history.OutcomeLost), lease("c2.1", 101, 102, 4),
		}, notes: []history.Event{stall("c1.1", 110, 290)}},
		{name: "a relocker that was stopped when it must have renewed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(2, 400, 2, history.OutcomeLost), lease("c2.1", 101, 102, 4),
		}, notes: []history.Event{stall("c1.1", 160, 340)}, want: "two believe"},
		{name: "a relocker that was stopped within the first lease, and must have renewed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(2, 180, 2, history.OutcomeLost), lease("c2.1", 101, 102, 4),
		}, notes: []history.Event{stall("c1.1", 55, 95)}, want: "two believe"},
		{name: "a relocker that was stopped as it began, and never renewed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(2, 180, 2, history.OutcomeLost), lease("c2.1", 101, 102, 4),
		}, notes: []history.Event{stall("c1.1", 5, 75)}},
		{name: "a relocker whose client was stopped once, and killed when it must have renewed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(2, 0, 2, history.Unknown), lease("c2.1", 101, 102, 4),
			op("c1.1", history.Get, 99, 100, history.Event{}), op("c1.1", history.Get, 290, 370, history.Event{}),
		}, notes: []history.Event{
			stall("c1.1", 110, 290), note("coordinator", history.Killed, 420, history.Event{Detail: "c1.1"}),
		}, want: "two believe"},
		{name: "a relocker that was killed before it renewed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(20, 0, 2, history.Unknown), lease("c2.1", 101, 102, 4),
		}, notes: []history.Event{note("coordinator", history.Killed, 150, history.Event{Detail: "c1.1"})}},
		{name: "a relocker that was killed when it must have renewed", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(20, 0, 2, history.Unknown), lease("c2.1", 101, 102, 4),
			op("c1.1", history.Get, 100, 101, history.Event{}), op("c1.1", history.Get, 180, 189, history.Event{}),
		}, notes: []history.Event{note("coordinator", history.Killed, 190, history.Event{Detail: "c1.1"})}, want: "two believe"},
		{name: "a relocker that released what another had", ops: []*history.Operation{
			lease("c1.1", 0, 1, 2), relocked(50, 140, 2, history.OK), lease("c2.1", 101, 102, 4),
		}, want: "two believe"},
		{name: "nobody believes in the shared lock", ops: []*history.Operation{
			shared(lease("c1.1", 0, 1, 2)), shared(lease("c2.1", 2, 3, 3)),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := run(test.ops...)
			r.History.Notes = test.notes
			wantOnly(t, oracle.CheckBeliefs(r), oracle.Beliefs, test.want)
		})
	}
}
