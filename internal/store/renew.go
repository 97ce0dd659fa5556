package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// renew: held by a generation -> held for longer. Only the expiry moves, only to later. A lease
// that ended is never revived. It passes over a locked row: a guard's share lock lasts as long as
// its transaction.
var renew = verb{
	given: parameters{paramID, paramGeneration, paramTTL},
	many: strings.Replace(with(changeMany(sqlRenewOnce, sqlStillHeld, `, renewed AS (`,
		`expires_at = greatest(l.expires_at, c.now {+} ({ttl} {*} {us}))`,
		`r.n, l.expires_at`)+sqlRenewed, "{lock}", "{lock_expiry}"), "l.*, r.*", "l.*, r.n, r.ttl", 1),
}

// sqlRenewOnce is what the renewals of a batch share. The clock is read once, so leases of one TTL get one expiry.
const sqlRenewOnce = `{now} AS now, {durable} AS durable`

// sqlRenewed returns a row for each expiry, with the numbers of the requests that got it: for thousands of leases one
// row, as a rule.
const sqlRenewed = `
)
SELECT {iso}` + sqlExpiresAt + `{/iso}, {began}, pg_catalog.array_to_string(pg_catalog.array_agg(l.n), ',')
  FROM renewed AS l
 GROUP BY l.expires_at`

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
	// Left is for how long its holder believes, if there is no answer.
	Left time.Duration
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
	// RenewUnanswered: nothing is known, and the renewal can be repeated, though others have an answer.
	RenewUnanswered
)

// RenewResult is the answer to one [Renewal].
type RenewResult struct {
	State     RenewState
	ExpiresAt time.Time
	// Lease is how long the row shows the lease, counted from after the statement was sent.
	Lease time.Duration
	// Err is why there is no answer. It is nil if the server of the row has just not answered.
	Err error
}

// RenewedFunc is told of some of the renewals, by their places.
type RenewedFunc func(places []int, results []RenewResult, sent time.Time)

// Renew renews leases in one statement. The results are in the order of the renewals, which is best that of the
// ids. A lease that is asked for twice gets the longer TTL. After an error nothing is known, and the renewal can be
// repeated: see [Divides]. Where it takes several statements, tell is called after each, unless it is nil: the next may
// have no answer for long.
func (s *Store) Renew(ctx context.Context, renewals []Renewal, tell RenewedFunc) (results []RenewResult, sent time.Time, err error) {
	ascends := func(a, b Renewal) int { return cmp.Or(strings.Compare(a.LockID, b.LockID), -1) }
	if slices.IsSortedFunc(renewals, ascends) {
		return s.renew(ctx, renewals, tell)
	}

	type lease struct {
		lockID     string
		generation int64
	}

	var (
		once   = make([]Renewal, 0, len(renewals))
		places = make([]int, len(renewals))
		seen   = make(map[lease]int, len(renewals))
	)

	for i, r := range renewals {
		place, again := seen[lease{r.LockID, r.Generation}]
		if !again {
			place = len(once)
			seen[lease{r.LockID, r.Generation}] = place
			once = append(once, r)
		}

		once[place].TTL = max(once[place].TTL, r.TTL)
		places[i] = place
	}

	results, sent, err = s.renew(ctx, once, nil)
	if err != nil {
		return nil, sent, err
	}

	return valuesOf(places, func(place *int) RenewResult { return results[*place] }), sent, nil
}

// renew is Renew for different leases.
func (s *Store) renew(ctx context.Context, renewals []Renewal, tell RenewedFunc) (results []RenewResult, sent time.Time, err error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}

	a := s.askRenewal(ctx, sh, renewals, tell)
	if a.outcome == refused && outdated(a.err) {
		if found, ok := s.changed(ctx, sh); ok {
			sh = found
			a = s.askRenewal(ctx, sh, renewals, tell)
		}
	}

	if a.err != nil {
		return nil, time.Time{}, a.err
	}

	return a.rows, a.sent, nil
}

// renewed is an expiry and the places of the renewals that got it.
type renewed struct {
	expiresAt, began time.Time
	places           []int
}

