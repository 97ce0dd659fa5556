// Package pglocker provides distributed locks on PostgreSQL. A lock is a row of a table. Its holder has a
// lease, which ends by itself unless it is renewed, and a fencing token, a number larger than that of every
// holder before. A [Locker] takes the locks of one table.
//
// # Which layer to pick
//
// [Locker.Do] runs a function while it holds a lock. It renews the lease, cancels the function's context when
// the lock can't be trusted any more, and releases the lock at the end. Take this one unless you have a
// reason not to.
//
// [Locker.Lock], which waits, and [Locker.TryLock], which doesn't, return a [Lock] that is held until
// [Lock.Unlock]. Take these for work that isn't a function call. With Do and with these, [Guard] lets a
// transaction commit only while the lock of its context is held.
//
// The lease verbs are [Locker.CreateLock], [Locker.GetLockStatus], [Locker.AcquireLock], [Locker.RefreshLock]
// and [Locker.ReleaseLock]. Each is one statement. They are for programs that keep the [LockStatus]
// themselves, such as one that hands it from one request to the next. The Locker doesn't watch such a lease:
// the caller counts its TTL, the length of the lease, from before the call that granted it.
// [Locker.StartRelocker] renews it.
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
// Do renews: the token stays the same, and a lease that has ended is never revived. Refresh works on an
// expired lock too, if it was not granted to another since. The first grant of a lock creates its row. After
// the promotion of a standby, tokens start above all that the old server issued.
//
// Three more columns are optional:
//
//   - owner and acquired_at say who holds the lock, and since when. With them the Locker finds and releases
//     a grant whose reply was lost. Without them such a grant expires.
//   - By contended_until a call that waits for the lock asks to be notified of the release. Without it such
//     calls poll: they ask again and again.
//
// # Clocks
//
// A lease ends by the database's clock. A holder counts the TTL by its own clocks, from before it sent the
// request, and stops [Config.SafetyMargin] earlier. The lease in the database begins later than that count.
// So the holder stops believing that it has the lock before the lease ends, even if the database hangs.
//
// # What is promised
//
// Tokens of a lock strictly increase with every grant. Only one holder at a time believes that it has the
// lock, as long as the database loses no commits, its clock doesn't jump by more than the safety margin, and
// the holder's process isn't paused. [Guard] covers those cases for transactions in the same database. The
// token covers them for any resource that refuses tokens smaller than the largest it has seen. A request whose
// reply was lost has an unknown outcome, [ErrUnknownOutcome]: it is neither taken for granted nor for refused.
// docs/guarantees.md in the repository says all this in full.
package pglocker
