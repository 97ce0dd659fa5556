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
	store *store.Store
	own   *sql.DB // nil where there is none
}

func newSession(st *store.Store, db *sql.DB) *session {
	own, ok := store.OpenOwn(db)
	if !ok {
		return &session{store: st}
	}

	return &session{store: st.On(own), own: own}
}

func (s *session) Renew(ctx context.Context, renewals []store.Renewal) ([]store.RenewResult, time.Time, error) {
	return s.store.Renew(ctx, renewals)
}

func (s *session) Close() {
	if s.own != nil {
		_ = s.own.Close() // nothing was left to be said on it
	}
}
