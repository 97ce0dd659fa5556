package oracle

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// state is the row as its next reader sees it.
type state struct {
	row audit.Version
	// before is the row as it was flushed last, if later releases aren't in the audit because a
	// crash was to undo them.
	before audit.Version
	undone bool
}

// stepKind is what a step does to the row, or says of it.
type stepKind string

const (
	// changed: the transition was made.
	changed stepKind = "changed"
	// elsewhere: another's transition had ended the tenure that was released.
	elsewhere stepKind = "moved"
	// lostRelease: a release was acknowledged, and undone by a crash.
	lostRelease stepKind = "released, and lost"
	// crashed: the row is as it was flushed last.
	crashed stepKind = "crashed"
	// shown: the row is as the answer shows it.
	shown stepKind = "shown"
	// busy: it was held by that generation.
	busy stepKind = "busy"
	// wrong: the generation wasn't the one that was named.
	wrong stepKind = "wrong"
	// missing: there was no row.
	missing stepKind = "missing"
	// guarded: it was held by the generation that was named.
	guarded stepKind = "guarded"
)

// step is one request, or one transition, on one lock.
type step struct {
	lock       string
	kind       stepKind
	op         *history.Operation
	transition *audit.Transition
	// from and to are the database's clock at the call and at the answer.
	from, to int64
	// touched: the generation that the answer shows came or went until the answer.
	touched bool
	// seen is what the transition's statement went by.
	seen sight
	// lossy: the server crashed later, and may have undone releases that only this answer shows.
	lossy bool
}

func (s *step) String() string {
	text := string(s.kind)
	if s.op != nil {
		text += ": " + describe(s.op)[0]
	}

	if s.transition != nil {
		text += " " + s.transition.String()
	}

	return text
}

// model is the lock as its row has it. The audit tells which requests changed the row, and to what.
// The model checks that the protocol allows each change. It also checks that there is an order, in
// keeping with when requests were made and answered, in which every change finds the row as it must
// be and every answer tells the truth.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(before, input, _ any) (bool, any) {
		return input.(*step).on(before.(state))
	},
	DescribeOperation: func(input, _ any) string { return input.(*step).String() },
	DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s) },
}

func (s *step) on(now state) (legal bool, next state) {
	switch s.kind {
	case changed:
		t := s.transition
		if now.row != t.Old || !s.allowed() {
			return false, now
		}

		return true, state{row: t.New}
	case lostRelease:
		if now.row.Generation != s.op.Generation {
			return false, now
		}

		next = state{row: audit.Version{Generation: now.row.Generation + 1}, before: now.before, undone: true}
		if !now.undone {
			next.before = now.row
		}

		return true, next
	case crashed:
		if now.undone {
			return true, state{row: now.before}
		}

		return true, now
	default:
		return s.answered(now), now
	}
}

// allowed reports whether a client could make the change by what it asked for.
func (s *step) allowed() bool {
	t := s.transition

	switch {
	case illegal(t, s.seen) != "":
		return false
	case s.op == nil:
		return true
	case s.op.Kind.Grants():
		// A refresh names a generation. A hand-over, or a second attempt of the same request, has
		// it from the same client. Any other request that is granted the lock finds it expired, by
		// the clock at that time.
		return t.New.Generation > t.Old.Generation &&
			(s.op.Kind == history.Refresh || t.Old.Expires <= s.seen.latest || clientOf(t.Old.Owner) == t.App)
	case s.op.Kind.Frees():
		return t.Old.Generation == s.op.Generation
	}

	return true
}

// answered reports whether an answer that changed nothing is true of the row.
func (s *step) answered(now state) bool {
	op, row := s.op, now.row

	switch s.kind {
	case elsewhere:
		return row.Generation != op.Generation
	case wrong:
		// A status of a free lock names the moment since when it was free, too.
		return row.Generation != 0 && row.Generation != op.Generation || op.Free || s.lossy
	case missing:
		// A crash may undo that a row was pruned, and a release before that.
		return row.Generation == 0 || s.lossy
	case guarded:
		return row.Generation == op.Generation && row.Expires > s.from
	case busy:
		if op.Remaining == 0 {
			return s.barelyBusy(row)
		}

		// A lease that still ran for so long when it was read ends so much later.
		read := row.Expires - op.Remaining

		return row.Generation == op.Token && s.from <= read && read <= s.to
	case shown:
		seen := audit.Version{Generation: op.Token, Expires: op.Expires, Owner: op.Owner, Acquired: op.Acquired}
		free := now.undone || s.lossy

		return row == seen || free && op.Owner == "" && op.Token >= row.Generation
	}

	return false
}

// barelyBusy reports whether a lock with nothing remaining may have been refused: its lease ran at
// some time since the call, or it changed hands at the same moment. A crash may have undone a
// release that nothing else shows.
func (s *step) barelyBusy(row audit.Version) bool {
	if row.Generation == s.op.Token {
		return row.Expires > s.from || s.touched || s.late() || s.lossy
	}

	return s.lossy && s.op.Owner == "" && s.op.Token == row.Generation+1
}

// late: the time of WithWait is over, and its error is ErrAlreadyLocked. The waiter's requests may
// have had no answer, or it may have made none behind another waiter of its Locker. Then it has
// only looked at the lock, which may be free while its request is on the way.
func (s *step) late() bool {
	return s.op.Wait > 0 && s.op.End-s.op.Call >= s.op.Wait
}
