package pglocker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/store"
)

// Election chooses one leader among all processes that run it under the same name, on the same table. All of
// them should give it the same TTL. It is safe for concurrent use.
//
// The leader of a term holds the lock of the row pglocker:election:NAME. So all promises of a lock hold for a
// term: its token is larger than those of all earlier terms, and a leader stops before another can start,
// even if it can't reach the database.
type Election struct {
	locker *Locker
	name   string
	// id is the row of the election, and resignID the one by which a leader is asked to resign. termID is what
	// a change of the leader is announced by, and begins the ids of the rows of the log.
	id, resignID, termID string

	ttl     time.Duration
	options electionOptions

	// running: Run is under way.
	running atomic.Bool
	// leading is the present term of Run, nil while there is none.
	leading atomic.Pointer[leadership]
	// obstacle is what keeps Run from campaigning.
	obstacle trouble
}

// leadership is a term as its leader sees it.
type leadership struct {
	lock *Lock
	// ctx is that of Run's function.
	ctx context.Context
}

// Term is the time from one grant to a leader until it resigns or its lease ends. A Term whose Token is 0 is
// a vacancy: no candidate leads.
type Term struct {
	// Token is the fencing token of the term: larger than those of all earlier terms of this election.
	Token int64
	// Leader is who leads, in the form of [LockStatus.Owner]. It is "" for a vacancy, and on a table without
	// that column.
	Leader string
	// Since is when the term or the vacancy began, by the database's clock, in UTC. It is zero where that
	// isn't known: for a term on a table without the column acquired_at, and for an election without a row.
	Since time.Time
}

// Vacant reports whether no candidate leads.
func (t Term) Vacant() bool { return t.Token == 0 }

// Names of what belongs to an election, beside its row.
const (
	kindResign Kind = "resign"
	kindTerm   Kind = "term"
)

// NewElection returns an election. It sends nothing to the database and takes no part before [Election.Run]
// is called.
//
// ttl is the length of the leader's lease. If the leader crashes, the next one leads after ttl at most, and
// the time of a poll (0.4 s) where candidates aren't notified. The leader must stop within [Config.SafetyMargin]
// of the end of its context, by default a tenth of ttl.
//
// Errors: [ErrInvalidName]; [ErrInvalidTTL], also for a ttl that isn't longer than twice the safety margin;
// [ErrInvalidRelockInterval], [ErrInvalidInterval], [ErrInvalidBackoff] and [ErrFuncIsNil] for options.
func (l *Locker) NewElection(name string, ttl time.Duration, opts ...ElectionOption) (*Election, error) {
	e := &Election{locker: l, name: name, ttl: ttl}

	for kind, id := range map[Kind]*string{KindElection: &e.id, kindResign: &e.resignID, kindTerm: &e.termID} {
		var err error
		if *id, err = recipeID(kind, name); err != nil {
			return nil, err
		}
	}

	if err := l.validateTTL(ttl); err != nil {
		return nil, err
	}

	var err error
	if e.options, err = newElectionOptions(ttl, opts); err != nil {
		return nil, err
	}

	return e, nil
}

// IsLeader returns nil while the function of this Election's [Election.Run] leads, and else [ErrNotLeader]. It
// asks neither the database nor ctx, and takes about a microsecond. It goes by the local deadline of the
// lease. So a process that was cut off from the database, or was paused, gets ErrNotLeader before another can
// lead. From the end of the function's context to its return, the error also matches the cause of that end,
// such as [ErrLockLost].
func (e *Election) IsLeader(context.Context) error {
	term := e.leading.Load()
	if term == nil {
		return ErrNotLeader
	}

	if term.ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrNotLeader, notOurs{context.Cause(term.ctx)})
	}

	// The context ends a moment later if the process has just gone on after a pause.
	if e.locker.renewer.Term(&term.lock.lease).Left(time.Now()) <= 0 {
		return fmt.Errorf("%w: its lease is over", ErrNotLeader)
	}

	return nil
}

