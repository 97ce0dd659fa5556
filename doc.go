// Package pglocker provides distributed locks on PostgreSQL: leases with fencing tokens, kept in the
// rows of one table.
//
// # Which layer to pick
//
// [Locker.Do] runs a function while it holds a lock. It renews the lease, cancels the function's
// context when the lock can't be trusted any more, and releases the lock at the end. Take this one
// unless you have a reason not to.
//
// [Locker.Lock], which waits, and [Locker.TryLock] return a [Lock] that is held until [Lock.Unlock].
// They do the same for work that isn't a function call. In both, [Guard] ties a transaction to the
// lock of its context.
//
// The lease verbs are one statement each, for programs that keep the [LockStatus] themselves, such as
// one that hands it from one request to the next: [Locker.CreateLock], [Locker.GetLockStatus],
// [Locker.AcquireLock], [Locker.RefreshLock], [Locker.ReleaseLock]. They start no goroutine, and
// nobody watches the lease. The caller counts its TTL from before the call that granted it.
// [Locker.StartRelocker] keeps a lease alive.
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
// Refresh works on an expired lock too, if nobody took it since. Renew is what Do uses: the token
// stays the same until the release, and a lease that has ended is never revived. A lock that doesn't
// exist is created by its first grant, as if it had been there with generation 1.
//
// After the promotion of a standby, "generation + 1" starts above all tokens that earlier timelines
// of the server issued. A standby that lacks the last commits can't issue a token twice.
//
// Three more columns are optional. owner and acquired_at say who holds the lock since when. Each
// grant has an owner of its own, by which a grant whose reply was lost is found and released; without
// the column it expires. By contended_until waiters ask to be notified of the release; without it
// they poll.
//
// # Clocks
//
// The database's clock alone tells the end of a lease. A holder doesn't compare that time with its
// own clock. It counts the TTL from the moment before it sent the request, less
// [Config.SafetyMargin]. It goes by its monotonic or its wall clock, whichever has moved further, and
// by the row if that shows a shorter lease. The lease in the database begins later, so the holder is
// the first to stop believing in it, even if the database hangs or can't be reached.
//
// # What is promised
//
// Tokens of a lock strictly increase with every grant. Only one holder believes in a lock at a time,
// as long as the database loses no commits, its clock doesn't jump by more than the margin, and the
// holder's process isn't paused. The guard covers those cases for transactions in the same database.
// The token, [Lock.Token] or the generation of the status, covers them for any resource that refuses
// tokens smaller than the largest it has seen. docs/guarantees.md in the repository says it in full.
//
// An unknown outcome is an error of its own, [ErrUnknownOutcome], and is neither held nor free.
package pglocker
