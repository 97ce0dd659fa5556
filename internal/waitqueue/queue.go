// Package waitqueue keeps, for each lock, the line of those in this process who
// wait for it, in the order in which they came. Only the head of a line asks the
// database; who leaves makes the next one head, which asks at once, so a wake-up
// that the leaver may have swallowed is made good.
//
// A grant can be delivered to a waiter from outside. If it comes after the waiter
// has left, delivery fails and the grant stays the deliverer's.
package waitqueue

import (
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

	// seed makes the signatures of this Queue's marks.
	seed maphash.Seed
}

type line struct {
	waiters list.List // of *Waiter, the head in front
	// run counts grants delivered in a row, without one that the database decided
	// between processes, and runBegan is when the first of them was.
	run      int
	runBegan time.Time
	// round counts the releases that all processes were told of, and won is the one that
	// this process won last. rivals are the other processes that were seen to win, each
	// with the round of its last time: rivalCounts at most, the latest.
	round, won int
	rivals     map[string]int
	// othersUntil is until when, by the local clock, another process is known to wait,
	// since it left a mark.
	othersUntil time.Time
	// marked is when this process left its last mark, by the local clock; markNotifies
	// whether it asks for a notification.
	marked       time.Time
	markNotifies bool
	// alarm makes the head look at the time wakeAt, nil if none is set. It ends with the
	// line.
	alarm  *time.Timer
	wakeAt time.Time
}

// Waiter is one place in a line. It belongs to the goroutine that joined.
type Waiter struct {
	// TTL is the lease that a grant to this waiter must have.
	TTL time.Duration

	queue *Queue
	id    string
	place *list.Element // nil after leaving

	wake  chan struct{}
	hint  chan struct{}
	grant chan store.Result
}

// New returns an empty Queue.
func New() *Queue {
	return &Queue{lines: make(map[string]*line), seed: maphash.MakeSeed()}
}

// Join takes the last place in the line of a lock.
func (q *Queue) Join(id string, ttl time.Duration) *Waiter {
	q.mu.Lock()
	defer q.mu.Unlock()

	l := q.lines[id]
	if l == nil {
		l = &line{won: -1}
		q.lines[id] = l
	}

	w := &Waiter{
		TTL:   ttl,
		queue: q,
		id:    id,
		wake:  make(chan struct{}, 1),
		hint:  make(chan struct{}, 1),
		grant: make(chan store.Result, 1),
	}
	w.place = l.waiters.PushBack(w)

	if l.waiters.Len() == 1 {
		w.look()
	}

	return w
}

// Waiting reports whether anybody in this process waits for the lock.
func (q *Queue) Waiting(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	return q.lines[id] != nil
}

// Run is how a lock went from one to the next in this process lately.
type Run struct {
	// Length counts the grants that were delivered in a row, and Began is when the
	// first was.
	Length int
	Began  time.Time
	// Others: another process is known to wait.
	Others bool
}

// Head is the waiter that is next for the lock, nil if nobody waits.
func (q *Queue) Head(id string) (head *Waiter, run Run) {
	q.mu.Lock()
	defer q.mu.Unlock()

	l := q.lines[id]
	if l == nil {
		return nil, Run{}
	}

	return l.head(), Run{Length: l.run, Began: l.runBegan, Others: time.Now().Before(l.othersUntil)}
}

// MarkDue reports whether this process should mark the lock: it last did so before
// the given moment, or never, or only without asking for a notification, if that is
// wanted now.
func (q *Queue) MarkDue(id string, before time.Time, notify bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	l := q.lines[id]

	return l != nil && (l.marked.Before(before) || notify && !l.markNotifies)
}

// Marked notes that this process left a mark.
func (q *Queue) Marked(id string, notify bool) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if l := q.lines[id]; l != nil {
		l.marked, l.markNotifies = time.Now(), notify
	}
}

// signatureTime is how long a signature is used. Should two processes happen to have
// the same, they don't see each other for so long.
const signatureTime = time.Minute

// Sign returns the signature of the marks that this process leaves on the lock now.
func (q *Queue) Sign(id string) int64 { return q.signature(id, signatureNumber()) }

func (q *Queue) signature(id string, number int64) int64 {
	type signed struct {
		id     string
		number int64
	}

	return int64(maphash.Comparable(q.seed, signed{id, number}) % store.MarkModulus)
}

func signatureNumber() int64 { return time.Now().UnixNano() / int64(signatureTime) }

// own reports whether this process left the mark. It stands for less than the time of
// a signature.
func (q *Queue) own(id string, mark time.Time) bool {
	number, signature := signatureNumber(), store.SignatureOf(mark)

	return signature == q.signature(id, number) || signature == q.signature(id, number-1)
}

// Saw notes a mark that was found on the row when the database's clock was now. Who
// listens marks the time until which it wants to be notified; who polls wants no
// notification, and marks the present. So a mark counts for a while after it has
// passed.
func (q *Queue) Saw(id string, mark, now time.Time) {
	left := mark.Add(markCounts).Sub(now)
	if mark.IsZero() || left <= 0 || q.own(id, mark) {
		return
	}

	q.mu.Lock()
	defer q.mu.Unlock()

	if l := q.lines[id]; l != nil {
		l.othersUntil = time.Now().Add(left)
	}
}

// markCounts is for how long after it has passed a mark tells that its writer
// waits. A process that waits renews its mark more often.
const markCounts = 10 * time.Second

