// Package keepalive renews the leases of one Locker: one goroutine while
// anything is held, one statement for all leases that are due, over a
// connection of its own.
//
// A lease is lost when the database says that it is gone, or when its local
// [Term] passes without an acknowledged renewal, whatever the connection does
// meanwhile: the clock is watched by the goroutine that never talks to the
// database. A failed attempt is repeated until then. An attempt that stays
// unanswered is not given up, since its answer may still come, but after some
// time another is sent beside it over a fresh connection.
//
// A statement that the server refuses is repeated by halves, until the lease that it
// refuses is alone. That lease has statements of its own until it was renewed.
//
// The most urgent leases go first: those whose term ends first.
package keepalive

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// Session renews leases over one connection. It is used by one attempt at a
// time. After an error it is closed and not used again, unless it has renewed leases
// before and [store.Divides] says that the error may be due to one of them.
type Session interface {
	// Connect opens the connection. It is called once, before anything else.
	Connect(ctx context.Context) error
	// Renew answers for every renewal, in order. sent is the moment before the
	// statement went out.
	Renew(ctx context.Context, renewals []store.Renewal) (results []store.RenewResult, sent time.Time, err error)
	Close()
}

const (
	// batchLimit bounds the leases in one statement, and so how long its row
	// locks last.
	batchLimit = 1000
	// attemptLimit bounds the attempts under way at once.
	attemptLimit = 4
	// attemptMin is for how long a renewal that was sent is not given up, even if its leases
	// are over before: the next one would need another connection, which takes time where
	// answers do, and a pooler would have to open one, too.
	attemptMin = 500 * time.Millisecond
	// openWithin is how long an attempt has to open its connection before another
	// may take its place.
	openWithin = 2 * time.Second
	// linger is how long the loop and its connection outlive the last lease, so
	// that a lock that is taken and left all the time doesn't start and end them
	// all the time.
	linger = 100 * time.Millisecond
	// clockCheck is how often the wall clock is looked at while anything is held.
	// Only a machine that slept notices the difference.
	clockCheck = 500 * time.Millisecond
	// clockDrift is by how much the wall clock may get ahead of the monotonic one before
	// the ends of all terms are computed again.
	clockDrift = time.Millisecond
	// hurryMin bounds how impatient a lease gets near its end, see Lease.hurry.
	hurryMin = 50 * time.Millisecond
)

// Renewer keeps leases alive. The zero value is not usable.
type Renewer struct {
	open func() Session
	// onTrouble may be nil. It must return at once.
	onTrouble func(Trouble)
	// began is what the queues' moments are counted from.
	began time.Time

	// mu guards what follows and the leases' own state. It is never held while
	// the database is asked or a callback runs.
	mu sync.Mutex
	// ends are all leases. next and early are those that wait for their next attempt, and
	// due are those whose attempt is due and not under way.
	ends, next, early, due queue
	// ahead is how far the wall clock has got ahead of the monotonic one since began, as
	// far as the moments in ends and due know.
	ahead time.Duration
	// troubled counts the leases in trouble.
	troubled int
	// parties counts those of leases that were refused together, see Lease.party.
	parties uint64
	// stop ends the running loop and its attempts; nil while nothing is held.
	stop context.CancelFunc
	// idle is the session that no attempt is using, nil if there is none.
	idle *link
	// attempts are those under way.
	attempts map[*attempt]struct{}
	// looksAt is when the loop looks again by itself.
	looksAt time.Time
	// endsAt is when the loop ends if nothing is held by then.
	endsAt time.Time

	// wake makes the loop look again; one token is enough.
	wake chan struct{}
	// goroutines counts the loop and the attempts.
	goroutines sync.WaitGroup
}

// link is a session, and whether leases were renewed over it.
type link struct {
	Session
	proven bool
}

// attempt is one statement on its way.
type attempt struct {
	leases []*Lease
	// overdue is when patience ends.
	overdue time.Time
	// doubled: patience has ended, and its leases may be part of another.
	doubled bool
	began   time.Time
	// opens: its connection is not open yet. Its request is under way otherwise.
	opens bool
	// since is when it began to do either.
	since  time.Time
	cancel context.CancelFunc
	// gaveUp: it has ended without an answer, because the renewer ended it.
	gaveUp bool
}

