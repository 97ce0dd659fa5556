// Package keepalive renews the leases of one Locker: all that are due in one statement, over a
// connection beside the application's pool.
//
// A lease is lost when the database answers that it is gone, or when its [Term] ends without an
// acknowledged renewal. A failed renewal is no loss: it is repeated. The loop, one goroutine
// while anything is held, watches the terms and never talks to the database, so a connection
// that hangs delays no loss. A term begins when its statement is sent, and ends a margin before
// the lease, by the monotonic or the wall clock, whichever leaves less.
//
// A lease is in one of four states:
//
//	state    means                             who moves a lease to it
//	waiting  its next renewal has a moment     Add, finish (an answer), endPatience (none)
//	due      the moment has come               fallDue
//	asked    the current attempt has it        start
//	over     it was removed or lost            Remove, endTerms (its term), finish (the database)
//
// The lease whose term ends first goes first. A lease that waits goes with others up to a tenth
// of its interval early. Those that one answer has renewed are a cohort, see cohort.go: the first of them stands for
// all in the queues. A lease that needs anything of its own leaves it first.
//
// An attempt is one statement on its way, in a goroutine of its own. It is the current one, and
// no other begins, until the patience with it ends. attempt.go says what happens if its
// connection hangs, answer.go what an answer does. batch.go repeats a statement that the server
// refuses by halves, until the lease that is refused is alone.
//
// When nothing was held for the linger, the loop cancels the attempts and ends. [Renewer.Wait]
// joins them all.
package keepalive