// Leader asks the database who leads. For information only: the term may have ended when you read it.
//
// Errors: [ErrNoLeader]; [ErrClosed]; those of the database's state; and what the driver reports. If ctx ends,
// the error matches its.
func (e *Election) Leader(ctx context.Context) (Term, error) {
	end, err := e.locker.desk.Begin()
	if err != nil {
		return Term{}, err
	}
	defer end()

	row, err := e.look(ctx)
	if err == nil && termOf(row).Vacant() {
		err = ErrNoLeader
	}

	if err != nil {
		return Term{}, failed("leader", e.name, err)
	}

	return termOf(row), nil
}

// RequestResign asks the leader of the term with that token to resign, in whichever process it is. Its
// function's context ends with cause [ErrResignRequested]: within milliseconds if it runs in this Locker, or
// if its Locker listens for another reason, and otherwise when the leader looks, once in each relock interval.
// The leader then waits for its function, releases the leadership, and campaigns again after a pause. So another
// candidate leads if there is one.
//
// RequestResign returns nil when the request is in the table. It doesn't wait for the leader. Errors:
//
//   - [ErrNoLeader], if no candidate leads.
//   - [ErrWrongGeneration], if that term is over and another candidate leads.
//   - [ErrUnknownOutcome], if the reply was lost. The call can be repeated.
//   - [ErrClosed], those of the database's state, and what the driver reports. If ctx ends, the request may
//     have been made or not.
func (e *Election) RequestResign(ctx context.Context, token int64) error {
	end, err := e.locker.desk.Begin()
	if err != nil {
		return err
	}
	defer end()

	row, err := e.look(ctx)

	switch {
	case err != nil:
	case termOf(row).Vacant():
		err = ErrNoLeader
	case row.Generation != token:
		err = fmt.Errorf("%w: the term of token %d is over, the present one has %d", ErrWrongGeneration, token, row.Generation)
	default:
		if err = e.locker.store.Resign(ctx, e.resignID, token); err == nil {
			e.locker.announce(e.resignID)
		}
	}

	return failed("request to resign", e.name, err)
}

// look reads the row of the election. An election that never had a leader has none: the zero Row.
func (e *Election) look(ctx context.Context) (store.Row, error) {
	res, err := e.locker.store.Look(ctx, e.id)
	row := res.Row

	// A row without an owner was released, even if it shows a later time since the database's clock was set back.
	if row.Owner == "" && row.Held() && e.locker.store.Full() {
		row.Now = row.ExpiresAt
	}

	return row, err
}

// logged is how many rows the log of terms has. Tokens grow by two from term to term, or by one.
const logged = 32

// logID is the row of the log for a term.
func (e *Election) logID(token int64) string {
	return e.termID + ":" + strconv.FormatInt(token%logged, 10)
}

// termOf is what a row shows: a term, or a vacancy since the end of the last one.
func termOf(row store.Row) Term {
	if !row.Held() {
		return Term{Since: row.ExpiresAt}
	}

	return Term{Token: row.Generation, Leader: row.Owner, Since: row.AcquiredAt}
}

// announce tells those who look at a row that it may have changed: at once in this Locker, and in others by a
// notification. A notification that gets lost costs them time, until they look by themselves.
func (l *Locker) announce(payload string) {
	l.news.tell(payload)

	if !l.store.Notifies() {
		return // nobody can listen
	}

	l.desk.Aside(func() {
		ctx, cancel := l.desk.UntilClosed(context.Background())
		defer cancel()

		ctx, stop := context.WithTimeout(ctx, beside.AttemptMax)
		defer stop()

		if err := l.store.Announce(ctx, payload); err != nil && !errors.Is(err, context.Canceled) {
			l.cfg.Logger.Info("pglocker: a change of the leader was not announced", "payload", payload, "error", err)
		}
	})
}