// New returns a Renewer that owns nothing yet. open is called from a goroutine
// of the renewer when it needs a session. onTrouble, unless it is nil, is told of every
// failed attempt, and of the end of the trouble; it must return at once.
func New(open func() Session, onTrouble func(Trouble)) *Renewer {
	return &Renewer{
		open:      open,
		onTrouble: onTrouble,
		began:     time.Now(),
		ends:      queue{order: byEnd},
		next:      queue{order: byNext},
		early:     queue{order: byEarly},
		due:       queue{order: byUrgency},
		attempts:  make(map[*attempt]struct{}),
		wake:      make(chan struct{}, 1),
	}
}

// Add starts to keep a lease alive whose present term is known.
func (r *Renewer) Add(l *Lease, term Term) {
	r.mu.Lock()
	defer r.mu.Unlock()

	now := time.Now()
	l.term = term
	l.held = true

	next := term.Sent
	if !l.RenewNow {
		next = term.Sent.Add(l.interval())
	}

	r.ends.put(l, r.end(l, now))
	r.wait(l, next)

	if r.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		r.stop = stop

		r.goroutines.Add(1)

		r.looksAt = time.Now()

		go r.run(ctx)
	}

	// Leases come and go far more often than one is due.
	if l.next.Before(r.looksAt) || now.Add(term.Left(now)).Before(r.looksAt) {
		r.poke()
	}
}

// Remove stops keeping a lease alive and returns its last term. A renewal under
// way may still reach the database, where the generation decides, and a callback
// that was on its way may still come.
func (r *Renewer) Remove(l *Lease) Term {
	report := func() {}
	defer func() { report() }() // without the mutex

	r.mu.Lock()
	defer r.mu.Unlock()

	if l.held {
		report = r.drop(l)
	}

	if r.ends.Len() == 0 {
		r.endsAt = time.Now().Add(linger)

		if r.endsAt.Before(r.looksAt) {
			r.poke()
		}
	}

	return l.term
}

// Wait ends the linger, and returns when nothing is held and every goroutine has
// ended.
func (r *Renewer) Wait() {
	r.mu.Lock()
	r.endsAt = time.Time{}
	r.poke()
	r.mu.Unlock()

	r.goroutines.Wait()
}

// end is when the lease's term ends by both clocks, as a moment of a queue, if they go on
// at the same rate.
func (r *Renewer) end(l *Lease, now time.Time) time.Duration {
	return now.Sub(r.began) + l.term.Left(now)
}

// wait has the lease wait for its next attempt.
func (r *Renewer) wait(l *Lease, next time.Time) {
	l.next = next
	moment := next.Sub(r.began)

	r.due.drop(l)
	r.next.put(l, moment)
	r.early.put(l, moment-l.early())
}

// take takes the lease out of the queues of those that wait for an attempt.
func (r *Renewer) take(l *Lease) {
	r.next.drop(l)
	r.early.drop(l)
	r.due.drop(l)
}

// drop takes the lease out for good. The caller calls report without the mutex.
func (r *Renewer) drop(l *Lease) (report func()) {
	l.held = false
	r.take(l)
	r.ends.drop(l)

	return r.calm(l)
}

// readClocks computes the ends of all terms again if the wall clock has got ahead of the
// monotonic one since they were computed. If it has fallen behind, the ends come later than
// the queues have them. A lease at the front is then found not to have ended.
func (r *Renewer) readClocks(now time.Time) {
	ahead := now.Round(0).Sub(r.began.Round(0)) - now.Sub(r.began)

	if ahead-r.ahead > clockDrift {
		r.ends.again(func(l *Lease) time.Duration { return r.end(l, now) })
		r.due.again(func(l *Lease) time.Duration { return l.moments[byEnd] })
		r.ahead = ahead
	}

	r.ahead = min(r.ahead, ahead)
}

func (r *Renewer) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run is the loop. It ends when nothing is held.
func (r *Renewer) run(ctx context.Context) {
	defer r.goroutines.Done()

	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-timer.C:
		case <-r.wake:
		}

		todo := r.step(ctx, time.Now())
		for _, report := range todo.reports {
			report()
		}

		if todo.unused != nil {
			todo.unused.Close()
		}

		if todo.ended {
			return
		}

		timer.Reset(todo.next)
	}
}

// todo is what is left to do after a step, without the mutex.
type todo struct {
	// reports are the callbacks to call, losses first.
	reports []func()
	unused  *link // to be closed, if not nil
	next    time.Duration
	ended   bool
}

