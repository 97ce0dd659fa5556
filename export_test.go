package pglocker

import (
	"database/sql"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
)

// SetLocalRun sets how often in a row a lock is handed over inside the process
// where others wait, before first use. Zero switches it off.
func (l *Locker) SetLocalRun(n int) { l.desk.LocalRun = n }

// What requests are called, and who a name leads back to.
var (
	NameOf         = handover.LockerOf
	ValidateLockID = validateLockID
	RecipeID       = recipeID
)

// GrantName is the name of a request.
func (l *Locker) GrantName() string { return l.desk.Names.Next() }

// Name is what the names of all requests of a Locker have in common.
func (l *Locker) Name() string { return l.desk.Names.Locker }

// GiveBack frees what a request of that name was granted.
func (l *Locker) GiveBack(lockID, grant string, ttl time.Duration) {
	l.desk.Settle(lockID, []string{grant}, ttl)
}

// ForbidOwn has the Locker find no connector, as behind drivers that can't be asked.
func (l *Locker) ForbidOwn() {
	l.desk.Beside.Open = func(string) (*sql.DB, bool) { return nil, false }
}

// SetGatherAfter sets how long a request for several locks waits before it gathers them, before first use.
func (l *Locker) SetGatherAfter(d time.Duration) { l.gatherAfter = d }

// InLine reports whether a call waits in the line of that lock.
func (l *Locker) InLine(lockID string) bool {
	head, _ := l.desk.Queue.Head(lockID)

	return head != nil
}
