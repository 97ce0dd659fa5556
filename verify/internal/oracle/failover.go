package oracle

import (
	"slices"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// isCrash reports whether a note says that releases may have been undone.
func isCrash(e history.Event) bool {
	return e.Kind == history.Crash || e.Kind == history.Failover
}

// within reports whether an operation was under way at some time of a note of that kind.
func (r *Run) within(op *history.Operation, kind history.Kind) bool {
	return slices.ContainsFunc(r.History.Notes, func(e history.Event) bool {
		return e.Kind == kind && op.Call <= e.At && op.End >= e.From
	})
}

// timeline is the timeline on which a token was issued, counted from zero. The library puts it into
// the bits above 40.
func timeline(token int64) int64 { return token >> 40 }

// leftBehind reports whether an operation went to an old primary that was left running.
func (r *Run) leftBehind(op *history.Operation) bool {
	return slices.ContainsFunc(r.History.Notes, func(e history.Event) bool {
		return e.Kind == history.OldPrimary && e.Detail == op.Client && op.Call <= e.At && op.End >= e.From
	})
}

// lossExplains reports whether two clients believe in a lock because a promotion lost the first
// one's grant or its last renewals. The other then has its grant of a later timeline. The first
// still believed in what it had, or had asked for, when commits were lost, for no longer than its
// lease lasts from then on.
//
// Or the older grant is kept alive at the new primary, and an old primary that runs on, where it
// isn't, grants the lock to another.
func (r *Run) lossExplains(one, other *belief) bool {
	if one.grant.Token > other.grant.Token {
		one, other = other, one
	}

	sameServer := timeline(one.grant.Token) == timeline(other.grant.Token)
	if sameServer && (r.leftBehind(one.grant) || !r.leftBehind(other.grant)) {
		return false
	}

	until := min(one.end, other.end)

	return slices.ContainsFunc(r.History.Notes, func(e history.Event) bool {
		return e.Kind == history.Loss && one.grant.Call <= e.At && other.grant.End >= e.From &&
			until <= e.At+one.grant.TTL
	})
}

// Losses are the cost of promotions that lose commits. docs/guarantees.md excepts it.
type Losses struct {
	// Grants were acknowledged and lost.
	Grants int
	Overlaps
	// Smaller counts tokens that an old primary granted after larger ones by the new one.
	Smaller int
}

// Overlaps are beliefs of two clients in the same lock at the same moment.
type Overlaps struct {
	Count   int
	Longest time.Duration
}

func (o *Overlaps) add(d time.Duration) {
	o.Count++
	o.Longest = max(o.Longest, d)
}

// Measure counts what the oracles except.
func Measure(run *Run, settled *Settled) Losses {
	losses := Losses{Grants: len(settled.LostInFailover)}
	_, losses.Overlaps, _ = compareBeliefs(run)
	_, losses.Smaller = compareTokens(run)

	return losses
}
