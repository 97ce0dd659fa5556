// Package waitqueue keeps, for each lock, the line of the waiters of this process, in the order in which they
// came. Only the head of a line asks the database.
//
// A special waiter wants several locks, or a place among several. It stands in the line of one of them, and
// is delivered no grant. A waiter for one place among several is promised a place that becomes free here, and
// then is delivered it: several may be promised at a time.
//
// When a head leaves, the next asks at once: the leaver may have swallowed a wake-up. A grant can be
// delivered to a waiter. If the waiter has left before, the grant stays the deliverer's.
package waitqueue

import (
	"cmp"
	"container/list"
	"hash/maphash"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// Queue holds the lines of all locks.
type Queue struct {
	// mu guards lines, and every line and waiter in it.
	mu    sync.Mutex
	lines map[string]*line
	// empty are lines whose last waiter has left lately. mu guards it.
	empty empty
	// places counts, for each line of waiters for places, those that this process holds. mu guards it.
	places map[string]int

	// seed makes the signatures of this Queue's marks.
	seed maphash.Seed
}

type line struct {
	waiters list.List // of *Waiter, the head in front
	turns   turns
	marks   marks
	// keptUntil is until when it is kept without waiters.
	keptUntil time.Time
}

// Waiter is one place in a line. It belongs to the goroutine that joined.
type Waiter struct {
	// TTL is the lease that a grant to this waiter must have.
	TTL time.Duration
	// Special: the waiter wants something else than the lock of its line alone, and is delivered no grant.
	Special bool
	// Permits is how many places may be taken, if the waiter wants one of several, or else 0.
	Permits int
	front   bool
	// promised: a place is on the way to it. The Queue's mutex guards it.
	promised bool

	queue *Queue
	id    string
	place *list.Element // nil after leaving

	wake  chan struct{}
	hint  chan struct{}
	grant chan store.Result
	// askAt is when this waiter, as the head, should ask at the latest; zero if no hint is there. sleepsUntil is
	// when it asks by itself. The Queue's mutex guards both.
	askAt, sleepsUntil time.Time
	// later: askAt counts, also if this waiter would ask before. The Queue's mutex guards it.
	later bool
}

// New returns an empty Queue.
func New() *Queue {
	return &Queue{lines: make(map[string]*line), places: make(map[string]int), seed: maphash.MakeSeed()}
}

// with calls do with the line of a lock, if it has waiters.
func (q *Queue) with(id string, do func(*line)) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if l := q.lines[id]; l != nil {
		do(l)
	}
}

// about calls do with what is known about a lock, if its line has waiters, or had some lately.
func (q *Queue) about(id string, do func(*line)) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if l := cmp.Or(q.lines[id], q.empty.lines[id]); l != nil {
		do(l)
	}
}

// Join takes the last place in the line of a lock.
func (q *Queue) Join(id string, ttl time.Duration) *Waiter {
	return q.join(id, &Waiter{TTL: ttl, grant: make(chan store.Result, 1)})
}

// JoinSpecial is Join for a waiter that is delivered no grant: as the head it is woken.
func (q *Queue) JoinSpecial(id string) *Waiter { return q.join(id, &Waiter{Special: true}) }

// JoinSlot is Join for a waiter that wants one of several places. With front, it takes the first place in line,
// behind others that did.
func (q *Queue) JoinSlot(id string, ttl time.Duration, permits int, front bool) *Waiter {
	return q.join(id, &Waiter{TTL: ttl, Permits: permits, front: front, grant: make(chan store.Result, 1)})
}

// Promise promises a place to the first waiter in line that has no promise. It is nil if there is none, or
// if that one wants something else than one place: no waiter overtakes it. The caller delivers the place, or
// withdraws the promise.
func (q *Queue) Promise(id string) (w *Waiter) {
	q.with(id, func(l *line) {
		for e := l.waiters.Front(); e != nil; e = e.Next() {
			if next := e.Value.(*Waiter); !next.promised {
				if next.Permits > 0 {
					next.promised = true
					w = next
				}

				return
			}
		}
	})

	return w
}

// Withdraw withdraws a promise.
func (q *Queue) Withdraw(w *Waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()

	w.promised = false
}

func (q *Queue) join(id string, w *Waiter) *Waiter {
	q.mu.Lock()
	defer q.mu.Unlock()

	l := q.lines[id]
	if l == nil {
		if l = q.empty.take(id); l == nil {
			l = &line{turns: turns{won: -1}}
		}

		q.lines[id] = l
	}

	w.queue, w.id = q, id
	w.wake, w.hint = make(chan struct{}, 1), make(chan struct{}, 1)

	w.place = l.waiters.PushBack(w)

	if w.front {
		first := l.waiters.Front()
		for first.Value.(*Waiter).front && first != w.place {
			first = first.Next()
		}

		l.waiters.MoveBefore(w.place, first)
	}

	if l.head() == w {
		signal(w.wake)
	}

	return w
}