// EndRun is called when the database has decided between processes.
func (q *Queue) EndRun(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if l := q.lines[id]; l != nil {
		l.run = 0
	}
}

// Wake makes the head of a line look again. It does nothing where nobody waits.
func (q *Queue) Wake(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if l := q.lines[id]; l != nil {
		l.head().look()
	}
}

// WakeAfter makes the head of a line look again when d has passed. Without waiters it does
// nothing: a waiter that comes later looks at once. Of several calls only the one that ends
// first counts, since a head that has looked knows when to look again.
func (q *Queue) WakeAfter(id string, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()

	l := q.lines[id]
	at := time.Now().Add(d)

	switch {
	case l == nil:
	case l.alarm == nil:
		l.wakeAt = at
		l.alarm = time.AfterFunc(d, func() { q.alarm(id, l) })
	case at.Before(l.wakeAt):
		l.wakeAt = at
		l.alarm.Reset(d)
	}
}

func (q *Queue) alarm(id string, l *line) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if q.lines[id] == l {
		l.alarm = nil
		l.head().look()
	}
}

// Released is called when all processes were told that the lock is free. The head looks
// at once if it is this process's turn, and otherwise gives the others a start: those
// who have waited for longer go first, and mostly only one process asks.
func (q *Queue) Released(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()

	l := q.lines[id]
	if l == nil {
		return
	}

	l.round++

	if l.round-l.won > l.countRivals() {
		l.head().look()

		return
	}

	select {
	case l.head().hint <- struct{}{}:
	default:
	}
}

// Won notes that this process was the one that got the lock when all were told of it.
func (q *Queue) Won(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if l := q.lines[id]; l != nil {
		l.won = l.round
	}
}

// Lost notes that another process got it.
func (q *Queue) Lost(id, rival string) {
	q.mu.Lock()
	defer q.mu.Unlock()

	l := q.lines[id]
	if l == nil {
		return
	}

	if l.rivals == nil {
		l.rivals = make(map[string]int)
	}

	l.rivals[rival] = l.round

	// Where this process polls, it is told of no release, and the rounds stand still.
	if len(l.rivals) > rivalCounts {
		l.forgetRival(rival)
	}
}

// forgetRival forgets the rival that won longest ago, other than the given one. The
// queue's mutex is held.
func (l *line) forgetRival(but string) {
	longest := ""

	for rival, round := range l.rivals {
		if rival != but && (longest == "" || round < l.rivals[longest]) {
			longest = rival
		}
	}

	delete(l.rivals, longest)
}

// rivalCounts is for how many rounds a process that won once counts as a rival. It may have
// gone since. There is one winner in a round, so this is also how many rivals there are.
const rivalCounts = 32

// countRivals returns how many processes are in the running. The queue's mutex is held.
func (l *line) countRivals() int {
	for rival, round := range l.rivals {
		if l.round-round > rivalCounts {
			delete(l.rivals, rival)
		}
	}

	return len(l.rivals)
}

// WakeAll makes every head look again.
func (q *Queue) WakeAll() {
	q.mu.Lock()
	defer q.mu.Unlock()

	for _, l := range q.lines {
		l.head().look()
	}
}

// Deliver gives the waiter a grant, and takes it out of the line. It is false if
// the waiter has left. The new head is not told: the lock is held in this process,
// and there is nothing to look at.
func (q *Queue) Deliver(w *Waiter, grant store.Result) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	l := w.leave(false)
	if l == nil {
		return false
	}

	if l.run == 0 {
		l.runBegan = time.Now()
	}

	l.run++
	w.grant <- grant // there is room: a waiter is given one grant at most

	return true
}

// Woken yields when this waiter, as the head, should look at the lock.
func (w *Waiter) Woken() <-chan struct{} { return w.wake }

// Hinted yields when this waiter, as the head, should look soon: the lock is free, but
// it is the turn of another process.
func (w *Waiter) Hinted() <-chan struct{} { return w.hint }

// IsHead reports whether this waiter is the one that asks the database.
func (w *Waiter) IsHead() bool {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()

	return w.place != nil && w.queue.lines[w.id].head() == w
}

// Granted yields the grant that was delivered, if one is.
func (w *Waiter) Granted() <-chan store.Result { return w.grant }

// Leave gives up the place; the next in line becomes head. If a grant was
// delivered before, it is returned, and the caller's to use or to pass on.
func (w *Waiter) Leave() (grant store.Result, ok bool) {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()

	w.leave(true)

	select {
	case grant = <-w.grant:
		return grant, true
	default:
		return grant, false
	}
}

// leave takes the waiter out of its line, which it returns, nil if it was out. If
// it was the head, tell makes the new one look. The queue's mutex is held.
func (w *Waiter) leave(tell bool) *line {
	if w.place == nil {
		return nil
	}

	l := w.queue.lines[w.id]
	wasHead := l.head() == w

	l.waiters.Remove(w.place)
	w.place = nil

	if l.waiters.Len() == 0 {
		delete(w.queue.lines, w.id)

		if l.alarm != nil {
			l.alarm.Stop()
		}
	} else if wasHead && tell {
		l.head().look()
	}

	return l
}

func (l *line) head() *Waiter { return l.waiters.Front().Value.(*Waiter) }

// look leaves a token, unless one is there.
func (w *Waiter) look() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
