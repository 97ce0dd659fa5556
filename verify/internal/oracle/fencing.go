package oracle

import (
	"fmt"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// CheckFencing is O4, for G8: each write to a fenced resource, in the database and outside
// of it, builds on the one before, and no writer comes after one with a larger token.
func CheckFencing(run *Run) []Violation {
	return append(checkWrites("counter", run.Writes), checkWrites("outside", outsideWrites(run.History))...)
}

// outsideWrites are those that the resource outside of the database took, in its order.
func outsideWrites(h *history.History) []Write {
	var writes []Write

	for _, e := range h.Notes {
		if e.Kind == history.Write {
			writes = append(writes, Write{Lock: e.Lock, Token: e.Token, Value: e.Value, Client: e.Client})
		}
	}

	return writes
}

func checkWrites(resource string, all []Write) []Violation {
	var violations []Violation

	writes := byLock(all, func(w Write) string { return w.Lock })

	for _, lock := range sortedKeys(writes) {
		var before Write

		for _, w := range writes[lock] {
			switch {
			case w.Value != before.Value+1:
				violations = append(violations, Violation{
					Fencing, lock, fmt.Sprintf("%s: a write doesn't build on the one before, which is lost", resource),
					describe(before, w),
				})
			case w.Token < before.Token:
				violations = append(violations, Violation{
					Fencing, lock, fmt.Sprintf("%s: a stale write was accepted", resource), describe(before, w),
				})
			}

			before = w
		}
	}

	return violations
}
