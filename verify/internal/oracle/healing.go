package oracle

import "github.com/ismurov/pglocker/verify/internal/history"

// CheckHealing is O6, for G7 and for what Close promises: once nothing is broken any more, every
// lock is granted again, and a closed Locker leaves nothing behind. [CheckRecovery] judges the
// clients' own part in that.
func CheckHealing(run *Run) []Violation {
	var violations []Violation

	for _, op := range run.History.Operations {
		if op.Kind == history.Grant && op.Outcome != history.OK {
			violations = append(violations, Violation{Healing, op.Lock, "not granted again", describe(op)})
		}
	}

	for _, e := range run.History.Notes {
		if e.Kind == history.Leak {
			violations = append(violations, Violation{Healing, "", e.Client + " left something behind", []string{e.Detail}})
		}
	}

	return violations
}
