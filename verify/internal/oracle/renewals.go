package oracle

import (
	"github.com/ismurov/pglocker/verify/internal/history"
)

// checkRenewals checks that each end of a lease that a holder knew to be acknowledged was
// committed. A crash excuses none that is missing.
func (s *settler) checkRenewals() {
	type lease struct {
		tenure
		expires int64
	}

	committed := make(map[lease]bool)

	for _, t := range s.run.Audit {
		if t.New.Owner != "" {
			committed[lease{tenure{clientOf(t.New.Owner), t.Lock, t.New.Generation}, t.New.Expires}] = true
		}
	}

	grants := make(map[tenure]*history.Operation)
	for _, op := range acknowledgedGrants(s.run.History) {
		grants[tenure{op.Client, op.Lock, op.Token}] = op
	}

	for _, e := range s.run.History.Renewals {
		of := tenure{e.Client, e.Lock, e.Token}
		if committed[lease{of, e.Expires}] {
			continue
		}

		// It was acknowledged at some time since the grant.
		held := &history.Operation{Event: e, End: e.At}
		if grant := grants[of]; grant != nil {
			held.Call = grant.Call
		}

		if !s.run.within(held, history.Loss) {
			s.violate(e.Lock, "an acknowledged renewal was not committed, or lost", grants[of], e)
		}
	}
}
