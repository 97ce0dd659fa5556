package pglocker

import (
	"context"
	"database/sql"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// session renews leases over a connection of its own, so that an application
// that has its whole pool in use doesn't lose its locks. Where the driver can't
// be asked for one, it takes connections from the pool.
type session struct {
	locker *Locker
	store  *store.Store
	own    *sql.DB // nil where there is none
}

func (l *Locker) newSession() *session {
	own, ok := store.OpenOwn(l.db)
	if !ok {
		return &session{locker: l, store: l.store}
	}

	return &session{locker: l, store: l.store.On(own), own: own}
}

// Connect does nothing where renewals share the pool: a connection of that may be taken
// by others at any time.
func (s *session) Connect(ctx context.Context) error {
	if s.own == nil {
		return nil
	}

	span := s.locker.watch.start(ctx, OperationRenew, "", 0)
	err := s.store.Connect(span.ctx)
	span.end(err)

	return err
}

func (s *session) Renew(ctx context.Context, renewals []store.Renewal) ([]store.RenewResult, time.Time, error) {
	span := s.locker.watch.start(ctx, OperationRenew, "", len(renewals))
	results, sent, err := s.store.Renew(span.ctx, renewals)
	span.end(err)

	return results, sent, err
}

// opened opens the connection of a session that others may share, unless it is open or there
// is no session. It takes as long as that takes, up to a lease that has d left: by attempts
// that are short for its sake, a server that is slow to let anybody in would never be reached.
func (s *session) opened(ctx context.Context, d time.Duration) error {
	if s == nil || s.own == nil {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, attemptFor(d))
	defer cancel()

	return s.store.Connect(ctx)
}

func (s *session) Close() {
	if s.own != nil {
		_ = s.own.Close() // nothing was left to be said on it
	}
}
