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
	order  order
	leases []*Lease
}

func (q *queue) Len() int { return len(q.leases) }

func (q *queue) Less(i, j int) bool {
	return q.leases[i].moments[q.order] < q.leases[j].moments[q.order]
}

func (q *queue) Swap(i, j int) {
	q.leases[i], q.leases[j] = q.leases[j], q.leases[i]
	q.leases[i].places[q.order], q.leases[j].places[q.order] = i+1, j+1
}

// Push is for package heap alone, as is Pop.
func (q *queue) Push(l any) {
	q.leases = append(q.leases, l.(*Lease))
	q.leases[len(q.leases)-1].places[q.order] = len(q.leases)
}

func (q *queue) Pop() any {
	last := len(q.leases) - 1
	l := q.leases[last]
	q.leases[last] = nil
	q.leases = q.leases[:last]
	l.places[q.order] = 0

	return l
}

// first is the lease with the earliest moment, nil if there is none.
func (q *queue) first() *Lease {
	if len(q.leases) == 0 {
		return nil
	}

	return q.leases[0]
}

// put adds the lease, or moves it to where the moment belongs.
func (q *queue) put(l *Lease, moment time.Duration) {
	l.moments[q.order] = moment

	if place := l.places[q.order]; place > 0 {
		heap.Fix(q, place-1)
	} else {
		heap.Push(q, l)
	}
}

// replace puts another lease where the lease is.
func (q *queue) replace(l, other *Lease) {
	if place := l.places[q.order]; place > 0 {
		q.leases[place-1] = other
		other.moments[q.order], other.places[q.order], l.places[q.order] = l.moments[q.order], place, 0
	}
}

// drop takes the lease out if it is in.
func (q *queue) drop(l *Lease) {
	if place := l.places[q.order]; place > 0 {
		heap.Remove(q, place-1)
	}
}
