package pglocker

import (
	"context"

	"github.com/ismurov/pglocker/internal/store"
)

// Dialect is a dialect of SQL, see [Config.Dialect]. docs/distributed.md says what each engine takes, and what is
// promised there.
type Dialect string

const (
	// DialectPostgreSQL is for PostgreSQL, and for relatives that take its statements.
	DialectPostgreSQL Dialect = "postgresql"

	// DialectPlain is for engines that spread a table over several servers. It finds rows by the primary key
	// alone. Waiters poll. There is no [Semaphore], no [RWLock] and no [Locker.Prune]: they return
	// [ErrUnsupportedServer].
	DialectPlain Dialect = "plain"
)

var dialects = map[Dialect]store.Dialect{
	"": store.DialectByServer, DialectPostgreSQL: store.DialectFull, DialectPlain: store.DialectPlain,
}

// Dialect returns the dialect that the Locker speaks. Unless that is known, it asks the server by a grant of a lock that
// doesn't exist, which changes nothing.
//
// Errors: those of the database's state; [ErrClosed]; ctx's, when it ends; and what the driver reports.
func (l *Locker) Dialect(ctx context.Context) (Dialect, error) {
	end, err := l.desk.Begin()
	if err != nil {
		return "", err
	}
	defer end()

	spoken, err := l.store.Dialect(ctx)

	switch {
	case err != nil:
		return "", tidy(err)
	case spoken == store.DialectPlain:
		return DialectPlain, nil
	}

	return DialectPostgreSQL, nil
}

func (d Dialect) store() store.Dialect { return dialects[d] }
