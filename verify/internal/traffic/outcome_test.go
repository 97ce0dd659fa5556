package traffic

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// TestOutcome: an answer is recorded as what it says. What is lost is lost, whatever the
// reason; else it is unknown as soon as anything in it says so.
func TestOutcome(t *testing.T) {
	t.Parallel()

	held := &pglocker.HeldError{LockID: "a", Owner: "c2.1#x.1", Generation: 7, Remaining: 1500 * time.Microsecond}

	for _, test := range []struct {
		err  error
		want history.Outcome
	}{
		{nil, history.OK},
		{held, history.Busy},
		{fmt.Errorf("%w: %w", context.DeadlineExceeded, held), history.Busy},
		{fmt.Errorf("%w: %w", pglocker.ErrUnknownOutcome, held), history.Unknown},
		{fmt.Errorf("%w: %w", pglocker.ErrUnknownOutcome, context.Canceled), history.Unknown},
		{fmt.Errorf("%w: %w", pglocker.ErrNotReleased, pglocker.ErrUnknownOutcome), history.Unknown},
		{fmt.Errorf("%w: the server is down", pglocker.ErrNotReleased), history.Unknown},
		{fmt.Errorf("%w (release)", pglocker.ErrWrongGeneration), history.OutcomeLost},
		{pglocker.ErrLockLost, history.OutcomeLost},
		{fmt.Errorf("%w: no renewal: %w", pglocker.ErrLockLost, pglocker.ErrUnknownOutcome), history.OutcomeLost},
		{pglocker.ErrLockNotFound, history.Missing},
		{context.Canceled, history.Refused},
		{errors.New("the server is down"), history.Refused},
	} {
		e := outcome(history.Event{Kind: history.Acquire}, test.err)
		if e.Outcome != test.want {
			t.Errorf("%v: %s, want %s", test.err, e.Outcome, test.want)
		}

		if e.Outcome == history.Busy && (e.Token != 7 || e.Owner != held.Owner || e.Remaining != 1500) {
			t.Errorf("%v: %+v", test.err, e)
		}
	}
}
