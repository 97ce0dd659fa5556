package waitqueue

import (
	"hash/maphash"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

const (
	// signatureTime is how long a signature is used, and two processes with the same don't see each other.
	signatureTime = time.Minute

	// markCounts is for how long after it has passed a mark counts. Its writer renews it more often.
	markCounts = 10 * time.Second
)

// marks are what one row says about other processes that have waiters for the lock.
type marks struct {
	// othersUntil is until when, by the local clock, another process is known to wait.
	othersUntil time.Time
	// left is when this process left its last mark, by the local clock; notifies, whether that asks for a
	// notification.
	left     time.Time
	notifies bool
}

// MarkDue reports whether this process should mark the lock: its last mark is from before the given moment,
// or asks for no notification although notify is set.
func (q *Queue) MarkDue(id string, before time.Time, notify bool) (due bool) {
	q.with(id, func(l *line) { due = l.marks.left.Before(before) || notify && !l.marks.notifies })

	return due
}

// Marked notes that this process left a mark.
func (q *Queue) Marked(id string, notify bool) {
	q.about(id, func(l *line) { l.marks.left, l.marks.notifies = time.Now(), notify })
}

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

// isOwn reports whether this process left the mark. No mark stands for as long as a signature is used.
func (q *Queue) isOwn(id string, mark time.Time) bool {
	number, signature := signatureNumber(), store.SignatureOf(mark)

	return signature == q.signature(id, number) || signature == q.signature(id, number-1)
}

// FoundMark notes a mark that was found on the row when the database's clock was now. A process that polls
// marks the present.
func (q *Queue) FoundMark(id string, mark, now time.Time) {
	left := mark.Add(markCounts).Sub(now)
	if mark.IsZero() || left <= 0 || q.isOwn(id, mark) {
		return
	}

	q.about(id, func(l *line) {
		l.marks.othersUntil = time.Now().Add(left)

		if l.keptUntil.Before(l.marks.othersUntil) {
			l.keptUntil = l.marks.othersUntil
		}
	})
}
