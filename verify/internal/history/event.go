// Package history is what clients did, as they saw it. Each process has a file with a line for each
// event. A reader puts the files together.
package history

// Phase says which end of an operation an event is.
type Phase string

const (
	// Invoke comes before anything is sent, Return when the answer is there. An operation without
	// Return was cut off: its outcome is unknown.
	Invoke Phase = "invoke"
	Return Phase = "return"
	// Note is an event without an end.
	Note Phase = "note"
)

// Kind is what was done.
type Kind string

// The verbs of the library.
const (
	Create  Kind = "create"
	Get     Kind = "get"
	Acquire Kind = "acquire"
	Refresh Kind = "refresh"
	Release Kind = "release"
	Relock  Kind = "relock"
	TryLock Kind = "trylock"
	Lock    Kind = "lock"
	Do      Kind = "do" // up to the call of its function, or its refusal
	Unlock  Kind = "unlock"
	// Leave is the end of a Do, from the return of its function.
	Leave Kind = "leave"
	Guard Kind = "guard"
)

// The verbs of recipes. A request that is granted several rows is an operation for each: see
// [Event.Request].
const (
	// All is LockAll and TryLockAll, an operation for each id.
	All Kind = "lockall"
	// Permit is a semaphore's Acquire and TryAcquire. Once it is granted there is an operation for
	// each slot.
	Permit Kind = "permit"
	// RLock and WLock ask for a read-write lock.
	RLock Kind = "rlock"
	WLock Kind = "wlock"
	// Downgrade ends a writer's tenure. The reader's begins with an [RLock] of the same time.
	Downgrade Kind = "downgrade"
	// Lead is a candidate's wait, up to the call of its function. Leave ends its term.
	Lead Kind = "lead"
	// IsLeader is the question, with outcome OK if the client leads.
	IsLeader Kind = "is-leader"
	// SQL is the function acquire_lock. Release is release_lock, too.
	SQL Kind = "sql"
)

// What happens besides.
const (
	// Lost: a holder was told that its lock is lost.
	Lost Kind = "lost"
	// Renewed is a lease whose end, Expires, its holder knows to be acknowledged.
	Renewed Kind = "renewed"
	// Stall: the process didn't run between From and At.
	Stall Kind = "stall"
	// Killed and Crash are the coordinator's: a client was killed, the server may have
	// lost what wasn't flushed between From and At.
	Killed Kind = "killed"
	Crash  Kind = "crash"
	// Clock is the coordinator's, too: between From and At the database's clock was set, to
	// Value nanoseconds ahead of this machine's.
	Clock Kind = "clock"
	// RowRefused is the coordinator's: between From and At the row of the lock that Detail
	// names couldn't be changed.
	RowRefused Kind = "row-refused"
	// RowsLocked is the coordinator's: between From and At an outsider had some rows locked.
	RowsLocked Kind = "rows-locked"
	// Failover is the coordinator's: between From and At a standby took the primary's place. It had
	// everything that was acknowledged, except what a crash may undo. Answers from between may be
	// the old primary's.
	Failover Kind = "failover"
	// Loss: between From and At the standby lacked commits that were acknowledged.
	Loss Kind = "loss"
	// OldPrimary: between From and At an old primary went on granting, to the client that
	// Detail names.
	OldPrimary Kind = "old-primary"
	// Healed is the coordinator's: from At on nothing is broken any more. Detail names the clients
	// that run. Value is how many nanoseconds longer than their TTL leases may last, since the
	// database's clock was set back. The last one counts.
	Healed Kind = "healed"
	// PoolerDied is the coordinator's: the pooler ended by itself, and was started again.
	// Detail is what it had to say.
	PoolerDied Kind = "pooler-died"
	// Leak: Close left something behind. Detail says what.
	Leak Kind = "leak"
	// Grant is the coordinator's, after healing: a lock that had to be granted again.
	Grant Kind = "regrant"
	// Write is an accepted write of the fenced resource outside of the database.
	Write Kind = "write"
	// Observed is a term that an observer of an election was told of, the vacancy with token 0. Op
	// tells its observers apart.
	Observed Kind = "observed"
)

// Outcome is how an operation ended.
type Outcome string

const (
	OK   Outcome = "ok"
	Busy Outcome = "busy"
	// Lost locks and generations that are no longer current.
	OutcomeLost Outcome = "lost"
	Missing     Outcome = "missing"
	// Unknown: the library said so, or its answer leaves it open.
	Unknown Outcome = "unknown"
	// Refused: the library is certain that nothing was done.
	Refused Outcome = "error"
)

// Event is one line of a history. Times named At, From and Until are of [Now]; those of
// the database are microseconds since 1970, as it stores them.
type Event struct {
	At     int64  `json:"at"`
	Phase  Phase  `json:"phase"`
	Kind   Kind   `json:"kind"`
	Client string `json:"client"`
	// Op tells which Return belongs to which Invoke of the same client.
	Op   int64  `json:"op,omitempty"`
	Lock string `json:"lock,omitempty"`

	// Arguments, in nanoseconds.
	TTL     int64 `json:"ttl,omitempty"`
	MinHold int64 `json:"min_hold,omitempty"`
	// Waits: it waits for a lock that another holds.
	Waits bool `json:"waits,omitempty"`
	// Wait is for how long at most, where WithWait limits it.
	Wait int64 `json:"wait,omitempty"`
	// Limit is how long the request's context lets it go on, 0 if the context has no deadline.
	Limit int64 `json:"limit,omitempty"`
	// Generation is the one that the request names.
	Generation int64 `json:"generation,omitempty"`
	// Free: it was seen on a free lock.
	Free bool `json:"free,omitempty"`

	// Family is the row that a recipe's name stands for, "" for plain locks. Lock is that of the
	// slot that was granted. Until one is granted it is Family.
	Family string `json:"family,omitempty"`
	// Most is how many permits there are for the one who asks, Count how many it asks for.
	Most  int `json:"most,omitempty"`
	Count int `json:"count,omitempty"`
	// Request is the number of the request's first operation, where there may be several.
	Request int64 `json:"request,omitempty"`

	// Answers.
	Outcome  Outcome `json:"outcome,omitempty"`
	Token    int64   `json:"token,omitempty"`
	Expires  int64   `json:"expires,omitempty"`
	Acquired int64   `json:"acquired,omitempty"`
	Owner    string  `json:"owner,omitempty"`
	// Remaining is HeldError.Remaining, in microseconds.
	Remaining int64  `json:"remaining,omitempty"`
	Detail    string `json:"detail,omitempty"`

	From int64 `json:"from,omitempty"`
	// Until is when a lease taken by hand ends for its holder.
	Until int64 `json:"until,omitempty"`
	// Value is what was written to a fenced resource, or how far ahead a clock was set.
	Value int64 `json:"value,omitempty"`
}
