package oracle

import (
	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
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

// checkRelockers checks that a lease ran when its relocker was told to stop, if the relocker
// released it then, and so had believed in it. Only the audit has its renewals. Before its first
// acknowledged renewal a relocker knows nothing of a lease: for a TTL after its call it may go by
// its call alone.
func (s *settler) checkRelockers(chains map[string][]*audit.Transition) {
	for _, op := range s.run.History.Operations {
		if op.Kind != history.Relock || op.Outcome != history.OK {
			continue
		}

		stopped := s.run.relockerStopped(op)
		if stopped-op.Call <= op.TTL || s.run.within(op, history.Loss) || s.run.setAhead(op.Call, stopped) {
			continue
		}

		var last *audit.Transition

		for _, t := range chains[op.Lock] {
			if first, _ := s.run.momentsOf(t); t.New.Generation == op.Generation && first <= stopped {
				last = t
			}
		}

		if shown, _ := s.run.shown(stopped, stopped); last == nil || last.New.Expires < shown {
			s.violate(op.Lock, "a relocker kept a lease that was over", op, last)
		}
	}
}

// relockerStopped is when a relocker was told to stop, 0 if it wasn't.
func (r *Run) relockerStopped(op *history.Operation) int64 {
	for _, e := range r.History.Notes {
		if e.Kind == history.Lost && e.Detail == traffic.RelockerStopped && e.Client == op.Client && e.Lock == op.Lock &&
			e.Token == op.Generation && e.At >= op.Call && e.At <= op.End {
			return e.At
		}
	}

	return 0
}
