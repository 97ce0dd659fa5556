package top

import (
	"time"

	"github.com/ismurov/pglocker"
)

// Snapshot is the table as one look saw it. Pages of a large table are read one after the other, so the rows needn't
// be of one moment.
type Snapshot struct {
	// At is when the look began, by the database's clock.
	At time.Time `json:"at"`
	// Standby: the server is one. What it shows may be old.
	Standby bool `json:"standby"`
	// Took is how long the look took.
	Took time.Duration `json:"-"`
	// NoOwners: the table has three columns. Nobody knows who holds a lock, since when, and if it is waited for.
	NoOwners bool `json:"no_owners"`

	Totals Totals `json:"totals"`
	// Changes is by how much tokens have grown each second since the look before. A grant and a release of a lock
	// are two changes. It is nil for the first look.
	Changes *float64 `json:"changes_per_second"`
	// ChangesAtLeast: the table is large, so locks that are free aren't read. Changes of a lock that was free at
	// both looks aren't counted.
	ChangesAtLeast bool `json:"changes_at_least"`

	// Rows are those that the query asked for, in its order.
	Rows []Row `json:"rows"`
	// Hidden is how many more there are.
	Hidden int `json:"rows_not_shown"`
}

// Totals counts all that was seen, whatever the query asked for.
type Totals struct {
	// Held is the leases that run: of locks, leaders, slots, readers and writers.
	Held int `json:"held"`
	// Waited is the locks and recipes that a waiter waits for.
	Waited int `json:"waited"`
	// Oldest is the longest hold. It is nil if none is known.
	Oldest *Oldest `json:"oldest_hold"`

	Locks      int `json:"locks_held"`
	Elections  int `json:"elections"`
	Led        int `json:"elections_led"`
	Semaphores int `json:"semaphores"`
	Slots      int `json:"semaphore_slots_held"`
	RWLocks    int `json:"rwlocks"`
	Readers    int `json:"readers"`
	Writers    int `json:"writers"`
}

// rows is how many rows there are: locks that are held, and recipes.
func (t *Totals) rows() int { return t.Locks + t.Elections + t.Semaphores + t.RWLocks }

// Oldest is a hold.
type Oldest struct {
	Kind  pglocker.Kind `json:"kind"`
	Name  string        `json:"name"`
	Since time.Time     `json:"acquired_at"`
}

// Row is a lock, or a recipe with all its rows.
type Row struct {
	Kind pglocker.Kind `json:"kind"`
	Name string        `json:"name"`
	// Holds are the leases that run: one of a lock or an election, several of a semaphore or of readers. None: it
	// is free.
	Holds []Hold `json:"holds"`
	// Slots is how many slots a semaphore has ever used at once, or how many readers a read-write lock had. The
	// number of permits isn't in the table.
	Slots int `json:"slots,omitempty"`
	// Waited: a waiter has marked the row.
	Waited bool `json:"waited"`
}

// Hold is one lease.
type Hold struct {
	LockID string `json:"id"`
	// Slot is the number of a semaphore's slot or of a reader, 0 for all others.
	Slot  int       `json:"slot,omitempty"`
	Token int64     `json:"token"`
	Owner string    `json:"owner,omitempty"`
	Since time.Time `json:"acquired_at,omitzero"`
	Until time.Time `json:"expires_at"`
}

// rowKey names a row among all others.
type rowKey struct {
	kind pglocker.Kind
	name string
}

func (r *Row) key() rowKey { return rowKey{r.Kind, r.Name} }

// since is when the oldest hold began, zero if that isn't known.
func (r *Row) since() (since time.Time) {
	for _, h := range r.Holds {
		if !h.Since.IsZero() && (since.IsZero() || h.Since.Before(since)) {
			since = h.Since
		}
	}

	return since
}

// until is when the first of the leases ends.
func (r *Row) until() (until time.Time) {
	for i, h := range r.Holds {
		if i == 0 || h.Until.Before(until) {
			until = h.Until
		}
	}

	return until
}

// token is the largest.
func (r *Row) token() (token int64) {
	for _, h := range r.Holds {
		token = max(token, h.Token)
	}

	return token
}

// writes reports whether a writer holds this read-write lock.
func (r *Row) writes() bool {
	return r.Kind == pglocker.KindRWLock && len(r.Holds) > 0 && r.Holds[0].Slot == 0
}

// single: it is one row of the table.
func (r *Row) single() bool { return r.Kind == pglocker.KindLock || r.Kind == pglocker.KindElection }

// prefix begins the ids of the rows of a recipe, and is the id of a lock and of an election.
func (r *Row) prefix() string {
	switch r.Kind {
	case pglocker.KindSemaphore, pglocker.KindRWLock:
		return pglocker.ReservedPrefix + string(r.Kind) + ":" + r.Name + ":"
	case pglocker.KindElection:
		return pglocker.ReservedPrefix + string(r.Kind) + ":" + r.Name
	}

	return r.Name
}
