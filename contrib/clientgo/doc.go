// Package pglockerclientgo lets the leader election of client-go (k8s.io/client-go/tools/leaderelection), and so that of
// controller-runtime, elect by a lock of pglocker in PostgreSQL, without a Kubernetes cluster.
//
//	lock, err := pglockerclientgo.New(db, &pglocker.Config{Owner: identity}, "controller")
//	if err != nil {
//		return err
//	}
//
//	leaderelection.RunOrDie(lock.UntilLost(ctx), leaderelection.LeaderElectionConfig{Lock: lock, ...})
//
// # What keeps two from leading
//
// The elector renews the lease by compare-and-swap: it names the generation that it wrote last. A lease of another
// process is never renewed or refreshed. It can only be acquired, after it has ended by the database's clock or was
// released. No other clock counts, and neither do identities: two processes with the same identity are two.
//
//	                Create, Update: AcquireLock
//	no lease ------------------------------------> held --+
//	    ^                                           |  ^  | Update: RefreshLock, by the generation
//	    |   Update without a holder: ReleaseLock    |  +--+
//	    +-------------------------------------------+
//	    |   Get sees another grant, or none         |
//	    +-------------------------------------------+
//
// A leader must stop before its lease ends. There are two ways:
//
//   - The elector stops RetryPeriod and RenewDeadline after it was told of the last renewal. A renewal counts only if it
//     took no more than a tenth of LeaseDuration. So RetryPeriod, RenewDeadline and a tenth of LeaseDuration must
//     be less than LeaseDuration together. What is left is for clocks that run at different speeds. The usual 2 s,
//     10 s and 15 s leave 1.5 s.
//   - The context of [Lock.UntilLost] ends before the lease does, whatever those times are, and at once if a renewal finds
//     that the lease is gone.
//
// The second way is the better one. An elector that finds its lease taken, after a pause for example, goes on leading for
// RenewDeadline. It doesn't if it runs by that context.
//
// Neither way stops a process that is paused between a look at its context and a write. Give [Lock.Token] to the
// resources that the leader writes to.
//
// # The record
//
// The lock's row has all that there is. The holder's identity is [pglocker.Config.Owner]; RenewTime is acquired_at;
// LeaseDurationSeconds is the time from there to expires_at. AcquireTime and LeaderTransitions aren't kept: tokens grow
// with every term. A lease that has ended is shown without a holder, so a candidate takes it at its next try.
package pglockerclientgo
