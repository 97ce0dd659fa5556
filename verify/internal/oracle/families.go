package oracle

import (
	"fmt"
	"slices"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// A family are the rows of a semaphore, or of a read-write lock.

// compareFamilies looks for beliefs in different rows of a family that exclude each other: more of
// a semaphore's permits than there are, or a writer beside another holder.
func (c *comparison) compareFamilies(all []*belief) {
	for _, list := range inOrder(all, func(b *belief) string { return b.grant.Family }) {
		if len(list) == 0 {
			continue
		}

		if kind, _ := pglocker.KindOf(list[0].grant.Family); kind == pglocker.KindSemaphore {
			c.count(list)

			continue
		}

		c.compare(list, func(a, b *belief) bool {
			sameRow := a.grant.Lock == b.grant.Lock && a.grant.Lock != a.grant.Family

			return !sameRow && (a.grant.Kind == history.WLock || b.grant.Kind == history.WLock)
		})
	}
}

// count looks for a holder that was granted permits while others believed in so many that no room
// was left by the holder's own count. The tokens tell which of them were granted before: another
// client may go by a larger number, and be granted the next.
func (c *comparison) count(list []*belief) {
	var open []*belief

	for _, b := range list {
		open = slices.DeleteFunc(open, func(other *belief) bool { return other.uncut <= b.start })
		open = append(open, b)

		for _, holder := range open {
			// Another that was granted before says something new of its successors alone.
			if holder != b && (b.grant.Token > holder.grant.Token || sameRequest(b.grant, holder.grant)) {
				continue
			}

			room, before := holder.grant.Most-holder.grant.Count, earlier(open, holder)
			if len(before) > room { // the rest isn't counted otherwise
				before = slices.DeleteFunc(before, func(other *belief) bool { return c.allowed(other, holder) })
			}

			if len(before) <= room {
				continue
			}

			things := []any{holder.grant}
			for _, other := range before {
				things = append(things, other.grant)
			}

			c.violations = append(c.violations, Violation{
				Beliefs, holder.grant.Family,
				fmt.Sprintf("granted %d of %d permits while others believed in %d", holder.grant.Count, holder.grant.Most, len(before)),
				describe(things...),
			})
		}
	}
}

// earlier are the beliefs that were granted before the holder's.
func earlier(open []*belief, holder *belief) []*belief {
	return slices.DeleteFunc(slices.Clone(open), func(other *belief) bool {
		return sameRequest(other.grant, holder.grant) || other.grant.Token > holder.grant.Token
	})
}

// sameRequest reports whether two operations are parts of one request.
func sameRequest(a, b *history.Operation) bool {
	return a == b || a.Request != 0 && a.Request == b.Request && a.Client == b.Client
}

// requestsOf keeps one operation for each request.
func requestsOf(ops []*history.Operation) []*history.Operation {
	return slices.DeleteFunc(slices.Clone(ops), func(op *history.Operation) bool { return op.Request != 0 && op.Request != op.Op })
}

// mostOf is the number of permits of a semaphore that a client goes by, 0 if it isn't one of the
// traffic's.
func mostOf(family, client string) int {
	r, ok := traffic.RecipeOf(family)
	if !ok {
		return 0
	}

	return r.MostOf(client)
}
