package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// belief is the time during which a client believed that it held a lock.
type belief struct {
	start, end int64
	// uncut is the end, whether or not the client ran.
	uncut int64
	// late: nothing is left of it, since it began right after its client had been stopped.
	late  bool
	grant *history.Operation
	why   string // it ended
}

// awakeWithin is how long a process that was stopped may take to notice what it missed.
const awakeWithin = 50 * time.Millisecond

// CheckBeliefs is O2, for G2 and G6: two clients never believed in the same lock at the same
// moment. A belief begins with the acknowledgement. It ends with the call that releases the lock,
// or with the word that it is lost. For a lease taken by hand it ends when the lease does, counted
// from the call. What a client believed while it didn't run doesn't count. Neither does what it
// believed after the database's clock had been set ahead since its grant. [MeasureExcused] counts
// both.
//
// Where a promotion lost commits, [Measure] counts what that explains.
func CheckBeliefs(run *Run) []Violation {
	violations, _, _ := compareBeliefs(run)

	return violations
}

func compareBeliefs(run *Run) (violations []Violation, explained Overlaps, excused Excused) {
	c := &comparison{run: run}
	all := beliefsOf(run.History)

	row := func(b *belief) string {
		if b.grant.Lock == b.grant.Family {
			return "" // which row isn't known, since a promotion lost the grant
		}

		return b.grant.Lock
	}

	for _, list := range inOrder(all, row) {
		c.compare(list, func(_, _ *belief) bool { return true })
	}

	c.compareFamilies(all)

	return c.violations, c.explained, c.excused
}

// comparison is what comes of comparing beliefs.
type comparison struct {
	run        *Run
	violations []Violation
	explained  Overlaps
	excused    Excused
}

// inOrder divides beliefs by lock, in the order of their locks and of their starts. It leaves out
// those without a lock.
func inOrder(all []*belief, lock func(*belief) string) [][]*belief {
	var lists [][]*belief

	beliefs := byLock(all, lock)
	for _, lock := range sortedKeys(beliefs) {
		list := slices.DeleteFunc(beliefs[lock], func(b *belief) bool { return b.uncut <= b.start || lock == "" })
		slices.SortStableFunc(list, func(a, b *belief) int { return cmp.Compare(a.start, b.start) })
		lists = append(lists, list)
	}

	return lists
}

// compare looks for two that exclude each other and are believed at the same moment.
func (c *comparison) compare(list []*belief, exclude func(a, b *belief) bool) {
	var open []*belief // those that may last

	for _, b := range list {
		open = slices.DeleteFunc(open, func(other *belief) bool { return other.uncut <= b.start })

		for _, other := range open {
			if exclude(other, b) && !c.allowed(other, b) {
				c.violations = append(c.violations, Violation{
					Beliefs, b.grant.Lock,
					fmt.Sprintf("two believe for %s: one until %d (%s), the other from %d on", overlap(other, b), other.end, other.why, b.start),
					describe(other.grant, b.grant),
				})
			}
		}

		open = append(open, b)
	}
}

// overlap is for how long two are believed at once.
func overlap(a, b *belief) time.Duration {
	return time.Duration(min(a.end, b.end) - max(a.start, b.start))
}

// allowed reports whether G2 excepts that two are believed at once, and counts that.
func (c *comparison) allowed(a, b *belief) bool {
	both := overlap(a, b)

	switch {
	case both <= 0:
		c.excused.Stopped.add(time.Duration(min(a.uncut, b.uncut) - max(a.start, b.start)))
	case c.run.overtaken(a, b):
		c.excused.Overtaken.add(both)
	case c.run.lossExplains(a, b):
		c.explained.add(both)
	default:
		return false
	}

	return true
}

// overtaken reports whether the later of two grants may have been made because the database's clock
// was set ahead. The last renewal of the earlier grant knew of what was set ahead before. The
// tokens tell which grant is the earlier: its holder may be told of it last.
func (r *Run) overtaken(a, b *belief) bool {
	if a.grant.Token > b.grant.Token {
		a, b = b, a
	}

	return r.setAhead(max(a.grant.Call, max(a.start, b.start)-a.grant.TTL-int64(clockLag)), b.start)
}

// tenure is the key of beliefs, and of everything that ends them.
type tenure struct {
	client, lock string
	token        int64
}

