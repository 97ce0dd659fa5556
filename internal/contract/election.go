package contract

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// Candidate is a Run under way.
type Candidate struct {
	*pglocker.Election
	// Elected yields each term that its function is called for.
	Elected chan *Leading
	// Told yields the errors after which Run goes on.
	Told chan error
	// Stop ends Run's context, and Returned is what Run returned.
	Stop     context.CancelFunc
	Returned chan error
}

// Leading is one call of a candidate's function. It returns its context's cause when that ends, or what it
// receives from Leave.
type Leading struct {
	pglocker.Term
	// At is when the function was called.
	At    time.Time
	Ctx   context.Context
	Leave chan error
}

// StartCandidate starts one that ends with the test at the latest.
func StartCandidate(tb testing.TB, locker *pglocker.Locker, name string, ttl time.Duration, opts ...pglocker.ElectionOption) *Candidate {
	tb.Helper()

	c := &Candidate{Elected: make(chan *Leading, 1000), Told: make(chan error, 1000), Returned: make(chan error, 1)}

	opts = append([]pglocker.ElectionOption{pglocker.WithOnError(func(err error) { c.Told <- err })}, opts...)

	var (
		ctx context.Context
		err error
	)

	c.Election, err = locker.NewElection(name, ttl, opts...)
	Must(tb, err)

	ctx, c.Stop = context.WithCancel(context.Background())
	tb.Cleanup(c.Stop)

	go func() { c.Returned <- c.Run(ctx, c.lead) }()

	return c
}

