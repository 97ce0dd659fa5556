package oracle

import (
	"slices"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// checkFreed checks that each release, and each lock that was created, comes from a request that
// was acknowledged, or whose outcome is open.
func (s *settler) checkFreed(ops []*history.Operation, chain []*audit.Transition) {
	acknowledged := make(map[tenure]string)

	for _, op := range ops {
		if op.Outcome == history.OK && op.Kind.Grants() {
			acknowledged[tenure{op.Client, op.Lock, op.Token}] = op.Owner
		}
	}

	for _, t := range chain {
		if t.New.Owner != "" || t.Renews() || t.New.Generation == 0 {
			continue
		}

		if traffic.IsBare(t.Lock) && t.Old.Expires <= s.run.seenBy(t, nil) {
			continue // a grant that came late looks like this, too
		}

		of := tenure{t.App, t.Lock, t.Old.Generation}
		named := s.run.naming(t)

		switch {
		case t.Old == audit.Version{}:
			if !s.created(ops, t) {
				s.violate(t.Lock, "created by a client that didn't ask for it", t)
			}
		case t.Old.Owner != "" && acknowledged[of] != t.Old.Owner && clientOf(t.Old.Owner) == t.App:
			// Returned, or handed over: no client was told of that grant.
		case !slices.ContainsFunc(named, mayHaveFreed) && !s.leftToClose(of):
			things := []any{t}
			for _, op := range named {
				things = append(things, op)
			}

			s.violate(t.Lock, "released by a client of which every request was refused", things...)
		}
	}
}

// mayHaveFreed reports whether a request may have released the generation that it names.
func mayHaveFreed(op *history.Operation) bool {
	switch {
	case !op.Kind.Frees():
		return false
	case op.Kind == history.Release:
		return op.Outcome == history.OK || op.Outcome == history.Unknown
	}

	// A holder that is told of a loss may have released the lock all the same, as a courtesy to
	// waiters.
	return op.Outcome != history.Refused
}

// created reports whether a request of the client may have created the lock.
func (s *settler) created(ops []*history.Operation, t *audit.Transition) bool {
	_, last := s.run.momentsOf(t)

	return slices.ContainsFunc(ops, func(op *history.Operation) bool {
		// Recipes create the rows that they need before they ask for them. In the plain dialect all requests do.
		creates := op.Kind == history.Create && op.Outcome != history.Refused || op.Kind == history.All || op.Family != "" ||
			s.run.Extras.Plain && op.Kind.Grants()

		return creates && op.Client == t.App && op.Call <= last
	})
}

// leftToClose reports whether only Close unlocks what was granted.
func (s *settler) leftToClose(of tenure) bool {
	return slices.ContainsFunc(s.run.History.Notes, func(e history.Event) bool {
		return e.Kind == history.Lost && e.Detail == traffic.LeftToClose && tenure{e.Client, e.Lock, e.Token} == of
	})
}