// step does what is due at now: it takes out the leases whose term has passed,
// starts at most one attempt, and says when to look again.
func (r *Renewer) step(ctx context.Context, now time.Time) (do todo) {
	r.mu.Lock()
	defer r.mu.Unlock()

	next := clockCheck

	r.readClocks(now)

	var late []func()

	for a := range r.attempts {
		if a.doubled {
			continue
		}

		if left := a.overdue.Sub(now); left > 0 {
			next = min(next, left)

			continue
		}

		late = append(late, r.double(a, now))
	}

	for l := r.ends.first(); l != nil; l = r.ends.first() {
		left, ahead := l.term.Left(now), l.moments[byEnd]-now.Sub(r.began)
		if left > 0 && ahead > 0 {
			next = min(next, left, ahead)

			break
		}

		if left > 0 { // the wall clock was set back
			r.ends.put(l, r.end(l, now))

			continue
		}

		// Another may follow, and need the connection that is being opened.
		r.endsAt = now.Add(linger)

		loss := Loss{Cause: l.cause(now)}
		do.reports = append(do.reports, func() { l.OnLost(loss) })
		late = append(late, r.drop(l))
	}

	do.reports = append(do.reports, late...)

	for l := r.next.first(); l != nil; l = r.next.first() {
		if ahead := l.next.Sub(now); ahead > 0 {
			next = min(next, ahead)

			break
		}

		r.take(l)
		r.due.put(l, l.moments[byEnd])
	}

	if r.ends.Len() == 0 {
		if left := r.endsIn(now); left > 0 {
			next = min(next, left)
		} else {
			do.ended = true
			do.unused = r.rest()

			return do
		}
	}

	switch {
	case r.due.Len() == 0:
	case r.mayStart(now):
		a := r.start(ctx, now, r.batch(now))
		next = min(next, a.overdue.Sub(now))
	default:
		next = min(next, r.hurry(now))
	}

	do.next = max(next, time.Microsecond)
	r.looksAt = now.Add(do.next)

	return do
}

// double ends the patience with an attempt: its leases may be part of another now.
func (r *Renewer) double(a *attempt, now time.Time) (report func()) {
	var urgent *Lease

	a.doubled = true

	for _, l := range a.leases {
		if l.attempt == a {
			l.attempt = nil
			r.wait(l, now)
		}

		// Else it was renewed since, by an attempt beside this one.
		if l.held && !l.term.Sent.After(a.began) {
			urgent = r.trouble(urgent, l, now)
		}
	}

	return r.report(urgent, now)
}

// endsIn is how long the loop goes on although nothing is held: until the linger is over, and
// no request is under way that it is too early to give up.
func (r *Renewer) endsIn(now time.Time) time.Duration {
	if r.endsAt.IsZero() {
		return 0
	}

	left := r.endsAt.Sub(now)

	for a := range r.attempts {
		if !a.opens {
			left = max(left, attemptMin-now.Sub(a.since))
		}
	}

	return left
}

// rest lets go of everything that a locker at rest doesn't own, and returns the
// session to close, if any.
func (r *Renewer) rest() *link {
	r.stop()
	r.stop = nil
	clear(r.attempts) // they are cancelled, and nobody waits for their answers

	session := r.idle
	r.idle = nil

	return session
}

// mayStart: one attempt at a time, others only beside those that are overdue.
// Where there are too many of those, the oldest on a connection that used to
// answer is cancelled, which has been silent for longest, after attemptMin. One that has
// to open its connection first is given time for that: if it were cancelled for the next,
// a server that is slow to let anybody in would never have let in one, and would have all
// the more to do.
func (r *Renewer) mayStart(now time.Time) bool {
	var oldest *attempt

	for a := range r.attempts {
		if !a.doubled {
			return false
		}

		least := attemptMin
		if a.opens {
			least = openWithin
		}

		if now.Sub(a.since) >= least && (oldest == nil || a.overdue.Before(oldest.overdue)) {
			oldest = a
		}
	}

	if len(r.attempts) < attemptLimit {
		return true
	}

	if oldest != nil {
		oldest.cancel() // its end wakes the loop
	}

	return false
}

// hurry ends the patience with the attempt under way as early as those leases
// need it that are due and have to wait for its end: its own may have far more
// time. It returns how long that is.
func (r *Renewer) hurry(now time.Time) time.Duration {
	patience := r.due.first().hurry(now)

	for a := range r.attempts {
		if overdue := now.Add(patience); !a.doubled && overdue.Before(a.overdue) {
			a.overdue = overdue
		}
	}

	return patience
}