// Head is the waiter that is next for the lock, nil if there is none.
func (q *Queue) Head(id string) (head *Waiter, run Run) {
	q.with(id, func(l *line) {
		head = l.head()
		run = l.turns.run
		run.Others = time.Now().Before(l.marks.othersUntil)
		run.Rich = head.Permits > 0 && q.places[id]*(1+len(l.turns.rivals)) >= head.Permits
	})

	return head, run
}

// Wake makes the head of a line ask again.
func (q *Queue) Wake(id string) {
	q.with(id, func(l *line) { signal(l.head().wake) })
}

// WakeAll makes every head ask again.
func (q *Queue) WakeAll() {
	q.mu.Lock()
	defer q.mu.Unlock()

	for _, l := range q.lines {
		signal(l.head().wake)
	}
}

// WakeAfter makes the head of a line ask again when d has passed. Of several calls the one that ends first
// counts.
func (q *Queue) WakeAfter(id string, d time.Duration) {
	q.with(id, func(l *line) { l.head().wakeAt(time.Now().Add(d)) })
}

func (w *Waiter) wakeAt(at time.Time) {
	if w.askAt.IsZero() || at.Before(w.askAt) {
		w.askAt = at
		signal(w.hint)
	}
}

// putOff makes the waiter, as the head, ask at the given time and not before, unless it is woken. If it is asking
// now, what it is answered counts too.
func (w *Waiter) putOff(at time.Time) {
	w.askAt, w.later = at, true
	signal(w.hint)
}

// Deliver gives the waiter, which isn't special, a grant, and takes it out of the line. It is false if the
// waiter has left. The new head isn't woken. But one of a line for places asks when the waiter would have, and
// gets what that was told and hasn't seen: another place may be free.
func (q *Queue) Deliver(w *Waiter, grant store.Result) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	l := w.leave(false)
	if l == nil {
		return false
	}

	l.turns.handedOver()
	q.empty.keep(w.id, l)

	grant.HandedOver = true
	w.grant <- grant // there is room: a waiter is given one grant at most

	if w.Permits > 0 && l.waiters.Len() > 0 {
		w.tellOn(l.head())
	}

	return true
}

// tellOn has the next head ask when this one would have. The queue's mutex is held.
func (w *Waiter) tellOn(next *Waiter) {
	select {
	case <-w.wake:
		signal(next.wake)
	default:
	}

	for _, at := range []time.Time{w.askAt, w.sleepsUntil} {
		if !at.IsZero() {
			next.wakeAt(at)
		}
	}
}

// Woken yields when this waiter, as the head, should ask the database.
func (w *Waiter) Woken() <-chan struct{} { return w.wake }

// Hinted yields when this waiter, as the head, should ask at the time of [Waiter.AskAt].
func (w *Waiter) Hinted() <-chan struct{} { return w.hint }

// AskAt takes the time of the last hint.
func (w *Waiter) AskAt() (at time.Time) {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()

	at, w.askAt = w.askAt, time.Time{}
	if !at.IsZero() && (w.later || at.Before(w.sleepsUntil)) {
		w.sleepsUntil = at
	}

	return at
}

// Later reports whether the hint that was taken is to ask not before that time, rather than at the latest then. It says
// so once.
func (w *Waiter) Later() bool {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()

	later := w.later
	w.later = false

	return later
}

// SleepUntil says when this waiter, as the head, asks by itself. If it was delivered a place meanwhile, the new head
// asks then.
func (w *Waiter) SleepUntil(at time.Time) {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()

	w.sleepsUntil, w.later = at, false

	if l := w.queue.lines[w.id]; w.place == nil && w.Permits > 0 && l != nil {
		l.head().wakeAt(at)
	}
}

// Granted yields the grant that was delivered, if one is.
func (w *Waiter) Granted() <-chan store.Result { return w.grant }

// IsHead reports whether this waiter is the one that asks the database.
func (w *Waiter) IsHead() bool {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()

	return w.place != nil && w.queue.lines[w.id].head() == w
}

// Leave leaves the line. The caller uses or returns a grant that was delivered before.
func (w *Waiter) Leave() (grant store.Result, ok bool) {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()

	if l := w.leave(true); l != nil {
		w.queue.empty.keep(w.id, l)
	}

	select {
	case grant = <-w.grant:
		return grant, true
	default:
		return grant, false
	}
}

// leave takes the waiter out of its line, and returns that, or nil if it was out. With wake, a new head is
// woken. The queue's mutex is held.
func (w *Waiter) leave(wake bool) *line {
	if w.place == nil {
		return nil
	}

	l := w.queue.lines[w.id]
	wasHead := l.head() == w

	l.waiters.Remove(w.place)
	w.place = nil

	if l.waiters.Len() == 0 {
		delete(w.queue.lines, w.id)
	} else if wasHead && wake {
		if l.head().Permits > 0 {
			w.queue.wakePolitely(l)
		} else {
			signal(l.head().wake)
		}
	}

	return l
}

func (l *line) head() *Waiter { return l.waiters.Front().Value.(*Waiter) }

// signal leaves a token in the channel, unless one is there.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
