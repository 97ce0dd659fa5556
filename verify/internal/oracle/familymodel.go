package oracle

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

const (
	// mostSlots is how many slots of a family the model has room for.
	mostSlots = 24
	// gateAt and the others are where the model has the rows that are no slots. The writer's comes
	// behind all slots.
	writerAt = mostSlots
	intentAt = mostSlots + 1
	gateAt   = mostSlots + 2
	rowCount = mostSlots + 3
)

// familyState is all rows of a semaphore, or of a read-write lock.
type familyState [rowCount]familyRow

type familyRow struct {
	generation, expires int64
	held                bool
}

// rowAt is where the model has a row, -1 if it has no room for it.
func rowAt(lock string) int {
	_, part := traffic.Part(lock)

	switch part {
	case traffic.GatePart:
		return gateAt
	case traffic.WriterPart:
		return writerAt
	case traffic.IntentPart:
		return intentAt
	}

	if n, err := strconv.Atoi(part); err == nil && n >= 1 && n <= mostSlots {
		return n - 1
	}

	return -1
}

func familyRowOf(v audit.Version) familyRow {
	return familyRow{v.Generation, v.Expires, v.Owner != ""}
}

// familyStep is what one transaction did to a family, or an answer that says something of it.
type familyStep struct {
	family string
	// changes are none for an answer, which is op.
	changes []*audit.Transition
	op      *history.Operation
	// from is the database's clock at the answer's call, at the earliest.
	from int64
	// seen is the latest time by which a change may have gone, most the permits of its client.
	seen int64
	most int
}

func (s *familyStep) String() string {
	if s.op != nil {
		return describe(s.op)[0]
	}

	things := make([]any, len(s.changes))
	for i, t := range s.changes {
		things[i] = t
	}

	return strings.Join(describe(things...), "; ")
}

// familyModel is a semaphore or a read-write lock, as [model] is a lock: each change finds all its
// rows as they must be, and each grant finds room among all others.
var familyModel = porcupine.Model{
	Init: func() any { return familyState{} },
	Step: func(before, input, _ any) (bool, any) {
		return input.(*familyStep).on(before.(familyState))
	},
	DescribeOperation: func(input, _ any) string { return input.(*familyStep).String() },
	DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s) },
}

func (s *familyStep) on(now familyState) (legal bool, next familyState) {
	if s.op != nil {
		return s.answered(now), now
	}

	next = now

	var readers, writers int

	for _, t := range s.changes {
		at := rowAt(t.Lock)
		if at < 0 || now[at] != familyRowOf(t.Old) {
			return false, now
		}

		next[at] = familyRowOf(t.New)

		switch {
		case !t.Grants() || at >= intentAt:
		case at == writerAt:
			writers++
		default:
			readers++
		}
	}

	// What the statement itself has ended, or granted, isn't in its way.
	others, writer := 0, false

	for at, row := range now[:intentAt] {
		// One that was released is held until the end of its minimum hold.
		if row != next[at] || row.expires <= s.seen {
			continue
		}

		others++
		writer = writer || at == writerAt
	}

	switch {
	case readers+writers == 0:
		return true, next
	case s.isSemaphore():
		return others+readers <= s.most, next
	case writers > 0:
		return others == 0 && writers == 1 && readers == 0, next
	}

	return !writer, next
}

func (s *familyStep) isSemaphore() bool {
	kind, _ := pglocker.KindOf(s.family)

	return kind == pglocker.KindSemaphore
}

// answered reports whether a refusal, or that a guard holds, is true of the rows.
func (s *familyStep) answered(now familyState) bool {
	if s.op.Kind == history.Guard {
		at := rowAt(s.op.Lock)

		return at >= 0 && now[at].generation == s.op.Generation && now[at].expires > s.from
	}

	held := 0

	// A row counts until the end of a minimum hold, too. One whose lease has ended may have been in
	// the way: a guard of its last holder may have had it locked.
	inTheWay := func(row familyRow) bool { return row.held || row.expires > s.from }

	for _, row := range now[:writerAt] {
		if inTheWay(row) {
			held++
		}
	}

	writer := inTheWay(now[writerAt])

	switch {
	case s.isSemaphore():
		return held+s.op.Count > s.op.Most
	case s.op.Kind == history.WLock:
		return writer || held > 0
	}

	return writer || now[intentAt].expires > s.from
}