// batch takes from the queues what goes in one statement: the most urgent of the leases
// that are due, those of its party that are due as well, and, where there is no party,
// those that will be due soon: a tenth of their interval early.
func (r *Renewer) batch(now time.Time) []*Lease {
	party := r.due.first().party

	var batch, others []*Lease

	for l := r.due.first(); l != nil && len(batch) < batchLimit && len(others) < batchLimit; l = r.due.first() {
		r.due.drop(l)

		if l.party == party {
			batch = append(batch, l)
		} else {
			others = append(others, l)
		}
	}

	for _, l := range others {
		r.due.put(l, l.moments[byEnd])
	}

	if party != 0 {
		return batch
	}

	until := now.Sub(r.began)

	for l := r.early.first(); l != nil && l.moments[byEarly] <= until && len(batch) < batchLimit; l = r.early.first() {
		r.take(l)
		batch = append(batch, l)
	}

	return batch
}

// start sends one attempt. Its request has until the last term among its leases ends, and
// attemptMin in any case; the loop watches each of them meanwhile. A connection that it has to
// open first is of use to later ones, too, and so goes on being opened after that.
func (r *Renewer) start(ctx context.Context, now time.Time, leases []*Lease) *attempt {
	var (
		left     time.Duration
		patience = leases[0].patience(now)
		renewals = make([]store.Renewal, len(leases))
	)

	for i, l := range leases {
		left = max(left, l.term.Left(now))
		patience = min(patience, l.patience(now))
		renewals[i] = store.Renewal{LockID: l.LockID, Generation: l.Generation, TTL: l.term.TTL}
	}

	ctx, cancel := context.WithCancel(ctx)
	a := &attempt{leases: leases, overdue: now.Add(patience), began: now, opens: r.idle == nil, since: now, cancel: cancel}

	for _, l := range leases {
		l.attempt = a

		if l.asked == nil {
			l.asked = a
		}
	}

	session := r.idle
	r.idle = nil
	r.attempts[a] = struct{}{}

	r.goroutines.Add(1)

	go func() {
		defer r.goroutines.Done()
		defer cancel()

		session, got := r.send(ctx, a, session, renewals, now.Add(left))
		r.finish(a, session, got)
	}()

	return a
}

// send opens the connection, unless there is one, and sends the renewals, unless their
// last term has ended by then.
func (r *Renewer) send(
	ctx context.Context, a *attempt, l *link, renewals []store.Renewal, end time.Time,
) (session *link, got answer) {
	session = l

	// A panic of the driver, or of a hook in it, costs the attempt.
	defer func() {
		if value := recover(); value != nil {
			got = answer{err: &PanicError{Value: value, Stack: debug.Stack()}}
		}
	}()

	if session == nil {
		session = &link{Session: r.open()}

		if err := session.Connect(ctx); err != nil {
			return session, answer{err: err, ended: ctx.Err() != nil}
		}

		r.opened(a)
	}

	left := time.Until(end)
	if left <= 0 {
		return session, answer{err: context.DeadlineExceeded, ended: true, unsent: true}
	}

	ctx, done := context.WithTimeout(ctx, max(left, attemptMin))
	defer done()

	results, sent, err := session.Renew(ctx, renewals)

	return session, answer{results: results, sent: sent, err: err, ended: ctx.Err() != nil}
}

// PanicError is the error of an attempt that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

// Error has the stack, too.
func (e *PanicError) Error() string {
	return fmt.Sprintf("pglocker: panic in a renewal: %v\n%s", e.Value, e.Stack)
}

func (r *Renewer) opened(a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()

	a.opens, a.since = false, time.Now()
}

// answer is what came of an attempt.
type answer struct {
	results []store.RenewResult
	sent    time.Time
	err     error
	// ended: the renewer has ended its context, and the error may be of no other cause.
	ended bool
	// unsent: its leases were over before it could be sent. The session is as good as new.
	unsent bool
}

