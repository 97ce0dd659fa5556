package oracle

import (
	"fmt"
	"slices"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// CheckRecipes is O8, for G2, G3 and G5 as recipes have them. By the audit,
//
//   - no client is granted a semaphore's permit while as many are held as it goes by,
//   - no writer is granted a read-write lock that another holds, and no reader one that a writer
//     holds,
//   - every grant of a slot moves the row of its family, in the same transaction,
//   - LockAll is granted all ids or none.
//
// By what observers of an election were told, each term that they see is newer than the one before,
// and was granted. By what candidates were told, none says that it leads while another believes it.
func CheckRecipes(run *Run, settled *Settled) []Violation {
	return slices.Concat(checkRoom(run), checkWhole(run, settled), checkObservers(run), checkLeaders(run))
}

// slot is a row of a family as the audit goes through it.
type slot struct {
	// granted is the transition that made the present tenure, or ended it: then the row is held for as long as its
	// minimum hold. It is nil before the first.
	granted *audit.Transition
	// last are the ends of its lease, the latest and the one before. A statement that was under way
	// may not have seen the latest.
	last, before int64
}

// held reports whether a statement that looked at the clock no later than seen surely found the
// slot held.
func (s slot) held(seen int64) bool {
	return s.granted != nil && min(s.last, s.before) > seen
}

// checkRoom goes through the changes of each family. A grant has seen all grants of its family
// before it, since each moves one row on from the generation that its statement saw. It may not
// have seen the last renewal of another slot. A release that it has seen is before it in the audit.
func checkRoom(run *Run) (violations []Violation) {
	families := byLock(run.Audit, func(t *audit.Transition) string {
		family, _ := traffic.Part(t.Lock)

		return family
	})
	delete(families, "")

	for _, family := range sortedKeys(families) {
		slots := make(map[string]slot)
		statements := byTransaction(families[family])

		for _, t := range families[family] {
			if !traffic.Leased(t.Lock) {
				continue
			}

			one := slots[t.Lock]

			switch {
			case t.Renews():
				one.before, one.last = one.last, t.New.Expires
			case t.Grants():
				if v := judgeRoom(run, family, slots, t, statements[t.XID]); v != nil {
					violations = append(violations, *v)
				}

				one = slot{granted: t, last: t.New.Expires, before: t.New.Expires}
			default: // held until the end of its minimum hold
				one = slot{granted: t, last: t.New.Expires, before: t.New.Expires}
			}

			slots[t.Lock] = one
		}
	}

	return violations
}

func judgeRoom(run *Run, family string, slots map[string]slot, t *audit.Transition, together []*audit.Transition) *Violation {
	gate := func(other *audit.Transition) bool {
		_, part := traffic.Part(other.Lock)

		return part == traffic.GatePart && !other.Renews()
	}
	if !slices.ContainsFunc(together, gate) {
		return &Violation{Recipes, family, "a slot was granted and the row of its family not moved", describe(t)}
	}

	var (
		held   []string
		things []any
		mine   = 0
		writes = isWriter(t.Lock)
		writer = false
		seen   = run.seenBy(t, nil)
	)

	for _, other := range together {
		if other.Grants() && traffic.Leased(other.Lock) {
			mine++
		}
	}

	for _, lock := range sortedKeys(slots) {
		granted := slots[lock].granted
		// What the same statement has granted, or ended, isn't in its way.
		if !slots[lock].held(seen) || slices.ContainsFunc(together, func(other *audit.Transition) bool { return other.Lock == lock }) {
			continue
		}

		held = append(held, lock)
		things = append(things, granted)
		writer = writer || isWriter(lock)
	}

	things = append(things, t)

	switch kind, _ := pglocker.KindOf(family); {
	case kind == pglocker.KindSemaphore:
		if most := mostOf(family, t.App); len(held)+mine > most {
			return &Violation{
				Recipes, family, fmt.Sprintf("granted %d of %d permits while %d were held", mine, most, len(held)), describe(things...),
			}
		}
	case writes && len(held) > 0:
		return &Violation{Recipes, family, "a writer was granted it while others held it", describe(things...)}
	case writer:
		return &Violation{Recipes, family, "granted while a writer held it", describe(things...)}
	}

	return nil
}

func isWriter(lock string) bool {
	_, part := traffic.Part(lock)

	return part == traffic.WriterPart
}

// byTransaction puts together what one transaction has changed.
func byTransaction(all []*audit.Transition) map[int64][]*audit.Transition {
	lists := make(map[int64][]*audit.Transition)
	for _, t := range all {
		lists[t.XID] = append(lists[t.XID], t)
	}

	return lists
}

// checkWhole looks for requests for several locks that were granted some and not others.
func checkWhole(run *Run, settled *Settled) (violations []Violation) {
	type request struct {
		client string
		number int64
	}

	requests := make(map[request][]*history.Operation)

	for _, op := range run.History.Operations {
		if op.Kind == history.All {
			of := request{op.Client, op.Request}
			requests[of] = append(requests[of], op)
		}
	}

	for _, ops := range requests {
		granted := 0

		for _, op := range ops {
			if op.Outcome == history.OK {
				granted++
			}
		}

		if granted == 0 || granted == len(ops) && !parted(run, settled, ops) {
			continue
		}

		things := make([]any, len(ops))
		for i, op := range ops {
			things[i] = op
		}

		violations = append(violations, Violation{
			Recipes, ops[0].Lock, "a request for several locks was granted in part", describe(things...),
		})
	}

	slices.SortFunc(violations, func(a, b Violation) int { return slices.Compare(a.Evidence, b.Evidence) })

	return violations
}

// parted reports whether a lock of a request was over before another was granted.
func parted(run *Run, settled *Settled, ops []*history.Operation) bool {
	ends := make(map[generation]*audit.Transition)

	for _, t := range run.Audit {
		if !t.Renews() {
			ends[generation{t.Lock, t.Old.Generation}] = t
		}
	}

	for _, one := range ops {
		end := ends[generation{one.Lock, one.Token}]

		for _, other := range ops {
			if t := settled.Grants[other]; t != nil && end != nil && end.Seq < t.Seq {
				return true
			}
		}
	}

	return false
}

// checkObservers checks the order in which terms were observed.
func checkObservers(run *Run) (violations []Violation) {
	type observer struct {
		client, lock string
		op           int64
	}

	type term struct {
		lock  string
		token int64
	}

	granted := make(map[term]bool)
	for _, t := range run.Audit {
		if t.Grants() {
			granted[term{t.Lock, t.New.Generation}] = true
		}
	}

	last := make(map[observer]history.Event)
	lossy := slices.ContainsFunc(run.History.Notes, func(e history.Event) bool { return e.Kind == history.Loss })

	for _, e := range run.History.Notes {
		if e.Kind != history.Observed {
			continue
		}

		of := observer{e.Client, e.Lock, e.Op}
		before, seen := last[of]

		switch {
		case e.Token == 0: // a vacancy
			continue
		case seen && e.Token <= before.Token && !lossy:
			violations = append(violations, Violation{Recipes, e.Lock, "an observer saw a term after a later one", describe(before, e)})
		case !granted[term{e.Lock, e.Token}] && !lossy:
			violations = append(violations, Violation{Recipes, e.Lock, "an observer saw a term that was not granted", describe(e)})
		}

		last[of] = e
	}

	return violations
}

// checkLeaders looks for candidates that say that they lead, for the whole time of the question,
// while another believes that it does.
func checkLeaders(run *Run) (violations []Violation) {
	var asked []*history.Operation

	for _, op := range run.History.Operations {
		if op.Kind == history.IsLeader && op.Outcome == history.OK {
			asked = append(asked, op)
		}
	}

	if len(asked) == 0 {
		return nil
	}

	beliefs := byLock(beliefsOf(run.History), func(b *belief) string { return b.grant.Lock })

	for _, op := range asked {
		// The candidate may have stood still between looking and answering.
		if stalledIn(run, op.Client, window{op.Call - int64(awakeWithin), op.End}) > 0 || run.mayBeOvertaken(op) {
			continue
		}

		for _, b := range beliefs[op.Lock] {
			if b.grant.Client != op.Client && b.start <= op.Call && b.end >= op.End {
				violations = append(violations, Violation{Recipes, op.Lock, "two say that they lead", describe(b.grant, op)})
			}
		}
	}

	return violations
}

// mayBeOvertaken reports whether a leader may have been followed by another that it can't know of:
// the database's clock was set ahead, or a promotion lost its term.
func (r *Run) mayBeOvertaken(op *history.Operation) bool {
	recipe, _ := traffic.RecipeOf(op.Lock)

	return r.setAhead(op.Call-int64(recipe.TTL)-int64(clockLag), op.End) ||
		slices.ContainsFunc(r.History.Notes, func(e history.Event) bool {
			return e.Kind == history.Loss && op.End >= e.From && op.Call <= e.At+int64(recipe.TTL)
		})
}
