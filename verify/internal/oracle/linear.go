package oracle

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// checkWithin bounds the search for one lock. A search that gives up is a violation.
const checkWithin = 20 * time.Second

// Failure is a lock whose history is not linearizable.
type Failure struct {
	Lock  string
	info  porcupine.LinearizationInfo
	model porcupine.Model
}

// Picture writes a page that shows the history, and how far it could be put in order.
func (f Failure) Picture(path string) error {
	return porcupine.VisualizePath(f.model, f.info, path)
}

// CheckLinearizability is O1, for G1, G3 and G5. Each lock's history is that of a single row. One
// request after the other took effect on it, each between its call and its answer. The model is
// [model].
func CheckLinearizability(run *Run, settled *Settled) ([]Violation, []Failure) {
	var (
		violations []Violation
		failures   []Failure
	)

	steps := stepsOf(run, settled)
	histories := byLock(steps, func(op porcupine.Operation) string { return op.Input.(*step).lock })

	for _, lock := range sortedKeys(histories) {
		v, f := searchOrder(model, lock, histories[lock])
		violations, failures = append(violations, v...), append(failures, f...)
	}

	return violations, failures
}

// searchOrder looks for an order of the steps.
func searchOrder(m porcupine.Model, lock string, steps []porcupine.Operation) ([]Violation, []Failure) {
	result := porcupine.CheckOperationsTimeout(m, steps, checkWithin)
	if result == porcupine.Ok {
		return nil, nil
	}

	// Once more, for the picture alone. It makes a search of thousands of steps up to five times as
	// long, so that it may not come as far as the first.
	_, info := porcupine.CheckOperationsVerbose(m, steps, checkWithin)

	what := "not linearizable"
	if result == porcupine.Unknown {
		what = fmt.Sprintf("nobody could say within %s whether it is linearizable", checkWithin)
	}

	return []Violation{{Linearizability, lock, what, stuckAt(m, info, steps)}}, []Failure{{Lock: lock, info: info, model: m}}
}

// stuckAt describes where the longest linearization ends: the state, and the first few steps that
// aren't in it.
func stuckAt(model porcupine.Model, info porcupine.LinearizationInfo, ops []porcupine.Operation) []string {
	var longest []int

	for _, partition := range info.PartialLinearizations() {
		for _, one := range partition {
			if len(one) > len(longest) {
				longest = one
			}
		}
	}

	lines := []string{fmt.Sprintf("%d of %d steps in order", len(longest), len(ops))}
	included := make(map[int]bool)
	state := model.Init()

	for _, id := range longest {
		included[id] = true
		_, state = model.Step(state, ops[id].Input, nil)
	}

	if len(longest) > 0 {
		lines = append(lines, fmt.Sprintf("the last: %s", ops[longest[len(longest)-1]].Input))
	}

	lines = append(lines, fmt.Sprintf("which leaves: %+v", state))

	rest := make([]porcupine.Operation, 0, len(ops)-len(longest))

	for id, op := range ops {
		if !included[id] {
			rest = append(rest, op)
		}
	}

	slices.SortFunc(rest, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })

	const few = 8

	for _, op := range rest[:min(few, len(rest))] {
		lines = append(lines, fmt.Sprintf("not then, %d to %d: %s", op.Call, op.Return, op.Input))
	}

	return lines
}

// stepsOf makes steps of the requests whose answers say something, and of the transitions that no
// answer tells of. A request with an unknown outcome has either made such a transition, which the
// audit places among the others, or none. In both cases it is open-ended, and no step of its own.
func stepsOf(run *Run, settled *Settled) []porcupine.Operation {
	var steps []porcupine.Operation

	clients := make(map[string]int)
	clientID := func(name string) int {
		if _, ok := clients[name]; !ok {
			clients[name] = len(clients)
		}

		return clients[name]
	}

	ends := make(map[*audit.Transition]window)
	changes := changesOf(run)

	for _, op := range run.History.Operations {
		s := stepOf(run, settled, op)
		if s == nil {
			continue
		}

		if s.kind == busy && op.Remaining == 0 {
			s.touched = changes.touch(run, op)
		}

		if s.transition != nil && s.kind != elsewhere {
			ends[s.transition] = window{op.Call, op.End}
		}

		steps = append(steps, porcupine.Operation{
			ClientId: clientID(op.Client), Input: s, Call: op.Call, Return: op.End,
		})
	}

	windows := silentWindows(run, settled, ends)

	for _, t := range run.Audit {
		if w, silent := windows[t]; silent && traffic.Leased(t.Lock) {
			steps = append(steps, porcupine.Operation{
				ClientId: clientID(t.App + " unseen"), Input: &step{lock: t.Lock, kind: changed, transition: t, seen: run.sightOf(t, nil)},
				Call: w.from, Return: w.to,
			})
		}
	}

	return append(steps, crashSteps(run, settled, clientID)...)
}

