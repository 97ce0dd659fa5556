package oracle_test

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// TestExcused: what O2 leaves out is counted, and so is how much of all belief that is.
func TestExcused(t *testing.T) {
	t.Parallel()

	two := []*history.Operation{
		granted("c1.1", history.Lock, 0, 1, 2), freed("c1.1", history.Unlock, 301, 302, 2),
		granted("c2.1", history.Lock, 60, 201, 3), freed("c2.1", history.Unlock, 301, 302, 3),
	}

	for _, test := range []struct {
		name    string
		notes   []history.Event
		want    oracle.Excused
		violate string
	}{
		{
			name: "nothing", violate: "two believe",
			want: oracle.Excused{Believed: 400 * time.Millisecond},
		},
		{
			name:  "stopped",
			notes: []history.Event{note("c1.1", history.Stall, 290, history.Event{From: 101 * ms})},
			want: oracle.Excused{
				Believed: 400 * time.Millisecond, Cut: 200 * time.Millisecond,
				Stopped: oracle.Overlaps{Count: 1, Longest: 100 * time.Millisecond},
			},
		},
		{
			name: "stopped, but not at its end", violate: "two believe",
			notes: []history.Event{note("c1.1", history.Stall, 240, history.Event{From: 101 * ms})},
			want:  oracle.Excused{Believed: 400 * time.Millisecond},
		},
		{
			name:  "set ahead",
			notes: []history.Event{set(150, 151, 500)},
			want: oracle.Excused{
				Believed:  400 * time.Millisecond,
				Overtaken: oracle.Overlaps{Count: 1, Longest: 100 * time.Millisecond},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := run(two...)
			r.History.Notes = test.notes

			if got := oracle.MeasureExcused(r); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}

			wantOnly(t, oracle.CheckBeliefs(r), oracle.Beliefs, test.violate)
		})
	}
}
