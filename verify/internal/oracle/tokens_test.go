package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

func TestTokens(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
	}{
		{"one after the other", run(
			granted("c1.1", history.Acquire, 0, 1, 2), granted("c2.1", history.Lock, 2, 3, 4),
		), ""},
		{"overlapping calls, whose order nobody knows", run(
			granted("c1.1", history.Acquire, 0, 5, 4), granted("c2.1", history.Lock, 1, 3, 2),
		), ""},
		{"the same token for another lock", run(
			granted("c1.1", history.Acquire, 0, 1, 2),
			op("c1.1", history.Acquire, 2, 3, history.Event{Lock: "b", Outcome: history.OK, Token: 2}),
		), ""},
		{"a token that was seen busy", run(
			granted("c1.1", history.Acquire, 0, 1, 2),
			op("c2.1", history.Acquire, 2, 3, history.Event{Outcome: history.Busy, Token: 2}),
		), ""},
		{"twice the same, in calls that overlap", run(
			granted("c1.1", history.Acquire, 0, 5, 2), granted("c2.1", history.Lock, 1, 3, 2),
		), "the same token"},
		{"a later one that is smaller", run(
			granted("c1.1", history.Acquire, 0, 1, 5), granted("c2.1", history.Do, 2, 3, 4),
		), "no larger token"},
		{"smaller than one of several before", run(
			granted("c1.1", history.Acquire, 0, 4, 5), granted("c2.1", history.Acquire, 1, 3, 3),
			granted("c3.1", history.Acquire, 6, 9, 4),
		), "no larger token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantOnly(t, oracle.CheckTokens(test.run), oracle.Tokens, test.want)
		})
	}
}
