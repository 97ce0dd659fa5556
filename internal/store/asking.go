package store

import (
	"sync"
	"time"
)

// asking are the workers that are asked for renewals by one Locker, over any of its connections.
type asking struct {
	// mu guards what follows.
	mu sync.Mutex
	of map[int32]*debt
	// looked is when the places of the shards were looked up.
	looked time.Time
}

// debt is what a worker owes: answers to statements under way, if not to one that has ended. The last was sent at last.
type debt struct {
	statements int
	last       time.Time
}

// owed is 1 if the worker owes an answer, or 0.
func (a *asking) owed(w *worker) int {
	a.mu.Lock()
	defer a.mu.Unlock()

	if a.of[w.node] != nil {
		return 1
	}

	return 0
}

// begin is called before a worker is asked. It is false if an earlier statement has to be awaited. Another one is sent when
// half is over of what is left to the holders. The caller calls ended.
func (a *asking) begin(w *worker) (ended func(silent bool), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()

	d := a.of[w.node]

	switch {
	case d == nil:
		if a.of == nil {
			a.of = make(map[int32]*debt)
		}

		d = new(debt)
		a.of[w.node] = d
	case d.statements > 0 && time.Since(d.last) < w.left/2:
		return nil, false
	}

	d.statements++
	d.last = time.Now()

	return func(silent bool) {
		a.mu.Lock()
		defer a.mu.Unlock()

		if d.statements--; d.statements == 0 && !silent {
			delete(a.of, w.node)
		}
	}, true
}

// doubtful reports whether a worker owes an answer, and the places of shards are to be looked up for that.
func (a *asking) doubtful(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()

	if len(a.of) == 0 || now.Sub(a.looked) < placedFor {
		return false
	}

	a.looked = now

	return true
}