func beliefsOf(h *history.History) []*belief {
	var (
		all    []*belief
		by     = make(map[tenure]*belief)
		stalls = make(map[string][]history.Event)
		killed = make(map[string]int64)
		lost   = make(map[tenure]history.Event)
	)

	for _, op := range acknowledgedGrants(h) {
		if op.Lock == traffic.Shared.ID {
			continue // no client believes in it
		}

		b := &belief{start: op.End, end: history.Never, grant: op, why: "never given up"}
		if op.Until > 0 {
			b.until(op.Until, "its end as counted from the call")
		}

		by[tenure{op.Client, op.Lock, op.Token}] = b
		all = append(all, b)
	}

	for _, e := range h.Notes {
		switch e.Kind {
		case history.Lost:
			t := tenure{e.Client, e.Lock, e.Token}
			if first, ok := lost[t]; !ok || e.At < first.At {
				lost[t] = e
			}
		case history.Killed:
			killed[e.Detail] = e.At
		case history.Stall:
			stalls[e.Client] = append(stalls[e.Client], e)
		}
	}

	for client := range killed {
		stalls[client] = append(stalls[client], silences(h, client)...)
	}

	for _, gaps := range stalls {
		slices.SortFunc(gaps, func(a, b history.Event) int { return cmp.Compare(b.At, a.At) })
	}

	for _, op := range h.Operations {
		t := tenure{op.Client, op.Lock, op.Generation}

		b := by[t]
		if b == nil {
			continue
		}

		stopped := op.End
		if e, ok := lost[t]; ok {
			stopped = min(stopped, e.At)
		}

		if at, ok := killed[op.Client]; ok {
			stopped = min(stopped, at)
		}

		b.end, b.why = b.endBy(op, stopped > givesUp(op, stalls[op.Client])+int64(awakeWithin))
	}

	alive := lastSigns(h)

	for t, e := range lost {
		if b := by[t]; b != nil {
			b.until(e.At, "lost: "+e.Detail)
		}
	}

	for _, b := range all {
		if _, ok := killed[b.grant.Client]; ok {
			// It may have been stopped before, and then noted no gap.
			b.until(alive[b.grant.Client], "killed")
		}

		b.uncut = b.end

		for _, stall := range stalls[b.grant.Client] { // the last one first: each may end at the next
			// Its client may have been stopped after it looked at a lease, and before it said that the lock was granted.
			late := stall.At > b.grant.Call && b.start-b.grant.Call >= b.grant.TTL

			if stall.From <= b.end && (stall.At > b.start || late) && stall.At+int64(awakeWithin) >= b.end {
				b.late = b.late || stall.At <= b.start
				b.until(stall.From, "stopped")
			}
		}
	}

	return all
}

// silent is how long a client that runs doesn't leave without writing something down.
const silent = 100 * time.Millisecond

// silences are the times in which a client wrote nothing down, as stalls. A client that is killed
// right after it was stopped may not have noted that itself.
func silences(h *history.History, client string) (found []history.Event) {
	var signs []int64

	for _, op := range h.Operations {
		if op.Client == client {
			signs = append(signs, op.Call, op.End)
		}
	}

	for _, e := range h.Notes {
		if e.Client == client {
			signs = append(signs, e.At)
		}
	}

	slices.Sort(signs)

	for i := 1; i < len(signs); i++ {
		if signs[i] != history.Never && signs[i]-signs[i-1] >= int64(silent) {
			found = append(found, history.Event{From: signs[i-1], At: signs[i]})
		}
	}

	return found
}

// lastSigns are the moments at which the clients last wrote something down.
func lastSigns(h *history.History) map[string]int64 {
	last := make(map[string]int64)

	for _, op := range h.Operations {
		at := op.Call
		if op.End != history.Never {
			at = max(at, op.End)
		}

		last[op.Client] = max(last[op.Client], at)
	}

	for _, e := range h.Notes {
		last[e.Client] = max(last[e.Client], e.At)
	}

	return last
}

func (b *belief) until(at int64, why string) {
	if at < b.end {
		b.end, b.why = at, why
	}
}

// givesUp is when a relocker has ended that didn't renew: after a TTL, or when its client then runs
// again. stalls are the client's, the last one first.
func givesUp(op *history.Operation, stalls []history.Event) int64 {
	at := op.Call + int64(op.TTL)

	for _, stall := range slices.Backward(stalls) {
		switch {
		case stall.At <= op.Call:
		case stall.From <= op.Call+int64(awakeWithin): // it may not have looked at its clock before
			at = max(at, stall.At+int64(op.TTL))
		case stall.From <= at+int64(awakeWithin):
			at = max(at, stall.At)
		}
	}

	return at
}

// endBy is when the belief ends if its holder made this request. renewed: what the request began
// went on for longer than a lease without renewals.
func (b *belief) endBy(op *history.Operation, renewed bool) (end int64, why string) {
	switch op.Kind {
	case history.Unlock, history.Leave, history.Release, history.Downgrade:
		b.until(op.Call, string(op.Kind))
	case history.Refresh:
		if op.Outcome == history.OK {
			b.until(op.End, "refreshed") // the same client goes on under the new token
		}
	case history.Relock:
		// A relocker keeps the lease, so that it doesn't end by the caller's own count, unless the
		// relocker never renewed it. It doesn't report that, but it would have ended after a TTL
		// then. An acknowledged release tells that no other client had the lock before.
		if op.Outcome == history.OK || renewed {
			return op.End, "relocker ended"
		}

		b.until(op.End, "relocker ended")
	}

	return b.end, b.why
}
