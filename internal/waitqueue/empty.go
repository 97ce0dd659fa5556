package waitqueue

import "time"

// empty keeps lines without waiters for as long as they know something that counts: that another process waits, how
// often in a row the lock was handed over here, or a crowd. Waiters that release and come again may all be away at a
// time. A process that forgot the others then would hand the lock over among its own, until one of the others marks it
// again.
type empty struct {
	lines map[string]*line
	// untilSweep is how many more are kept until those that are of no use any more are dropped.
	untilSweep int
}

const (
	// sweepEvery is how many are kept between two sweeps, at least.
	sweepEvery = 100
	// runCounts is for how long a run counts while nobody waits. Most holders work for less.
	runCounts = 30 * time.Second
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
		e.lines = make(map[string]*line)
	}

	if e.untilSweep--; e.untilSweep < 0 {
		for id, l := range e.lines {
			if !now.Before(l.keptUntil) {
				delete(e.lines, id)
			}
		}

		e.untilSweep = max(len(e.lines), sweepEvery)
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
