package store

import (
	"context"
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
}

// lease is what a renewal is found again by.
type lease struct {
	lockID     string
	generation int64
}

// Renew renews leases in one statement. The results stand in the order of the
// renewals; a lease that is asked for twice gets the longer TTL. sent is the moment
// before the statement went out. After an error nothing is known, and since a renewal
// can be repeated that is all there is to say.
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

	a := write(ctx, s, sh.statements.renew, []any{ids, generations, ttls},
		func(from scanner) (o one[time.Time], err error) {
			err = from.Scan(&o.number, &o.value)

			return o, err
		})
	if a.err != nil {
		return nil, time.Time{}, a.err
	}

	states := make(map[lease]RenewResult, len(renewals))
	for _, r := range a.rows {
		states[leases[r.number-1]] = RenewResult{State: Renewed, ExpiresAt: r.value.UTC()}
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
