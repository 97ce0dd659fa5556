package top

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

// Query says which rows a look keeps. The zero value keeps all.
type Query struct {
	// Text is a part of the name, or of a holder, in upper or lower case.
	Text string
	// Kind is that of the rows. "" is any.
	Kind pglocker.Kind
	// Order is how they are sorted.
	Order Order
	// Limit is how many are kept. 0 is no limit.
	Limit int
}

// Order is the order of rows. Free ones come last, and names decide between equals.
type Order int

// The orders.
const (
	ByAge   Order = iota // the longest held first
	ByWait               // those that are waited for first, the longest held first
	ByLease              // the lease that ends first
	ByName
	orders
)

func (o Order) String() string {
	return [...]string{"held longest", "waited for", "lease ends", "name"}[o]
}

// matches reports whether a row is asked for.
func (q Query) matches(r *Row) bool {
	if q.Kind != "" && q.Kind != r.Kind {
		return false
	}

	if q.Text == "" {
		return true
	}

	text := strings.ToLower(q.Text)
	if strings.Contains(strings.ToLower(r.Name), text) {
		return true
	}

	return slices.ContainsFunc(r.Holds, func(h Hold) bool { return strings.Contains(strings.ToLower(h.Owner), text) })
}

// arrange returns those of the rows that are asked for, in order.
func (q Query) arrange(rows []Row) []Row {
	var out []Row

	for i := range rows {
		if q.matches(&rows[i]) {
			out = append(out, rows[i])
		}
	}

	slices.SortFunc(out, func(a, b Row) int { return q.compare(&a, &b) })

	return out
}

// compare is below zero if a comes before b.
func (q Query) compare(a, b *Row) int {
	byName := func() int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind)) }
	if q.Order == ByName {
		return byName()
	}

	if c := first(len(a.Holds) > 0, len(b.Holds) > 0); c != 0 {
		return c
	}

	switch q.Order {
	case ByLease:
		return cmp.Or(a.until().Compare(b.until()), byName())
	case ByWait:
		if c := first(a.Waited, b.Waited); c != 0 {
			return c
		}
	}

	return cmp.Or(sinceOrLast(a).Compare(sinceOrLast(b)), byName())
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}

	return 1
}

// sinceOrLast puts a hold whose beginning isn't known behind all others.
func sinceOrLast(r *Row) time.Time {
	if since := r.since(); !since.IsZero() {
		return since
	}

	return time.Unix(1<<40, 0)
}