func (c *Candidate) lead(ctx context.Context, term pglocker.Term) error {
	l := &Leading{term, time.Now(), ctx, make(chan error)}
	c.Elected <- l

	select {
	case err := <-l.Leave:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// End ends Run, which must return nothing but the end of its context.
func (c *Candidate) End(tb testing.TB) {
	tb.Helper()
	c.Stop()

	stopped := time.Now()

	if err := Receive(tb, "Run returns", c.Returned); !errors.Is(err, context.Canceled) || errors.Is(err, pglocker.ErrNotReleased) {
		tb.Errorf("Run, from %s for %s: %v, want context.Canceled", stopped.Format(time.TimeOnly), time.Since(stopped), err)
	}

	if err := c.IsLeader(context.Background()); !errors.Is(err, pglocker.ErrNotLeader) {
		tb.Errorf("IsLeader after Run: %v, want ErrNotLeader", err)
	}
}

// lateBackoff keeps a candidate that has led from campaigning again during a test.
func lateBackoff() pglocker.ElectionOption { return pglocker.WithBackoff(minute, minute) }

func earlyBackoff() pglocker.ElectionOption {
	return pglocker.WithBackoff(time.Millisecond, 10*time.Millisecond)
}

func (e *env) election(t *testing.T, name string, opts ...pglocker.ElectionOption) *pglocker.Election {
	t.Helper()

	election, err := e.newLocker(t).NewElection(name, minute, opts...)
	Must(t, err)

	return election
}

// testElection: one candidate leads, and all are told the same of that. When it resigns, the next leads, under
// a larger token.
func testElection(t *testing.T, e *env) {
	ctx := withinContext(t)
	name := newID()
	bystander := e.election(t, name, pglocker.WithObserveOnly())

	if term, err := bystander.Leader(ctx); !errors.Is(err, pglocker.ErrNoLeader) {
		t.Errorf("Leader before any: %+v, %v, want ErrNoLeader", term, err)
	}

	w := NewWatcher()
	first := StartCandidate(t, e.newLocker(t), name, minute, lateBackoff())
	led := Receive(t, "the first leads", first.Elected)
	second := StartCandidate(t, e.watchedLocker(t, w), name, minute)
	Receive(t, "the second waits", w.InLine())

	for _, election := range []*pglocker.Election{first.Election, second.Election, bystander} {
		if term, err := election.Leader(ctx); err != nil || term != led.Term {
			t.Errorf("Leader: %+v, %v, want %+v", term, err, led.Term)
		}

		err := election.IsLeader(ctx)
		if leads := election == first.Election; leads != (err == nil) || !leads && !errors.Is(err, pglocker.ErrNotLeader) {
			t.Errorf("IsLeader: %v, and it leads: %t", err, leads)
		}
	}

	row := e.get(t, "pglocker:election:"+name)
	if row.Generation != led.Token || row.Owner != led.Leader || row.AcquiredAt != led.Since || e.hasOwners() == (led.Leader == "") {
		t.Errorf("the term is %+v, and the row %+v", led.Term, row)
	}

	lock, ok := pglocker.FromContext(led.Ctx)
	if !ok || lock.Token() != led.Token {
		t.Errorf("the function's context has no lock of token %d", led.Token)
	}

	// A leader that would wait for itself is told so.
	if err := first.Run(led.Ctx, first.lead); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("Run under its own term: %v, want ErrAlreadyLocked", err)
	}

	if err := first.Run(ctx, first.lead); !errors.Is(err, pglocker.ErrElectionRunning) {
		t.Errorf("Run beside Run: %v, want ErrElectionRunning", err)
	}

	led.Leave <- nil

	next := Receive(t, "the second leads", second.Elected)
	if next.Token <= led.Token || led.Ctx.Err() == nil {
		t.Errorf("token %d after %d, whose context has ended: %v", next.Token, led.Token, led.Ctx.Err())
	}

	if err := first.IsLeader(ctx); !errors.Is(err, pglocker.ErrNotLeader) {
		t.Errorf("IsLeader of the one before: %v, want ErrNotLeader", err)
	}

	first.End(t)
	second.End(t)
	e.isFree(t, "pglocker:election:"+name)

	if len(first.Told)+len(second.Told) > 0 {
		t.Errorf("told of %d errors, want none", len(first.Told)+len(second.Told))
	}

	if err := bystander.Run(ctx, first.lead); !errors.Is(err, pglocker.ErrObserveOnly) {
		t.Errorf("Run of an observer: %v, want ErrObserveOnly", err)
	}
}

// testElectionGoesOn: Run goes on after errors of its function, lets a panic through after the release, and
// ends when the Locker is closed.
func testElectionGoesOn(t *testing.T, e *env) {
	var (
		ctx     = withinContext(t)
		name    = newID()
		failure = errors.New("no work")
		locker  = e.newLocker(t)
		c       = StartCandidate(t, locker, name, minute, earlyBackoff())
		first   = Receive(t, "it leads", c.Elected)
	)

	first.Leave <- failure

	second := Receive(t, "it leads again", c.Elected)
	if err := Receive(t, "the error is told", c.Told); !errors.Is(err, failure) || second.Token <= first.Token {
		t.Errorf("told of %v, and leads with token %d after %d", err, second.Token, first.Token)
	}

	// Another was granted the lock. That is how a leader learns that its lease was over.
	e.take(t, "pglocker:election:"+name)
	lock, _ := pglocker.FromContext(second.Ctx)

	if err := lock.Unlock(ctx); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Unlock: %v, want ErrLockLost", err)
	}

	Receive(t, "the term ends", second.Ctx.Done())
	Must(t, locker.Close(ctx))

	if err := Receive(t, "Run returns", c.Returned); !errors.Is(err, pglocker.ErrClosed) {
		t.Errorf("Run of a locker that is closed: %v, want ErrClosed", err)
	}

	if err := c.Run(ctx, c.lead); !errors.Is(err, pglocker.ErrClosed) {
		t.Errorf("Run of a closed locker: %v, want ErrClosed", err)
	}

	panicking := e.election(t, newID())

	defer func() {
		if cause := recover(); cause != "no more" {
			t.Errorf("recovered %v", cause)
		}

		if _, err := panicking.Leader(ctx); !errors.Is(err, pglocker.ErrNoLeader) {
			t.Errorf("Leader after a panic: %v, want ErrNoLeader", err)
		}
	}()

	t.Error(panicking.Run(ctx, func(context.Context, pglocker.Term) error { panic("no more") }))
}

