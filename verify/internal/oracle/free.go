package oracle

import (
	"cmp"
	"slices"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// freeFor is when a request could have been granted, as far as the rows tell that for certain. free
// are the times at which each row was.
func freeFor(run *Run, free map[string][]window, op *history.Operation) []window {
	var (
		rows  [][]window
		taken int // how many of them may be held
	)

	switch {
	case op.Kind == history.All:
		for _, other := range run.History.Operations {
			if sameRequest(op, other) {
				rows = append(rows, free[other.Lock])
			}
		}
	case op.Family == "":
		return free[op.Lock]
	default:
		for _, lock := range sortedKeys(free) {
			if needsFree(op, lock) {
				rows = append(rows, free[lock])
			}
		}

		if kind, _ := pglocker.KindOf(op.Family); kind == pglocker.KindSemaphore {
			taken = op.Most - op.Count
		}
	}

	return atLeast(len(rows)-taken, rows)
}

// needsFree reports whether a row of the request's family is in its way while it is held.
func needsFree(op *history.Operation, lock string) bool {
	family, part := traffic.Part(lock)
	if family != op.Family || part == traffic.GatePart {
		return false
	}

	// Readers don't mind each other, and a writer doesn't mind that writers wait.
	forReader := part == traffic.WriterPart || part == traffic.IntentPart

	return op.Kind == history.RLock && forReader || op.Kind != history.RLock && part != traffic.IntentPart
}

// atLeast is when at least that many of the rows were free, if it is any number.
func atLeast(rows int, free [][]window) []window {
	type edge struct {
		at   int64
		step int
	}

	var edges []edge

	for _, times := range free {
		for _, w := range times {
			edges = append(edges, edge{w.from, 1}, edge{w.to, -1})
		}
	}

	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.step, b.step)) })

	var (
		found []window
		now   int
	)

	for _, e := range edges {
		if now += e.step; e.step > 0 && now == rows {
			found = append(found, window{e.at, history.Never})
		} else if e.step < 0 && now == rows-1 && len(found) > 0 {
			found[len(found)-1].to = e.at
		}
	}

	return found
}
