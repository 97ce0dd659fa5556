package waitqueue

import (
	"math/rand/v2"
	"slices"
	"time"
)

// turns are those of the processes that want one lock, as this process sees them.
type turns struct {
	// run is that since the database last decided between processes.
	run Run
	// round counts the releases that all processes were told of, and won is the round that this process won
	// last.
	round, won int
	// rivals are the other processes that were seen to win, the latest last, each once: rivalCounts at most.
	rivals []rival
	// hadTurn: the next release of a place that is heard of ended a run of this process.
	hadTurn bool
	// restUntil is until when what becomes free is left to others.
	restUntil time.Time
	crowd     crowd
}

// rival is another process, and the round that it won last.
type rival struct {
	name string
	won  int
}

// rivalCounts is for how many rounds a process that won counts as a rival, and so how many there are.
const rivalCounts = 32

const (
	// politeness is the start that a process gives to another whose turn it is.
	politeness = time.Millisecond
	// politePlaces is for how many places that a process holds it waits for so long each.
	politePlaces = 10
)

// Run is how a lock was handed over in this process lately.
type Run struct {
	// Length counts the hand-overs in a row, and Began is when the first was.
	Length int
	Began  time.Time
	// Others: another process is known to wait.
	Others bool
	// Rich: without the place that is released, this process still holds its share of them.
	Rich bool
}

func (t *turns) handedOver() {
	if t.run.Length == 0 {
		t.run.Began = time.Now()
	}

	t.run.Length++
}

// EndRun is called when the lock, which this process holds, is released for all processes.
func (q *Queue) EndRun(id string) {
	q.about(id, func(l *line) { l.turns.won, l.turns.run, l.turns.hadTurn = l.turns.round, Run{}, true })
}

// Released is called when all processes were told that the lock is free. The head asks at once if it is this
// process's turn, and otherwise gives the others a start. So mostly only one process asks. In a crowd it lets
// most releases pass. For one of several places, the process that holds the fewest asks first.
func (q *Queue) Released(id string) {
	q.with(id, func(l *line) {
		t, head := &l.turns, l.head()
		t.nextRound()

		var n float64
		if head.Permits == 0 && !head.Special {
			n = t.crowd.size()
		}

		switch rounds := t.round - t.won; {
		case head.Permits > 0:
			q.wakePolitely(l)
		case n > 0 && t.crowd.passes(n, rounds):
			head.putOff(time.Now().Add(t.crowd.fallBack(n, head.TTL)))
		case n > 0:
			head.wakeAt(time.Now().Add(crowdStart(n, rounds)))
		case l.isOurs():
			signal(head.wake)
		default:
			head.wakeAt(time.Now().Add(politeness))
		}
	})
}

// wakePolitely makes the head of a line for places ask the later, the more places this process holds, if others
// are known to wait. One whose run has just ended counts as held. The queue's mutex is held.
func (q *Queue) wakePolitely(l *line) {
	head, held := l.head(), q.places[l.head().id]

	if l.turns.hadTurn {
		held++
		l.turns.hadTurn = false
	}

	if held > 0 && time.Now().Before(l.marks.othersUntil) {
		head.wakeAt(time.Now().Add(patience(held)))
	} else {
		signal(head.wake)
	}
}

// Politeness is how long after a request for a place that was contested this process asks again.
func (q *Queue) Politeness(id string) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()

	return patience(q.places[id])
}

// patience is the start that a process which holds so many places gives to others.
func patience(held int) time.Duration {
	return time.Duration(min(held, politePlaces))*politeness + rand.N(politeness)
}

// Hold counts places that this process takes, or gives up where n is below 0.
func (q *Queue) Hold(id string, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if q.places[id] += n; q.places[id] == 0 {
		delete(q.places, id)
	}
}

func (t *turns) nextRound() {
	t.round++
	t.crowd.released()
	t.rivals = slices.DeleteFunc(t.rivals, func(r rival) bool { return t.round-r.won > rivalCounts })
}

// isOurs reports whether more rounds have passed since this process won than there are rivals. A process that is known
// to wait is one, also if it has won nothing yet.
func (l *line) isOurs() bool {
	rivals := len(l.turns.rivals)
	if time.Now().Before(l.marks.othersUntil) {
		rivals = max(rivals, 1)
	}

	return l.turns.round-l.turns.won > rivals
}

// Won notes that the database granted this process the lock.
func (q *Queue) Won(id string) {
	q.about(id, func(l *line) {
		l.turns.won, l.turns.run = l.turns.round, Run{}
		l.turns.crowd.won()
	})
}

// WonSlot is Won for one of several places: a run of them goes on.
func (q *Queue) WonSlot(id string) {
	q.about(id, func(l *line) { l.turns.won = l.turns.round })
}

// Extend counts a release for all that wakes the head here at once, as a hand-over: one of several places is
// free, and mostly the head here gets it.
func (q *Queue) Extend(id string) { q.with(id, func(l *line) { l.turns.handedOver() }) }

// Rest has what becomes free left to other processes for d.
func (q *Queue) Rest(id string, d time.Duration) {
	q.about(id, func(l *line) { l.turns.restUntil = time.Now().Add(d) })
}

// Rests is for how long from now on what becomes free is left to others.
func (q *Queue) Rests(id string) (left time.Duration) {
	q.about(id, func(l *line) { left = max(time.Until(l.turns.restUntil), 0) })

	return left
}

// Lost notes that another process got it.
func (q *Queue) Lost(id, winner string) {
	q.about(id, func(l *line) {
		t := &l.turns
		t.rivals = slices.DeleteFunc(t.rivals, func(r rival) bool { return r.name == winner })

		// A process that polls is told of no release, and its rounds stand still.
		if len(t.rivals) == rivalCounts {
			t.rivals = slices.Delete(t.rivals, 0, 1)
		}

		t.rivals = append(t.rivals, rival{winner, t.round})
		t.restUntil = time.Time{} // another has had its turn
		t.crowd.saw(winner)
	})
}
