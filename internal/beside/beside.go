// Package beside has connections beside the application's pool, for renewals, and for releases that the pool
// gives no connection.
package beside

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

const (
	// maxRenewing and maxReleasing bound the connections, with dead ones that the driver doesn't let go of.
	// Four renewals may be under way at once.
	maxRenewing  = 5
	maxReleasing = 2
	// connectWithin is how long a release waits for a connection of the pool. Not every driver can be asked
	// whether one is free.
	connectWithin = 200 * time.Millisecond
)

// Pool has the connections of one Locker.
type Pool struct {
	store *store.Store
	// Open is [store.Store.OpenOwn], but for tests of drivers that can't be asked.
	Open func(name string) (*sql.DB, bool)

	// warn is called once, if renewals share the application's pool.
	warn func()

	// renewStore and releaseStore are over Config.RenewDB, nil where that isn't set.
	renewStore, releaseStore *store.Store
	// renewing and releasing have a token for each session that has a connection.
	renewing, releasing chan struct{}

	// mu guards the spare session, which exists while it has users.
	mu    sync.Mutex
	users int
	spare *Session
}

// New returns a Pool beside the connections of st. given is Config.RenewDB or nil. shared is called once, if
// the driver can't be asked for a connection.
func New(given *sql.DB, st *store.Store, shared func()) *Pool {
	p := &Pool{
		store:     st,
		Open:      st.OpenOwn,
		warn:      sync.OnceFunc(shared),
		renewing:  make(chan struct{}, maxRenewing),
		releasing: make(chan struct{}, maxReleasing),
	}

	if given != nil {
		p.renewStore, p.releaseStore = st.Beside(given, 0), st.Beside(given, 1)
	}

	return p
}

// Listening is the store over which a listener gets its connection.
func (p *Pool) Listening() *store.Store { return cmp.Or(p.renewStore, p.store) }

// GiveUpOpening ends the opening of connections that nobody waits for.
func (p *Pool) GiveUpOpening() {
	if p.renewStore != nil {
		p.renewStore.GiveUpOpening()
		p.releaseStore.GiveUpOpening()
	}
}

// Session has one connection: of Config.RenewDB, or made as the pool's are. Where the driver can't be asked
// for one, it takes connections from the pool.
type Session struct {
	Store *store.Store
	// places bounds the sessions with a connection, nil where they share the pool. placing is held while a
	// user takes this session's place, and placed says that it has one.
	places, placing chan struct{}
	placed          bool
	// owned: the handle is this session's, which closes it.
	owned bool
}

// ForRenewals returns a session for renewals.
func (p *Pool) ForRenewals() *Session {
	return p.session(p.renewStore, store.RenewName, p.renewing)
}

func (p *Pool) session(given *store.Store, name string, places chan struct{}) *Session {
	s := &Session{Store: given, places: places, placing: make(chan struct{}, 1)}
	if given != nil {
		return s
	}

	own, ok := p.Open(name)
	if !ok {
		p.warn()

		return &Session{Store: p.store}
	}

	s.Store, s.owned = p.store.On(own), true

	return s
}

// Shared reports whether the session shares the pool.
func (s *Session) Shared() bool { return s.places == nil }

// Connect opens the connection, unless it is open or the session shares the pool.
func (s *Session) Connect(ctx context.Context) error {
	if s.Shared() {
		return nil
	}

	if err := s.place(ctx); err != nil {
		return err
	}

	return s.Store.Connect(ctx)
}

func (s *Session) place(ctx context.Context) error {
	select {
	case s.placing <- struct{}{}:
		defer func() { <-s.placing }()
	case <-ctx.Done():
		return Err(ctx)
	}

	if s.placed {
		return nil
	}

	select {
	case s.places <- struct{}{}:
		s.placed = true

		return nil
	case <-ctx.Done():
		return fmt.Errorf("pglocker: nothing was sent, the driver has not returned from %d earlier connections: %w",
			cap(s.places), Err(ctx))
	}
}

// Close closes the connection. Its place is free when the driver has let go of it.
func (s *Session) Close() {
	leave := func() {}
	if s.placed {
		leave = func() { <-s.places }
	}

	if s.owned {
		s.Store.Close(leave)
	} else {
		leave()
	}
}

// Caller asks over the pool first, and from the second attempt on over the spare session, which all callers
// share. The user calls Done.
type Caller struct {
	pool  *Pool
	asked bool
	spare *Session
}

// Caller returns a new one.
func (p *Pool) Caller() *Caller { return &Caller{pool: p} }

// ErrOver is why nothing is asked any more.
var ErrOver = fmt.Errorf("the lease is over: %w", context.DeadlineExceeded)

// Ask makes one attempt, for most as [Attempt] bounds it. It goes over the spare session at once if the pool
// is in use, or gives no connection in time. Connecting is bounded by the end of the lease, not by most: a
// server may be slow to accept a connection.
func (c *Caller) Ask(ctx context.Context, until time.Time, most time.Duration, ask func(context.Context, *store.Store) error) error {
	if !c.asked && !c.pool.store.Exhausted() {
		c.asked = true

		attempt := store.NewAttempt(ctx, connectWithin, Attempt(min(most, time.Until(until))))
		err := ask(attempt, c.pool.store)

		attempt.End()

		// It may have been sent, and answered, at the moment when it was given up.
		if !attempt.Unsent() || !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnknownOutcome) {
			return err
		}
	}

	if c.spare == nil {
		c.asked, c.spare = true, c.pool.use()
	}

	opening, cancel := context.WithTimeout(ctx, Attempt(time.Until(until)))
	defer cancel()

	if err := c.spare.Connect(opening); err != nil {
		return err
	}

	if !time.Now().Before(until) {
		return ErrOver
	}

	attempt, cancel := context.WithTimeout(ctx, Attempt(min(most, time.Until(until))))
	defer cancel()

	return ask(attempt, c.spare.Store)
}

// Done lets go of the spare session, which its last user closes.
func (c *Caller) Done() {
	if c.spare == nil {
		return
	}

	p := c.pool

	p.mu.Lock()
	defer p.mu.Unlock()

	p.users--
	if p.users == 0 {
		p.spare.Close()
		p.spare = nil
	}
}

func (p *Pool) use() *Session {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.users++
	if p.users == 1 {
		p.spare = p.session(p.releaseStore, store.ReleaseName, p.releasing)
	}

	return p.spare
}

// AttemptMax bounds one attempt: its connection may be dead without anybody knowing.
const AttemptMax = 5 * time.Second

// Attempt is for how long one attempt goes on that should take d at most.
func Attempt(d time.Duration) time.Duration { return min(max(d, keepalive.AttemptMin), AttemptMax) }

// Err is the error of a context that has ended, with the cause that its owner gave.
func Err(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		err = fmt.Errorf("%w: %w", err, cause)
	}

	return err
}
