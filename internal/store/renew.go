package store

import (
	"context"
	"strings"
	"time"
)

// Renewal asks for one lease to run for TTL from now.
type Renewal struct {
	LockID     string
	Generation int64
	TTL        time.Duration
}

// RenewState is what became of one renewal.
type RenewState int

const (
	// RenewGone: the generation is another, or the lease has ended. Final.
	RenewGone RenewState = iota
	// RenewBusy: somebody has the row locked. The lease still runs.
	RenewBusy
	// Renewed: the lease runs until ExpiresAt, and that is durable.
	Renewed
)

// RenewResult is the answer to one [Renewal].
type RenewResult struct {
	State     RenewState
	ExpiresAt time.Time
	// Lease is how long the row shows the lease, counted from a moment after the statement
	// was sent: at least what was asked for, unless a trigger cut it.
	Lease time.Duration
}

// lease is what a renewal is found again by.
type lease struct {
	lockID     string
	generation int64
}

// Renew renews leases in one statement. The results stand in the order of the
// renewals; a lease that is asked for twice gets the longer TTL. sent is the moment
// before the statement went out. After an error nothing is known, and since a renewal
// can be repeated that is all there is to say. If [Divides] says so, some of them
// may succeed without the others.
func (s *Store) Renew(ctx context.Context, renewals []Renewal) (results []RenewResult, sent time.Time, err error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}

	leases := make([]lease, len(renewals))
	longest := make(map[lease]time.Duration, len(renewals))

	for i, r := range renewals {
		leases[i] = lease{r.LockID, r.Generation}
		longest[leases[i]] = max(longest[leases[i]], r.TTL)
	}

	ttls := make([]int64, len(renewals))
	for i, l := range leases {
		ttls[i] = Microseconds(longest[l])
	}

	ids, generations := arrays(leases)

	a := s.sendRenewal(ctx, sh.statements.renew, []any{ids, generations, ttls})
	if a.err != nil {
		return nil, time.Time{}, a.err
	}

	states := make(map[lease]RenewResult, len(renewals))
	for _, r := range a.rows {
		states[leases[r.number-1]] = RenewResult{
			State: Renewed, ExpiresAt: r.value.ExpiresAt.UTC(), Lease: leaseOf(r.value.ExpiresAt, r.value.Began),
		}
	}

	// Busy or gone? What was passed over is asked for once more.
	var missing []lease

	for _, l := range leases {
		if states[l].State != Renewed {
			missing = append(missing, l)
		}
	}

	if len(missing) > 0 {
		for _, l := range s.stillHeld(ctx, sh, missing) {
			states[l] = RenewResult{State: RenewBusy}
		}
	}

	results = make([]RenewResult, len(renewals))
	for i, l := range leases {
		results[i] = states[l]
	}

	return results, a.sent, nil
}

// sendRenewal sends the statement, and again a few times if it didn't reach the server or
// was rolled back for the sake of others. No longer: with fewer leases it may succeed.
func (s *Store) sendRenewal(ctx context.Context, text string, args []any) answer[one[Row]] {
	scan := func(from scanner) (o one[Row], err error) {
		err = from.Scan(&o.number, &o.value.ExpiresAt, &o.value.Began)

		return o, err
	}

	var moved tries

	for n := 1; ; n++ {
		a := ask(ctx, s, text, args, scan)

		for a.outcome == refused && s.afresh(a.err, &moved) {
			a = ask(ctx, s, text, args, scan)
		}

		again := a.outcome == nothingSent && sqlState(a.err) == "" ||
			a.outcome == refused && (retriable(a.err) || s.lostStatement(a.err, a.named))
		if a.err != nil && again && n < sendAttempts && pause(ctx, n) {
			continue
		}

		if outdated(a.err) {
			s.shape.set(nil)
		}

		a.err = s.named(ctx, a.err)

		return a
	}
}

// Divides reports whether the server refused renewals perhaps on account of some of them
// only: a trigger, a policy, a constraint, a page that can't be read, a limit of time. It
// leaves out what is about the connection, the table or the server as a whole. It goes
// further than [divisible], since a renewal may be repeated whatever became of it.
func Divides(err error) bool {
	switch code := sqlState(err); code {
	case "", codeUndefinedTable, codeUndefinedColumn, codeReadOnlyTransaction,
		codeInvalidStatementName, codeDuplicateStatement:
		return false
	default:
		// Connections, authorization, catalogs, resources, operators.
		for _, class := range []string{"08", "28", "3D", "53", "57P"} {
			if strings.HasPrefix(code, class) {
				return false
			}
		}
	}

	return true
}

// stillHeld returns those of the leases that still run. If it can't ask, that is
// all of them: the renewals of the others are worth more than the error, and
// these will be asked for again, as if busy.
func (s *Store) stillHeld(ctx context.Context, sh *shape, leases []lease) []lease {
	ids, generations := arrays(leases)

	numbers, err := read(ctx, s, sh.statements.held, []any{ids, generations}, func(from scanner) (n int64, err error) {
		err = from.Scan(&n)

		return n, err
	})
	if err != nil {
		return leases
	}

	return valuesOf(numbers, func(n int64) lease { return leases[n-1] })
}

// arrays splits leases into columns.
func arrays(leases []lease) (ids []string, generations []int64) {
	return valuesOf(leases, func(l lease) string { return l.lockID }),
		valuesOf(leases, func(l lease) int64 { return l.generation })
}
