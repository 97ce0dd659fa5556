package waitqueue

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

const (
	// crowdFrom is how many other processes make a crowd. Fewer take turns without announcements.
	crowdFrom = 8
	// announcedFor is for how many rounds an announcement of a crowd counts.
	announcedFor = 8
	// announceFrom is how far apart releases must be at least: no announcement pays between faster ones.
	announceFrom = 10 * time.Millisecond

	// crowdFor is for how long a process remembers a crowd in which it no longer waits, and maxCrowds how many.
	crowdFor  = 30 * time.Second
	maxCrowds = 100
	// crowdStart is the start that a process gives to the others when it comes back.
	crowdStart = crowdPoliteness

	// crowdPoliteness is the start that a process gives to each that is in front of it, and rankMax how many it
	// counts. It is longer than [politeness]: it takes a while until all processes have heard of a grant.
	crowdPoliteness = 5 * time.Millisecond
	rankMax         = 45

	// spacingMin is the smallest distance between two processes that is told apart.
	spacingMin = time.Millisecond
	// stepMax is how many times its spacing the front moves on in a round. So it hardly follows a process that
	// overtook all others.
	stepMax = 4

	// markFresh is how much of a mark must be left for a process in a crowd to leave none of its own.
	markFresh = 5 * time.Second
	// markRank is how many processes at the front renew an older mark.
	markRank = 4
)

// announcementPrefix begins the payload of an announcement. No lock has such an id.
const announcementPrefix = "pglocker:granted "

// Announcement tells all that wait for a lock that it was granted. So they need not ask.
type Announcement struct {
	// LockID may have any characters.
	LockID     string
	Generation int64
	// Winner is the process that has the lock. It has no space.
	Winner string
	// Lease is how much is left of the lease, and Mark how much of the mark on the row.
	Lease, Mark time.Duration

	// waited is how long the winner has waited, spacing how far apart it thinks the waiting processes came, and
	// others how many of these it knows of.
	waited, spacing time.Duration
	others          int
}

// Payload is the announcement as a notification's.
func (a Announcement) Payload() string {
	return fmt.Sprint(announcementPrefix, a.Generation, " ", a.Lease.Microseconds(), " ", a.Mark.Microseconds(), " ",
		a.waited.Microseconds(), " ", a.spacing.Microseconds(), " ", a.others, " ", a.Winner, " ", a.LockID)
}

// ParseAnnouncement reads a payload. It is false if that is no announcement.
func ParseAnnouncement(payload string) (a Announcement, ok bool) {
	text, ok := strings.CutPrefix(payload, announcementPrefix)
	if !ok {
		return a, false
	}

	words := strings.SplitN(text, " ", 8)
	if len(words) < 8 {
		return a, false
	}

	var numbers [6]int64

	for i := range numbers {
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil || n < 0 {
			return a, false
		}

		numbers[i] = n
	}

	us := func(n int64) time.Duration {
		return time.Duration(min(n, int64(24*time.Hour/time.Microsecond))) * time.Microsecond
	}

	return Announcement{
		LockID: words[7], Generation: numbers[0], Winner: words[6], Lease: us(numbers[1]), Mark: us(numbers[2]),
		waited: us(numbers[3]), spacing: us(numbers[4]), others: int(min(numbers[5], rivalCounts)),
	}, true
}

// crowd orders the processes that wait for one lock by when they came, where there are many. None knows the
// others: each announcement says how long its winner has waited.
type crowd struct {
	// since is when this process came, or won last.
	since time.Time
	// front is when the process came that won last, and spacing how far apart those came that won one after
	// the other.
	front   time.Time
	spacing time.Duration
	// others is how many processes the last announcement told of, in the given round; 0 if there was none.
	others, round int
	// heard: an announcement was heard since this process won last.
	heard bool
	// released is when the last release was heard of, and interval how long that was after the one before.
	released time.Time
	interval time.Duration
}

