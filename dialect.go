package pglocker

import "github.com/ismurov/pglocker/internal/store"

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

func (d Dialect) store() store.Dialect { return dialects[d] }
