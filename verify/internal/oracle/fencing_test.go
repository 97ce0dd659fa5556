package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

func TestFencing(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name   string
		writes []oracle.Write
		want   string
	}{
		{"each builds on the one before", []oracle.Write{
			{Lock: "a", Token: 2, Value: 1},
			{Lock: "b", Token: 9, Value: 1},
			{Lock: "a", Token: 2, Value: 2},
			{Lock: "a", Token: 4, Value: 3},
		}, ""},
		{"two from the same value", []oracle.Write{
			{Lock: "a", Token: 2, Value: 1}, {Lock: "a", Token: 4, Value: 2}, {Lock: "a", Token: 6, Value: 2},
		}, "which is lost"},
		{"one that is missing", []oracle.Write{{Lock: "a", Token: 2, Value: 2}}, "which is lost"},
		{"an older token", []oracle.Write{
			{Lock: "a", Token: 4, Value: 1}, {Lock: "a", Token: 2, Value: 2},
		}, "a stale write"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			inside := run()
			inside.Writes = test.writes
			wantOnly(t, oracle.CheckFencing(inside), oracle.Fencing, test.want)

			outside := run()
			for i, w := range test.writes {
				outside.History.Notes = append(outside.History.Notes, note("resource", history.Write, int64(i), history.Event{
					Lock: w.Lock, Token: w.Token, Value: w.Value,
				}))
			}

			wantOnly(t, oracle.CheckFencing(outside), oracle.Fencing, test.want)
		})
	}
}

func TestHealing(t *testing.T) {
	t.Parallel()

	legal := run(op("coordinator", history.Grant, 0, 1, history.Event{Outcome: history.OK}))
	wantOnly(t, oracle.CheckHealing(legal), oracle.Healing, "")

	refused := run(op("coordinator", history.Grant, 0, 1, history.Event{Outcome: history.Refused}))
	wantOnly(t, oracle.CheckHealing(refused), oracle.Healing, "not granted again")

	hung := run(op("coordinator", history.Grant, 0, 0, history.Event{}))
	wantOnly(t, oracle.CheckHealing(hung), oracle.Healing, "not granted again")

	leaking := run()
	leaking.History.Notes = []history.Event{note("c1.1", history.Leak, 1, history.Event{Detail: "a goroutine"})}
	wantOnly(t, oracle.CheckHealing(leaking), oracle.Healing, "left something behind")
}