func stepOf(run *Run, settled *Settled, op *history.Operation) *step {
	s := &step{lock: op.Lock, op: op, lossy: run.mayBeUndone(op.Call, op.End), from: 0, to: math.MaxInt64}

	if op.End != history.Never {
		s.from, s.to = run.shown(op.Call, op.End)
	}

	switch {
	case settled.Grants[op] != nil:
		s.kind, s.transition = changed, settled.Grants[op]
		s.seen = run.sightOf(s.transition, op)
	case settled.Creates[op] != nil:
		s.kind, s.transition = changed, settled.Creates[op]
	case settled.LostInCrash[op]:
		s.kind = lostRelease
	case settled.Frees[op] != nil && settled.Claimed[settled.Frees[op]] && settled.Frees[op].App == op.Client && !settled.Frees[op].Grants():
		s.kind, s.transition = changed, settled.Frees[op]
	case settled.Frees[op] != nil:
		s.kind, s.transition = elsewhere, settled.Frees[op]
	case op.Outcome == history.Busy && op.Token > 0 && op.Family == "" && !(op.Kind == history.All && op.Remaining == 0):
		s.kind = busy // LockAll also calls a free lock busy that another transaction has locked
	case op.Outcome == history.OK && (op.Kind == history.Get || op.Kind == history.Create):
		s.kind = shown
	case op.Outcome == history.OK && op.Kind == history.Guard:
		s.kind = guarded
	case op.Outcome == history.OutcomeLost && (op.Kind == history.Refresh || op.Kind == history.Release):
		s.kind = wrong
	case op.Outcome == history.Missing:
		s.kind = missing
	default:
		return nil
	}

	if s.transition == nil && run.within(op, history.Failover) {
		return nil // the answer may be the old primary's
	}

	return s
}

// generation is one of a lock.
type generation struct {
	lock   string
	number int64
}

// changes are the transitions by which generations came and went.
type changes map[generation][]*audit.Transition

func changesOf(run *Run) changes {
	all := make(changes)

	for _, t := range run.Audit {
		if t.Renews() {
			continue
		}

		for _, number := range []int64{t.Old.Generation, t.New.Generation} {
			of := generation{t.Lock, number}
			all[of] = append(all[of], t)
		}
	}

	return all
}

// touch reports whether the generation in an answer came or went before the answer and, as far as
// the audit knows, not before the call. A transition may have been committed long after the audit
// has it, and the answer may still show the generation that it ended. The order of the steps tells
// that it didn't go before the call.
func (c changes) touch(run *Run, op *history.Operation) bool {
	return slices.ContainsFunc(c[generation{op.Lock, op.Token}], func(t *audit.Transition) bool {
		first, last := run.momentsOf(t)

		return first <= op.End && (last >= op.Call || t.Old.Generation == op.Token)
	})
}

// window is when something took effect.
type window struct{ from, to int64 }

// silentWindows says when the transitions took effect that no answer tells of: after those before
// them in the audit began, before those behind them were answered, and at the audit's own time.
func silentWindows(run *Run, settled *Settled, known map[*audit.Transition]window) map[*audit.Transition]window {
	windows := make(map[*audit.Transition]window)

	for _, chain := range byLock(run.Audit, func(t *audit.Transition) string { return t.Lock }) {
		from := int64(0)

		for _, t := range chain {
			if w, ok := known[t]; ok {
				from = max(from, w.from)

				continue
			}

			first, _ := run.momentsOf(t)
			from = max(from, first)
			windows[t] = window{from, history.Never}
		}

		to := int64(history.Never)

		for i := len(chain) - 1; i >= 0; i-- {
			t := chain[i]
			if w, ok := known[t]; ok {
				to = min(to, w.to)

				continue
			}

			w := windows[t]
			w.to = max(to, w.from)
			windows[t] = w

			// The next decision saw this one committed.
			_, last := run.momentsOf(t)
			to = min(to, last)
		}
	}

	return windows
}

// crashSteps are the moments at which acknowledged releases were undone.
func crashSteps(run *Run, settled *Settled, clientID func(string) int) []porcupine.Operation {
	var steps []porcupine.Operation

	locks := make(map[string]bool)
	for op := range settled.LostInCrash {
		locks[op.Lock] = true
	}

	for _, e := range run.History.Notes {
		if !isCrash(e) {
			continue
		}

		for _, lock := range sortedKeys(locks) {
			steps = append(steps, porcupine.Operation{
				ClientId: clientID("crash"), Input: &step{lock: lock, kind: crashed}, Call: e.From, Return: e.At,
			})
		}
	}

	return steps
}
