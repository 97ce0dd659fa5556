package pglocker

import (
	"context"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

const (
	// maxRenewing and maxReleasing bound the connections of a Locker's own, with the dead
	// ones that the driver doesn't let go of. Four renewals may be under way at once. With
	// the listener's connection there are eight.
	maxRenewing  = 5
	maxReleasing = 2
)

// session sends renewals, or releases, over a connection that isn't the pool's, so that
// an application that has its whole pool in use doesn't lose its locks: over one of
// [Config.RenewDB], or else one that is made as the pool's are. Where the driver can't be
// asked for one, it takes connections from the pool.
type session struct {
	locker *Locker
	store  *store.Store
	// places bounds the sessions that have a connection, nil where they share the pool;
	// placed says that this one is among them.
	places chan struct{}
	placed bool
	// owned: the handle is this session's, which closes it.
	owned bool
}

// newSession is for renewals.
func (l *Locker) newSession() *session {
	return l.sessionBeside(l.renewStore, store.RenewName, l.renewing)
}

// newSpare is for releases.
func (l *Locker) newSpare() *session {
	return l.sessionBeside(l.releaseStore, store.ReleaseName, l.releasing)
}

func (l *Locker) sessionBeside(given *store.Store, name string, places chan struct{}) *session {
	if given != nil {
		return &session{locker: l, store: given, places: places}
	}

	own, ok := l.openOwn(l.db, name)
	if !ok {
		l.warnShared()

		return &session{locker: l, store: l.store}
	}

	return &session{locker: l, store: l.store.On(own), places: places, owned: true}
}

// warnShared logs once that renewals share the pool, and what that costs.
func (l *Locker) warnShared() {
	l.sharedOnce.Do(func() {
		l.log.Warn("pglocker: the driver can't be asked for a connection beside the pool, so renewals share it:" +
			" an application that uses up its pool for longer than its leases loses its locks; set Config.RenewDB")
	})
}

// Connect does nothing where renewals share the pool: a connection of that may be taken
// by others at any time.
func (s *session) Connect(ctx context.Context) error {
	if s.places == nil {
		return nil
	}

	span := s.locker.watch.start(ctx, OperationRenew, "", 0)

	err := s.place(span.ctx)
	if err == nil {
		err = s.store.Connect(span.ctx)
	}

	span.end(err)

	return err
}

// place waits for the session's place among those with a connection.
func (s *session) place(ctx context.Context) error {
	if s.placed {
		return nil
	}

	select {
	case s.places <- struct{}{}:
		s.placed = true

		return nil
	case <-ctx.Done():
		return fmt.Errorf("pglocker: nothing was sent, the driver has not returned from %d earlier connections: %w",
			cap(s.places), ended(ctx))
	}
}

func (s *session) Renew(ctx context.Context, renewals []store.Renewal) ([]store.RenewResult, time.Time, error) {
	span := s.locker.watch.start(ctx, OperationRenew, "", len(renewals))
	results, sent, err := s.store.Renew(span.ctx, renewals)
	span.end(err)

	return results, sent, err
}

func (s *session) Close() {
	leave := func() {}
	if s.placed {
		leave = func() { <-s.places }
	}

	if s.owned {
		s.store.Close(leave)
	} else {
		leave()
	}
}
