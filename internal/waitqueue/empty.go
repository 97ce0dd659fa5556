package waitqueue

import "time"

// empty keeps lines without waiters for as long as they know something that counts: that another process waits, how
// often in a row the lock was handed over here, or a crowd. Waiters that release and come again may all be away at a time. A process
// that forgot the others then would hand the lock over among its own, until one of the others marks it again.
type empty struct {
	lines map[string]*line
	// sweepAt is how many there may be before those that are of no use any more are dropped.
	sweepAt int
}

const (
	// sweepFrom is from how many on they are swept.
	sweepFrom = 100
	// runCounts is for how long a run counts that nobody waits to go on with.
	runCounts = time.Second
)

// keep keeps the line of a lock that may have no waiters any more.
func (e *empty) keep(id string, l *line) {
	if l.waiters.Len() > 0 {
		return
	}

	now := time.Now()

	last := l.turns.crowd.keptFor()
	if l.turns.run.Length > 0 {
		last = max(last, runCounts)
	}

	l.keptUntil = now.Add(max(last, l.marks.othersUntil.Sub(now)))
	if !now.Before(l.keptUntil) {
		return
	}

	if e.lines == nil {
		e.lines, e.sweepAt = make(map[string]*line), sweepFrom
	}

	if len(e.lines) >= e.sweepAt {
		for id, l := range e.lines {
			if !now.Before(l.keptUntil) {
				delete(e.lines, id)
			}
		}

		e.sweepAt = max(2*len(e.lines), sweepFrom)
	}

	e.lines[id] = l
}

// take returns the line of a lock, nil if none is kept.
func (e *empty) take(id string) *line {
	l := e.lines[id]
	delete(e.lines, id)

	if l == nil || !time.Now().Before(l.keptUntil) {
		return nil
	}

	return l
}