// finish takes an attempt's answer.
func (r *Renewer) finish(a *attempt, session *link, got answer) {
	results, sent, err := got.results, got.sent, got.err

	r.mu.Lock()

	_, wanted := r.attempts[a]
	delete(r.attempts, a)

	divides := err != nil && !got.ended && store.Divides(err)
	a.gaveUp = err != nil && got.ended
	a.opens = a.opens || got.unsent // opening it has taken all the time

	if session != nil {
		session.proven = session.proven || err == nil
	}

	if wanted && (err == nil || got.unsent || divides && session.proven) && r.idle == nil {
		r.idle, session = session, nil
	}

	var (
		reports []func()
		urgent  *Lease
		refused []*Lease
		now     = time.Now()
	)

	for i, l := range a.leases {
		if !l.held {
			continue
		}

		current := l.attempt == a
		if current {
			l.attempt = nil
		}

		// The silence goes on until an attempt brings an answer.
		if !a.gaveUp && l.asked != nil && (l.asked == a || l.asked.gaveUp) {
			l.asked = nil
		}

		switch {
		case err != nil:
			if !l.term.Sent.After(a.began) { // else another attempt has renewed it since
				l.failures++

				if !a.gaveUp {
					l.lastErr, l.locked = err, false
				}

				urgent = r.trouble(urgent, l, now)
			}

			switch {
			case current && divides:
				refused = append(refused, l)
			case current:
				r.wait(l, now.Add(l.retryDelay()))
			}
		case results[i].State == store.Renewed:
			// Answers of attempts that ran side by side come in any order.
			if sent.After(l.term.Sent) {
				l.term = Term{Sent: sent, TTL: l.term.TTL, Margin: l.term.Margin}.Shown(results[i].Lease)
				r.ends.put(l, r.end(l, now))

				l.failures, l.lastErr, l.locked, l.asked, l.party = 0, nil, false, nil, 0
				expiresAt := results[i].ExpiresAt

				reports = append(reports, r.calm(l), func() { l.OnRenewed(expiresAt) })
			}

			if l.attempt == nil {
				r.wait(l, l.term.Sent.Add(l.interval()))
			}
		case results[i].State == store.RenewBusy:
			if current {
				l.failures++
				l.locked, l.lastErr = true, nil

				r.wait(l, now.Add(l.retryDelay()))
			}

			// Before that it is no trouble: a guarded transaction locks the row now and then.
			if l.locked && l.term.Left(now) < l.term.usable()/2 {
				urgent = r.trouble(urgent, l, now)

				if l.OnLocked != nil {
					reports = append(reports, l.OnLocked)
				}
			}
		default:
			r.endsAt = now.Add(linger)
			loss := Loss{Gone: true, Cause: l.cause(now)}
			reports = append(reports, func() { l.OnLost(loss) }, r.drop(l))
		}
	}

	r.divide(refused, now)
	reports = append(reports, r.report(urgent, now))
	r.poke()
	r.mu.Unlock()

	for _, report := range reports {
		report()
	}

	if session != nil {
		session.Close()
	}
}

// divide has leases that were refused together asked for again by halves. One that is
// alone stays so until it is renewed.
func (r *Renewer) divide(refused []*Lease, now time.Time) {
	half := (len(refused) + 1) / 2

	for _, party := range [][]*Lease{refused[:half], refused[half:]} {
		if len(party) == 0 {
			continue
		}

		r.parties++

		// All of them at the same moment, or they wouldn't go together.
		next := now.Add(party[0].retryDelay())

		for _, l := range party {
			l.party = r.parties
			r.wait(l, next)
		}
	}
}

// trouble counts a lease as one in trouble. It returns the one of both that is lost first.
func (r *Renewer) trouble(urgent, l *Lease, now time.Time) *Lease {
	if !l.troubled {
		l.troubled = true
		r.troubled++
	}

	if urgent == nil || l.term.Left(now) < urgent.term.Left(now) {
		return l
	}

	return urgent
}

// calm ends the trouble of a lease. The caller calls report without the mutex.
func (r *Renewer) calm(l *Lease) (report func()) {
	if !l.troubled {
		return func() {}
	}

	l.troubled = false
	r.troubled--

	if r.troubled > 0 || r.onTrouble == nil {
		return func() {}
	}

	return func() { r.onTrouble(Trouble{}) }
}

// report tells of a trouble, if there is one. What it returns is to be called without the
// mutex.
func (r *Renewer) report(urgent *Lease, now time.Time) func() {
	if urgent == nil || r.onTrouble == nil {
		return func() {}
	}

	trouble := Trouble{
		Locks: r.troubled, LockID: urgent.LockID, Generation: urgent.Generation,
		Left: urgent.term.Left(now), Cause: urgent.cause(now),
	}

	return func() { r.onTrouble(trouble) }
}
