package store

import (
	"context"
	"database/sql"
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

// Renew renews leases in one statement; no lock id may be twice in it. The
// results stand in the order of the renewals; sent is the moment before the
// statement went out. After an error nothing is known, and since a renewal can
// be repeated that is all there is to say.
func (s *Store) Renew(ctx context.Context, renewals []Renewal) (results []RenewResult, sent time.Time, err error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}

	ids := make([]string, len(renewals))
	generations := make([]int64, len(renewals))
	ttls := make([]int64, len(renewals))
	index := make(map[string]int, len(renewals))

	for i, r := range renewals {
		ids[i], generations[i], ttls[i] = r.LockID, r.Generation, Microseconds(r.TTL)
		index[r.LockID] = i
	}

	type renewed struct {
		id        string
		expiresAt time.Time
	}

	a := write(ctx, s, sh.statements.renew,
		[]any{textArray(ids), bigintArray(generations), bigintArray(ttls)},
		func(rows *sql.Rows) (r renewed, err error) {
			var durable sql.NullString
			err = rows.Scan(&r.id, &r.expiresAt, &durable)

			return r, err
		})
	if a.err != nil {
		return nil, time.Time{}, a.err
	}

	results = make([]RenewResult, len(renewals))
	for _, r := range a.rows {
		results[index[r.id]] = RenewResult{State: Renewed, ExpiresAt: r.expiresAt.UTC()}
	}

	if len(a.rows) == len(renewals) {
		return results, a.sent, nil
	}

	// Busy or gone? What was passed over is asked for once more.
	var (
		missing            []string
		missingGenerations []int64
	)

	for i, r := range results {
		if r.State != Renewed {
			missing = append(missing, ids[i])
			missingGenerations = append(missingGenerations, generations[i])
		}
	}

	held, err := read(ctx, s, sh.statements.held,
		[]any{textArray(missing), bigintArray(missingGenerations)},
		func(rows *sql.Rows) (id string, err error) {
			err = rows.Scan(&id)

			return id, err
		})
	if err != nil {
		// The renewals that succeeded are worth more than the error: the rest is
		// asked again, as if busy.
		held = missing
	}

	for _, id := range held {
		results[index[id]] = RenewResult{State: RenewBusy}
	}

	return results, a.sent, nil
}
