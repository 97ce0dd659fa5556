package oracle

import (
	"slices"
	"strings"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// Bears is what may happen in a run whose faults the library has to bear: another request, another
// connection or a later attempt succeeds.
type Bears struct {
	// Losses: locks may be lost, since they can't be renewed.
	Losses bool
	// Cause is part of the cause of every loss that counts, and of every failed release that
	// counts. A busy machine may be the cause of others.
	Cause string
	// Refusals are parts of the errors by which a request may be refused that is made once and
	// doesn't wait.
	Refusals []string
}

const (
	// sparedStall is how long a client must have stood still, all in all, for its loss of a lock to be excused.
	// A third of the lease is left for renewals after the first, and some time after a stall.
	sparedStall = traffic.SparedTTL / 4
	// early is how much before its time a request may end.
	early = 5 * time.Millisecond
	// leaseLeft is what is left of a lease that still runs for certain.
	leaseLeft = 50 * time.Millisecond
)

// CheckBearing is O7. A fault that leaves a lock alone costs no client the lock, ends no wait
// before its time, and keeps no holder from releasing. A row that can't be changed costs its own
// lock, and no other. Only runs without other faults can show that.
func CheckBearing(run *Run) []Violation {
	// A pooler that ended by itself is another fault.
	died := func(e history.Event) bool { return e.Kind == history.PoolerDied }
	if run.Bears == nil || slices.ContainsFunc(run.History.Notes, died) {
		return nil
	}

	return slices.Concat(checkSpared(run), checkRefusals(run), checkGivenUp(run))
}

// spoiled reports whether a lock's row couldn't be changed at some time of the window.
func (r *Run) spoiled(lock string, w window) bool {
	return slices.ContainsFunc(r.History.Notes, func(e history.Event) bool {
		return e.Kind == history.RowRefused && e.Detail == lock && e.From <= w.to && e.At >= w.from
	})
}

// checkSpared looks for locks that were lost. Shorter leases may be lost on a busy machine.
func checkSpared(run *Run) (violations []Violation) {
	if run.Bears.Losses {
		return nil
	}

	grants := make(map[tenure]*history.Operation)
	for _, op := range acknowledgedGrants(run.History) {
		grants[tenure{op.Client, op.Lock, op.Token}] = op
	}

	for _, e := range run.History.Notes {
		grant := grants[tenure{e.Client, e.Lock, e.Token}]
		if e.Kind != history.Lost || grant == nil || grant.TTL < int64(traffic.SparedTTL) ||
			!strings.Contains(e.Detail, pglocker.ErrLockLost.Error()) || !strings.Contains(e.Detail, run.Bears.Cause) {
			continue
		}

		lease := window{max(grant.Call, e.At-grant.TTL), e.At}
		if run.spoiled(e.Lock, lease) || stalledIn(run, e.Client, lease) > int64(sparedStall) {
			continue
		}

		violations = append(violations, Violation{Bearing, e.Lock, "lost by nothing that was done to it", describe(grant, e)})
	}

	return violations
}

// checkRefusals looks for refused requests that could have been made again.
func checkRefusals(run *Run) (violations []Violation) {
	for _, op := range run.History.Operations {
		if op.Outcome != history.Refused || op.End == history.Never || outOfTime(op) ||
			op.Kind == history.Guard || op.Kind == history.Grant ||
			run.spoiled(op.Lock, window{op.Call, op.End}) {
			continue
		}

		// The run has ended meanwhile.
		if strings.Contains(op.Detail, "context canceled") || strings.Contains(op.Detail, pglocker.ErrClosed.Error()) {
			continue
		}

		once := slices.ContainsFunc(run.Bears.Refusals, func(part string) bool { return strings.Contains(op.Detail, part) })
		if once && !op.Waits {
			continue
		}

		violations = append(violations, Violation{Bearing, op.Lock, "refused by something that would have passed", describe(op)})
	}

	return violations
}

// outOfTime reports whether a request ended because its time was over.
func outOfTime(op *history.Operation) bool {
	took := op.End - op.Call + int64(early)

	return op.Limit > 0 && took >= op.Limit || op.Wait > 0 && took >= op.Wait
}

// checkGivenUp looks for releases that were given up though the lease still ran.
func checkGivenUp(run *Run) (violations []Violation) {
	known := make(map[tenure]int64)
	for _, e := range run.History.Renewals {
		of := tenure{e.Client, e.Lock, e.Token}
		known[of] = max(known[of], e.Expires)
	}

	for _, op := range run.History.Operations {
		if op.Kind != history.Unlock && op.Kind != history.Leave || op.Outcome != history.Unknown ||
			op.End == history.Never || outOfTime(op) || run.spoiled(op.Lock, window{op.Call, op.End}) ||
			!strings.Contains(op.Detail, run.Bears.Cause) {
			continue
		}

		if _, shown := run.shown(op.End, op.End); known[tenure{op.Client, op.Lock, op.Generation}] > shown+leaseLeft.Microseconds() {
			violations = append(violations, Violation{Bearing, op.Lock, "given up to release though the lease still ran", describe(op)})
		}
	}

	return violations
}
