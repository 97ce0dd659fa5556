package keepalive

import (
	"container/heap"
	"time"
)

// order is what a queue sorts leases by. A lease has a moment and a place for each. Moments are
// counted from Renewer.began.
type order int

const (
	byEnd     order = iota // the end of the term
	byNext                 // the next renewal
	byEarly                // from when the next renewal may go with others
	byUrgency              // the end of the term again, for leases that are due
	orders
)

// queue is a heap of leases. Looking at the first of 100,000 costs nothing. The first of a [cohort] stands for all of it.
type queue struct {
	order   order
	entries []entry
}

// entry is a lease and its moment. Without that here, sorting would wait for each lease's memory.
type entry struct {
	moment time.Duration
	lease  *Lease
}

func (q *queue) Len() int { return len(q.entries) }

func (q *queue) Less(i, j int) bool { return q.entries[i].moment < q.entries[j].moment }

func (q *queue) Swap(i, j int) {
	q.entries[i], q.entries[j] = q.entries[j], q.entries[i]
	q.entries[i].lease.places[q.order], q.entries[j].lease.places[q.order] = i+1, j+1
}

// Push is for package heap alone, as is Pop.
func (q *queue) Push(e any) {
	l := e.(*Lease)
	q.entries = append(q.entries, entry{l.moments[q.order], l})
	l.places[q.order] = len(q.entries)
}

func (q *queue) Pop() any {
	last := len(q.entries) - 1
	l := q.entries[last].lease
	q.entries[last] = entry{}
	q.entries = q.entries[:last]
	l.places[q.order] = 0

	return l
}

// first is the lease with the earliest moment, nil if there is none.
func (q *queue) first() *Lease {
	if len(q.entries) == 0 {
		return nil
	}

	return q.entries[0].lease
}

// put adds the lease, or moves it to where the moment belongs.
func (q *queue) put(l *Lease, moment time.Duration) {
	l.moments[q.order] = moment

	if place := l.places[q.order]; place > 0 {
		q.entries[place-1].moment = moment
		heap.Fix(q, place-1)
	} else {
		heap.Push(q, l)
	}
}

// replace puts another lease where the lease is.
func (q *queue) replace(l, other *Lease) {
	if place := l.places[q.order]; place > 0 {
		q.entries[place-1].lease = other
		other.moments[q.order], other.places[q.order], l.places[q.order] = l.moments[q.order], place, 0
	}
}

// drop takes the lease out if it is in.
func (q *queue) drop(l *Lease) {
	if place := l.places[q.order]; place > 0 {
		heap.Remove(q, place-1)
	}
}