// testElectionObserved: an observer sees each term and each vacancy, however short the terms are.
func testElectionObserved(t *testing.T, e *env) {
	const terms = 3

	name := newID()
	observer := e.election(t, name)
	seen := make(chan pglocker.Term, 100)
	ended := make(chan struct{})
	ctx, stop := context.WithCancel(withinContext(t))

	go func() {
		defer close(ended)

		for term, err := range observer.Observe(ctx) {
			if err != nil { // a busy machine may take longer than a look
				t.Logf("Observe: %v", err)

				continue
			}

			seen <- term
		}
	}()

	if term := Receive(t, "the beginning", seen); term != (pglocker.Term{}) {
		t.Errorf("an election that never had a leader is seen as %+v", term)
	}

	c := StartCandidate(t, e.newLocker(t), name, minute, earlyBackoff())

	var led []pglocker.Term

	for len(led) < terms {
		l := Receive(t, "it leads", c.Elected)
		led = append(led, l.Term)

		if len(led) < terms {
			l.Leave <- nil
		}
	}

	for _, want := range led {
		got := Receive(t, "a term is seen", seen)
		for got.Vacant() { // some are too short to be seen
			got = Receive(t, "a term is seen", seen)
		}

		if got != want {
			t.Errorf("seen %+v, want %+v", got, want)
		}
	}

	c.End(t)

	if term := Receive(t, "the end is seen", seen); !term.Vacant() || term.Since != e.get(t, "pglocker:election:"+name).ExpiresAt {
		t.Errorf("after the last leader has resigned: %+v", term)
	}

	for term, err := range observer.Observe(ctx) {
		if err != nil || !term.Vacant() {
			t.Errorf("another observer begins with %+v, %v", term, err)
		}

		break
	}

	stop()
	Receive(t, "the sequence ends", ended)

	if len(seen) > 0 {
		t.Errorf("seen after the end: %+v", <-seen)
	}
}

// testElectionResign: a leader is asked to resign by the token of its term, from the same Locker or from
// another. A request for an earlier term does nothing.
func testElectionResign(t *testing.T, e *env) {
	ctx := withinContext(t)
	name := newID()
	locker := e.newLocker(t)
	other := e.election(t, name)

	if err := other.RequestResign(ctx, 2); !errors.Is(err, pglocker.ErrNoLeader) {
		t.Errorf("RequestResign without a leader: %v, want ErrNoLeader", err)
	}

	// It looks for requests by itself every 50 ms, or not during this test.
	for _, test := range []struct {
		asks     func(c *Candidate) *pglocker.Election
		interval time.Duration
	}{
		{func(*Candidate) *pglocker.Election { return other }, 50 * time.Millisecond},
		{func(c *Candidate) *pglocker.Election { return c.Election }, minute - time.Second},
	} {
		c := StartCandidate(t, locker, name, minute, earlyBackoff(), pglocker.WithElectionRelockInterval(test.interval))
		first := Receive(t, "it leads", c.Elected)

		if err := test.asks(c).RequestResign(ctx, first.Token-1); !errors.Is(err, pglocker.ErrWrongGeneration) {
			t.Errorf("RequestResign of an earlier term: %v, want ErrWrongGeneration", err)
		}

		Must(t, test.asks(c).RequestResign(ctx, first.Token))
		Receive(t, "its term ends", first.Ctx.Done())

		if cause := context.Cause(first.Ctx); !errors.Is(cause, pglocker.ErrResignRequested) {
			t.Errorf("the term ended for %v, want ErrResignRequested", cause)
		}

		// It may lead again by now.
		err := c.IsLeader(ctx)
		if term, _ := other.Leader(ctx); !errors.Is(err, pglocker.ErrNotLeader) && (err != nil || term.Token <= first.Token) {
			t.Errorf("IsLeader: %v with token %d, want ErrNotLeader", err, term.Token)
		}

		second := Receive(t, "it leads again", c.Elected)
		Must(t, test.asks(c).RequestResign(ctx, second.Token)) // the earlier request is on the row

		if term := Receive(t, "it leads again", c.Elected); term.Token <= second.Token || second.Ctx.Err() == nil {
			t.Errorf("token %d after %d", term.Token, second.Token)
		}

		c.End(t)

		if told := len(c.Told); told > 0 {
			t.Errorf("resignations were told as %d errors", told)
		}
	}
}