// isCrowd reports whether many processes wait.
func (t *turns) isCrowd() bool {
	return t.crowd.others >= crowdFrom && t.round-t.crowd.round <= announcedFor
}

// leftCrowd is what a process knew that had no waiter any more at the given time.
type leftCrowd struct {
	turns turns
	at    time.Time
}

// newLine is the line of a lock for which no waiter waited. A process that comes back to a crowd knows it.
func (q *Queue) newLine(id string) *line {
	left, ok := q.crowds[id]
	delete(q.crowds, id)

	l := &line{turns: turns{won: -1}}
	if ok && time.Since(left.at) < crowdFor {
		l.turns = left.turns
	}

	l.turns.crowd.since = time.Now()

	return l
}

func (q *Queue) endLine(id string, l *line) {
	delete(q.lines, id)

	if !l.turns.isCrowd() {
		return
	}

	if len(q.crowds) >= maxCrowds {
		clear(q.crowds)
	}

	q.crowds[id] = leftCrowd{l.turns, time.Now()}
}

// InCrowd reports whether this process waited for the lock in a crowd lately. It then takes its place in the line
// before it asks.
func (q *Queue) InCrowd(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()

	left, ok := q.crowds[id]

	return ok && time.Since(left.at) < crowdFor
}

func (c *crowd) heardRelease(now time.Time) {
	c.interval, c.released = now.Sub(c.released), now
}

// saw notes an announcement.
func (c *crowd) saw(a Announcement, round int, now time.Time) {
	came := now.Add(-a.waited)

	switch step := came.Sub(c.front); {
	case c.front.IsZero():
		c.front, c.spacing = came, a.spacing
	case step < 0: // there are some that came before the front
		c.front = came
		c.spacing -= c.spacing / 4
	default:
		step = min(step, stepMax*c.spacing)
		c.front = c.front.Add(step)
		c.spacing += (step - c.spacing) / 4
	}

	c.spacing = max(c.spacing, spacingMin)
	c.others, c.round, c.heard = a.others, round, true
}

// rank is how many processes are in front of this one, as far as it knows, and rankMax at most.
func (c *crowd) rank() int {
	ahead := float64(c.since.Sub(c.front)) / float64(max(c.spacing, spacingMin))

	return min(max(int(min(ahead, rankMax)+0.5)-1, 0), rankMax)
}

// start is how long after a release a process of that rank asks, unless it hears of a grant before.
func start(rank int) time.Duration {
	return time.Duration(float64(rank) * (1 + rand.Float64()/2) * float64(crowdPoliteness))
}

// won notes that this process won. If no other did since it won last, there is no crowd any more.
func (c *crowd) won(now time.Time) {
	if !c.heard {
		c.others = 0
	}

	c.heard, c.since = false, now
}

// announcement is what this process tells when it wins. It is false if no crowd waits, or if it isn't worth it.
func (t *turns) announcement(now time.Time) (a Announcement, ok bool) {
	c := &t.crowd

	a.others = len(t.rivals)
	if t.isCrowd() {
		a.others = max(a.others, c.others-1) // none knows all, and the crowd may be gone
	}

	a.waited, a.spacing = now.Sub(c.since), c.spacing
	if a.spacing == 0 {
		a.spacing = c.interval
	}

	return a, a.others >= crowdFrom && c.interval >= announceFrom
}

// Announced notes that another process was granted a lock that many wait for. The head here needn't ask for it,
// unless the mark is old and this process near the front.
func (q *Queue) Announced(a Announcement) {
	q.with(a.LockID, func(l *line) {
		now, t := time.Now(), &l.turns

		t.lost(a.Winner)
		t.crowd.saw(a, t.round, now)

		l.marks.othersUntil = now.Add(2 * markCounts)
		l.marks.stands = now.Add(a.Mark)

		if head := l.head(); head.Permits == 0 && (a.Mark >= markFresh || t.crowd.rank() >= markRank) {
			head.startAt, head.told = time.Time{}, &a
			signal(head.hint)
		}
	})
}