func (r *renewed) result() RenewResult {
	return RenewResult{State: Renewed, ExpiresAt: r.expiresAt.UTC(), Lease: leaseOf(r.expiresAt, r.began)}
}

// scanRenewed reads a row of sqlRenewed, the answer to so many renewals.
func scanRenewed(asked int) scanFunc[renewed] {
	var numbers text

	return func(from scanner) (r renewed, err error) {
		if err := from.Scan(&r.expiresAt, &r.began, &numbers); err != nil {
			return r, err
		}

		r.places = make([]int, 0, bytes.Count(numbers, []byte(","))+1)
		for number := range bytes.SplitSeq(numbers, []byte(",")) {
			place, err := strconv.Atoi(string(number))
			if err != nil || place < 1 || place > asked {
				return r, fmt.Errorf("pglocker: a renewal with the number %q of %d", number, asked)
			}

			r.places = append(r.places, place-1)
		}

		return r, nil
	}
}

// scanRenewedOne reads a row for one of so many renewals: its number, the expiry, and when the statement began.
func scanRenewedOne(asked int) scanFunc[renewed] {
	return func(from scanner) (r renewed, err error) {
		var number int

		err = from.Scan(&number, &r.expiresAt, &r.began)
		if err == nil && (number < 1 || number > asked) {
			err = fmt.Errorf("pglocker: a renewal with the number %d of %d", number, asked)
		}

		r.places = []int{number - 1}

		return r, err
	}
}

// askRenewal sends renewals in the dialect of the shape. Without an error the answer has a row for each.
func (s *Store) askRenewal(ctx context.Context, sh *shape, renewals []Renewal, tell RenewedFunc) answer[RenewResult] {
	if sh.plain {
		return s.renewPlainly(ctx, sh, renewals, tell)
	}

	args := []any{ // renew.given
		valuesOf(renewals, func(r *Renewal) string { return r.LockID }),
		valuesOf(renewals, func(r *Renewal) int64 { return r.Generation }),
		valuesOf(renewals, func(r *Renewal) int64 { return Microseconds(r.TTL) }),
	}

	a := s.sendRenewal(ctx, sh.statements.of(&renew).many, args, scanRenewed(len(renewals)))
	if a.err != nil {
		return answer[RenewResult]{outcome: a.outcome, err: a.err}
	}

	results := make([]RenewResult, len(renewals))

	for _, r := range a.rows {
		for _, place := range r.places {
			results[place] = r.result()
		}
	}

	// Busy or gone? It asks about those that were passed over.
	var (
		missing []Renewal
		places  []int
	)

	for i, r := range results {
		if r.State != Renewed {
			missing = append(missing, renewals[i])
			places = append(places, i)
		}
	}

	if len(missing) > 0 {
		for _, held := range s.stillHeld(ctx, sh, missing) {
			results[places[held]].State = RenewBusy
		}
	}

	return answer[RenewResult]{rows: results, sent: a.sent}
}

// sendRenewal sends the statement a few times at most: with fewer leases it may succeed.
func (s *Store) sendRenewal(ctx context.Context, text string, args []any, scan scanFunc[renewed]) answer[renewed] {
	a := insist(ctx, s, func(bool) answer[renewed] { return ask(ctx, s, text, args, scan) }, func(a answer[renewed]) bool {
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

// stillHeld returns the places of those leases that still run. If it can't ask, that is all of them: they
// are asked for again, as if busy.
func (s *Store) stillHeld(ctx context.Context, sh *shape, renewals []Renewal) (places []int) {
	reqs := requests(renewals)

	numbers, err := read(ctx, s, sh.statements.of(&held).many, held.given.ofMany(reqs, sh.full), scanOne[int64])
	if err != nil {
		for i := range reqs {
			places = append(places, i)
		}

		return places
	}

	return valuesOf(numbers, func(n *int64) int { return int(*n) - 1 })
}

func requests(renewals []Renewal) []request {
	return valuesOf(renewals, func(r *Renewal) request {
		return request{id: r.LockID, generation: r.Generation, ttl: Microseconds(r.TTL)}
	})
}
