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
package keepalive

import (
	"context"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// Session renews leases over one connection. It is used by one attempt at a
// time. After an error it is closed and not used again.
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
)

// Renewer keeps leases alive. The zero value is not usable.
type Renewer struct {
	open func() Session

	// mu guards what follows and the leases' own state. It is never held while
	// the database is asked or a callback runs.
	mu     sync.Mutex
	leases map[*Lease]struct{}
	// stop ends the running loop and its attempts; nil while nothing is held.
	stop context.CancelFunc
	// idle is the session that no attempt is using, if there is one.
	idle Session
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
}

// New returns a Renewer that owns nothing yet. open is called from a goroutine
// of the renewer when it needs a session.
func New(open func() Session) *Renewer {
	return &Renewer{
		open:     open,
		leases:   make(map[*Lease]struct{}),
		attempts: make(map[*attempt]struct{}),
		wake:     make(chan struct{}, 1),
	}
}

// Add starts to keep a lease alive whose present term is known.
func (r *Renewer) Add(l *Lease, term Term) {
	r.mu.Lock()
	defer r.mu.Unlock()

	now := time.Now()
	l.term = term
	l.next = term.Sent
	if !l.RenewNow {
		l.next = term.Sent.Add(l.interval())
	}

	r.leases[l] = struct{}{}

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
	r.mu.Lock()
	defer r.mu.Unlock()

	delete(r.leases, l)

	if len(r.leases) == 0 {
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
		for _, report := range todo.lost {
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
	lost   []func()
	unused Session // to be closed, if not nil
	next   time.Duration
	ended  bool
}

// step does what is due at now: it takes out the leases whose term has passed,
// starts at most one attempt, and says when to look again.
func (r *Renewer) step(ctx context.Context, now time.Time) (do todo) {
	r.mu.Lock()
	defer r.mu.Unlock()

	next := clockCheck

	for a := range r.attempts {
		if a.doubled {
			continue
		}

		if left := a.overdue.Sub(now); left > 0 {
			next = min(next, left)

			continue
		}

		a.doubled = true
		for _, l := range a.leases {
			if l.attempt == a {
				l.attempt, l.next = nil, now
			}
		}
	}

	var due []*Lease

	for l := range r.leases {
		left := l.term.Left(now)
		if left <= 0 {
			delete(r.leases, l)

			// Another may follow, and need the connection that is being opened.
			r.endsAt = now.Add(linger)

			loss := Loss{Err: l.lastErr}
			do.lost = append(do.lost, func() { l.OnLost(loss) })

			continue
		}

		next = min(next, left)

		if l.attempt == nil {
			if ahead := l.next.Sub(now); ahead <= 0 {
				due = append(due, l)
			} else {
				next = min(next, ahead)
			}
		}
	}

	if len(r.leases) == 0 {
		if left := r.endsIn(now); left > 0 {
			next = min(next, left)
		} else {
			do.ended = true
			do.unused = r.rest()

			return do
		}
	}

	switch {
	case len(due) == 0:
	case r.mayStart(now):
		a := r.start(ctx, now, r.fill(due, now))
		next = min(next, a.overdue.Sub(now))
	default:
		next = min(next, r.hurry(due, now))
	}

	do.next = max(next, time.Microsecond)
	r.looksAt = now.Add(do.next)

	return do
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
func (r *Renewer) rest() Session {
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
func (r *Renewer) hurry(due []*Lease, now time.Time) time.Duration {
	patience := due[0].patience(now)
	for _, l := range due[1:] {
		patience = min(patience, l.patience(now))
	}

	for a := range r.attempts {
		if overdue := now.Add(patience); !a.doubled && overdue.Before(a.overdue) {
			a.overdue = overdue
		}
	}

	return patience
}

// fill adds to what is due the leases that will be soon: a tenth of their
// interval early, so that many leases make few statements.
func (r *Renewer) fill(due []*Lease, now time.Time) []*Lease {
	for l := range r.leases {
		if len(due) >= batchLimit {
			return due[:batchLimit]
		}

		ahead := l.next.Sub(now)
		if l.attempt == nil && ahead > 0 && ahead <= min(l.Interval, l.term.TTL)/10 {
			due = append(due, l)
		}
	}

	return due
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
	}

	session := r.idle
	r.idle = nil
	r.attempts[a] = struct{}{}

	r.goroutines.Add(1)

	go func() {
		defer r.goroutines.Done()
		defer cancel()

		if session == nil {
			session = r.open()

			if err := session.Connect(ctx); err != nil {
				r.finish(a, session, answer{err: err})

				return
			}

			r.opened(a)
		}

		left := left - time.Since(now)
		if left <= 0 {
			r.finish(a, session, answer{err: context.DeadlineExceeded, unsent: true})

			return
		}

		ctx, done := context.WithTimeout(ctx, max(left, attemptMin))
		defer done()

		results, sent, err := session.Renew(ctx, renewals)
		r.finish(a, session, answer{results: results, sent: sent, err: err})
	}()

	return a
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
	// unsent: its leases were over before it could be sent. The session is as good as new.
	unsent bool
}

// finish takes an attempt's answer.
func (r *Renewer) finish(a *attempt, session Session, got answer) {
	results, sent, err := got.results, got.sent, got.err

	r.mu.Lock()

	_, wanted := r.attempts[a]
	delete(r.attempts, a)

	if wanted && (err == nil || got.unsent) && r.idle == nil {
		r.idle, session = session, nil
	}

	var reports []func()

	now := time.Now()

	for i, l := range a.leases {
		if _, held := r.leases[l]; !held {
			continue
		}

		current := l.attempt == a
		if current {
			l.attempt = nil
		}

		switch {
		case err != nil:
			if !l.term.Sent.After(a.began) { // else another attempt has renewed it since
				l.failures++
				l.lastErr = err
			}

			if current {
				l.next = now.Add(l.retryDelay())
			}
		case results[i].State == store.Renewed:
			// Answers of attempts that ran side by side come in any order.
			if sent.After(l.term.Sent) {
				l.term.Sent = sent
				l.failures, l.lastErr = 0, nil
				expiresAt := results[i].ExpiresAt

				reports = append(reports, func() { l.OnRenewed(expiresAt) })
			}

			if l.attempt == nil {
				l.next = l.term.Sent.Add(l.interval())
			}
		case results[i].State == store.RenewBusy:
			if current {
				l.failures++
				l.next = now.Add(l.retryDelay())
			}
		default:
			delete(r.leases, l)

			r.endsAt = now.Add(linger)
			loss := Loss{Gone: true, Err: l.lastErr}
			reports = append(reports, func() { l.OnLost(loss) })
		}
	}

	r.poke()
	r.mu.Unlock()

	for _, report := range reports {
		report()
	}

	if session != nil {
		session.Close()
	}
}
