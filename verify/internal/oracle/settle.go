package oracle

import (
	"fmt"
	"slices"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// Settled is what the audit says of the clients' requests.
type Settled struct {
	// Grants are the transitions that acknowledged requests for a lock made.
	Grants map[*history.Operation]*audit.Transition
	// Frees are the transitions that ended the tenure of an acknowledged release, whichever client
	// made them.
	Frees map[*history.Operation]*audit.Transition
	// Creates are those that acknowledged requests to create a lock made.
	Creates map[*history.Operation]*audit.Transition
	// LostInCrash are acknowledged releases that no transition shows.
	LostInCrash map[*history.Operation]bool
	// LostInFailover are acknowledged grants that no transition shows, because the standby
	// that was promoted lacked them.
	LostInFailover map[*history.Operation]bool
	// Claimed are all transitions of the maps above; the others were made by requests
	// whose outcome their clients don't know, or by the library on its own.
	Claimed map[*audit.Transition]bool
}

// Settle is O5, for G3, G4 and G5. It compares the audit, which shows what was committed and in
// which order, with what clients were told. The transitions of a lock must follow each other, each
// allowed by the one before. What was acknowledged must be among them. A transition that wasn't
// acknowledged must come from a request whose client didn't claim to know its outcome.
func Settle(run *Run) (*Settled, []Violation) {
	s := &settler{
		run: run,
		Settled: Settled{
			Grants:      make(map[*history.Operation]*audit.Transition),
			Frees:       make(map[*history.Operation]*audit.Transition),
			Creates:     make(map[*history.Operation]*audit.Transition),
			LostInCrash: make(map[*history.Operation]bool),
			Claimed:     make(map[*audit.Transition]bool),

			LostInFailover: make(map[*history.Operation]bool),
		},
	}

	transitions := byLock(run.Audit, func(t *audit.Transition) string { return t.Lock })
	operations := byLock(run.History.Operations, func(op *history.Operation) string { return op.Lock })
	families := byLock(run.History.Operations, func(op *history.Operation) string { return op.Family })

	for _, lock := range sortedKeys(operations) {
		if lock != "" {
			s.match(operations[lock], transitions[lock])
		}
	}

	s.checkRenewals()
	s.checkRelockers(transitions)

	for _, lock := range sortedKeys(transitions) {
		s.checkChain(transitions[lock])

		if !traffic.Leased(lock) {
			continue // no client is granted it, and those of its family move it
		}

		// A request may be granted one slot, and have made or been granted another before.
		asked := operations[lock]
		if family, _ := traffic.Part(lock); family != "" {
			asked = families[family]
		}

		s.checkSilent(asked, transitions[lock])
		s.checkFreed(asked, transitions[lock])
	}

	return &s.Settled, s.violations
}

type settler struct {
	Settled
	run        *Run
	violations []Violation
}

func (s *settler) violate(lock, what string, things ...any) {
	s.violations = append(s.violations, Violation{Audit, lock, what, describe(things...)})
}

// checkChain checks each transition of a lock against the one before.
func (s *settler) checkChain(chain []*audit.Transition) {
	var (
		before audit.Version
		// granted is the transition that made the present tenure.
		granted *audit.Transition
		// largest is the largest generation before the row was pruned.
		largest int64
	)

	askers := make(map[*audit.Transition]*history.Operation)
	for op, t := range s.Grants {
		askers[t] = op
	}

	for _, t := range chain {
		if t.Old != before {
			s.violate(t.Lock, fmt.Sprintf("the row was %+v before", before), t)
		}

		what := moved(t)
		if traffic.Leased(t.Lock) {
			what = illegal(t, s.run.sightOf(t, askers[t]))
		}

		if what != "" {
			s.violate(t.Lock, what, t)
		}

		if grant := askers[granted]; t.Renews() && grant != nil && !s.keptAlive(grant, t) {
			s.violate(t.Lock, "renewed though nobody asked to keep it alive", grant, t)
		}

		if !t.Renews() {
			granted = t
		}

		if made := (t.Old == audit.Version{}); made && t.New.Generation <= largest {
			s.violate(t.Lock, fmt.Sprintf("it had the generation %d before it was pruned", largest), t)
		}

		before, largest = t.New, max(largest, t.New.Generation)
	}
}

// keptAlive reports whether the grant is renewed by a client. A lease by hand is left alone until a
// relocker has it.
func (s *settler) keptAlive(grant *history.Operation, t *audit.Transition) bool {
	return grant.Kind != history.Acquire && grant.Kind != history.Refresh ||
		slices.ContainsFunc(s.run.naming(t), func(op *history.Operation) bool { return op.Kind == history.Relock })
}

// Pruner is the client that prunes.
const Pruner = "coordinator"

// moved says why a change of a row without a holder is not one of the protocol's, "" if it is.
func moved(t *audit.Transition) string {
	switch {
	case t.New == audit.Version{}:
		return "the row was deleted"
	case t.New.Generation < t.Old.Generation:
		return "the generation fell"
	}

	return ""
}

// illegal says why a transition is not one of the protocol's; "" if it is. seen is what its
// statement went by.
func illegal(t *audit.Transition, seen sight) string {
	var (
		// Any client that reads the shared lock may refresh and release it.
		anybody = t.Lock == traffic.Shared.ID
		// A grant of these that came late looks like a release.
		late    = traffic.IsBare(t.Lock) && t.Old.Expires <= seen.latest
		holders = t.Old.Owner == "" || clientOf(t.Old.Owner) == t.App || anybody
		made    = t.Old == audit.Version{}
	)

	switch {
	case t.New == audit.Version{}:
		if seen.pruned && t.App == Pruner && t.Old.Expires <= seen.latest {
			return ""
		}

		return "the row was deleted"
	case made && t.New.Owner == "" && t.New.Generation != 1 && !late && !seen.pruned:
		return "created with another generation than 1"
	case made && t.New.Owner != "" && t.New.Generation < 2:
		return "first granted with a generation below 2"
	case !t.Renews() && t.New.Owner != "" && clientOf(t.New.Owner) != t.App:
		return "granted to another than who asked"
	case made:
		return ""
	case t.New.Generation < t.Old.Generation:
		return "the generation fell"
	case t.Renews() && (t.New.Owner != t.Old.Owner || t.New.Acquired != t.Old.Acquired || t.New.Expires <= t.Old.Expires):
		return "a renewal changed more than the end of the lease, or shortened it"
	case t.Renews() && !holders:
		return "renewed by somebody else than the holder"
	case t.Renews() && t.Old.Owner == "":
		return "renewed though nobody held it"
	case t.Renews() && t.Old.Expires <= seen.earliest:
		return "a lease that was over was renewed"
	case t.Renews():
		return ""
	case t.New.Owner == "" && !holders && !late:
		return "released by somebody else than the holder"
	case t.New.Owner != "" && t.Old.Expires > seen.latest && !holders:
		return "granted while another held it"
	case t.New.Owner != "" && t.Old.Expires > seen.latest && t.Old.Owner == "" && !seen.refreshed:
		return "granted before it was free, at the end of a minimum hold"
	}

	return ""
}

// match finds the transitions of acknowledged requests.
func (s *settler) match(ops []*history.Operation, chain []*audit.Transition) {
	grants := make(map[string]*audit.Transition)
	ends := make(map[int64]*audit.Transition)
	var created *audit.Transition

	for _, t := range chain {
		switch {
		case t.Renews():
			continue
		case t.Grants():
			grants[fmt.Sprint(t.New.Owner, t.New.Generation)] = t
		case t.Old == audit.Version{}:
			created = t
		}

		ends[t.Old.Generation] = t
	}

	granted := make(map[tenure]*history.Operation)

	for _, op := range ops {
		if op.Outcome != history.OK {
			continue
		}

		switch {
		case op.Kind.Grants():
			t := grants[fmt.Sprint(op.Owner, op.Token)]
			if t == nil && traffic.IsBare(op.Lock) {
				t = lateGrant(op, chain)
			}

			s.matchGrant(op, t)

			granted[tenure{op.Client, op.Lock, op.Token}] = op
		case op.Kind.Frees():
			s.matchFree(op, granted[tenure{op.Client, op.Lock, op.Generation}], ends[op.Generation])
		case op.Kind == history.Create && op.Token == 1 && created != nil && created.App == op.Client &&
			created.New.Expires == op.Expires && !s.Claimed[created]:
			s.Creates[op] = created
			s.Claimed[created] = true
		}
	}
}

// lateGrant finds the grant of a lease by hand that was over when the audit saw it. To the audit
// it looks like a release.
func lateGrant(op *history.Operation, chain []*audit.Transition) *audit.Transition {
	for _, t := range chain {
		if t.New.Owner == "" && t.New.Generation == op.Token && t.New.Expires == op.Expires && t.App == op.Client {
			return t
		}
	}

	return nil
}

func (s *settler) matchGrant(op *history.Operation, t *audit.Transition) {
	switch {
	case t == nil && s.run.within(op, history.Loss):
		s.LostInFailover[op] = true

		return
	case t == nil:
		s.violate(op.Lock, "an acknowledged grant was not committed, or lost", op)

		return
	case s.Claimed[t]:
		s.violate(op.Lock, "two requests were answered with the same grant", op, t)
	case op.Expires != 0 && op.Expires != t.New.Expires:
		s.violate(op.Lock, "the acknowledged lease isn't the committed one", op, t)
	case op.Kind == history.Refresh && t.Old.Generation != op.Generation && t.Old.Owner != t.New.Owner:
		s.violate(op.Lock, "refreshed another generation than the one that was named", op, t)
	}

	s.Grants[op] = t
	s.Claimed[t] = true
}

func (s *settler) matchFree(op, grant *history.Operation, t *audit.Transition) {
	// What a promotion lost can't be released. A release that was sent to the old primary, and then to the new
	// one, finds another generation there, and takes that for its own doing.
	if t == nil && s.LostInFailover[grant] {
		return
	}

	if t == nil || s.later(t, op) {
		// Only a release may be undone by a crash. One with a minimum hold that isn't over is
		// flushed, and lost only with all else.
		held := grant != nil && op.MinHold > 0 && grant.Call+op.MinHold > op.End
		if !s.run.mayBeUndone(op.Call, op.End) || held && !s.run.within(op, history.Loss) {
			s.violate(op.Lock, "an acknowledged release was not committed, or lost", grant, op, t)
		}

		s.LostInCrash[op] = true

		return
	}

	s.Frees[op] = t

	if t.App != op.Client || t.Grants() {
		return // handed over, or taken by another after its end
	}

	s.Claimed[t] = true

	if grant == nil || op.MinHold == 0 {
		return
	}

	// The hold lasts as long as the holder said, by a clock that may have been set back since.
	_, before := s.run.ahead(grant.Call, grant.End)
	since, _ := s.run.ahead(op.Call, op.End)

	if t.New.Expires+max(0, before-since) < grant.Acquired+op.MinHold/1000 {
		s.violate(op.Lock, "released before the minimum hold was over", grant, op, t)
	}
}

// later reports whether a transition was made after the operation had been answered, and
// so not by it.
func (s *settler) later(t *audit.Transition, op *history.Operation) bool {
	first, _ := s.run.momentsOf(t)

	return first > op.End
}
