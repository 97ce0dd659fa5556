package oracle

import (
	"math"
	"slices"
	"time"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// Times of the database and of the clients can be compared even in runs that set the database's
// clock: each setting is in the history. The clock may have shown a time that the database wrote
// down at several moments, and several times at a moment near a setting. The oracles count every
// one of them as possible.

const (
	// clockError is how far times of the database and of the clients may be off each other,
	// in microseconds.
	clockError = 5000
	// clockLag is how long a process may go by an old setting: it may not run between reading a
	// setting and using it.
	clockLag = 50 * time.Millisecond
	// clockRead is how long a process may take from reading this machine's clock to reading how far it is set ahead.
	clockRead = 250 * time.Millisecond
)

// setting is how far ahead the database's clock may have been between two moments, in
// microseconds.
type setting struct{ from, to, ahead int64 }

// settings are those of the database's clock. The first is that of this machine.
func (r *Run) settings() []setting {
	if r.clock != nil {
		return r.clock
	}

	last := setting{from: math.MinInt64, to: history.Never}

	for _, e := range r.History.Notes {
		if e.Kind != history.Clock {
			continue
		}

		last.to = e.At + int64(clockLag)
		r.clock = append(r.clock, last)
		last = setting{from: e.From, to: history.Never, ahead: e.Value / 1000}
	}

	r.clock = append(r.clock, last)

	return r.clock
}

// settingsIn are those that may have counted between two moments.
func (r *Run) settingsIn(from, to int64) []setting {
	return slices.DeleteFunc(slices.Clone(r.settings()), func(s setting) bool { return s.to < from || s.from > to })
}

// dbTime is the database's clock, in microseconds, at a moment of [history.Now], unless it
// was set.
func (r *Run) dbTime(at int64) int64 {
	return (at + r.WallOffset) / 1000
}

// ahead is how far ahead the database's clock was between two moments, at least and at most.
func (r *Run) ahead(from, to int64) (least, most int64) {
	least, most = math.MaxInt64, math.MinInt64

	for _, s := range r.settingsIn(from, to) {
		least, most = min(least, s.ahead), max(most, s.ahead)
	}

	return least, most
}

// shown are the earliest and the latest time that the database's clock may have shown
// between two moments.
func (r *Run) shown(from, to int64) (earliest, latest int64) {
	least, most := r.ahead(from, to)

	return r.dbTime(from) + least - clockError, r.dbTime(to) + most + clockError
}

// shownSince is the latest time that the database's clock may have shown before the request was
// answered, and after it had shown the given time during the request.
func (r *Run) shownSince(dbTime int64, op *history.Operation) int64 {
	latest := dbTime

	for _, s := range r.settingsIn(op.Call, op.End) {
		at := (dbTime-s.ahead)*1000 - r.WallOffset
		if at < op.Call-clockError*1000 || at < s.from || at > min(op.End+clockError*1000, s.to) {
			continue
		}

		_, shown := r.shown(min(at, op.End), op.End)
		latest = max(latest, shown)
	}

	return latest
}

// moments are the first and the last moment at which the database's clock may have shown a
// time.
func (r *Run) moments(dbTime int64) (first, last int64) {
	first, last = history.Never, math.MinInt64

	for _, s := range r.settings() {
		at := (dbTime-s.ahead)*1000 - r.WallOffset
		if at < s.from-int64(clockRead) && s.from != math.MinInt64 || at > s.to {
			continue
		}

		first, last = min(first, at-clockError*1000), max(last, at+clockError*1000)
	}

	if first > last { // no setting explains it
		return math.MinInt64, history.Never
	}

	return first, last
}

// momentsOf are the first and the last moment at which the transition may have been written down. Where the clock
// is set, the audit has them: nobody knows for how long a process didn't run between reading this machine's clock and
// reading how far it is set ahead, and so what its time means.
func (r *Run) momentsOf(t *audit.Transition) (first, last int64) {
	if t.From != 0 {
		return t.From, t.To
	}

	return r.moments(t.At)
}

// seenBy is the latest time that a transition's statement may have seen: what it wrote down after
// its decision, unless the clock was set back meanwhile. op is the request of the statement, if
// that is known.
func (r *Run) seenBy(t *audit.Transition, op *history.Operation) int64 {
	if len(r.settings()) == 1 {
		return t.At
	}

	from, seen := int64(math.MinInt64), t.At
	_, to := r.momentsOf(t)

	if op != nil {
		from, to = op.Call, min(op.End, to)
	}

	for _, s := range r.settingsIn(from, to) {
		seen = max(seen, r.dbTime(min(s.to, to))+s.ahead+clockError)
	}

	return seen
}

// seenFrom is the earliest time that a transition's statement may have seen: when it arrived,
// unless the clock was set back before its decision.
func (r *Run) seenFrom(t *audit.Transition) int64 {
	from, _ := r.moments(t.Began)
	_, to := r.momentsOf(t)
	seen := t.Began

	settings := r.settingsIn(from, to)
	if len(settings) == 1 {
		return seen
	}

	for _, s := range settings {
		at := max(s.from, from)
		if at == math.MinInt64 { // no setting explains when it arrived
			return math.MinInt64
		}

		seen = min(seen, r.dbTime(at)+s.ahead-clockError)
	}

	return seen
}

// setAhead reports whether the database's clock may have been set ahead between two moments.
func (r *Run) setAhead(from, to int64) bool {
	settings := r.settings()

	for i, s := range settings[1:] {
		before := settings[i]
		if s.ahead > before.ahead && s.from <= to && before.to >= from {
			return true
		}
	}

	return false
}
