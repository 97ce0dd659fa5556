package oracle_test

import (
	"fmt"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// audited is a run whose audit is known.
func audited(transitions []*audit.Transition, ops ...*history.Operation) *oracle.Run {
	r := run(ops...)
	r.Audit = transitions

	return r
}

func crashed(r *oracle.Run, from, to int64) *oracle.Run {
	r.History.Notes = append(r.History.Notes, note("coordinator", history.Crash, to, history.Event{From: from * ms}))

	return r
}

func renewed(v audit.Version, at int64) audit.Version {
	v.Expires = (at + ttl) * us

	return v
}

func unknown(client string, kind history.Kind, from, to int64) *history.Operation {
	return op(client, kind, from, to, history.Event{Outcome: history.Unknown})
}

// attempt is the row after a grant to an attempt of the first client's request.
func attempt(at, token int64, request string, n int) audit.Version {
	v := heldFrom("c1.1", at, token)
	v.Owner = owner("c1.1", request)

	if n > 0 {
		v.Owner = fmt.Sprintf("%s-%d", v.Owner, n)
	}

	return v
}

// besideB adds the third named grant of the client, of another lock, which was under way
// from one moment to another.
func besideB(r *oracle.Run, from, to int64) *oracle.Run {
	t := chain(change{"c1.1", from, heldFrom("c1.1", from, 3)})[0]
	o := granted("c1.1", history.Acquire, from, to, 3)
	t.Lock, o.Lock = "b", "b"
	r.Audit, r.History.Operations = append(r.Audit, t), append(r.History.Operations, o)

	return r
}

// asked is a request that names a generation, early enough for everything that comes of it.
func asked(client string, kind history.Kind, outcome history.Outcome, generation int64) *history.Operation {
	return op(client, kind, 12, 60, history.Event{Outcome: outcome, Generation: generation})
}

func TestSettle(t *testing.T) {
	t.Parallel()

	var (
		first  = change{"c1.1", 10, heldFrom("c1.1", 10, 2)}
		freed3 = change{"c1.1", 20, freeSince(20, 3)}
		second = change{"c2.1", 30, heldFrom("c2.1", 30, 4)}

		grant1  = granted("c1.1", history.Acquire, 9, 11, 2)
		held1   = granted("c1.1", history.Lock, 9, 11, 2)
		free1   = freed("c1.1", history.Release, 19, 21, 2)
		grant2  = granted("c2.1", history.Lock, 5, 31, 4)
		minimum = op("c1.1", history.Unlock, 19, 21, history.Event{Outcome: history.OK, Generation: 2, MinHold: 50 * ms})
	)

	onShared := func(r *oracle.Run) *oracle.Run {
		for _, t := range r.Audit {
			t.Lock = traffic.Shared.ID
		}

		for _, o := range r.History.Operations {
			o.Lock = traffic.Shared.ID
		}

		return r
	}

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
	}{
		{"granted, released, granted", audited(chain(first, freed3, second), grant1, free1, grant2), ""},
		{"renewed", audited(chain(first, change{"c1.1", 50, renewed(first.row, 50)}), held1), ""},
		{"renewed by a statement that came before the end", audited(chain(first, change{"c1.1", 110, renewed(first.row, 110)}), held1), ""},
		{"renewed after the end", audited(chain(first, change{"c1.1", 112, renewed(first.row, 112)}), held1), "that was over was renewed"},
		{"renewed after the end, with a clock that was set back", clocked(audited(
			chain(first, change{"c1.1", 112, renewed(first.row, 112)}), held1), set(111, 112, -50)), ""},
		{"renewed after the end, with a clock that was set back later", clocked(audited(
			chain(first, change{"c1.1", 112, renewed(first.row, 112)}), held1), set(300, 301, -50)), "that was over was renewed"},
		{"a lease by hand that is renewed", audited(chain(first, change{"c1.1", 50, renewed(first.row, 50)}), grant1), "nobody asked to keep it alive"},
		{"a lease that a relocker has", audited(chain(first, change{"c1.1", 50, renewed(first.row, 50)}), grant1,
			freed("c1.1", history.Relock, 40, 0, 2)), ""},
		{"a lease that a relocker is given later", audited(chain(first, change{"c1.1", 50, renewed(first.row, 50)}), grant1,
			freed("c1.1", history.Relock, 60, 0, 2)), "nobody asked to keep it alive"},
		{"a released lock that is renewed", audited(
			chain(first, freed3, change{"c1.1", 21, renewed(freed3.row, 21)}), grant1, free1), "nobody held it"},
		{"handed over", audited(
			chain(first, change{"c1.1", 30, heldFrom("c1.1", 30, 3)}), grant1, granted("c1.1", history.Lock, 5, 31, 3),
		), ""},
		{"taken after its end", audited(
			chain(first, change{"c2.1", 111, heldFrom("c2.1", 111, 3)}), grant1, granted("c2.1", history.Lock, 5, 120, 3),
		), ""},
		{"taken before its end", audited(
			chain(first, change{"c2.1", 109, heldFrom("c2.1", 109, 3)}), grant1, granted("c2.1", history.Lock, 5, 120, 3),
		), "while another held it"},
		{"a change that nobody wrote down", audited(
			append(chain(first), &audit.Transition{Lock: "a", Old: freeSince(5, 7), New: heldFrom("c2.1", 30, 8), At: 30 * us, App: "c2.1"}),
			grant1, granted("c2.1", history.Lock, 5, 31, 8),
		), "the row was"},
		{"deleted", audited(chain(first, change{"c1.1", 20, audit.Version{}}), grant1), "deleted"},
		{"created in the middle", audited(chain(change{"c1.1", 5, freeSince(5, 4)}), unknown("c1.1", history.Create, 4, 6)), "another generation than 1"},
		{"granted as the first generation", audited(
			chain(change{"c1.1", 5, heldFrom("c1.1", 5, 1)}), granted("c1.1", history.Acquire, 4, 6, 1),
		), "below 2"},
		{"a generation that fell", audited(chain(second, change{"c2.1", 40, freeSince(40, 3)}), grant2, asked("c2.1", history.Release, history.Unknown, 4)), "fell"},
		{"a lease that was cut", audited(
			chain(first, change{"c1.1", 20, audit.Version{Generation: 2, Owner: first.row.Owner, Acquired: first.row.Acquired, Expires: 50 * us}}),
			held1,
		), "shortened"},
		{"renewed by another", audited(
			chain(first, change{"c2.1", 50, renewed(first.row, 50)}), held1,
		), "renewed by somebody else"},
		{"released by another", audited(
			chain(first, change{"c2.1", 50, freeSince(50, 3)}), grant1, asked("c2.1", history.Release, history.Unknown, 2),
		), "released by somebody else"},
		{"the shared lock, released by another", onShared(audited(
			chain(first, change{"c2.1", 50, freeSince(50, 3)}), granted("c1.1", history.Acquire, 9, 11, 2),
			asked("c2.1", history.Release, history.Unknown, 2),
		)), ""},
		{"granted in another's name", audited(
			chain(change{"c2.1", 10, heldFrom("c1.1", 10, 2)}), grant1,
		), "to another than who asked"},
		{"an acknowledged grant that isn't there", audited(nil, grant1), "grant was not committed, or lost"},
		{"which a crash doesn't excuse", crashed(audited(nil, grant1), 12, 13), "grant was not committed, or lost"},
		{"another lease than was committed", audited(chain(first),
			op("c1.1", history.Acquire, 9, 11, history.Event{
				Outcome: history.OK, Token: 2, Owner: first.row.Owner, Expires: first.row.Expires + us,
			})), "isn't the committed one"},
		{"a refresh of another generation", audited(
			chain(first, change{"c1.1", 30, heldFrom("c1.1", 30, 3)}), grant1,
			op("c1.1", history.Refresh, 29, 31, history.Event{
				Outcome: history.OK, Generation: 1, Token: 3, Owner: owner("c1.1", "d"), Expires: (30 + ttl) * us,
			})), "another generation than the one that was named"},
		{"one grant for two requests", audited(chain(first), grant1, granted("c1.1", history.TryLock, 8, 12, 2)), "the same grant"},
		{"an acknowledged release that isn't there", audited(chain(first), grant1, free1), "release was not committed"},
		{"undone by a crash", crashed(audited(chain(first), grant1, free1), 22, 25), ""},
		{"undone, and no crash until it was surely flushed", crashed(audited(chain(first), grant1, free1), 5000, 5001), "release was not committed"},
		{"undone by a crash before it", crashed(audited(chain(first), grant1, free1), 12, 15), "release was not committed"},
		{"undone, and then taken by another", crashed(audited(
			chain(first, change{"c2.1", 111, heldFrom("c2.1", 111, 3)}), grant1, free1, granted("c2.1", history.Lock, 5, 120, 3),
		), 22, 25), ""},
		{"taken by another, and never undone", audited(
			chain(first, change{"c2.1", 111, heldFrom("c2.1", 111, 3)}), grant1, free1, granted("c2.1", history.Lock, 5, 120, 3),
		), "release was not committed"},
		{"a minimum hold that a crash undid", crashed(audited(chain(first), grant1, minimum), 22, 25), "release was not committed"},
		{"a minimum hold", audited(chain(first, change{"c1.1", 20, freeSince(60, 3)}), grant1, minimum), ""},
		{"a minimum hold that was cut", audited(chain(first, freed3), grant1, minimum), "before the minimum hold"},
		{"granted in a minimum hold", audited(
			chain(first, change{"c1.1", 20, freeSince(60, 3)}, change{"c2.1", 59, heldFrom("c2.1", 59, 4)}),
			held1, minimum, granted("c2.1", history.Lock, 5, 62, 4)), "the end of a minimum hold"},
		{"granted in a minimum hold, to its own client", audited(
			chain(first, change{"c1.1", 20, freeSince(60, 3)}, change{"c1.1", 59, heldFrom("c1.1", 59, 4)}),
			held1, minimum, granted("c1.1", history.Lock, 5, 62, 4)), "the end of a minimum hold"},
		{"granted after a minimum hold", audited(
			chain(first, change{"c1.1", 20, freeSince(60, 3)}, change{"c2.1", 60, heldFrom("c2.1", 60, 4)}),
			held1, minimum, granted("c2.1", history.Lock, 5, 62, 4)), ""},
		{"a minimum hold that the clock ended", clocked(audited(
			chain(first, change{"c1.1", 20, freeSince(60, 3)}, change{"c2.1", 59, heldFrom("c2.1", 59, 4)}),
			held1, minimum, granted("c2.1", history.Lock, 5, 62, 4)), set(58, 59, 5), set(59, 60, 0)), ""},
		{"refreshed in a minimum hold, by who saw it", audited(
			chain(first, change{"c1.1", 20, freeSince(60, 3)}, change{"c2.1", 30, heldFrom("c2.1", 30, 4)}),
			held1, minimum, op("c2.1", history.Refresh, 29, 31, history.Event{
				Outcome: history.OK, Generation: 3, Free: true, Token: 4, Owner: owner("c2.1", "e"),
			})), ""},
		{"granted in a minimum hold, to who asked to refresh another generation", audited(
			chain(first, change{"c1.1", 20, freeSince(60, 3)}, change{"c2.1", 30, heldFrom("c2.1", 30, 4)}),
			held1, minimum, unknown("c2.1", history.Acquire, 29, 31),
			op("c2.1", history.Refresh, 29, 31, history.Event{Outcome: history.Unknown, Generation: 2})), "minimum hold"},
		{"renewed in a minimum hold", audited(
			chain(first, change{"c1.1", 20, freeSince(60, 3)}, change{"c1.1", 30, renewed(freeSince(60, 3), 30)}),
			held1, minimum), "nobody held it"},
		{"a grant with a lost reply", audited(
			chain(change{"c1.1", 10, heldFrom("c1.1", 10, 2)}), unknown("c1.1", history.Acquire, 9, 50),
		), ""},
		{"a grant to who was killed", audited(chain(first), op("c1.1", history.TryLock, 9, 0, history.Event{})), ""},
		{"a grant that was reported as refused", audited(chain(first),
			op("c1.1", history.Acquire, 9, 50, history.Event{Outcome: history.Refused})), "every request was refused"},
		{"a grant to who asked later", audited(chain(first), unknown("c1.1", history.Acquire, 40, 50)), "every request was refused"},
		{"a grant to who didn't ask", audited(chain(first), unknown("c2.1", history.Acquire, 9, 50)), "every request was refused"},
		{"a grant that got its name before the request", besideB(audited(
			chain(change{"c1.1", 30, heldFrom("c1.1", 30, 2)}), unknown("c1.1", history.Acquire, 20, 50),
		), 5, 6), "every request was refused"},
		{"a grant that got its name long after the request", besideB(audited(
			chain(change{"c1.1", 2030, heldFrom("c1.1", 2030, 4)}), unknown("c1.1", history.Acquire, 5, 15),
		), 2020, 2021), "every request was refused"},
		{"a grant that got its name meanwhile", besideB(audited(
			chain(change{"c1.1", 30, heldFrom("c1.1", 30, 4)}), unknown("c1.1", history.Acquire, 5, 25),
		), 20, 21), ""},
		{"a refresh whose reply was lost, and that was over when it was asked for again", audited(
			chain(first, change{"c1.1", 20, heldFrom("c1.1", 20, 3)}, change{"c1.1", 25, freeSince(25, 4)}), grant1,
			op("c1.1", history.Refresh, 19, 26, history.Event{Outcome: history.OutcomeLost, Generation: 2}),
		), ""},
		{"a refresh whose reply was lost, and whose lease the clock ended before it asked again", clocked(audited(
			chain(first, change{"c1.1", 20, heldFrom("c1.1", 20, 3)}), grant1,
			op("c1.1", history.Refresh, 19, 26, history.Event{Outcome: history.OutcomeLost, Generation: 2}),
		), set(21, 22, 150)), ""},
		{"a refresh that was made, and refused before the clock ended its lease", clocked(audited(
			chain(first, change{"c1.1", 20, heldFrom("c1.1", 20, 3)}), grant1,
			op("c1.1", history.Refresh, 19, 26, history.Event{Outcome: history.OutcomeLost, Generation: 2}),
		), set(27, 28, 150)), "every request was refused"},
		{"a refresh that was made after the clock was set back, and refused while it lasted", clocked(audited(
			chain(first, change{"c1.1", 90 - 150, heldFrom("c1.1", 90-150, 3)}), grant1,
			op("c1.1", history.Refresh, 12, 100, history.Event{Outcome: history.OutcomeLost, Generation: 2}),
		), set(20, 21, -150)), "every request was refused"},
		{"a refresh that was made, and refused while it lasted", audited(
			chain(first, change{"c1.1", 20, heldFrom("c1.1", 20, 3)}, change{"c1.1", 55, freeSince(55, 4)}), grant1,
			op("c1.1", history.Refresh, 19, 26, history.Event{Outcome: history.OutcomeLost, Generation: 2}),
		), "every request was refused"},
		{"granted twice to who waits, and the first given back", audited(
			chain(first, freed3, change{"c1.1", 30, heldFrom("c1.1", 30, 4)}),
			op("c1.1", history.Lock, 5, 31, history.Event{Outcome: history.OK, Waits: true, Token: 4, Owner: owner("c1.1", "e")}),
		), ""},
		{"granted twice to who asks once", audited(
			chain(first, freed3, change{"c1.1", 30, heldFrom("c1.1", 30, 4)}),
			op("c1.1", history.TryLock, 5, 31, history.Event{Outcome: history.OK, Token: 4, Owner: owner("c1.1", "e")}),
		), "every request was refused"},
		{"a grant to an attempt that was given up, of a request that another attempt answered", audited(
			chain(change{"c1.1", 20, attempt(20, 2, "c", 1)}, change{"c1.1", 30, freeSince(30, 3)}, change{"c1.1", 40, attempt(40, 4, "c", 0)}),
			op("c1.1", history.Acquire, 10, 21, history.Event{Outcome: history.OK, Token: 2, Owner: owner("c1.1", "c-1")}),
			freed("c1.1", history.Release, 29, 31, 2),
		), ""},
		{"a grant to an attempt of a request that was refused", audited(
			chain(change{"c1.1", 20, attempt(20, 2, "c", 1)}),
			op("c1.1", history.Acquire, 10, 21, history.Event{Outcome: history.Refused}),
		), "every request was refused"},
		{"refused by its own grant", audited(
			chain(change{"c1.1", 20, heldFrom("c1.1", 20, 2)}),
			op("c1.1", history.Acquire, 10, 30, history.Event{Outcome: history.Busy, Token: 2, Owner: owner("c1.1", "c")}),
		), "every request was refused"},
		{"refused by the grant of another request", audited(
			chain(change{"c1.1", 20, heldFrom("c1.1", 20, 2)}), unknown("c1.1", history.Acquire, 9, 40),
			op("c1.1", history.Acquire, 10, 30, history.Event{Outcome: history.Busy, Token: 2, Owner: owner("c1.1", "c")}),
		), ""},
		{"a hand-over with a lost reply", audited(
			chain(first, change{"c1.1", 20, heldFrom("c1.1", 20, 3)}), grant1,
			op("c1.1", history.Release, 19, 21, history.Event{Outcome: history.Unknown, Generation: 2}),
		), ""},
		{"a hand-over of another tenure", audited(
			chain(first, change{"c1.1", 20, heldFrom("c1.1", 20, 3)}), grant1,
			op("c1.1", history.Release, 19, 21, history.Event{Outcome: history.Unknown, Generation: 9}),
		), "every request was refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			_, violations := oracle.Settle(test.run)
			wantOnly(t, violations, oracle.Audit, test.want)
		})
	}
}

