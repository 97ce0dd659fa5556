package oracle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

var (
	// sem has three permits for clients with an even number, and two for the others.
	sem = traffic.Semaphores[0].ID()
	rw  = traffic.RWLocks[0].ID()
)

// row is a granted row of a family.
func row(family, part, client string, kind history.Kind, from, to, token int64) *history.Operation {
	o := granted(client, kind, from, to, token)
	o.Family, o.Lock = family, family+":"+part

	if r, ok := traffic.RecipeOf(family); ok && kind == history.Permit {
		o.Most, o.Count = r.MostOf(client), 1
	}

	return o
}

// permits are those of one request, which are told apart by their slots.
func permits(client string, from, to, token int64, slots ...string) []*history.Operation {
	var all []*history.Operation

	for i, slot := range slots {
		o := row(sem, slot, client, history.Permit, from, to, token)
		o.Op, o.Request, o.Count = from*10+int64(i)+1, from*10+1, len(slots)
		all = append(all, o)
	}

	return all
}

func unlocked(o *history.Operation, from, to int64) *history.Operation {
	f := freed(o.Client, history.Unlock, from, to, o.Token)
	f.Lock, f.Family = o.Lock, o.Family

	return f
}

func TestFamilyBeliefs(t *testing.T) {
	t.Parallel()

	var (
		one   = row(sem, "1", "c2.1", history.Permit, 0, 1, 2)
		two   = row(sem, "2", "c4.1", history.Permit, 2, 3, 3)
		three = row(sem, "3", "c2.1", history.Permit, 4, 5, 4)
		four  = row(sem, "4", "c4.1", history.Permit, 6, 7, 5)
		// fewer goes by two permits alone.
		fewer = row(sem, "3", "c1.1", history.Permit, 4, 5, 4)

		reader = row(rw, "1", "c1.1", history.RLock, 0, 1, 2)
		other  = row(rw, "2", "c2.1", history.RLock, 2, 3, 3)
		writer = row(rw, "w", "c3.1", history.WLock, 4, 5, 4)
		// lost is a grant that the audit doesn't have. It doesn't tell its row.
		lost = func(o *history.Operation) *history.Operation {
			unnamed := *o
			unnamed.Lock = o.Family

			return &unnamed
		}
	)

	for _, test := range []struct {
		name  string
		ops   []*history.Operation
		notes []history.Event
		want  string
	}{
		{name: "as many as there are", ops: []*history.Operation{one, two, three}},
		{name: "one too many", ops: []*history.Operation{one, two, three, four}, want: "1 of 3 permits while others believed in 3"},
		{name: "one left before", ops: []*history.Operation{one, two, three, four, unlocked(two, 6, 9)}},
		{name: "two are held, and it goes by two", ops: []*history.Operation{one, two, fewer}, want: "1 of 2 permits while others believed in 2"},
		{name: "it goes by two, and was first", ops: []*history.Operation{
			row(sem, "1", "c1.1", history.Permit, 0, 1, 2), two, row(sem, "3", "c2.1", history.Permit, 4, 5, 4),
		}},
		{name: "first by its token, told last", ops: []*history.Operation{
			row(sem, "1", "c1.1", history.Permit, 0, 9, 2), two, row(sem, "3", "c2.1", history.Permit, 4, 5, 4),
		}},
		{name: "one too many, and told last of what was first", ops: []*history.Operation{
			row(sem, "1", "c2.1", history.Permit, 0, 9, 2), two, three, row(sem, "4", "c4.1", history.Permit, 6, 7, 5),
		}, want: "1 of 3 permits while others believed in 3"},
		{name: "three at once", ops: permits("c2.1", 0, 1, 2, "1", "2", "3")},
		{name: "two at once beside two", ops: append(permits("c2.1", 4, 5, 6, "3", "4"), one, two), want: "2 of 3 permits while others believed in 2"},
		{name: "stopped before", ops: []*history.Operation{one, two, three, four}, notes: []history.Event{
			note("c4.1", history.Stall, 9, history.Event{From: 5 * ms}),
			note("c4.1", history.Lost, 10, history.Event{Lock: two.Lock, Token: 3}),
		}},
		{name: "clock set ahead", ops: []*history.Operation{one, two, three, four}, notes: []history.Event{set(5, 6, 1000)}},

		{name: "readers together", ops: []*history.Operation{reader, other}},
		{name: "readers together whose grants were lost", ops: []*history.Operation{lost(reader), lost(other)}},
		{name: "a writer beside a reader whose grants were lost", ops: []*history.Operation{lost(reader), lost(writer)}, want: "two believe"},
		{name: "a writer beside a reader", ops: []*history.Operation{reader, writer}, want: "two believe"},
		{name: "a reader beside a writer", ops: []*history.Operation{writer, row(rw, "1", "c1.1", history.RLock, 6, 7, 5)}, want: "two believe"},
		{name: "a writer after a reader", ops: []*history.Operation{reader, writer, unlocked(reader, 4, 9)}},
		{name: "a writer becomes a reader", ops: []*history.Operation{
			writer, row(rw, "1", "c3.1", history.RLock, 8, 9, 5), row(rw, "2", "c2.1", history.RLock, 8, 9, 6), func() *history.Operation {
				o := unlocked(writer, 8, 9)
				o.Kind = history.Downgrade

				return o
			}(),
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

func TestFamilyTokens(t *testing.T) {
	t.Parallel()

	wantOnly(t, oracle.CheckTokens(run(row(rw, "1", "c1.1", history.RLock, 0, 1, 2), row(rw, "w", "c2.1", history.WLock, 4, 5, 3))), oracle.Tokens, "")
	wantOnly(t, oracle.CheckTokens(run(row(rw, "1", "c1.1", history.RLock, 0, 1, 3), row(rw, "w", "c2.1", history.WLock, 4, 5, 2))),
		oracle.Tokens, "no larger token")
	wantOnly(t, oracle.CheckTokens(run(row(rw, "1", "c1.1", history.RLock, 0, 6, 3), row(rw, "w", "c2.1", history.WLock, 4, 5, 3))),
		oracle.Tokens, "the same token")
	wantOnly(t, oracle.CheckTokens(run(permits("c2.1", 0, 1, 2, "1", "2")...)), oracle.Tokens, "")
}

// rows makes the audit of a family. Each line is a transaction: the client, the time, and what it
// does, as "1=5" for slot 1 granted under token 5, "1~5" for a renewal, "1-5" for its release, and "1!5" for one
// with a minimum hold.
// A grant moves the gate, unless it says "still".
func rows(family string, lines ...string) []*audit.Transition {
	var (
		all  []*audit.Transition
		last = make(map[string]audit.Version)
		gate = int64(1)
	)

	for xid, line := range lines {
		fields := strings.Fields(line)
		client, still := fields[0], false

		var at int64
		if _, err := fmt.Sscan(fields[1], &at); err != nil {
			panic(err)
		}

		change := func(lock string, v audit.Version) {
			all = append(all, &audit.Transition{
				Seq: int64(len(all) + 1), Lock: lock, Old: last[lock], New: v, Began: (at - 1) * us, At: at * us,
				XID: int64(xid), App: client,
			})
			last[lock] = v
		}

		for _, what := range fields[2:] {
			var token int64

			part, sign := what, byte(0)
			if i := strings.IndexAny(what, "=~-!"); i >= 0 {
				part, sign = what[:i], what[i]
				if _, err := fmt.Sscan(what[i+1:], &token); err != nil {
					panic(err)
				}
			}

			lock := family + ":" + part

			switch sign {
			case '=':
				change(lock, heldFrom(client, at, token))

				gate = token
			case '~':
				v := last[lock]
				v.Expires = (at + ttl) * us
				change(lock, v)

				still = true
			case '-':
				change(lock, freeSince(at, token+1))

				still = true
			case '!':
				change(lock, freeSince(at+ttl, token+1))

				still = true
			default:
				still = true
			}
		}

		if !still {
			change(family+":gate", audit.Version{Generation: gate, Expires: 1})
		}
	}

	return all
}

func TestRoom(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name, family, want string
		lines              []string
	}{
		{name: "as many as there are", family: sem, lines: []string{"c2.1 1 1=2", "c4.1 2 2=3", "c2.1 3 3=4"}},
		{name: "one too many", family: sem, lines: []string{"c2.1 1 1=2", "c4.1 2 2=3", "c2.1 3 3=4", "c4.1 4 4=5"}, want: "1 of 3 permits while 3 were held"},
		{name: "it goes by two", family: sem, lines: []string{"c2.1 1 1=2", "c4.1 2 2=3", "c1.1 3 3=4"}, want: "1 of 2 permits while 2 were held"},
		{name: "it was the second", family: sem, lines: []string{"c2.1 1 1=2", "c1.1 2 2=3", "c4.1 3 3=4"}},
		{name: "one was released", family: sem, lines: []string{"c2.1 1 1=2", "c4.1 2 2=3", "c4.1 3 2-3", "c1.1 4 2=5"}},
		{name: "one keeps its minimum hold", family: sem, lines: []string{"c2.1 1 1=2", "c4.1 2 2=3", "c4.1 3 2!3", "c1.1 4 3=5"}, want: "1 of 2 permits while 2 were held"},
		{name: "its minimum hold is over", family: sem, lines: []string{"c2.1 1 1=2", "c2.1 2 1!2", "c4.1 3 2=4", "c1.1 150 3=5"}},
		{name: "one was over", family: sem, lines: []string{"c2.1 1 1=2", "c4.1 50 2=3", "c1.1 102 1=4"}},
		{name: "renewed before its end", family: sem, lines: []string{"c2.1 1 1=2", "c2.1 50 1~2", "c4.1 51 2=3", "c2.1 80 1~2", "c1.1 102 3=4"}, want: "1 of 2 permits while 2 were held"},
		{name: "renewed, which the grant may not have seen", family: sem, lines: []string{"c2.1 1 1=2", "c4.1 50 2=3", "c2.1 100 1~2", "c1.1 102 3=4"}},
		{name: "two at once", family: sem, lines: []string{"c2.1 1 1=2 2=3"}},
		{name: "two at once beside two", family: sem, lines: []string{"c2.1 1 1=2 2=3", "c4.1 2 3=4 4=5"}, want: "2 of 3 permits while 2 were held"},
		{name: "beside its family's row", family: sem, lines: []string{"c2.1 1 1=2 still"}, want: "not moved"},

		{name: "readers", family: rw, lines: []string{"c1.1 1 1=2", "c2.1 2 2=3"}},
		{name: "a writer beside a reader", family: rw, lines: []string{"c1.1 1 1=2", "c2.1 2 w=3"}, want: "a writer was granted it while others held it"},
		{name: "a reader beside a writer", family: rw, lines: []string{"c1.1 1 w=2", "c2.1 2 1=3"}, want: "granted while a writer held it"},
		{name: "a reader after a writer", family: rw, lines: []string{"c1.1 1 w=2", "c1.1 2 w-2", "c2.1 3 1=4"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := run()
			r.Audit = rows(test.family, test.lines...)
			settled, _ := oracle.Settle(r)
			wantOnly(t, oracle.CheckRecipes(r, settled), oracle.Recipes, test.want)

			// The model says the same, except of what the family's row shows.
			violations, failures := oracle.CheckFamilies(r, settled)
			if want := test.want != "" && test.want != "not moved"; (len(violations) > 0) != want || (len(failures) > 0) != want {
				t.Errorf("linearizable: %v, want %t", violations, !want)
			}
		})
	}
}

// TestFamilyAnswers: a refusal tells the truth at some moment between its call and its return.
func TestFamilyAnswers(t *testing.T) {
	t.Parallel()

	refused := func(family, client string, kind history.Kind, from, to int64) *history.Operation {
		o := op(client, kind, from, to, history.Event{Lock: family, Family: family, Outcome: history.Busy})
		if r, _ := traffic.RecipeOf(family); kind == history.Permit {
			o.Most, o.Count = r.MostOf(client), 1
		}

		return o
	}

	full := []string{"c2.1 10 1=2", "c4.1 20 2=3", "c2.1 30 3=4", "c2.1 80 3-4"}

	for _, test := range []struct {
		name, want string
		family     string
		lines      []string
		op         *history.Operation
	}{
		{name: "all held", family: sem, lines: full, op: refused(sem, "c4.1", history.Permit, 40, 45)},
		{name: "two held, and it goes by two", family: sem, lines: full, op: refused(sem, "c1.1", history.Permit, 94, 95)},
		{name: "none is held any more", family: sem, lines: append(slices.Clone(full), "c2.1 81 1-2", "c4.1 82 2-3"), op: refused(sem, "c4.1", history.Permit, 136, 137), want: "not linearizable"},
		{name: "a reader beside readers", family: rw, lines: []string{"c1.1 10 1=2"}, op: refused(rw, "c4.1", history.RLock, 40, 45), want: "not linearizable"},
		{name: "a writer beside readers", family: rw, lines: []string{"c1.1 10 1=2"}, op: refused(rw, "c4.1", history.WLock, 40, 45)},
		{name: "a reader beside a writer", family: rw, lines: []string{"c1.1 10 w=2"}, op: refused(rw, "c4.1", history.RLock, 40, 45)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := run(test.op,
				unlocked(row(sem, "1", "c2.1", history.Permit, 5, 15, 2), 80, 82),
				unlocked(row(sem, "2", "c4.1", history.Permit, 15, 25, 3), 81, 83),
				unlocked(row(sem, "3", "c2.1", history.Permit, 25, 35, 4), 79, 81))
			r.Audit = rows(test.family, test.lines...)
			settled, _ := oracle.Settle(r)
			violations, _ := oracle.CheckFamilies(r, settled)
			wantOnly(t, violations, oracle.Linearizability, test.want)
		})
	}
}
