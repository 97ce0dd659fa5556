// Package pglocker provides distributed locks on PostgreSQL: leases with fencing tokens, kept in the rows of
// one table.
//
// # Which layer to pick
//
// [Locker.Do] runs a function while it holds a lock. It renews the lease, cancels the function's context when
// the lock can't be trusted any more, and releases the lock at the end. Take this one unless you have a
// reason not to.
//
// [Locker.Lock], which waits, and [Locker.TryLock] return a [Lock] that is held until [Lock.Unlock], for work
// that isn't a function call. In both, [Guard] ties a transaction to the lock of its context.
//
// The lease verbs are one statement each, for programs that keep the [LockStatus] themselves, such as one
// that hands it from one request to the next: [Locker.CreateLock], [Locker.GetLockStatus],
// [Locker.AcquireLock], [Locker.RefreshLock], [Locker.ReleaseLock]. Nobody watches such a lease: the caller
// counts its TTL from before the call that granted it. [Locker.StartRelocker] keeps it alive.
//
// # The protocol
//
// A lock is a row:
//
//	lock_id     which lock
//	generation  the fencing token
//	expires_at  the lock is held while expires_at > clock_timestamp()
//
// Each step is one statement in a transaction of its own, and the database alone decides it:
//
//	create   no row            generation 1, expired
//	acquire  expired           generation + 1, expires_at := now + TTL
//	refresh  same generation   generation + 1, expires_at := now + TTL
//	renew    same generation,  expires_at := now + TTL
//	         not expired
//	release  same generation   generation + 1, expires_at := now
//
// Refresh works on an expired lock too, if nobody took it since. Renew is what Do uses: the token stays the
// same, and a lease that has ended is never revived. The first grant of a lock creates its row. After the
// promotion of a standby, tokens start above all that the server issued before.
//
// Three more columns are optional. owner and acquired_at say who holds the lock since when, and let a grant
// whose reply was lost be found and released; without them it expires. By contended_until waiters ask to be
// notified of the release; without it they poll.
//
// # Clocks
//
// The database's clock alone tells the end of a lease. A holder counts the TTL by its own clocks, from the
// moment before it sent the request, less [Config.SafetyMargin]. The lease in the database begins later, so
// the holder is the first to stop believing in it, even if the database hangs.
//
// # What is promised
//
// Tokens of a lock strictly increase with every grant. Only one holder believes in a lock at a time, as long
// as the database loses no commits, its clock doesn't jump by more than the margin, and the holder's process
// isn't paused. [Guard] covers those cases for transactions in the same database. The token covers them for
// any resource that refuses tokens smaller than the largest it has seen. An unknown outcome,
// [ErrUnknownOutcome], is neither held nor free. docs/guarantees.md in the repository says it in full.
package pglocker