// CheckFamilies is the part of O1 about semaphores and read-write locks. A family of which a crash
// has undone a release is left to [CheckLinearizability], which has its rows one by one.
func CheckFamilies(run *Run, settled *Settled) ([]Violation, []Failure) {
	undone := make(map[string]bool)
	for op := range settled.LostInCrash {
		undone[op.Family] = true
	}

	for op := range settled.LostInFailover {
		undone[op.Family] = true
	}

	var (
		violations []Violation
		failures   []Failure
	)

	histories := byLock(familySteps(run, settled), func(op porcupine.Operation) string { return op.Input.(*familyStep).family })

	for _, family := range sortedKeys(histories) {
		if !undone[family] {
			v, f := searchOrder(familyModel, family, histories[family])
			violations, failures = append(violations, v...), append(failures, f...)
		}
	}

	return violations, failures
}

// familySteps makes a step of each transaction that has changed a family, and of the answers that
// tell of one.
func familySteps(run *Run, settled *Settled) []porcupine.Operation {
	var steps []porcupine.Operation

	clients := make(map[string]int)
	add := func(client string, s *familyStep, w window) {
		if _, ok := clients[client]; !ok {
			clients[client] = len(clients)
		}

		steps = append(steps, porcupine.Operation{ClientId: clients[client], Input: s, Call: w.from, Return: w.to})
	}

	windows := changeWindows(run, settled)

	families := byLock(run.Audit, func(t *audit.Transition) string {
		family, _ := traffic.Part(t.Lock)

		return family
	})
	delete(families, "")

	for _, family := range sortedKeys(families) {
		statements := byTransaction(families[family])

		for _, xid := range sortedKeys(statements) {
			s := &familyStep{family: family, changes: statements[xid], seen: math.MinInt64}
			w := window{math.MinInt64, history.Never}

			for _, t := range s.changes {
				s.seen = max(s.seen, run.seenBy(t, nil))
				s.most = mostOf(family, t.App)
				w.from, w.to = max(w.from, windows[t].from), min(w.to, windows[t].to)
			}

			add(s.changes[0].App, s, window{w.from, max(w.from, w.to)})
		}
	}

	for _, op := range run.History.Operations {
		family := op.Family
		if family == "" || families[family] == nil || op.End == history.Never || run.within(op, history.Failover) {
			continue
		}

		// Rows that others have locked are in the way, too.
		locked := run.within(op, history.RowsLocked)

		guards := op.Kind == history.Guard && op.Outcome == history.OK
		refused := op.Kind.Grants() && op.Outcome == history.Busy && !(&step{op: op}).late() && !run.mayBeUndone(op.Call, op.End) && !locked

		if guards || refused {
			from, _ := run.shown(op.Call, op.End)
			add(op.Client, &familyStep{family: family, op: op, from: from}, window{op.Call, op.End})
		}
	}

	return steps
}

// changeWindows says when each transition took effect: during the request that made it, or as
// [silentWindows] has it.
func changeWindows(run *Run, settled *Settled) map[*audit.Transition]window {
	known := make(map[*audit.Transition]window)

	for _, made := range []map[*history.Operation]*audit.Transition{settled.Grants, settled.Creates} {
		for op, t := range made {
			known[t] = window{op.Call, op.End}
		}
	}

	for op, t := range settled.Frees {
		if settled.Claimed[t] && t.App == op.Client && !t.Grants() {
			known[t] = window{op.Call, op.End}
		}
	}

	all := silentWindows(run, settled, known)
	for t, w := range known {
		all[t] = w
	}

	return all
}
