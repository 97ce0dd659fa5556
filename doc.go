// Package pglocker provides distributed locks on PostgreSQL: leases with fencing
// tokens, kept in the rows of one table.
//
// # Which layer to pick
//
// [Locker.Do] runs a function while it holds a lock. It renews the lease, tells
// the function through its context when the lock can't be trusted any more, and
// releases the lock at the end. Take this one unless you have a reason not to.
//
// [Locker.Lock], which waits, and [Locker.TryLock] return a [Lock] that is held
// until [Lock.Unlock]: the same for work that isn't a function call. In both,
// [Guard] ties a transaction to the lock of its context.
//
// The lease verbs are one statement each, for programs that keep the
// [LockStatus] themselves, such as one that hands it from one request to the next:
// [Locker.CreateLock], [Locker.GetLockStatus], [Locker.AcquireLock],
// [Locker.RefreshLock], [Locker.ReleaseLock]. They start no goroutine. Nobody
// watches such a lease; the caller counts its TTL from before the call that
// granted it. [Locker.StartRelocker] keeps one alive.
//
// # The protocol
//
// A lock is a row:
//
//	lock_id     which lock
//	generation  the fencing token
//	expires_at  the lock is held while expires_at > clock_timestamp()
//
// These columns are the whole protocol. Each step is one statement in a
// transaction of its own, and the database alone decides it:
//
//	create   no row            generation 1, expired
//	acquire  expired           generation + 1, expires_at := now + TTL
//	refresh  same generation   generation + 1, expires_at := now + TTL
//	renew    same generation,  expires_at := now + TTL
//	         not expired
//	release  same generation   generation + 1, expires_at := now
//
// Refresh is a compare-and-swap: it works on an expired lock too, if nobody took
// it since. Renew is what Do uses: the token stays the same for the whole tenure,
// and a lease that has ended is never revived. A lock that doesn't exist is
// created by its first grant, as if it had been there with generation 1.
//
// After a standby was promoted, "generation + 1" starts from a floor that the
// server's timeline gives, above all that earlier timelines issued. A standby that
// was promoted without the last commits so can't issue a token twice.
//
// Three more columns are optional: owner and acquired_at, which say who holds the
// lock since when, and contended_until, by which waiters ask to be notified of the
// release; without it they poll. owner is different for each grant, so that a grant
// whose reply was lost can be found again and settled; without that column it is left
// to expire.
//
// # Clocks
//
// The end of a lease is told by the database's clock alone. A holder doesn't
// compare that time with its own clock. It counts: from the moment before it sent
// the request, by its monotonic clock or its wall clock, whichever has moved
// further, for the TTL, or the shorter lease that the row shows, less
// [Config.SafetyMargin]. The lease in the database begins later, so the holder is
// always the first to stop believing in it, also when the database hangs or can't be
// reached.
//
// # What is promised
//
// Tokens of a lock strictly increase with every grant, whatever happens. Only one
// holder believes in a lock at a time, as long as the database loses no commits,
// its clock doesn't jump by more than the margin, and the holder's process isn't
// paused. For those cases there are the guard, for transactions in the same
// database, and the token, [Lock.Token] or the generation of the status: a resource
// that refuses tokens smaller than the largest it has seen is safe in all of them.
// docs/guarantees.md in the repository says it in full.
//
// An outcome that nobody knows is an error of its own, [ErrUnknownOutcome], and is
// neither held nor free.
package pglocker
