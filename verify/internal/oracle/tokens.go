package oracle

import (
	"cmp"
	"maps"
	"slices"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// CheckTokens is O3, for G1. No two grants of a lock, or of a family, have the same token. A grant that was asked
// for after another was acknowledged has a larger one. It rests on what the clients saw alone. An
// old primary that was left to grant beside the new one has smaller tokens, but no equal ones;
// [Measure] counts them.
func CheckTokens(run *Run) []Violation {
	violations, _ := compareTokens(run)

	return violations
}

func compareTokens(run *Run) (violations []Violation, smaller int) {
	grants := byLock(acknowledgedGrants(run.History), func(op *history.Operation) string { return op.Lock })

	// A semaphore's tokens, and those of readers and writers, are comparable.
	families := byLock(requestsOf(acknowledgedGrants(run.History)), func(op *history.Operation) string { return op.Family })
	delete(families, "")
	maps.Copy(grants, families)

	for _, lock := range sortedKeys(grants) {
		seen := make(map[int64]*history.Operation)

		for _, op := range grants[lock] {
			if other := seen[op.Token]; other != nil {
				violations = append(violations, Violation{
					Tokens, lock, "two grants have the same token", describe(other, op),
				})
			}

			seen[op.Token] = op
		}

		late, old := checkOrder(run, lock, grants[lock])
		violations = append(violations, late...)
		smaller += old
	}

	return violations, smaller
}

// checkOrder goes through the grants as they were asked for, and compares each with the
// largest token that was acknowledged before, and with the largest of its own timeline.
func checkOrder(run *Run, lock string, asked []*history.Operation) (violations []Violation, smaller int) {
	var (
		largest  *history.Operation
		within   = make(map[int64]*history.Operation) // the largest of each timeline
		answered = slices.SortedStableFunc(slices.Values(asked), func(a, b *history.Operation) int {
			return cmp.Compare(a.End, b.End)
		})
	)

	for _, op := range asked { // in the order of their calls
		for len(answered) > 0 && answered[0].End < op.Call {
			first := answered[0]
			if largest == nil || first.Token > largest.Token {
				largest = first
			}

			if t := timeline(first.Token); within[t] == nil || first.Token > within[t].Token {
				within[t] = first
			}

			answered = answered[1:]
		}

		own := within[timeline(op.Token)]

		switch {
		case largest == nil || op.Token > largest.Token:
		case timeline(op.Token) < timeline(largest.Token) && run.leftBehind(op) && (own == nil || op.Token > own.Token):
			smaller++
		default:
			violations = append(violations, Violation{
				Tokens, lock, "a later grant has no larger token", describe(largest, own, op),
			})
		}
	}

	return violations, smaller
}

func acknowledgedGrants(h *history.History) []*history.Operation {
	var grants []*history.Operation

	for _, op := range h.Operations {
		if op.Kind.Grants() && op.Outcome == history.OK {
			grants = append(grants, op)
		}
	}

	return grants
}
