package oracle

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// leftFor is how long a request may go on whose caller has left: a second, and what a busy machine
// adds.
const leftFor = 1200 * time.Millisecond

// checkSilent checks a grant that no client was told of. It must come from a request that leaves
// open whether there was one, and that was under way when the grant got its name.
func (s *settler) checkSilent(ops []*history.Operation, chain []*audit.Transition) {
	acknowledged := make(map[string]bool)

	for _, op := range ops {
		if op.Outcome == history.OK && op.Kind.Grants() {
			acknowledged[requestOf(op.Owner)] = true
		}
	}

	for i, t := range chain {
		// A request whose first grant came too late refreshes it. One that was made again may be
		// granted what no caller waits for any more.
		if !t.Grants() || s.Claimed[t] || acknowledged[requestOf(t.New.Owner)] {
			continue
		}

		named := s.named(t.New.Owner)
		_, last := s.run.momentsOf(t)

		open := slices.ContainsFunc(ops, func(op *history.Operation) bool {
			return op.Client == clientOf(t.New.Owner) && !ownGrant(op, t) && (mayBeSilent(op, t) || s.wasOver(op, t, chain[i+1:])) &&
				op.Call <= named.to && (op.End == history.Never || op.End+int64(leftFor) >= named.from) &&
				op.Call <= last
		})
		if !open && !s.refreshedLate(ops, t, chain[i+1:]) {
			s.violate(t.Lock, "granted to a client of which every request was refused", t)
		}
	}
}

// named is when a grant got its name. A Locker numbers the names in the order in which it
// makes them, and those of grants that were acknowledged were made while these requests
// were under way.
func (s *settler) named(owner string) window {
	w := window{0, history.Never}
	prefix, number := splitName(owner)

	if strings.HasSuffix(prefix, bySQL) {
		return w // which names a grant by its token
	}

	for op := range s.Grants {
		if p, n := splitName(op.Owner); p != prefix {
			continue
		} else if n < number {
			w.from = max(w.from, op.Call)
		} else if n > number {
			w.to = min(w.to, op.End)
		}
	}

	return w
}

// bySQL ends what the SQL functions add to the owner's name, but for the token.
const bySQL = "#sql"

// refreshes ends the name of a request that refreshes a lock.
const refreshes = "+"

// requestOf is the name of the request that made a grant. Attempts of it after the first have
// numbers of their own, behind a hyphen.
func requestOf(owner string) string {
	if at := strings.LastIndexAny(owner, ".-"); at >= 0 && owner[at] == '-' {
		return owner[:at]
	}

	return owner
}

// splitName takes the name of a grant apart: which Locker made it, and its request's number there.
func splitName(owner string) (locker string, number int64) {
	owner = requestOf(owner)
	at := strings.LastIndexByte(owner, '.')
	if at < 0 {
		return owner, 0
	}

	number, _ = strconv.ParseInt(strings.TrimSuffix(owner[at+1:], refreshes), 36, 64)

	return owner[:at], number
}

// mayBeSilent reports whether a request may have made this grant without any client being told.
func mayBeSilent(op *history.Operation, t *audit.Transition) bool {
	if op.Kind.Frees() {
		// The lock was handed over to a waiter of the same client. The reply was lost, or came too
		// late for that waiter.
		return op.Generation == t.Old.Generation
	}

	switch {
	case !op.Kind.Grants():
		return false
	case op.Waits:
		// A waiter asks again and again. A grant that arrives too late is returned. So is one whose
		// reply was lost, even if another of its requests succeeds.
		return true
	}

	// A grant whose reply was lost is returned even if the request was refused in the end. "Lost"
	// is a grant whose answer took as long as its lease.
	return op.Outcome == history.Unknown || op.Outcome == history.Busy ||
		op.Outcome == history.OutcomeLost && op.Kind != history.Refresh
}

// ownGrant reports whether a request that is made once was refused by this very grant, which then
// wasn't another's. There must be another request that it can have come from.
func ownGrant(op *history.Operation, t *audit.Transition) bool {
	return op.Outcome == history.Busy && !op.Waits && op.Owner == t.New.Owner
}

// wasOver reports whether a refresh that was answered with "wrong generation" may have made this
// grant all the same. Its reply was lost, and when it asked again the grant was over, by its own
// end or because the lock had been released or granted since.
func (s *settler) wasOver(op *history.Operation, t *audit.Transition, later []*audit.Transition) bool {
	if op.Kind != history.Refresh || op.Outcome != history.OutcomeLost || op.Generation != t.Old.Generation {
		return false
	}

	return t.New.Expires <= s.run.shownSince(t.At, op) || slices.ContainsFunc(later, func(next *audit.Transition) bool {
		return next.Old.Generation == t.New.Generation && !next.Renews() && !s.later(next, op)
	})
}

// refreshedLate reports whether a grant of a table without owners came so late that its request
// refreshed it, which gave it another name.
func (s *settler) refreshedLate(ops []*history.Operation, t *audit.Transition, later []*audit.Transition) bool {
	if !traffic.IsBare(t.Lock) || len(later) == 0 || later[0].Renews() || later[0].App != t.App {
		return false
	}

	return slices.ContainsFunc(ops, func(op *history.Operation) bool { return s.Grants[op] == later[0] })
}
