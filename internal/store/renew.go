package store

import (
	"context"
	"slices"
	"time"
)

// renew: held by a generation -> held for longer. Only the expiry moves, only to later. A lease
// that ended is never revived. It passes over a locked row: a guard's share lock lasts as long as
// its transaction.
var renew = verb{
	given: parameters{paramID, paramGeneration, paramTTL},
	many: with(changeMany(`{durable} AS durable`, sqlStillHeld, "",
		`expires_at = greatest(l.expires_at, {now} {+} ({ttl} {*} {us}))`,
		`r.n, {iso}`+sqlExpiresAt+`{/iso}, {began}`), "{lock}", "{lock_expiry}"),
}

// held reads which leases still run. One that renew passed over is busy if it is among them, else
// gone.
var held = verb{
	given: parameters{paramID, paramGeneration},
	many: sqlPrimary + with(`
SELECT r.n
  FROM {requests} WITH ORDINALITY AS r ({columns}, n),
       LATERAL (SELECT
                  FROM {table} AS l
                 WHERE l.lock_id {=} {lock_id}
                   AND {where}
                OFFSET 0) AS l`, "{where}", sqlStillHeld),
}

const sqlStillHeld = sqlOfGeneration + `
   AND l.expires_at {>} {now}`

// Renewal asks for one lease to run for TTL from now.
type Renewal struct {
	LockID     string
	Generation int64
	TTL        time.Duration
}

// RenewState is what became of one renewal.
type RenewState int

const (
	// RenewGone: the generation is another, or the lease has ended. It is final.
	RenewGone RenewState = iota
	// RenewBusy: another transaction has the row locked. The lease still runs.
	RenewBusy
	// Renewed: the lease runs until ExpiresAt, and that is durable.
	Renewed
)

// RenewResult is the answer to one [Renewal].
type RenewResult struct {
	State     RenewState
	ExpiresAt time.Time
	// Lease is how long the row shows the lease, counted from after the statement was sent.
	Lease time.Duration
}

// lease is by what a renewal is found again.
type lease struct {
	lockID     string
	generation int64
}

// Renew renews leases in one statement. The results are in the order of the renewals. A lease that
// is asked for twice gets the longer TTL. After an error nothing is known, and the renewal can be
// repeated: see [Divides].
func (s *Store) Renew(ctx context.Context, renewals []Renewal) (results []RenewResult, sent time.Time, err error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}

	leases := valuesOf(renewals, func(r *Renewal) lease { return lease{r.LockID, r.Generation} })
	longest := make(map[lease]time.Duration, len(renewals))

	for i, r := range renewals {
		longest[leases[i]] = max(longest[leases[i]], r.TTL)
	}

	reqs := requests(leases)
	for i, l := range leases {
		reqs[i].ttl = Microseconds(longest[l])
	}

	a := s.askRenewal(ctx, sh, reqs)
	if a.outcome == refused && outdated(a.err) {
		if found, ok := s.changed(ctx, sh); ok {
			sh = found
			a = s.askRenewal(ctx, sh, reqs)
		}
	}

	if a.err != nil {
		return nil, time.Time{}, a.err
	}

	states := make(map[lease]RenewResult, len(renewals))
	for _, r := range a.rows {
		states[leases[r.place]] = RenewResult{
			State: Renewed, ExpiresAt: r.value.ExpiresAt.UTC(), Lease: leaseOf(r.value.ExpiresAt, r.value.Began),
		}
	}

	// Busy or gone? It asks about those that were passed over.
	missing := slices.DeleteFunc(slices.Clone(leases), func(l lease) bool { return states[l].State == Renewed })
	if len(missing) > 0 {
		for _, l := range s.stillHeld(ctx, sh, missing) {
			states[l] = RenewResult{State: RenewBusy}
		}
	}

	return valuesOf(leases, func(l *lease) RenewResult { return states[*l] }), a.sent, nil
}

// sendRenewal sends the statement a few times at most: with fewer leases it may succeed.
func (s *Store) sendRenewal(ctx context.Context, text string, args []any) answer[one[Row]] {
	scan := func(from scanner) (o one[Row], err error) {
		var number int64

		err = from.Scan(&number, &o.value.ExpiresAt, &o.value.Began)
		o.place = int(number) - 1

		return o, err
	}

	a := insist(ctx, s, func(bool) answer[one[Row]] { return ask(ctx, s, text, args, scan) }, func(a answer[one[Row]]) bool {
		return a.outcome == nothingSent && sqlState(a.err) == "" ||
			a.outcome == refused && (retriable(a.err) || s.lostStatement(a.err, a.named))
	})

	if outdated(a.err) {
		s.shape.found.Store(nil)
	}

	a.err = s.named(ctx, a.err)

	return a
}

// Divides reports whether the server may have refused renewals because of some of them alone: a
// trigger, a policy, a constraint, a limit of time. It goes further than [divisible], since a
// renewal may be repeated whatever became of it.
func Divides(err error) bool {
	// Connections, authorization, catalogs, resources, operators.
	return sqlState(err) != "" && !lostName(err) &&
		!hasState(err, "08", "28", "3D", "53", "57P", codeUndefinedTable, codeUndefinedColumn, codeReadOnlyTransaction)
}

// stillHeld returns those of the leases that still run. If it can't ask, that is all of them: they
// are asked for again, as if busy.
func (s *Store) stillHeld(ctx context.Context, sh *shape, leases []lease) []lease {
	if sh.plain {
		return s.stillHeldPlainly(ctx, sh, leases)
	}

	numbers, err := read(ctx, s, sh.statements.of[&held].many, held.given.ofMany(requests(leases), sh.full), scanOne[int64])
	if err != nil {
		return leases
	}

	return valuesOf(numbers, func(n *int64) lease { return leases[*n-1] })
}

// requests are those for leases.
func requests(leases []lease) []request {
	return valuesOf(leases, func(l *lease) request { return request{id: l.lockID, generation: l.generation} })
}