func TestLinearizability(t *testing.T) {
	t.Parallel()

	var (
		first  = change{"c1.1", 10, heldFrom("c1.1", 10, 2)}
		freed3 = change{"c1.1", 20, freeSince(20, 3)}
		second = change{"c2.1", 30, heldFrom("c2.1", 30, 4)}
		all    = chain(first, freed3, second)

		grant1 = granted("c1.1", history.Acquire, 9, 11, 2)
		free1  = freed("c1.1", history.Release, 19, 21, 2)
		grant2 = granted("c2.1", history.Lock, 5, 31, 4)
	)

	busy := func(from, to, generation, remaining int64) *history.Operation {
		return op("c3.1", history.TryLock, from, to, history.Event{
			Outcome: history.Busy, Token: generation, Remaining: remaining * us,
		})
	}
	waited := func(o *history.Operation, limit int64) *history.Operation {
		o.Waits, o.Wait = true, limit*ms

		return o
	}
	shows := func(from, to int64, v audit.Version) *history.Operation {
		return op("c3.1", history.Get, from, to, history.Event{
			Outcome: history.OK, Token: v.Generation, Expires: v.Expires, Owner: v.Owner, Acquired: v.Acquired,
		})
	}
	guards := func(from, to, generation int64) *history.Operation {
		return op("c1.1", history.Guard, from, to, history.Event{Outcome: history.OK, Generation: generation})
	}
	refused := func(kind history.Kind, from, to, generation int64) *history.Operation {
		return op("c3.1", kind, from, to, history.Event{Outcome: history.OutcomeLost, Generation: generation})
	}
	missing := func(from, to int64) *history.Operation {
		return op("c3.1", history.Get, from, to, history.Event{Outcome: history.Missing})
	}

	const illegal = "not linearizable"

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
	}{
		{"granted, released, granted", audited(all, grant1, free1, grant2), ""},
		{"a grant that was answered before the release was asked for", audited(all,
			grant1, freed("c1.1", history.Release, 40, 41, 2), grant2), illegal},
		{"a grant that was asked for after it was made", audited(all,
			granted("c1.1", history.Acquire, 24, 25, 2), free1, grant2), illegal},
		{"busy while held", audited(all, grant1, busy(12, 14, 2, 97), free1, grant2), ""},
		{"busy after the release", audited(all, grant1, free1, busy(22, 24, 2, 87), grant2), illegal},
		{"busy while another holds", audited(all, grant1, busy(12, 14, 4, 97), free1, grant2), illegal},
		{"busy for longer than the lease runs", audited(all, grant1, busy(12, 14, 2, 130), free1, grant2), illegal},
		{"busy after the end of the lease", audited(chain(first), grant1, busy(150, 152, 2, 5), free1), illegal},
		{"busy because of a renewal", audited(
			chain(first, change{"c1.1", 60, renewed(first.row, 60)}), grant1, busy(150, 152, 2, 9),
		), ""},
		{"busy because of a renewal to come", audited(
			chain(first, change{"c1.1", 60, renewed(first.row, 60)}), grant1, busy(20, 22, 2, 139),
		), illegal},
		{"it had just changed hands", audited(all, grant1, free1, busy(22, 40, 3, 0), grant2), ""},
		{"it was free, and nobody else took it", audited(chain(first, freed3), grant1, free1, busy(26, 28, 3, 0)), illegal},
		{"it was free, and its wait was over", audited(chain(first, freed3), grant1, free1, waited(busy(26, 58, 3, 0), 30)), ""},
		{"it was free, and its wait wasn't over", audited(chain(first, freed3), grant1, free1, waited(busy(26, 58, 3, 0), 40)), illegal},
		{"its wait was over, and another held it", audited(all, grant1, free1, grant2, waited(busy(50, 90, 3, 0), 30)), illegal},
		{"it was free, and somebody else took it after the answer", audited(chain(first, freed3, change{"c2.1", 60, heldFrom("c2.1", 60, 4)}),
			grant1, free1, busy(26, 28, 3, 0), granted("c2.1", history.Lock, 5, 61, 4)), illegal},
		{"it was free, and its lease had just ended", audited(chain(first), grant1, busy(108, 112, 2, 0)), ""},
		{"it was free, and its lease had ended", audited(chain(first), grant1, busy(118, 122, 2, 0)), illegal},
		{"it was free, and a commit was under way by which somebody else took it", audited(all, grant1, free1, busy(38, 40, 3, 0),
			granted("c2.1", history.Lock, 5, 42, 4)), ""},
		{"it was free, and had been taken by then", audited(all, grant1, free1, busy(38, 40, 3, 0), grant2), illegal},
		{"it was free, and had just been freed", audited(chain(first, freed3), grant1, free1, busy(20, 40, 3, 0)), ""},
		{"free, with a crash that may have undone its grant", crashed(audited(chain(first, freed3), grant1, free1, busy(26, 28, 3, 0)), 30, 31), ""},
		{"shown as it is", audited(all, grant1, free1, shows(22, 25, freed3.row), grant2), ""},
		{"shown as it was", audited(all, grant1, free1, shows(22, 25, first.row), grant2), illegal},
		{"shown as it was never", audited(all, grant1, shows(12, 13, heldFrom("c1.1", 11, 2)), free1, grant2), illegal},
		{"guarded while held", audited(all, grant1, guards(12, 15, 2), free1, grant2), ""},
		{"guarded after the release", audited(all, grant1, free1, guards(24, 26, 2), grant2), illegal},
		{"guarded after the end of the lease", audited(chain(first), grant1, guards(130, 140, 2)), illegal},
		{"a wrong generation", audited(all, grant1, free1, refused(history.Refresh, 22, 25, 2), grant2), ""},
		{"the right generation, refused", audited(all, grant1, refused(history.Release, 12, 14, 2), free1, grant2), illegal},
		{"not there yet", audited(all, missing(1, 3), grant1, free1, grant2), ""},
		{"there, and not found", audited(all, grant1, missing(12, 14), free1, grant2), illegal},
		{"a lost reply to the first grant", audited(all, unknown("c1.1", history.Acquire, 9, 0), grant2), ""},
		{"a lost reply, and a look before it was carried out", audited(all,
			unknown("c1.1", history.Acquire, 1, 0), missing(2, 4), busy(12, 14, 2, 97), grant2), ""},
		{"handed over", audited(
			chain(first, change{"c1.1", 30, heldFrom("c1.1", 30, 3)}),
			grant1, freed("c1.1", history.Unlock, 29, 31, 2), granted("c1.1", history.Lock, 5, 32, 3),
		), ""},
		{"a release that a crash undid", crashed(audited(
			chain(first, change{"c2.1", 111, heldFrom("c2.1", 111, 3)}),
			grant1, free1, shows(22, 23, freed3.row), busy(41, 43, 2, 68), granted("c2.1", history.Lock, 5, 112, 3),
		), 25, 40), ""},
		{"shown as free to who came too late, before a crash undid that", crashed(audited(
			chain(first, change{"c2.1", 111, heldFrom("c2.1", 111, 3)}),
			grant1, busy(22, 23, 3, 0), granted("c2.1", history.Lock, 105, 112, 3),
		), 25, 40), ""},
		{"shown as free to who came too late, and no crash", audited(
			chain(first, change{"c2.1", 111, heldFrom("c2.1", 111, 3)}),
			grant1, busy(22, 23, 3, 0), granted("c2.1", history.Lock, 105, 112, 3),
		), illegal},
		{"held by the released lease without a crash between", crashed(audited(
			chain(first, change{"c2.1", 111, heldFrom("c2.1", 111, 3)}),
			grant1, free1, busy(22, 23, 2, 88), granted("c2.1", history.Lock, 5, 112, 3),
		), 25, 40), illegal},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			settled, _ := oracle.Settle(test.run)
			violations, failures := oracle.CheckLinearizability(test.run, settled)
			wantOnly(t, violations, oracle.Linearizability, test.want)

			if test.want != "" {
				if err := failures[0].Picture(t.TempDir() + "/a.html"); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
