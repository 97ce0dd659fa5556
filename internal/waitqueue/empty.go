package waitqueue

import "time"

// empty keeps lines without waiters for as long as they know that another process waits. Waiters that release and
// come again may all be away at a time. A process that forgot the others then would hand the lock over among its own,
// until one of the others marks it again.
type empty struct {
	lines map[string]*line
	// sweepAt is how many there may be before those that know nothing any more are dropped.
	sweepAt int
}

// sweepFrom is from how many on they are swept.
const sweepFrom = 100

func (e *empty) keep(id string, l *line) {
	now := time.Now()
	if !now.Before(l.marks.othersUntil) {
		return
	}

	if e.lines == nil {
		e.lines, e.sweepAt = make(map[string]*line), sweepFrom
	}

	if len(e.lines) >= e.sweepAt {
		for id, l := range e.lines {
			if !now.Before(l.marks.othersUntil) {
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

	if l == nil || !time.Now().Before(l.marks.othersUntil) {
		return nil
	}

	return l
}
